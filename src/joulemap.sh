#!/bin/sh
# The command. Ctrl-C is held back until joulemap itself takes it: while Python starts, before any
# line of joulemap, it would end in a traceback. The program beside this one knows its interpreter.
program=$0
if [ -L "$program" ]; then program=$(readlink -f -- "$program"); fi
case $program in */*) ;; *) program=./$program ;; esac
start=${program%/*}/joulemap-python
if env --block-signal=INT true 2>/dev/null; then exec env --block-signal=INT "$start" "$@"; fi
exec "$start" "$@"

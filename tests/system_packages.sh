#!/bin/sh
# Installs the Debian packages whose programs are missing; where it may not, says how, and fails.
#
#   tests/system_packages.sh [--optional] PACKAGE[:PROGRAM]...
#
# With --optional it installs nothing that needs a password and never fails: it says what will not work.
# python3-venv:PYTHON is there where that interpreter can make virtual environments.
set -u
PATH="$PATH:/usr/sbin:/sbin"
optional=no
if [ "${1:-}" = --optional ]; then optional=yes; shift; fi

is_there() {
  case $1 in
    python3-venv) "$2" -c 'import ensurepip, venv' >/dev/null 2>&1 ;;
    *) command -v "$2" >/dev/null 2>&1 ;;
  esac
}

missing_of() {
  missing="" programs=""
  for pair in "$@"; do
    package=${pair%%:*} program=${pair#*:}
    is_there "$package" "$program" && continue
    missing="$missing $package" programs="$programs $program"
  done
}

give_up() {
  echo "$1" >&2
  [ $optional = yes ] && exit 0
  exit 1
}

missing_of "$@"
[ -z "$missing" ] && exit 0
line="apt-get update && apt-get install -y --no-install-recommends$missing"

if ! command -v apt-get >/dev/null 2>&1; then
  system=$(. /etc/os-release 2>/dev/null && echo "${PRETTY_NAME:-}")
  give_up "missing:$programs. This system (${system:-unknown}) has no apt-get: install them with its own package \
manager; on Debian and Ubuntu they come with$missing"
fi
if [ "$(id -u)" = 0 ]; then
  as=""
elif command -v sudo >/dev/null 2>&1 && sudo -n true >/dev/null 2>&1; then
  as="sudo -n"
else
  give_up "missing:$programs. Neither root nor sudo without a password is at hand; run as root:
$line"
fi

echo "installing:$missing" >&2
export DEBIAN_FRONTEND=noninteractive
if ! { $as apt-get update -qq && $as env DEBIAN_FRONTEND=noninteractive \
  apt-get install -y -qq --no-install-recommends $missing >/dev/null; }; then
  give_up "apt-get failed; the reason stands above. Once it is mended, run as root:
$line"
fi
missing_of "$@"
[ -z "$missing" ] && exit 0
give_up "still missing after the installation of$missing:$programs; a program of another place (make PYTHON=...) has \
to come from where it came from"

"""Writes saved settings back when the process that changed them dies, whatever it dies of.

This file runs as a program of its own, with nothing but the standard library. On standard input
comes one line, the settings as JSON; the answer `armed` says that they are safe here. From then on
it sleeps until its input ends. If the last thing it read was `done` there is nothing left to do,
else the other side died and the settings are written back.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence

DONE = b"done\n"
ARMED = b"armed\n"


def write_setting(path: str, text: str) -> None:
    """Write one setting to its file, as `echo` would.

    Raises:
        OSError: It is not permitted, or the kernel refuses the value.
    """
    # Not created where it is missing: this is the kernel's file or none.
    fd = os.open(path, os.O_WRONLY | os.O_TRUNC)
    try:
        os.write(fd, text.encode() + b"\n")
    finally:
        os.close(fd)


def write_back(settings: Sequence[tuple[str, str]]) -> list[str]:
    """Write all settings back, each in spite of others' failures; return the failures in words.

    Args:
        settings: Files and what they held, in the order of writing.
    """
    failures = []
    for path, text in settings:
        try:
            write_setting(path, text)
        except OSError as error:
            failures.append(f"{path} could not be set back to '{text}': {error.strerror}")
    return failures


def main() -> None:
    """Take the settings, wait for the end of the input, write them back unless told otherwise."""
    # What ends the measuring program must not end this one before it has done its duty.
    for name in ("SIGHUP", "SIGINT", "SIGTERM"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    settings = [(str(path), str(text)) for path, text in json.loads(sys.stdin.buffer.readline())]
    sys.stdout.buffer.write(ARMED)
    sys.stdout.buffer.flush()
    # The answer's pipe is let go: nobody may wait for its end while the agent lives.
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    if sys.stdin.buffer.read() != DONE:
        write_back(settings)


if __name__ == "__main__":
    main()

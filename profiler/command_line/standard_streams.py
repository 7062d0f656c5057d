"""What becomes of a command's output where it goes nowhere: a full disk, a reader that has gone."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Callable
from typing import IO

# What the system says where output cannot be written; errors of files say which file besides.
_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF, errno.EPIPE}
WRITE_FAILED = 1


def prepare() -> None:
    """Let every text be written, and no file that is opened later take a standard stream's place."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest free number: this one.
            os.open(os.devnull, os.O_RDWR)
    if sys.stdout is None:
        sys.stdout = _nowhere()
    if sys.stderr is None:
        sys.stderr = _nowhere()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A name may hold bytes that are no text, a terminal may know few letters.
            stream.reconfigure(errors="backslashreplace")


def is_about_output(error: OSError) -> bool:
    """Return whether an error came of writing to standard output or standard error."""
    return error.errno in _ERRNOS and error.filename is None


def finish(code: int, say: Callable[[str], None]) -> int:
    """Write what is still to be written and return the command's exit code.

    Args:
        code: The exit code so far.
        say: Prints a sentence on standard error.
    """
    problem = _flushed(sys.stdout)
    if problem is not None:
        # To a reader that has enough, such as `head`, there is nothing to be said.
        if problem.errno != errno.EPIPE:
            say(problem_text(problem))
        code = code or WRITE_FAILED
    _flushed(sys.stderr)
    return code


def problem_text(error: OSError) -> str:
    """Return what is said of output that cannot be written."""
    return (
        f"joulemap: the output cannot be written: {error.strerror}; what was written to files is "
        "complete"
    )


def _flushed(stream: IO[str]) -> OSError | None:
    """Return why a stream cannot be emptied, None if it is empty now.

    What could not be written is dropped: Python's end would try it again, and print a traceback.
    """
    try:
        stream.flush()
    except ValueError:  # It was closed.
        return None
    except OSError as error:
        with contextlib.suppress(OSError, ValueError):
            descriptor = stream.fileno()
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, descriptor)
            os.close(nowhere)
            stream.flush()
        return error
    return None


def _nowhere() -> IO[str]:
    return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123 - for the process's life

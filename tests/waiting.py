"""No test waits for a program without end: after a limit it fails with the stacks of both sides.

`install` gives `Popen.wait` and `Popen.communicate`, and with them `subprocess.run` and its kin, a
limit wherever they have none, and wherever a test file's own is longer. When it is over, Python
programs below the one that is waited for are made to tell where they are (PYTHONFAULTHANDLER, which
they inherit, prints every thread's stack at SIGABRT), all of them are ended, and what they said stands
in the failure.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NoReturn

import pytest

TESTS = str(Path(__file__).parent)
# Of a test's own time limit: what is left is for its end.
SHARE = 0.8
LAST_WORDS_S = 10.0
MAX_SAID = 6000

# Seconds until a wait fails; each test's time limit sets it.
limit_s = 240.0

_wait = subprocess.Popen.wait
_communicate = subprocess.Popen.communicate


def install() -> None:
    """Give every wait of this process a limit, and its children what they need to tell stacks."""
    os.environ.setdefault("PYTHONFAULTHANDLER", "1")
    subprocess.Popen.wait = wait  # type: ignore[assignment,method-assign]
    subprocess.Popen.communicate = communicate  # type: ignore[assignment,method-assign]


def set_limit(item: pytest.Item) -> None:
    """Let waits of a test end before the test's own time limit does."""
    global limit_s
    marker = item.get_closest_marker("timeout")
    given = marker.args[0] if marker and marker.args else item.config.getini("timeout")
    limit_s = SHARE * float(given)


def wait(process: subprocess.Popen[Any], timeout: float | None = None) -> int:
    """Return the exit code as `Popen.wait` does, or fail when the limit is over."""
    limit = _limit(timeout)
    try:
        return _wait(process, timeout if limit is None else limit)
    except subprocess.TimeoutExpired:
        if limit is None:
            raise
        _fail(process, limit)


def communicate(
    process: subprocess.Popen[Any],
    input: Any = None,  # noqa: A002 - as subprocess names it
    timeout: float | None = None,
) -> tuple[Any, Any]:
    """Return the outputs as `Popen.communicate` does, or fail when the limit is over."""
    limit = _limit(timeout)
    try:
        return _communicate(process, input, timeout if limit is None else limit)
    except subprocess.TimeoutExpired:
        if limit is None:
            raise
        _fail(process, limit)


def _limit(timeout: float | None) -> float | None:
    """Return the limit that holds; None where the code that is tested has set its own."""
    if timeout is None or (timeout > limit_s and _is_a_test_waiting()):
        return limit_s
    return timeout if timeout >= LAST_WORDS_S and _is_a_test_waiting() else None


def _is_a_test_waiting() -> bool:
    frame = sys._getframe(1)
    while frame.f_back and frame.f_code.co_filename in (__file__, subprocess.__file__):
        frame = frame.f_back
    return frame.f_code.co_filename.startswith(TESTS)


def _fail(process: subprocess.Popen[Any], limit: float) -> NoReturn:
    with tempfile.TemporaryFile("w+") as file:
        faulthandler.dump_traceback(file=file)
        file.seek(0)
        own = file.read()
    below = _tree(process.pid)
    names = "\n".join(f"  {pid}: {_command(pid)}" for pid in below)
    for pid in reversed(below):
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGABRT if _tells_stacks(pid) else signal.SIGTERM)
    said: Any = ()
    with contextlib.suppress(subprocess.TimeoutExpired, ValueError):
        said = _communicate(process, None, LAST_WORDS_S)
    for pid in below:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    texts = [item.decode(errors="replace") if isinstance(item, bytes) else item for item in said]
    words = "\n".join(text[-MAX_SAID:] for text in texts if text)
    pytest.fail(
        f"not ended after {limit:.0f} s:\n{names}\nIts last words, with its stacks:\n"
        f"{words or '(they are not in a pipe)'}\nThis process waited here:\n{own[:MAX_SAID]}",
        pytrace=False,
    )


def _tree(top: int) -> list[int]:
    """Return a process and all that descend from it, parents first."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            parents.setdefault(parent, []).append(int(path.parent.name))
    found, open_ = [], [top]
    while open_:
        found.append(pid := open_.pop(0))
        open_ += parents.get(pid, [])
    return found


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
        return words.decode(errors="replace")[:200]
    return "ended"


def _tells_stacks(pid: int) -> bool:
    with contextlib.suppress(OSError):
        is_python = "python" in Path(f"/proc/{pid}/exe").readlink().name
        return is_python and b"PYTHONFAULTHANDLER=1" in Path(f"/proc/{pid}/environ").read_bytes()
    return False

"""Processes that tests look at and end, and ports that nobody else takes: none of it by chance."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
import weakref
from collections.abc import Callable
from pathlib import Path


def process_state(pid: int) -> str:
    """Return a process's state, as `ps` calls it; nothing when it is gone.

    Its first thread may end before others, which still hold its files and locks: then the state is
    that of another one.
    """
    states = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                states.append((task / "stat").read_text().rpartition(")")[2].split()[0])
    return next((state for state in states if state not in "ZX"), states[0] if states else "")


def wait_for_states(pids: list[int], states: str) -> None:
    """Wait until each process is in one of the states or gone."""
    deadline = time.monotonic() + 30
    while late := [pid for pid in pids if process_state(pid) not in states]:
        assert time.monotonic() < deadline, f"still running: {late}"
        time.sleep(0.002)


def wait_for_cpu_time(pid: int, seconds: float) -> None:
    """Wait until a process has computed for so long from here on; it must not end meanwhile."""
    before, deadline = _cpu_s(pid), time.monotonic() + 60
    while _cpu_s(pid) < before + seconds:
        assert time.monotonic() < deadline, f"process {pid} does not compute"
        time.sleep(0.01)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def send_signal(pids: list[int], number: int) -> None:
    """Send a signal to those of the processes that are there still."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def halt(find: Callable[[], list[int]]) -> list[int]:
    """Stop processes where they are, also what they fork meanwhile.

    Args:
        find: Returns their process ids.

    Returns:
        The process ids of all of them.
    """
    halted: list[int] = []
    while new := [pid for pid in find() if pid not in halted]:
        send_signal(new, signal.SIGSTOP)
        wait_for_states(new, "TZX")
        halted += new
    return halted


def end(find: Callable[[], list[int]]) -> None:
    """Kill processes, also what they fork meanwhile; return when they hold nothing any more."""
    pids = halt(find)
    send_signal(pids, signal.SIGKILL)
    wait_for_states(pids, "ZX")


class ReservedPort:
    """A port of 127.0.0.1 that refuses connections, and that the system gives to nobody else.

    A server that binds it by its number, as servers do with SO_REUSEADDR, gets it all the same.

    Attributes:
        number: The port.
    """

    def __init__(self) -> None:
        with socket.socket() as held:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.bind(("127.0.0.1", 0))
            self.number = int(held.getsockname()[1])
            # Bound and not listening.
            self._end = weakref.finalize(self, os.close, held.detach())

    def release(self) -> None:
        """Let the system give it to others."""
        self._end()

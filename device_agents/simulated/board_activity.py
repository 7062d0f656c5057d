"""How much CPU time chosen processes and their children have used, to the nanosecond."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path

# Children are looked for so often; what they use before they are found counts when they are.
CHILDREN_S = 0.5


class ProcessActivity:
    """CPU time of processes and of all their children, also after they have ended.

    Reading a process's CPU clock costs microseconds and counts what runs at this moment.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._used_s: dict[int, float] = {}
        self._before_s: dict[int, float] = {}
        self._looked_s = 0.0
        self._own_pid = os.getpid()

    def watch(self, pid: int) -> None:
        """Count a process and its children from now on.

        Raises:
            ProcessLookupError: There is none of that number.
        """
        used_s = _cpu_s(pid)
        if used_s is None:
            raise ProcessLookupError(f"there is no process {pid}")
        with self._lock:
            if pid not in self._used_s:
                self._used_s[pid] = self._before_s[pid] = used_s
                # What those that are there already have used was no work of the board.
                self._find_children([pid], are_new=False)

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes that are or were counted."""
        return tuple(self._used_s)

    def busy_s(self) -> float:
        """Return the CPU seconds used since they are counted."""
        with self._lock:
            now = time.monotonic()
            if now - self._looked_s > CHILDREN_S:
                self._looked_s = now
                self._find_children(list(self._used_s), are_new=True)
            for pid, known_s in self._used_s.items():
                used_s = _cpu_s(pid)
                if used_s is not None and used_s > known_s:
                    self._used_s[pid] = used_s
            return sum(self._used_s.values()) - sum(self._before_s.values())

    def _find_children(self, todo: list[int], *, are_new: bool) -> None:
        while todo:
            for child in _children(todo.pop()):
                # What serves the board is not the board's work, also if the board's work started it.
                if child not in self._used_s and child != self._own_pid:
                    before_s = 0.0 if are_new else _cpu_s(child) or 0.0
                    self._used_s[child] = self._before_s[child] = before_s
                    todo.append(child)


def _cpu_s(pid: int) -> float | None:
    """Return the CPU seconds of a process, None if there is none."""
    if pid <= 0:
        return None
    try:
        # The number of a process's CPU clock, as the kernel makes it.
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return None


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError, ValueError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found

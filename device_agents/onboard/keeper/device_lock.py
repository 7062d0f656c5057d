"""One campaign at a time on a device: a name that the kernel gives to one program only.

It is the name of a Unix socket in Linux's abstract name space. That is one for all users of a
device and needs no file, so no folder that all can write; it is free again when the last process
that holds it ends, whatever ends it. Processes share it as far as they share a network: a container
with a network of its own has a lock of its own.

Who starts agents holds it: on this machine the campaign, on a remote device its keeper. Every agent
inherits it. So nobody can come between one agent and the next of a campaign, and what is killed
leaves the lock to its agent, until that has ended as well. The agent's own children do not get it.

Who waits connects to the socket. Nobody takes the connection, so nothing wakes up where it is
measured; it breaks when the name is free. The kernel says whose it is.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import struct
import sys
import time
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple, Optional

from ..machine.readiness import never
from ..preparation_answer import Exclusivity

# Tells apart devices that share a network, such as those of tests.
VARIABLE = "JOULEMAP_DEVICE_LOCK"
_NAME = "joulemap/measuring"
_MAX_NAME = 100
_BACKLOG = 1024
# For an agent whose campaign or keeper was killed to notice that, in the middle of a long call.
HAND_OVER_S = 30.0
# Between looks where the kernel does not say that the name is free.
LOOK_S = 1.0
_MAX_COMMAND = 240
_MAX_FOLDER = 120


class Holder(NamedTuple):
    """Who measures on the device.

    Args:
        pid: Process id of who took the lock, None where that cannot be seen.
        text: Who that is, in words.
        is_ending: Whether it is gone, so that only its agent has still to end.
    """

    pid: Optional[int]  # noqa: UP045 - evaluated by Python 3.9
    text: str
    is_ending: bool


class DeviceLock:
    """Held by one program on the device at a time, and by the agents that it starts.

    Attributes:
        reason: Why there is no lock on this system, in words; None where there is one.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        self._socket: socket.socket | None = None
        _LOCKS.add(self)

    @property
    def is_held(self) -> bool:
        """Whether this program holds it, or there is none here."""
        return self._socket is not None or self.reason is not None

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What an agent has to inherit to hold it as well."""
        return () if self._socket is None else (self._socket.fileno(),)

    def state(self) -> Exclusivity:
        """Return whether other campaigns are kept off, and why not."""
        return Exclusivity(is_exclusive=self._socket is not None, reason=self.reason)

    def acquire(self) -> bool:
        """Take it if nobody else has it; return whether it is held now."""
        if self.is_held:
            return True
        if not sys.platform.startswith(("linux", "android")):
            self.reason = f"{sys.platform} has no abstract names of sockets"
            return True
        ours = None
        try:
            ours = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            ours.bind(_address())
            ours.listen(_BACKLOG)
        except OSError as error:
            if ours is not None:
                ours.close()
            if error.errno == errno.EADDRINUSE:
                return False
            self.reason = f"an abstract name of a socket is refused ({error.strerror})"
            return True
        self._socket = ours
        return True

    def release(self) -> None:
        """Let go of it; agents that inherited it hold it until they end."""
        self.reason = None
        if self._socket is not None:
            self._socket.close()
        self._socket = None


_LOCKS: weakref.WeakSet[DeviceLock] = weakref.WeakSet()


def _release_in_child() -> None:
    """Let go of what a fork copied: it would hold the lock for as long as the child lives."""
    for lock in _LOCKS:
        lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_release_in_child)


def keep_from_children() -> None:
    """Let no program that this one starts inherit what this one did, be it started by a library."""
    with contextlib.suppress(OSError):
        for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
            if int(name) > 2:
                with contextlib.suppress(OSError):
                    os.set_inheritable(int(name), False)


def holder() -> Holder:
    """Return who holds the device's lock now."""
    connection = _connect()
    if connection is None:
        return _UNSEEN
    with connection:
        if not hasattr(socket, "SO_PEERCRED"):
            return _UNSEEN
        size = struct.calcsize("3i")
        found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    pid = struct.unpack("3i", found)[0]
    # A process of another name space has no number here.
    return describe(pid) if pid > 0 else _UNSEEN


def taken_by(lock: DeviceLock) -> Holder | None:
    """Take the lock; return who has it instead, None if it is held now."""
    if lock.acquire():
        return None
    other = holder()
    # Who cannot be seen may just have let go of it, between the two looks.
    if other.pid is None and lock.acquire():
        return None
    return other


def refusal(other: Holder) -> dict[str, Any]:
    """Return the answer, without its id, to who may not measure since another does."""
    return {
        "error": {
            "message": f"another campaign measures on the device: {other.text}",
            "is_transient": True,
            "in_use": {"holder": other.text, "is_ending": other.is_ending},
        }
    }


def wait(timeout_s: float, is_cancelled: Callable[[], bool] = never) -> None:
    """Return when the device's lock was let go, or the time limit passed, or it is cancelled.

    Somebody else may have it again by then.
    """
    deadline = time.monotonic() + timeout_s
    connection = _connect()
    if connection is None:
        # Just let go, or this system does not let us look.
        time.sleep(min(LOOK_S, max(0.0, timeout_s)))
        return
    with connection:
        poll = select.poll()
        poll.register(connection, select.POLLIN)
        while not is_cancelled():
            remaining_s = deadline - time.monotonic()
            if remaining_s <= 0 or poll.poll(1000 * min(LOOK_S, remaining_s)):
                return


def describe(pid: int, proc: str = "/proc") -> Holder:
    """Return what can be known here of a process that holds the lock.

    Args:
        pid: Its id.
        proc: The folder of processes.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return _gone(pid)
    except OSError:
        pass  # It lives and is another user's.
    fields = _read(f"{proc}/{pid}/stat").rpartition(")")[2].split()
    if fields[:1] in (["Z"], ["X"]):
        return _gone(pid)
    details = []
    command = " ".join(_read(f"{proc}/{pid}/cmdline").split("\0"))
    if command.strip():
        details.append(f"'{_printable(command, _MAX_COMMAND)}'")
    with contextlib.suppress(OSError):
        folder = os.readlink(f"{proc}/{pid}/cwd")  # noqa: PTH115
        details.append(f"in {_printable(folder, _MAX_FOLDER)}")
    with contextlib.suppress(IndexError, ValueError, OSError, AttributeError):
        age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
        began = time.localtime(time.time() - age_s)
        details.append("running since " + time.strftime("%Y-%m-%d %H:%M:%S", began))
    more = f" ({', '.join(details)})" if details else ""
    return Holder(pid, f"process {pid}{more}", is_ending=False)


_UNSEEN = Holder(None, "a program that cannot be seen from here", is_ending=False)


def _gone(pid: int) -> Holder:
    return Holder(pid, f"what process {pid}, which has ended, had started", is_ending=True)


def _address() -> bytes:
    name = os.environ.get(VARIABLE, "")
    return b"\0" + os.fsencode(f"{_NAME}/{name}" if name else _NAME)[:_MAX_NAME]


def _connect() -> socket.socket | None:
    """Return a connection to who holds the lock, None if it cannot be had."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Where too many wait already this would block.
    connection.setblocking(False)
    try:
        connection.connect(_address())
    except OSError:
        connection.close()
        return None
    return connection


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            return file.read(4096)
    except OSError:
        return ""


def _printable(text: str, length: int) -> str:
    text = "".join(c if c.isprintable() else " " for c in text).strip()
    return text if len(text) <= length else text[: length - 3] + "..."

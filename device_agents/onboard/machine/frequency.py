"""Holds the CPUs at a fixed frequency while measuring, and puts everything back afterwards.

Whatever happens to this process, the old settings return: a watchdog (`watchdog.py`, a process of
its own) knows them before the first is changed and writes them back when this process ends without
having done so. A lock on the folder of the CPUs, which the watchdog shares, keeps two programs from
saving each other's settings as the old ones.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pkgutil
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from json import dumps

from ..files import read_number, read_text
from ..preparation_answer import FrequencyHold
from . import watchdog

ARM_TIMEOUT_S = 30.0
# As long as a watchdog may need to put back what an agent that was just killed had changed, also on a
# machine that pauses.
LOCK_TIMEOUT_S = 20.0
# A watchdog ends once it is told; it shares the lock until then.
END_TIMEOUT_S = 20.0
_CPUS = "sys/devices/system/cpu"


class FrequencyUnlockable(Exception):
    """The frequency cannot be held here; the message says why and what to do."""


class FrequencyLock:
    """Holds CPUs at their highest permitted frequency between `lock` and `restore`.

    Args:
        root: Where `sys` is; another folder than `/` for tests.
    """

    def __init__(self, root: str = "/") -> None:
        self.root = root
        self._saved: list[tuple[str, str]] = []
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._lock_fd: int | None = None

    def lock(self, cpus: Sequence[int]) -> FrequencyHold:
        """Hold these CPUs' frequency; never raises, a refusal is part of the answer.

        Args:
            cpus: CPU numbers. CPUs that share a frequency with them are held too.
        """
        self.restore()
        try:
            self._lock(cpus)
        except FrequencyUnlockable as error:
            failures = self.restore()
            return FrequencyHold(is_locked=False, reason="; ".join([str(error), *failures]))
        return FrequencyHold(is_locked=True)

    def restore(self) -> list[str]:
        """Put back what was there before `lock`; return what failed, in words."""
        failures = watchdog.write_back(self._saved)
        self._saved = []
        if self._watchdog is not None:
            # A failure here may be this process's alone, so the watchdog tries again.
            _end(self._watchdog, b"" if failures else watchdog.DONE)
            self._watchdog = None
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None
        return failures

    def _lock(self, cpus: Sequence[int]) -> None:
        folder = os.path.join(self.root, _CPUS)  # noqa: PTH118
        policies = _policies(folder, cpus)
        self._lock_fd = _exclusive(folder)
        changes = [change for policy in policies for change in _wanted(policy)]
        saved = []
        for path, _ in changes:
            _check_writable(path)
            old = read_text(path)
            if old is None:
                raise FrequencyUnlockable(f"{path} cannot be read, so it could not be put back")
            saved.append((path, old))
        if not changes:
            return
        self._watchdog = _start_watchdog(saved, self._lock_fd)
        self._saved = saved
        for path, text in changes:
            try:
                watchdog.write_setting(path, text)
            except OSError as error:
                raise FrequencyUnlockable(_refusal(path, error)) from error
            if read_text(path) != text:
                raise FrequencyUnlockable(f"{path} did not take '{text}'")


def refusal(cpus: Sequence[int], root: str = "/") -> str | None:
    """Return why these CPUs' frequency cannot be held, in words; None if it can. Changes nothing.

    Args:
        cpus: CPU numbers.
        root: Where `sys` is; another folder than `/` for tests.
    """
    try:
        for policy in _policies(os.path.join(root, _CPUS), cpus):  # noqa: PTH118
            for path, _ in _wanted(policy) or [(f"{policy}/scaling_governor", "")]:
                _check_writable(path)
    except FrequencyUnlockable as error:
        return str(error)
    return None


def _policies(folder: str, cpus: Sequence[int]) -> list[str]:
    """Return the cpufreq folders of these CPUs, each once: CPUs share them through links."""
    found = []
    for cpu in cpus:
        policy = os.path.realpath(f"{folder}/cpu{cpu}/cpufreq")
        if read_text(f"{policy}/scaling_governor") is None:
            raise FrequencyUnlockable(
                f"frequency control is not offered for CPU {cpu} ({folder}/cpu{cpu}/cpufreq has no "
                "governor): a virtual machine leaves it to its host, some boards to the firmware"
            )
        if policy not in found:
            found.append(policy)
    return found


def _wanted(policy: str) -> list[tuple[str, str]]:
    """Return the files to change and their new content; nothing where all is as it should be."""
    governor = read_text(f"{policy}/scaling_governor")
    offered = read_text(f"{policy}/scaling_available_governors")
    names = ["performance"] if offered is None else offered.split()
    if governor == "performance":
        return []
    if "performance" in names:
        return [(f"{policy}/scaling_governor", "performance")]
    highest = read_number(f"{policy}/scaling_max_freq")
    if highest is None:
        raise FrequencyUnlockable(
            f"{policy} offers no governor 'performance' and does not say its highest frequency"
        )
    # With nothing left between the limits every governor, `userspace` too, holds the frequency.
    if read_number(f"{policy}/scaling_min_freq") == highest:
        return []
    return [(f"{policy}/scaling_min_freq", f"{highest:.0f}")]


def _exclusive(folder: str) -> int:
    """Return the descriptor of a lock on the folder that only one program holds at a time."""
    import fcntl  # Not on every system that has no cpufreq either.

    deadline = time.monotonic() + LOCK_TIMEOUT_S
    try:
        fd = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise FrequencyUnlockable(f"{folder} cannot be opened: {error.strerror}") from error
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if isinstance(error, BlockingIOError) and time.monotonic() < deadline:
                time.sleep(0.05)
                continue
            os.close(fd)
            raise FrequencyUnlockable(
                f"{folder} is locked by another program ({error.strerror}): end a second campaign "
                "on this device first"
            ) from error
        else:
            return fd


def _check_writable(path: str) -> None:
    try:
        os.close(os.open(path, os.O_WRONLY))
    except OSError as error:
        raise FrequencyUnlockable(_refusal(path, error)) from error


def _refusal(path: str, error: OSError) -> str:
    said = f"{path} cannot be written ({error.strerror}): "
    if error.errno in (errno.EACCES, errno.EPERM):
        return said + (
            "measure as root, or set the governor beforehand with "
            "'sudo cpupower frequency-set --governor performance'"
        )
    if error.errno == errno.EROFS:
        return said + "set the governor outside of the container, on the machine that runs it"
    return said + "the kernel refuses; set the governor beforehand by the board's own means"


def _start_watchdog(saved: Sequence[tuple[str, str]], lock_fd: int) -> subprocess.Popen[bytes]:
    """Return the watchdog, started and in possession of the old settings."""
    source = pkgutil.get_data(__package__, "watchdog.py")
    if not source or not sys.executable:
        raise FrequencyUnlockable("the watchdog that would restore the governor cannot be started")
    try:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", source.decode()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=[lock_fd],
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        raise FrequencyUnlockable(
            f"the watchdog that would restore the governor cannot be started: {error.strerror}"
        ) from error
    assert process.stdin is not None  # noqa: S101 - by the arguments above
    assert process.stdout is not None  # noqa: S101
    answer = b""
    with contextlib.suppress(BrokenPipeError), process.stdout:
        process.stdin.write(dumps(list(saved)).encode() + b"\n")
        process.stdin.flush()
        if select.select([process.stdout], [], [], ARM_TIMEOUT_S)[0]:
            answer = process.stdout.readline()
    if answer != watchdog.ARMED:
        process.kill()
        _end(process, b"")
        raise FrequencyUnlockable("the watchdog that would restore the governor does not answer")
    return process


def _end(process: subprocess.Popen[bytes], last_words: bytes) -> None:
    assert process.stdin is not None  # noqa: S101 - started with a pipe
    with contextlib.suppress(BrokenPipeError), process.stdin:
        process.stdin.write(last_words)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=END_TIMEOUT_S)

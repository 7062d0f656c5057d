"""The seams: how commands reach a device, and what a started program looks like from here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from .onboard.keeper.device_lock import DeviceLock


@dataclass(frozen=True)
class Completed:
    """A program that ran to its end on the device.

    Args:
        exit_code: What it returned; negative for a signal.
        stdout: What it printed.
        stderr: What it printed on standard error, or the end of it.
    """

    exit_code: int
    stdout: bytes
    stderr: bytes


@dataclass(frozen=True)
class ConnectOptions:
    """What the user permits when a device is reached over a network.

    Args:
        accept_new_host_key: Whether an SSH host without any known key is trusted this first time;
            its key is stored. A key that has changed is refused all the same.
    """

    accept_new_host_key: bool = False


class Process(Protocol):
    """A program on the device with live standard input and output."""

    def write(self, data: bytes, timeout_s: float) -> None:
        """Send bytes to its standard input within the time limit.

        Raises:
            TransientDeviceError: The program is gone, or does not read.
        """

    def read(self, length: int, timeout_s: float) -> bytes:
        """Return exactly `length` bytes of its standard output within the time limit.

        Raises:
            TransientDeviceError: The program ended, or the time limit passed.
        """

    def stderr_tail(self) -> str:
        """Return the end of what it printed on standard error, for messages."""

    def is_alive(self) -> bool:
        """Return whether it still runs."""

    def kill(self) -> None:
        """End it at once; harmless when it has ended."""


class Transport(Protocol):
    """A way to reach a device.

    Attributes:
        is_remote: Whether the link can drop while the device goes on: the agent then outlives it.

    A transport to what is no real device has `is_simulated = True`, and one to what computes costs
    from widths, so that no network goes there, `runs_networks = False`; others need neither.
    """

    is_remote: bool

    @property
    def device_lock(self) -> DeviceLock | None:
        """What this program holds while it measures, and all that it starts inherits.

        None where the device's keeper does that, or nothing real is measured.
        """

    def push(self, content: bytes, name: str) -> str:
        """Store bytes in joulemap's cache folder on the device and return their path there.

        The same name is only written once: names hold a hash of the content.

        Raises:
            StableDeviceError: The folder cannot be written.
        """

    def pull(self, path: str, max_bytes: int) -> bytes:
        """Return the content of a file on the device.

        Args:
            path: Absolute path on the device.
            max_bytes: More than this is refused; a device is not to be believed.

        Raises:
            StableDeviceError: There is no such file, or it is larger.
            TransientDeviceError: The link failed.
        """

    def run(self, command: Sequence[str], timeout_s: float, max_bytes: int = 1 << 20) -> Completed:
        """Return what a short program printed and how it ended.

        Args:
            command: Program and arguments, passed on as they are.
            timeout_s: When it is killed.
            max_bytes: Of each output; more is refused.

        Raises:
            StableDeviceError: It cannot be started, or printed more than it may.
            TransientDeviceError: The link failed or the time limit passed.
        """

    def start(self, command: Sequence[str]) -> Process:
        """Start a program on the device.

        Raises:
            StableDeviceError: The program cannot be started.
        """

    def python(self) -> str:
        """Return the command of the device's Python interpreter."""

    def is_alive(self, timeout_s: float = 10.0) -> bool:
        """Return whether the device answers within the time limit."""

    def reconnect(self, timeout_s: float) -> None:
        """Reach the device anew, once; what was started over the old link may be gone.

        Raises:
            TransientDeviceError: It cannot be reached now.
            StableDeviceError: It will not be reached: another host key, no permission.
        """

    def close(self) -> None:
        """Let go of the connection."""


@dataclass(frozen=True)
class VisitRequest:
    """A visit to be made on the device.

    Args:
        key: Names it; the same key is measured once.
        request: What the agent is asked, JSON.
        limit_s: How long the agent may take.
    """

    key: str
    request: Mapping[str, Any]
    limit_s: float


class Session(Protocol):
    """A conversation with what measures on a device: an agent, or the keeper of several."""

    @property
    def is_usable(self) -> bool:
        """Whether it can be asked more; another one is begun where it cannot."""

    @property
    def num_outstanding(self) -> int:
        """Visits that were sent and not answered yet."""

    def ask(
        self,
        operation: str,
        request: Mapping[str, Any] | None = None,
        *,
        payload: bytes = b"",
        timeout_s: float,
    ) -> dict[str, Any]:
        """Return the agent's answer to a request that may be repeated without harm.

        Raises:
            DeviceError: The agent says that it cannot, or it was not reached for too long.
        """

    def prepare(
        self, request: Mapping[str, Any], payload: bytes, timeout_s: float
    ) -> dict[str, Any]:
        """Return the agent's answer to `prepare`; the visits that follow rest on it.

        Raises:
            DeviceError: The agent says that it cannot, or it was not reached for too long.
        """

    def is_known(self, key: str) -> bool:
        """Return whether a visit was sent and not collected yet."""

    def send(self, visits: Sequence[VisitRequest]) -> None:
        """Take visits that will be collected, as many as go at a time.

        Raises:
            LinkLostError: The device was not reached for too long.
        """

    def collect(self, key: str) -> dict[str, Any]:
        """Return the answer to a visit that was sent.

        Raises:
            DeviceError: The visit failed on the device, or it was not reached for too long.
        """

    def acknowledge(self, key: str) -> None:
        """Let the device forget an answer that is safe here."""

    def end_agent(self) -> None:
        """End the agent, unless a keeper on the device does that when it is time."""

    def close(self, *, keep: bool = False) -> None:
        """End whatever measures on the device.

        Args:
            keep: Whether answers that were not acknowledged stay on the device.
        """

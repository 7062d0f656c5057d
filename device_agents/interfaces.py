"""The seams: how commands reach a device, and what a started program looks like from here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


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
    """A way to reach a device."""

    def push(self, content: bytes, name: str) -> str:
        """Store bytes in joulemap's cache folder on the device and return their path there.

        The same name is only written once: names hold a hash of the content.

        Raises:
            StableDeviceError: The folder cannot be written.
        """

    def start(self, command: Sequence[str]) -> Process:
        """Start a program on the device.

        Raises:
            StableDeviceError: The program cannot be started.
        """

    def python(self) -> str:
        """Return the command of the device's Python interpreter."""

    def close(self) -> None:
        """Let go of the connection."""

"""Errors of devices: what failed, and whether trying again can help."""

from __future__ import annotations

from joulemap import JoulemapError

__all__ = [
    "DeviceError",
    "LinkLostError",
    "StableDeviceError",
    "TransientDeviceError",
    "failure_text",
]


class DeviceError(JoulemapError):
    """The device or the way to it failed."""


class TransientDeviceError(DeviceError):
    """May work when tried again: the agent died, a time limit passed, garbage arrived."""


class StableDeviceError(DeviceError):
    """Will fail again until somebody changes something: no runtime, an unsupported operator."""


class LinkLostError(JoulemapError):
    """The device has not been reached for too long; what was measured is safe.

    Not a `DeviceError`, which would be taken for the failure of one visit.
    """


# What people call the operations that have names of their own between host and agent.
_SPOKEN = {"prepare": "the device cannot begin", "meters": "the device's meters cannot be listed"}


def failure_text(operation: str, said: str) -> str:
    """Return what an agent says about an operation that failed, as a sentence for people.

    Args:
        operation: What it was asked for.
        said: Its reason.
    """
    return f"{_SPOKEN.get(operation, f'{operation} failed on the device')}: {said}"

"""Errors of devices: what failed, and whether trying again can help."""

from __future__ import annotations

from joulemap import JoulemapError

__all__ = [
    "DeviceError",
    "DeviceInUseError",
    "LinkLostError",
    "StableDeviceError",
    "TransientDeviceError",
    "failure_text",
]


class DeviceError(JoulemapError):
    """The device or the way to it failed."""


class TransientDeviceError(DeviceError):
    """May work when tried again: the agent died, a time limit passed, garbage arrived."""


class DeviceInUseError(TransientDeviceError):
    """Another campaign measures on the device.

    Args:
        holder: Who that is, in words.
        is_ending: Whether it was killed, so that only its agent has still to end.
        waited_s: How long it was waited for.
    """

    def __init__(self, holder: str, *, is_ending: bool = False, waited_s: float = 0.0) -> None:
        self.holder, self.is_ending = holder, is_ending
        after = f" after {waited_s:.0f} s of waiting" if waited_s else ""
        who = "the agent of a campaign that was killed" if is_ending else "another campaign"
        super().__init__(
            f"{who} measures on the device{after}: {holder}. Two at a time would spoil "
            "each other's seconds and joules: let it end, or end it there, then repeat the same "
            "command"
        )


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

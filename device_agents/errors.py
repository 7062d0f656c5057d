"""Errors of devices: what failed, and whether trying again can help."""

from __future__ import annotations

from joulemap import JoulemapError

__all__ = ["DeviceError", "LinkLostError", "StableDeviceError", "TransientDeviceError"]


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

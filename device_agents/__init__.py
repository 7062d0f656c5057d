"""How a device is reached, run and metered.

Importing this loads neither torch nor numpy: transports and runtimes come when a device is opened.
"""

from .device import Device, Preparation
from .errors import (
    DeviceError,
    DeviceInUseError,
    LinkLostError,
    StableDeviceError,
    TransientDeviceError,
)
from .keeper_client import LinkLimits

__all__ = [
    "Device",
    "DeviceError",
    "DeviceInUseError",
    "LinkLimits",
    "LinkLostError",
    "Preparation",
    "StableDeviceError",
    "TransientDeviceError",
]

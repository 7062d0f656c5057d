"""How a device is reached, run and metered.

Importing this loads neither torch nor numpy: transports and runtimes come when a device is opened.
"""

from .device import Device, Preparation
from .errors import DeviceError, StableDeviceError, TransientDeviceError

__all__ = [
    "Device",
    "DeviceError",
    "Preparation",
    "StableDeviceError",
    "TransientDeviceError",
]

"""How a device is reached, run and metered.

Importing this loads neither torch nor numpy: transports and runtimes come when a device is opened.
"""

if __name__ == "device_agents":  # found because the checkout itself is on Python's path
    raise ImportError(
        "this folder is imported as joulemap.device_agents: run Python with -P, or from another folder"
    )

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

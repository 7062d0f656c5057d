"""How a device is reached, run and metered.

Importing this loads neither torch nor numpy: transports and runtimes come when a device is opened.
"""

if __name__ == "device_agents":  # found because the checkout itself is on Python's path
    raise ImportError(
        "this folder is imported as joulemap.device_agents: run Python with -P, or from another folder"
    )

from joulemap import moved_modules

from .device import Device, Preparation
from .errors import (
    DeviceError,
    DeviceInUseError,
    LinkLostError,
    StableDeviceError,
    TransientDeviceError,
)
from .host.keeper_client import LinkLimits
from .registry import register_meter, register_runtime, register_transport

__all__ = [
    "Device",
    "DeviceError",
    "DeviceInUseError",
    "LinkLimits",
    "LinkLostError",
    "Preparation",
    "StableDeviceError",
    "TransientDeviceError",
    "register_meter",
    "register_runtime",
    "register_transport",
]

# Where modules lay before they came into wings: their old names work, with a warning, until 0.3.
moved_modules.keep_old_names(
    __name__,
    {
        "agent_archive": "host.agent_archive",
        "agent_client": "host.agent_client",
        "answers": "host.answers",
        "clock_offset": "host.clock_offset",
        "install_advice": "host.install_advice",
        "keeper_client": "host.keeper_client",
        "onboard.attach": "onboard.keeper.attach",
        "onboard.campaign_folder": "onboard.keeper.campaign_folder",
        "onboard.charge_check": "onboard.energy.charge_check",
        "onboard.clock": "onboard.machine.clock",
        "onboard.cooling": "onboard.machine.cooling",
        "onboard.core_kinds": "onboard.machine.core_kinds",
        "onboard.counter_energy": "onboard.energy.counter",
        "onboard.device_ids": "onboard.machine.device_ids",
        "onboard.device_lock": "onboard.keeper.device_lock",
        "onboard.energy_visit": "onboard.energy.visit",
        "onboard.energy_window": "onboard.energy.window",
        "onboard.fingerprint": "onboard.machine.fingerprint",
        "onboard.firmware": "onboard.machine.firmware",
        "onboard.fluctuation": "onboard.energy.fluctuation",
        "onboard.frequency": "onboard.machine.frequency",
        "onboard.host_state": "onboard.machine.host_state",
        "onboard.identity": "onboard.machine.identity",
        "onboard.idle_power": "onboard.energy.idle_power",
        "onboard.job": "onboard.keeper.job",
        "onboard.materialise": "onboard.model.materialise",
        "onboard.mean_power": "onboard.energy.mean_power",
        "onboard.meter": "onboard.energy.meter",
        "onboard.meter_choice": "onboard.energy.meter_choice",
        "onboard.meter_options": "onboard.energy.meter_options",
        "onboard.onnx_messages": "onboard.model.onnx_messages",
        "onboard.packages": "onboard.machine.packages",
        "onboard.permissions": "onboard.machine.permissions",
        "onboard.power_log": "onboard.energy.power_log",
        "onboard.processor": "onboard.machine.processor",
        "onboard.protobuf": "onboard.model.protobuf",
        "onboard.readiness": "onboard.machine.readiness",
        "onboard.sampler_energy": "onboard.energy.sampler",
        "onboard.spool": "onboard.keeper.spool",
        "onboard.thermal_names": "onboard.machine.thermal_names",
        "onboard.thermal_units": "onboard.machine.thermal_units",
        "onboard.thermal_zones": "onboard.machine.thermal_zones",
        "onboard.throttling": "onboard.machine.throttling",
        "onboard.virtualisation": "onboard.machine.virtualisation",
        "onboard.watchdog": "onboard.machine.watchdog",
        "same_device": "host.same_device",
        "turn": "host.turn",
    },
)

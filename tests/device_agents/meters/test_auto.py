"""What `auto` takes on whole machines: all that a variant uses, or nothing and the way out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from joulemap.device_agents.onboard.energy.meter import Meter
from joulemap.device_agents.onboard.energy.meter_choice import choose, find_meters
from joulemap.device_agents.onboard.files import Files
from joulemap.device_agents.registry import METERS
from joulemap.device_agents.testing import FaultyFiles

Plant = Callable[[Path, Mapping[str, object]], None]

MODULES = {name: entry.module for name, entry in METERS.items() if name != "nvml"}
POWERCAP = "sys/class/powercap"
HWMON = "sys/class/hwmon"
RAPL = {
    f"{POWERCAP}/intel-rapl:0/name": "package-0",
    f"{POWERCAP}/intel-rapl:0/energy_uj": 5_000_000,
    f"{POWERCAP}/intel-rapl:0/max_energy_range_uj": 262_143_328_850,
}
BATTERY = {
    "sys/class/power_supply/BAT0/type": "Battery",
    "sys/class/power_supply/BAT0/status": "Discharging",
    "sys/class/power_supply/BAT0/power_now": 8_000_000,
    "sys/class/power_supply/BAT0/voltage_now": 11_400_000,
}
AMD_CARD = {f"{HWMON}/hwmon0/name": "amdgpu", f"{HWMON}/hwmon0/power1_average": 33_000_000}
INTEL_CARD = {f"{HWMON}/hwmon0/name": "i915", f"{HWMON}/hwmon0/energy1_input": 33_000_000}
INA219 = {f"{HWMON}/hwmon1/name": "ina219", f"{HWMON}/hwmon1/power1_input": 3_000_000}
SERVER = {
    f"{HWMON}/hwmon0/name": "power_meter",
    f"{HWMON}/hwmon0/power1_average": 61_000_000,
    f"{HWMON}/hwmon0/power1_oem_info": "CPU Power Socket 0",
    f"{HWMON}/hwmon2/name": "power_meter",
    f"{HWMON}/hwmon2/power1_average": 212_000_000,
}
RAILS = {
    f"{HWMON}/hwmon0/name": "ina3221",
    f"{HWMON}/hwmon0/in1_label": "VDD_GPU",
    f"{HWMON}/hwmon0/in1_input": 5_000,
    f"{HWMON}/hwmon0/curr1_input": 100,
    f"{HWMON}/hwmon0/in2_label": "VDD_CPU",
    f"{HWMON}/hwmon0/in2_input": 5_000,
    f"{HWMON}/hwmon0/curr2_input": 800,
}
# A board that is newer than the table, and one of the table with a sensor absent.
NEW_JETSON = {**RAILS, "proc/device-tree/model": "NVIDIA Jetson AGX Thor Developer Kit"}
LAME_JETSON = {**RAILS, "proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit"}
MONITOR = "sys/bus/iio/devices/iio:device{}/energy_value"
PIXEL = {
    MONITOR.format(0): "t=10\nCH0(T=10)[S10M_VDD_TPU], 5000000",
    MONITOR.format(1): "t=10\nCH0(T=10)[S2M_VDD_CPUCL2], 9000000",
}


def auto(files: Files) -> tuple[list[Meter], str]:
    return choose("auto", find_meters(MODULES, files))


@pytest.mark.parametrize(
    ("machine", "chosen"),
    [
        (RAPL, "rapl:cpu"),
        ({**RAPL, **AMD_CARD, **BATTERY}, "rapl:cpu"),
        ({**AMD_CARD, **BATTERY}, "battery:BAT0"),
        ({**INTEL_CARD, **BATTERY}, "battery:BAT0"),
        (INA219, "hwmon:ina219-power1"),
        (SERVER, "hwmon:power_meter-power1"),
        (PIXEL, "android_odpm:total"),
    ],
)
def test_the_first_that_sees_all_that_the_processor_uses(
    tmp_path: Path, plant: Plant, machine: Mapping[str, object], chosen: str
) -> None:
    plant(tmp_path, machine)
    meters, _ = auto(Files(str(tmp_path)))
    assert [f"{meter.info.name}:{meter.info.channel}" for meter in meters] == [chosen]


@pytest.mark.parametrize(
    ("machine", "said"),
    [
        (AMD_CARD, "amdgpu:gpu0 (graphics card"),
        (INTEL_CARD, "hwmon:i915-1"),
        (RAILS, "hwmon:VDD_GPU (rail 'VDD_GPU' of the sensor ina3221), hwmon:VDD_CPU"),
        (NEW_JETSON, "not in the table of boards"),
        (LAME_JETSON, "a part of the total"),
    ],
)
def test_a_part_is_taken_by_name_only(
    tmp_path: Path, plant: Plant, machine: Mapping[str, object], said: str
) -> None:
    plant(tmp_path, machine)
    meters, why = auto(Files(str(tmp_path)))
    assert meters == []
    assert said in why
    assert "name it by --meter" in why


def test_a_phone_with_one_monitor_closed_has_no_total_and_no_rail_in_its_place(
    tmp_path: Path, plant: Plant
) -> None:
    plant(tmp_path, PIXEL)
    files = FaultyFiles(str(tmp_path))
    files.denied = (MONITOR.format(1),)
    meters, why = auto(files)
    assert meters == []
    assert "adb root" in why


def test_a_better_meter_that_is_closed_is_told_with_the_remedy(
    tmp_path: Path, plant: Plant
) -> None:
    plant(tmp_path, {**RAPL, **BATTERY})
    files = FaultyFiles(str(tmp_path))
    files.denied = (f"{POWERCAP}/*/energy_uj",)
    (meter,), why = auto(files)
    assert meter.info.name == "battery"
    assert "before it would come rapl" in why
    assert "chmod a+r /sys/class/powercap" in why

"""Which power sensors see all that a machine uses, by the driver's name and the sensor's label.

A chip that is not known here may sit on anything: a card, a disk, a network port, a memory module. Its
sensor is listed and can be taken by name, but nothing says that it is the machine's. Known are::

    power_meter            ACPI's meter of a server; one that is labelled is of what the label says
    macsmc_hwmon           "Total System Power" of Apple's controller
    corsairpsu             "power total": all that a power supply gives
    ibmpowernv             "System"
    amd_energy             a processor's socket, where it has one only

A chip that measures over a shunt (INA219 and its kin) is soldered into a board's supply by its maker or
its owner: where there is one such rail it is taken for the supply, unless the chip is a card's own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..onboard.files import Files

_ACPI = "power_meter"
_SYSTEM = (
    r"(total )?(system|chassis|server|node|platform)( board)?( input)?( (power|pwr))?( consumption)?"
    r"|total (input )?(power|pwr)( consumption)?"
)
_WHOLE = (
    (re.compile(_ACPI), re.compile(_SYSTEM)),
    (re.compile(r"macsmc.*"), re.compile(r"total system power")),
    (re.compile(r"corsair-?psu"), re.compile(r"power total")),
    (re.compile(r"ibmpowernv"), re.compile(r"system( power)?")),
)
_SOCKET = (re.compile(r"amd_energy"), re.compile(r"esocket ?[0-9]*"))
_SHUNT = re.compile(r"(ina2[0-9]{2}|ina3221|ina7[08]0|isl28022|ltc(2945|2946|2947|4151)|sq52206)")
# One that is labelled by what it feeds is of that part.
_PART = re.compile(
    r"cpu|gpu|soc|core|ddr|dram|mem|npu|vpu|io|usb|pcie|nvme|ssd|sata|fan|hdmi|lcd|led|modem|wifi|eth"
    r"|aux|1v|3v3|dimm|card",
    re.IGNORECASE,
)
# A module of a network port tells the power of its light, in microwatts as well.
_LIGHT_CHIP = re.compile(r"[a-z]*sfp", re.IGNORECASE)
_LIGHT_LABEL = re.compile(r"(tx|rx|laser|optical)[ _-]?(power|light)|.*optical", re.IGNORECASE)
# Classes of PCI devices that other things hang on: bridges, and buses such as I2C.
_BUS_CLASSES = ("06", "0c", "11")
# The Raspberry Pi 5 has its pins behind a PCI device, which calls itself a network card.
_PI_VENDOR = "0x1de4"


@dataclass(frozen=True)
class Sensor:
    """A power sensor, as far as it tells where it sits.

    Args:
        chip: Its driver's name.
        label: What it is called; empty if not at all.
        supply: The rail that it measures, equal for two sensors of one rail.
        place: The chip's folder without links.
    """

    chip: str
    label: str
    supply: str
    place: str


def is_light(chip: str, label: str) -> bool:
    """Return whether a sensor of power measures light."""
    return bool(_LIGHT_CHIP.match(chip) or _LIGHT_LABEL.match(label))


def is_machines_meter(sensor: Sensor) -> bool:
    """Return whether a sensor is known to measure the whole machine's supply."""
    label = re.sub(r"[\s_-]+", " ", sensor.label).strip().lower()
    if sensor.chip == _ACPI and not label:
        return True
    return any(chip.fullmatch(sensor.chip) and text.fullmatch(label) for chip, text in _WHOLE)


def see_all(files: Files, sensors: Sequence[Sensor]) -> list[bool]:
    """Return for each sensor whether it sees all that the processor's work uses, as far as is known.

    Args:
        files: The machine's files.
        sensors: All that the machine has.
    """
    unlabelled = [each for each in sensors if each.chip == _ACPI and not each.label]
    sockets = [each for each in sensors if _is_socket(each)]
    on_boards = {
        each.supply
        for each in sensors
        if _SHUNT.match(each.chip) and not _is_on_card(files, each.place)
    }
    found = []
    for sensor in sensors:
        is_alone = len(on_boards) == 1 and sensor.supply in on_boards
        is_alone = is_alone and not _PART.search(sensor.label)
        is_one_of_meters = sensor in unlabelled and len({each.supply for each in unlabelled}) > 1
        found.append(
            (is_machines_meter(sensor) and not is_one_of_meters)
            or is_alone
            or (_is_socket(sensor) and len(sockets) == 1)
        )
    return found


def _is_socket(sensor: Sensor) -> bool:
    chip, label = _SOCKET
    return bool(chip.fullmatch(sensor.chip) and label.fullmatch(sensor.label.lower()))


def _is_on_card(files: Files, place: str) -> bool:
    """Return whether a chip hangs on a PCI device that is no bus: on a card of its own."""
    parts = place.split("/")
    for depth in range(len(parts), 0, -1):
        folder = "/".join(parts[:depth])
        if not re.search(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-9]\Z", folder):
            continue
        kind, vendor = files.text(f"{folder}/class") or "", files.text(f"{folder}/vendor")
        if kind and kind[2:4] not in _BUS_CLASSES and vendor != _PI_VENDOR:
            return True
    return False

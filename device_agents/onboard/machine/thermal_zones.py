"""Which of a device's thermal zones tell how hot its processor is, and what they say.

Taken are the first of these that can be read at all: the zones of the processor and its chip; what
drivers of processors show as sensors (coretemp, k10temp); zones whose names say nothing; the firmware's
zone. Of several the hottest counts. Left out, and listed with the reason, is what sits elsewhere, what
holds no temperature, and what is stuck: far above all others at a round number, or the same for ever
while others move. A user may name a zone instead.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..files import read_number, read_numbers, read_text
from .thermal_names import CHIP, ELSEWHERE, FIRMWARE, NO_TEMPERATURE, PROCESSOR, UNKNOWN, place_of
from .thermal_units import MILLI, evident_unit, in_celsius, unit_of

_THERMAL = "sys/class/thermal"
_HWMON = "sys/class/hwmon"
# Drivers of processors' own sensors, and which of a chip's sensors count: the first that are there.
_PROCESSOR_CHIPS = {
    "coretemp": (r"Package id", r"Core "),
    "k10temp": (r"Tdie", r"Tctl|Tccd", r""),
    "zenpower": (r"Tdie", r"Tctl|Tccd", r""),
    "k8temp": (r"",),
    "via_cputemp": (r"",),
    "xgene_hwmon": (r"SoC",),
    "smpro_hwmon": (r"SoC", r"CORE"),
    "macsmc_hwmon": (r"(?i).*\b(CPU|SoC)\b",),
}
# What firmware writes where it has no sensor.
_FIRMWARE_DUMMIES_C = (16.8, 27.8, 29.8)
# A round number so hot, and so far above every other sensor of the chip, is none of its temperatures.
_DOUBTED_C = 95.0
_DOUBTED_STEP_C = 5.0
_DOUBTED_ABOVE_C = 30.0
# Never moved in so many readings, while another one moved so far.
_STUCK_READINGS = 20
_STUCK_SPAN_C = 5.0
_MAX_ZONES = 512
_MAX_NAME = 100
_MAX_LIST = 250
_MAX_TOLD = 6
_TRIP = re.compile(r"trip_point_[0-9]{1,3}_temp\Z")
_INPUT = re.compile(r"temp[0-9]{1,4}_input\Z")
_SENSOR = "sensor of a driver"
_PLACES_IN_WORDS = {
    ELSEWHERE: "not on the processor's chip",
    NO_TEMPERATURE: "holds no temperature",
    FIRMWARE: "the firmware's, wherever its sensor is",
    UNKNOWN: "its name does not say where it sits",
    CHIP: "another part of the chip",
    PROCESSOR: "the processor's, which another sensor tells of already",
}


class UnknownZoneError(Exception):
    """There is no thermal zone of the name that was asked for: the message lists those that are."""


@dataclass
class Zone:
    """A file with a temperature.

    Args:
        name: As its maker or driver calls it.
        path: The file.
        place: Where its sensor sits (see `thermal_names`).
        number: What the kernel calls it, such as `thermal_zone4`.
        unit: Degrees Celsius that a step of the file is worth; None where the readings have to tell.
        trips: Its trip points, in its own unit.
        is_zone: Whether it is one of the kernel's thermal zones, and no sensor of another driver.
    """

    name: str
    path: str
    place: str
    number: str
    unit: float | None = None
    trips: Sequence[float] = ()
    is_zone: bool = True

    def __post_init__(self) -> None:
        self.num_readings = 0
        self._low_c = self._high_c = 0.0
        # Where the readings alone tell the unit, one that is odd must not decide for good.
        self._votes: Counter[float] = Counter()

    @property
    def label(self) -> str:
        """Its name, the kernel's where its maker gave none."""
        return self.name or self.number

    @property
    def span_c(self) -> float:
        """How far its temperature has moved so far."""
        return self._high_c - self._low_c

    def read_c(self) -> float | None:
        """Return its temperature now in degrees Celsius, None where it has none."""
        raw = read_number(self.path)
        value_c = in_celsius(raw, self.unit or self._voted(raw))
        if value_c is None or (self.place == FIRMWARE and round(value_c, 3) in _FIRMWARE_DUMMIES_C):
            return None
        is_first = not self.num_readings
        self._low_c = value_c if is_first else min(self._low_c, value_c)
        self._high_c = value_c if is_first else max(self._high_c, value_c)
        self.num_readings += 1
        return value_c

    def _voted(self, raw: float | None) -> float | None:
        unit = unit_of(raw)
        if unit is not None:
            self._votes[unit] += 1
        return max(self._votes, key=lambda each: (self._votes[each], each == unit), default=None)


class ThermalZones:
    """A device's thermal zones.

    Args:
        root: Where `sys` is; another folder than `/` for tests.
        wanted: Name of the zone to read, None for what tells of the processor.
    """

    def __init__(self, root: str = "/", wanted: str | None = None) -> None:
        self.root = root
        self.wanted = wanted
        self._zones: list[Zone] = []
        self._used: list[Zone] = []

    def hottest_c(self) -> float | None:
        """Return the temperature of the hottest zone that counts in degrees Celsius, None if unknown."""
        return max(self._believed().values(), default=None)

    def in_words(self) -> str | None:
        """Return which zones' temperature is told, None where none can be read."""
        believed = self._believed()
        names = list(dict.fromkeys(zone.label for zone in self._used if zone.path in believed))
        if not names:
            return None
        more = f" and {len(names) - _MAX_TOLD} more" if len(names) > _MAX_TOLD else ""
        told = ", ".join(names[:_MAX_TOLD]) + more
        if self.wanted is not None:
            return f"{told}, asked for by name"
        return f"the hottest of {told}" if len(names) > 1 else told

    def labels(self) -> list[str]:
        """Return the names of all zones, each once."""
        self._look()
        return list(dict.fromkeys(zone.label for zone in self._zones))

    def listed(self) -> list[dict[str, object]]:
        """Return each zone's `type`, `temperature_c`, `is_used` and `note`.

        The temperature is None where it holds nothing plausible. The note says why a zone does not
        count, None for one that does.
        """
        believed = self._believed()
        found: list[dict[str, object]] = []
        for zone in self._zones:
            value_c = believed.get(zone.path)
            if value_c is None and zone.place != NO_TEMPERATURE:
                value_c = zone.read_c()
            is_used = zone.path in believed
            found.append(
                {
                    "type": zone.name or None,
                    "temperature_c": value_c,
                    "is_used": is_used,
                    "note": None if is_used else self._why_not(zone, value_c),
                }
            )
        return found

    def check(self) -> None:
        """Do nothing if the zone that is wanted is there, or none is wanted.

        Raises:
            UnknownZoneError: It is not there.
        """
        known = ", ".join(self.labels())
        if self.wanted is None or self._named(self.wanted):
            return
        if len(known) > _MAX_LIST:
            known = known[:_MAX_LIST].rpartition(", ")[0] + " and more, which joulemap probe lists"
        raise UnknownZoneError(
            f"this device has no thermal zone {self.wanted[:60]!r}; it has: {known or 'none'}"
        )

    def _believed(self) -> dict[str, float]:
        """Return file -> degrees Celsius of those zones that count."""
        self._look()
        read = {zone.path: zone.read_c() for zone in self._used}
        known = {path: value_c for path, value_c in read.items() if value_c is not None}
        if self.wanted is not None:
            return known
        return {
            zone.path: known[zone.path]
            for zone in self._used
            if zone.path in known and not self._is_stuck(zone, known)
        }

    def _is_stuck(self, zone: Zone, known: Mapping[str, float]) -> bool:
        """Return whether a zone says the same for ever, or what no part of the chip can have."""
        others = [other for other in self._used if other is not zone]
        if zone.num_readings >= _STUCK_READINGS and not zone.span_c:
            return any(other.span_c >= _STUCK_SPAN_C for other in others)
        return _is_doubtful(
            known[zone.path], [known[other.path] for other in others if other.path in known]
        )

    def _why_not(self, zone: Zone, value_c: float | None) -> str:
        if zone.place == NO_TEMPERATURE:
            return "holds no temperature"
        if value_c is None:
            return "switched off, or no temperature"
        if zone in self._used:
            return f"taken for stuck at {value_c:.4g} deg C"
        return "not asked for" if self.wanted is not None else _PLACES_IN_WORDS[zone.place]

    def _look(self) -> None:
        """Find the zones, and those of which the hottest counts; once any of these can be read."""
        if self._used and self._zones:
            return
        self._zones = [*_thermal_zones(self.root), *_processor_sensors(self.root)]
        if self.wanted is not None:
            self._used = self._named(self.wanted)
            return
        for group in _groups(self._zones):
            if any(zone.read_c() is not None for zone in group):
                self._used = group
                return

    def _named(self, name: str) -> list[Zone]:
        """Return the zones of that name, of whatever case where none is written just so."""
        return [zone for zone in self._zones if name in (zone.name, zone.number)] or [
            zone for zone in self._zones if name.lower() == zone.name.lower()
        ]


def _groups(zones: Sequence[Zone]) -> list[list[Zone]]:
    """Return what may tell of the processor, the best first."""
    places: dict[str, list[Zone]] = {}
    for zone in zones:
        places.setdefault(zone.place if zone.is_zone else _SENSOR, []).append(zone)
    own = [zone for zone in zones if zone.is_zone and zone.place in (PROCESSOR, CHIP)]
    return [
        own if PROCESSOR in places else [],
        places.get(_SENSOR, []),
        [*places.get(CHIP, []), *places.get(UNKNOWN, [])],
        places.get(FIRMWARE, []),
    ]


def _is_doubtful(value_c: float, others_c: Sequence[float]) -> bool:
    return (
        bool(others_c)
        and value_c >= _DOUBTED_C
        and value_c % _DOUBTED_STEP_C == 0
        and value_c - max(others_c) >= _DOUBTED_ABOVE_C
    )


def _thermal_zones(root: str) -> list[Zone]:
    """Return the thermal zones by number, with their units as far as anything tells."""
    folder = os.path.join(root, _THERMAL)  # noqa: PTH118
    numbers = [name for name in _names(folder) if re.match(r"thermal_zone[0-9]{1,5}\Z", name)]
    numbers.sort(key=lambda name: (len(name), name))
    types = [_name(f"{folder}/{number}/type") for number in numbers[:_MAX_ZONES]]
    zones, raws = [], []
    for number, kind in zip(numbers, types):
        path = f"{folder}/{number}"
        trips = read_numbers([f"{path}/{name}" for name in _names(path) if _TRIP.match(name)])
        zones.append(Zone(kind, f"{path}/temp", place_of(kind, types), number, trips=trips))
        raws.append(read_number(f"{path}/temp"))
    stems = [re.sub("[0-9]+", "0", kind) for kind in types]
    for zone, raw, stem in zip(zones, raws, stems):
        relatives = [
            other for other, its in zip(raws, stems) if its == stem and stem and other is not None
        ]
        zone.unit = evident_unit(raw, zone.trips, relatives)
    return zones


def _processor_sensors(root: str) -> list[Zone]:
    """Return the sensors of processors' own drivers; hwmon counts in thousandths of a degree."""
    folder = os.path.join(root, _HWMON)  # noqa: PTH118
    found = []
    for name in sorted(_names(folder), key=lambda name: (len(name), name)):
        chip = _name(f"{folder}/{name}/name")
        inputs = sorted(filter(_INPUT.match, _names(f"{folder}/{name}")), key=lambda n: (len(n), n))
        labels = {each: _name(f"{folder}/{name}/{each[: -len('input')]}label") for each in inputs}
        for pattern in _PROCESSOR_CHIPS.get(chip, ()):
            fitting = [each for each in inputs if re.match(pattern, labels[each])]
            for each in fitting:
                label = f"{chip}:{labels[each] or each.partition('_')[0]}"
                path = f"{folder}/{name}/{each}"
                found.append(Zone(label, path, PROCESSOR, f"{name}/{each}", MILLI, is_zone=False))
            if fitting:
                break
    return found[:_MAX_ZONES]


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208
    except OSError:
        return []


def _name(path: str) -> str:
    """Return the name that a file holds without what does not print."""
    text = (read_text(path) or "")[:_MAX_NAME]
    return "".join(each if each.isprintable() else "?" for each in text)

"""Pixel phones' power monitors (ODPM): energy per rail since boot, measured after the battery.

Each monitor is an IIO device; `energy_value` holds a snapshot that reading takes::

    t=<ms on CLOCK_BOOTTIME>
    CH0(T=<ms>)[S10M_VDD_TPU], <microjoules>

and `enabled_rails` says which subsystem each rail supplies. Charging does not disturb it. Rails that
start with `L` are linear regulators, which may hang on one of the others: the total leaves them out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..onboard.energy.meter import COUNTER, Meter, MeterError, MeterInfo, Missing
from ..onboard.files import Files
from .readings import NumberFile, channel_name
from .refusals import read_at_first, remedy_of

_IIO = "sys/bus/iio/devices"
_LINE = re.compile(r"CH([0-9]{1,3})(?:\(T=[0-9]{1,20}\))?\[([^\]\n]{1,64})\], ?([0-9]{1,20})\Z")
_RAIL = re.compile(r"CH([0-9]{1,3})\[([^\]\n]{1,64})\]:(.{1,64})\Z")
_LINEAR = re.compile(r"L[0-9]+[A-Z]?_")
_STEP_J = 1e-6
# Each reading asks the chip for a snapshot.
_READ_S = 0.05
_MAX_POWER_W = 50.0
_REMEDY = "adb root (userdebug builds), or `su` on a rooted phone; the shell's user may not read it"

_UNKNOWN_FORM = "report this with the phone's name; take another meter until it is known"


@dataclass(frozen=True)
class _Rail:
    """One channel of one monitor."""

    folder: str
    number: str
    name: str
    subsystem: str


class OdpmMeter:
    """The sum of some rails.

    Args:
        info: What is known about it.
        monitors: The monitors' `energy_value`.
        rails: For each monitor the rails that count: channel -> name.
    """

    def __init__(
        self,
        info: MeterInfo,
        monitors: Sequence[NumberFile],
        rails: Sequence[Mapping[str, str]],
    ) -> None:
        self.info = info
        self._monitors = tuple(monitors)
        self._rails = tuple(rails)

    def read(self) -> float:
        """Return joules since boot."""
        total_uj = 0
        for monitor, rails in zip(self._monitors, self._rails):
            values = parse_energy(monitor.text(), monitor.path)
            for number, name in rails.items():
                shown, energy_uj = values.get(number, ("", 0))
                if shown != name:
                    raise MeterError(
                        f"{monitor.path} shows '{shown}' on channel {number} instead of '{name}': "
                        "its rails were changed since the meter was found"
                    )
                total_uj += energy_uj
        return total_uj * 1e-6

    def close(self) -> None:
        """Close the files."""
        for monitor in self._monitors:
            monitor.close()


def find(files: Files) -> list[Meter | Missing]:
    """Return the total first, then every rail."""
    missing: list[Meter | Missing] = []
    rails: list[_Rail] = []
    for name in files.list(_IIO):
        folder = f"{_IIO}/{name}"
        if files.is_closed(folder):
            missing.append(_missing(f"/{folder} may not be read"))
            continue
        if "energy_value" not in files.list(folder):
            continue
        path = f"/{folder}/energy_value"
        try:
            values = parse_energy(read_at_first(files, f"{folder}/energy_value"), path)
        except OSError as error:
            reason = f"{path} cannot be read ({error.strerror})"
            missing.append(_missing(reason, remedy_of(error, _REMEDY)))
            continue
        except MeterError as error:
            missing.append(_missing(str(error), _UNKNOWN_FORM))
            continue
        subsystems = _subsystems(files, folder)
        rails += [
            _Rail(folder, number, shown, subsystems.get(number, ""))
            for number, (shown, _) in values.items()
        ]
    if not rails:
        return missing
    summed = [rail for rail in rails if not _LINEAR.match(rail.name)]
    left_out = [rail.name for rail in rails if _LINEAR.match(rail.name)]
    found: list[Meter | Missing] = []
    if summed and not missing:
        names = ", ".join(channel_name(rail.name, "?") for rail in summed)
        unmeasured = "rails that no channel is set to, display and modem among them on some phones"
        if left_out:
            unmeasured += f"; left out as they may hang on others: {', '.join(left_out)}"
        found.append(_open(files, "total", summed, f"phone: the rails {names}", unmeasured))
    channels: set[str] = {"total"}
    for rail in rails:
        channel = channel_name(rail.name, f"CH{rail.number}")
        while channel in channels:
            channel += "+"
        channels.add(channel)
        what = f"rail {channel}"
        if rail.subsystem:
            what += f" ({channel_name(rail.subsystem, '?')})"
        found.append(_open(files, channel, [rail], what, "the phone's other rails"))
    return [*found, *missing]


def parse_energy(text: str, path: str) -> dict[str, tuple[str, int]]:
    """Return channel number -> (rail, microjoules) from the text of `energy_value`.

    Raises:
        MeterError: It is cut off, or not of that form.
    """
    values: dict[str, tuple[str, int]] = {}
    for line in text.splitlines():
        if re.match(r"t=[0-9]{1,20}\Z", line) or not line.strip():
            continue
        match = _LINE.match(line.strip())
        if match is None or match.group(1) in values:
            raise MeterError(f"{path} holds the line {line[:60]!r}, which has no known form")
        values[match.group(1)] = (match.group(2), int(match.group(3)))
    if not values:
        raise MeterError(f"{path} holds no rail")
    return values


def _subsystems(files: Files, folder: str) -> dict[str, str]:
    lines = (files.text(f"{folder}/enabled_rails") or "").splitlines()
    matches = [_RAIL.match(line.strip()) for line in lines]
    return {match.group(1): match.group(3) for match in matches if match is not None}


def _open(
    files: Files, channel: str, rails: Sequence[_Rail], what: str, unmeasured: str
) -> OdpmMeter | Missing:
    folders = list(dict.fromkeys(rail.folder for rail in rails))
    monitors: list[NumberFile] = []
    for folder in folders:
        try:
            monitors.append(NumberFile(files, f"{folder}/energy_value"))
        except OSError as error:
            for monitor in monitors:
                monitor.close()
            reason = f"/{folder}/energy_value cannot be opened ({error.strerror})"
            return _missing(reason, remedy_of(error, _REMEDY))
    chosen = [
        {rail.number: rail.name for rail in rails if rail.folder == folder} for folder in folders
    ]
    info = MeterInfo(
        name="android_odpm",
        channel=channel,
        kind=COUNTER,
        domain=what,
        unmeasured=unmeasured,
        rail="+".join(f"{files.resolve(rail.folder)}#{rail.number}" for rail in rails),
        resolution=_STEP_J,
        max_power_w=_MAX_POWER_W,
        read_s=_READ_S,
        is_partial=channel != "total",
        notes=("Counts since boot, also while asleep.", "Charging does not disturb it."),
    )
    return OdpmMeter(info, monitors, chosen)


def _missing(reason: str, remedy: str = _REMEDY) -> Missing:
    return Missing("android_odpm", "", reason, remedy)

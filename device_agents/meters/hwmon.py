"""Power sensors by the kernel's hwmon and IIO files: INA219, INA226, INA3221 and whatever has rails.

A hwmon chip gives power (`power1_input`, microwatts), an energy counter (`energy1_input`,
microjoules), or voltage and current of a rail (`in1_input` in millivolts, `curr1_input` in
milliamperes), which are multiplied here. An IIO device gives raw numbers and their scales. Graphics
cards, batteries and chargers that also appear here have backends of their own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..onboard.energy.meter import COUNTER, SAMPLER, Meter, MeterInfo, Missing
from ..onboard.files import Files
from .readings import NumberFile, channel_name, check_power, chip_folder, known_number, rail_name
from .refusals import read_at_first, remedy_of
from .whole_machine import Sensor, is_light, is_machines_meter, see_all

_HWMON = "sys/class/hwmon"
_IIO = "sys/bus/iio/devices"
# Chips that other modules read.
_ELSEWHERE = {"amdgpu", "odpm"}
_MAX_POWER_W = 1_000.0
_MAX_ACPI_POWER_W = 10_000.0
# Readings of small bidirectional chips scatter around zero by a few steps.
_ZERO_STEPS = 4
_OTHER_STEP_W = 1e-6
_NOT_TOGETHER = "Voltage and current are converted one after the other: biased where they step."
_REMEDY = "as root: chmod a+r {}"


@dataclass(frozen=True)
class _Chip:
    """What a data sheet says.

    Args:
        shunt_step_v: Smallest step of the voltage over the shunt.
        full_scale_v: Largest of it.
        max_bus_v: Largest supply voltage.
        power_steps: A step of the power in steps of the current, in V; 0 if it has no power of its own.
        bus_step_v: Smallest step of the supply voltage.
    """

    shunt_step_v: float
    full_scale_v: float
    max_bus_v: float
    power_steps: float
    bus_step_v: float


CHIPS = {
    "ina219": _Chip(10e-6, 0.320, 26.0, 20.0, 4e-3),
    "ina220": _Chip(10e-6, 0.320, 26.0, 20.0, 4e-3),
    "ina226": _Chip(2.5e-6, 0.082, 36.0, 25.0, 1.25e-3),
    "ina230": _Chip(2.5e-6, 0.082, 28.0, 25.0, 1.25e-3),
    "ina231": _Chip(2.5e-6, 0.082, 28.0, 25.0, 1.25e-3),
    "ina3221": _Chip(40e-6, 0.1638, 26.0, 0.0, 8e-3),
}


class RailMeter:
    """Power or energy of a rail: the product of one or two numbers and a factor.

    Args:
        info: What is known about it.
        numbers: Power or energy, or voltage and current.
        to_si: Factor from the product of the files' units to W or J.
    """

    def __init__(self, info: MeterInfo, numbers: Sequence[NumberFile], to_si: float) -> None:
        self.info = info
        self._numbers = tuple(numbers)
        self._to_si = to_si

    def read(self) -> float:
        """Return watts, or joules if it is a counter."""
        value = self._to_si
        for number in self._numbers:
            value *= number.read()
        where = self._numbers[-1].path
        if self.info.kind == COUNTER:
            return check_power(value, float("inf"), where)
        lowest = -_ZERO_STEPS * (self.info.resolution or _OTHER_STEP_W)
        return check_power(value, self.info.max_power_w, where, min_power_w=lowest)

    def close(self) -> None:
        """Close the files."""
        for number in self._numbers:
            number.close()


@dataclass(frozen=True)
class Rail:
    """A supply that a chip measures.

    Args:
        folder: The chip's.
        chip: Its name.
        label: The rail's, empty if it has none.
        number: Of the chip's input.
        files: Names of the files whose product is the power.
        to_si: Factor from that product to W or J.
        kind: `counter` or `sampler`.
    """

    folder: str
    chip: str
    label: str
    number: str
    files: tuple[str, ...]
    to_si: float
    kind: str = SAMPLER


def find(files: Files) -> list[Meter | Missing]:
    """Return every rail; `Missing` where one cannot be read."""
    found: list[Meter | Missing] = []
    all_rails = rails(files)
    whole = see_all(files, [_sensor(files, rail) for rail in all_rails])
    for channel, rail, is_whole in zip(_channels(files, all_rails), all_rails, whole):
        meter = open_rail(files, rail, "hwmon", channel, domain(rail))
        if not isinstance(meter, Missing):
            meter.info = replace(meter.info, is_partial=not is_whole)
        found.append(meter)
    return found


def _channels(files: Files, all_rails: Sequence[Rail]) -> list[str]:
    """Return a name for each rail that is the same after the next start of the machine.

    The kernel numbers chips in the order in which they answer, so of two rails of one name each is
    told by its chip's place, such as `1-0040`.
    """
    plain = [
        channel_name(rail.label, f"{channel_name(rail.chip, 'rail')}-{rail.number}")
        for rail in all_rails
    ]
    names: list[str] = []
    for name, rail in zip(plain, all_rails):
        channel = name
        if plain.count(name) > 1:
            chip = files.resolve(chip_folder(files, rail.folder)).rpartition("/")[2]
            channel = f"{name}@{channel_name(chip.replace(':', '-'), 'chip')}"
        while channel in names:
            channel += "+"
        names.append(channel)
    return names


def _sensor(files: Files, rail: Rail) -> Sensor:
    place = files.resolve(chip_folder(files, rail.folder))
    return Sensor(rail.chip, rail.label, _supply(files, rail), place)


def rails(files: Files) -> list[Rail]:
    """Return the rails of all hwmon chips and IIO devices: energy first, then power, then V and A."""
    found: list[Rail] = []
    for name in files.list(_HWMON):
        folder = f"{_HWMON}/{name}"
        if "name" not in files.list(folder) and "name" in files.list(f"{folder}/device"):
            # Older drivers, ACPI's power meter among them, have their files at the device itself.
            folder = f"{folder}/device"
        chip = files.text(f"{folder}/name") or ""
        # Batteries, chargers and wireless mice repeat here what their own class has.
        if chip not in _ELSEWHERE and files.text(f"{folder}/device/type") is None:
            found += hwmon_rails(files, folder, chip)
    for name in files.list(_IIO):
        folder = f"{_IIO}/{name}"
        chip = files.text(f"{folder}/name") or ""
        if not any(part in chip for part in _ELSEWHERE):
            found += iio_rails(files, folder, chip)
    return found


def hwmon_rails(files: Files, folder: str, chip: str) -> list[Rail]:
    """Return the rails of one hwmon chip."""
    if is_light(chip, ""):
        return []
    names = set(files.list(folder))
    found: list[Rail] = []

    def label(number: str, kind: str) -> str:
        return files.text(f"{folder}/{kind}{number}_label") or ""

    for number in _numbers(names, r"energy([0-9]+)_input\Z"):
        text = label(number, "energy")
        # AMD's driver has one counter per core besides the sockets'.
        if not text.startswith("Ecore"):
            one = (f"energy{number}_input",)
            found.append(Rail(folder, chip, text, number, one, 1e-6, COUNTER))
    for number in _numbers(names, r"power([0-9]+)_(?:input|average)\Z"):
        file = f"power{number}_input"
        if file not in names:
            file = f"power{number}_average"
        oem = files.text(f"{folder}/power{number}_oem_info") or ""
        text = label(number, "power") or label(number, "in") or oem
        if not is_light(chip, text):
            found.append(Rail(folder, chip, text, f"power{number}", (file,), 1e-6))
    with_power = any(rail.kind == SAMPLER for rail in found)
    for number in _numbers(names, r"curr([0-9]+)_input\Z"):
        # The fourth current of an INA3221 is a sum, its voltages 4 to 6 are those over the shunts.
        is_sum = chip.startswith("ina3221") and int(number) > 3
        if with_power or is_sum or f"in{number}_input" not in names:
            continue
        pair = (f"in{number}_input", f"curr{number}_input")
        text = label(number, "in") or label(number, "curr")
        found.append(Rail(folder, chip, text, number, pair, 1e-6))
    return found


def iio_rails(files: Files, folder: str, chip: str) -> list[Rail]:
    """Return the rails of one IIO device: power, else voltage and current of one number."""
    names = set(files.list(folder))
    found = []
    for number in _numbers(names, r"in_power([0-9]+)_(?:raw|input)\Z"):
        file, scale = _iio_number(files, folder, names, f"in_power{number}")
        text = files.text(f"{folder}/rail_name_{number}") or ""
        if scale is not None:
            found.append(Rail(folder, chip, text, f"power{number}", (file,), scale * 1e-3))
    if found:
        return found
    for number in _numbers(names, r"in_current([0-9]+)_(?:raw|input)\Z"):
        voltage, voltage_scale = _iio_number(files, folder, names, f"in_voltage{number}")
        current, current_scale = _iio_number(files, folder, names, f"in_current{number}")
        text = files.text(f"{folder}/rail_name_{number}") or ""
        if voltage in names and voltage_scale is not None and current_scale is not None:
            to_w = voltage_scale * current_scale * 1e-6
            found.append(Rail(folder, chip, text, number, (voltage, current), to_w))
    return found


def domain(rail: Rail) -> str:
    """Return what a rail's energy is the energy of, in words."""
    if rail.chip == "power_meter" and not rail.label:
        return "whole machine, by its supply (ACPI power meter)"
    if is_machines_meter(Sensor(rail.chip, rail.label, "", "")):
        said = f"{channel_name(rail.label, '')} of the sensor {channel_name(rail.chip, '')}"
        return f"whole machine, by its supply ({said})"
    of = f"rail '{channel_name(rail.label, '')}'" if rail.label else f"input {rail.number}"
    return f"{of} of the sensor {channel_name(rail.chip, 'without a name')}"


def open_rail(
    files: Files, rail: Rail, backend: str, channel: str, what: str, unmeasured: str | None = None
) -> RailMeter | Missing:
    """Return the meter of a rail, `Missing` with file and remedy if it cannot be read.

    Args:
        files: The machine's files.
        rail: The rail.
        backend: Name of the backend.
        channel: Name of the channel.
        what: Its domain, in words.
        unmeasured: What it leaves out, in words.
    """
    numbers: list[NumberFile] = []
    path = ""
    try:
        for name in rail.files:
            path = f"{rail.folder}/{name}"
            numbers.append(NumberFile(files, path))
            read_at_first(files, path)
    except OSError as error:
        for number in numbers:
            number.close()
        return _refused(files, rail, backend, channel, path, error)
    resolution = _resolution_w(files, rail)
    settings, update_s, num_samples = _settings(files, rail)
    notes = list(settings)
    if len(rail.files) > 1:
        notes.append(_NOT_TOGETHER)
    info = MeterInfo(
        name=backend,
        channel=channel,
        kind=rail.kind,
        domain=what,
        unmeasured="what this rail does not supply" if unmeasured is None else unmeasured,
        rail=_supply(files, rail),
        resolution=_OTHER_STEP_W if rail.kind == COUNTER else resolution,
        update_period_s=update_s,
        averaging_s=update_s if update_s is not None and num_samples > 1 else 0.0,
        max_power_w=_max_power_w(files, rail),
        read_s=min(update_s or 1e-3, 1.0),
        notes=tuple(notes),
    )
    return RailMeter(info, numbers, rail.to_si)


def _supply(files: Files, rail: Rail) -> str:
    return rail_name(files, rail.folder, re.sub(r"[^0-9]", "", rail.number))


def _refused(
    files: Files, rail: Rail, backend: str, channel: str, path: str, error: OSError
) -> Missing:
    switch = f"{rail.folder}/in{rail.number}_enable"
    if files.text(switch) == "0":
        remedy = f"the input is switched off; as root: echo 1 > /{switch}"
    else:
        remedy = remedy_of(error, _REMEDY.format(f"/{path}"))
    return Missing(backend, channel, f"/{path} cannot be read ({error.strerror})", remedy)


def _iio_number(files: Files, folder: str, names: set[str], stem: str) -> tuple[str, float | None]:
    """Return the file of an IIO channel and the factor to mW, mV or mA; None if there is none."""
    if f"{stem}_input" in names:
        return f"{stem}_input", 1.0
    shared = re.sub(r"[0-9]+\Z", "", stem)
    if any(known_number(files, f"{folder}/{of}_offset") for of in (stem, shared)):
        # What is no mere factor is not multiplied here.
        return f"{stem}_raw", None
    scale = known_number(files, f"{folder}/{stem}_scale")
    if scale is None:
        scale = known_number(files, f"{folder}/{shared}_scale")
    return f"{stem}_raw", scale


def _numbers(names: set[str], pattern: str) -> list[str]:
    found = {match.group(1) for match in map(re.compile(pattern).match, names) if match}
    return sorted(found, key=int)


def _chip(rail: Rail) -> _Chip | None:
    return next((chip for name, chip in CHIPS.items() if rail.chip.startswith(name)), None)


def _shunt_ohm(files: Files, rail: Rail) -> float | None:
    """Return the shunt's resistance in ohm; hwmon has microohm, IIO ohm."""
    number = re.sub(r"[^0-9]", "", rail.number)
    for name, factor in (
        (f"shunt{number}_resistor", 1e-6),
        ("shunt_resistor", 1e-6),
        ("in_shunt_resistor", 1.0),
    ):
        value = known_number(files, f"{rail.folder}/{name}")
        if value is not None and value > 0:
            return value * factor
    return None


def _resolution_w(files: Files, rail: Rail) -> float | None:
    """Return the smallest step of the power in W at the present voltage, None if unknown."""
    chip, shunt_ohm = _chip(rail), _shunt_ohm(files, rail)
    if rail.kind == COUNTER or chip is None or shunt_ohm is None:
        return None
    current_step_a = chip.shunt_step_v / shunt_ohm
    if len(rail.files) == 1 and chip.power_steps:
        return chip.power_steps * current_step_a
    if len(rail.files) == 1:
        return None
    voltage = known_number(files, f"{rail.folder}/{rail.files[0]}")
    current = known_number(files, f"{rail.folder}/{rail.files[1]}")
    if voltage is None or current is None:
        return None
    return abs(voltage) * 1e-3 * current_step_a + abs(current) * 1e-3 * chip.bus_step_v


def _max_power_w(files: Files, rail: Rail) -> float:
    """Return a bound: what the chip can show at all, or what no rail of a small board carries."""
    if rail.chip == "power_meter" or rail.kind == COUNTER:
        return _MAX_ACPI_POWER_W
    chip, shunt_ohm = _chip(rail), _shunt_ohm(files, rail)
    if chip is None or shunt_ohm is None:
        return _MAX_POWER_W
    return min(_MAX_POWER_W, chip.full_scale_v / shunt_ohm * chip.max_bus_v)


def _settings(files: Files, rail: Rail) -> tuple[list[str], float | None, int]:
    """Return sentences on the chip's settings, its update period in s, and its samples per reading."""
    notes = [f"Sensor {channel_name(rail.chip, 'unknown')}."]
    update_s = None
    interval_ms = known_number(files, f"{rail.folder}/update_interval")
    if interval_ms is not None and 0 < interval_ms <= 60_000:
        update_s = interval_ms * 1e-3
        notes.append(f"update_interval is {interval_ms:g} ms.")
    samples = known_number(files, f"{rail.folder}/samples")
    num_samples = int(samples) if samples is not None and 1 <= samples <= 65_536 else 1
    if samples is not None:
        notes.append(f"samples is {num_samples}: each reading is an average of as many.")
    rate_hz = known_number(files, f"{rail.folder}/in_sampling_frequency")
    if update_s is None and rate_hz is not None and 0.02 <= rate_hz <= 1e6:
        update_s = 1 / rate_hz
        notes.append(f"in_sampling_frequency is {rate_hz:g} Hz.")
    average_ms = known_number(files, f"{rail.folder}/power1_average_interval")
    if rail.files[0].endswith("_average") and average_ms is not None and 0 < average_ms <= 60_000:
        update_s, num_samples = average_ms * 1e-3, 2
        notes.append(f"power1_average_interval is {average_ms:g} ms.")
    shunt_ohm = _shunt_ohm(files, rail)
    if shunt_ohm is not None:
        notes.append(
            f"The shunt is taken as {shunt_ohm * 1e3:g} mOhm: an error of it is one of all."
        )
    return notes, update_s, num_samples

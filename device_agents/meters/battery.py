"""Batteries of phones and laptops by `/sys/class/power_supply`: slow averaged gauges.

What a battery gives is known only once `calibrate` has learned its sign and unit from a step of the
load, and only while nothing charges it: a reading with a cable plugged in is an error, not a number.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from ..onboard.energy.meter import (
    COUNTER,
    SAMPLER,
    Meter,
    MeterError,
    MeterGone,
    MeterInfo,
    Missing,
)
from ..onboard.energy.meter_options import in_words
from ..onboard.files import Files
from .battery_sign import NO_VALUES, TOLD, Calibration, Stretch, learn_sign_and_unit
from .battery_supply import CLASS, Supply, supplies
from .readings import NumberFile, check_power, known_number
from .refusals import read_at_first, remedy_of

_AVERAGING_S = 1.0
_READ_S = 0.1
_MAX_POWER_W = 300.0
# Once calibrated, more than so many times the power under load is not believed.
_MAX_OF_LOAD = 8.0
_VOLTS = (2.0, 65.0)
_FULL_AH = (0.15, 60.0)
_MICRO = 1e-6
_FACTORS = (1.0, 1e3, 1e-3)
_PERMIT = "as root, or on a phone by `adb root`; the kernel shows this file to the system only"

_SILENT = "use another meter: this gauge tells no power"


class BatteryMeter:
    """Power that a battery gives.

    Args:
        info: What is known about it.
        supply: The battery.
        flow: Its current or power.
        voltage: Its voltage.
        gives_power: Whether `flow` is power.
        told: Its unit and sign, as far as the user says (see `onboard.meter_options`).

    Attributes:
        calibration: What `calibrate` learned; may be set from an earlier time on the same device.
    """

    def __init__(
        self,
        info: MeterInfo,
        supply: Supply,
        flow: NumberFile,
        voltage: NumberFile | None,
        *,
        gives_power: bool,
        told: Mapping[str, str] | None = None,
    ) -> None:
        self.info = info
        self.calibration: Calibration | None = None
        self._told = {name: text for name, text in (told or {}).items() if name in TOLD}
        self._supply = supply
        self._flow = flow
        self._voltage = voltage
        self._gives_power = gives_power

    def read(self) -> float:
        """Return watts.

        Raises:
            MeterError: It is being charged, or was not calibrated.
        """
        if self.calibration is None:
            raise MeterError(
                f"{self._flow.path}: sign and unit of a battery's current differ between devices; "
                "they must be learned first, by a step of the load (calibrate)"
            )
        raw = self._raw()
        self._check_supply()
        voltage_v = self._voltage_v()
        power_w = self.calibration.current_a(raw) * voltage_v
        if power_w <= 0:
            raise MeterError(
                f"{self._flow.path} holds {raw:g}, which is current into the battery as it was learned: "
                "it is being charged, or its sign has changed"
            )
        most_w = min(self.info.max_power_w, _MAX_OF_LOAD * self.calibration.load_a * voltage_v)
        return check_power(power_w, most_w, self._flow.path)

    def reserve(self) -> tuple[float, float] | None:
        """Return what is left in the battery, and how many joules one of it is; None if unknown.

        It moves in large steps: to check the gauge against, over several visits.

        Raises:
            MeterError: The voltage cannot be read now.
        """
        full = _charge_factor(self._supply)
        for name in ("charge_counter", "charge_now"):
            charge = known_number(self._supply.files, f"{self._supply.folder}/{name}")
            if charge is not None and full is not None:
                return charge * _MICRO * full * 3600, self._voltage_v()
        energy = known_number(self._supply.files, f"{self._supply.folder}/energy_now")
        return None if energy is None else (energy * _MICRO * 3600, 1.0)

    def state(self) -> dict[str, str]:
        """Return whether it is charged, by what, and what its sign and unit are."""
        learned = self.calibration
        state = self._supply.state()
        if learned is not None:
            state["learned"] = f"sign {learned.sign:+d}, factor {learned.factor:g}"
        if self._told:
            state["told"] = in_words(self._told)
        return state

    def calibrate(
        self,
        burn: Callable[[float], object] | None = None,
        wait: Callable[[float], object] = time.sleep,
        *,
        stretch_s: float = 15.0,
        slice_s: float = 0.25,
        clock: Callable[[], float] = time.monotonic,
    ) -> Calibration:
        """Learn sign and unit by a stretch of idling, one of load, and one of idling.

        Args:
            burn: Keeps the processor busy for so many seconds; then it is read. All CPUs that this
                process may use, when None.
            wait: Lets it idle for so many seconds; then it is read.
            stretch_s: Length of each stretch.
            slice_s: Time between two readings.
            clock: The time in s.

        Raises:
            MeterError: They cannot be told, or the battery is being charged.
        """
        count = max(2, round(stretch_s / slice_s))
        before = self._watch(wait, slice_s, count, clock)
        load = self._watch(burn or burn_cpus, slice_s, count, clock)
        after = self._watch(wait, slice_s, count, clock)
        # What was said right after the load is of the load still.
        settled = after.raw[len(after.raw) // 3 :]
        charges = (before.charge_used_c, after.charge_used_c)
        share = len(settled) / max(1, len(after.raw))
        idle = Stretch(
            raw=[*before.raw, *settled],
            duration_s=before.duration_s + after.duration_s * share,
            charge_used_c=None
            if charges[0] is None or charges[1] is None
            else charges[0] + charges[1] * share,
            num_charge_steps=before.num_charge_steps + after.num_charge_steps,
            slices_s=[*before.slices_s, *after.slices_s[len(after.raw) // 3 :]],
        )
        self.calibration = learn_sign_and_unit(idle, load, self._told)
        # No part of the state: whether the counter moved in time is chance.
        said = "agrees" if self.calibration.is_confirmed else "moved too little to tell"
        learned = "were learned from"
        if self._told:
            learned = f"({in_words(self._told)} was told) were checked by"
        note = f"Sign and unit {learned} a step of the load; the charge counter {said}."
        self.info = replace(self.info, notes=(*self.info.notes, note))
        return self.calibration

    def close(self) -> None:
        """Close the files."""
        self._flow.close()
        if self._voltage is not None:
            self._voltage.close()

    def _watch(
        self,
        spend: Callable[[float], object],
        slice_s: float,
        count: int,
        clock: Callable[[], float],
    ) -> Stretch:
        raw: list[float] = []
        slices_s: list[float] = []
        left: list[tuple[float, float]] = []
        began = read_s = clock()
        self._note_left(left)
        for _ in range(count):
            spend(slice_s)
            self._note_left(left)
            self._check_supply()
            raw.append(self._current())
            slices_s.append(clock() - read_s)
            read_s += slices_s[-1]
        duration_s = clock() - began
        # Step by step: of energy in J the voltage, which sags under load, makes the charge.
        steps_c = [(a - b) * (f + g) / 2 for (a, f), (b, g) in zip(left, left[1:])]
        moves = sum(1 for step_c in steps_c if step_c)
        used_c = sum(steps_c) if len(left) == count + 1 else None
        return Stretch(raw, duration_s, used_c, moves, slices_s)

    def _note_left(self, left: list[tuple[float, float]]) -> None:
        with contextlib.suppress(MeterError):
            reserve = self.reserve()
            if reserve is not None:
                left.append((reserve[0], reserve[1] / self._voltage_v()))

    def _current(self) -> float:
        """Return the current as the file says it, the first of `NO_VALUES` where it says none now."""
        try:
            return self._raw()
        except MeterGone:
            raise
        except MeterError:
            return NO_VALUES[0]

    def _raw(self) -> float:
        value = self._flow.read()
        if value in NO_VALUES:
            raise MeterError(
                f"{self._flow.path} holds {value:.0f}, which gauges write without a value"
            )
        # Current is what is learned, also where the file gives power.
        return value / self._voltage_v() if self._gives_power else value

    def _check_supply(self) -> None:
        charging = self._supply.charging()
        if charging:
            raise MeterError(
                f"{charging}: the battery's power is not the device's; {self._supply.remedy()}"
            )

    def _voltage_v(self) -> float:
        # Power without a voltage beside it is learned as the current of a battery of one cell.
        return 3.8 if self._voltage is None else voltage_v(self._voltage.read(), self._voltage.path)


class ChargeMeter:
    """Energy that left a battery, by its charge counter: coarse, to check the gauge against.

    Args:
        info: What is known about it.
        supply: The battery.
        charge: Its charge or energy.
        voltage: Its voltage; None if `charge` is energy.
        to_si: Factor from the file's unit to C or J.
    """

    def __init__(
        self,
        info: MeterInfo,
        supply: Supply,
        charge: NumberFile,
        voltage: NumberFile | None,
        to_si: float,
    ) -> None:
        self.info = info
        self._supply = supply
        self._charge = charge
        self._voltage = voltage
        self._to_si = to_si
        self._last: tuple[float, float] | None = None
        self._joules = 0.0

    def read(self) -> float:
        """Return joules since the first reading.

        Raises:
            MeterError: It is being charged.
        """
        now = self._charge.read() * self._to_si
        volts = (
            1.0 if self._voltage is None else voltage_v(self._voltage.read(), self._voltage.path)
        )
        charging = self._supply.charging()
        if charging:
            raise MeterError(
                f"{charging}: its charge is no measure of the device; {self._supply.remedy()}"
            )
        last, last_volts = self._last or (now, volts)
        self._last = (now, volts)
        # What was charged is taken off, so that whoever adds up sees a counter that went backwards.
        self._joules += (last - now) * (volts + last_volts) / 2
        if now > last:
            raise MeterError(f"{self._charge.path} rose: the battery was charged")
        return self._joules

    def state(self) -> dict[str, str]:
        """Return whether it is charged, and by what."""
        return self._supply.state()

    def close(self) -> None:
        """Close the files."""
        self._charge.close()
        if self._voltage is not None:
            self._voltage.close()


def burn_cpus(seconds: float) -> None:
    """Keep all CPUs that this process may use busy for so many seconds."""
    count = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    end = time.monotonic() + seconds
    # Hashing large blocks lets other threads run at the same time.
    block = bytes(1 << 18)

    def hash_on() -> None:
        while time.monotonic() < end:
            hashlib.sha256(block).digest()

    threads = [threading.Thread(target=hash_on, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def voltage_v(raw: float, path: str) -> float:
    """Return a battery's voltage; of the units that files are in, one only is plausible.

    Raises:
        MeterError: None is.
    """
    for factor in _FACTORS:
        volts = raw * _MICRO * factor
        if _VOLTS[0] <= volts <= _VOLTS[1]:
            return volts
    raise MeterError(f"{path} holds {raw:g}, which is no battery's voltage in V, mV or uV")


def find(files: Files, told: Mapping[str, str] | None = None) -> list[Meter | Missing]:
    """Return each battery's gauge, then its charge counter; `Missing` while it is charged.

    Args:
        files: The machine's files.
        told: What the user says of the batteries (see `onboard.meter_options`).
    """
    told = told or {}
    found: list[Meter | Missing] = []
    names = files.list(CLASS)
    known = supplies(files, told)
    if not known and any(files.is_closed(f"{CLASS}/{name}") for name in ("", *names)):
        return [Missing("battery", "", f"/{CLASS} may not be read", _PERMIT)]
    for supply in known:
        charging = supply.charging()
        if charging:
            reason = f"{charging}: the battery's power is not the device's"
            found.append(Missing("battery", supply.name, reason, supply.remedy()))
            continue
        found += [_gauge(files, supply, told), *_charge(files, supply)]
    return found


def _gauge(files: Files, supply: Supply, told: Mapping[str, str]) -> Meter | Missing:
    names = files.list(supply.folder)
    gives_power = "current_now" not in names
    flow_name = "power_now" if gives_power else "current_now"
    if flow_name not in names:
        reason = f"/{supply.folder} has neither current_now nor power_now"
        return Missing("battery", supply.name, reason, _SILENT)
    if gives_power and "current_unit" in told:
        reason = f"/{supply.folder} has power_now and no current_now, so current_unit means nothing"
        return Missing("battery", supply.name, reason, "leave current_unit out")
    opened: list[NumberFile] = []
    path = ""
    try:
        for name in (flow_name, "voltage_now"):
            path = f"{supply.folder}/{name}"
            if name in names:
                read_at_first(files, path)
                opened.append(NumberFile(files, path))
    except OSError as error:
        for file in opened:
            file.close()
        reason = f"/{path} cannot be read ({error.strerror})"
        # Makers' drivers have the file and no value for it.
        remedy = remedy_of(error, _PERMIT, {errno.ENODEV: _SILENT, errno.EINVAL: _SILENT})
        return Missing("battery", supply.name, reason, remedy)
    voltage = opened[1] if len(opened) > 1 else None
    if voltage is None and not gives_power:
        opened[0].close()
        reason = f"/{supply.folder} has current_now and no voltage_now: no power without it"
        return Missing("battery", supply.name, reason, "use another meter")
    info = MeterInfo(
        name="battery",
        channel=supply.name,
        kind=SAMPLER,
        domain="the whole device, from its battery",
        unmeasured=supply.unmeasured,
        is_partial=bool(supply.others),
        rail=files.resolve(supply.folder),
        averaging_s=_AVERAGING_S,
        max_power_w=_MAX_POWER_W,
        read_s=_READ_S,
        notes=(
            "A gauge for comparisons on one device: slow, averaged, of modest absolute accuracy.",
            "Sign and unit are learned by a step of the load before it is used.",
        ),
    )
    return BatteryMeter(info, supply, opened[0], voltage, gives_power=gives_power, told=told)


def _charge(files: Files, supply: Supply) -> list[Meter | Missing]:
    """Return the charge counter as a meter, if there is a usable one."""
    names = files.list(supply.folder)
    full = _charge_factor(supply)
    for name, unit in (
        ("energy_now", _MICRO * 3600),
        ("charge_counter", _MICRO * 3600 * (full or 0.0)),
        ("charge_now", _MICRO * 3600 * (full or 0.0)),
    ):
        needs_voltage = name != "energy_now"
        if name not in names or not unit or (needs_voltage and "voltage_now" not in names):
            continue
        try:
            charge = NumberFile(files, f"{supply.folder}/{name}")
        except OSError:
            continue
        try:
            voltage = NumberFile(files, f"{supply.folder}/voltage_now") if needs_voltage else None
        except OSError:
            charge.close()
            continue
        info = MeterInfo(
            name="battery",
            channel=f"{supply.name}-charge",
            kind=COUNTER,
            domain="the whole device, from its battery's charge",
            unmeasured=supply.unmeasured,
            is_partial=bool(supply.others),
            rail=files.resolve(supply.folder),
            resolution=None,
            max_power_w=_MAX_POWER_W,
            read_s=_READ_S,
            notes=("Moves in large steps: for checking the gauge over minutes.",),
        )
        return [ChargeMeter(info, supply, charge, voltage, unit)]
    return []


def _charge_factor(supply: Supply) -> float | None:
    """Return the factor of the charge files' nominal unit that makes a full battery plausible."""
    for name in ("charge_full_design", "charge_full", "charge_counter", "charge_now"):
        value = known_number(supply.files, f"{supply.folder}/{name}")
        if value is None or value <= 0:
            continue
        for factor in _FACTORS:
            if _FULL_AH[0] <= value * _MICRO * factor <= _FULL_AH[1]:
                return factor
    return None

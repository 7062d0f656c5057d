"""Which sign and which unit a battery's current has: learned from a step of the load, never trusted.

The kernel says microamperes. Phones answer in milliamperes, with either sign for the same direction,
with 0, or with the smallest integer. What cannot lie together are three things: a load on the
processor makes the battery give more; an idle phone takes between 2 mA and 3 A; and the charge
that flows out is missing in the charge counter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

from ..onboard.energy.meter import MeterError

FACTORS = (1.0, 1e3, 1e-3)
# What a user may tell, by how it is written; see `onboard.meter_options`.
TOLD = ("current_unit", "sign")
_UNITS = {"nA": 1e-3, "uA": 1.0, "mA": 1e3, "A": 1e6}
NOMINAL_A = 1e-6
IDLE_A = (0.002, 3.0)
MAX_LOAD_A = 12.0
# Written by gauges that have no value.
NO_VALUES = (-(2.0**31), 2.0**31 - 1)
# A step is believed if it is so many standard errors, and such a share of idle.
STEP_ERRORS = 4.0
LEAST_STEP = 0.05
# Gauges average: what they say soon after a change is of before.
SETTLING_SHARE = 1 / 3
MIN_READINGS = 4
# The charge counter has a say once it has moved by so many of its own steps.
MIN_CHARGE_STEPS = 3
CHARGE_RATIO = (0.6, 1.6)


@dataclass(frozen=True)
class Stretch:
    """What a battery said during a stretch of constant load.

    Args:
        raw: Its current as the file says it, nominally in microamperes.
        duration_s: How long it lasted.
        charge_used_c: By how much the charge counter fell, in coulomb; None without one.
        num_charge_steps: How often the charge counter moved.
        slices_s: The time before each of `raw`, for which it stands; empty where that is always the
            same.
    """

    raw: Sequence[float]
    duration_s: float
    charge_used_c: float | None = None
    num_charge_steps: int = 0
    slices_s: Sequence[float] = ()

    @property
    def mean_raw(self) -> float:
        """The mean over time: a pause of the machine makes one number stand for a long time."""
        slices = self.slices_s or [1.0] * len(self.raw)
        good = [(v, s) for v, s in zip(self.raw, slices) if v not in NO_VALUES]
        return sum(v * s for v, s in good) / sum(s for _, s in good)


@dataclass(frozen=True)
class Calibration:
    """What was learned.

    Args:
        sign: 1 if the file's number is positive when the battery gives, else -1.
        factor: Times the nominal unit.
        idle_a: Current that the battery gave when idle.
        load_a: Current that it gave under load.
        is_confirmed: Whether the charge counter had a say, and agreed.
    """

    sign: int
    factor: float
    idle_a: float
    load_a: float
    is_confirmed: bool

    def current_a(self, raw: float) -> float:
        """Return the current that the battery gives, in A; negative when it is charged."""
        return raw * NOMINAL_A * self.factor * self.sign


def learn_sign_and_unit(
    idle: Stretch, load: Stretch, told: Mapping[str, str] | None = None
) -> Calibration:
    """Return sign and unit of a battery's current from a stretch without and one with load.

    A factor other than 1 is accepted only if the charge counter agrees, and so is any factor where
    more than one gives plausible currents; unless the user tells the unit. What is told must fit the
    step, the plausible currents, and the charge counter where it has a say.

    Args:
        idle: What the battery said without load.
        load: What it said with load.
        told: `current_unit` and `sign` as the user tells them.

    Raises:
        MeterError: It cannot be told, is not what was told, or the battery is being charged.
    """
    told = told or {}
    idle_mean, idle_error = _level(idle, "idle")
    load_mean, load_error = _level(load, "loaded")
    step = load_mean - idle_mean
    if abs(step) <= STEP_ERRORS * sqrt(idle_error**2 + load_error**2) or (
        abs(step) <= LEAST_STEP * abs(idle_mean)
    ):
        raise MeterError(
            f"the battery's current does not follow the load ({idle_mean:g} idle, {load_mean:g} loaded): "
            "it is fed from outside, or the gauge is stuck or slower than the test"
        )
    sign = 1 if step > 0 else -1
    if sign * idle_mean <= 0:
        raise MeterError(
            f"the battery's current falls under load ({idle_mean:g} idle, {load_mean:g} loaded): it is "
            "being charged; unplug it"
        )
    if "sign" in told and told["sign"] != _SIGNS[sign]:
        raise MeterError(
            f"sign={told['sign']} was told, and the current's sign is {_SIGNS[sign]} while the battery "
            f"gives ({idle_mean:g} idle, {load_mean:g} loaded): tell sign={_SIGNS[sign]}, or unplug a charger"
        )
    factors = (_UNITS[told["current_unit"]],) if "current_unit" in told else FACTORS
    candidates = [
        Calibration(
            sign,
            factor,
            sign * idle_mean * NOMINAL_A * factor,
            sign * load_mean * NOMINAL_A * factor,
            False,
        )
        for factor in factors
    ]
    plausible = [
        each
        for each in candidates
        if IDLE_A[0] < each.idle_a < IDLE_A[1] and each.load_a <= MAX_LOAD_A
    ]
    if not plausible:
        units = (
            f"in {told['current_unit']}, as was told"
            if "current_unit" in told
            else "in A, mA and uA"
        )
        raise MeterError(
            f"the battery's current of {idle_mean:g} when idle and {load_mean:g} loaded is implausible "
            f"{units}"
        )
    return _agreed(plausible, idle, load, is_told="current_unit" in told)


_SIGNS = {1: "+", -1: "-"}


def _agreed(
    plausible: Sequence[Calibration], idle: Stretch, load: Stretch, *, is_told: bool
) -> Calibration:
    """Return the candidate that the charge counter agrees with."""
    used_c = _charge_used_c(idle, load)
    if used_c is None:
        if len(plausible) == 1 and (is_told or plausible[0].factor == 1.0):
            return plausible[0]
        units = ", ".join(
            f"{_unit(each)} ({each.idle_a:.3g} A idle, {each.load_a:.3g} A loaded)"
            for each in plausible
        )
        raise MeterError(
            f"the battery's current may be in {units}, and its charge counter moved too little to tell: "
            f"tell the unit, as in --meter 'battery?current_unit={_unit(plausible[-1])}"
            f"&sign={_SIGNS[plausible[-1].sign]}'"
        )
    for candidate in plausible:
        flowed_c = sum(
            candidate.current_a(stretch.mean_raw) * stretch.duration_s for stretch in (idle, load)
        )
        if used_c > 0 and CHARGE_RATIO[0] < flowed_c / used_c < CHARGE_RATIO[1]:
            return Calibration(
                candidate.sign, candidate.factor, candidate.idle_a, candidate.load_a, True
            )
    units = "in the unit that was told" if is_told else "in every unit"
    raise MeterError(
        f"the battery's current and its charge counter (which fell by {used_c:g} C) disagree {units}: "
        "one of them is wrong"
    )


def _unit(candidate: Calibration) -> str:
    return next(name for name, factor in _UNITS.items() if factor == candidate.factor)


def _charge_used_c(idle: Stretch, load: Stretch) -> float | None:
    """Return by how much the charge counter fell, None if it says nothing."""
    if idle.charge_used_c is None or load.charge_used_c is None:
        return None
    if idle.num_charge_steps + load.num_charge_steps < MIN_CHARGE_STEPS:
        return None
    return idle.charge_used_c + load.charge_used_c


def _level(stretch: Stretch, name: str) -> tuple[float, float]:
    """Return the mean of the settled readings and its standard error."""
    settled = [
        value
        for value in stretch.raw[int(len(stretch.raw) * SETTLING_SHARE) :]
        if value not in NO_VALUES
    ]
    if len(settled) < MIN_READINGS:
        raise MeterError(f"the battery's current could not be read often enough while {name}")
    if not any(settled):
        raise MeterError(
            f"the battery's current is always 0 while {name}: this phone does not tell it"
        )
    mean = sum(settled) / len(settled)
    variance = sum((value - mean) ** 2 for value in settled) / (len(settled) - 1)
    return mean, sqrt(variance / len(settled))

"""A battery's gauge against the battery's own counter of charge: too coarse for a visit, not for many.

Over n visits of one campaign with joules by the gauge g and by the counter c::

    ratio              r = sum c / sum g
    its variance       (n / (n - 1) sum (c - r g)^2 + n step^2 / 6) / (sum g)^2

The counter's step is the least by which two visits' joules differ, or the least of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .mean_power import MAX_MISSING_SHARE, t_quantile
from .meter import Meter, MeterError
from .power_log import PowerLog

# Fewer visits say nothing; older ones than so many are forgotten.
MIN_VISITS = 5
KEPT_VISITS = 40
# The gauge is contradicted beyond this; the counter has no say until its own error is less.
MAX_DISAGREEMENT = 0.10
SAME_STEPS = 0.01


@dataclass(frozen=True)
class Reserve:
    """What was left in a battery at a moment.

    Args:
        time_s: The moment.
        amount: In a unit of the battery's own.
        joules_each: How many joules one of it is.
    """

    time_s: float
    amount: float
    joules_each: float


def reserve_of(meter: Meter, time_s: float) -> Reserve | None:
    """Return what is left by a meter's own coarse counter; None where it has none."""
    ask = getattr(meter, "reserve", None)
    try:
        told = ask() if ask is not None else None
    except MeterError:
        return None
    return None if told is None else Reserve(time_s, *told)


def drawn_j(log: PowerLog, before: Reserve, after: Reserve) -> tuple[float, float] | None:
    """Return the joules between two moments, by the gauge and by the counter; None without readings.

    Args:
        log: The gauge's readings.
        before: What was left at first.
        after: What was left in the end.
    """
    times = [(a + b) / 2 for a, b in zip(log.before_s, log.after_s)]
    watts = [w for t, w in zip(times, log.values) if before.time_s <= t <= after.time_s]
    times = [t for t in times if before.time_s <= t <= after.time_s]
    if len(times) < 2 or len(log.failed_s) > MAX_MISSING_SHARE * len(times):
        return None
    # What was shown first and last holds to the ends.
    times, watts = [before.time_s, *times, after.time_s], [watts[0], *watts, watts[-1]]
    gauge_j = sum(
        (watts[i] + watts[i - 1]) / 2 * (times[i] - times[i - 1]) for i in range(1, len(times))
    )
    each = (before.joules_each + after.joules_each) / 2
    return gauge_j, (before.amount - after.amount) * each


def compare(drawn: Sequence[tuple[float, float]]) -> tuple[float, float] | None:
    """Return the counter's joules over the gauge's, and half the 95 % interval; None if too few."""
    count = len(drawn)
    by_gauge_j = sum(gauge_j for gauge_j, _ in drawn)
    shown_j = sorted({0.0, *(abs(counter_j) for _, counter_j in drawn)})
    if count < MIN_VISITS or by_gauge_j <= 0 or len(shown_j) == 1:
        return None
    # Voltage drifts, so that equal numbers of steps are not quite equal joules.
    apart_j = [b - a for a, b in zip(shown_j, shown_j[1:]) if b - a > SAME_STEPS * shown_j[-1]]
    ratio = sum(counter_j for _, counter_j in drawn) / by_gauge_j
    squares = sum((counter_j - ratio * gauge_j) ** 2 for gauge_j, counter_j in drawn)
    variance_j2 = squares * count / (count - 1) + count * min(apart_j) ** 2 / 6
    return ratio, t_quantile(count - 1) * math.sqrt(variance_j2) / by_gauge_j


def check(reading: dict[str, Any], drawn: Sequence[tuple[float, float]]) -> dict[str, Any] | None:
    """Return what the counter says beside a visit's energy, None where it has no say.

    Args:
        reading: What the gauge says about the visit.
        drawn: Of this visit and those before (see `drawn_j`).
    """
    told = compare(drawn)
    if told is None or reading["energy"] is None:
        return None
    ratio, half_width = told
    is_apart = abs(ratio - 1) > MAX_DISAGREEMENT + half_width
    if half_width > MAX_DISAGREEMENT and not is_apart:
        return None
    return {
        "meter": reading["meter"],
        "channel": f"{reading['channel']}-charge",
        "kind": "counter",
        "is_same_rail": True,
        "net_j": None,
        "net_standard_error_j": None,
        "gross_j": reading["energy"]["gross_j"] * ratio,
        "disagreement": ratio - 1,
        "is_disagreement": is_apart,
        "refused": None,
    }

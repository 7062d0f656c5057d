"""From the readings of a gauge of watts to the mean power over a stretch of time.

A gauge shows one value from one update to the next, so a repeated value counts again only when an
update must have come in between. The mean is the integral by the trapezoidal rule over the moments
of the readings, with the ends interpolated, divided by the time. Its variance::

    long-run variance / time                                  readings depend on each other, see
                                                              `fluctuation`
    + step^2 / 12 x max(1 / n, exp(-2 (pi sd / step)^2))      rounding, which noise averages out
    + sum over gaps of (missing time x sd)^2 / time^2         what nobody saw
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from .fluctuation import pieces_of
from .mean_power import MAX_GAP_PERIODS, MAX_MISSING_SHARE, MeanPower, Refused, sample_variance

# A value is another update's when it is so many periods old.
SAME_UPDATE_PERIODS = 1.5
# Updates of one value, with and without load each, of a gauge that sticks.
STUCK_UPDATES = 10
STUCK_CHANCE = 1e-6


@dataclass(frozen=True)
class Samples:
    """A gauge's updates.

    Args:
        times_s: When each was read.
        power_w: What it showed.
        period_s: Time between two updates as they can be seen.
        resolution_w: Its step; 0 if unknown.
        averaging_s: Time over which the gauge averages.
    """

    times_s: Sequence[float]
    power_w: Sequence[float]
    period_s: float
    resolution_w: float
    averaging_s: float

    def mean_power(self, start_s: float, end_s: float) -> MeanPower:
        """Return the mean power between two moments.

        Raises:
            Refused: Too much of the time is without readings.
        """
        first = bisect_left(self.times_s, start_s)
        last = bisect_right(self.times_s, end_s)
        count = last - first
        duration = end_s - start_s
        if count < 2 or duration <= 0:
            raise Refused(f"only {count} updates of the gauge in {duration:.2f} s")
        times = [start_s, *self.times_s[first:last], end_s]
        power = [
            self._at(start_s, first, last - 1),
            *self.power_w[first:last],
            self._at(end_s, first, last - 1),
        ]
        joules = [
            (power[i] + power[i - 1]) / 2 * (times[i] - times[i - 1]) for i in range(1, len(times))
        ]
        mean = sum(joules) / duration
        spread = math.sqrt(sample_variance(self.power_w[first:last]))
        gaps = self._gaps(times)
        missing = sum(gap - self.period_s for gap in gaps) / duration
        if missing > MAX_MISSING_SHARE:
            raise Refused(
                f"{100 * missing:.1f} % of {duration:.2f} s are without readings, more than "
                f"{100 * MAX_MISSING_SHARE:.0f} %"
            )
        rounding = 0.0
        step = self.resolution_w
        if step > 0:
            noise = math.exp(-2.0 * (math.pi * spread / step) ** 2)
            rounding = step**2 / 12 * max(1 / count, noise)
        unseen = sum((gap * spread) ** 2 for gap in gaps) / duration**2
        return MeanPower(
            mean,
            rounding + unseen,
            pieces_of(self.power_w[first:last], duration / count),
            start_s,
            end_s,
            count,
            missing,
        )

    def _at(self, time_s: float, first: int, last: int) -> float:
        """Return the power at a moment between two readings; beyond all of them, the nearest."""
        after = bisect_right(self.times_s, time_s)
        if after == 0 or after > last + 1 or after == len(self.times_s):
            return self.power_w[0] if after == 0 else self.power_w[min(after - 1, last)]
        # Readings outside belong to another stretch: what lies between is not a ramp.
        if after <= first:
            return self.power_w[first]
        if after > last:
            return self.power_w[last]
        before = after - 1
        length = self.times_s[after] - self.times_s[before]
        share = (time_s - self.times_s[before]) / length if length > 0 else 0.0
        return self.power_w[before] + share * (self.power_w[after] - self.power_w[before])

    def _gaps(self, times: Sequence[float]) -> list[float]:
        limit = MAX_GAP_PERIODS * self.period_s
        return [b - a for a, b in zip(times, times[1:]) if b - a > limit]


def updates_of(
    before_s: Sequence[float],
    after_s: Sequence[float],
    values: Sequence[float],
    period_s: float,
) -> tuple[list[float], list[float]]:
    """Return moments and watts of a gauge's updates; repeated readings of one update are dropped.

    Args:
        before_s: Moment just before each reading.
        after_s: Moment just after it.
        values: What was read, in W.
        period_s: Time between two updates.
    """
    times: list[float] = []
    power: list[float] = []
    for before, after, value in zip(before_s, after_s, values):
        middle = (before + after) / 2
        if times and value == power[-1] and middle - times[-1] < SAME_UPDATE_PERIODS * period_s:
            continue
        times.append(middle)
        power.append(value)
    return times, power


def check_gauge(power_w: Sequence[float], max_power_w: float, resolution_w: float) -> None:
    """Refuse what no gauge of a device's power shows.

    Raises:
        Refused: Power below zero or beyond what is believed.
    """
    if not power_w:
        raise Refused("the gauge gave no reading")
    most, least = max(power_w), min(power_w)
    if most > max_power_w:
        raise Refused(
            f"the gauge shows {most:.3g} W, more than the {max_power_w:g} W that are believed: its "
            "unit may be another"
        )
    if least < -max(3 * resolution_w, 0.05 * max(abs(most), abs(least))):
        raise Refused(f"the gauge shows {least:.3g} W, below zero: its sign may be flipped")


def check_moves(
    times_s: Sequence[float], power_w: Sequence[float], start_s: float, end_s: float
) -> None:
    """Refuse a gauge that sticks: at one value with and without load, or for part of the window.

    Args:
        times_s: Moments of the updates, idle time included.
        power_w: What they showed.
        start_s: When the load began to show.
        end_s: When it ended.

    Raises:
        Refused: It sticks.
    """
    inside = [start_s <= time <= end_s for time in times_s]
    loaded = sum(inside)
    began = 0
    for i in range(1, len(power_w) + 1):
        if i < len(power_w) and power_w[i] == power_w[began]:
            continue
        length, within = i - began, sum(inside[began:i])
        text = (
            f"the gauge stuck at {power_w[began]:.4g} W for {times_s[i - 1] - times_s[began]:.1f} s"
        )
        if min(within, length - within) >= STUCK_UPDATES:
            raise Refused(f"{text}, with and without load")
        others = loaded - within
        if within == length >= 2 * STUCK_UPDATES and others > 0:
            same = sum(
                inside[k] and inside[k - 1] and power_w[k] == power_w[k - 1]
                for k in range(1, len(power_w))
            )
            # How likely such a run is among updates that repeat as often as the others do.
            share = (same - (length - 1) + 1) / (others + 2)
            if share < 1 and loaded * share ** (length - 1) < STUCK_CHANCE:
                raise Refused(text)
        began = i

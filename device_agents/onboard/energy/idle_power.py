"""How idle power fluctuates and how heat bends its path, from the idle times of many visits.

Heat makes idle power rise in a window and fall after it. A body that warms and cools as a resistor
and a capacitor do changes in proportion to the window's net energy E, and so do the difference d
of the idle powers after and before and the slopes within both. Each of these is taken as a line
through 0 over the visits' net energies::

    d_i = b E_i + chance         weights w_i, the inverse of what chance adds to d_i
    b   = sum w d E / sum w E^2          variance of b = sum w (d - b E)^2 / (n - 1) / sum w E^2

Fluctuation is what is left. Within an idle time its pieces tell it, the line's slope taken off (see
`fluctuation`); what is slower is the scatter of the differences around their line::

    slow L = (sum w_i (d_i - b E_i)^2 - sum w_i known_i) / (n - 1),   w_i = 1 / (1/before + 1/after)

Both are long-run variances of the same power. Each counts by its degrees of freedom, at most twice
the square of the larger one over its own squared error: what the meter's moments drown says little.

In the window the path is bent. With the body's time constant T, the slopes s_b and s_a in the middles
of both idle times, `r` from such a middle to the window and `w` the window's duration, the mean in
the window lies above the line between the middles of the idle times by::

    -T (s_a (f q - 1/2) + s_b ((1 - f) / q - 1/2))        q = exp(r / T)
    T = -d / (s_a - s_b)                                  f = 1 / (1 - exp(-w / T)) - T / w
    -> (s_b - s_a) (r / 2 + w / 12)  for long T           (the trapezoidal rule with corrected ends)

Slopes and d are those of the lines over all visits. The whole counts as much as the difference of
the slopes is sure: max(0, 1 - 2 variance / b^2), the non-negative garrote of Breiman (1995), with
Stein's unbiased estimate of its squared error. What uncertain moments of a counter's edges add to a
slope may be the same in each visit and is not averaged out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from .fluctuation import LongRun, Pieces, levelled, long_run
from .mean_power import MeanPower, median

# A visit that was disturbed is believed up to so many times the median variance.
MAX_EXCESS = 9.0
# Visits that a line over net energies needs.
MIN_VISITS = 3
GARROTE = 2.0
# From this square over variance on, Stein's estimate of the garrote's squared error is less than
# that of no correction: 1 + 8 / z^2 < z^2 - 1.
LEAST_SURE = 4.0
# The time constant is told from a rise whose square is so many variances, where it matters.
SURE = 9.0
SHORT = 0.1


@dataclass(frozen=True)
class IdleTimes:
    """What the two idle times of a visit tell.

    Args:
        before: Pieces of the one before the window.
        after: Pieces of the one after.
        difference_w: Power after minus power before.
        known_w2: What the meter's moments and step add to the variance of the difference.
        duration_s: Weight of the difference: 1 / (1 / before + 1 / after).
        net_j: Net energy of the window.
    """

    before: Pieces
    after: Pieces
    difference_w: float
    known_w2: float
    duration_s: float
    net_j: float


@dataclass(frozen=True)
class Line:
    """A line through 0 over net energies.

    Args:
        slope: Its slope.
        variance: Of the slope.
        freedom: Degrees of freedom of the variance.
    """

    slope: float
    variance: float
    freedom: float

    @property
    def sure_square(self) -> float:
        """The square of the slope beyond chance."""
        return max(0.0, self.slope**2 - self.variance)


@dataclass(frozen=True)
class Bend:
    """Idle power in a window beyond the line between the idle times.

    Args:
        power_w: Its mean.
        variance_w2: Of that.
        freedom: Degrees of freedom of the variance.
    """

    power_w: float
    variance_w2: float
    freedom: float


NO_BEND = Bend(0.0, 0.0, 0.0)


def idle_times(before: MeanPower, window: MeanPower, after: MeanPower) -> IdleTimes:
    """Return what the idle times around a window tell."""
    net_w = window.power_w - (before.power_w + after.power_w) / 2
    return IdleTimes(
        before.pieces,
        after.pieces,
        after.power_w - before.power_w,
        before.fixed_w2 + after.fixed_w2,
        1 / (1 / before.duration_s + 1 / after.duration_s),
        net_w * window.duration_s,
    )


def idle_fluctuation(visits: Sequence[IdleTimes], more: Sequence[Pieces] = ()) -> LongRun:
    """Return the long-run variance of idle power.

    Args:
        visits: What visits' idle times told.
        more: Pieces of further idle times.
    """
    pieces = list(more)
    for side in ([visit.before for visit in visits], [visit.after for visit in visits]):
        energies = [visit.net_j for visit in visits]
        square = _line(
            energies,
            [item.slope_w_s for item in side],
            [item.slope_s3 for item in side],
            [item.own_slope2 for item in side],
            [item.ends_slope2 for item in side],
        ).sure_square
        pieces += [levelled(item, square * net_j**2) for item, net_j in zip(side, energies)]
    fast = long_run(_calmed(pieces))
    slow = _slow(visits)
    most_w2_s = max(fast.w2_s, slow.w2_s)
    weights = [_freedom_at(most_w2_s, found) for found in (fast, slow)]
    if sum(weights) <= 0:
        return LongRun(0.0, 0.0, 0)
    value = (fast.w2_s * weights[0] + slow.w2_s * weights[1]) / sum(weights)
    return LongRun(max(0.0, value), sum(weights), fast.lags)


def _freedom_at(w2_s: float, found: LongRun) -> float:
    """Return the degrees of freedom that an estimate would have if this were its value."""
    if found.squared_error <= 0:
        return found.most_freedom
    return min(found.most_freedom, 2 * w2_s**2 / found.squared_error)


def bend_of(
    visits: Sequence[IdleTimes],
    fluctuation: LongRun,
    before: MeanPower,
    window: MeanPower,
    after: MeanPower,
) -> Bend:
    """Return how heat bends the path of idle power in a window; none where chance explains it."""
    known = [visit for visit in visits if visit.before.count > 1 and visit.after.count > 1]
    energies = [visit.net_j for visit in known]
    weights = [1 / (1 / visit.before.slope_s3 + 1 / visit.after.slope_s3) for visit in known]
    own_w2 = [visit.before.own_slope2 + visit.after.own_slope2 for visit in known]
    ends_w2 = [visit.before.ends_slope2 + visit.after.ends_slope2 for visit in known]
    sides = [
        _line(energies, slopes, weights, own_w2, ends_w2, fluctuation)
        for slopes in (
            [visit.before.slope_w_s for visit in known],
            [visit.after.slope_w_s for visit in known],
            [visit.after.slope_w_s - visit.before.slope_w_s for visit in known],
        )
    ]
    change = sides[2]
    if change.freedom <= 0:
        return NO_BEND
    net_j = (window.power_w - (before.power_w + after.power_w) / 2) * window.duration_s
    reach = (after.middle_s - before.middle_s - window.duration_s) / 2
    lever = reach / 2 + window.duration_s / 12
    if change.slope**2 <= LEAST_SURE * change.variance:
        return Bend(0.0, change.sure_square * (net_j * lever) ** 2, change.freedom)
    share = 1 - GARROTE * change.variance / change.slope**2
    rise = _line(
        energies,
        [visit.difference_w for visit in known],
        [visit.duration_s for visit in known],
        [0.0] * len(known),
        [visit.known_w2 for visit in known],
        fluctuation,
    )
    bend = -change.slope * lever
    if rise.slope * change.slope < 0 and rise.slope**2 > SURE * rise.variance:
        constant_s = max(reach, -rise.slope / change.slope)
        x, q = window.duration_s / constant_s, math.exp(reach / constant_s)
        if x > SHORT:
            f = 1 / (1 - math.exp(-x)) - 1 / x
            bend = sides[1].slope * (f * q - 0.5) + sides[0].slope * ((1 - f) / q - 0.5)
            bend *= -constant_s
    # The error of the change is carried on in proportion.
    scale = net_j * max(lever, abs(bend / change.slope))
    risk = 1 + (GARROTE**2 + 2 * GARROTE) * change.variance / change.slope**2
    return Bend(share * bend * net_j, risk * change.variance * scale**2, change.freedom)


def _line(
    energies: Sequence[float],
    values: Sequence[float],
    weights: Sequence[float],
    own: Sequence[float],
    common: Sequence[float],
    fluctuation: LongRun | None = None,
) -> Line:
    """Return the line; its variance from the scatter, and from fluctuation where that is known.

    Args:
        energies: Net energies.
        values: What is taken to be proportional to them.
        weights: Of the values: the long-run variance over the variance of each by fluctuation.
        own: What the meter adds to the variance of each.
        common: ... that may be the same in all.
        fluctuation: The long-run variance.
    """
    squares = sum(w * x * x for w, x in zip(weights, energies))
    if squares <= 0 or (fluctuation is None and len(values) < MIN_VISITS):
        return Line(0.0, 0.0, 0.0)
    slope = sum(w * x * y for w, x, y in zip(weights, energies, values)) / squares
    left = sum(w * (y - slope * x) ** 2 for w, x, y in zip(weights, energies, values))
    freedom = len(values) - 1.0
    if fluctuation is not None:
        left += fluctuation.w2_s * fluctuation.freedom
        freedom += fluctuation.freedom
    if freedom <= 0:
        return Line(0.0, 0.0, 0.0)
    variance = left / freedom + sum(w * value for w, value in zip(weights, common))
    variance += sum((w * x) ** 2 * v for w, x, v in zip(weights, energies, own)) / squares
    return Line(slope, variance / squares, freedom)


def _slow(visits: Sequence[IdleTimes]) -> LongRun:
    """Return what is slower than the pieces show; it may be negative."""
    differences = [visit.difference_w for visit in visits]
    weights, nothing = [visit.duration_s for visit in visits], [0.0] * len(visits)
    line = _line([visit.net_j for visit in visits], differences, weights, nothing, nothing)
    if line.freedom <= 0:
        return LongRun(0.0, 0.0, 0)
    scatter = [
        visit.duration_s * (visit.difference_w - line.slope * visit.net_j) ** 2 for visit in visits
    ]
    most = MAX_EXCESS * median(scatter)
    found = sum(min(value, most) for value in scatter) / line.freedom
    known = sum(visit.duration_s * visit.known_w2 for visit in visits) / line.freedom
    return LongRun(
        found - known, line.freedom, 0, 2 * found**2 / line.freedom, most_freedom=line.freedom
    )


def _calmed(pieces: Sequence[Pieces]) -> list[Pieces]:
    """Return the pieces; of those that were disturbed only as much as is believed."""
    known = [item for item in pieces if item.count > 1]
    if not known:
        return []
    most = MAX_EXCESS * median([item.variance_w2 for item in known])
    return [
        item
        if item.variance_w2 <= most
        else replace(item, sums_w2=tuple(value * most / item.variance_w2 for value in item.sums_w2))
        for item in known
    ]

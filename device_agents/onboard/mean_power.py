"""Mean power over a stretch of time, with its variance; what makes a reading refused."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

# A gap longer than so many update periods is missing time.
MAX_GAP_PERIODS = 3.0
# More missing than this and the stretch is refused.
MAX_MISSING_SHARE = 0.01
# Batches whose means' spread tells the variance of the mean.
MAX_BATCHES = 20
MIN_BATCHES = 5
# Stronger correlation of neighbouring pieces is not told from a drift.
MAX_CORRELATION = 0.9
# Student's t, 0.975, for few degrees of freedom; the series is good beyond.
_T_975 = (12.706, 4.303, 3.182, 2.776, 2.571)
_NORMAL_975 = 1.959964


class Refused(Exception):
    """The readings make no energy: the message says why."""


@dataclass(frozen=True)
class MeanPower:
    """The mean power between two moments.

    Args:
        power_w: The mean.
        fixed_w2: The part of its variance that is known: the meter's step and moments, gaps.
        long_run_w2_s: Variance of a mean by fluctuation and noise, times the mean's duration.
        freedom: Degrees of freedom of that estimate.
        start_s: The first moment.
        end_s: The last one.
        updates: Updates of the meter in between.
        missing_share: Share of the time without readings.
    """

    power_w: float
    fixed_w2: float
    long_run_w2_s: float
    freedom: float
    start_s: float
    end_s: float
    updates: int
    missing_share: float

    @property
    def duration_s(self) -> float:
        """Time between the two moments."""
        return self.end_s - self.start_s

    @property
    def middle_s(self) -> float:
        """The moment in the middle."""
        return (self.start_s + self.end_s) / 2


def t_quantile(freedom: float) -> float:
    """Return Student's t of 0.975: half a 95 % interval in standard errors."""
    if freedom < 1.0:
        return _T_975[0]
    if math.isinf(freedom):
        return _NORMAL_975
    low = math.floor(freedom)
    if low < len(_T_975):
        share = freedom - low
        return _T_975[low - 1] + share * (_T_975[low] - _T_975[low - 1])
    z, v = _NORMAL_975, freedom
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / v + second / v**2 + third / v**3


def combined_freedom(parts: Sequence[tuple[float, float]]) -> float:
    """Return the degrees of freedom of a sum of variances (Welch and Satterthwaite).

    Args:
        parts: (variance, its degrees of freedom).
    """
    total = sum(variance for variance, _ in parts)
    below = sum(
        variance**2 / freedom
        for variance, freedom in parts
        if variance > 0 and not math.isinf(freedom)
    )
    return total**2 / below if below > 0 else math.inf


def sample_variance(values: Sequence[float]) -> float:
    """Return the unbiased variance; 0 of fewer than two values."""
    if len(values) < 2:
        return 0.0
    mean = sum(values) / len(values)
    return sum((value - mean) ** 2 for value in values) / (len(values) - 1)


def long_run(means: Sequence[float], length_s: float, own_w2: float) -> tuple[float, float]:
    """Return the variance of a mean times its duration, and the estimate's degrees of freedom.

    Means of neighbouring pieces depend on each other where power has a memory. That is taken into
    account as for a first-order autoregression: variance x (1 + r) / (1 - r), with the correlation
    r of neighbours, corrected for what few pieces make it too small (Kendall).

    Args:
        means: Mean power of consecutive pieces of a stretch, in W.
        length_s: Duration of a piece.
        own_w2: What the meter's moments and step add to the variance of a piece.
    """
    count = len(means)
    if count < 3:
        return 0.0, 0.0
    center = sum(means) / count
    squares = sum((mean - center) ** 2 for mean in means)
    variance = squares / (count - 1)
    if variance <= own_w2 or squares <= 0:
        return 0.0, count - 1.0
    products = sum((a - center) * (b - center) for a, b in zip(means, means[1:]))
    # What moments add alternates between neighbours: half of it is taken off the correlation.
    products += (count - 1) * own_w2 / 2
    found = products / max(squares - (count - 1) * own_w2, 0.1 * squares)
    r = min(MAX_CORRELATION, max(0.0, found + (1 + 3 * found) / count))
    # The variance around a mean that moves along is too small by as much as the mean varies.
    factor = (1 + r) / (1 - r)
    factor /= max(0.2, 1 - (factor - 1) / count)
    return (variance - own_w2) * length_s * factor, max(1.0, (count - 1) * (1 - r) / (1 + r))


def median(values: Sequence[float]) -> float:
    """Return the middle value, the mean of the two middle ones of an even number."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2

"""Mean power over a stretch of time, with its variance; what makes a reading refused."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .fluctuation import Pieces

# A gap longer than so many update periods is missing time.
MAX_GAP_PERIODS = 3.0
# More missing than this and the stretch is refused.
MAX_MISSING_SHARE = 0.01
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
        pieces: What its pieces tell about fluctuation and noise.
        start_s: The first moment.
        end_s: The last one.
        updates: Updates of the meter in between.
        missing_share: Share of the time without readings.
        moments_s2: Variance of the duration between a counter's edges; its share of `fixed_w2` is
            that times the squared power, over the squared duration.
    """

    power_w: float
    fixed_w2: float
    pieces: Pieces
    start_s: float
    end_s: float
    updates: int
    missing_share: float
    moments_s2: float = 0.0

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


def median(values: Sequence[float]) -> float:
    """Return the middle value, the mean of the two middle ones of an even number."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2

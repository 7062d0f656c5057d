"""A level that walks at random, seen through noise: the Kalman smoother, for many settings at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

# Variance of the level before anything was seen.
DIFFUSE = 1e4


@dataclass(frozen=True)
class LocalLevel:
    """What was found for each setting, one column each.

    Attributes:
        level: Smoothed, `(n, columns)`.
        squares: Sum of the squared innovations over their variances, the first one left out.
        logs: Sum of the logarithms of these variances.
    """

    level: FloatArray
    squares: FloatArray
    logs: FloatArray


def local_level(
    values: FloatArray, variance: FloatArray, steps: FloatArray, start: float = 0.0
) -> LocalLevel:
    """Return the levels of noisy series.

    Args:
        values: In order, `(n, columns)`, or `(n, 1)` for one series with several settings.
        variance: Of each reading, `n`; infinite where there is none.
        steps: Variance of the level's steps, one per column.
        start: The level that is believed before anything was seen.
    """
    count, columns = len(values), max(values.shape[1], len(steps))
    mean, spread = np.full(columns, start), np.full(columns, DIFFUSE)
    before, after = np.empty((count, columns)), np.empty((count, columns))
    level = np.empty((count, columns))
    squares, logs = np.zeros(columns), np.zeros(columns)
    is_seen = np.isfinite(variance)
    is_first = True
    for i in range(count):
        if i:
            spread = spread + steps
        before[i] = spread
        if is_seen[i]:
            total = spread + variance[i]
            innovation = values[i] - mean
            if not is_first:  # the first reading only fixes the level
                squares += innovation * innovation / total
                logs += np.log(total)
            is_first = False
            gain = spread / total
            mean = mean + gain * innovation
            spread = spread * (1.0 - gain)
        level[i], after[i] = mean, spread
    gains = after[:-1] / before[1:]
    for i in range(count - 2, -1, -1):
        level[i] += gains[i] * (level[i + 1] - level[i])
    return LocalLevel(level, squares, logs)

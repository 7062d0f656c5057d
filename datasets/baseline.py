"""The speed that latencies are stated for, read off the visits of all variants together.

The reference is one small network: it feels heat and a machine's states in its own way, and the
fastest twentieth of a noisy series is fast by its noise too. The visits themselves tell how fast
the machine was once each variant's level is taken off; neighbours in time share it. They follow a
local level (random walk in noise), of which whole courses are drawn that fit what was seen. Where
the fastest speed lies in them is the baseline; what it varies by is an error that all latencies of
the campaign share.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .local_level import local_level

FloatArray = npt.NDArray[np.float64]

# Variances of a step over the variance of a visit, among which the likelihood chooses.
_RATIOS = np.geomspace(1e-4, 3.0, 12)
DRAWS = 200
SEED = 20_261_101


@dataclass(frozen=True)
class Baseline:
    """The fastest speed that the machine held, as the logarithm of a slowdown.

    Attributes:
        level: Relative to the same zero as the slowdowns that it was read from.
        variance: Of it.
    """

    level: float
    variance: float


def fastest_speed(
    slowdown: FloatArray,
    stairs: FloatArray,
    variance: FloatArray,
    duration_s: FloatArray,
    share: float,
    share_error: float,
) -> Baseline:
    """Return the fastest speed that was held for a share of the time.

    Args:
        slowdown: Logarithm of how slow the machine was at each visit, noisy, in order, `n`.
        stairs: The part of it that is known to be states, `n`: no walk makes such jumps.
        variance: Of each, `n`; infinite where a visit says nothing.
        duration_s: Of each visit, `n`.
        share: Of the time.
        share_error: How much it may differ, relative to it.
    """
    is_seen = np.isfinite(variance)
    typical = float(np.median(variance[is_seen]))
    steps = _RATIOS * typical
    fits = local_level((slowdown - stairs)[:, None], variance, steps)
    best = int(np.argmin(fits.squares + fits.logs))
    level, step = fits.level[:, best, None], float(steps[best])
    random = np.random.default_rng(SEED)
    count = len(slowdown)
    walks = np.cumsum(math.sqrt(step) * random.standard_normal((count, DRAWS)), axis=0)
    noise = np.sqrt(np.where(is_seen, variance, 0.0))
    seen = walks + noise[:, None] * random.standard_normal((count, DRAWS))
    # A draw of the course given what was seen (Durbin and Koopman, 2002).
    drawn = level + walks - local_level(seen, variance, np.full(DRAWS, step)).level
    courses = drawn + stairs[:, None]
    order = np.argsort(courses, axis=0)
    held = np.cumsum(duration_s[order], axis=0)
    shares = share * (1.0 + share_error * random.uniform(-1.0, 1.0, DRAWS))
    place = np.argmax(held >= shares * held[-1], axis=0)
    fastest = np.take_along_axis(courses, order, axis=0)[place, np.arange(DRAWS)]
    return Baseline(float(fastest.mean()), float(fastest.var()))

"""How a machine's speed changed over a campaign, read off the reference variant.

A visit is bracketed by runs of the same reference variant. Over the campaign's order their
logarithms show two things: *states*, levels far apart that last for minutes (a shared host's clock,
a throttled phone), and a slow *drift* within a state. Both are estimated here; how far a variant
follows the reference is estimated from its own visits in `estimation`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .records import Timing

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

# Levels closer than this (12 %) are drift, not states.
MIN_STATE_GAP = 0.12
# ... and closer than so many standard deviations of the level within a state.
MIN_STATE_GAP_SD = 5.0
# How often the levels are divided: each wild visit costs one division.
MAX_DIVISIONS = 12
# Fewer visits than this (and than this share) are a disturbance, not a state.
MIN_STATE_VISITS = 3
MIN_STATE_SHARE = 0.02
# A reference that changes by more than this between before and after (8 %) spoils its visit ...
MAX_CHANGE = 0.08
# ... or by more than so many times what it usually changes, where that is more.
MAX_CHANGE_SD = 5.0
# Log-likelihood that a drift must gain over none.
MIN_DRIFT_GAIN = 4.0
_DRIFT_RATIOS = np.concatenate([[0.0], np.geomspace(1e-4, 1.0, 17)])


@dataclass(frozen=True)
class SpeedHistory:
    """The machine's speed at each visit, relative to its fastest state.

    Attributes:
        state: State of each visit, 0 the fastest, -1 where the reference fits no state, `n`.
        level: Logarithm of the slowdown of each state, `num_states`; 0 for the fastest.
        state_shift: Logarithm of the slowdown of the visit's state, `n`.
        drift: Logarithm of the slow change within states, zero on average, `n`.
        change: Logarithm of reference after over before, `n`.
        change_limit: Where a change spoils a visit.
        noise: Standard deviation of a visit's reference level around state and drift.
    """

    state: IntArray
    level: FloatArray
    state_shift: FloatArray
    drift: FloatArray
    change: FloatArray
    change_limit: float
    noise: float


def speed_history(timings: Sequence[Timing]) -> SpeedHistory:
    """Return the machine's speed at each visit.

    Args:
        timings: At least one visit's times, in the order in which they were made.
    """
    before = np.log([timing.reference_before.median_s for timing in timings])
    after = np.log([timing.reference_after.median_s for timing in timings])
    change = after - before
    usual = _robust_sd(change)
    change_limit = max(MAX_CHANGE, MAX_CHANGE_SD * usual)
    # The mean of both ends, unless they differ so much that neither speaks for the visit.
    reference = (before + after) / 2
    is_steady = np.abs(change) <= change_limit
    state, level = _states(reference, is_steady)
    state_shift = np.where(state >= 0, level[np.maximum(state, 0)], 0.0)
    rest = reference - state_shift
    usable = (state >= 0) & is_steady
    if usable.any():
        rest = rest - np.median(rest[usable])
    drift = _smooth(rest, usable)
    spread = _robust_sd((rest - drift)[usable]) if usable.sum() > 2 else 0.0
    return SpeedHistory(
        state=state,
        level=level,
        state_shift=state_shift,
        drift=drift,
        change=change,
        change_limit=change_limit,
        noise=spread,
    )


def _states(reference: FloatArray, is_steady: npt.NDArray[np.bool_]) -> tuple[IntArray, FloatArray]:
    """Return (state of each visit, -1 for none; log slowdown of each state, rising from 0)."""
    groups = [np.flatnonzero(is_steady)] if is_steady.any() else [np.arange(len(reference))]
    least = max(MIN_STATE_VISITS, math.ceil(MIN_STATE_SHARE * len(reference)))
    for _ in range(MAX_DIVISIONS):
        divided = [_divide(reference, group, least) for group in groups]
        if all(parts is None for parts in divided):
            break
        groups = [
            part
            for group, parts in zip(groups, divided, strict=True)
            for part in (parts if parts is not None else [group])
        ]
    state = np.full(len(reference), -1, dtype=np.int64)
    kept = [group for group in groups if len(group) >= least] or groups
    kept.sort(key=lambda group: float(np.median(reference[group])))
    levels = np.array([np.median(reference[group]) for group in kept])
    for number, group in enumerate(kept):
        state[group] = number
    return state, np.asarray(levels - levels[0])


def _divide(reference: FloatArray, group: IntArray, least: int) -> list[IntArray] | None:
    """Return the group cut in two at the gap that explains most, None if it is one state."""
    order = group[np.argsort(reference[group], kind="stable")]
    x = reference[order]
    count = len(x)
    if count < 2:
        return None
    sums = np.cumsum(x)
    left = np.arange(1, count)
    means_left = sums[:-1] / left
    means_right = (sums[-1] - sums[:-1]) / (count - left)
    between = left * (count - left) * (means_right - means_left) ** 2
    cut = int(np.argmax(between)) + 1
    parts = [order[:cut], order[cut:]]
    gap = float(np.median(x[cut:]) - np.median(x[:cut]))
    within = max(_robust_sd(x[:cut]), _robust_sd(x[cut:]))
    nearest = float(x[cut] - x[cut - 1])
    is_apart = gap > max(MIN_STATE_GAP, MIN_STATE_GAP_SD * within)
    # A continuous change has no empty stretch between its halves; two states do.
    has_empty_stretch = nearest > gap / 4 or min(map(len, parts)) < least
    return parts if is_apart and has_empty_stretch else None


def _smooth(values: FloatArray, usable: npt.NDArray[np.bool_]) -> FloatArray:
    """Return the local level of a noisy series (Kalman smoother), zero on average.

    The variance of the level's steps relative to the noise is chosen by likelihood among a grid;
    no drift wins unless the gain exceeds `MIN_DRIFT_GAIN`.
    """
    if usable.sum() < 10:
        return np.zeros_like(values)
    scale = _robust_sd(values[usable])
    if scale == 0:
        return np.zeros_like(values)
    # One wild reference must not bend its neighbourhood.
    clipped = np.clip(values, -4 * scale, 4 * scale)
    fits = [_local_level(clipped, usable, ratio) for ratio in _DRIFT_RATIOS]
    best = max(range(len(fits)), key=lambda index: fits[index][0])
    if fits[best][0] - fits[0][0] < MIN_DRIFT_GAIN:
        return np.zeros_like(values)
    level = fits[best][1]
    return np.asarray(level - np.average(level[usable]))


def _local_level(
    values: FloatArray, usable: npt.NDArray[np.bool_], ratio: float
) -> tuple[float, FloatArray]:
    """Return (log-likelihood with the noise variance profiled out, smoothed level)."""
    count = len(values)
    mean, variance = float(np.median(values[usable])), 1e4
    predicted = np.empty((count, 2))
    filtered = np.empty((count, 2))
    squares, logs, seen = 0.0, 0.0, 0
    for i in range(count):
        variance += ratio if i else 0.0
        predicted[i] = mean, variance
        if usable[i]:
            total = variance + 1.0
            innovation = values[i] - mean
            if seen:  # the first observation only fixes the level
                squares += innovation * innovation / total
                logs += math.log(total)
            seen += 1
            gain = variance / total
            mean += gain * innovation
            variance *= 1.0 - gain
        filtered[i] = mean, variance
    level = np.empty(count)
    level[-1] = filtered[-1, 0]
    for i in range(count - 2, -1, -1):
        gain = filtered[i, 1] / predicted[i + 1, 1]
        level[i] = filtered[i, 0] + gain * (level[i + 1] - predicted[i + 1, 0])
    freedom = max(1, seen - 1)
    likelihood = -0.5 * (freedom * math.log(max(squares, 1e-300) / freedom) + logs)
    return likelihood, level


def _robust_sd(values: FloatArray) -> float:
    """Return the standard deviation of the bulk, from the median absolute deviation."""
    if len(values) == 0:
        return 0.0
    return float(1.4826 * np.median(np.abs(values - np.median(values))))

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

from .judgement_settings import DEFAULT_JUDGEMENT, JudgementSettings
from .local_level import local_level
from .records import Timing

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

# Variances of a step over that of the noise, among which the likelihood chooses.
_DRIFT_RATIOS = np.concatenate([[0.0], np.geomspace(1e-4, 100.0, 25)])


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


def speed_history(
    timings: Sequence[Timing], judgement: JudgementSettings = DEFAULT_JUDGEMENT
) -> SpeedHistory:
    """Return the machine's speed at each visit.

    Args:
        timings: At least one visit's times, in the order in which they were made.
        judgement: What is a state, a drift and a disturbance.
    """
    ends = [(t.reference_before.median_s, t.reference_after.median_s) for t in timings]
    both = np.log(np.asarray(ends))
    # What both ends differ by in all visits (the first may be less warm) is no change of speed.
    is_known = len(both) >= judgement.min_offset_visits
    offset = float(np.median(both[:, 1] - both[:, 0])) if is_known else 0.0
    series = (both + np.array([offset / 2, -offset / 2])).ravel()
    # A burst hits one end of one visit and is gone; a change of state is there at the next visit.
    spike_sd, least = judgement.spike_sd, judgement.max_change
    before, after = _without_spikes(series, spike_sd, least).reshape(-1, 2).T
    change = after - before
    usual = _robust_sd(change)
    change_limit = max(judgement.max_change, judgement.max_change_sd * usual)
    # The mean of both ends, unless they differ so much that neither speaks for the visit.
    reference = (before + after) / 2
    is_steady = np.abs(change) <= change_limit
    state, level = _states(reference, is_steady, judgement)
    state_shift = np.where(state >= 0, level[np.maximum(state, 0)], 0.0)
    rest = reference - state_shift
    usable = (state >= 0) & is_steady
    if usable.any():
        rest = rest - np.median(rest[usable])
    drift = _smooth(rest, usable, judgement)
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


def _states(
    reference: FloatArray, is_steady: npt.NDArray[np.bool_], judgement: JudgementSettings
) -> tuple[IntArray, FloatArray]:
    """Return (state of each visit, -1 for none; log slowdown of each state, rising from 0)."""
    groups = [np.flatnonzero(is_steady)] if is_steady.any() else [np.arange(len(reference))]
    share = math.ceil(judgement.min_state_share * len(reference))
    least = max(judgement.min_state_visits, share)
    for _ in range(judgement.max_divisions):
        divided = [_divide(reference, group, least, judgement) for group in groups]
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


def _divide(
    reference: FloatArray, group: IntArray, least: int, judgement: JudgementSettings
) -> list[IntArray] | None:
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
    is_apart = gap > max(judgement.min_state_gap, judgement.min_state_gap_sd * within)
    # A continuous change has no empty stretch between its halves; two states do.
    has_empty_stretch = nearest > gap / 4 or min(map(len, parts)) < least
    return parts if is_apart and has_empty_stretch else None


def _smooth(
    values: FloatArray, usable: npt.NDArray[np.bool_], judgement: JudgementSettings
) -> FloatArray:
    """Return the local level of a noisy series (Kalman smoother), zero on average.

    The variance of the level's steps relative to the noise is chosen by likelihood among a grid;
    no drift wins unless the gain exceeds `min_drift_gain`.
    """
    if usable.sum() < judgement.min_drift_visits:
        return np.zeros_like(values)
    if np.ptp(values[usable]) == 0:
        return np.zeros_like(values)
    tamed = values.copy()
    tamed[usable] = _without_spikes(values[usable], judgement.spike_sd)
    noise = np.where(usable, 1.0, math.inf)
    start = float(np.median(tamed[usable]))
    fits = local_level(tamed[:, None], noise, _DRIFT_RATIOS, start)
    # The noise's variance is the one that fits each ratio best.
    freedom = max(1, int(usable.sum()) - 1)
    scales = np.log(np.maximum(fits.squares, 1e-300) / freedom)
    likelihoods = -0.5 * (freedom * scales + fits.logs)
    best = int(np.argmax(likelihoods))
    if likelihoods[best] - likelihoods[0] < judgement.min_drift_gain:
        return np.zeros_like(values)
    level = fits.level[:, best]
    return np.asarray(level - np.average(level[usable]))


def _without_spikes(series: FloatArray, spike_sd: float, least: float = 0.0) -> FloatArray:
    """Return the series with lone wild values set to their neighbourhood's median.

    Wild is what differs from the median of the five nearest by more than `spike_sd` standard deviations
    and more than `least`, so a lasting change is none.
    """
    if len(series) < 5:
        return series
    padded = np.pad(series, 2, mode="reflect")
    middle = np.median(np.lib.stride_tricks.sliding_window_view(padded, 5), axis=1)
    difference = series - middle
    is_wild = np.abs(difference) > max(least, spike_sd * _robust_sd(difference))
    return np.where(is_wild, middle, series)


def _robust_sd(values: FloatArray) -> float:
    """Return the standard deviation of the bulk, from the median absolute deviation."""
    if len(values) == 0:
        return 0.0
    return float(1.4826 * np.median(np.abs(values - np.median(values))))

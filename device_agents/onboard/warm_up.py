"""When does a series of run times stop changing? A change-point test."""

from __future__ import annotations

import math
from collections.abc import Sequence

MIN_STEADY = 5
# What n * log(RSS_one / RSS_two) must exceed: about the 99 % point, under normal noise, of its
# largest value over all splits (t distribution with n - 2 degrees of freedom, Bonferroni over n - 1
# splits), which THRESHOLD + SMALL_SAMPLE / n follows from n = 5 on.
THRESHOLD = 13.5
SMALL_SAMPLE = 16.0
# Mann-Kendall's score in standard deviations: at n = 5 this is the fully ordered series.
TREND_DEVIATIONS = 2.1
# Changes below this share do not matter: they are inside what blocks and visits average out.
MIN_CHANGE = 0.03


def steady_from(times_s: Sequence[float], min_steady: int = MIN_STEADY) -> int | None:
    """Return the index from which the run times are steady, None if they still change.

    Splits the logarithms of the times in two where the within-part sum of squares falls most. When
    the gain n * log(RSS_one / RSS_two) exceeds its threshold and the medians of the parts differ by
    more than `MIN_CHANGE`, the earlier part is discarded and the rest is looked at again. A rest that
    still falls or rises steadily loses its first quarter likewise.

    Args:
        times_s: Run times in seconds, in order.
        min_steady: How many runs a steady part needs.
    """
    logs = [math.log(max(t, 1e-12)) for t in times_s]
    start = 0
    while len(logs) - start >= min_steady:
        rest = logs[start:]
        change = change_point(rest)
        if change is None and not has_trend(rest):
            return start
        start += change if change is not None else max(1, len(rest) // 4)
    return None


def has_trend(values: Sequence[float]) -> bool:
    """Return whether the values rise or fall throughout (Mann-Kendall), by more than noise.

    A slow decay has no single change point; from five values on this sees it.
    """
    n = len(values)
    if n < 5:
        return False
    # A long series is thinned: the test compares all pairs.
    step = max(1, n // 40)
    thinned = values[::step]
    n = len(thinned)
    score = 0
    for i in range(1, n):
        for j in range(i):
            score += (thinned[i] > thinned[j]) - (thinned[i] < thinned[j])
    deviation = math.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    half = n // 2
    size = abs(_median(thinned[half:]) - _median(thinned[:half]))
    return (abs(score) - 1) / deviation > TREND_DEVIATIONS and size > MIN_CHANGE


def change_point(values: Sequence[float]) -> int | None:
    """Return the index where the mean of the values changes most, None if it does not.

    The part before the change may be a single value (a slow first call); see `steady_from`.
    """
    n = len(values)
    if n < 3:
        return None
    total = sum(values)
    squares = sum(v * v for v in values)
    rss_one = squares - total * total / n
    best_rss, best_index = rss_one, 0
    left = 0.0
    for k in range(1, n):
        left += values[k - 1]
        right = total - left
        rss_two = squares - left * left / k - right * right / (n - k)
        if rss_two < best_rss:
            best_rss, best_index = rss_two, k
    if not best_index:
        return None
    # Clock resolution and rounding bound the residual from below: a constant series has no change.
    floor = n * 1e-8
    gain = n * math.log(max(rss_one, floor) / max(best_rss, floor))
    if gain <= THRESHOLD + SMALL_SAMPLE / n:
        return None
    change = _median(values[:best_index]) - _median(values[best_index:])
    return best_index if abs(change) > MIN_CHANGE else None


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2

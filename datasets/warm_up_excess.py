"""How much slower than settled the timed blocks of a visit still were, learned over a campaign.

Where calls are long beside what a visit may last, the warm-up ends before the run times settle.
One visit cannot tell then what it would have settled at; the campaign can, since its visits warm up
alike and the quick variants' are seen to the end. One curve is fitted to the raw times of all::

    log(time of call n) = level of the visit + log(1 + first * exp(-n / decay)) + noise

by least absolute deviations, each visit's level being the median of what remains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import optimize

from .judgement_settings import DEFAULT_JUDGEMENT, JudgementSettings
from .records import Timing

FloatArray = npt.NDArray[np.float64]

# So many visits, evenly chosen, and so many runs of each, mostly early ones, tell the curve.
MAX_VISITS = 60
MAX_RUNS = 30
_STARTS = ((0.5, 2.0), (1.5, 8.0))


@dataclass(frozen=True)
class WarmUpCurve:
    """How a campaign's visits warm up.

    Attributes:
        first: Relative excess of the first call after a load; 0 where none is seen.
        decay_calls: Calls in which it falls to 1/e of itself.
    """

    first: float = 0.0
    decay_calls: float = 1.0

    def excess(self, calls: FloatArray) -> FloatArray:
        """Return the logarithm of the time of a call over the settled one.

        Args:
            calls: How many calls went before.
        """
        return np.log1p(self.first * np.exp(-calls / self.decay_calls))

    def of_blocks(self, timing: Timing) -> FloatArray:
        """Return the logarithm of each timed block's slowness, one value a block."""
        if not self.first:
            return np.zeros(len(timing.blocks))
        return self.excess(_block_places(timing))


def warm_up_curve(
    timings: Sequence[Timing], judgement: JudgementSettings = DEFAULT_JUDGEMENT
) -> WarmUpCurve:
    """Return how visits warm up; a curve without excess where the blocks are settled.

    Args:
        timings: The visits' times.
        judgement: What is an excess.
    """
    if len(timings) < judgement.min_warm_up_visits:
        return WarmUpCurve()
    step = max(1, len(timings) // MAX_VISITS)
    series = [_runs(timing) for timing in timings[::step]]
    width = max(len(places) for places, _ in series)
    places = np.full((len(series), width), np.nan)
    logs = np.full((len(series), width), np.nan)
    for row, (at, values) in enumerate(series):
        places[row, : len(at)], logs[row, : len(at)] = at, values
    cap = judgement.max_warm_up_deviation
    flat = _deviation(logs, cap)
    seen = np.isfinite(logs)
    places = np.where(seen, places, 0.0)

    def loss(parameters: FloatArray) -> float:
        first, decay = np.exp(np.clip(parameters, -6.0, 5.0))
        return _deviation(logs - np.log1p(first * np.exp(-places / decay)), cap)

    fits = [
        optimize.minimize(loss, np.log(start), method="Nelder-Mead", options={"maxfev": 80})
        for start in _STARTS
    ]
    best = min(fits, key=lambda fit: float(fit.fun))
    if best.fun > (1.0 - judgement.min_warm_up_gain) * flat:
        return WarmUpCurve()
    first, decay = np.exp(np.clip(best.x, -6.0, 5.0))
    curve = WarmUpCurve(float(first), float(decay))
    at_start = np.array([curve.of_blocks(timing)[0] for timing in timings])
    if np.mean(at_start > judgement.min_warm_up_excess) < judgement.min_warm_up_share:
        return WarmUpCurve()
    return curve


def _deviation(logs: FloatArray, cap: float) -> float:
    """Return the mean absolute deviation of rows from their medians, wild values capped."""
    counts = np.sum(np.isfinite(logs), axis=1)
    ordered = np.sort(logs, axis=1)  # missing ones come last
    rows = np.arange(len(logs))
    medians = (ordered[rows, (counts - 1) // 2] + ordered[rows, counts // 2]) / 2
    rest = np.minimum(np.abs(logs - medians[:, None]), cap)
    return float(np.nansum(rest) / counts.sum())


def _runs(timing: Timing) -> tuple[FloatArray, FloatArray]:
    """Return (calls before each run, logarithm of its seconds per call), thinned."""
    warm = np.asarray(timing.warm_up_s)
    timed = np.concatenate([np.asarray(block.latencies_s) for block in timing.blocks])
    calls = timing.blocks[0].calls_per_run
    places = _places(np.arange(len(warm) + len(timed), dtype=np.float64), calls)
    logs = np.log(np.concatenate([warm, timed]))
    if len(logs) > MAX_RUNS:
        early = MAX_RUNS // 2
        late = np.linspace(early, len(logs) - 1, MAX_RUNS - early).astype(np.int64)
        chosen = np.concatenate([np.arange(early), late])
        places, logs = places[chosen], logs[chosen]
    return places, logs


def _block_places(timing: Timing) -> FloatArray:
    """Return the calls before the middle of each block."""
    runs = np.array([len(block.latencies_s) for block in timing.blocks])
    before = len(timing.warm_up_s) + np.cumsum(runs) - runs
    return _places(before + (runs - 1) / 2, timing.blocks[0].calls_per_run)


def _places(number: FloatArray, calls: int) -> FloatArray:
    """Return how many calls went before the middle of the runs of these numbers.

    The first two runs of a warm-up are single calls, by which it is decided how many a run holds.
    """
    return np.where(number < 2, number, 2 + (number - 2) * calls + (calls - 1) / 2)

"""Integer widths that a device likes, lowered until they fit a budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .constraint import TOLERANCE
from .intervals import FloatArray
from .pairwise_cost import IndexArray


def round_up(widths: FloatArray, candidates: Sequence[FloatArray]) -> IndexArray:
    """Return for each width the index of the smallest candidate that is not below it, shape (k,).

    The largest candidate where all lie below.
    """
    return np.array(
        [
            min(int(np.searchsorted(values, width - TOLERANCE)), len(values) - 1)
            for values, width in zip(candidates, widths, strict=True)
        ]
    )


def repair(
    relative: Callable[[FloatArray], FloatArray],
    candidates: Sequence[FloatArray],
    index: IndexArray,
) -> FloatArray | None:
    """Return the nearest smaller widths that fit, shape (k,), as far as single steps find them.

    Args:
        relative: Widths (n, k) to costs relative to their limits, (n, m).
        candidates: For each width the values it may take, ascending.
        index: Index of each width's candidate, shape (k,).

    Returns:
        None where no smaller widths were found to fit.
    """
    wanted, index = index, index.copy()

    def widths_at(rows: IndexArray) -> FloatArray:
        return np.column_stack([v[i] for v, i in zip(candidates, rows.T, strict=True)])

    def over(rows: IndexArray) -> FloatArray:
        excess: FloatArray = np.maximum(0, relative(widths_at(rows)) - 1 - TOLERANCE).sum(axis=1)
        return excess

    now = float(over(index[None])[0])
    while now > 0:
        lower = _neighbours(index, -1, np.zeros_like(index))
        if not len(lower):
            return None
        lost = 1 - (widths_at(lower) / widths_at(index[None])).min(axis=1)
        after = over(lower)
        # What fits is nearer the smaller its loss; what does not is better the more it saves.
        rates = np.where(after > 0, (now - after) / lost, np.inf)
        best = int(np.lexsort((lost, -rates))[0])
        index, now = lower[best], float(after[best])
    while True:
        # Steps that were too large leave room for others.
        higher = _neighbours(index, 1, wanted)
        fits = higher[over(higher) == 0] if len(higher) else higher
        if not len(fits):
            result: FloatArray = widths_at(index[None])[0]
            return result
        index = fits[int(np.argmax((widths_at(fits) / widths_at(index[None])).max(axis=1)))]


def _neighbours(index: IndexArray, step: int, end: IndexArray) -> IndexArray:
    """Return the vectors with one width moved by a step, as long as it has not reached its end."""
    moved = np.flatnonzero(index != end)
    rows = np.repeat(index[None], len(moved), axis=0)
    rows[np.arange(len(moved)), moved] += step
    return rows

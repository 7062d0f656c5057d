"""Integer widths that a device likes, lowered until they fit a budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..base.intervals import FloatArray
from .constraint import TOLERANCE
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
    widths: FloatArray,
) -> FloatArray | None:
    """Return widths that fit, near the given ones rounded up, shape (k,); by single steps.

    Near in the sum of squared relative changes, so no width is given up for the others.

    Args:
        relative: Widths (n, k) to costs relative to their limits, (n, m).
        candidates: For each width the values it may take, ascending.
        widths: Shape (k,).

    Returns:
        None where no smaller widths were found to fit.
    """
    wanted = round_up(widths, candidates)
    index = wanted.copy()
    aim = np.maximum(widths, [values[0] for values in candidates])

    def at(rows: IndexArray) -> FloatArray:
        return np.column_stack([v[i] for v, i in zip(candidates, rows.T, strict=True)])

    def over(rows: IndexArray) -> FloatArray:
        excess: FloatArray = np.maximum(0, relative(at(rows)) - 1 - TOLERANCE).sum(axis=1)
        return excess

    def distance(rows: IndexArray) -> FloatArray:
        changes: FloatArray = ((at(rows) / aim - 1) ** 2).sum(axis=1)
        return changes

    now = float(over(index[None])[0])
    while now > 0:
        lower = _neighbours(index, -1, np.zeros_like(index))
        if not len(lower):
            return None
        after = over(lower)
        further = distance(lower) - distance(index[None])
        saved = np.maximum(now - after, np.finfo(float).tiny)
        # A kernel for fewer channels can cost more; such a step is a last resort.
        best = int(np.argmin(np.where(further > 0, further / saved, further * saved)))
        index, now = lower[best], float(after[best])
    while True:
        # Steps that were too large leave room for others.
        higher = _neighbours(index, 1, wanted)
        fits = higher[over(higher) == 0] if len(higher) else higher
        if not len(fits):
            result: FloatArray = at(index[None])[0]
            return result
        index = fits[int(np.argmin(distance(fits)))]


def _neighbours(index: IndexArray, step: int, end: IndexArray) -> IndexArray:
    """Return the vectors with one width moved by a step, as long as it has not reached its end."""
    moved = np.flatnonzero(index != end)
    rows = np.repeat(index[None], len(moved), axis=0)
    rows[np.arange(len(moved)), moved] += step
    return rows

"""Widths of large value under limits on any cost: local search, and a bound from samples.

For costs that are no tables of pairs, such as a Gaussian process's. The search takes each width's
own effect on the cost as it is, for steps small enough that effects nearly add up. The bound is
that of a sum of pairs which lies below the cost at all widths that were tried, and no proof.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate

import numpy as np

from ..base.intervals import FloatArray
from .allocation_search import AllocationSearch, table_entries
from .constraint import TOLERANCE
from .pairwise_cost import IndexArray, PairwiseCost, Value, draw, tabulate

FIRST_RADIUS = 0.5
MAX_ROUNDS = 60
# Values of one width that a step considers: all of those near, some of those far away.
NUM_CONSIDERED = 32
MAX_CORRECTIONS = 4
# Partial solutions of the additive problems, which the multipliers nearly solve.
NUM_LABELS = 100
NUM_STARTS = 129
# Cells per width, entries per table and rows tried for the bound.
NUM_CELLS = 32
MAX_ENTRIES = 1 << 18
NUM_TRIALS = 1500
# Interactions weaker than this share of the strongest are left to the trials.
WEAK = 1e-3


class LocalSearch:
    """The problem with costs as functions.

    Args:
        relatives: The costs of widths (n, k), each relative to its limit, shape (n,).
        candidates: For each width the values it can take, ascending.
        values: For each width the value of each candidate.
    """

    def __init__(
        self,
        relatives: Sequence[Value],
        candidates: Sequence[FloatArray],
        values: Sequence[FloatArray],
    ) -> None:
        self.relatives, self.candidates, self.values = relatives, candidates, values
        self.sizes = np.array([len(value) for value in values])

    def start(self) -> IndexArray | None:
        """Return the best feasible vector among those equally far along all widths, shape (k,)."""
        shares = np.linspace(0, 1, NUM_STARTS)
        rows = np.floor(shares[:, None] * (self.sizes - 1)).astype(np.int64)
        fits = np.all(self._costs(rows) <= 1 + TOLERANCE, axis=1)
        if not fits.any():
            return None
        worths = np.array([self._value(row) for row in rows])
        best: IndexArray = rows[int(np.argmax(np.where(fits, worths, -np.inf)))]
        return best

    def climb(self, index: IndexArray) -> IndexArray:
        """Return a feasible vector that no change of single widths improves, shape (k,).

        Args:
            index: A feasible vector.
        """
        radius = FIRST_RADIUS
        for _ in range(MAX_ROUNDS):
            better = self._step(index, np.maximum(1, np.floor(radius * self.sizes)).astype(int))
            if better is not None:
                index = better
                radius = min(FIRST_RADIUS, 1.5 * radius)
            elif radius * self.sizes.max() <= 1:
                break
            else:
                radius /= 3
        return index

    def bound(self, anchor: IndexArray, strengths: Mapping[tuple[int, int], float]) -> float:
        """Return a value that no vector exceeds as far as samples of the costs tell.

        Args:
            anchor: Where the sum of pairs agrees with the costs.
            strengths: Pairs that interact, and how much.
        """
        starts = [
            np.unique(np.linspace(0, size, min(size, NUM_CELLS), endpoint=False).astype(int))
            for size in self.sizes
        ]
        # The cheapest of a cell's widths stands for all, with the largest value.
        cells = [values[at] for values, at in zip(self.candidates, starts, strict=True)]
        worths = [np.maximum.reduceat(v, at) for v, at in zip(self.values, starts, strict=True)]
        pairs = _strongest(strengths, [len(cell) for cell in cells])
        rng = np.random.default_rng(0)
        rows = draw(self.candidates, NUM_TRIALS, rng)
        near = rng.random(rows.shape) < 0.5
        near[::2] = False
        at_anchor = np.array([v[i] for v, i in zip(self.candidates, anchor, strict=True)])
        rows = np.where(near, at_anchor, rows)
        index = np.column_stack(
            [np.searchsorted(c, r, side="right") - 1 for c, r in zip(cells, rows.T, strict=True)]
        )
        costs = []
        for relative in self.relatives:
            cost = tabulate(relative, cells, pairs, at_anchor)
            excess = max(1.0, float(np.max(cost.at(index) / relative(rows))))
            costs.append(_scaled(cost, 1 / excess))
        return AllocationSearch(worths, costs, max_labels=1).bound()

    # -- inside ----------------------------------------------------------------------------------

    def _step(self, index: IndexArray, radius: IndexArray) -> IndexArray | None:
        """Return a feasible vector of more value within the radius, None where none is found."""
        reach = [
            np.unique(
                np.append(np.linspace(max(0, i - r), min(n - 1, i + r), NUM_CONSIDERED), i)
                .round()
                .astype(int)
            )
            for i, r, n in zip(index, radius, self.sizes, strict=True)
        ]
        singles = self._alone(index, reach)
        now = self._costs(index[None])[0]
        values = [value[at] for value, at in zip(self.values, reach, strict=True)]
        limits = np.ones(len(now))
        for _ in range(MAX_CORRECTIONS):
            costs = [
                _scaled(PairwiseCost(now[c], [s[:, c] - now[c] for s in singles], {}), 1 / limit)
                for c, limit in enumerate(limits)
            ]
            found = AllocationSearch(values, costs, NUM_LABELS).solve().index
            if found is None:
                return None
            trial = np.array([at[i] for at, i in zip(reach, found, strict=True)])
            if self._value(trial) <= self._value(index) * (1 + TOLERANCE):
                return None
            actual = self._costs(trial[None])[0]
            if np.all(actual <= 1 + TOLERANCE):
                return trial
            # Effects that do not add up: aim lower by as much as was missed.
            limits = limits - np.maximum(0, actual - 1) * 1.05
        return None

    def _alone(self, index: IndexArray, reach: Sequence[IndexArray]) -> list[FloatArray]:
        """Return the costs when one width changes, for each width (values, constraints)."""
        ends = list(accumulate(len(at) for at in reach))
        rows = np.repeat(index[None], ends[-1], axis=0)
        for width, (end, at) in enumerate(zip(ends, reach, strict=True)):
            rows[end - len(at) : end, width] = at
        return np.split(self._costs(rows), ends[:-1])

    def _costs(self, index: IndexArray) -> FloatArray:
        rows = np.column_stack([v[i] for v, i in zip(self.candidates, index.T, strict=True)])
        return np.column_stack([relative(rows) for relative in self.relatives])

    def _value(self, index: IndexArray) -> float:
        return float(sum(v[i] for v, i in zip(self.values, index, strict=True)))


def _scaled(cost: PairwiseCost, factor: float) -> PairwiseCost:
    return PairwiseCost(
        cost.constant * factor,
        [single * factor for single in cost.singles],
        {pair: table * factor for pair, table in cost.pairs.items()},
    )


def _strongest(
    strengths: Mapping[tuple[int, int], float], sizes: Sequence[int]
) -> list[tuple[int, int]]:
    """Return the strongest pairs whose tables elimination can hold."""
    chosen: list[tuple[int, int]] = []
    largest = max(strengths.values(), default=0.0)
    for pair in sorted(strengths, key=lambda pair: -strengths[pair]):
        is_small = table_entries(sizes, [*chosen, pair]) <= MAX_ENTRIES
        if is_small and strengths[pair] > WEAK * largest:
            chosen.append(pair)
    return chosen

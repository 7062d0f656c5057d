"""The widths of largest value under limits on costs that are tables: bounds, and an exact search.

maximise sum_i value_i[a_i]  subject to  cost_c(a) <= limit_c,  cost_c a sum over pairs of widths.

Widths are settled one after another; what the settled ones still touch is the frontier (one width
in a chain). Lagrange multipliers turn the problem into one that backward elimination solves
exactly: the least value over the multipliers bounds every solution from above, and the tables of
that elimination bound how every partial solution can end. The search keeps all partial solutions
that can still beat the best known one. Where they become too many it drops the least promising
and remembers how good they could have become, so the result always says by how much it can be off.

Sources: Lagrangian bounds in label setting for resource-constrained paths, Beasley and
Christofides 1989; elimination, Dechter 1999; cutting planes, Kelley 1960.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from scipy.optimize import linprog

from ..base.intervals import FloatArray
from .constraint import TOLERANCE
from .pairwise_cost import IndexArray, PairwiseCost

# Entries of one table of the elimination: bounds memory.
MAX_TABLE = 1 << 24
MAX_CUTS = 200
# Share of the whole value at which the multipliers count as found.
DUAL_TOLERANCE = 1e-8
# Partial solutions that are looked at together.
CHUNK = 1 << 20
# Relative differences of values below this are ties.
TIE = 1e-12
# Multiplier, in shares of the whole value per limit, beyond which a limit counts as unreachable.
LARGEST_MULTIPLIER = 1e6


@dataclass(frozen=True)
class Solution:
    """What a search found.

    Attributes:
        index: Index of each width's candidate, shape (k,); None where nothing meets the limits.
        value: Its value.
        bound: No solution has a larger value.
    """

    index: IndexArray | None
    value: float
    bound: float


def frontiers(num_widths: int, pairs: Sequence[tuple[int, int]]) -> list[tuple[int, ...]]:
    """Return for each width the widths before it that it or a later one interacts with."""
    return [
        tuple(sorted({i for i, j in pairs if i < at <= j} | {j for i, j in pairs if j < at <= i}))
        for at in range(num_widths)
    ]


def table_entries(sizes: Sequence[int], pairs: Sequence[tuple[int, int]]) -> int:
    """Return the entries of the largest table that elimination needs."""
    return max(
        prod(sizes[i] for i in (*frontier, at))
        for at, frontier in enumerate(frontiers(len(sizes), pairs))
    )


class AllocationSearch:
    """The problem as tables.

    Args:
        values: For each width the value of its candidates, shape (n_i,).
        costs: The costs, relative to their limits: each must not exceed 1.
        max_labels: Partial solutions that are kept at each width.
    """

    def __init__(
        self, values: Sequence[FloatArray], costs: Sequence[PairwiseCost], max_labels: int
    ) -> None:
        self.values, self.costs, self.max_labels = values, costs, max_labels
        self.pairs = sorted({pair for cost in costs for pair in cost.pairs})
        self.frontiers = frontiers(len(values), self.pairs)
        self.scale = sum(float(np.abs(value).max()) for value in values) or 1.0
        self.sizes = np.array([cost.largest for cost in costs])

    def solve(self) -> Solution:
        """Return the best solution that was found, with its bound."""
        multipliers, bound, incumbent = self._dual()
        best = self._value(incumbent) if incumbent is not None else -np.inf
        if best >= bound - TIE * self.scale:
            return Solution(incumbent, best, best)
        found, dropped = self._labels(multipliers, best)
        if found is not None:
            incumbent, best = found, self._value(found)
        return Solution(incumbent, best, max(best, min(bound, dropped)))

    def bound(self) -> float:
        """Return a number that no solution's value exceeds."""
        return self._dual()[1]

    # -- multipliers -----------------------------------------------------------------------------

    def _dual(self) -> tuple[FloatArray, float, IndexArray | None]:
        """Return the best multipliers, the bound they give, and the best feasible vector met."""
        count = len(self.costs)
        incumbent: IndexArray | None = None
        best, bound = -np.inf, np.inf
        multipliers = np.zeros(count)
        # The cheapest vectors first: they keep the multipliers finite where the limits can be met.
        waiting = [np.zeros(count)]
        cuts: list[tuple[float, FloatArray]] = []
        cheapest = [self._cheapest(number) for number in range(count)]
        met = list(cheapest)
        for _ in range(MAX_CUTS):
            if waiting:
                trial = waiting.pop()
                tables = self._eliminate(trial, has_values=True)
                index = self._decode(trial, tables)
                value = float(tables[0][()]) + float(
                    trial @ [1 + TOLERANCE - cost.constant for cost in self.costs]
                )
                value += self._rounding(trial)
                if value < bound:
                    bound, multipliers = value, trial
                met.append(index)
            for index in met:
                excess = self._costs(index) - 1 - TOLERANCE
                worth = self._value(index)
                cuts.append((worth, excess))
                if np.all(excess <= 0):
                    filled = self._fill(index)
                    if self._value(filled) > best:
                        incumbent, best = filled, self._value(filled)
            met = []
            lower, trial = self._master(cuts)
            if bound - max(lower, best) <= DUAL_TOLERANCE * self.scale:
                break
            waiting.append(trial)
        return multipliers, bound, incumbent

    def _master(self, cuts: Sequence[tuple[float, FloatArray]]) -> tuple[float, FloatArray]:
        """Return the least of the cuts' upper envelope over multipliers >= 0, and where it is."""
        count = len(self.costs)
        worths = np.array([worth for worth, _ in cuts]) / self.scale
        excesses = np.array([excess for _, excess in cuts])
        result = linprog(
            np.array([1.0, *np.zeros(count)]),
            A_ub=np.column_stack([-np.ones(len(cuts)), -excesses]),
            b_ub=-worths,
            bounds=[(None, None)] + [(0, LARGEST_MULTIPLIER)] * count,
            method="highs",
        )
        if result.x is None:
            return -np.inf, np.full(count, LARGEST_MULTIPLIER) * self.scale
        # The first variable is the envelope.
        return float(result.x[0]) * self.scale, np.asarray(result.x[1:]) * self.scale

    def _cheapest(self, number: int) -> IndexArray:
        weights = np.zeros(len(self.costs))
        weights[number] = 1.0
        return self._decode(weights, self._eliminate(weights, has_values=False), has_values=False)

    def _rounding(self, multipliers: FloatArray) -> float:
        """Return what rounding can take from a bound at these multipliers, at most."""
        num_terms = len(self.values) + len(self.pairs) + 1
        magnitude = self.scale + float(multipliers @ self.sizes)
        return 4 * num_terms * float(np.finfo(np.float64).eps) * magnitude

    # -- elimination -----------------------------------------------------------------------------

    def _single(self, at: int, weights: FloatArray, *, has_values: bool) -> FloatArray:
        total = self.values[at].copy() if has_values else np.zeros(len(self.values[at]))
        for cost, weight in zip(self.costs, weights, strict=True):
            if weight:
                total -= weight * cost.singles[at]
        return total

    def _pair(self, pair: tuple[int, int], weights: FloatArray) -> FloatArray | None:
        total: FloatArray | None = None
        for cost, weight in zip(self.costs, weights, strict=True):
            if weight and pair in cost.pairs:
                part = -weight * cost.pairs[pair]
                total = part if total is None else total + part
        return total

    def _eliminate(self, weights: FloatArray, *, has_values: bool) -> list[FloatArray]:
        """Return for each width the best that it and later ones add, by the frontier's indices.

        What is added is the values (or nothing) minus the weighted costs without constants. One
        more table, of a single zero, ends the list.
        """
        count = len(self.values)
        tables: list[FloatArray] = [np.zeros(())] * (count + 1)
        for at in reversed(range(count)):
            axes = (*self.frontiers[at], at)
            shape = [len(self.values[i]) for i in axes]
            total = np.zeros(shape)
            total += self._single(at, weights, has_values=has_values)
            later = self.frontiers[at + 1] if at + 1 < count else ()
            total += _spread(tables[at + 1], later, axes)
            for i in self.frontiers[at]:
                pair = self._pair((i, at), weights) if (i, at) in self.pairs else None
                if pair is not None:
                    total += _spread(pair, (i, at), axes)
            tables[at] = total.max(axis=-1)
        return tables

    def _decode(
        self, weights: FloatArray, tables: Sequence[FloatArray], *, has_values: bool = True
    ) -> IndexArray:
        """Return the indices that attain the elimination's maximum, shape (k,)."""
        count = len(self.values)
        index = np.zeros(count, dtype=np.int64)
        for at in range(count):
            total = self._single(at, weights, has_values=has_values)
            for i in self.frontiers[at]:
                pair = self._pair((i, at), weights) if (i, at) in self.pairs else None
                if pair is not None:
                    total = total + pair[index[i]]
            later = self.frontiers[at + 1] if at + 1 < count else ()
            where = tuple(slice(None) if i == at else index[i] for i in later)
            index[at] = int(np.argmax(total + tables[at + 1][where]))
        return index

    # -- one vector ------------------------------------------------------------------------------

    def _value(self, index: IndexArray) -> float:
        return float(sum(value[i] for value, i in zip(self.values, index, strict=True)))

    def _costs(self, index: IndexArray) -> FloatArray:
        return np.array([cost.at(index[None])[0] for cost in self.costs])

    def _fill(self, index: IndexArray) -> IndexArray:
        """Return the vector after single widths were raised in value as far as the limits allow."""
        index = index.copy()
        while True:
            gains, moves = [0.0], [(0, int(index[0]))]
            for at, value in enumerate(self.values):
                better = np.flatnonzero(value > value[index[at]])
                if not len(better):
                    continue
                rows = np.repeat(index[None], len(better), axis=0)
                rows[:, at] = better
                fits = np.all([cost.at(rows) <= 1 + TOLERANCE for cost in self.costs], axis=0)
                if fits.any():
                    choice = better[fits][np.argmax(value[better[fits]])]
                    gains.append(float(value[choice] - value[index[at]]))
                    moves.append((at, int(choice)))
            best = int(np.argmax(gains))
            if best == 0:
                return index
            index[moves[best][0]] = moves[best][1]

    # -- partial solutions -----------------------------------------------------------------------

    def _labels(self, multipliers: FloatArray, best: float) -> tuple[IndexArray | None, float]:
        """Return the best vector above `best`, if any, and the bound of what was dropped."""
        to_go = self._eliminate(multipliers, has_values=True)
        cheapest = [
            self._eliminate(weights, has_values=False) for weights in np.eye(len(self.costs))
        ]
        share = float(multipliers.sum()) * (1 + TOLERANCE) + self._rounding(multipliers)
        settled: IndexArray = np.zeros((1, 0), dtype=np.int64)
        values = np.zeros(1)
        costs = np.array([[cost.constant for cost in self.costs]])
        dropped = -np.inf
        for at in range(len(self.values)):
            parts = []
            step = max(1, CHUNK // len(self.values[at]))
            for start in range(0, len(settled), step):
                rows = slice(start, start + step)
                parts.append(
                    self._extend(
                        at,
                        settled[rows],
                        values[rows],
                        costs[rows],
                        to_go,
                        cheapest,
                        multipliers,
                        share,
                        best,
                    )
                )
            origin = np.concatenate([part[0] + number * step for number, part in enumerate(parts)])
            chosen, values, costs, promise = (
                np.concatenate([part[column] for part in parts]) for column in range(1, 5)
            )
            later = self.frontiers[at + 1] if at + 1 < len(self.values) else ()
            columns = [chosen if i == at else settled[origin, i] for i in later]
            frontier = np.array(columns, dtype=np.int64).reshape(len(later), len(chosen)).T
            kept = _undominated(frontier, values, costs)
            if at + 1 == len(self.values):
                kept = kept[[int(np.argmax(values[kept]))]] if len(kept) else kept
            if len(kept) > self.max_labels:
                order = np.argsort(-promise[kept], kind="stable")
                dropped = max(dropped, float(promise[kept[order[self.max_labels]]]))
                kept = kept[order[: self.max_labels]]
            settled = np.column_stack([settled[origin[kept]], chosen[kept]])
            values, costs = values[kept], costs[kept]
            if not len(settled):
                return None, dropped
        return settled[0], dropped

    def _extend(
        self,
        at: int,
        settled: IndexArray,
        values: FloatArray,
        costs: FloatArray,
        to_go: Sequence[FloatArray],
        cheapest: Sequence[Sequence[FloatArray]],
        multipliers: FloatArray,
        share: float,
        best: float,
    ) -> tuple[IndexArray, IndexArray, FloatArray, FloatArray, FloatArray]:
        """Return label, candidate, value, costs and promise of each extension worth keeping."""
        later = self.frontiers[at + 1] if at + 1 < len(self.values) else ()
        where = tuple(
            np.arange(len(self.values[at]))[None] if i == at else settled[:, i, None] for i in later
        )
        shape = (len(settled), len(self.values[at]))
        total = values[:, None] + self.values[at][None]
        spent = []
        fits = np.ones(shape, dtype=bool)
        promise = total + share + np.broadcast_to(to_go[at + 1][where], shape)
        for number, cost in enumerate(self.costs):
            sum_ = costs[:, number, None] + cost.singles[at][None]
            for i in self.frontiers[at]:
                if (i, at) in cost.pairs:
                    sum_ = sum_ + cost.pairs[i, at][settled[:, i]]
            # Elimination is of minus the cost.
            fits &= sum_ - cheapest[number][at + 1][where] <= 1 + TOLERANCE
            promise = promise - multipliers[number] * sum_
            spent.append(sum_)
        rows, columns = np.nonzero(fits & (promise > best + TIE * self.scale))
        picked = [sum_[rows, columns] for sum_ in spent]
        return (
            rows,
            columns,
            total[rows, columns],
            np.stack(picked, axis=1),
            promise[rows, columns],
        )


def _spread(table: FloatArray, of: Sequence[int], axes: Sequence[int]) -> FloatArray:
    """Return a table over some widths as one that broadcasts over `axes`."""
    sizes = dict(zip(of, table.shape, strict=True))
    return table.reshape([sizes.get(i, 1) for i in axes])


def _undominated(frontier: IndexArray, values: FloatArray, costs: FloatArray) -> IndexArray:
    """Return the labels that no other with the same frontier beats in value and cost.

    Where there are several costs hardly one beats another in everything: then equals are merged.
    """
    if not len(values):
        return np.arange(0)
    if costs.shape[1] > 1:
        labels = np.column_stack([frontier, values, costs])
        return np.sort(np.unique(labels, axis=0, return_index=True)[1])
    group = np.unique(frontier, axis=0, return_inverse=True)[1].reshape(-1)
    order = np.lexsort((-values, costs[:, 0], group))
    # Ranks are whole numbers, so that the running maximum can be kept apart by group exactly.
    rank = np.unique(values[order], return_inverse=True)[1].reshape(-1) + 1
    best = np.maximum.accumulate(group[order] * (len(values) + 1) + rank)
    is_new = np.diff(best, prepend=-1) > 0
    return order[is_new]

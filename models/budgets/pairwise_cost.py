"""A cost as a table: a constant, a number per width, and a number per pair of widths.

Costs that add up over layers are such sums wherever a layer's channels are single widths: a layer
knows its input and its output. The tables are found by asking the cost alone, so this holds for
any predictor's module; how far a cost is from such a sum is seen at random widths.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..base.intervals import FloatArray

IndexArray: TypeAlias = NDArray[np.int64]
Value: TypeAlias = Callable[[FloatArray], FloatArray]

# Differences below this share of the cost are rounding.
ROUNDING = 1e-10
# Share of the largest entry of a table that its computation may have rounded away.
NOISE = 1e-13
# Draws per pair of widths in the search for those that interact.
NUM_PROBES = 32
# Entries of a pair's table that are drawn to check it.
NUM_TABLE_CHECKS = 1024
MAX_RANK = 24
# Multiples of channels that kernels are made for.
LIKED_STEPS = (2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class PairwiseCost:
    """constant + sum_i singles[i][a_i] + sum_ij pairs[i, j][a_i, a_j], a_i an index of candidates.

    Attributes:
        constant: Cost at the anchor.
        singles: For each width the change from the anchor, shape (n_i,).
        pairs: For pairs i < j that interact what they add beyond that, shape (n_i, n_j).
    """

    constant: float
    singles: list[FloatArray]
    pairs: dict[tuple[int, int], FloatArray]

    @property
    def largest(self) -> float:
        """The largest magnitude that any sum of entries has on its way."""
        singles = sum(float(np.abs(single).max()) for single in self.singles)
        pairs = sum(float(np.abs(pair).max()) for pair in self.pairs.values())
        return abs(self.constant) + singles + pairs

    def at(self, index: IndexArray) -> FloatArray:
        """Return the cost, shape (n,), of candidates' indices (n, k)."""
        total = np.full(len(index), self.constant)
        for i, single in enumerate(self.singles):
            total += single[index[:, i]]
        for (i, j), pair in self.pairs.items():
            total += pair[index[:, i], index[:, j]]
        return total


def interacting_pairs(
    value: Value, candidates: Sequence[FloatArray], seed: int = 0
) -> dict[tuple[int, int], float]:
    """Return the pairs of widths whose effects do not add up, with how much they deviate at most.

    Args:
        value: Widths (n, k) in channels to cost (n,).
        candidates: For each width the values that it can take.
        seed: Of the random widths at which pairs are tried.
    """
    rng = np.random.default_rng(seed)
    low, high = (draw(candidates, NUM_PROBES, rng) for _ in range(2))
    # The ends show an interaction that is flat elsewhere.
    low[0] = [values[0] for values in candidates]
    high[0] = [values[-1] for values in candidates]
    base = value(low)
    scale = float(np.abs(value(high)).max())
    alone = []
    for i in range(len(candidates)):
        moved = low.copy()
        moved[:, i] = high[:, i]
        alone.append(value(moved))
    found = {}
    for i, j in combinations(range(len(candidates)), 2):
        moved = low.copy()
        moved[:, (i, j)] = high[:, (i, j)]
        deviation = float(np.abs(value(moved) - alone[i] - alone[j] + base).max())
        if deviation > ROUNDING * scale:
            found[i, j] = deviation
    return found


def tabulate(
    value: Value,
    candidates: Sequence[FloatArray],
    pairs: Sequence[tuple[int, int]],
    anchor: FloatArray | None = None,
    *,
    max_rank: int = MAX_RANK,
) -> PairwiseCost:
    """Return the tables that agree with a cost wherever at most one pair leaves the anchor.

    Args:
        value: Widths (n, k) in channels to cost (n,), relative to a limit.
        candidates: For each width the values that it can take, shape (n_i,).
        pairs: The pairs i < j that interact.
        anchor: Widths of shape (k,); the largest candidates where None.
        max_rank: Rank up to which a table is found from few of its rows and columns, which can
            miss what only few entries show; 0 asks for every entry.
    """
    at = np.array([values[-1] for values in candidates] if anchor is None else anchor, dtype=float)
    constant = float(value(at[None])[0])
    singles = [
        value(_with(at, (i,), values[:, None])) - constant for i, values in enumerate(candidates)
    ]
    tiny = ROUNDING * max(1.0, abs(constant))
    tables = {}
    for i, j in pairs:

        def entries(rows: IndexArray, columns: IndexArray, i: int = i, j: int = j) -> FloatArray:
            both = np.stack([candidates[i][rows], candidates[j][columns]], axis=-1)
            left = constant + singles[i][rows] + singles[j][columns]
            interaction: FloatArray = value(_with(at, (i, j), both)) - left
            return interaction

        both = (candidates[i], candidates[j])
        tables[i, j] = _table(entries, both, tiny, max_rank)
    return PairwiseCost(constant, singles, tables)


def draw(candidates: Sequence[FloatArray], count: int, rng: np.random.Generator) -> FloatArray:
    """Return random widths, shape (count, k); every other row keeps to multiples of a power of two.

    Kernels like these, and few of all vectors have only such widths.
    """
    rows = np.column_stack([rng.choice(values, count) for values in candidates])
    steps = rng.choice(LIKED_STEPS, (count + 1) // 2)
    for column, values in enumerate(candidates):
        for step in LIKED_STEPS:
            liked, at = values[np.mod(values, step) == 0], np.flatnonzero(steps == step)
            if len(liked):
                rows[2 * at, column] = rng.choice(liked, len(at))
    return rows


def _with(at: FloatArray, columns: tuple[int, ...], values: FloatArray) -> FloatArray:
    """Return rows equal to the anchor but for some columns."""
    rows = np.tile(at, (len(values), 1))
    rows[:, columns] = values
    return rows


def _table(
    entries: Callable[[IndexArray, IndexArray], FloatArray],
    candidates: tuple[FloatArray, FloatArray],
    tiny: float,
    max_rank: int,
) -> FloatArray:
    """Return a table from few of its rows and columns where it has a low rank, else from all.

    Crosses of a row and a column are subtracted until nothing is left (adaptive cross
    approximation with partial pivoting; Bebendorf 2000). Random entries decide whether it holds.
    """
    drawn = draw(candidates, NUM_TABLE_CHECKS, np.random.default_rng(0))
    checks = np.column_stack(
        [np.searchsorted(values, row) for values, row in zip(candidates, drawn.T, strict=True)]
    )
    shape = (len(candidates[0]), len(candidates[1]))
    # A cache that overflows, say, shows at the ends alone.
    checks[:2, 0], checks[1:3, 1] = shape[0] - 1, shape[1] - 1
    expected = entries(checks[:, 0], checks[:, 1])
    table = np.zeros(shape)
    everything = np.arange(shape[0]), np.arange(shape[1])
    if min(shape) > max_rank:
        tiny = max(tiny, NOISE * float(np.abs(expected).max()))
        for _ in range(max_rank):
            missing = expected - table[checks[:, 0], checks[:, 1]]
            worst = int(np.argmax(np.abs(missing)))
            if np.abs(missing[worst]) <= tiny:
                return table
            row = int(checks[worst, 0])
            along = entries(np.full(shape[1], row), everything[1]) - table[row]
            column = int(np.argmax(np.abs(along)))
            down = entries(everything[0], np.full(shape[0], column)) - table[:, column]
            table += np.outer(down, along / along[column])
    grid = np.indices(shape).reshape(2, -1)
    return entries(grid[0], grid[1]).reshape(shape)

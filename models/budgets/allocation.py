"""Which channels to keep: integer widths of the largest importance under a budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from math import frexp, lcm, ldexp
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from joulemap import InputError

from ...datasets import NetworkSpec
from ..base.intervals import FloatArray
from .allocation_local import LocalSearch
from .allocation_search import MAX_TABLE, TIE, AllocationSearch, Solution, table_entries
from .check import BudgetCheck
from .constraint import TOLERANCE
from .pairwise_cost import IndexArray, PairwiseCost, Value, draw, interacting_pairs, tabulate

# Random widths at which tables are compared with the cost, and how well they agree.
NUM_CHECKS = 512
AGREEMENT = 1e-9
NUM_FEW = 4
# Halvings in the search for the cost whose upper bound is the limit.
NUM_HALVINGS = 60
NUM_COARSE_HALVINGS = 20

Importance: TypeAlias = Mapping[str, ArrayLike] | Sequence[ArrayLike]


@dataclass(frozen=True)
class Allocation:
    """The widths that keep the largest importance within a budget, and the channels to keep.

    Attributes:
        check: The widths and their costs beside the limits.
        channels: Width name to the indices of its most important channels, ascending.
        importance: Sum of the importance of the kept channels.
        total_importance: Sum over all channels.
        bound: No widths of the allowed multiples that meet the budget keep more.
        is_proven: Whether `bound` is certain: the cost is a sum over pairs of widths, or grows
            with one. Else it holds as far as samples of the cost tell.
    """

    check: BudgetCheck
    channels: Mapping[str, tuple[int, ...]]
    importance: float
    total_importance: float
    bound: float
    is_proven: bool

    @property
    def widths(self) -> tuple[int, ...]:
        """The widths in channels, in the network's order."""
        return tuple(int(width) for width in self.check.widths)

    @property
    def gap(self) -> float:
        """The share of the bound that the kept importance can lie below the optimum, at most."""
        return (self.bound - self.importance) / abs(self.bound) if self.bound else 0.0

    @property
    def is_optimal(self) -> bool:
        """Whether it is certain that no other widths keep more, but for rounding."""
        return self.is_proven and self.bound - self.importance <= TIE * abs(self.bound)


class ChannelRanking:
    """Channels of each width in order of importance.

    Args:
        spec: The network.
        importance: For each width one number per channel, by name or in the network's order.

    Attributes:
        kept: For each width the sum of its w largest, at index w, shape (max + 1,).

    Raises:
        InputError: Unknown or missing widths, a wrong number of channels, or NaN.
    """

    def __init__(self, spec: NetworkSpec, importance: Importance) -> None:
        self.spec = spec
        arrays = _by_width(spec, importance)
        self.orders = [np.argsort(-array, kind="stable") for array in arrays]
        with np.errstate(over="ignore"):
            self.kept = [
                np.concatenate([[0.0], np.cumsum(array[order])])
                for array, order in zip(arrays, self.orders, strict=True)
            ]
            sizes = [np.abs(sums).max() for sums in self.kept]
            if not np.isfinite(sum(sizes) * len(sizes)):
                raise InputError(
                    "the importance of all channels together is beyond the largest number; divide "
                    "it by a constant"
                )

    def channels(self, widths: Sequence[int]) -> dict[str, tuple[int, ...]]:
        """Return the indices of the most important channels of each width, ascending."""
        return {
            name: tuple(sorted(order[:width].tolist()))
            for name, order, width in zip(self.spec.width_names, self.orders, widths, strict=True)
        }


def candidates_of(spec: NetworkSpec, multiples: Mapping[str, int]) -> list[FloatArray]:
    """Return for each width the values it may take, ascending.

    Multiples of both the width's own step and the given one; its own where none of both fits.

    Args:
        spec: The network.
        multiples: Width name to a multiple of channels; 1 where left out.

    Raises:
        InputError: An unknown width, or a multiple that is no whole number above 0.
    """
    if unknown := sorted(set(multiples) - set(spec.width_names)):
        raise InputError(
            f"multiples names {', '.join(unknown)}; widths of {spec.name} are "
            f"{', '.join(spec.width_names)}"
        )
    return [np.array(values, dtype=np.float64) for values in _ranges(spec, multiples)]


def smallest_of(spec: NetworkSpec, multiple: int) -> list[int]:
    """Return for each width the smallest value it may take in these multiples."""
    return [values[0] for values in _ranges(spec, dict.fromkeys(spec.width_names, multiple))]


def _ranges(spec: NetworkSpec, multiples: Mapping[str, int]) -> list[range]:
    found = []
    for width in spec.widths:
        multiple = multiples.get(width.name, 1)
        if isinstance(multiple, bool) or not hasattr(multiple, "__index__") or multiple < 1:
            raise InputError(f"the multiple of {width.name} is {multiple!r}, not an int >= 1")
        step = lcm(width.multiple, int(multiple))
        first = -(-width.min // step) * step
        found.append(
            range(first, width.max + 1, step) or range(width.min, width.max + 1, width.multiple)
        )
    return found


def allocate(
    relatives: Sequence[Value],
    candidates: Sequence[FloatArray],
    values: Sequence[FloatArray],
    max_labels: int,
    plain: Sequence[Value] | None = None,
) -> tuple[FloatArray | None, float, bool]:
    """Return the widths (k,) of largest value, a bound of it, and whether the bound is certain.

    Args:
        relatives: What widths (n, k) cost relative to the limits, shape (n,).
        candidates: For each width the values it may take, ascending.
        values: For each width the value of each candidate.
        max_labels: Partial solutions that the exact search keeps.
        plain: Costs that `relatives` are upper bounds of, where they are; they can be sums over
            pairs of widths when the bounds are not.

    Returns:
        None in place of the widths where none meet the limits, or none were found.
    """
    solution = _exact(relatives, candidates, values, max_labels)
    if solution is None and plain is not None:
        linked = [_linked(*pair, candidates) for pair in zip(relatives, plain, strict=True)]
        known = [relative for relative in linked if relative is not None]
        if len(known) == len(linked):
            solution = _exact(known, candidates, values, max_labels)
    if solution is not None and not _is_met(solution, relatives, candidates):
        solution = None
    if solution is not None:
        index, bound, is_proven = solution.index, solution.bound, True
    else:
        index, bound, is_proven = *_searched(relatives, candidates, values), False
    if index is None:
        return None, bound, is_proven
    return np.array([v[i] for v, i in zip(candidates, index, strict=True)]), bound, is_proven


def _exact(
    relatives: Sequence[Value],
    candidates: Sequence[FloatArray],
    values: Sequence[FloatArray],
    max_labels: int,
) -> Solution | None:
    """Return the solution by tables; None where the costs are no sums over pairs of widths."""
    sizes = [len(value) for value in values]
    strengths = [interacting_pairs(relative, candidates) for relative in relatives]
    if table_entries(sizes, sorted(set(chain(*strengths)))) > MAX_TABLE:
        return None
    # Few values first: a cost whose pairs all interact is hardly ever a sum of them.
    few = [values[:: max(1, len(values) // NUM_FEW)] for values in candidates]
    # Where costs are small against the limit, sums from there hardly round beside it.
    anchor = np.array([values[0] for values in candidates])
    costs = []
    for relative, pairs in zip(relatives, strengths, strict=True):
        if not _agrees(tabulate(relative, few, sorted(pairs), anchor), relative, few):
            return None
        cost = tabulate(relative, candidates, sorted(pairs), anchor)
        if not _agrees(cost, relative, candidates):
            cost = tabulate(relative, candidates, sorted(pairs), anchor, max_rank=0)
            if not _agrees(cost, relative, candidates):
                return None
        costs.append(cost)
    # A power of two: sums of scaled values are the scaled sums to the last bit.
    largest = max((float(np.abs(value).max()) for value in values), default=0.0)
    exponent = frexp(largest)[1]
    found = AllocationSearch(
        [np.ldexp(value, -exponent) for value in values], costs, max_labels
    ).solve()
    return Solution(found.index, ldexp(found.value, exponent), ldexp(found.bound, exponent))


def _searched(
    relatives: Sequence[Value], candidates: Sequence[FloatArray], values: Sequence[FloatArray]
) -> tuple[IndexArray | None, float]:
    """Return what the local search finds, and a bound from samples."""
    search = LocalSearch(relatives, candidates, values)
    index = search.start()
    if index is None:
        return None, np.inf
    index = search.climb(index)
    strengths: dict[tuple[int, int], float] = {}
    for relative in relatives:
        for pair, strength in interacting_pairs(relative, candidates).items():
            strengths[pair] = max(strengths.get(pair, 0.0), strength)
    value = sum(float(v[i]) for v, i in zip(values, index, strict=True))
    return index, max(value, search.bound(index, strengths))


def _linked(relative: Value, plain: Value, candidates: Sequence[FloatArray]) -> Value | None:
    """Return the plain cost relative to its value where its bound reaches the limit.

    Bounds may be wider at some widths, never narrower: then all widths whose bound is within the
    limit are among those whose plain cost is. None where random widths say otherwise.
    """
    rng = np.random.default_rng(0)
    low, high = (np.array([values[end] for values in candidates]) for end in (0, -1))
    near, far = 0.0, 1.0
    for _ in range(NUM_HALVINGS):
        middle = (near + far) / 2
        fits = relative((low + middle * (high - low))[None])[0] <= 1
        near, far = (middle, far) if fits else (near, middle)
    limit = float(plain((low + near * (high - low))[None])[0])
    # Shrunk at random, to see all costs between those of the smallest and of the largest widths.
    rows = low + rng.uniform(0, 1, (NUM_CHECKS, 1)) * (draw(candidates, NUM_CHECKS, rng) - low)
    rows = np.vstack([rows, high - rows + low])
    # And as far from the smallest widths as the bound allows, in many directions.
    reach, ends = np.zeros(len(rows)), np.ones(len(rows))
    for _ in range(NUM_COARSE_HALVINGS):
        shares = (reach + ends) / 2
        is_within = relative(low + shares[:, None] * (rows - low)) <= 1
        reach, ends = np.where(is_within, shares, reach), np.where(is_within, ends, shares)
    rows = np.floor(np.vstack([rows, low + reach[:, None] * (rows - low)]))
    if np.any((relative(rows) <= 1) & (plain(rows) > limit * (1 + AGREEMENT))):
        return None
    return lambda rows: plain(rows) / limit


def _is_met(
    solution: Solution, relatives: Sequence[Value], candidates: Sequence[FloatArray]
) -> bool:
    """Return whether a solution meets the limits; true where it says that none does."""
    if solution.index is None:
        return True
    widths = np.array([[v[i] for v, i in zip(candidates, solution.index, strict=True)]])
    return all(bool(relative(widths)[0] <= 1 + TOLERANCE) for relative in relatives)


def _agrees(cost: PairwiseCost, relative: Value, grid: Sequence[FloatArray]) -> bool:
    """Return whether tables give the cost at random widths, small and large ones.

    Up to a share of the limit, or of the cost where that is far above the limit.
    """
    rng = np.random.default_rng(0)
    index = np.column_stack(
        [
            np.searchsorted(values, row)
            for values, row in zip(grid, draw(grid, NUM_CHECKS, rng).T, strict=True)
        ]
    )
    index[::2] = index[::2] * rng.uniform(0, 1, (len(index[::2]), 1)) ** 3
    rows = np.column_stack([v[i] for v, i in zip(grid, index.T, strict=True)])
    actual = relative(rows)
    deviation = np.abs(cost.at(index) - actual)
    return bool(np.all(deviation <= AGREEMENT * np.maximum(1.0, np.abs(actual))))


def _by_width(spec: NetworkSpec, importance: Importance) -> list[FloatArray]:
    names = spec.width_names
    if isinstance(importance, Mapping):
        missing = [name for name in names if name not in importance]
        unknown = sorted(set(importance) - set(names))
        if missing or unknown:
            problem = f"has no {', '.join(missing)}" if missing else f"names {', '.join(unknown)}"
            raise InputError(
                f"importance {problem}; it holds one array for each of {', '.join(names)}"
            )
        given = [importance[name] for name in names]
    else:
        given = list(importance)
        if len(given) != len(names):
            raise InputError(
                f"importance holds {len(given)} arrays; it holds one for each of {', '.join(names)}"
            )
    arrays = []
    for width, values in zip(spec.widths, given, strict=True):
        try:
            array = np.asarray(values, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise InputError(f"the importance of {width.name} is no array: {error}") from error
        if array.shape != (width.max,):
            raise InputError(
                f"the importance of {width.name} has shape {array.shape}; it is one number for "
                f"each of its {width.max} channels"
            )
        if not np.all(np.isfinite(array)):
            raise InputError(f"the importance of {width.name} contains NaN or infinity")
        arrays.append(array)
    return arrays

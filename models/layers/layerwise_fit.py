"""How the rates that layers of all networks share are found in measurements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...datasets import LayerProfiles, NetworkSpec
from ..aligned.fit import (
    ITERATIONS,
    ROUGH,
    WITH_REGIMES,
    Candidate,
    believed,
    fit_robust,
    independent,
)
from ..aligned.paired_choice import PairedErrors
from ..aligned.structure import Compared
from ..aligned.terms import columns_of, functions_of
from ..base.intervals import FOLDS, FloatArray, assign_folds
from .terms import KEYS, PLACES, QUANTITIES, REGIMES, RELATIVES, LayerTermTable

UNSEEN = -1.0
# Rows of single layers that divisor and block are compared on, at most, of each network.
SEARCH_ROWS = 400


@dataclass(frozen=True)
class Rows:
    """Columns of the regression for some costs.

    Attributes:
        columns: Shape (n, len(KEYS)).
        cost: Shape (n,), in the target's unit.
        weights: Of squared relative errors, shape (n,), positive.
    """

    columns: FloatArray
    cost: FloatArray
    weights: FloatArray

    def of(self, rows: np.ndarray | slice) -> Rows:
        """Return some of the rows."""
        return Rows(self.columns[rows], self.cost[rows], self.weights[rows])


class Source:
    """What was measured of one network: costs of variants, and of their layers.

    Args:
        spec: The network, or the chain that stands for it.
        X: Widths, shape (n, k), in channels.
        cost: Of whole variants, shape (n,).
        weights: Of squared relative errors, shape (n,), positive.
        profiles: What layers took; None without.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        X: FloatArray,
        cost: FloatArray,
        weights: FloatArray,
        profiles: LayerProfiles | None = None,
    ) -> None:
        self.spec, self.X, self.cost = spec, X, cost
        self.weights = weights / weights.sum()
        self.table = LayerTermTable(spec)
        self.profiles = profiles

    def whole(self, divisor: int, block: int) -> Rows:
        """Return a row for each variant."""
        functions = functions_of(self.table, self.X, divisor, block)
        columns = columns_of(self.table.terms, functions)
        return Rows(_scattered(columns, self.table), self.cost, self.weights)

    def parts(self, divisor: int, block: int, most: int | None = None) -> Rows:
        """Return a row for each part of each profiled variant, weighted by its share of time.

        Args:
            divisor: d.
            block: b.
            most: How many variants' rows at most, counted in rows; None for all.
        """
        if self.profiles is None:
            nothing = np.empty(0)
            return Rows(np.empty((0, len(KEYS))), nothing, nothing)
        variants = self.profiles.variants
        if most is not None:
            variants = variants[: max(3, most // len(variants[0].parts))]
        widths = np.array([variant.widths for variant in variants], dtype=np.float64)
        by_layer = self._by_layer(widths, divisor, block)
        places = {name: place for place, name in enumerate(self._layer_names())}
        known = self.profile_costs()
        columns, cost, shares = [], [], []
        for index, variant in enumerate(variants):
            total = sum(part.median_s for part in variant.parts)
            # Visits correct for the machine's state, which profiles do not.
            whole = known[index]
            for part in variant.parts:
                chosen = [places[name] for name in part.layers if name in places]
                if chosen and part.median_s > 0:
                    columns.append(by_layer[chosen, index].sum(axis=0))
                    shares.append(part.median_s / total)
                    cost.append(part.median_s / total * whole)
        weights = np.array(shares)
        scattered = _scattered(np.array(columns), self.table)
        return Rows(scattered, np.array(cost), weights / weights.sum())

    def profile_costs(self) -> FloatArray:
        """Return the cost of each profiled variant, shape (n,): as measured by visits if it was."""
        known = self._cost_by_widths()
        variants = self.profiles.variants if self.profiles is not None else ()
        return np.array([known.get(variant.widths, variant.latency_s) for variant in variants])

    def _cost_by_widths(self) -> dict[tuple[int, ...], float]:
        """Return the mean cost of each width vector that was measured."""
        places, inverse = np.unique(self.X, axis=0, return_inverse=True)
        inverse = inverse.reshape(-1)
        means = np.bincount(inverse, self.cost) / np.bincount(inverse)
        return {tuple(row): cost for row, cost in zip(places.tolist(), means.tolist(), strict=True)}

    def _layer_names(self) -> list[str]:
        return list(dict.fromkeys(name for term in self.table.terms for name in term.layers))

    def _by_layer(self, X: FloatArray, divisor: int, block: int) -> FloatArray:
        """Return each layer's part of the terms, shape (layers, n, len(terms))."""
        functions = functions_of(self.table, X, divisor, block)
        places = {name: place for place, name in enumerate(self._layer_names())}
        result = np.zeros((len(places), len(X), len(self.table.terms)))
        for number, term in enumerate(self.table.terms):
            for piece, layer in zip(term.pieces, term.layers, strict=True):
                product = functions[:, piece.left_index] * functions[:, piece.right_index]
                result[places[layer], :, number] += piece.coefficient * product
        return result


def _scattered(columns: FloatArray, table: LayerTermTable) -> FloatArray:
    result = np.zeros((len(columns), len(KEYS)))
    result[:, [PLACES[term.family, term.quantity, term.regime] for term in table.terms]] = columns
    return result


def fit_rates(rows: Sequence[Rows], iterations: int = ITERATIONS) -> FloatArray:
    """Return the rates of all keys, shape (len(KEYS),), >= 0; `UNSEEN` for families without rows.

    Args:
        rows: Of all networks; each entry's weights add up to what it counts.
        iterations: Of reweighting.
    """
    columns = np.vstack([part.columns for part in rows])
    cost = np.concatenate([part.cost for part in rows])
    weights = np.concatenate([part.weights for part in rows])
    # Copies of a single element matter in no cost; a column of rounding errors is none.
    columns = np.where(np.abs(columns) < 1e-9, 0.0, columns)
    kept = independent(columns)
    rates = np.zeros(len(KEYS))
    rates[kept] = fit_robust(columns[:, kept], cost, weights, None, iterations)
    seen = {KEYS[place][0] for place in np.flatnonzero(columns.any(axis=0))}
    for place, (family, _, _) in enumerate(KEYS):
        if family not in seen:
            rates[place] = UNSEEN
    return rates


def stand_ins(rates: FloatArray) -> dict[str, str]:
    """Return which measured family each other family costs as; without those that have none.

    Args:
        rates: As `fit_rates` gives them.
    """
    seen = {family for family, _, _ in KEYS if rates[PLACES[family, "layer", "all"]] != UNSEEN}
    found = {}
    for family, relatives in RELATIVES.items():
        known = [relative for relative in relatives if relative in seen]
        if family not in seen and known:
            found[family] = known[0]
    return found


def completed(rates: FloatArray) -> FloatArray:
    """Return the rates with those of related families for the unseen, 0 where there are none.

    Args:
        rates: As `fit_rates` gives them.
    """
    result = np.maximum(rates, 0.0)
    for family, relative in stand_ins(rates).items():
        for quantity in QUANTITIES:
            for regime in REGIMES:
                source = rates[PLACES[relative, quantity, regime]]
                result[PLACES[family, quantity, regime]] = max(source, 0.0)
    return result


def select_structure(
    sources: Sequence[Source], divisors: Sequence[int], blocks: Sequence[int]
) -> tuple[Candidate, tuple[Compared, ...]]:
    """Return divisor and block that predict what was left out best, and what was compared.

    Networks are left out where there are several, else folds of rows.

    Args:
        sources: What was measured.
        divisors: Divisors to compare, ascending.
        blocks: Likewise blocks.

    Returns:
        The choice, and all that were compared, with their mean relative errors.
    """
    compared: dict[Candidate, FloatArray] = {}
    paired: list[PairedErrors] = []

    def compare(pairs: Sequence[Candidate]) -> Candidate:
        for pair in pairs:
            if pair not in compared:
                compared[pair], judge = _errors_of(sources, pair)
                paired.append(judge)
        errors = [compared[pair] for pair in pairs]
        return pairs[
            believed(paired[0], errors, [WITH_REGIMES * (pair.divisor > 1) for pair in pairs])
        ]

    if len(divisors) * len(blocks) == 1:
        return Candidate(divisors[0], blocks[0], 0), ()
    # With and without padding, which looks like divisibility where the block is not known.
    few = sorted({blocks[0], blocks[len(blocks) // 2]})
    divisor = compare([Candidate(d, b, 0) for d in divisors for b in few]).divisor
    best = compare([Candidate(divisor, b, 0) for b in blocks])
    table = [Compared(pair.structure, paired[0].mean(errors)) for pair, errors in compared.items()]
    return best, tuple(table)


def _errors_of(sources: Sequence[Source], pair: Candidate) -> tuple[FloatArray, PairedErrors]:
    """Return the relative errors of all rows, and what compares them; each network counts once."""
    whole = [source.whole(pair.divisor, pair.block) for source in sources]
    parts = [source.parts(pair.divisor, pair.block, SEARCH_ROWS) for source in sources]
    predicted = predict_left_out(whole, parts, [s.X for s in sources], ROUGH)
    errors, weights, variants, first = [], [], [], 0
    for source, rows, found in zip(sources, whole, predicted.whole, strict=True):
        errors.append(_errors(rows, found))
        weights.append(rows.weights / rows.weights.sum())
        variants.append(first + np.unique(source.X, axis=0, return_inverse=True)[1].reshape(-1))
        first = int(variants[-1].max()) + 1
    # Which kernels there are shows in single layers first.
    for rows, found in zip(parts, predicted.parts, strict=True):
        if len(rows.cost):
            errors.append(_errors(rows, found))
            weights.append(rows.weights / rows.weights.sum())
            variants.append(first + np.arange(len(rows.cost)))
            first += len(rows.cost)
    return np.concatenate(errors), PairedErrors(np.concatenate(variants), np.concatenate(weights))


@dataclass(frozen=True)
class LeftOut:
    """Predictions by fits without what they predict, an array for each network.

    Attributes:
        whole: Of variants.
        parts: Of profiled layers; of a single network these were not left out.
    """

    whole: list[FloatArray]
    parts: list[FloatArray]


def predict_left_out(
    whole: Sequence[Rows],
    parts: Sequence[Rows],
    X: Sequence[FloatArray],
    iterations: int = ITERATIONS,
) -> LeftOut:
    """Return predictions for each network, by fits without the network.

    For a single network by fits without a fold of its variants.

    Args:
        whole: Rows of variants, one entry per network.
        parts: Rows of single layers, likewise.
        X: Widths of the variants, likewise.
        iterations: Of reweighting.
    """
    if len(whole) == 1:
        return LeftOut([predict_folds(whole[0], parts, X[0], iterations)], [parts[0].cost])
    predicted = LeftOut([], [])
    for left_out in range(len(whole)):
        others = [number for number in range(len(whole)) if number != left_out]
        training = [kind[number] for kind in (whole, parts) for number in others]
        rates = completed(fit_rates(training, iterations))
        predicted.whole.append(whole[left_out].columns @ rates)
        predicted.parts.append(parts[left_out].columns @ rates)
    return predicted


def predict_folds(
    rows: Rows, others: Sequence[Rows], X: FloatArray, iterations: int = ITERATIONS
) -> FloatArray:
    """Return a prediction for each variant of a network, by fits without its fold.

    Args:
        rows: The network's variants.
        others: What else the fits use.
        X: Widths of the variants.
        iterations: Of reweighting.
    """
    folds, distinct = assign_folds(X, FOLDS)
    if distinct < 2:
        return np.array(rows.cost)
    result = np.empty_like(rows.cost)
    for fold in range(folds.max() + 1):
        test = folds == fold
        rates = fit_rates([rows.of(~test), *others], iterations)
        result[test] = rows.columns[test] @ completed(rates)
    return result


def _errors(rows: Rows, predicted: FloatArray) -> FloatArray:
    scale = np.maximum(np.abs(rows.cost), 1e-300)
    return np.minimum(np.abs(predicted - rows.cost) / scale, 1.0)

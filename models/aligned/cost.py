"""A sum of terms at fitted rates, in its regimes: what it predicts, and what it advises."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import ArrayLike

from joulemap import InputError

from ...datasets import NetworkSpec
from ..base.cost_module import CostInfo, CostModule
from ..base.intervals import FloatArray
from ..base.polynomial import PolynomialCostModule
from .advice import Advice, Fitted, advice_of, round_up
from .fit import scale_of
from .module import AlignedCostModule, averages_of, smooth_polynomial
from .structure import BILINEAR, Structure
from .terms import SumOfProducts, TermTable, functions_of

# Rows that are evaluated at once: bounds memory, not results.
CHUNK = 1 << 13
# Random width vectors that averages over the width space are taken over.
NUM_DRAWS = 500


@dataclass(frozen=True, eq=False)
class AlignedCost:
    """The cost of one network by rates of terms, in the regimes of a structure.

    cost = sum_t rate_t term_t(widths)

    Attributes:
        table: The network's terms.
        rates: Their rates, shape (p,), >= 0.
        structure: Divisor, block, and which terms take part.
        names: Names of the k widths.
        spec: The network; None for a chain of dense layers.
        ranges: Smallest and largest width in the data, shape (2, k); None without data.
        fold_rates: Rates without each fold, shape (folds, p); (0, 0) where not known.
    """

    table: TermTable
    rates: FloatArray
    structure: Structure
    names: tuple[str, ...]
    spec: NetworkSpec | None
    ranges: FloatArray | None
    fold_rates: FloatArray

    # -- costs -----------------------------------------------------------------------------------

    def predict(self, X: FloatArray) -> FloatArray:
        """Return the cost, shape (n,), of checked widths (n, k)."""
        total = SumOfProducts(self.table.terms, self.rates)
        cost = np.empty(len(X))
        for start in range(0, len(X), CHUNK):
            rows = slice(start, start + CHUNK)
            cost[rows] = total.at(self.functions(X[rows]))
        return cost

    def layer_costs(self, X: FloatArray) -> dict[str, float]:
        """Return the cost of each layer at one width vector, shape (1, k); '' is the call's.

        Empty for the bilinear form, which does not know layers.

        Raises:
            InputError: Not one width vector.
        """
        if len(X) != 1:
            raise InputError(f"layer_costs takes one width vector, not {len(X)}")
        if self.structure.complexity == BILINEAR:
            return {}
        values = self.functions(X)[0]
        costs: dict[str, float] = {}
        for term, rate in zip(self.table.terms, self.rates, strict=True):
            for piece, layer in zip(term.pieces, term.layers, strict=True) if rate else ():
                cost = values[piece.left_index] * values[piece.right_index]
                costs[layer] = costs.get(layer, 0.0) + float(rate * piece.coefficient * cost)
        return costs

    def functions(self, X: FloatArray) -> FloatArray:
        """Return the functions of channel counts that the terms are products of, shape (n, m)."""
        return functions_of(self.table, X, *self.structure.pair)

    def exact_module(self, info: CostInfo) -> CostModule:
        """Return the cost in both regimes, interpolated between integer channel counts.

        Args:
            info: What the module predicts.
        """
        total = SumOfProducts(self.table.terms, self.rates)
        return AlignedCostModule(self.table, total, *self.structure.pair, info)

    def smooth_module(self, info: CostInfo) -> CostModule:
        """Return the polynomial that an optimiser pays on average, who rounds as is advised.

        Its `max_deviation` is the largest over the bounds and random integer widths.

        Args:
            info: What the module predicts.
        """
        averages = averages_of(self.table, *self.structure.pair, self.advice().multiples)
        polynomial = smooth_polynomial(self.table, self.rates, averages, self.names)
        module = PolynomialCostModule(polynomial, info)
        X = self.random_widths()
        exact = self.predict(X)
        with torch.no_grad():
            smooth = module(torch.from_numpy(X)).numpy()
        deviation = np.abs(smooth - exact) / scale_of(exact, np.ones(len(exact)))
        module.info = replace(module.info, max_deviation=float(deviation.max()))
        return module

    # -- rounding --------------------------------------------------------------------------------

    def advice(self) -> Advice:
        """Return what to round widths to, and whether that saves or only costs nothing."""
        steps, pair = self.steps(), self.structure.pair
        no_network_nor_data = self.spec is None and self.ranges is None
        if self.structure.complexity == BILINEAR or pair == (1, 1) or no_network_nor_data:
            return Advice(steps, is_advised=False, is_free=False)
        least, last = self.bounds()
        low, high = least, last
        if self.ranges is not None:
            low = np.maximum(low, np.ceil(self.ranges[0]))
            high = np.minimum(high, np.floor(self.ranges[1]))
        fitted = Fitted(
            steps,
            tuple(low.tolist()),
            tuple(np.maximum(low, high).tolist()),
            tuple(least.tolist()),
            tuple(last.tolist()),
            pair,
            tuple(tuple(found.tolist()) for found in (self.rates, *self.fold_rates)),
        )
        return advice_of(self.table, fitted)

    def round_widths(self, widths: ArrayLike) -> np.ndarray:
        """Return the widths rounded up to what the device likes, int64 of the same shape (..., k).

        Raises:
            InputError: The last dimension is not k.
        """
        values = np.asarray(widths, dtype=np.float64)
        if values.ndim == 0 or values.shape[-1] != len(self.names):
            raise InputError(
                f"widths have shape {values.shape}; the last dimension must be "
                f"{len(self.names)} ({', '.join(self.names)})"
            )
        return round_up(values, self.advice().multiples, *self.bounds()).astype(np.int64)

    def steps(self) -> tuple[int, ...]:
        """Return the multiple that each width has by its network, 1 without one."""
        if self.spec is None:
            return (1,) * len(self.names)
        return tuple(width.multiple for width in self.spec.widths)

    def bounds(self) -> tuple[FloatArray, FloatArray]:
        """Return the smallest and largest allowed widths, (k,) each; 0 and infinity without a spec."""
        if self.spec is None:
            return np.zeros(len(self.names)), np.full(len(self.names), np.inf)
        low, high = self.spec.min_widths, self.spec.max_widths
        return np.array(low, dtype=np.float64), np.array(high, dtype=np.float64)

    def random_widths(self) -> FloatArray:
        """Return the bounds and random widths within them, shape (2 + 500, k), in channels."""
        if self.spec is not None:
            low, high = np.array(self.spec.min_widths), np.array(self.spec.max_widths)
            steps = np.array([width.multiple for width in self.spec.widths])
        elif self.ranges is not None:
            low, high = np.ceil(self.ranges[0]), np.floor(self.ranges[1])
            high, steps = np.maximum(low, high), np.ones(len(low))
        else:
            raise InputError("the predictor has neither a spec nor data, so no range of widths")
        rng = np.random.default_rng(0)
        draws = rng.integers(low // steps, high // steps, (NUM_DRAWS, len(low)), endpoint=True)
        return np.vstack([low, high, draws * steps]).astype(np.float64)

"""How tables of layers are found in costs of whole variants and of single layers."""

from __future__ import annotations

import numpy as np

from ..aligned.fit import scale_of
from ..base.intervals import FOLDS, FloatArray, assign_folds
from .layerwise_fit import Source
from .lookup_grid import LookupGrid, curvature

PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
# Entries shrink towards the layers' trend by this share of the penalty on curvature.
_SHRINKAGE = 0.1
# Rounds of setting entries to zero that would be negative.
_ROUNDS = 8


class TableFit:
    """Least squares of relative errors over the tables' deviations from the layers' trend.

    Unknowns are deviations divided by what their layer costs on average. There are more of them
    than measurements, and each table is penalised by itself, so that the system has a row per
    measurement: with columns C, weights W and penalty P, f = P^-1 C' (C P^-1 C' + penalty W^-1)^-1 r.

    Args:
        grid: The tables.
        rates: The trend.
        source: What was measured.
    """

    def __init__(self, grid: LookupGrid, rates: FloatArray, source: Source) -> None:
        self.grid = grid
        self.cells = grid.knots**2
        self.num_blocks = len(grid.tables) * len(grid.regimes)
        self.constant, self.trend = grid.tables_of(rates)
        products = grid.products(source.X)
        shares = source.weights / source.weights.sum()
        costs = np.abs(np.einsum("n,nlc,lc->l", shares, products, self.trend))
        typical = float(shares @ np.abs(source.cost)) or 1.0
        self.unit = np.maximum(costs, 1e-3 * typical)
        scale = scale_of(source.cost, source.weights)
        residual = source.cost - self.constant - np.einsum("nlc,lc->n", products, self.trend)
        self.columns = self._columns(products) / scale[:, None, None]
        self.residual, self.weights = residual / scale, shares
        self.folds, self.distinct = assign_folds(source.X, FOLDS)
        self.num_whole = len(source.X)
        if source.profiles is not None:
            self._add_parts(source)
        shrunk = curvature(grid.knots) + _SHRINKAGE * np.eye(self.cells)
        self.penalty: FloatArray = shrunk / len(grid.tables)

    def _columns(self, products: FloatArray) -> FloatArray:
        scaled = products * self.unit[None, :, None]
        return np.asarray(scaled.reshape(len(products), self.num_blocks, self.cells))

    def _add_parts(self, source: Source) -> None:
        if source.profiles is None:
            return
        products, variants, shares = self.grid.part_products(source.profiles)
        cost = source.profile_costs()[variants] * shares
        trend = np.einsum("nlc,lc->n", products, self.trend)
        columns = self._columns(products) / cost[:, None, None]
        self.columns = np.concatenate([self.columns, columns])
        self.residual = np.concatenate([self.residual, (cost - trend) / cost])
        self.weights = np.concatenate([self.weights, shares / shares.sum()])
        # Parts of a variant share its fold.
        known = {tuple(row): fold for row, fold in zip(source.X.tolist(), self.folds, strict=True)}
        by_variant = np.array([known.get(v.widths, -1) for v in source.profiles.variants])
        self.folds = np.concatenate([self.folds, by_variant[variants]])

    def best_penalty(self) -> float:
        """Return the penalty that predicts held-out variants best."""
        if self.distinct < 2:
            return PENALTIES[-1]
        spread = self._products(self.columns @ np.linalg.inv(self.penalty))
        errors = np.zeros(len(PENALTIES))
        for fold in range(int(self.folds.max()) + 1):
            rest = self.folds != fold
            whole = np.flatnonzero(~rest[: self.num_whole])
            own, across = spread[np.ix_(rest, rest)], spread[np.ix_(whole, rest)]
            for place, penalty in enumerate(PENALTIES):
                system = own + np.diag(penalty / self.weights[rest])
                predicted = across @ np.linalg.solve(system, self.residual[rest])
                missed = np.minimum(np.abs(self.residual[whole] - predicted), 1.0)
                errors[place] += float(self.weights[whole] @ missed)
        return PENALTIES[int(np.argmin(errors))]

    def solve(self, penalty: float) -> FloatArray:
        """Return the tables, shape (tables, regimes, knots, knots), >= 0."""
        trend = self.trend.reshape(self.num_blocks, self.cells)
        unit = np.repeat(self.unit, len(self.grid.regimes))[:, None]
        lowest = -trend / unit
        is_fixed = np.zeros(lowest.shape, dtype=bool)
        found = np.zeros(lowest.shape)
        for _ in range(_ROUNDS):
            found = self._solve_free(penalty, is_fixed, lowest)
            below = found < lowest - 1e-12
            if not below.any():
                break
            is_fixed |= below
        grid = self.grid
        shape = (len(grid.tables), len(grid.regimes), grid.knots, grid.knots)
        return np.asarray(np.maximum(trend + unit * found, 0.0)).reshape(shape)

    def _solve_free(self, penalty: float, is_fixed: np.ndarray, lowest: FloatArray) -> FloatArray:
        """Return the best deviations (blocks, cells) with the fixed ones at their lowest."""
        held = np.where(is_fixed, lowest, 0.0)
        is_free = ~is_fixed
        # Of the penalty on the free entries alone; rows and columns of fixed ones are zero.
        both = is_free[:, :, None] & is_free[:, None, :]
        kept = np.where(both, self.penalty, np.eye(self.cells))
        inverse = np.where(both, np.linalg.inv(kept), 0.0)
        # Where the penalty alone would put the free entries beside the fixed ones.
        start = held - np.einsum("bij,bj->bi", inverse, held @ self.penalty)
        residual = self.residual - np.einsum("nbc,bc->n", self.columns, start)
        spread = np.einsum("nbi,bij->nbj", self.columns, inverse, optimize=True)
        system = self._products(spread) + np.diag(penalty / self.weights)
        dual = np.linalg.solve(system, residual)
        return np.asarray(start + np.einsum("n,nbj->bj", dual, spread))

    def _products(self, spread: FloatArray) -> FloatArray:
        """Return C times the transposed columns (n, n), of spread columns (n, blocks, cells)."""
        rows = len(spread)
        return np.asarray(spread.reshape(rows, -1) @ self.columns.reshape(rows, -1).T)

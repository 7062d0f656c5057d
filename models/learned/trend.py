"""The part of a cost that is known before anything is learned: a sum with coefficients >= 0.

What learns freely (the Gaussian process, networks of neurons) learns the logarithm of the cost over
this trend, so that few measurements are enough and it never strays far.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import nnls
from sklearn.linear_model import RidgeCV

from joulemap import InputError

from ...datasets import NetworkSpec
from ..aligned.predictor import AlignedBilinearPredictor
from ..aligned.structure import Structure
from ..base.cost_module import CostModule
from ..base.files.findings import Findings
from ..base.intervals import FloatArray, assign_folds
from ..base.training import Training

# Up to so many columns the sum also has their products.
MAX_PRODUCT_COLUMNS = 4
NO_MEAN, COLUMNS, PRODUCTS, ALIGNED = KINDS = ("none", "columns", "products", "aligned")
_SMALLEST = 1e-300


@dataclass(frozen=True)
class TrendForm:
    """Which trend it is.

    Attributes:
        kind: NO_MEAN, COLUMNS, PRODUCTS or ALIGNED.
        structure: The aligned model's structure; None where it is another.
    """

    kind: str = NO_MEAN
    structure: Structure | None = None

    @classmethod
    def from_findings(cls, read: Findings) -> TrendForm:
        """Return the form that a file holds.

        Raises:
            InputError: It is none.
        """
        kind, part = read.choice("kind", KINDS), read.optional_part("structure")
        read.end()
        if part is None:
            structure = None
        else:
            structure = Structure.from_findings(part)
            part.end()
        if (kind == ALIGNED) != (structure is not None):
            raise InputError("its trend has a structure, or lacks one, that does not fit its kind")
        return cls(kind, structure)

    @classmethod
    def from_numbers(cls, numbers: FloatArray) -> TrendForm:
        """Return the form that a file before version 2 holds as numbers: a kind, a structure.

        Raises:
            InputError: They are none.
        """
        values = np.asarray(numbers, dtype=np.float64)
        kind = float(values[0]) if values.ndim == 1 and values.size else -1.0
        if kind not in range(len(KINDS)) or len(values) != (5 if kind == 3 else 1):
            raise InputError(f"its trend is {values}, which is no known part")
        if kind < 3:
            return cls(KINDS[int(kind)])
        return cls(ALIGNED, Structure.from_numbers(values[1:4], "its trend's structure"))

    def to_findings(self) -> dict[str, Any]:
        """Return what files hold of it."""
        structure = None if self.structure is None else self.structure.to_findings()
        return {"kind": self.kind, "structure": structure}


@dataclass(frozen=True)
class Trend:
    """The aligned model where there is a spec, else a sum of columns, of their products, or 1.

    Attributes:
        spec: The network; None takes the columns of X as they are.
        names: Names of the m columns.
        form: Which of them it is.
        coef: Coefficients, >= 0.
    """

    spec: NetworkSpec | None
    names: tuple[str, ...]
    form: TrendForm
    coef: FloatArray

    @classmethod
    def fit(
        cls,
        spec: NetworkSpec | None,
        names: tuple[str, ...],
        X: FloatArray,
        y: FloatArray,
        weights: FloatArray,
    ) -> Trend:
        """Return the trend of some costs; 1 where they are not all positive or are too few.

        Without a spec a sum of columns, where it predicts held-out rows better than a line in the
        columns' logarithms.

        Args:
            spec: The network, or None.
            names: Names of X's columns.
            X: Columns, shape (n, m).
            y: Cost, shape (n,).
            weights: Of squared relative errors, shape (n,), positive.
        """
        nothing = cls(spec, names, TrendForm(), np.zeros(0))
        if np.any(y <= 0):
            return nothing
        if spec is not None:
            aligned = nothing.aligned()
            if len(np.unique(X, axis=0)) < aligned.num_needed(X.shape[1]):
                return nothing
            aligned.fit_arrays(Training(X, y, weights))
            return cls(spec, names, TrendForm(ALIGNED, aligned.structure_), aligned.coef_)
        kind = _best_sum(X, y, weights)
        if kind == NO_MEAN:
            return nothing
        coef = _fit_sum(_summands(torch.tensor(X), kind).numpy(), y, weights)
        return cls(spec, names, TrendForm(kind), coef)

    @property
    def kind(self) -> str:
        """Which trend it is: NO_MEAN, COLUMNS, PRODUCTS or ALIGNED."""
        return self.form.kind

    def aligned(self) -> AlignedBilinearPredictor:
        """Return the aligned model, unfitted where the trend is another."""
        aligned = AlignedBilinearPredictor(self.spec)
        aligned.bind(self.names, unit="", target="cost")
        if self.form.structure is not None:
            aligned.coef_, aligned.structure_ = self.coef, self.form.structure
            aligned.candidates_, aligned.sampled_multiple_ = (), 1
        return aligned

    def at(self, X: FloatArray) -> FloatArray:
        """Return the trend, shape (n,), positive, of columns (n, m)."""
        if self.kind == NO_MEAN:
            return np.ones(len(X))
        if self.kind == ALIGNED:
            known = self.aligned().predict_arrays(X)
        else:
            known = _summands(torch.tensor(X), self.kind).numpy() @ self.coef
        return np.maximum(known, np.finfo(float).tiny, dtype=np.float64)

    def module(self, *, is_smooth: bool = False) -> TrendModule:
        """Return the trend as a torch module.

        Args:
            is_smooth: Whether to take the aligned model's surrogate for optimisers.
        """
        if self.kind != ALIGNED:
            return TrendModule(self.kind, self.coef, None)
        aligned = self.aligned()
        cost = aligned.smooth_module() if is_smooth else aligned.exact_module()
        return TrendModule(self.kind, self.coef, cost)

    def check(self) -> None:
        """Check what came from a file.

        Raises:
            InputError: It does not fit together.
        """
        if self.kind == ALIGNED:
            if self.spec is None:
                raise InputError("its trend is the aligned model, and it has no network")
            self.aligned().check_state()
            return
        one = torch.ones(1, len(self.names), dtype=torch.float64)
        expected = (_summands(one, self.kind).shape[-1] if self.kind != NO_MEAN else 0,)
        if np.shape(self.coef) != expected:
            raise InputError(f"its trend has coefficients {np.shape(self.coef)}, not {expected}")


class TrendModule(torch.nn.Module):
    """The trend as a torch module: columns (..., m) -> (...), positive.

    Args:
        kind: Which trend it is.
        coef: Its coefficients.
        cost: The aligned model's module, where it is that.
    """

    coef: torch.Tensor

    def __init__(self, kind: str, coef: FloatArray, cost: CostModule | None) -> None:
        super().__init__()
        self.kind, self.aligned = kind, cost
        self.register_buffer("coef", torch.tensor(coef, dtype=torch.float64))

    def forward(self, widths: torch.Tensor) -> torch.Tensor:
        """Return the trend (...) of columns (..., m), both in the buffers' dtype."""
        if self.aligned is not None:
            return self.aligned.cost(widths).clamp(min=_SMALLEST)
        if self.kind == NO_MEAN:
            return torch.ones_like(widths[..., 0])
        return (_summands(widths, self.kind) @ self.coef).clamp(min=_SMALLEST)


def _summands(X: torch.Tensor, kind: str) -> torch.Tensor:
    """Return 1, the columns, and for PRODUCTS their products in pairs, shape (..., p)."""
    columns = [torch.ones_like(X[..., :1]), X]
    if kind == PRODUCTS:
        number = X.shape[-1]
        pairs = [(i, j) for i in range(number) for j in range(i + 1, number)]
        columns += [X[..., i : i + 1] * X[..., j : j + 1] for i, j in pairs]
    return torch.cat(columns, dim=-1)


def _fit_sum(summands: FloatArray, y: FloatArray, weights: FloatArray) -> FloatArray:
    """Return coefficients >= 0, shape (p,), of least squared relative errors."""
    design = summands / y[:, None] * np.sqrt(weights)[:, None]
    norms = np.linalg.norm(design, axis=0)
    norms[norms == 0] = 1.0
    solution, _ = nnls(design / norms, np.sqrt(weights), maxiter=30 * design.shape[1])
    coefficients: FloatArray = solution / norms
    return coefficients


def _best_sum(X: FloatArray, y: FloatArray, weights: FloatArray) -> str:
    """Return which sum of columns predicts held-out rows better than a line in logarithms."""
    if np.any(X < 0):
        return NO_MEAN
    folds, num_distinct = assign_folds(X, 5)
    if num_distinct < 3:
        return NO_MEAN
    kinds = [COLUMNS] + [PRODUCTS] * (2 <= X.shape[1] <= MAX_PRODUCT_COLUMNS)
    positive = np.all(X > 0, axis=0)
    logs = np.where(positive, np.log(np.where(positive, X, 1.0)), X)
    logs = (logs - logs.mean(axis=0)) / np.maximum(logs.std(axis=0), 1e-12)
    summands = {kind: _summands(torch.tensor(X), kind).numpy() for kind in kinds}
    errors = dict.fromkeys([NO_MEAN, *kinds], 0.0)
    for fold in range(int(folds.max()) + 1):
        test = folds == fold
        line = RidgeCV(np.logspace(-3, 3, 13)).fit(logs[~test], np.log(y[~test]), weights[~test])
        errors[NO_MEAN] += float(np.sum(np.abs(line.predict(logs[test]) - np.log(y[test]))))
        for kind, columns in summands.items():
            try:
                coefficients = _fit_sum(columns[~test], y[~test], weights[~test])
            except RuntimeError:
                errors[kind] = math.inf
                continue
            predicted = np.maximum(columns[test] @ coefficients, np.finfo(float).tiny)
            errors[kind] += float(np.sum(np.abs(np.log(predicted / y[test]))))
    return min(errors, key=lambda kind: errors[kind])

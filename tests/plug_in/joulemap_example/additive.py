"""A model in which every width costs its share, whatever its neighbours are."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from joulemap.datasets import NetworkSpec
from joulemap.models import CostModule, Predictor, Training


class AdditiveModule(CostModule):
    """The cost of widths as a weighted sum."""

    def __init__(self, predictor: AdditivePredictor) -> None:
        super().__init__(predictor.cost_info())
        self.intercept: torch.Tensor
        self.coefficients: torch.Tensor
        self.register_buffer("intercept", torch.tensor(predictor.intercept_, dtype=torch.float64))
        self.register_buffer(
            "coefficients", torch.as_tensor(predictor.coef_, dtype=torch.float64).clone()
        )

    def cost(self, widths: torch.Tensor) -> torch.Tensor:
        return self.intercept + (widths * self.coefficients).sum(-1)


class AdditivePredictor(Predictor):
    """The cost as a_0 + sum_j a_j x_j.

    Args:
        spec: The network.
        ridge: Penalty on the coefficients, relative to normalised widths.
    """

    state_names = ("intercept_", "coef_")

    intercept_: float
    coef_: NDArray[np.float64]

    def __init__(self, spec: NetworkSpec | None = None, *, ridge: float = 1e-9) -> None:
        super().__init__(spec)
        self.ridge = ridge

    def fit_arrays(self, training: Training) -> None:
        X, y, weights = training.X, training.y, training.weights
        center, mean = np.average(X, axis=0, weights=weights), np.average(y, weights=weights)
        scale = np.maximum(X.std(axis=0), 1.0)
        design = (X - center) / scale * np.sqrt(weights)[:, None]
        gram = design.T @ design + self.ridge * weights.sum() * np.eye(X.shape[1])
        solution = np.linalg.solve(gram, design.T @ ((y - mean) * np.sqrt(weights)))
        self.coef_ = solution / scale
        self.intercept_ = float(mean - center @ self.coef_)

    def predict_arrays(self, X: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(self.intercept_ + X @ self.coef_)

    def exact_module(self) -> CostModule:
        return AdditiveModule(self)

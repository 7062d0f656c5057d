"""Predictors that are linear in features which are polynomials in the widths."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Literal

import numpy as np
from scipy.optimize import nnls

from joulemap import InputError

from ..base.cost_module import CostModule
from ..base.intervals import FloatArray
from ..base.polynomial import Polynomial, PolynomialCostModule
from ..base.predictor import Predictor
from ..base.training import Training


def fit_nonnegative(
    features: FloatArray, y: FloatArray, weights: FloatArray
) -> tuple[float, FloatArray]:
    """Return the intercept and coefficients, all >= 0, of the weighted least-squares fit.

    Minimises sum_i w_i (y_i - a_0 - sum_j a_j f_ij)^2 over a >= 0, independent of the scales of y,
    of the weights and of the features.

    Args:
        features: Shape (n, p).
        y: Shape (n,).
        weights: Shape (n,), positive.

    Returns:
        The intercept in y's unit, and the coefficients, shape (p,).

    Raises:
        InputError: The solver does not converge.
    """
    root = np.sqrt(weights / weights.mean())
    design = np.column_stack([np.ones(len(y)), features]) * root[:, None]
    scales = _nonzero(np.linalg.norm(design, axis=0))
    y_scale = _nonzero(np.abs(y).max())
    try:
        solution, _ = nnls(design / scales, y / y_scale * root)
    except RuntimeError as error:
        raise InputError(f"the non-negative fit did not converge: {error}") from error
    coefficients = solution * y_scale / scales
    return float(coefficients[0]), coefficients[1:]


def fit_ridge(
    features: FloatArray, y: FloatArray, weights: FloatArray, ridge: float
) -> tuple[float, FloatArray]:
    """Return the intercept and coefficients of the weighted ridge regression.

    Minimises sum_i w_i (y_i - a_0 - sum_j a_j f_ij)^2 / sum_i w_i + ridge * sum_j a_j^2; the
    intercept is not penalised.

    Args:
        features: Shape (n, p).
        y: Shape (n,).
        weights: Shape (n,), positive.
        ridge: The penalty, >= 0.

    Returns:
        The intercept in y's unit, and the coefficients, shape (p,).
    """
    shares = weights / weights.sum()
    feature_mean, y_mean = shares @ features, float(shares @ y)
    root = np.sqrt(shares)
    design = np.vstack(
        [(features - feature_mean) * root[:, None], np.sqrt(ridge) * np.eye(features.shape[1])]
    )
    aim = np.concatenate([(y - y_mean) * root, np.zeros(features.shape[1])])
    coefficients: FloatArray = np.linalg.lstsq(design, aim)[0]
    return y_mean - float(feature_mean @ coefficients), coefficients


def check_loss(loss: object) -> None:
    """Check the hyperparameter `loss`, and raise InputError where it is not usable."""
    if loss not in ("absolute", "relative"):
        raise InputError(f"loss is {loss!r}; write 'absolute' or 'relative'")


def loss_weights(
    loss: Literal["absolute", "relative"], y: FloatArray, weights: FloatArray
) -> FloatArray:
    """Return the weights (n,) that make least squares minimise the loss.

    Args:
        loss: 'absolute' for squared errors, 'relative' for squared errors divided by y.
        y: Shape (n,).
        weights: Shape (n,), positive.

    Raises:
        InputError: A cost that is not positive, for 'relative'.
    """
    if loss == "absolute":
        return weights
    if np.any(y <= 0):
        raise InputError(
            f"loss='relative' needs positive costs; y has {float(y.min())}. Write "
            "loss='absolute' or leave such rows out"
        )
    relative: FloatArray = weights / (y / y.max()) ** 2
    return relative


def relative_weights(scale: FloatArray, weights: FloatArray) -> FloatArray:
    """Return the weights (n,) of squared relative errors, mean 1, from those of absolute ones.

    Equal weights are what a dataset gives whose variances are not known; errors are then taken to
    be the same share of every cost.

    Args:
        scale: What errors are relative to, shape (n,).
        weights: 1 / variance up to a factor, shape (n,).
    """
    if np.ptp(weights) == 0:
        return np.ones_like(weights)
    relative = weights * scale**2
    return np.asarray(relative / relative.mean())


class PolynomialPredictor(Predictor):
    """A predictor cost = a_0 + sum_j a_j f_j(widths) whose features are polynomials.

    Subclasses define `features` and `solve`.
    """

    state_names: ClassVar[tuple[str, ...]] = ("coef_", "intercept_", "upper_bounds_")

    loss: Literal["absolute", "relative"]
    coef_: FloatArray
    intercept_: float
    upper_bounds_: FloatArray

    @abstractmethod
    def features(self) -> list[Polynomial]:
        """Return the p features as polynomials in `width_names_`, without the constant."""

    @abstractmethod
    def solve(
        self, features: FloatArray, y: FloatArray, weights: FloatArray
    ) -> tuple[float, FloatArray]:
        """Return the intercept and the coefficients (p,) of features (n, p), weights (n,)."""

    def fit_arrays(self, training: Training) -> None:
        """Set the coefficients from checked arrays."""
        X, y, weights = training.X, training.y, training.weights
        if self.spec is not None:
            self.upper_bounds_ = np.array(self.spec.max_widths, dtype=np.float64)
        else:
            self.upper_bounds_ = _nonzero(np.abs(X).max(axis=0))
        weights = loss_weights(self.loss, y, weights)
        self.intercept_, self.coef_ = self.solve(self._feature_matrix(X), y, weights)

    def predict_arrays(self, X: FloatArray) -> FloatArray:
        """Return the cost, shape (n,), of checked widths (n, k)."""
        return self.intercept_ + self._feature_matrix(X) @ self.coef_

    def exact_module(self) -> CostModule:
        """Return the polynomial as a torch module."""
        total = Polynomial.constant(self.intercept_)
        for coefficient, feature in zip(self.coef_, self.features(), strict=True):
            total = total + feature * float(coefficient)
        return PolynomialCostModule(total, self.cost_info())

    def check_parameters(self) -> None:
        """Check the hyperparameters.

        Raises:
            InputError: One of them is not usable.
        """
        check_loss(self.loss)

    def check_state(self) -> None:
        """Check the fitted arrays against the spec and the hyperparameters.

        Raises:
            InputError: Wrong shapes.
        """
        if np.any(self.upper_bounds_ <= 0):
            raise InputError("upper_bounds_ contains a bound that is not positive")
        if self.spec is not None and not np.array_equal(self.upper_bounds_, self.spec.max_widths):
            raise InputError(f"upper_bounds_ are not the bounds of {self.spec.name}")
        expected = {
            "upper_bounds_": (self.n_features_in_,),
            "intercept_": (),
            "coef_": (len(self.features()),),
        }
        for name, shape in expected.items():
            if np.shape(getattr(self, name)) != shape:
                raise InputError(
                    f"{name} has shape {np.shape(getattr(self, name))}, this predictor needs "
                    f"{shape}"
                )

    def _feature_matrix(self, X: FloatArray) -> FloatArray:
        columns = dict(zip(self.width_names_, X.T, strict=True))
        values = [np.broadcast_to(feature.at(columns), len(X)) for feature in self.features()]
        return np.column_stack(values)


def _nonzero(scale: Any) -> Any:
    return np.where(scale > 0, scale, 1.0)

"""The bilinear predictor of ECC: products of neighbouring widths."""

from __future__ import annotations

from itertools import pairwise
from math import ceil
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from joulemap import InputError

from ...datasets import NetworkSpec
from ..base.intervals import FloatArray
from ..base.polynomial import Polynomial
from .predictor import PolynomialPredictor, fit_nonnegative, fit_ridge


class BilinearPredictor(PolynomialPredictor):
    """The cost as a_0 + sum_j a_j (x_{j-1} / u_{j-1}) (x_j / u_j), j = 1 .. k + 1.

    x_1 .. x_k are the widths in the spec's order and u their upper bounds. x_0, the input
    channels, and x_{k+1}, the outputs of the last layer, are fixed ends with x = u, so the first
    and the last feature are linear. (Where the last layer's outputs depend on a width there is no
    fixed end, and k features.) `intercept_` is a_0, `coef_` a_1 .. a_{k+1}, both in the unit of
    y: the cost of each product in the unpruned network.

    Source: Yang, Zhu, Liu, "ECC: Platform-Independent Energy-Constrained Deep Neural Network
    Compression via a Bilinear Regression Model", CVPR 2019.

    Args:
        spec: The network; None takes the largest value in each column of X as upper bound.
        method: 'nonnegative' fits with all a >= 0 (then the cost grows with every width),
            'ridge' without.
        ridge: Penalty on a_1 .. of method 'ridge', relative to normalised features.
        loss: 'absolute' minimises squared errors, 'relative' squared errors divided by y.
    """

    def __init__(
        self,
        spec: NetworkSpec | None = None,
        *,
        method: Literal["nonnegative", "ridge"] = "nonnegative",
        ridge: float = 1e-6,
        loss: Literal["absolute", "relative"] = "absolute",
    ) -> None:
        super().__init__(spec)
        self.method = method
        self.ridge = ridge
        self.loss = loss

    @classmethod
    def from_coefficients(
        cls,
        spec: NetworkSpec,
        coefficients: ArrayLike,
        intercept: float,
        *,
        unit: str = "J",
        target: str = "energy_j",
    ) -> BilinearPredictor:
        """Return a fitted predictor with the given coefficients; it has no intervals.

        Args:
            spec: The network, with k widths.
            coefficients: a_1 .. a_{k+1} for normalised widths, in `unit`, shape (k + 1,).
            intercept: a_0 in `unit`.
            unit: Unit of the cost.
            target: Name of the cost.

        Raises:
            InputError: Wrong number of coefficients, NaN or infinity.
        """
        try:
            values = np.array(coefficients, dtype=np.float64)
            offset = float(intercept)
        except (TypeError, ValueError) as error:
            raise InputError(f"coefficients and intercept are numbers: {error}") from error
        if not (np.all(np.isfinite(values)) and np.isfinite(offset)):
            raise InputError("coefficients and intercept contain NaN or infinity")
        is_nonnegative = offset >= 0 and bool(np.all(values >= 0))
        predictor = cls(spec, method="nonnegative" if is_nonnegative else "ridge")
        predictor.bind(spec.width_names, unit=unit, target=target)
        predictor.upper_bounds_ = np.array(spec.max_widths, dtype=np.float64)
        predictor.coef_, predictor.intercept_ = values, offset
        predictor.check_state()
        return predictor

    def features(self) -> list[Polynomial]:
        """Return the products of neighbouring normalised widths, in the order of `coef_`."""
        one = Polynomial.constant(1.0)
        ends = [one] if self.has_fixed_end() else []
        scaled = [
            Polynomial({(name,): 1.0 / upper})
            for name, upper in zip(self.width_names_, self.upper_bounds_, strict=True)
        ]
        chain = [one, *scaled, *ends]
        return [left * right for left, right in pairwise(chain)]

    def solve(
        self, features: FloatArray, y: FloatArray, weights: FloatArray
    ) -> tuple[float, FloatArray]:
        """Return a_0 and a_1 .. by the chosen method."""
        if self.method == "nonnegative":
            return fit_nonnegative(features, y, weights)
        return fit_ridge(features, y, weights, self.ridge)

    def num_needed(self, num_widths: int) -> int:
        """Return the least number of different rows: half the number of coefficients.

        Non-negativity or the penalty decides the rest; below that the fit means nothing. Without
        a spec two, as for any scikit-learn regressor.
        """
        return 2 if self.spec is None else max(2, ceil((num_widths + 2) / 2))

    def check_parameters(self) -> None:
        """Check the hyperparameters.

        Raises:
            InputError: Unknown method or loss, or a penalty that is no number >= 0.
        """
        super().check_parameters()
        if self.method not in ("nonnegative", "ridge"):
            raise InputError(f"method is {self.method!r}; write 'nonnegative' or 'ridge'")
        if isinstance(self.ridge, bool) or not isinstance(self.ridge, int | float):
            raise InputError(f"ridge is {self.ridge!r}, not a number")
        if not (np.isfinite(self.ridge) and self.ridge >= 0):
            raise InputError(f"ridge is {self.ridge}, not a finite number >= 0")

    def has_fixed_end(self) -> bool:
        """Return whether the chain of widths ends in a constant: the last layer's outputs."""
        return self.spec is None or self.spec.layers[-1].out_channels.is_constant

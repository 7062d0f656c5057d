"""Baselines: the cost as a straight line over multiply-accumulates or over parameters."""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar, Literal

from ...datasets import NetworkSpec
from ..base.intervals import FloatArray
from ..base.polynomial import Polynomial, network_quantity
from .predictor import PolynomialPredictor, fit_nonnegative


class QuantityPredictor(PolynomialPredictor):
    """The cost as a_0 + a_1 * quantity with a_0, a_1 >= 0; subclasses name the quantity.

    Args:
        spec: The network; None for a chain of dense layers whose hidden widths are the columns
            of X, between one input and one output.
        loss: 'absolute' minimises squared errors, 'relative' squared errors divided by y.
    """

    quantity: ClassVar[str]

    def __init__(
        self,
        spec: NetworkSpec | None = None,
        *,
        loss: Literal["absolute", "relative"] = "absolute",
    ) -> None:
        super().__init__(spec)
        self.loss = loss

    def features(self) -> list[Polynomial]:
        """Return the quantity of one sample as the only feature."""
        if self.spec is not None:
            return [network_quantity(self.spec, self.quantity)]
        return [_chain_quantity(self.width_names_, self.quantity)]

    def solve(
        self, features: FloatArray, y: FloatArray, weights: FloatArray
    ) -> tuple[float, FloatArray]:
        """Return a_0 and [a_1], both >= 0."""
        return fit_nonnegative(features, y, weights)

    def num_needed(self, num_widths: int) -> int:
        """Return the least number of different rows: two points make a line."""
        return 2


class FlopsPredictor(QuantityPredictor):
    """The cost as a_0 + a_1 * MACs with a_0, a_1 >= 0; `coef_` is the cost of one MAC.

    MACs are the multiply-accumulates of one sample.

    Args:
        spec: The network; None for a chain of dense layers whose hidden widths are the columns
            of X, between one input and one output.
        loss: 'absolute' minimises squared errors, 'relative' squared errors divided by y.
    """

    quantity = "macs"


class ParametersPredictor(QuantityPredictor):
    """The cost as a_0 + a_1 * parameters with a_0, a_1 >= 0; `coef_` is the cost of one.

    Args:
        spec: The network; None for a chain of dense layers whose hidden widths are the columns
            of X, between one input and one output.
        loss: 'absolute' minimises squared errors, 'relative' squared errors divided by y.
    """

    quantity = "params"


def _chain_quantity(names: tuple[str, ...], quantity: str) -> Polynomial:
    one = Polynomial.constant(1.0)
    sizes = [one, *(Polynomial.variable(name) for name in names), one]
    total = Polynomial({})
    for inputs, outputs in pairwise(sizes):
        total = total + inputs * outputs
        if quantity == "params":
            total = total + outputs
    return total

"""Costs that are polynomials in the widths, as data and as torch modules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import torch

from joulemap import InputError

from ...datasets import NetworkSpec
from .cost_module import CostInfo, CostModule

Monomial: TypeAlias = tuple[str, ...]


class Polynomial:
    """A polynomial in width names with real coefficients.

    Args:
        terms: Coefficient of each monomial; a monomial is the sorted tuple of its names, () the
            constant.
    """

    __slots__ = ("terms",)

    terms: Mapping[Monomial, float]

    def __init__(self, terms: Mapping[Monomial, float]) -> None:
        self.terms = {name: value for name, value in sorted(terms.items()) if value}

    @classmethod
    def variable(cls, name: str) -> Polynomial:
        """Return the polynomial that is one width."""
        return cls({(name,): 1.0})

    @classmethod
    def constant(cls, value: float) -> Polynomial:
        """Return the polynomial that does not depend on any width."""
        return cls({(): float(value)})

    def at(self, widths: Mapping[str, Any]) -> Any:
        """Return the value at the given widths.

        Args:
            widths: Width name to value: numbers, or numpy arrays of one `batch_shape`.

        Returns:
            A value of the same kind, `batch_shape`.
        """
        total: Any = 0.0
        for monomial, coefficient in self.terms.items():
            value: Any = coefficient
            for name in monomial:
                value = value * widths[name]
            total = total + value
        return total

    def __add__(self, other: Polynomial | float) -> Polynomial:
        total = dict(self.terms)
        for monomial, value in _polynomial(other).terms.items():
            total[monomial] = total.get(monomial, 0.0) + value
        return Polynomial(total)

    def __mul__(self, other: Polynomial | float) -> Polynomial:
        product: dict[Monomial, float] = {}
        for first, a in self.terms.items():
            for second, b in _polynomial(other).terms.items():
                monomial = tuple(sorted(first + second))
                product[monomial] = product.get(monomial, 0.0) + a * b
        return Polynomial(product)

    def __truediv__(self, other: Polynomial | float) -> Polynomial:
        divisor = _polynomial(other)
        lead, scale = max(divisor.terms.items(), key=_order, default=((), 0.0))
        rest, quotient = self, Polynomial({})
        while rest.terms and scale:
            monomial, value = max(rest.terms.items(), key=_order)
            left = _without(monomial, lead)
            if left is None:
                break
            step = Polynomial({left: value / scale})
            quotient += step
            rest = rest + step * divisor * -1.0
            # The leading term is gone but for rounding.
            rest = Polynomial({key: a for key, a in rest.terms.items() if key != monomial})
        if rest.terms or not scale:
            raise InputError(f"{self!r} is not a multiple of {divisor!r}")
        return quotient

    __radd__ = __add__
    __rmul__ = __mul__

    def __rtruediv__(self, other: float) -> Polynomial:
        return Polynomial.constant(other) / self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Polynomial) and self.terms == other.terms

    def __hash__(self) -> int:
        return hash(tuple(self.terms.items()))

    def __repr__(self) -> str:
        return " + ".join(
            "*".join([f"{value:g}", *monomial]) for monomial, value in self.terms.items()
        )


def network_quantity(spec: NetworkSpec, quantity: str) -> Polynomial:
    """Return a network's `macs` (multiply-accumulates) or `params` (a count) for one sample.

    Equals `spec.at(widths).macs` or `.params` at integer widths, as a polynomial in the widths.

    Args:
        spec: The network.
        quantity: 'macs' or 'params'.

    Raises:
        InputError: A layer's groups do not divide its channels as a polynomial.
    """
    values = {name: Polynomial.variable(name) for name in spec.width_names}
    total = Polynomial({})
    for layer in spec.layers:
        try:
            total = total + getattr(layer.at(values), quantity)
        except InputError as error:
            raise InputError(
                f"groups of layer '{layer.name}' of {spec.name} do not divide its channels at "
                f"every width, so its {quantity} are no polynomial: {error}"
            ) from error
    return total


class PolynomialCostModule(CostModule):
    """A polynomial in the widths as a torch module: widths (..., k) in channels -> cost (...).

    Sum of `offset`, `linear` . x, `neighbours` . (x_1 x_2, x_2 x_3, ..), x^T `quadratic` x for
    other pairs, and `higher` . (products of three widths and more). Neighbours apart, since
    slices are faster than a matrix product and most of a bilinear model.

    Args:
        polynomial: The cost in `info.unit`.
        info: What the module predicts.
    """

    # Float64 buffers; those without terms are None, which costs no operation.
    offset: torch.Tensor
    linear: torch.Tensor
    neighbours: torch.Tensor | None
    quadratic: torch.Tensor | None
    higher: torch.Tensor | None
    higher_index: torch.Tensor | None

    def __init__(self, polynomial: Polynomial, info: CostInfo) -> None:
        super().__init__(info)
        index = {name: i for i, name in enumerate(info.width_names)}
        offset, linear = 0.0, np.zeros(len(index))
        quadratic = np.zeros((len(index), len(index)))
        higher: list[tuple[list[int], float]] = []
        for monomial, value in polynomial.terms.items():
            columns = [index[name] for name in monomial]
            if len(columns) == 0:
                offset = value
            elif len(columns) == 1:
                linear[columns[0]] = value
            elif len(columns) == 2:
                quadratic[min(columns), max(columns)] = value
            else:
                higher.append((columns, value))
        neighbours = np.diagonal(quadratic, 1).copy()
        quadratic -= np.diag(neighbours, 1)
        # A monomial below the highest degree is filled up with the column of ones.
        degree = max((len(columns) for columns, _ in higher), default=0)
        filled = [columns + [len(index)] * (degree - len(columns)) for columns, _ in higher]
        self.register_buffer("offset", torch.tensor(offset, dtype=torch.float64))
        self.register_buffer("linear", torch.from_numpy(linear))
        for name, values in (
            ("neighbours", neighbours),
            ("quadratic", quadratic),
            ("higher", np.array([value for _, value in higher])),
        ):
            self.register_buffer(name, torch.from_numpy(values) if values.any() else None)
        self.register_buffer("higher_index", torch.tensor(filled) if filled else None)

    def cost(self, widths: torch.Tensor) -> torch.Tensor:
        """Return the cost (...) of widths (..., k), both in the buffers' dtype."""
        total = widths @ self.linear + self.offset
        if self.neighbours is not None:
            total = total + (widths[..., :-1] * widths[..., 1:]) @ self.neighbours
        if self.quadratic is not None:
            total = total + ((widths @ self.quadratic) * widths).sum(-1)
        if self.higher is not None and self.higher_index is not None:
            filled = torch.cat([widths, torch.ones_like(widths[..., :1])], dim=-1)
            product = filled[..., self.higher_index[:, 0]]
            for column in range(1, self.higher_index.shape[1]):
                product = product * filled[..., self.higher_index[:, column]]
            total = total + product @ self.higher
        return total


def _polynomial(value: Polynomial | float) -> Polynomial:
    return value if isinstance(value, Polynomial) else Polynomial.constant(value)


def _order(term: tuple[Monomial, float]) -> tuple[int, Monomial]:
    # Graded, and kept by multiplication: what exact division by the leading term needs.
    return len(term[0]), term[0]


def _without(monomial: Monomial, factor: Monomial) -> Monomial | None:
    left = list(monomial)
    for name in factor:
        if name not in left:
            return None
        left.remove(name)
    return tuple(left)

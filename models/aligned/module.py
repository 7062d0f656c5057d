"""The aligned model in torch: both regimes exactly, or a polynomial of their average."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd, prod
from typing import TypeAlias

import numpy as np
import torch

from ..base.cost_module import CostInfo, CostModule
from ..base.intervals import FloatArray
from ..base.polynomial import Polynomial
from ..base.size_matrix import as_matrix
from .terms import Function, SumOfProducts, TermTable, content

# What each function of a size is in terms of the basis: [(basis function, factor), ...].
_ONE, _VALUE, _ALIGNED, _ALIGNED_VALUE, _PADDED, _ALIGNED_PADDED = range(6)
_IN_BASIS: dict[Function, list[tuple[int, float]]] = {
    Function.ONE: [(_ONE, 1.0)],
    Function.VALUE: [(_VALUE, 1.0)],
    Function.ALIGNED: [(_ALIGNED, 1.0)],
    Function.MISALIGNED: [(_ONE, 1.0), (_ALIGNED, -1.0)],
    Function.ALIGNED_VALUE: [(_ALIGNED_VALUE, 1.0)],
    Function.MISALIGNED_VALUE: [(_VALUE, 1.0), (_ALIGNED_VALUE, -1.0)],
    Function.PADDED: [(_PADDED, 1.0)],
    Function.ALIGNED_PADDED: [(_ALIGNED_PADDED, 1.0)],
}
_Key: TypeAlias = tuple[int, int]
"""A basis function and the size that it is taken of; (0, 0) is the constant 1."""


class AlignedCostModule(CostModule):
    """A sum of products of functions of channel counts: widths (..., k) -> cost (...).

    With L (..., p) the functions on the left of the products side by side, R (..., q) those on
    the right, and the products' coefficients in a matrix, the cost is

        constant + L . left + (L coupling + right) . R,

    one dense product instead of one for each layer.

    Args:
        table: The network's terms and sizes.
        total: The sum.
        divisor: What separates the regimes, in channels.
        block: What aligned layers pad their outputs to, in channels; negative for a staircase.
        info: What the module predicts.
    """

    size_matrix: torch.Tensor
    size_constant: torch.Tensor
    steps: torch.Tensor
    constant: torch.Tensor
    left: torch.Tensor
    right: torch.Tensor
    coupling: torch.Tensor

    def __init__(
        self,
        table: TermTable,
        total: SumOfProducts,
        divisor: int,
        block: int,
        info: CostInfo,
    ) -> None:
        super().__init__(info)
        self.divisor, self.block = divisor, block
        entries = _entries(total)
        sizes = sorted({size for pair in entries for kind, size in pair if kind != _ONE})
        self.left_kinds = sorted({left[0] for left, _ in entries} - {_ONE})
        self.right_kinds = sorted({right[0] for _, right in entries} - {_ONE})
        rows = _places(self.left_kinds, sizes)
        columns = _places(self.right_kinds, sizes)
        constant, left = 0.0, np.zeros(len(rows))
        right, coupling = np.zeros(len(columns)), np.zeros((len(rows), len(columns)))
        for (first, second), coefficient in entries.items():
            if first[0] == _ONE and second[0] == _ONE:
                constant += coefficient
            elif second[0] == _ONE:
                left[rows[first]] += coefficient
            elif first[0] == _ONE:
                right[columns[second]] += coefficient
            else:
                coupling[rows[first], columns[second]] += coefficient
        matrix, offset, self.products = as_matrix(
            [table.sizes[size] for size in sizes], table.width_names
        )
        steps = np.array([float(content(table.sizes[size])) for size in sizes])
        for name, values in (
            ("size_matrix", matrix / steps),
            ("size_constant", offset / steps),
            ("steps", steps),
            ("constant", np.array(constant)),
            ("left", left),
            ("right", right),
            ("coupling", coupling),
        ):
            self.register_buffer(name, torch.from_numpy(values))

    def cost(self, widths: torch.Tensor) -> torch.Tensor:
        """Return the cost (...) of widths (..., k), both in the buffers' dtype."""
        monomials = widths
        if self.products:
            more = [widths[..., columns].prod(dim=-1) for columns in self.products]
            monomials = torch.cat([widths, torch.stack(more, dim=-1)], dim=-1)
        functions = self._functions(monomials @ self.size_matrix + self.size_constant)
        total = widths[..., 0] * 0.0 + self.constant
        weights = self.right
        if self.left_kinds:
            left = _side_by_side([functions[kind] for kind in self.left_kinds])
            total = total + left @ self.left
            weights = left @ self.coupling + self.right
        if self.right_kinds:
            right = _side_by_side([functions[kind] for kind in self.right_kinds])
            total = total + (weights * right).sum(-1)
        return total

    def _functions(self, counts: torch.Tensor) -> dict[int, torch.Tensor]:
        """Return the basis functions, each (..., sizes), of sizes counted in their steps."""
        used = {*self.left_kinds, *self.right_kinds}
        low = counts.detach().floor()
        below, share = low * self.steps, counts - low
        above = below + self.steps
        found = {}
        if used & {_ALIGNED, _ALIGNED_VALUE, _ALIGNED_PADDED}:
            found[_ALIGNED] = torch.lerp(self._divides(below), self._divides(above), share)
        if used & {_PADDED, _ALIGNED_PADDED} or self.block < 0:
            found[_PADDED] = torch.lerp(self._padded(below), self._padded(above), share)
        found[_VALUE] = found[_PADDED] if self.block < 0 else counts * self.steps
        if _ALIGNED_VALUE in used:
            found[_ALIGNED_VALUE] = found[_ALIGNED] * found[_VALUE]
        if _ALIGNED_PADDED in used:
            found[_ALIGNED_PADDED] = found[_ALIGNED] * found[_PADDED]
        return found

    def _divides(self, value: torch.Tensor) -> torch.Tensor:
        return (value.remainder(self.divisor) == 0).to(value.dtype)

    def _padded(self, value: torch.Tensor) -> torch.Tensor:
        block = abs(self.block)
        return (value / block).ceil() * block


def _entries(total: SumOfProducts) -> dict[tuple[_Key, _Key], float]:
    """Return the sum's coefficients between basis functions."""
    entries: dict[tuple[_Key, _Key], float] = {}
    for left, right, coefficient in zip(
        total.left.tolist(), total.right.tolist(), total.coefficients.tolist(), strict=True
    ):
        for first, one in _in_basis(left):
            for second, other in _in_basis(right):
                key = (first, second)
                entries[key] = entries.get(key, 0.0) + coefficient * one * other
    return entries


def _in_basis(column: int) -> list[tuple[_Key, float]]:
    size, function = divmod(column, len(Function))
    return [
        ((kind, size if kind != _ONE else 0), factor)
        for kind, factor in _IN_BASIS[Function(function)]
    ]


def _places(kinds: Sequence[int], sizes: Sequence[int]) -> dict[_Key, int]:
    pairs = [(kind, size) for kind in kinds for size in sizes]
    return {pair: place for place, pair in enumerate(pairs)}


def _side_by_side(blocks: Sequence[torch.Tensor]) -> torch.Tensor:
    return blocks[0] if len(blocks) == 1 else torch.cat(list(blocks), dim=-1)


@dataclass(frozen=True)
class Average:
    """How a channel count behaves on average over the widths that are used.

    Attributes:
        aligned: Share of its values that the divisor divides.
        padding: Channels that whole blocks have more, where outputs are padded.
        further: Channels that it counts more itself, on a staircase.
    """

    aligned: float
    padding: float
    further: float


def averages_of(
    table: TermTable, divisor: int, block: int, multiples: Sequence[int]
) -> list[Average]:
    """Return for each size how it behaves on average where widths are rounded to multiples.

    Sizes that no width changes keep the regime that they have. In the aligned regime blocks count
    as full: that is the regime of an optimiser who looks for their edges.

    Args:
        table: The network's terms and sizes.
        divisor: What separates the regimes, in channels.
        block: What outputs are padded to, in channels; negative for a staircase.
        multiples: What each width is a multiple of, in the table's order.
    """
    of_width = dict(zip(table.width_names, multiples, strict=True))
    size_of_block = abs(block)
    found = []
    for size in table.sizes:
        if size.is_constant:
            value = int(size.at({}))
            share, padding = float(value % divisor == 0), float(-value % size_of_block)
        else:
            common = gcd(
                *(
                    coefficient * prod(of_width[name] for name in monomial)
                    for monomial, coefficient in size.terms.items()
                )
            )
            share = gcd(common, divisor) / divisor
            padding = (size_of_block - gcd(common, size_of_block)) / 2
            if divisor > 1 and share == 1:
                padding = 0.0
        found.append(Average(share, padding, padding if block < 0 else 0.0))
    return found


def smooth_polynomial(
    table: TermTable, rates: FloatArray, averages: Sequence[Average], names: Sequence[str]
) -> Polynomial:
    """Return the cost as a polynomial in the widths, regimes and blocks as on average.

    Args:
        table: The network's terms and sizes.
        rates: Rates of the terms, shape (p,).
        averages: How each size behaves on average.
        names: Names of the widths in the polynomial, in the table's order.
    """
    variables = {
        name: Polynomial.variable(new) for name, new in zip(table.width_names, names, strict=True)
    }
    functions = []
    for size, average in zip(table.sizes, averages, strict=True):
        count = Polynomial.constant(0.0) + size.at(variables)
        value, padded = count + average.further, count + average.padding
        aligned = average.aligned
        functions.append(
            {
                Function.ONE: Polynomial.constant(1.0),
                Function.VALUE: value,
                Function.ALIGNED: Polynomial.constant(aligned),
                Function.MISALIGNED: Polynomial.constant(1 - aligned),
                Function.ALIGNED_VALUE: value * aligned,
                Function.MISALIGNED_VALUE: value * (1 - aligned),
                Function.PADDED: padded,
                Function.ALIGNED_PADDED: padded * aligned,
            }
        )
    total = Polynomial({})
    for term, rate in zip(table.terms, rates, strict=True):
        for piece in term.pieces if rate else ():
            left = functions[piece.left[0]][piece.left[1]]
            right = functions[piece.right[0]][piece.right[1]]
            total = total + left * right * (float(rate) * piece.coefficient)
    return total

"""The aligned model in torch: both regimes exactly, or the polynomial of the aligned one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ..datasets import Size
from .aligned_terms import Function, SumOfProducts, TermTable, content
from .cost_module import CostInfo, CostModule
from .intervals import FloatArray
from .polynomial import Polynomial


class AlignedCostModule(CostModule):
    """A sum of products of functions of channel counts: widths (..., k) -> cost (...).

    The functions (see `aligned_terms.Function`) are evaluated side by side as F (..., m), and the
    cost is sum_j (F M)_j F_j with the products' coefficients in M: two dense operations instead
    of one for each layer.

    Args:
        table: The network's terms and sizes.
        total: The sum.
        divisor: What separates the regimes, in channels.
        block: What aligned layers pad their outputs to, in channels.
        info: What the module predicts.
    """

    size_matrix: torch.Tensor
    size_constant: torch.Tensor
    steps: torch.Tensor
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
        used = sorted({*total.left.tolist(), *total.right.tolist()})
        sizes = sorted({column // len(Function) for column in used})
        position = {size: number for number, size in enumerate(sizes)}
        # Column of each used function when the functions of the used sizes lie one after another.
        self.columns = [
            (column % len(Function)) * len(sizes) + position[column // len(Function)]
            for column in used
        ]
        matrix, constant, self.products = _as_matrix(
            [table.sizes[size] for size in sizes], table.width_names
        )
        coupling = np.zeros((len(used), len(used)))
        place = {column: number for number, column in enumerate(used)}
        for left, right, coefficient in zip(
            total.left.tolist(), total.right.tolist(), total.coefficients, strict=True
        ):
            coupling[place[left], place[right]] += coefficient
        steps = [float(content(table.sizes[size])) for size in sizes]
        for name, values in (
            ("size_matrix", matrix),
            ("size_constant", constant),
            ("steps", np.array(steps, dtype=np.float64)),
            ("coupling", coupling),
        ):
            self.register_buffer(name, torch.from_numpy(values))

    def cost(self, widths: torch.Tensor) -> torch.Tensor:
        """Return the cost (...) of widths (..., k), both in the buffers' dtype."""
        monomials = widths
        if self.products:
            more = [widths[..., columns].prod(dim=-1) for columns in self.products]
            monomials = torch.cat([widths, torch.stack(more, dim=-1)], dim=-1)
        value = monomials @ self.size_matrix + self.size_constant
        counts = value / self.steps
        low = counts.floor().detach()
        share = counts - low
        below, above = low * self.steps, (low + 1) * self.steps
        aligned = (1 - share) * self._divides(below) + share * self._divides(above)
        padded = (1 - share) * self._padded(below) + share * self._padded(above)
        misaligned = 1 - aligned
        # In the order of Function.
        functions = torch.cat(
            [
                torch.ones_like(value),
                value,
                aligned,
                misaligned,
                aligned * value,
                misaligned * value,
                padded,
                aligned * padded,
            ],
            dim=-1,
        )[..., self.columns]
        return ((functions @ self.coupling) * functions).sum(-1)

    def _divides(self, value: torch.Tensor) -> torch.Tensor:
        return (value.remainder(self.divisor) == 0).to(value.dtype)

    def _padded(self, value: torch.Tensor) -> torch.Tensor:
        return (value / self.block).ceil() * self.block


def aligned_polynomial(
    table: TermTable, rates: FloatArray, divisor: int, names: Sequence[str]
) -> Polynomial:
    """Return the cost of the aligned regime, without padding, as a polynomial in the widths.

    Sizes that no width changes keep the regime that they have.

    Args:
        table: The network's terms and sizes.
        rates: Rates of the terms, shape (p,).
        divisor: What separates the regimes, in channels.
        names: Names of the widths in the polynomial, in the table's order.
    """
    variables = {
        name: Polynomial.variable(new) for name, new in zip(table.width_names, names, strict=True)
    }
    functions = []
    for size in table.sizes:
        value = Polynomial.constant(0.0) + size.at(variables)
        aligned = float(not size.is_constant or size.at({}) % divisor == 0)
        functions.append(
            {
                Function.ONE: Polynomial.constant(1.0),
                Function.VALUE: value,
                Function.ALIGNED: Polynomial.constant(aligned),
                Function.MISALIGNED: Polynomial.constant(1 - aligned),
                Function.ALIGNED_VALUE: value * aligned,
                Function.MISALIGNED_VALUE: value * (1 - aligned),
                Function.PADDED: value,
                Function.ALIGNED_PADDED: value * aligned,
            }
        )
    total = Polynomial({})
    for term, rate in zip(table.terms, rates, strict=True):
        for piece in term.pieces if rate else ():
            left = functions[piece.left[0]][piece.left[1]]
            right = functions[piece.right[0]][piece.right[1]]
            total = total + left * right * (float(rate) * piece.coefficient)
    return total


def _as_matrix(
    sizes: Sequence[Size], names: Sequence[str]
) -> tuple[FloatArray, FloatArray, list[list[int]]]:
    """Return the sizes as (matrix, constant, products): sizes = [widths, products] matrix + constant."""
    index = {name: number for number, name in enumerate(names)}
    rows: dict[tuple[str, ...], int] = {(name,): number for name, number in index.items()}
    products: list[list[int]] = []
    constant = np.zeros(len(sizes))
    entries: list[tuple[int, int, float]] = []
    for column, size in enumerate(sizes):
        for monomial, coefficient in size.terms.items():
            if not monomial:
                constant[column] = coefficient
                continue
            if monomial not in rows:
                rows[monomial] = len(rows)
                products.append([index[name] for name in monomial])
            entries.append((rows[monomial], column, float(coefficient)))
    matrix = np.zeros((len(rows), len(sizes)))
    for row, column, value in entries:
        matrix[row, column] = value
    return matrix, constant, products

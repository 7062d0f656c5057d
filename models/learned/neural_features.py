"""What networks of neurons see of widths or other columns, as torch modules."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import torch

from ..aligned.module import averages_of
from ..aligned.terms import Function, content
from ..base.intervals import FloatArray
from ..base.kernel import BLOCKS, Columns, GaussianKernel
from ..base.size_matrix import as_matrix
from .trend import ALIGNED, Trend

# Pieces that a column's range is cut into.
PIECES = 8
_ALIGNED_FUNCTIONS = (Function.ALIGNED, Function.ALIGNED_VALUE, Function.ALIGNED_PADDED)
_MISALIGNED_FUNCTIONS = (Function.MISALIGNED, Function.MISALIGNED_VALUE)


def knots_of(X: FloatArray) -> FloatArray:
    """Return where the pieces of each column begin and end, shape (d, PIECES + 1), ascending.

    Quantiles that are values of the column, so that each piece holds about as many rows.

    Args:
        X: Columns, shape (n, d).
    """
    levels = np.linspace(0, 1, PIECES + 1)
    knots: FloatArray = np.quantile(X, levels, axis=0, method="nearest").T
    return knots


class BilinearFeatures(torch.nn.Module):
    """Products of neighbouring widths over their bounds, as `BilinearPredictor` has them.

    Widths (..., k) -> products (..., k + 1), or k without a fixed end.

    Args:
        bounds: Upper bounds, shape (k,), positive.
        has_end: Whether the chain ends in a constant.
    """

    bounds: torch.Tensor

    def __init__(self, bounds: FloatArray, *, has_end: bool) -> None:
        super().__init__()
        self.has_end = has_end
        self.register_buffer("bounds", torch.tensor(bounds, dtype=torch.float64))

    def forward(self, widths: torch.Tensor) -> torch.Tensor:
        """Return the products of widths, both in the buffers' dtype."""
        scaled = widths / self.bounds
        one = torch.ones_like(scaled[..., :1])
        chain = torch.cat([one, scaled, one] if self.has_end else [one, scaled], dim=-1)
        return chain[..., 1:] * chain[..., :-1]


class LayerShares(torch.nn.Module):
    """What each layer costs in each regime, as shares of an aligned model's cost.

    Widths (..., k) -> shares (..., q), which add up to 1.

    Args:
        trend: An aligned model.
        is_smooth: Whether regimes and blocks count as on average, as in the smooth module.

    Attributes:
        groups: Layer and regime of each share; ECC's form has products in place of layers.
    """

    groups: tuple[tuple[str, str], ...]

    size_matrix: torch.Tensor
    size_constant: torch.Tensor
    steps: torch.Tensor
    averages: torch.Tensor
    left: torch.Tensor
    right: torch.Tensor
    coefficients: torch.Tensor

    def __init__(self, trend: Trend, *, is_smooth: bool = False) -> None:
        super().__init__()
        aligned = trend.aligned()
        table = aligned.terms()
        self.divisor, self.block = aligned.divisor_and_block_
        self.is_smooth = is_smooth
        groups: dict[tuple[str, str], int] = {}
        pieces: list[tuple[int, int, int, float]] = []
        for term, rate in zip(table.terms, aligned.coef_, strict=True):
            for piece, layer in zip(term.pieces, term.layers, strict=True) if rate else ():
                # Of ECC's form, which knows no layers, every product is one.
                key = (layer or term.quantity, _regime_of(piece.left[1]))
                place = groups.setdefault(key, len(groups))
                cost = float(rate) * piece.coefficient
                pieces.append((piece.left_index, piece.right_index, place, cost))
        self.groups = tuple(groups)
        left, right, places, costs = (np.array(column) for column in zip(*pieces, strict=True))
        coefficients = np.zeros((len(pieces), len(groups)))
        coefficients[np.arange(len(pieces)), places] = costs
        matrix, constant, self.products = as_matrix(table.sizes, table.width_names)
        steps = np.array([float(content(size)) for size in table.sizes])
        averages = averages_of(table, self.divisor, self.block, aligned.advice_.multiples)
        for name, values in (
            ("size_matrix", matrix / steps),
            ("size_constant", constant / steps),
            ("steps", steps),
            ("averages", np.array([astuple(a) for a in averages]).T.copy()),
            ("left", left),
            ("right", right),
            ("coefficients", coefficients),
        ):
            self.register_buffer(name, torch.from_numpy(values))

    def forward(self, widths: torch.Tensor) -> torch.Tensor:
        """Return the shares (..., q) of widths (..., k), both in the buffers' dtype."""
        monomials = widths
        if self.products:
            more = [widths[..., columns].prod(dim=-1) for columns in self.products]
            monomials = torch.cat([widths, torch.stack(more, dim=-1)], dim=-1)
        functions = self._functions(monomials @ self.size_matrix + self.size_constant)
        products = functions[..., self.left] * functions[..., self.right]
        costs = products @ self.coefficients
        return costs / costs.sum(-1, keepdim=True).clamp(min=torch.finfo(costs.dtype).tiny)

    def _functions(self, counts: torch.Tensor) -> torch.Tensor:
        """Return the functions of sizes counted in their steps, (..., sizes * functions)."""
        value = counts * self.steps
        low = counts.detach().floor()
        share, below, above = counts - low, low * self.steps, (low + 1) * self.steps
        aligned = torch.lerp(self._divides(below), self._divides(above), share)
        padded = torch.lerp(self._padded(below), self._padded(above), share)
        if self.is_smooth:
            aligned = torch.zeros_like(aligned) + self.averages[0]
            padded, value = value + self.averages[1], value + self.averages[2]
        elif self.block < 0:
            value = padded
        found = {
            Function.ONE: torch.ones_like(value),
            Function.VALUE: value,
            Function.ALIGNED: aligned,
            Function.MISALIGNED: 1 - aligned,
            Function.ALIGNED_VALUE: aligned * value,
            Function.MISALIGNED_VALUE: (1 - aligned) * value,
            Function.PADDED: padded,
            Function.ALIGNED_PADDED: aligned * padded,
        }
        return torch.stack([found[function] for function in Function], dim=-1).flatten(-2)

    def _divides(self, value: torch.Tensor) -> torch.Tensor:
        return (value.remainder(self.divisor) == 0).to(value.dtype)

    def _padded(self, value: torch.Tensor) -> torch.Tensor:
        block = abs(self.block)
        return (value / block).ceil() * block


def _regime_of(function: Function) -> str:
    if function in _ALIGNED_FUNCTIONS:
        return "aligned"
    return "misaligned" if function in _MISALIGNED_FUNCTIONS else "all"


class LayerFeatures(torch.nn.Module):
    """What the ensemble sees: columns, pieces of them, blocks of channels, shares of the layers.

    Columns (..., m) -> features (..., p).

    Args:
        columns: How columns become coordinates.
        knots: Where the pieces of the d kept columns begin and end, shape (d, pieces + 1).
        trend: The known part; shares are those of an aligned model.
        is_smooth: Whether steps are replaced by their average.
    """

    begins: torch.Tensor
    sizes: torch.Tensor

    def __init__(
        self, columns: Columns, knots: FloatArray, trend: Trend, *, is_smooth: bool = False
    ) -> None:
        super().__init__()
        column, piece = np.nonzero(np.diff(knots) > 0)
        self.of_piece = [int(columns.kept[index]) for index in column]
        self.register_buffer("begins", torch.tensor(knots[column, piece]))
        self.register_buffer("sizes", torch.tensor(np.diff(knots)[column, piece]))
        self.coordinates = GaussianKernel(columns)
        self.is_smooth = is_smooth
        is_aligned = trend.kind == ALIGNED
        self.shares = LayerShares(trend, is_smooth=is_smooth) if is_aligned else None

    def forward(self, widths: torch.Tensor) -> torch.Tensor:
        """Return the features (..., p) of columns (..., m)."""
        scaled, steps = self.coordinates.coordinates(widths, self.is_smooth)
        if number := len(self.coordinates.counts):
            # How much of a block is empty: the blocks themselves nearly repeat the columns.
            counted = widths[..., self.coordinates.kept][..., self.coordinates.counts]
            scale = self.coordinates.scale[self.coordinates.counts]
            logs = counted.clamp(min=1.0).log() / scale
            blocks = number * len(BLOCKS)
            padding = steps[..., :blocks] - torch.cat([logs] * len(BLOCKS), dim=-1)
            steps = torch.cat([padding, steps[..., blocks:]], dim=-1)
        # Each piece is 0 before it, 1 after it, and rises within.
        pieces = ((widths[..., self.of_piece] - self.begins) / self.sizes).clamp(0.0, 1.0)
        parts = [scaled, steps, pieces]
        if self.shares is not None:
            parts.append(self.shares(widths))
        return torch.cat(parts, dim=-1)

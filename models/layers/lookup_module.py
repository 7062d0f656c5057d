"""Tables of layers in torch: bilinear interpolation between knots."""

from __future__ import annotations

import torch

from ..base.cost_module import CostInfo, CostModule
from ..base.intervals import FloatArray
from ..base.size_matrix import as_matrix
from .lookup_grid import LookupGrid


class LookupCostModule(CostModule):
    """A constant plus one interpolated table entry for each layer: widths (..., k) -> cost (...).

    Args:
        grid: The knots and where the tables lie.
        constant: Cost of the call.
        tables: Entries, shape (tables, regimes, knots, knots).
        info: What the module predicts.
    """

    size_matrix: torch.Tensor
    size_constant: torch.Tensor
    constant: torch.Tensor
    tables: torch.Tensor
    inputs: torch.Tensor
    outputs: torch.Tensor
    first: torch.Tensor
    step: torch.Tensor
    counts: torch.Tensor
    aligned_by: torch.Tensor

    def __init__(
        self, grid: LookupGrid, constant: float, tables: FloatArray, info: CostInfo
    ) -> None:
        super().__init__(info)
        self.knots, self.divisor = grid.knots, grid.divisor
        matrix, offset, self.products = as_matrix(grid.sizes, grid.width_names)
        for name, values in (
            ("size_matrix", torch.from_numpy(matrix / grid.step)),
            ("size_constant", torch.from_numpy((offset - grid.first) / grid.step)),
            ("constant", torch.tensor(constant, dtype=torch.float64)),
            ("tables", torch.from_numpy(tables.copy())),
            ("inputs", torch.tensor([table.inputs for table in grid.tables])),
            ("outputs", torch.tensor([table.outputs for table in grid.tables])),
            ("first", torch.from_numpy(grid.first)),
            ("step", torch.from_numpy(grid.step)),
            ("counts", torch.from_numpy(grid.counts)),
            ("aligned_by", torch.tensor([table.aligned_by for table in grid.tables])),
        ):
            self.register_buffer(name, values)

    def cost(self, widths: torch.Tensor) -> torch.Tensor:
        """Return the cost (...) of widths (..., k), both in the buffers' dtype."""
        monomials = widths
        if self.products:
            more = [widths[..., columns].prod(dim=-1) for columns in self.products]
            monomials = torch.cat([widths, torch.stack(more, dim=-1)], dim=-1)
        position = monomials @ self.size_matrix + self.size_constant
        hats = self._hats(position)
        left, right = hats[..., self.inputs, :], hats[..., self.outputs, :]
        costs = [
            (torch.einsum("...li,lij->...lj", left, self.tables[:, regime]) * right).sum(-1)
            for regime in range(self.tables.shape[1])
        ]
        cost = costs[0]
        if len(costs) > 1:
            cost = torch.lerp(costs[1], costs[0], self._aligned(position))
        return cost.sum(-1) + self.constant

    def _aligned(self, position: torch.Tensor) -> torch.Tensor:
        """Return how far each table's layer is aligned, shape (..., tables)."""
        counted = (position * self.step + self.first) / self.counts
        # Rounding must not make a whole count a fraction below it.
        whole = counted.round()
        counted = torch.where(
            (counted - whole).abs() < 1e-9 * whole.abs().clamp(min=1), whole, counted
        )
        low = counted.detach().floor()
        share = counted - low
        below = ((low * self.counts).remainder(self.divisor) == 0).to(position.dtype)
        above = (((low + 1) * self.counts).remainder(self.divisor) == 0).to(position.dtype)
        aligned = torch.lerp(below, above, share)
        is_constant = torch.arange(aligned.shape[-1], device=aligned.device) == 0
        aligned = torch.where(is_constant, torch.ones_like(aligned), aligned)
        return aligned[..., self.aligned_by[:, 0]] * aligned[..., self.aligned_by[:, 1]]

    def _hats(self, position: torch.Tensor) -> torch.Tensor:
        """Return the weight of each knot, shape (..., s, knots), of positions (..., s)."""
        left = position.detach().floor().clamp(0, max(0, self.knots - 2))
        share = (position - left).unsqueeze(-1)
        knots = torch.arange(self.knots, dtype=position.dtype, device=position.device)
        is_left = (knots == left.unsqueeze(-1)).to(position.dtype)
        is_right = (knots == left.unsqueeze(-1) + 1).to(position.dtype)
        return is_left * (1 - share) + is_right * share

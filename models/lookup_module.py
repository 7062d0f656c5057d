"""Tables of layers in torch: bilinear interpolation between knots."""

from __future__ import annotations

import torch

from .cost_module import CostInfo, CostModule
from .intervals import FloatArray
from .lookup_grid import LookupGrid
from .size_matrix import as_matrix


class LookupCostModule(CostModule):
    """A constant plus one interpolated table entry for each layer: widths (..., k) -> cost (...).

    Args:
        grid: The knots and where the tables lie.
        constant: Cost of the call.
        tables: Entries, shape (tables, knots, knots).
        info: What the module predicts.
    """

    size_matrix: torch.Tensor
    size_constant: torch.Tensor
    constant: torch.Tensor
    tables: torch.Tensor
    inputs: torch.Tensor
    outputs: torch.Tensor

    def __init__(
        self, grid: LookupGrid, constant: float, tables: FloatArray, info: CostInfo
    ) -> None:
        super().__init__(info)
        self.knots = grid.knots
        matrix, offset, self.products = as_matrix(grid.sizes, grid.width_names)
        for name, values in (
            ("size_matrix", torch.from_numpy(matrix / grid.step)),
            ("size_constant", torch.from_numpy((offset - grid.first) / grid.step)),
            ("constant", torch.tensor(constant, dtype=torch.float64)),
            ("tables", torch.from_numpy(tables.copy())),
            ("inputs", torch.tensor([table.inputs for table in grid.tables])),
            ("outputs", torch.tensor([table.outputs for table in grid.tables])),
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
        rows = torch.einsum("...li,lij->...lj", left, self.tables)
        return (rows * right).sum((-1, -2)) + self.constant

    def _hats(self, position: torch.Tensor) -> torch.Tensor:
        """Return the weight of each knot, shape (..., s, knots), of positions (..., s)."""
        left = position.detach().floor().clamp(0, max(0, self.knots - 2))
        share = (position - left).unsqueeze(-1)
        knots = torch.arange(self.knots, dtype=position.dtype, device=position.device)
        is_left = (knots == left.unsqueeze(-1)).to(position.dtype)
        is_right = (knots == left.unsqueeze(-1) + 1).to(position.dtype)
        return is_left * (1 - share) + is_right * share

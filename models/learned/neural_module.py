"""An ensemble of small networks of neurons as a torch module."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ..base.cost_module import CostInfo, CostModule
from ..base.intervals import FloatArray
from .trend import TrendModule

WEIGHTS = ("hidden_weight", "hidden_bias", "output_weight", "output_bias")


class NeuralModule(CostModule):
    """The known part times the exponential of the members' mean: columns (..., m) -> cost (...).

    A member is output . activation(hidden f + bias) + bias of scaled features f.

    Args:
        features: What the members see of the columns.
        trend: The known part.
        arrays: `hidden_weight` (M, p, h), `hidden_bias` (M, h), `output_weight` (M, h),
            `output_bias` (M,), `scaling` (2, p): mean and standard deviation of
            the features, and `outcome` (3,): center and scale of what the members give, and their
            error on rows that they did not see.
        info: What the module predicts.
        activation: 'silu', which is smooth, or 'selu', which is ECC's.
        is_log: Whether members give logarithms, or costs.
    """

    hidden_weight: torch.Tensor
    hidden_bias: torch.Tensor
    output_weight: torch.Tensor
    output_bias: torch.Tensor
    scaling: torch.Tensor
    outcome: torch.Tensor

    def __init__(
        self,
        features: torch.nn.Module,
        trend: TrendModule,
        arrays: Mapping[str, FloatArray],
        info: CostInfo,
        activation: str,
        *,
        is_log: bool,
    ) -> None:
        super().__init__(info)
        self.features, self.trend, self.activation = features, trend, activation
        for name, values in arrays.items():
            self.register_buffer(name, torch.tensor(values, dtype=torch.float64))
        self.is_log = is_log

    def cost(self, widths: torch.Tensor) -> torch.Tensor:
        """Return the cost (...) of columns (..., m), both in the buffers' dtype."""
        mean = self.outcome[0] + self.outcome[1] * self._members(widths).mean(-1)
        if not self.is_log:
            return mean
        cost: torch.Tensor = self.trend(widths) * mean.exp()
        return cost

    def spread(self, widths: torch.Tensor) -> torch.Tensor:
        """Return the members' standard deviation and typical error together, over the cost, (...)."""
        members = self._members(widths)
        variance = ((members - members.mean(-1, keepdim=True)) ** 2).mean(-1)
        deviation: torch.Tensor = self.outcome[1] * (variance + self.outcome[2] ** 2).sqrt()
        if self.is_log:
            return deviation
        return deviation / self.cost(widths).abs().clamp(min=torch.finfo(deviation.dtype).tiny)

    def _members(self, widths: torch.Tensor) -> torch.Tensor:
        features = (self.features(widths) - self.scaling[0]) / self.scaling[1]
        weights = {name: getattr(self, name) for name in WEIGHTS}
        return members(features, weights, self.activation)


def members(
    features: torch.Tensor, weights: Mapping[str, torch.Tensor], activation: str
) -> torch.Tensor:
    """Return what each of M members gives, (..., M), for scaled features (..., p)."""
    matrix = weights["hidden_weight"]
    number, count, size = matrix.shape
    # One product for all members.
    hidden = features @ matrix.permute(1, 0, 2).reshape(count, number * size)
    hidden = hidden.reshape(*hidden.shape[:-1], number, size) + weights["hidden_bias"]
    function = torch.nn.functional.selu if activation == "selu" else torch.nn.functional.silu
    output = (function(hidden) * weights["output_weight"]).sum(-1)
    return output + weights["output_bias"]

"""The torch module that a fitted predictor gives: differentiable cost of relaxed widths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from joulemap import InputError

from ...datasets import NetworkSpec
from ...datasets.metrics import NoiseFloor
from .extrapolation import widening
from .intervals import FloatArray, HeldOut


@dataclass(frozen=True)
class CostInfo:
    """What a cost module predicts, and how well.

    Attributes:
        width_names: Names of the k columns of its input, in order.
        spec: The network, where one is known.
        unit: Unit of the output, such as 'J' or 's'; '' where it was not stated.
        target: Name of the cost, such as 'energy_j'.
        conditions: Batch, precision, ... that the cost holds for, as far as known.
        max_deviation: Largest relative deviation from the predictor, a fraction; 0 is exact.
        held_out: Held-out errors; None for a predictor that was not fitted on data.
        noise_floor: Noise floor of the data, where known.
        width_ranges: Smallest and largest width in the data, shape (2, k); None without data.
        device_ids: The device's id and former ones; empty where it is not recorded.
    """

    width_names: tuple[str, ...]
    spec: NetworkSpec | None = None
    unit: str = ""
    target: str = "cost"
    conditions: Mapping[str, Any] = field(default_factory=dict)
    max_deviation: float = 0.0
    held_out: HeldOut | None = None
    noise_floor: NoiseFloor | None = None
    width_ranges: FloatArray | None = None
    device_ids: tuple[str, ...] = ()


class CostModule(torch.nn.Module):
    """The cost of widths `batch_shape x k` in channels, `batch_shape`, in `.unit`.

    Equals the predictor's `predict` at integer widths and interpolates between them. Outside the
    spec's bounds it extrapolates without a warning. Buffers are float64 and the cost is computed
    in their dtype (`.float()` lowers it, for speed); the output's dtype follows the input's. Subclasses
    define `cost`.

    Args:
        info: What the module predicts.
    """

    def __init__(self, info: CostInfo) -> None:
        super().__init__()
        self.info = info

    def cost(self, widths: torch.Tensor) -> torch.Tensor:
        """Return the cost `batch_shape` of widths `batch_shape x k`, both in the buffers' dtype.

        Args:
            widths: Widths in channels, checked to have k columns.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no cost")

    def spread(self, widths: torch.Tensor) -> torch.Tensor | None:
        """Return how unsure the model is of each cost, `batch_shape`, as `Predictor.spread_arrays`.

        Args:
            widths: Widths in channels, `batch_shape x k`, in the buffers' dtype.
        """
        return None

    def forward(self, widths: torch.Tensor) -> torch.Tensor:
        """Return the cost, `batch_shape`, in `.unit`.

        Args:
            widths: Widths in channels, `batch_shape x k`, floating point.

        Raises:
            InputError: The last dimension is not k.
        """
        # Shapes are static: torch.compile and torch.export drop the branch.
        if widths.dim() == 0 or widths.shape[-1] != len(self.info.width_names):
            raise InputError(
                f"widths have shape {tuple(widths.shape)}; the last dimension must be "
                f"{len(self.info.width_names)} ({', '.join(self.info.width_names)})"
            )
        dtype = widths.dtype if widths.is_floating_point() else torch.get_default_dtype()
        return self.cost(widths.to(self.dtype)).to(dtype)

    def upper(self, widths: torch.Tensor, coverage: float = 0.9) -> torch.Tensor:
        """Return an upper bound of the mean cost, `batch_shape`, in `.unit`.

        Equals the predictor's `predict_upper` at integer widths.

        Args:
            widths: Widths in channels, `batch_shape x k`.
            coverage: Share of variants whose mean cost lies below the bound.

        Raises:
            InputError: `coverage` is out of range, or nothing is known about the errors because
                the predictor was not fitted on data.
        """
        held_out = self.info.held_out
        if held_out is None:
            raise InputError("the predictor was not fitted on data, so it has no upper bound")
        cost, at = self(widths), widths.to(self.dtype)
        spread = None if held_out.spread is None else self.spread(at)
        distance = held_out.upper_distance(coverage, cost, spread)
        share = held_out.mean_share(self.info.noise_floor, len(self.width_names))
        bound: torch.Tensor = cost + share * distance * widening(at, self.info.width_ranges)
        return bound.to(cost.dtype)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that the cost is computed in: that of the module's floating-point buffers."""
        for buffer in self.buffers():
            if buffer.is_floating_point():
                return buffer.dtype
        return torch.float64

    @property
    def spec(self) -> NetworkSpec | None:
        """The network whose cost this is; None where the predictor was fitted without one."""
        return self.info.spec

    @property
    def unit(self) -> str:
        """Unit of the output, such as 'J'; '' where it was not stated."""
        return self.info.unit

    @property
    def target(self) -> str:
        """Name of the cost, such as 'energy_j'."""
        return self.info.target

    @property
    def width_names(self) -> tuple[str, ...]:
        """Names of the k columns of the input, in order."""
        return self.info.width_names

    @property
    def max_deviation(self) -> float:
        """Largest relative deviation from the predictor, a fraction; 0 where it is exact."""
        return self.info.max_deviation

    def extra_repr(self) -> str:
        """Return what is printed inside the module's brackets."""
        unit = f" in {self.unit}" if self.unit else ""
        return f"{len(self.width_names)} widths -> {self.target}{unit}"

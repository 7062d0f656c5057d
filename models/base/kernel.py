"""Covariance of the cost at two points, from columns that mean sizes, choices or channel counts.

A sum of parts, each for one thing that costs do: follow a size in proportion, bend along one column
or along several together, jump from channel to channel, and jump where a block of channels is full.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from joulemap import InputError

from .files.findings import Findings
from .intervals import FloatArray

# Sizes of blocks of channels that kernels of processors work in.
BLOCKS = (32, 64, 128)
DIVISORS = (2, 4, 8, 16, 32)
# A column with so many different whole numbers, all at least 1, counts channels.
LEAST_COUNTS = 8
_ROOT_3 = math.sqrt(3.0)
# Keeps the derivative of a distance finite where two points are the same.
_TINY = 1e-10


class Prior(NamedTuple):
    """A normal prior of a hyperparameter's logarithm."""

    median: float
    log_sd: float


# Standard deviations of the parts, of scaled residuals of standard deviation 1; lengths of columns
# of standard deviation 1.
PRIORS = {
    "linear": Prior(1.0, 1.0),
    "smooth_together": Prior(0.5, 1.0),
    "noise": Prior(0.2, 1.0),
    "smooth_alone": Prior(0.5, 1.0),
    "rough_alone": Prior(0.05, 1.0),
    "rough_together": Prior(0.05, 1.0),
    "steps": Prior(0.05, 1.0),
    "step_length": Prior(1.0, 0.7),
}
LENGTH_PRIOR = Prior(2.0, 0.7)


@dataclass(frozen=True)
class Columns:
    """How columns of X become coordinates.

    Attributes:
        kept: Columns that vary, indices.
        center: Of the kept columns, after the logarithm where one is taken, shape (d,).
        scale: Standard deviation, likewise.
        is_log: Whether a column's logarithm is taken: a positive one of more than two values.
        is_choice: Whether a column has two values.
        is_count: Whether a column counts channels.
    """

    kept: NDArray[np.int64]
    center: FloatArray
    scale: FloatArray
    is_log: NDArray[np.bool_]
    is_choice: NDArray[np.bool_]
    is_count: NDArray[np.bool_]

    @classmethod
    def of(cls, X: FloatArray) -> Columns:
        """Return how the columns of some data (n, m) are read."""
        kept = np.flatnonzero(np.ptp(X, axis=0) > 0)
        values = X[:, kept]
        distinct = np.array([len(np.unique(column)) for column in values.T], dtype=int)
        is_whole = np.all((values == np.round(values)) & (values >= 1), axis=0)
        is_log = (values.min(axis=0, initial=np.inf) > 0) & (distinct > 2)
        read = np.where(is_log, np.log(np.where(is_log, values, 1.0)), values)
        return cls(
            kept,
            read.mean(axis=0),
            np.maximum(read.std(axis=0), 1e-12),
            is_log,
            distinct == 2,
            is_whole & (distinct >= LEAST_COUNTS),
        )

    def to_findings(self) -> list[dict[str, Any]]:
        """Return what files hold: an object for each kept column."""
        rows = zip(*(getattr(self, item.name).tolist() for item in fields(self)), strict=True)
        return [dict(zip((item.name for item in fields(self)), row, strict=True)) for row in rows]

    @classmethod
    def from_findings(cls, several: Sequence[Findings]) -> Columns:
        """Return what `to_findings` wrote, from a file."""
        rows = []
        for read in several:
            flags = (read.flag(name) for name in ("is_log", "is_choice", "is_count"))
            rows.append((read.count("kept"), read.number("center"), read.number("scale"), *flags))
            read.end()
        types = (np.int64, np.float64, np.float64, np.bool_, np.bool_, np.bool_)
        table = list(zip(*rows, strict=True)) or [()] * len(types)
        return cls(*(np.array(each, dtype=kind) for each, kind in zip(table, types, strict=True)))

    @classmethod
    def from_array(cls, array: FloatArray) -> Columns:
        """Return the table that a file before version 2 holds as numbers, shape (6, d).

        Raises:
            InputError: It is none.
        """
        if np.ndim(array) != 2 or np.shape(array)[0] != 6 or np.any(array[0] != np.round(array[0])):
            raise InputError("columns_ does not describe columns of X")
        kept, center, scale, *flags = array
        return cls(kept.astype(np.int64), center, scale, *(flag > 0 for flag in flags))

    def check(self, count: int) -> None:
        """Check that these are columns of X.

        Args:
            count: How many columns X has.

        Raises:
            InputError: They are not.
        """
        if np.any((self.kept < 0) | (self.kept >= count)) or np.any(self.scale <= 0):
            raise InputError("columns_ does not describe columns of X")


class GaussianKernel(torch.nn.Module):
    """The covariance, with its hyperparameters.

    Args:
        columns: How columns become coordinates.
        theta: Logarithms of the hyperparameters in the order of `names`, shape (p,); their priors'
            medians where None.
    """

    center: torch.Tensor
    scale: torch.Tensor
    is_log: torch.Tensor
    theta: torch.Tensor

    def __init__(self, columns: Columns, theta: FloatArray | None = None) -> None:
        super().__init__()
        self.kept = [int(index) for index in columns.kept]
        self.choices = [int(index) for index in np.flatnonzero(columns.is_choice)]
        self.sizes = [int(index) for index in np.flatnonzero(~columns.is_choice)]
        self.counts = [int(index) for index in np.flatnonzero(columns.is_count)]
        self.priors = self._priors()
        start = np.array([math.log(prior.median) for _, prior in self.priors])
        for name, values in (
            ("center", columns.center),
            ("scale", columns.scale),
            ("is_log", columns.is_log),
            ("theta", start if theta is None else theta),
        ):
            self.register_buffer(name, torch.tensor(np.asarray(values, dtype=np.float64)))

    def _priors(self) -> list[tuple[str, Prior]]:
        number = max(len(self.kept), 1)
        together = Prior(LENGTH_PRIOR.median * math.sqrt(number), LENGTH_PRIOR.log_sd)
        num_sizes = len(self.sizes)
        names = ["linear", "smooth_together", "noise"]
        lengths = [("smooth_together_length", num_sizes + bool(self.choices), together)]
        if num_sizes:
            names += ["smooth_alone", "rough_alone", "rough_together"]
            lengths += [
                ("smooth_alone_length", num_sizes, LENGTH_PRIOR),
                ("rough_alone_length", num_sizes, LENGTH_PRIOR),
                ("rough_together_length", num_sizes, together),
            ]
        if self.counts:
            names += ["steps", "step_length"]
        return [(name, PRIORS[name]) for name in names] + [
            (name, prior) for name, count, prior in lengths for _ in range(count)
        ]

    @property
    def prior_mean(self) -> torch.Tensor:
        """Logarithms of the priors' medians, shape (p,)."""
        return torch.tensor([math.log(prior.median) for _, prior in self.priors]).double()

    @property
    def prior_sd(self) -> torch.Tensor:
        """Standard deviations of the logarithms, shape (p,)."""
        return torch.tensor([prior.log_sd for _, prior in self.priors]).double()

    @property
    def rough_start(self) -> FloatArray:
        """The priors' medians, but with what smooth parts leave taken as roughness, not as noise.

        Logarithms, shape (p,). The likelihood can have a maximum for either reading.
        """
        names = [name for name, _ in self.priors]
        rough = {"rough_together": 0.0, "noise": math.log(PRIORS["noise"].median / 4)}
        start: FloatArray = self.prior_mean.numpy()
        return np.array([rough.get(name, value) for name, value in zip(names, start, strict=True)])

    def _values(self, theta: torch.Tensor) -> dict[str, torch.Tensor]:
        names = [name for name, _ in self.priors]
        values = theta.exp()
        return {
            name: values[[index for index, other in enumerate(names) if other == name]]
            for name in dict.fromkeys(names)
        }

    def noise(self, theta: torch.Tensor) -> torch.Tensor:
        """Return the variance of the noise of a row of weight 1, a scalar."""
        return self._values(theta)["noise"][0] ** 2

    def coordinates(
        self, X: torch.Tensor, is_smooth: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the columns scaled, (..., d), and where channel counts are full, (..., v).

        Args:
            X: Columns, (..., m).
            is_smooth: Whether blocks are taken as on average, and all counts as aligned.
        """
        x = X[..., self.kept]
        is_log = self.is_log > 0
        safe = torch.where(is_log, x.clamp(min=1e-9), torch.ones_like(x))
        scaled = (torch.where(is_log, safe.log(), x) - self.center) / self.scale
        if not self.counts:
            return scaled, x[..., :0]
        counted, width = x[..., self.counts].clamp(min=1.0), self.scale[self.counts]
        if is_smooth:
            steps = [(counted + (block - 1) / 2).log() / width for block in BLOCKS]
            steps.append(torch.full_like(counted, float(len(DIVISORS))))
            return scaled, torch.cat(steps, dim=-1)
        low = counted.detach().floor()
        share = counted - low
        steps = [
            torch.lerp(_full(low, block), _full(low + 1, block), share) / width for block in BLOCKS
        ]
        steps.append(torch.lerp(_divisibility(low), _divisibility(low + 1), share))
        return scaled, torch.cat(steps, dim=-1)

    def covariance(
        self,
        left: tuple[torch.Tensor, torch.Tensor],
        right: tuple[torch.Tensor, torch.Tensor],
        theta: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the covariance (..., n) of points (..., d) with n points (n, d).

        Args:
            left: Coordinates, (..., d) and (..., v).
            right: Coordinates, (n, d) and (n, v).
            theta: Hyperparameters; the kernel's own where None.
        """
        values = self._values(self.theta if theta is None else theta)
        (u, steps), (v, other_steps) = left, right
        number = max(u.shape[-1], 1)
        total = 1.0 + values["linear"] ** 2 / number * (u @ v.T)
        lengths = values["smooth_together_length"]
        order = self.sizes + self.choices
        spread = lengths[[*range(len(self.sizes)), *([len(self.sizes)] * len(self.choices))]]
        a, b = u[..., order] / spread, v[..., order] / spread
        square = (a**2).sum(-1)[..., None] + (b**2).sum(-1) - 2 * (a @ b.T)
        distance = (square.clamp(min=0.0) + _TINY).sqrt()
        total = total + values["smooth_together"] ** 2 * _matern(distance)
        roughly_apart = torch.zeros_like(distance)
        for index, size in enumerate(self.sizes):
            apart = (u[..., size, None] - v[:, size]).abs()
            total = total + (values["smooth_alone"] ** 2 / len(self.sizes)) * _matern(
                apart / values["smooth_alone_length"][index]
            )
            total = total + (values["rough_alone"] ** 2 / len(self.sizes)) * torch.exp(
                -apart / values["rough_alone_length"][index]
            )
            roughly_apart = roughly_apart + apart / values["rough_together_length"][index]
        if self.sizes:
            total = total + values["rough_together"] ** 2 * torch.exp(-roughly_apart)
        for index in range(steps.shape[-1]):
            apart = (steps[..., index, None] - other_steps[:, index]).abs()
            total = total + (values["steps"] ** 2 / steps.shape[-1]) * torch.exp(
                -apart / values["step_length"]
            )
        return total

    def variance(self, at: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """Return the covariance of each point (..., d) with itself, shape (...).

        Args:
            at: Coordinates, (..., d) and (..., v).
        """
        values = self._values(self.theta)
        (u, _), number = at, max(at[0].shape[-1], 1)
        parts = ("smooth_together", "smooth_alone", "rough_alone", "rough_together", "steps")
        constant = 1.0 + sum(values[name][0] ** 2 for name in parts if name in values)
        return constant + values["linear"][0] ** 2 / number * (u**2).sum(-1)


def _matern(distance: torch.Tensor) -> torch.Tensor:
    """Return the Matern correlation of smoothness 3/2."""
    scaled = _ROOT_3 * distance
    return (1 + scaled) * torch.exp(-scaled)


def _full(count: torch.Tensor, block: int) -> torch.Tensor:
    return ((count / block).ceil() * block).log()


def _divisibility(count: torch.Tensor) -> torch.Tensor:
    """Return how many of `DIVISORS` divide the counts."""
    return sum(
        ((count.remainder(divisor) == 0).to(count.dtype) for divisor in DIVISORS),
        start=torch.zeros_like(count),
    )

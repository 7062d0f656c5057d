"""A budget in a training loop: the augmented Lagrangian and its multipliers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from joulemap import InputError

from .constraint import Constraint

# An update that leaves more than this share of the violation raises the penalty.
SUFFICIENT_DECREASE = 0.25


class Limits(Protocol):
    """What must be met; a `Budget` has it."""

    @property
    def constraints(self) -> Sequence[Constraint]:
        """The limits, one for each cost."""

    def excess(self, widths: torch.Tensor) -> torch.Tensor:
        """Return how far each cost exceeds its limit, relative to it, `batch_shape x m`."""


class AugmentedLagrangian(torch.nn.Module):
    """sum_c (max(0, y_c + r g_c)^2 - y_c^2) / (2 r) of widths; add it to the task's loss.

    g_c is how far cost c exceeds its limit, relative to the limit, by the surrogate; y_c >= 0 its
    multiplier, r the penalty. Unlike a penalty alone it meets the budget at a finite r. The
    multipliers are in `state_dict()`.

    Source: Rockafellar, "Augmented Lagrange multiplier functions and duality in nonconvex
    programming", 1974; the form that ECC's dual step (CVPR 2019) is of.

    Args:
        budget: What must be met.
        penalty: r at first, in units of the task's loss.
        growth: What `update` multiplies r with when the violation does not shrink enough; 1
            keeps it.
        max_penalty: r does not grow beyond this.

    Raises:
        InputError: A number out of range.
    """

    multipliers: torch.Tensor
    penalty: torch.Tensor
    violation: torch.Tensor

    def __init__(
        self, budget: Limits, *, penalty: float = 1.0, growth: float = 2.0, max_penalty: float = 1e6
    ) -> None:
        super().__init__()
        if not 0 < penalty <= max_penalty < float("inf"):
            raise InputError(f"penalty is {penalty}, not above 0 and at most {max_penalty}")
        if not 1 <= growth < float("inf"):
            raise InputError(f"growth is {growth}, not a number of at least 1")
        self.budget, self.growth, self.max_penalty = budget, growth, max_penalty
        count = len(budget.constraints)
        self.register_buffer("multipliers", torch.zeros(count, dtype=torch.float64))
        self.register_buffer("penalty", torch.tensor(penalty, dtype=torch.float64))
        self.register_buffer("violation", torch.tensor(torch.inf, dtype=torch.float64))

    def forward(self, widths: torch.Tensor) -> torch.Tensor:
        """Return the term, `batch_shape`, in units of the task's loss.

        Args:
            widths: Widths in channels, `batch_shape x k`.
        """
        # Copies: an update between forward and backward must not change what backward sees.
        multipliers = self.multipliers.to(widths, copy=True)
        penalty = self.penalty.to(widths, copy=True)
        shifted = torch.relu(multipliers + penalty * self.budget.excess(widths))
        term: torch.Tensor = ((shifted**2 - multipliers**2) / (2 * penalty)).sum(-1)
        return term

    @torch.no_grad()
    def update(self, widths: torch.Tensor) -> None:
        """Move the multipliers to max(0, y + r g), after some steps on the widths.

        Args:
            widths: Widths in channels, `batch_shape x k`; of a batch the mean of g counts.

        Raises:
            InputError: The widths contain NaN or infinity.
        """
        excess = self.budget.excess(widths.to(torch.float64))
        excess = excess.reshape(-1, excess.shape[-1]).mean(0).to(self.multipliers.device)
        if not torch.isfinite(excess).all():
            raise InputError("the widths contain NaN or infinity; the multipliers were not moved")
        violation = torch.maximum(excess, -self.multipliers / self.penalty).abs().max()
        self.multipliers.copy_(torch.relu(self.multipliers + self.penalty * excess))
        if violation > SUFFICIENT_DECREASE * self.violation:
            self.penalty.copy_((self.penalty * self.growth).clamp(max=self.max_penalty))
        self.violation.copy_(violation)

    def extra_repr(self) -> str:
        """Return what is printed inside the module's brackets."""
        pairs = zip(self.budget.constraints, self.multipliers.tolist(), strict=True)
        return ", ".join(f"{constraint.name}: {value:.3g}" for constraint, value in pairs)

"""Training of small networks of neurons, all members of an ensemble at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..base.intervals import FloatArray
from .neural_module import members

HUBER = 1.345


@dataclass(frozen=True)
class Schedule:
    """How members are trained.

    Attributes:
        hidden: Neurons of each member.
        activation: 'silu' or 'selu'.
        is_robust: Huber's loss in place of the squared one.
        epochs: Steps of full-batch gradient descent, at most.
        learning_rate: Of Adam at the start; it falls to zero.
        decay: Weight decay.
        patience: Steps without a better error on held-out rows after which training ends.
    """

    hidden: int = 64
    activation: str = "silu"
    is_robust: bool = True
    epochs: int = 1000
    learning_rate: float = 3e-2
    decay: float = 1e-2
    patience: int = 150


def train(
    features: FloatArray,
    z: FloatArray,
    weights: FloatArray,
    held_out: np.ndarray,
    training: Schedule,
    seed: int,
) -> tuple[dict[str, FloatArray], float]:
    """Return the members' weights, and their error on held-out rows.

    Every member starts at zero everywhere, so that it ends there where nothing can be learned: it
    keeps the weights at which the error on its own held-out rows was smallest.

    Args:
        features: Scaled, shape (n, p); 0 where they are constant.
        z: What to learn, scaled, shape (n,).
        weights: Shape (n,), positive.
        held_out: Rows that a member does not see, shape (M, n), boolean.
        training: How.
        seed: Of the first weights.
    """
    number, count = len(held_out), features.shape[1]
    generator = torch.Generator().manual_seed(seed)
    shapes = {
        "hidden_weight": (number, count, training.hidden),
        "hidden_bias": (number, training.hidden),
        "output_weight": (number, training.hidden),
        "output_bias": (number,),
    }
    inputs = torch.tensor(features, dtype=torch.float32)
    found = {name: torch.zeros(shape) for name, shape in shapes.items()}
    found["hidden_weight"] = torch.randn(shapes["hidden_weight"], generator=generator)
    found["hidden_weight"] /= max(count, 1) ** 0.5
    found["hidden_weight"] *= (inputs != 0).any(0)[:, None]
    found["hidden_bias"] = torch.randn(shapes["hidden_bias"], generator=generator)
    outcome = torch.tensor(z, dtype=torch.float32)[:, None]
    is_out = torch.tensor(held_out.T)
    weight = torch.tensor(weights / weights.mean(), dtype=torch.float32)[:, None]
    seen = _shares(weight * ~is_out)
    unseen = _shares(weight * is_out)
    for value in found.values():
        value.requires_grad_()
    optimiser = torch.optim.AdamW(
        list(found.values()), training.learning_rate, weight_decay=training.decay
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, training.epochs)
    best = {name: value.detach().clone() for name, value in found.items()}
    lowest = torch.full((number,), float("inf"))
    stale = 0
    for _ in range(training.epochs + 1):
        missed = members(inputs, found, training.activation) - outcome
        loss = _loss(missed, is_robust=training.is_robust)
        with torch.no_grad():
            error = (loss * unseen).sum(0)
            better = error < lowest
            stale = 0 if bool((error < lowest * 0.999).any()) else stale + 1
            lowest = torch.where(better, error, lowest)
            for name, value in found.items():
                chosen = better.reshape(-1, *[1] * (value.dim() - 1))
                best[name] = torch.where(chosen, value, best[name])
        if stale > training.patience:
            break
        optimiser.zero_grad()
        (loss * seen).sum().backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    arrays: dict[str, Any] = {name: value.double().numpy() for name, value in best.items()}
    with torch.no_grad():
        missed = members(inputs, best, training.activation) - outcome
        typical = float(((missed**2).clamp(max=9.0) * unseen).sum(0).mean().sqrt())
    return arrays, typical


def _shares(weights: torch.Tensor) -> torch.Tensor:
    return weights / weights.sum(0).clamp(min=1e-12)


def _loss(missed: torch.Tensor, *, is_robust: bool) -> torch.Tensor:
    if not is_robust:
        return 0.5 * missed**2
    return torch.nn.functional.huber_loss(
        missed, torch.zeros_like(missed), reduction="none", delta=HUBER
    )

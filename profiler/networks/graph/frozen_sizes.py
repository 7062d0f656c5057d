"""Which sizes of a network's parameters stay as they are, and why."""

from __future__ import annotations

from dataclasses import dataclass

from . import axes as algebra
from .axes import Extent
from .solver import Solution
from .step import SIDES

TIED = "it meets an input, or a size that is written out"


@dataclass(frozen=True)
class FrozenSize:
    """A size that stays.

    Attributes:
        parameter: Path of the parameter, or name of the initializer.
        axis: Which of its axes.
        size: How long that is.
        reason: Why it stays.
    """

    parameter: str
    axis: int
    size: int
    reason: str


def frozen_sizes(solution: Solution) -> list[FrozenSize]:
    """Return the sizes of parameters that stay, kernels left out.

    Args:
        solution: A solved graph.
    """
    found = []
    for name, axes in solution.starts.items():
        if name not in solution.tensors.constants:
            continue
        for place, axis in enumerate(axes):
            size = algebra.size_of(axis)
            if size == 1 or not algebra.is_constant(axis):
                continue
            reason = next((text for text in map(_reason, _extents(axis)) if text), TIED)
            if SIDES not in reason:
                found.append(FrozenSize(name, place, size, reason))
    return found


def _extents(axis: algebra.Axis) -> list[Extent]:
    return [factor for block in axis for factor in block if isinstance(factor, Extent)]


def _reason(extent: Extent, depth: int = 0) -> str | None:
    if extent.reason is not None or extent.binding is None or depth > 50:
        return extent.reason
    parts = (_reason(item, depth + 1) for item in _extents(extent.binding))
    return next((text for text in parts if text), None)

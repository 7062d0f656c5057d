"""Predictions that leave what is known: a warning, and wider intervals."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import ArrayLike

from ...datasets import NetworkSpec
from .intervals import FloatArray

# Share of a width's measured range by which a prediction may leave it without a warning: of many
# samples, and more of few, whose smallest and largest lie further inside the range they come from.
FAR_OUTSIDE = 0.25
FAR_OUTSIDE_ONE_SAMPLE = 4.0
# Growth of intervals with the distance from the measured range, in ranges. Errors of models fitted
# to a half of each width's range grew by 0.5 to 3 (median 1.5) per range; see benchmarks/intervals.py.
GROWTH_OUTSIDE = 2.0


class ExtrapolationWarning(UserWarning):
    """A prediction was asked for widths outside the network's bounds or the measured ones."""


def warn_outside(
    X: FloatArray,
    spec: NetworkSpec,
    measured: FloatArray | None,
    num_samples: int,
    stacklevel: int,
) -> None:
    """Warn where widths lie outside the network's bounds or far outside the measured ones.

    Args:
        X: Widths, shape (n, k).
        spec: The network.
        measured: Smallest and largest measured width, shape (2, k); None without data.
        num_samples: Rows that were measured.
        stacklevel: Of the warning, counted from the caller.
    """
    for what, low, high in _limits(spec, measured, num_samples):
        outside = np.less(X, low) | np.greater(X, high)
        if outside.any():
            index = int(np.argmax(outside.any(axis=0)))
            warnings.warn(
                f"{int(outside.any(axis=1).sum())} of {len(X)} rows lie outside {what} (such as "
                f"{spec.width_names[index]}: {low[index]:.0f}..{high[index]:.0f}); the prediction "
                "extrapolates",
                ExtrapolationWarning,
                stacklevel=stacklevel + 1,
            )
            return


def widening(widths: torch.Tensor, measured: FloatArray | None) -> torch.Tensor:
    """Return the factor, `batch_shape`, by which intervals are wider outside the measured range.

    1 + 2 * d, where d is the Euclidean length of the distances by which widths lie beyond what was
    measured, each in units of its measured range (of its value where it never varied): 1 inside.

    Args:
        widths: Widths in channels, `batch_shape x k`.
        measured: Smallest and largest measured width, shape (2, k); None without data.
    """
    if measured is None:
        return torch.ones_like(widths[..., 0])
    low, high = torch.as_tensor(measured, dtype=widths.dtype, device=widths.device)
    reach = torch.where(high > low, high - low, high.abs().clamp(min=1.0))
    beyond = torch.maximum(low - widths, widths - high).clamp(min=0.0) / reach
    factor: torch.Tensor = 1 + GROWTH_OUTSIDE * torch.linalg.vector_norm(beyond, dim=-1)
    return factor


def _limits(
    spec: NetworkSpec, measured: FloatArray | None, num_samples: int
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    yield f"the bounds of {spec.name}", _array(spec.min_widths), _array(spec.max_widths)
    if measured is not None:
        low, high = measured
        share = FAR_OUTSIDE + FAR_OUTSIDE_ONE_SAMPLE / max(num_samples, 1)
        margin = share * np.maximum(high - low, 1.0)
        yield "what was measured and a margin", low - margin, high + margin


def _array(values: ArrayLike) -> np.ndarray:
    return np.asarray(values, dtype=np.float64)

"""The warning that a prediction leaves what is known: a network's bounds or the measured widths."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike

from ..datasets import NetworkSpec
from .intervals import FloatArray

# Share of a width's measured range by which a prediction may leave it without a warning: of many
# samples, and more of few, whose smallest and largest lie further inside the range they come from.
FAR_OUTSIDE = 0.25
FAR_OUTSIDE_ONE_SAMPLE = 4.0


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

"""Rows that occur several times, as one row of their weight."""

from __future__ import annotations

import numpy as np

from .intervals import FloatArray


def merge_repeated(
    X: FloatArray, z: FloatArray, weights: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return different rows (m, d), the weighted means of their outcomes (m,), summed weights (m,).

    Args:
        X: Rows, shape (n, d).
        z: Outcomes, shape (n,).
        weights: Positive, shape (n,).
    """
    points, inverse = np.unique(X, axis=0, return_inverse=True)
    inverse = inverse.reshape(-1)
    total = np.asarray(np.bincount(inverse, weights, len(points)), dtype=np.float64)
    return points, np.bincount(inverse, weights * z, len(points)) / total, total

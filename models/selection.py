"""Which points to measure first."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from joulemap import InputError

from .gaussian_kernel import Columns


def farthest_points(features: ArrayLike, count: int) -> NDArray[np.int64]:
    """Return the indices (count,) of points that lie far from each other.

    The first is the one nearest to the mean; each further one is the farthest from those chosen.
    Positive columns of more than two values count by their logarithm, all in standard deviations.

    Source: Gonzalez, "Clustering to minimize the maximum intercluster distance", 1985.

    Args:
        features: Points, shape (n, d).
        count: How many to choose.

    Raises:
        InputError: Fewer points than that, or values that are not finite.
    """
    points = np.asarray(features, dtype=np.float64)
    if points.ndim != 2 or not np.isfinite(points).all():
        raise InputError(f"features have shape {points.shape}; write finite numbers, (n, d)")
    if not 1 <= count <= len(points):
        raise InputError(f"{count} of {len(points)} points cannot be chosen")
    columns = Columns.of(points)
    values = points[:, columns.kept]
    logs = np.log(np.where(columns.is_log, values, 1.0))
    scaled = (np.where(columns.is_log, logs, values) - columns.center) / columns.scale
    chosen = [int(np.argmin((scaled**2).sum(axis=1)))]
    distance = np.full(len(points), np.inf)
    while len(chosen) < count:
        distance = np.minimum(distance, ((scaled - scaled[chosen[-1]]) ** 2).sum(axis=1))
        distance[chosen] = -1.0
        chosen.append(int(np.argmax(distance)))
    return np.array(chosen, dtype=np.int64)

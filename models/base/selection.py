"""Which points to measure first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from joulemap import InputError

from .intervals import FloatArray
from .kernel import Columns

# Figures of a gain that count: rounding errors, which differ between processors, must not choose.
DIGITS = 7


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


def least_variance(
    models: Sequence[FloatArray], noise: float, num_measured: int = 0
) -> Iterator[int]:
    """Yield the indices of points in the order in which measuring them makes linear models sure.

    One by one, the point whose measurement lowers most the variance of predictions, averaged over
    all points. With several models the relative decreases are added up, so that the points suit
    all of them.

    Source: Cohn, Ghahramani and Jordan, "Active learning with statistical models", 1996, for
    Bayesian linear models, where the variance depends on no measured value.

    Args:
        models: For each model its features of the same points, shape (n, p), times the prior
            standard deviations of their weights.
        noise: Variance of one measurement.
        num_measured: How many of the first points are measured already.

    Raises:
        InputError: The models have no common points, or values that are not finite.
    """
    if len({len(features) for features in models}) != 1:
        raise InputError("the models' features are not of the same points")
    posteriors = [_Posterior(features, noise) for features in models]
    for index in range(num_measured):
        for posterior in posteriors:
            posterior.measure(index)
    is_free = np.arange(len(models[0])) >= num_measured
    while is_free.any():
        gain = np.sum([posterior.gains() for posterior in posteriors], axis=0)
        index = int(np.argmax(np.where(is_free, np.round(gain / gain.max(), DIGITS), -1.0)))
        is_free[index] = False
        yield index
        for posterior in posteriors:
            posterior.measure(index)


class _Posterior:
    """What a Bayesian linear model would still not know after some measurements.

    With Z the features, A the covariance of the weights and noise of variance 1, the covariance of
    the predictions is Z A Z'; a measurement at z turns A into A - A z z' A / (1 + z' A z).

    Args:
        features: For weights of prior variance 1, shape (n, p).
        noise: Variance of the noise.
    """

    def __init__(self, features: FloatArray, noise: float) -> None:
        if not np.isfinite(features).all():
            raise InputError("the features are not finite")
        self.features = features
        self.moments = features.T @ features / len(features)
        # Z A, which is all that is needed of A.
        self.spread = features / noise

    def variances(self) -> FloatArray:
        """Return the variance of the prediction at each point, (n,), in units of the noise's."""
        return np.asarray((self.spread * self.features).sum(axis=1))

    def gains(self) -> FloatArray:
        """Return by what share a measurement at each point lowers the mean variance, shape (n,)."""
        variances = self.variances()
        decreases = ((self.spread @ self.moments) * self.spread).sum(axis=1) / (1 + variances)
        return np.asarray(decreases / variances.mean())

    def measure(self, index: int) -> None:
        """Take a measurement at a point into account."""
        change = self.spread[index] / (1 + self.spread[index] @ self.features[index])
        self.spread -= np.outer(self.spread @ self.features[index], change)

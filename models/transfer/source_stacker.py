"""The cost on a new device from the costs of the same things on other devices: arrays alone."""

from __future__ import annotations

from itertools import islice
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import nnls
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.utils.validation import check_is_fitted

from joulemap import InputError

from ..base.intervals import FloatArray, assign_folds
from ..base.repeated_rows import merge_repeated
from ..base.selection import least_variance
from ..linear.predictor import fit_ridge

# Penalties of squared distances of coefficients from those of the mean of sources.
MIXTURE_PENALTY = 0.01
LOG_PENALTY = 0.01
# Measured costs further from the mean of sources than so many robust standard deviations are
# moved there; fewer rows than the second say nothing about a standard deviation.
RESISTANCE = 4.0
LEAST_RESISTANT = 8
SMALLEST_DEVIATION = 0.02
# Left-out groups that members are weighed by; errors above the second count as it.
WEIGHING_FOLDS = 20
LARGEST_ERROR = 0.5
# What a design assumes: standard deviations of the level, of the slope on the mean of sources, of
# the slopes on each source's distance from that mean, and of what remains. All are logarithms.
LEVEL_SD, SLOPE_SD, DISTANCE_SD, REMAINDER_SD = 100.0, 1.0, 0.5, 0.05
# Logarithms further outside the quartiles than so many times their distance are faults (Tukey's
# outer fence).
FENCE = 3.0
_TINY = float(np.finfo(np.float64).tiny)


class SourceStacker(RegressorMixin, BaseEstimator):  # type: ignore[misc]  # sklearn is untyped
    """The cost on a target device from the costs on m source devices.

    The geometric mean, with weights by left-out errors, of three models whose coefficients are
    shrunk towards the mean of sources:

        mixture      cost = a_0 + sum_s a_s c_s,            a >= 0, relative errors
        power law    log cost = b_0 + sum_s b_s log c_s
        same, b >= 0

    A mixture is what a device does that is bound now as one source, now as another; exponents of
    any sign tell what sources differ by. Units of sources do not matter.

    Attributes:
        mixture_coef_: a_0 .. a_m, shape (m + 1,), in the target's unit over the sources'.
        log_coef_: b_0 .. b_m of both power laws by their weights, shape (m + 1,).
        mixture_share_: Weight of the mixture, 0 to 1.
    """

    mixture_coef_: FloatArray
    log_coef_: FloatArray
    mixture_share_: float
    n_features_in_: int

    def fit(
        self, source_costs: ArrayLike, cost: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Fit to the measured points, and return self.

        Args:
            source_costs: Costs of the same points on the sources, shape (n, m), positive.
            cost: Measured cost on the target, shape (n,), positive; repeated points may
                contradict each other.
            sample_weight: Weights of squared relative errors, shape (n,), positive.

        Raises:
            InputError: Other shapes, costs that are not positive, or fewer than 2 different points.
        """
        sources = positive_costs(source_costs)
        y = np.asarray(cost, dtype=np.float64)
        if y.shape != (len(sources),) or not np.all(np.isfinite(y) & (y > 0)):
            raise InputError(
                f"cost has shape {y.shape}; write {len(sources)} finite costs above 0, one for "
                "each row of source_costs"
            )
        weights = np.ones(len(y)) if sample_weight is None else np.asarray(sample_weight, float)
        if weights.shape != y.shape or not np.all(np.isfinite(weights) & (weights > 0)):
            raise InputError(f"sample_weight holds {weights.shape}; write {len(y)} weights above 0")
        if len(np.unique(sources, axis=0)) < 2:
            raise InputError(
                "only 1 different point was measured on the target; at least 2 are needed, and "
                "from 5 on the result is worth something"
            )
        self.fit_rows(sources, y, weights)
        return self

    def fit_rows(self, sources: FloatArray, y: FloatArray, weights: FloatArray) -> None:
        """Set the fitted attributes from checked arrays; of a single point, from sources' mean."""
        points, z, weights = merge_repeated(np.log(sources), np.log(y), weights)
        weights = weights / weights.mean()
        z = _without_outliers(points, z)
        folds, count = assign_folds(points, WEIGHING_FOLDS)
        errors = np.zeros((3, len(z)))
        for fold in range(folds.max() + 1 if count > 1 else 0):
            test = folds == fold
            members = _Members.fitted(points[~test], z[~test], weights[~test])
            errors[:, test] = members.predict(points[test]) - z[test]
        shares = weights_by_errors(errors, weights)
        members = _Members.fitted(points, z, weights)
        self.n_features_in_ = points.shape[1]
        self.mixture_share_ = float(shares[0])
        self.mixture_coef_ = members.mixture
        self.log_coef_ = (shares[1] * members.free + shares[2] * members.nonnegative) / max(
            float(shares[1:].sum()), _TINY
        )

    def predict(self, source_costs: ArrayLike) -> FloatArray:
        """Return the cost on the target, shape (n,), of points with source costs (n, m).

        Raises:
            InputError: Other shapes, or costs that are not positive.
        """
        check_is_fitted(self, "log_coef_")
        sources = positive_costs(source_costs)
        if sources.shape[1] != self.n_features_in_:
            raise InputError(
                f"source_costs has {sources.shape[1]} columns, it was fitted to "
                f"{self.n_features_in_} sources"
            )
        return self.predict_rows(sources)

    def predict_rows(self, sources: FloatArray) -> FloatArray:
        """Return the cost, shape (n,), of checked source costs (n, m)."""
        mixture = np.log(_affine(self.mixture_coef_, sources))
        power = _affine(self.log_coef_, np.log(sources))
        share = self.mixture_share_
        return np.asarray(np.exp(share * mixture + (1.0 - share) * power))

    def select(self, source_costs_pool: ArrayLike, k: int) -> NDArray[np.int64]:
        """Return the indices (k,) of the points to measure on the target, most telling first.

        Needs no fit. Each point is the one that, measured with those before it, leaves the least
        mean variance of the pool's predictions (greedy A-optimal design), so that a longer list
        begins with the shorter one. Faulty costs draw a design to them: `denoise` sources first.

        Args:
            source_costs_pool: Costs of the candidates on the sources, shape (n, m), positive.
            k: How many.

        Raises:
            InputError: Other shapes, costs that are not positive, or k is not 1 .. n.
        """
        return greedy_design(*design_columns(positive_costs(source_costs_pool)), k)


class _Members(NamedTuple):
    """The three models' coefficients, each (m + 1,) with the constant first."""

    mixture: FloatArray
    free: FloatArray
    nonnegative: FloatArray

    @classmethod
    def fitted(cls, points: FloatArray, z: FloatArray, weights: FloatArray) -> _Members:
        """Return the models of log costs (n, m) and (n,)."""
        count = points.shape[1]
        prior = np.full(count, 1.0 / count)
        constant, distance = fit_ridge(points, z - points @ prior, weights, LOG_PENALTY / len(z))
        free = np.concatenate([[constant], prior + distance])

        shares = weights / weights.sum()
        root = np.sqrt(weights)
        center, level = shares @ points, float(shares @ z)
        slopes = _nonnegative(
            (points - center) * root[:, None], (z - level) * root, prior, LOG_PENALTY
        )
        nonnegative = np.concatenate([[level - center @ slopes], slopes])

        scales = np.concatenate([[0.0], np.log(np.exp(points - center).mean(axis=0)) + center])
        design = np.exp(np.column_stack([np.zeros(len(z)), points]) - scales)
        relative = np.exp(level - z) * root
        found = _nonnegative(
            design * relative[:, None], root, np.concatenate([[0.0], prior]), MIXTURE_PENALTY
        )
        return cls(found * np.exp(level - scales), free, nonnegative)

    def predict(self, points: FloatArray) -> FloatArray:
        """Return each model's log cost, shape (3, n)."""
        mixture = np.log(_affine(self.mixture, np.exp(points)))
        return np.stack([mixture, _affine(self.free, points), _affine(self.nonnegative, points)])


def weights_by_errors(errors: FloatArray, weights: FloatArray) -> FloatArray:
    """Return models' weights (p,), sum 1: the fourth powers of their inverse left-out errors.

    Args:
        errors: Differences of logarithms, shape (p, n).
        weights: Of the rows, shape (n,).
    """
    squared = np.minimum(np.abs(errors), LARGEST_ERROR) ** 2 @ weights / weights.sum()
    trust = 1.0 / np.maximum(squared, 1e-8) ** 2
    return np.asarray(trust / trust.sum())


def positive_costs(source_costs: ArrayLike) -> FloatArray:
    """Return source costs as float64, shape (n, m).

    Raises:
        InputError: Another shape, or costs that are not finite and positive.
    """
    costs = np.asarray(source_costs, dtype=np.float64)
    if costs.ndim != 2 or 0 in costs.shape:
        raise InputError(f"source_costs has shape {costs.shape}; write (n points, m sources)")
    good = np.isfinite(costs) & (costs > 0)
    if not good.all():
        row, column = np.argwhere(~good)[0]
        raise InputError(
            f"source {column} has the cost {costs[row, column]} in row {row}; costs are finite "
            "and above 0"
        )
    return costs


def design_columns(pool: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return what a power law is linear in, (n, m + 2), and the coefficients' prior sds, (m + 2,).

    Args:
        pool: Source costs of the candidates, shape (n, m).
    """
    logs = np.log(pool)
    logs = logs - logs.mean(axis=0)
    mean = logs.mean(axis=1, keepdims=True)
    columns = np.hstack([np.ones_like(mean), mean, logs - mean])
    sds = np.array([LEVEL_SD, SLOPE_SD, *[DISTANCE_SD] * logs.shape[1]])
    return columns, sds


def greedy_design(columns: FloatArray, sds: FloatArray, k: int) -> NDArray[np.int64]:
    """Return the indices (k,) of a greedy A-optimal design of a linear model, best first.

    Args:
        columns: The model's columns at the candidates, shape (n, p).
        sds: Standard deviations of the coefficients before measuring, shape (p,).
        k: How many.

    Raises:
        InputError: k is not 1 .. n.
    """
    if isinstance(k, bool) or not 1 <= k <= len(columns):
        raise InputError(f"{k} of {len(columns)} points cannot be chosen")
    order = least_variance([columns * sds], REMAINDER_SD**2)
    return np.fromiter(islice(order, int(k)), dtype=np.int64)


def denoise(features: ArrayLike, source_costs: ArrayLike) -> FloatArray:
    """Return source costs (n, m) as boosted trees explain their logarithms by the features.

    What a table of thousands of points contains of faults and rounding, such as timings in whole
    milliseconds, is mostly gone then; costs far outside the quartiles are clipped before.

    Args:
        features: What determines the costs, such as choices as 0 and 1, shape (n, d).
        source_costs: Costs on the sources, shape (n, m), positive.

    Raises:
        InputError: Other shapes, costs that are not positive, or features that are not finite.
    """
    X, costs = np.asarray(features, dtype=np.float64), positive_costs(source_costs)
    if X.ndim != 2 or len(X) != len(costs) or not np.isfinite(X).all():
        raise InputError(
            f"features have shape {X.shape}; write finite numbers, a row for each of "
            f"{len(costs)} points"
        )
    logs = np.log(costs)
    lower, upper = np.quantile(logs, [0.25, 0.75], axis=0)
    low, high = lower - FENCE * (upper - lower), upper + FENCE * (upper - lower)
    logs = np.clip(logs, low, high)
    smooth = [
        HistGradientBoostingRegressor(max_iter=200, early_stopping=False).fit(X, column).predict(X)
        for column in logs.T
    ]
    return np.asarray(np.exp(np.clip(np.column_stack(smooth), low, high)))


def _without_outliers(points: FloatArray, z: FloatArray) -> FloatArray:
    """Return log costs (n,) with those far from the mean of sources moved towards it."""
    if len(z) < LEAST_RESISTANT:
        return z
    mean = points.mean(axis=1)
    distance = z - mean
    center = np.median(distance)
    deviation = max(1.4826 * np.median(np.abs(distance - center)), SMALLEST_DEVIATION)
    far = RESISTANCE * deviation
    return np.asarray(mean + center + np.clip(distance - center, -far, far))


def _nonnegative(
    design: FloatArray, aim: FloatArray, prior: FloatArray, penalty: float
) -> FloatArray:
    """Return x >= 0, shape (p,), of least |design x - aim|^2 + penalty |x - prior|^2."""
    root = np.sqrt(penalty)
    try:
        found, _ = nnls(
            np.vstack([design, root * np.eye(len(prior))]), np.concatenate([aim, root * prior])
        )
    except RuntimeError as error:
        raise InputError(f"the mixture of sources did not converge: {error}") from error
    return np.asarray(found)


def _affine(coefficients: FloatArray, columns: FloatArray) -> FloatArray:
    return np.asarray(coefficients[0] + columns @ coefficients[1:])

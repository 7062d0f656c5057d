"""Prediction intervals from held-out errors (cross-conformal prediction).

    error of a held-out row / what errors are measured in there  =  normalised error
    quantile of normalised errors * what errors are measured in here  =  distance to an interval's end

Errors are measured in what explains their sizes best (see `ErrorScale`): the predicted cost or a
power of it, and how unsure the model is where it says so. On each side they are measured in that
side's typical size too, for measured costs are too long more often than too short.

Source: Barber, Candes, Ramdas, Tibshirani, "Predictive inference with the jackknife+", 2021; errors
over a spread from Lei, G'Sell, Rinaldo, Tibshirani, Wasserman, "Distribution-free predictive
inference for regression", 2018, section 5.2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from joulemap import InputError

from ...datasets.metrics import NoiseFloor
from .error_scale import ErrorScale

FloatArray: TypeAlias = NDArray[np.float64]

PredictWithout: TypeAlias = Callable[[NDArray[np.bool_]], tuple[FloatArray, FloatArray | None]]

FOLDS = 5
# Errors are relative to the prediction, or to this share of the mean cost where it is larger.
SMALLEST_SCALE = 1e-3
# Errors of the typical size that each side is given beside its own.
SIDE_PRIOR = 10


@dataclass(frozen=True)
class HeldOut:
    """Measured costs beside predictions by models that were fitted without them.

    Attributes:
        measured: Measured cost, shape (n,), in the predictor's unit.
        predicted: Prediction for each of them by a fit on the other folds, shape (n,).
        weights: Weight of each, shape (n,), positive.
        num_distinct: Number of different width vectors among them.
        spread: How unsure those fits were of each, relative to the prediction, shape (n,),
            positive; None where the model does not say.
    """

    measured: FloatArray
    predicted: FloatArray
    weights: FloatArray
    num_distinct: int
    spread: FloatArray | None = None

    @cached_property
    def smallest_scale(self) -> float:
        """The smallest cost that errors are taken relative to, in the predictor's unit."""
        mean = float(np.average(np.abs(self.measured), weights=self.weights))
        return SMALLEST_SCALE * mean if mean > 0 else 1.0

    @cached_property
    def relative(self) -> FloatArray:
        """(measured - predicted) / |predicted|, shape (n,), signed fractions."""
        errors: FloatArray = (self.measured - self.predicted) / self.scale(self.predicted)
        return errors

    def scale(self, cost: Any) -> Any:
        """Return what errors at this predicted cost are relative to, in the predictor's unit.

        Args:
            cost: Predicted cost, array or tensor of `batch_shape`.
        """
        return abs(cost).clip(min=self.smallest_scale)

    @property
    def mean_error(self) -> float:
        """Weighted mean of the absolute relative errors, a fraction."""
        return float(np.average(np.abs(self.relative), weights=self.weights))

    def distances(self, coverage: float, cost: Any, spread: Any = None) -> tuple[Any, Any]:
        """Return how far the interval of one new measurement reaches below and above, in the unit.

        The weighted quantile of the normalised errors' sizes at `level(coverage)`. Of few variants
        it is the largest error, which covers about n / (n + 1): less than 0.9 for fewer than nine.

        Args:
            coverage: Share of measurements inside, between 0 and 1.
            cost: Predicted cost, array or tensor of `batch_shape`.
            spread: How unsure the model is there, likewise; None where it does not say.

        Raises:
            InputError: `coverage` is out of range.
        """
        scale, errors = self._normalised(spread is not None)
        below, above = self._sides(errors)
        sizes = np.abs(errors) / np.where(errors > 0, above, below)
        reach = self._quantile(sizes, coverage) * scale.at(cost, spread)
        return below * reach, above * reach

    def upper_distance(self, coverage: float, cost: Any, spread: Any = None) -> Any:
        """Return how far an upper bound of one new measurement lies above, >= 0, in the unit.

        Args:
            coverage: Share of measurements below the bound, between 0 and 1.
            cost: Predicted cost, array or tensor of `batch_shape`.
            spread: How unsure the model is there, likewise; None where it does not say.

        Raises:
            InputError: `coverage` is out of range.
        """
        scale, errors = self._normalised(spread is not None)
        return max(0.0, self._quantile(errors, coverage)) * scale.at(cost, spread)

    def level(self, coverage: float) -> float:
        """Return the level of the quantile that gives a coverage, at most 1.

        coverage * (1 + 1 / n), of n different variants.

        Raises:
            InputError: `coverage` is out of range.
        """
        if not 0 < coverage < 1:
            raise InputError(f"coverage is {coverage}, not between 0 and 1")
        return min(1.0, coverage * (1 + 1 / self.num_distinct))

    def mean_share(self, noise_floor: NoiseFloor | None, num_widths: int) -> float:
        """Return the share (0 to 1) of an error that remains once measuring noise is removed.

        Noise and the model's own error add in quadrature, so it is sqrt(1 - (noise / error)**2)
        with the lower end of the noise floor, to remove only what is sure to be noise. At least
        sqrt(p / n): a least-squares fit of p numbers to n variants keeps that share of the noise.

        Args:
            noise_floor: The noise floor; None if not known, then nothing is removed.
            num_widths: k; p is taken as k + 1.
        """
        if noise_floor is None or self.mean_error <= 0:
            return 1.0
        model_part = 1.0 - (noise_floor.low / self.mean_error) ** 2
        fit_part = min(1.0, (num_widths + 1) / self.num_distinct)
        return float(np.sqrt(max(model_part, fit_part)))

    def _normalised(self, has_spread: bool) -> tuple[ErrorScale, FloatArray]:
        """Return what errors are measured in, and the errors measured in it, signed, (n,)."""
        return self._by_spread if has_spread and self.spread is not None else self._by_cost

    @cached_property
    def _by_cost(self) -> tuple[ErrorScale, FloatArray]:
        return self._measured_in(None)

    @cached_property
    def _by_spread(self) -> tuple[ErrorScale, FloatArray]:
        return self._measured_in(self.spread)

    def _measured_in(self, spread: FloatArray | None) -> tuple[ErrorScale, FloatArray]:
        errors: FloatArray = self.measured - self.predicted
        scale = ErrorScale.of(
            errors,
            self.predicted,
            spread,
            self.weights,
            self.num_distinct,
            self.smallest_scale,
        )
        normalised: FloatArray = errors / scale.at(self.predicted, spread)
        return scale, normalised

    def _sides(self, errors: FloatArray) -> tuple[float, float]:
        """Return the typical sizes of errors below and above, over that of all, near 1 of few."""
        typical = float(np.average(np.abs(errors), weights=self.weights))
        if typical == 0:
            return 1.0, 1.0
        prior = SIDE_PRIOR / self.num_distinct
        sides = []
        for is_side in (errors < 0, errors > 0):
            share = self.weights * is_side / self.weights.sum()
            total = float(share @ np.abs(errors)) / typical
            sides.append((total + prior) / (float(share.sum()) + prior))
        return sides[0], sides[1]

    def _quantile(self, errors: FloatArray, coverage: float) -> float:
        level = self.level(coverage)
        order = np.argsort(errors, kind="stable")
        reached = np.cumsum(self.weights[order])
        # The slack keeps the quantile the same when a row of weight 2 is written as two rows.
        position = int(np.searchsorted(reached, level * reached[-1] * (1 - 1e-9)))
        return float(errors[order][min(position, len(errors) - 1)])


def hold_out(
    X: FloatArray,
    y: FloatArray,
    weights: FloatArray,
    predict_without: PredictWithout,
) -> HeldOut:
    """Return predictions for every row by fits on the other folds.

    Equal rows of X share a fold, so a re-visited variant is never predicted from itself, and the
    folds depend neither on the order of rows nor on how often one is repeated.

    Args:
        X: Widths and conditions, shape (n, m), at least two different rows.
        y: Cost, shape (n,).
        weights: Positive weights, shape (n,).
        predict_without: Takes which rows are left out, shape (n,), and returns predictions for
            them by a fit to the others, and their spread or None.
    """
    folds, num_distinct = assign_folds(X, FOLDS)
    predicted, spread = np.empty_like(y), np.full_like(y, np.nan)
    for fold in range(folds.max() + 1):
        test = folds == fold
        predicted[test], found = predict_without(test)
        spread[test] = np.nan if found is None else found
    is_known = bool(np.all(np.isfinite(spread)))
    return HeldOut(y, predicted, weights, num_distinct, spread if is_known else None)


def assign_folds(X: FloatArray, count: int, seed: int = 0) -> tuple[NDArray[np.int64], int]:
    """Return the fold of each row, shape (n,), and the number of different rows.

    Args:
        X: Rows, shape (n, m); equal rows get the same fold.
        count: Folds; fewer when there are fewer different rows.
        seed: Seed of the assignment.
    """
    distinct, inverse = np.unique(X, axis=0, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(distinct))
    folds: NDArray[np.int64] = order[inverse.reshape(-1)] % min(count, len(distinct))
    return folds, len(distinct)

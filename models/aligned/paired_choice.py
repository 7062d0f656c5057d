"""Which of several models to believe, from the errors of each on the same held-out rows.

Errors of two models on the same rows share most of their noise, so their differences are judged,
row by row; visits of one variant count once. Fits to folds overlap, which makes differences look
surer than they are: their standard errors are corrected for that.

Source: Nadeau and Bengio, "Inference for the generalization error", 2003.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy import stats

from ..base.intervals import FOLDS, FloatArray

# Of a mean over K folds the variance is 1 + K / (K - 1) times that of independent rows.
OVERLAP = float(np.sqrt(1 + FOLDS / (FOLDS - 1)))


class PairedErrors:
    """Errors of models on the same held-out rows.

    Args:
        variants: Which variant each row is a visit of, from 0 on, shape (n,).
        weights: Of the rows, shape (n,), positive.
    """

    def __init__(self, variants: np.ndarray, weights: FloatArray) -> None:
        self.variants, self.weights = variants, weights
        self.shares = np.bincount(variants, weights) / weights.sum()

    def mean(self, errors: FloatArray) -> float:
        """Return the weighted mean of errors (n,)."""
        return float(np.average(errors, weights=self.weights))

    def excess(self, errors: FloatArray, others: FloatArray) -> tuple[float, float]:
        """Return by how much the errors exceed the others, and the standard error of that.

        Args:
            errors: Of one model, shape (n,).
            others: Of another on the same rows, shape (n,).
        """
        total = self.weights.sum()
        sums = np.bincount(self.variants, self.weights * (errors - others)) / total
        mean, count = float(sums.sum()), len(sums)
        variance = float(((sums - self.shares * mean) ** 2).sum()) * count / max(count - 1, 1)
        return mean, OVERLAP * float(np.sqrt(variance))

    def is_clear(
        self, errors: FloatArray, others: FloatArray, least_gain: float, level: float
    ) -> bool:
        """Return whether the errors are above the others by more than chance and by what matters.

        Args:
            errors: Of the simpler model, shape (n,).
            others: Of the other, shape (n,).
            least_gain: Share of its error that the other has to save.
            level: One minus the share of chance differences that may pass for real ones.
        """
        excess, uncertainty = self.excess(errors, others)
        if excess <= least_gain * self.mean(others):
            return False
        return excess > _quantile(level, len(self.shares) - 1) * uncertainty

    def first_not_worse(self, errors: Sequence[FloatArray], least_gain: float, level: float) -> int:
        """Return which model is the first, of the simplest first, that the best does not clearly beat.

        Args:
            errors: Of each model, shape (n,) each.
            least_gain: As for `is_clear`.
            level: Likewise.
        """
        best = min(errors, key=self.mean)
        return next(
            place
            for place, found in enumerate(errors)
            if found is best or not self.is_clear(found, best, least_gain, level)
        )


@lru_cache(maxsize=256)
def _quantile(level: float, freedom: int) -> float:
    return float(stats.t.ppf(level, max(freedom, 1)))

"""How a predictor's error on held-out variants falls with the number of samples."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from joulemap import InputError

from ..datasets import metrics
from . import registry
from .base.fittable import FittableDataset
from .base.intervals import FloatArray, assign_folds
from .base.predictor import Predictor
from .base.training import Training

FOLDS = 5


@dataclass(frozen=True)
class LearningCurve:
    """One model's error on held-out variants at several numbers of samples.

    Attributes:
        model: Name of the model.
        counts: Rows that it was fitted on, rising, shape (m,).
        mapes: Mean of |y - prediction| / y on each fold, a fraction, shape (m, folds).
    """

    model: str
    counts: tuple[int, ...]
    mapes: FloatArray

    @property
    def mean(self) -> FloatArray:
        """Mean error over folds, a fraction, shape (m,)."""
        return np.asarray(self.mapes.mean(axis=1))

    @property
    def spread(self) -> FloatArray:
        """Standard deviation of the error over folds, a fraction, shape (m,)."""
        return np.asarray(self.mapes.std(axis=1))


def learning_curves(
    predictor: Predictor,
    ds: FittableDataset,
    baselines: Sequence[str] = (),
    *,
    points: int = 6,
    seed: int = 0,
) -> tuple[list[LearningCurve], list[Predictor]]:
    """Return errors on held-out variants at rising numbers of samples, and the largest fits.

    Every fold is held out once; models are fitted on growing parts of the other folds, in the same
    random order for all models.

    Args:
        predictor: A fitted predictor; copies of it are fitted, to its target of the dataset.
        ds: The measurements.
        baselines: Names of further models.
        points: Numbers of samples, at most.
        seed: Seed of folds and order.

    Returns:
        One curve per model, the predictor's first, without those that need more samples; and the
        predictor fitted on all but one fold, for each fold.
    """
    X, y, weights = ds.xyw(predictor.target_)
    folds, distinct = assign_folds(X, FOLDS, seed)
    needed = predictor.num_needed(X.shape[1])
    smallest = min(int((folds != fold).sum()) for fold in range(FOLDS))
    if distinct < FOLDS or smallest < needed or np.any(y <= 0):
        return [], []
    start = min(smallest, max(needed, 8))
    counts = tuple(map(int, np.unique(np.geomspace(start, smallest, points).round())))
    orders = [
        np.random.default_rng([seed, fold]).permutation(np.flatnonzero(folds != fold))
        for fold in range(FOLDS)
    ]
    training = Training(X, y, weights, predictor.unit_, predictor.target_)
    models = {_name(predictor): predictor}
    for name in baselines:
        model = registry.predictor_class(name)(ds.spec)
        model.bind(ds.width_names, unit=predictor.unit_, target=predictor.target_)
        models.setdefault(name, model)
    curves, largest = [], []
    for name, model in models.items():
        rows, reached = [], []
        for count in counts:
            errors = []
            for fold, order in enumerate(orders):
                used = order[:count]
                try:
                    fitted = fit_rows(model, training.rows(used))
                except InputError:
                    break  # too few different widths among so few rows
                if model is predictor and count == counts[-1]:
                    largest.append(fitted)
                test = folds == fold
                errors.append(metrics.mape(y[test], fitted.predict_arrays(X[test])))
            if len(errors) == FOLDS:
                reached.append(count)
                rows.append(errors)
        if rows:
            curves.append(LearningCurve(name, tuple(reached), np.array(rows)))
    return curves, largest


def fit_rows(model: Predictor, training: Training) -> Predictor:
    """Return a copy of a bound predictor, fitted to some rows without holding any out.

    Args:
        model: The predictor; it is not changed.
        training: The rows.

    Raises:
        InputError: Too few rows of different widths.
    """
    if len(np.unique(training.X, axis=0)) < model.num_needed(training.X.shape[1]):
        raise InputError(f"{len(training.X)} rows are too few for {type(model).__name__}")
    fitted = copy.copy(model)
    fitted.fit_arrays(training)
    return fitted


def _name(predictor: Predictor) -> str:
    try:
        return registry.name_of(predictor)
    except InputError:
        return type(predictor).__name__.removesuffix("Predictor").lower()

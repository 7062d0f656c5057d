"""Fit a predictor by its name, and compare predictors by cross-validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import clone

from joulemap import InputError

from ..datasets import metrics
from ..datasets.metrics import NoiseFloor
from . import registry
from .base.fittable import FittableDataset
from .base.intervals import assign_folds
from .base.predictor import Predictor

BASELINES = ("flops", "params")


def fit(
    ds: FittableDataset,
    model: str = "aligned",
    target: str = "latency_s",
    **hyperparameters: Any,
) -> Predictor:
    """Return a predictor of `model` fitted to one target of a dataset.

    Args:
        ds: The measurements.
        model: A name of `joulemap.models.registry.names()`.
        target: Column to predict, such as 'energy_j'.
        **hyperparameters: Arguments of the predictor, such as `method="ridge"`.

    Raises:
        InputError: Unknown model or hyperparameter, or the data cannot be fitted.
    """
    predictor = _make(model, hyperparameters)
    return predictor.fit_dataset(ds, target)


@dataclass(frozen=True)
class CrossValidationRow:
    """One model's errors on held-out variants.

    Attributes:
        model: Name of the model.
        mape: Mean over folds of the mean |y - prediction| / y, a fraction.
        mape_std: Standard deviation of that over folds.
        spearman: Mean over folds of the rank correlation.
        fold_mapes: The error of each fold.
    """

    model: str
    mape: float
    mape_std: float
    spearman: float
    fold_mapes: tuple[float, ...]


@dataclass(frozen=True)
class CrossValidation:
    """Errors of several models on the same folds, beside the noise floor.

    Attributes:
        rows: One per model, the lowest error first.
        target: Name of the cost.
        unit: Its unit.
        num_samples: Measurements.
        noise_floor: Noise floor of the data, None without re-visited variants.
    """

    rows: tuple[CrossValidationRow, ...]
    target: str
    unit: str
    num_samples: int
    noise_floor: NoiseFloor | None

    def __getitem__(self, model: str) -> CrossValidationRow:
        """Return the row of a model."""
        for row in self.rows:
            if row.model == model:
                return row
        raise KeyError(model)

    def to_pandas(self) -> pd.DataFrame:
        """Return one row per model: model, mape, mape_std, spearman, noise_floor (fractions)."""
        floor = self.noise_floor.value if self.noise_floor else float("nan")
        return pd.DataFrame(
            [
                {
                    "model": row.model,
                    "mape": row.mape,
                    "mape_std": row.mape_std,
                    "spearman": row.spearman,
                    "noise_floor": floor,
                }
                for row in self.rows
            ]
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the table as a dictionary for JSON."""
        return {
            "target": self.target,
            "unit": self.unit,
            "num_samples": self.num_samples,
            "noise_floor": self.noise_floor.to_dict() if self.noise_floor else None,
            "models": [
                {
                    "model": row.model,
                    "mape": row.mape,
                    "mape_std": row.mape_std,
                    "spearman": row.spearman if np.isfinite(row.spearman) else None,
                }
                for row in self.rows
            ],
        }

    def __str__(self) -> str:
        """Return the table as text, errors in percent."""
        floor = self.noise_floor.describe() if self.noise_floor else "not known"
        size = max(12, *(len(row.model) + 2 for row in self.rows))
        lines = [
            f"{self.target}, {self.num_samples} measurements, noise floor {floor}",
            f"{'model':<{size}}{'error':>8}{'+-':>8}{'rank':>8}",
        ]
        lines += [
            f"{row.model:<{size}}{row.mape:>8.2%}{row.mape_std:>8.2%}{row.spearman:>8.3f}"
            for row in self.rows
        ]
        return "\n".join(lines)


def cross_validate(
    ds: FittableDataset,
    models: Sequence[str | Predictor] = ("bilinear",),
    target: str = "latency_s",
    *,
    splits: int = 5,
    seed: int = 0,
) -> CrossValidation:
    """Return errors of models on held-out variants; the baselines are always among them.

    All models see the same folds, and visits of one variant share a fold.

    Args:
        ds: The measurements.
        models: Names, or unfitted predictors with hyperparameters.
        target: Column to predict.
        splits: Folds, at least 2.
        seed: Seed of the folds.

    Raises:
        InputError: Unknown model, too few variants for the folds, or costs that are not positive.
    """
    X, y, _ = ds.xyw(target)
    if splits < 2:
        raise InputError(f"splits is {splits}, not at least 2")
    folds, distinct = assign_folds(np.asarray(X, dtype=np.float64), splits, seed)
    if distinct < splits:
        raise InputError(f"{distinct} different variants cannot be split into {splits} folds")
    candidates = {_label(model): model for model in (*models, *BASELINES)}
    rows = []
    for label, model in candidates.items():
        errors, ranks = [], []
        predictions = _fresh(model).predict_held_out(ds, target, folds)
        for fold in range(splits):
            test = folds == fold
            prediction = predictions[test]
            errors.append(metrics.mape(y[test], prediction))
            ranks.append(metrics.spearman(y[test], prediction) if test.sum() > 1 else np.nan)
        known = [rank for rank in ranks if np.isfinite(rank)]
        rows.append(
            CrossValidationRow(
                model=label,
                mape=float(np.mean(errors)),
                mape_std=float(np.std(errors)),
                spearman=float(np.mean(known)) if known else float("nan"),
                fold_mapes=tuple(errors),
            )
        )
    rows.sort(key=lambda row: row.mape)
    return CrossValidation(tuple(rows), target, ds.unit(target), len(y), ds.noise_floor(target))


def _make(model: str, hyperparameters: dict[str, Any]) -> Predictor:
    cls = registry.predictor_class(model)
    known = [name for name in cls().get_params(deep=False) if name != "spec"]
    if unknown := sorted(set(hyperparameters) - set(known)):
        raise InputError(
            f"model '{model}' has no hyperparameter '{unknown[0]}'; known: {', '.join(known)}"
        )
    return cls(**hyperparameters)


def _fresh(model: str | Predictor) -> Predictor:
    return _make(model, {}) if isinstance(model, str) else clone(model)


def _label(model: str | Predictor) -> str:
    if isinstance(model, str):
        return model
    defaults = type(model)().get_params(deep=False)
    changed = [
        f"{name}={value!r}"
        for name, value in model.get_params(deep=False).items()
        if name not in ("spec", *model.part_names) and value != defaults[name]
    ]
    return registry.name_of(model) + (f" ({', '.join(changed)})" if changed else "")

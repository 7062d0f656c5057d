"""Checks of what `fit` and `predict` are given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.utils.validation import check_array

from joulemap import InputError

from .intervals import FloatArray

if TYPE_CHECKING:
    from .predictor import Predictor

CONDITIONS = ("batch", "resolution", "precision", "runtime", "threads")


def conditions_of(X: Any, predictor: Predictor) -> dict[str, Any]:
    """Return the conditions that a DataFrame has beside the widths; nothing of an array.

    Raises:
        InputError: One of them varies.
    """
    found: dict[str, Any] = {}
    if predictor.spec is None or not hasattr(X, "columns") or not len(X):
        return found
    for name in CONDITIONS:
        if name not in X.columns or name in predictor.spec.width_names:
            continue
        values = pd.unique(np.asarray(X[name]))
        if len(values) > 1:
            raise varying_conditions(type(predictor).__name__, (name,))
        if pd.isna(values[0]):
            continue
        found[name] = values[0].item() if isinstance(values[0], np.generic) else values[0]
    return found


def refuse_too_few(X: FloatArray, predictor: Predictor) -> None:
    """Check that there are enough different rows.

    Raises:
        InputError: There are fewer than the predictor needs.
    """
    needed = predictor.num_needed(X.shape[1])
    distinct = len(np.unique(X, axis=0)) if len(X) else 0
    if distinct < needed:
        given = "1 sample" if distinct == 1 else f"{distinct} samples"
        raise InputError(
            f"{given} of different widths and positive weight given, but "
            f"{type(predictor).__name__} with {X.shape[1]} widths needs at least {needed}"
        )


def checked_weights(sample_weight: Any, count: int) -> FloatArray:
    """Return the weights of rows as an array, shape (count,); ones where none are given.

    Raises:
        InputError: NaN, another length, a negative weight, or nothing but zeros.
    """
    if sample_weight is None:
        return np.ones(count)
    try:
        weights: FloatArray = check_array(
            np.asarray(sample_weight, dtype=np.float64),
            ensure_2d=False,
            dtype=np.float64,
            input_name="sample_weight",
        )
    except ValueError as error:
        raise as_input_error(error) from error
    if weights.shape != (count,) and weights.ndim:
        raise InputError(f"sample_weight has shape {weights.shape}, X has {count} rows")
    weights = np.broadcast_to(weights, (count,))
    if not np.any(weights):
        raise InputError("all sample weights are zero")
    if np.any(weights < 0):
        raise InputError(f"sample_weight has {float(weights.min())}; weights are at least 0")
    return weights


def varying_conditions(predictor: str, names: Sequence[str]) -> InputError:
    """Return the error for conditions that are not the same in all rows."""
    return InputError(
        f"{', '.join(names)} varies in the data, and {predictor} fits one set of conditions; "
        "select the rows of one and fit a predictor for each"
    )


def as_input_error(error: ValueError) -> InputError:
    """Return an error of scikit-learn's checks as one of joulemap's, with its sentence."""
    return error if isinstance(error, InputError) else InputError(str(error))

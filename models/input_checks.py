"""Checks of what `fit` and `predict` are given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.utils.validation import check_array

from joulemap import InputError

from .intervals import FloatArray


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

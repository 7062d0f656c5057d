"""Checks of what `fit` and `predict` are given."""

from __future__ import annotations

from collections.abc import Sequence
from math import frexp
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils.validation import check_array

from joulemap import InputError

from .intervals import FloatArray

# A cost or a feature outside these was never measured; products of them would leave the numbers.
LEAST_COST, LARGEST_COST = 1e-30, 1e30
LARGEST_FEATURE = 1e60
LARGEST_WIDTH = 10**9

CONDITIONS = ("batch", "resolution", "precision", "runtime", "threads")


def conditions_of(X: Any, width_names: Sequence[str], predictor: str) -> dict[str, Any]:
    """Return the conditions that a DataFrame has beside the widths; nothing of an array.

    Args:
        X: What was given to fit or predict.
        width_names: Names of the network's widths.
        predictor: Name of the predictor's class.

    Raises:
        InputError: One of them varies.
    """
    found: dict[str, Any] = {}
    if not hasattr(X, "columns") or not len(X):
        return found
    for name in CONDITIONS:
        if name not in X.columns or name in width_names:
            continue
        values = pd.unique(np.asarray(X[name]))
        if len(values) > 1:
            raise varying_conditions(predictor, (name,))
        if pd.isna(values[0]):
            continue
        found[name] = values[0].item() if isinstance(values[0], np.generic) else values[0]
    return found


def refuse_odd_costs(y: FloatArray) -> None:
    """Check that costs can have been measured.

    Args:
        y: Costs, shape (n,), no NaN.

    Raises:
        InputError: One is 0, negative, infinite or beyond every plausible size; it names the row.
    """
    bad = np.flatnonzero(~((y >= LEAST_COST) & (y <= LARGEST_COST)))
    if len(bad):
        raise InputError(
            f"row {bad[0] + 1} of y is a cost of {y[bad[0]]:g}; a cost is positive, between "
            f"{LEAST_COST:g} and {LARGEST_COST:g} in its SI unit. Leave the row out or mend it"
        )


def refuse_odd_widths(X: FloatArray, names: Sequence[str], *, is_network: bool) -> None:
    """Check that a network can have widths, or that features are of a size to compute with.

    Args:
        X: Widths or features, shape (n, k), no NaN.
        names: Names of the columns.
        is_network: Whether they are widths of a network, which are whole numbers of channels.

    Raises:
        InputError: One is not; it names row and column.
    """
    if is_network:
        bad = ~((X >= 1) & (X <= LARGEST_WIDTH) & (np.floor(X) == X))
        wanted = f"widths are whole numbers of channels, 1 to {LARGEST_WIDTH:,}"
    else:
        bad, wanted = np.abs(X) > LARGEST_FEATURE, f"features are at most {LARGEST_FEATURE:g}"
    if bad.any():
        row, column = (int(place) for place in np.argwhere(bad)[0])
        raise InputError(f"row {row + 1} of X has {names[column]} {X[row, column]:g}; {wanted}")


def not_finite_at(X: Any, y: Any = None) -> str:
    """Return where the first value is that is NaN or infinite, as ' (row 3, column a)', or ''."""
    for values in (X, y):
        if np.iscomplexobj(values):
            continue
        try:
            array = np.asarray(values, dtype=np.float64)
        except (TypeError, ValueError):
            continue
        places = np.argwhere(~np.isfinite(array))
        if array.ndim not in (1, 2) or not len(places):
            continue
        named = list(getattr(values, "columns", ()))
        where = f"row {places[0][0] + 1}"
        if array.ndim == 2:
            column = int(places[0][1])
            where += f", column {named[column] if named else column + 1}"
        return f" ({where})"
    return ""


def refuse_too_few(X: FloatArray, needed: int, predictor: str) -> None:
    """Check that there are enough different rows.

    Args:
        X: Widths of the rows, shape (n, k).
        needed: The least number of different ones.
        predictor: Name of the predictor's class.

    Raises:
        InputError: There are fewer than the predictor needs.
    """
    distinct = len(np.unique(X, axis=0)) if len(X) else 0
    if distinct < needed:
        given = "1 sample" if distinct == 1 else f"{distinct} samples"
        raise InputError(
            f"{given} of different widths and positive weight given, but "
            f"{predictor} with {X.shape[1]} widths needs at least {needed}"
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
    largest, least = float(weights.max()), float(weights[weights > 0].min())
    if largest > LARGEST_COST * least:
        raise InputError(
            f"sample_weight goes from {least:g} to {largest:g}; beyond {LARGEST_COST:g} times the "
            "smallest the others count nothing"
        )
    # Of a size to compute with; a power of two changes no digit.
    return weights if 1e-60 < least <= largest < 1e60 else np.ldexp(weights, -frexp(largest)[1])


def varying_conditions(predictor: str, names: Sequence[str]) -> InputError:
    """Return the error for conditions that are not the same in all rows."""
    return InputError(
        f"{', '.join(names)} varies in the data, and {predictor} fits one set of conditions; "
        "select the rows of one and fit a predictor for each"
    )


def as_input_error(error: ValueError, where: str = "") -> InputError:
    """Return an error of scikit-learn's checks as one of joulemap's, with its sentence.

    Args:
        error: What was raised.
        where: The place of what is wrong, see `not_finite_at`.
    """
    return error if isinstance(error, InputError) else InputError(f"{error!s:.300}{where}")

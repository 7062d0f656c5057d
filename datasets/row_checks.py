"""Whether the rows of a table agree with themselves: each cost inside its own interval, for one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from joulemap import InputError

from .network_spec import NetworkSpec

# What writing numbers as decimal texts may change.
_ROUNDING = 1e-9
_COUNTS = ("num_visits", "num_failed_visits", "num_rejected_visits")
_SHARES = ("steal_share",)
_TEXTS = ("spec_id", "variant_id", "resolution", "precision", "runtime", "energy_source")
_AT_LEAST_ONE = ("batch", "threads")


def check_rows(frame: pd.DataFrame, cost_names: Sequence[str]) -> None:
    """Refuse rows that no measurement gives.

    Args:
        frame: A dataset's columns.
        cost_names: Those that are costs; what is known about each stands in columns beside it.

    Raises:
        InputError: A cost lies outside its own interval, an error or a count is negative, a number
            is not finite, or a text is none.
    """
    for name in cost_names:
        stem, _, unit = name.rpartition("_")
        cost = _numbers(frame, name)
        low, high = (_numbers(frame, f"{stem}_ci_{end}_{unit}") for end in ("low", "high"))
        slack = _ROUNDING * np.abs(cost)
        _refuse(frame, name, low > cost + slack, "lies below its own interval", low)
        _refuse(frame, name, high < cost - slack, "lies above its own interval", high)
        about = f"{stem}_standard_error_{unit}"
        _refuse(frame, about, _numbers(frame, about) < 0, "is negative")
        for half in ("a", "b"):
            about = f"{stem}_revisit_{half}_{unit}"
            _refuse(frame, about, _numbers(frame, about) <= 0, "is not above 0")
    for name in _COUNTS:
        values = _numbers(frame, name)
        _refuse(frame, name, (values < 0) | (values % 1 != 0) & ~np.isnan(values), "is no count")
    for name in _AT_LEAST_ONE:
        values = _numbers(frame, name)
        _refuse(frame, name, ~(values >= 1) | (values % 1 != 0), "is no count above 0")
    for name in _SHARES:
        values = _numbers(frame, name)
        _refuse(frame, name, (values < 0) | (values > 1), "is no share between 0 and 1")
    for name in _TEXTS:
        for number, value in enumerate(frame[name] if name in frame.columns else (), start=1):
            if not (isinstance(value, str) or pd.isna(value)):
                raise InputError(f"row {number}: {name} is {str(value)[:50]}, not a text")


def check_widths(frame: pd.DataFrame, specs: Mapping[str, NetworkSpec]) -> None:
    """Refuse rows whose widths the network of their `spec_id` does not have.

    Args:
        frame: A dataset's columns, among them every width of every network.
        specs: Fingerprint to network.

    Raises:
        InputError: A width is no int, out of bounds, or no multiple of what it has to be.
    """
    for spec_id, spec in specs.items():
        rows = np.flatnonzero(frame["spec_id"] == spec_id)
        for width in spec.widths:
            try:
                column = frame[width.name].to_numpy(dtype=np.float64, na_value=np.nan)
            except (TypeError, ValueError) as error:
                raise InputError(f"the width {width.name} has values that are no ints") from error
            values = column[rows]
            good = (width.min <= values) & (values <= width.max) & (values % width.multiple == 0)
            if not good.all():
                row = rows[np.flatnonzero(~good)[0]]
                multiple = f" in multiples of {width.multiple}" if width.multiple > 1 else ""
                raise InputError(
                    f"row {row + 1}: the width {width.name} is {column[row]:g}, not an int in "
                    f"{width.min}..{width.max}{multiple}"
                )


def _numbers(frame: pd.DataFrame, name: str) -> npt.NDArray[np.float64]:
    """Return a column's numbers, NaN where missing; all NaN for a column that is not there.

    Raises:
        InputError: It holds something else, or a number that is not finite.
    """
    if name not in frame.columns:
        return np.full(len(frame), np.nan)
    try:
        values = frame[name].to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise InputError(f"the column {name} holds something else than numbers") from error
    _refuse(frame, name, np.isinf(values), "is not finite")
    return values


def _refuse(
    frame: pd.DataFrame,
    name: str,
    is_bad: npt.NDArray[np.bool_],
    why: str,
    bound: Any = None,
) -> None:
    """Refuse the first row that is bad."""
    if not is_bad.any():
        return
    row = int(np.flatnonzero(is_bad)[0])
    limit = "" if bound is None else f" ({bound[row]:.6g})"
    raise InputError(
        f"row {row + 1}: {name} is {str(frame[name].iloc[row])[:50]}, which {why}{limit}"
    )

"""A user's own table of costs, brought into the columns and units of a dataset."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from joulemap import InputError

from .field_checks import name_of
from .network_spec import NetworkSpec
from .records import CONDITION_NAMES
from .units import si_column, unit_named, unit_of_column

FloatArray = npt.NDArray[np.float64]

DEFAULT_CONDITIONS: Mapping[str, Any] = {
    "batch": 1,
    "precision": "fp32",
    "runtime": "unknown",
    "threads": 1,
}


def canonical_frame(
    df: pd.DataFrame, spec: NetworkSpec, units: Mapping[str, str], *, about: Collection[str]
) -> pd.DataFrame:
    """Return the table with the columns of a dataset, costs in SI units.

    Args:
        df: Widths by name (or as `sparsity_<name>`), conditions where known, costs.
        spec: The network.
        units: Cost column to unit, for columns whose names end in none.
        about: Columns that are neither widths, conditions nor costs and are kept as they are.

    Raises:
        InputError: See `CostDataset.from_frame`.
    """
    if unknown := sorted(set(units) - set(map(str, df.columns))):
        raise InputError(
            f"a unit is given for '{unknown[0]}', which is no column; columns: "
            f"{', '.join(map(str, df.columns))}"
        )
    if len(df) == 0:
        raise InputError("the table has no rows")
    columns: dict[str, Any] = {"spec_id": [spec.fingerprint] * len(df)}
    widths = _widths_of(df, spec)
    columns.update({name: widths[:, i] for i, name in enumerate(spec.width_names)})
    columns["resolution"] = ["x".join(map(str, spec.input_shape[1:]))] * len(df)
    for name, value in DEFAULT_CONDITIONS.items():
        columns[name] = df[name].to_numpy() if name in df.columns else [value] * len(df)
    ignored = {
        *spec.width_names,
        *CONDITION_NAMES,
        *(f"sparsity_{n}" for n in spec.width_names),
    }
    for column in map(str, df.columns):
        if column in about:
            columns.setdefault(column, df[column].to_numpy())
        elif column not in ignored:
            name, values = _cost_column(df, column, units.get(column))
            if name in columns:
                raise InputError(f"two columns of the table become '{name}'")
            columns[name] = values
    return pd.DataFrame(columns)


def _widths_of(df: pd.DataFrame, spec: NetworkSpec) -> npt.NDArray[np.int64]:
    columns = []
    for width in spec.widths:
        if width.name in df.columns:
            values = _numbers(df, width.name)
        elif f"sparsity_{width.name}" in df.columns:
            values = np.round((1.0 - _numbers(df, f"sparsity_{width.name}")) * width.max, 6)
        else:
            raise InputError(
                f"the table has no column for the width '{width.name}' of {spec.name} "
                f"(nor 'sparsity_{width.name}')"
            )
        columns.append(values)
    table = np.column_stack(columns)
    for number, row in enumerate(table, start=1):
        if not np.isfinite(row).all():
            raise InputError(f"row {number} of the table lacks a width")
        try:
            spec.check_widths(list(row))
        except InputError as error:
            raise InputError(f"row {number} of the table: {error}") from error
    return table.astype(np.int64)


def _cost_column(df: pd.DataFrame, column: str, unit: str | None) -> tuple[str, FloatArray]:
    name_of("a column of the table", column)
    known = unit_named(unit) if unit is not None else unit_of_column(column)
    if known is None:
        raise InputError(
            f"column '{column}' has no unit; say which (for example {column}=ms), or leave the "
            "column out"
        )
    values = _numbers(df, column) * known.factor
    bad = np.flatnonzero(np.isinf(values) | (values <= 0))
    if len(bad):
        raise InputError(
            f"row {bad[0] + 1} of the table has {column} {df[column].iloc[bad[0]]}; a cost is "
            "positive and finite, or missing"
        )
    return si_column(column, known), values


def _numbers(df: pd.DataFrame, column: str) -> FloatArray:
    try:
        return df[column].to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError):
        for number, value in enumerate(df[column], start=1):
            try:
                float(value)
            except (TypeError, ValueError):
                raise InputError(
                    f"row {number} of the table has {column} {str(value)[:50]!r}, not a number"
                ) from None
        raise

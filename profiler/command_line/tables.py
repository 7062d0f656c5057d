"""The user's tables on their way in: CSV files of costs and of width vectors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from joulemap import InputError
from joulemap.regular_files import read_text

from ...datasets import CostDataset, NetworkSpec
from ...datasets.csv_file import csv_content
from ...datasets.records import CONDITION_NAMES
from .. import networks

if TYPE_CHECKING:
    from ...models.base.measured_under import Difference
    from ...models.base.predictor import Predictor

MAX_SPEC_BYTES = 64 << 20


def read_csv(file: str | Path) -> pd.DataFrame:
    """Return a CSV file as a table, that of standard input for `-`; only an empty cell is missing.

    Raises:
        InputError: The file cannot be read.
    """
    try:
        content = csv_content(file)
        table = pd.read_csv(content, keep_default_na=False, na_values=[""], dtype=str)
    except FileNotFoundError as error:
        raise InputError(f"cannot read {file}: {error.strerror}") from error
    except InputError:
        raise
    except (ValueError, pd.errors.ParserError) as error:
        raise InputError(f"cannot read {file}: {str(error)[:300]}") from error
    for column in table.columns:
        table[column] = _numbers_where_possible(table[column], f"{file}, column '{column}'")
    return table


def _numbers_where_possible(column: pd.Series[Any], where: str) -> pd.Series[Any]:
    """Return a column of texts as numbers if all of them are; a written NaN is a mistake."""
    text = column.str.strip()
    written = text.str.lower().str.lstrip("+-").isin(["nan", "inf", "infinity"])
    if written.any():
        row = int(written.to_numpy().argmax())
        raise InputError(
            f"{where}, row {row + 1} has '{column.iloc[row]}'; leave a missing value empty"
        )
    numbers = pd.to_numeric(text, errors="coerce")
    return text if (numbers.isna() & text.notna()).any() else numbers


def resolve_spec(name: str) -> NetworkSpec:
    """Return the spec that a user names: a zoo network, a factory, or a JSON file.

    Raises:
        InputError: There is none.
    """
    if name.endswith(".json"):
        try:
            return NetworkSpec.from_json(read_text(name, MAX_SPEC_BYTES))
        except OSError as error:
            raise InputError(f"cannot read the network spec {name}: {error.strerror}") from error
    return networks.get(name)


def import_csv(file: str | Path, spec: str, units: Sequence[str]) -> CostDataset:
    """Return a user's CSV file as a dataset.

    Args:
        file: One row per measurement; widths in channels by name, costs.
        spec: The network, see `resolve_spec`.
        units: `column=unit` for cost columns whose names end in no unit.

    Raises:
        InputError: The file, the spec or a unit cannot be used.
    """
    table = read_csv(file)
    by_column: dict[str, str] = {}
    for item in units:
        column, equals, unit = item.partition("=")
        if not equals or not column or not unit:
            raise InputError(f"--unit {item}: write column=unit, such as latency=ms")
        if column in by_column:
            raise InputError(f"--unit names the column '{column}' twice")
        by_column[column] = unit
    try:
        return CostDataset.from_frame(
            table, resolve_spec(spec), by_column, source=f"imported from {Path(file).name}"
        )
    except InputError as error:
        raise InputError(f"{file}: {error}") from error


def predict_rows(
    file: str | Path,
    *,
    widths: str | None,
    csv: str | Path | None,
    target: str | None,
    coverage: float,
    allow_different: bool = False,
) -> tuple[Predictor, list[dict[str, Any]], tuple[Difference, ...]]:
    """Return the predictor in a file and its predictions for the given width vectors.

    Args:
        file: A predictor file.
        widths: One width vector, `32,64,...`.
        csv: Or a CSV file with a column per width.
        target: Which cost, if the file has several.
        coverage: Of the interval.
        allow_different: Whether conditions in the CSV file may be others than the predictor's.

    Returns:
        The predictor; a dictionary per row: `widths` by name, `cost`, `low`, `high`; and what the
        CSV file asks for that the predictor is not for.

    Raises:
        InputError: The file, the widths or the conditions cannot be used.
    """
    from ... import models
    from ...models.base.measured_under import refuse_unlike

    differences: tuple[Difference, ...] = ()
    if (widths is None) == (csv is None):
        raise InputError("give either --widths or --csv")
    predictor = models.load(file, target=target)
    spec = predictor.spec
    if spec is None:
        raise InputError(f"{file} holds a predictor without a network")
    names = spec.width_names
    if csv is not None:
        table = read_csv(csv)
        if missing := [name for name in names if name not in table.columns]:
            raise InputError(f"{csv} has no column for the width '{missing[0]}' of {spec.name}")
        differences = _unlike(predictor, table)
        if not allow_different:
            refuse_unlike(differences, f"{file} and the rows of {csv}")
        vectors = [list(row) for row in table[list(names)].to_numpy()]
    else:
        assert widths is not None  # noqa: S101 - checked above
        vectors = [[_number(part) for part in widths.split(",")]]
    if not vectors:
        raise InputError(f"{csv} has no rows")
    checked = []
    for number, vector in enumerate(vectors, start=1):
        try:
            checked.append(spec.check_widths(vector))
        except InputError as error:
            where = f"{csv}, row {number}: " if csv is not None else ""
            raise InputError(f"{where}{error}") from error
    X = np.asarray(checked, dtype=np.float64)
    cost = predictor.predict(X)
    low, high = predictor.predict_interval(X, coverage=coverage)
    return (
        predictor,
        [
            {
                "widths": dict(zip(names, vector, strict=True)),
                "cost": float(cost[i]),
                "low": float(low[i]),
                "high": float(high[i]),
            }
            for i, vector in enumerate(checked)
        ],
        differences,
    )


def _unlike(predictor: Predictor, table: pd.DataFrame) -> tuple[Difference, ...]:
    """Return which conditions of a table are others than those that a predictor is for."""
    from ...models.base.measured_under import MeasuredUnder

    assert predictor.spec is not None  # noqa: S101 - checked by the caller
    named = [
        name
        for name in (*CONDITION_NAMES, "device_id")
        if name in table.columns and name not in predictor.spec.width_names
    ]
    asked = {name: tuple(pd.unique(table[name].dropna()).tolist()) for name in named}
    devices = asked.pop("device_id", ())
    device = {"device_id": str(devices[0])} if len(devices) == 1 else {}
    wanted = MeasuredUnder({name: values for name, values in asked.items() if values}, "", device)
    return MeasuredUnder.of_predictor(predictor).differences(wanted)


def _number(text: str) -> int | str:
    try:
        return int(text)
    except ValueError:
        return text

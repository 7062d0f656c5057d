"""Features and a cost without widths: public sets such as NAS-Bench-201, HAT, single layers."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from joulemap import InputError

from .dataset_parts import DroppedRowsWarning
from .metrics import NoiseFloor
from .units import si_column, unit_named, unit_of_column


@dataclass(frozen=True)
class CostTable:
    """Measured costs of things that are described by features, not by widths.

    Args:
        features: One row per measured thing, `n x d`.
        cost: Costs of the same rows; every column ends in its SI unit (`latency_s`). Columns in
            other units are converted on construction (`latency_ms`, or by `units`).
        units: Cost column to unit, for columns whose names hold none.
        labels: What rows are chosen by and predictors do not see: device, split, family.
        source: Where the figures come from: citation and licence.
        name: What reports call it.

    Raises:
        InputError: Unequal lengths, a cost without a unit, or one that is not positive and finite.
    """

    features: pd.DataFrame
    cost: pd.DataFrame
    units: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    labels: pd.DataFrame = field(default_factory=pd.DataFrame, kw_only=True)
    source: str = field(default="", kw_only=True)
    name: str = field(default="", kw_only=True)

    def __post_init__(self) -> None:
        if len(self.features) != len(self.cost) or len(self.cost) == 0:
            raise InputError(
                f"the table has {len(self.features)} rows of features and {len(self.cost)} of costs"
            )
        if len(self.labels.columns) and len(self.labels) != len(self.cost):
            raise InputError(
                f"the table has {len(self.cost)} rows of costs and {len(self.labels)} of labels"
            )
        converted: dict[str, npt.NDArray[np.float64]] = {}
        for column in map(str, self.cost.columns):
            named = self.units.get(column)
            unit = unit_named(named) if named is not None else unit_of_column(column)
            if unit is None:
                raise InputError(f"cost column '{column}' has no unit; say which in `units`")
            try:
                values = self.cost[column].to_numpy(dtype=np.float64, na_value=np.nan) * unit.factor
            except (TypeError, ValueError) as error:
                raise InputError(f"cost column '{column}' holds no numbers: {error}") from error
            if (np.isinf(values) | (values <= 0)).any():
                raise InputError(f"cost column '{column}' has values that are not positive, finite")
            converted[si_column(column, unit)] = values
        object.__setattr__(self, "features", self.features.reset_index(drop=True))
        object.__setattr__(self, "cost", pd.DataFrame(converted))
        object.__setattr__(self, "labels", self.labels.reset_index(drop=True))
        object.__setattr__(
            self,
            "units",
            {name: (unit_of_column(name) or unit_named("s")).si for name in converted},
        )

    def __len__(self) -> int:
        return len(self.cost)

    # -- rows and columns ------------------------------------------------------------------------

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the costs."""
        return tuple(map(str, self.cost.columns))

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the features, which are the columns of X."""
        return tuple(map(str, self.features.columns))

    @property
    def width_names(self) -> tuple[str, ...]:
        """Names of the features: what a predictor without a network takes as its widths."""
        return self.feature_names

    def rows(self, indices: npt.ArrayLike) -> CostTable:
        """Return the rows at the given positions, or where a mask is true, as a table."""
        chosen = np.arange(len(self))[np.asarray(indices)]
        return CostTable(
            self.features.iloc[chosen],
            self.cost.iloc[chosen],
            labels=self.labels.iloc[chosen] if len(self.labels.columns) else self.labels,
            source=self.source,
            name=self.name,
        )

    def where(self, **values: Any) -> CostTable:
        """Return the rows with the given labels or features, such as `where(split='train')`.

        Raises:
            InputError: No such column, or no such rows.
        """
        chosen = np.ones(len(self), dtype=bool)
        for column, value in values.items():
            frame = self.labels if column in self.labels.columns else self.features
            if column not in frame.columns:
                known = ", ".join([*map(str, self.labels.columns), *self.feature_names])
                raise InputError(f"the table has no label or feature '{column}'; it has: {known}")
            chosen &= (frame[column] == value).to_numpy()
        if not chosen.any():
            raise InputError(f"the table has no rows with {values}")
        return self.rows(chosen)

    def one_hot(self, *columns: str) -> CostTable:
        """Return the table with features replaced by a column of 0 and 1 for each of their values.

        Raises:
            InputError: No such feature.
        """
        if missing := [column for column in columns if column not in self.features.columns]:
            raise InputError(f"the table has no feature '{missing[0]}'")
        features = pd.get_dummies(
            self.features, columns=list(columns), prefix_sep="=", dtype=np.float64
        )
        return CostTable(
            features, self.cost, labels=self.labels, source=self.source, name=self.name
        )

    def to_pandas(self) -> pd.DataFrame:
        """Return labels, features and costs side by side."""
        parts = [self.labels] if len(self.labels.columns) else []
        return pd.concat([*parts, self.features, self.cost], axis=1)

    # -- what predictors ask for -----------------------------------------------------------------

    @property
    def spec(self) -> None:
        """None: there is no network whose widths vary."""
        return None

    @property
    def device_id(self) -> str | None:
        """None: a table of features names no device of joulemap's."""
        return None

    @property
    def conditions(self) -> pd.DataFrame:
        """No conditions: what varies is among the features."""
        return pd.DataFrame(index=self.features.index)

    @property
    def fixed_conditions(self) -> dict[str, Any]:
        """No conditions."""
        return {}

    def unit(self, target: str) -> str:
        """Return the SI unit of a cost.

        Raises:
            InputError: No such cost.
        """
        if target not in self.cost.columns:
            raise InputError(f"the table has no cost '{target}'; it has: {', '.join(self.targets)}")
        return self.units[target]

    def noise_floor(self, target: str) -> NoiseFloor | None:
        """Return None: nothing was measured twice."""
        self.unit(target)
        return None

    def xyw(
        self, target: str
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return X (n, d), y (n,) and weights 1 (n,); rows without the cost are dropped.

        Raises:
            InputError: No such cost, or a feature that is missing or no number.
        """
        self.unit(target)
        y = self.cost[target].to_numpy(dtype=np.float64)
        kept = np.isfinite(y)
        columns = []
        for name in self.features.columns:
            try:
                column = self.features[name].to_numpy(dtype=np.float64)
            except (TypeError, ValueError) as error:
                raise InputError(
                    f"feature '{name}' holds text; write table.one_hot('{name}') to make numbers"
                ) from error
            if not np.isfinite(column[kept]).all():
                raise InputError(f"feature '{name}' is missing in some rows")
            columns.append(column)
        X = np.column_stack(columns) if columns else np.zeros((len(y), 0))
        if not kept.any():
            raise InputError(f"no row of the table has a value of '{target}'")
        if dropped := int((~kept).sum()):
            warnings.warn(
                f"{dropped} of {len(y)} rows have no '{target}' and were left out",
                DroppedRowsWarning,
                stacklevel=2,
            )
        return X[kept], y[kept], np.ones(int(kept.sum()))

"""Features and a cost without widths: public sets such as NAS-Bench-201, HAT, single layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd

from joulemap import InputError

from .units import si_column, unit_named, unit_of_column


@dataclass(frozen=True)
class CostTable:
    """Measured costs of things that are described by features, not by widths.

    Args:
        features: One row per measured thing, `n x d`.
        cost: Costs of the same rows; every column ends in its SI unit (`latency_s`). Columns in
            other units are converted on construction (`latency_ms`, or by `units`).
        units: Cost column to unit, for columns whose names hold none.
        source: Where the figures come from: citation and licence.

    Raises:
        InputError: Unequal lengths, a cost without a unit, or one that is not positive and finite.
    """

    features: pd.DataFrame
    cost: pd.DataFrame
    units: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    source: str = field(default="", kw_only=True)

    def __post_init__(self) -> None:
        if len(self.features) != len(self.cost) or len(self.cost) == 0:
            raise InputError(
                f"the table has {len(self.features)} rows of features and {len(self.cost)} of costs"
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
        object.__setattr__(
            self,
            "units",
            {name: (unit_of_column(name) or unit_named("s")).si for name in converted},
        )

    def __len__(self) -> int:
        return len(self.cost)

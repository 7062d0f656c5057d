"""What predictors need of a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import pandas as pd

from ...datasets import NetworkSpec
from ...datasets.metrics import NoiseFloor


class FittableDataset(Protocol):
    """What `Predictor.fit_dataset` needs; `CostDataset` and `CostTable` have it."""

    @property
    def spec(self) -> NetworkSpec | None:
        """The network whose variants were measured; None for a table of features."""

    @property
    def width_names(self) -> tuple[str, ...]:
        """Names of its k widths, or of the features, in order."""

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of X's columns: the widths, then the conditions that vary."""

    @property
    def conditions(self) -> pd.DataFrame:
        """Conditions of each row: batch, resolution, precision, runtime, threads."""

    @property
    def fixed_conditions(self) -> Mapping[str, Any]:
        """The conditions that are the same in all rows."""

    @property
    def device_id(self) -> str | None:
        """The device that was measured."""

    def xyw(self, target: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return X (n, k + varying conditions), y (n,) and weights (n,)."""

    def unit(self, target: str) -> str:
        """Return the unit of a target."""

    def noise_floor(self, target: str) -> NoiseFloor | None:
        """Return the noise floor of a target, None without re-visited variants."""

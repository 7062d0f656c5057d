"""A table of measurements of one width space, with its network specs, device and protocol."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from joulemap import InputError

from .dataset_files import naming, read_parts, save_dataset
from .dataset_parts import DatasetParts, DroppedRowsWarning, parts_of
from .device_identity import is_same_device
from .judgement_settings import JudgementSettings
from .measurement import Measurement
from .metrics import NoiseFloor, noise_floor
from .network_spec import NetworkSpec
from .records import CONDITION_NAMES
from .row_checks import check_rows, check_widths
from .units import unit_of_column
from .user_table import canonical_frame
from .verification import Verification, joined

FloatArray = npt.NDArray[np.float64]

# Columns about a measurement that are neither widths, conditions nor costs.
ABOUT_COLUMNS = (
    "spec_id",
    "variant_id",
    "num_visits",
    "num_failed_visits",
    "num_rejected_visits",
    "is_imprecise",
    "steal_share",
    "energy_source",
    "energy_idle_w",
)
# Suffixes that join a cost column to its own uncertainty: latency_s, latency_ci_low_s, ...
_ABOUT_COST = ("_standard_error", "_ci_low", "_ci_high", "_revisit_a", "_revisit_b")


class CostDataset:
    """Measurements of one width space: widths, conditions, costs in SI units, uncertainty.

    Rows are variants. Build one with `load`, `from_frame` or `from_measurements`; it is not
    changed afterwards.

    Args:
        frame: Canonical columns: `spec_id`, the widths by name, the conditions, the costs.
        specs: Fingerprint to network spec.
        device: The device's fingerprint; empty for imported tables.
        protocol: How variants were measured; empty for imported tables.
        source: Where the rows come from, for the dataset card.
        verification: Whether something vouches for the file that it was read from.
        judgement: What visits were judged by; None for imported tables, older files and datasets
            joined of several judgements.
    """

    def __init__(
        self,
        frame: pd.DataFrame,
        specs: Mapping[str, NetworkSpec],
        *,
        device: Mapping[str, Any] | None = None,
        protocol: Mapping[str, Any] | None = None,
        source: str = "",
        verification: Verification = Verification(),  # noqa: B008 - frozen
        judgement: JudgementSettings | None = None,
    ) -> None:
        self._frame = frame.reset_index(drop=True)
        self.specs = dict(specs)
        self.device = dict(device or {})
        self.protocol = dict(protocol or {})
        self.source = source
        self.verification = verification
        self.judgement = judgement
        self._check()

    # -- construction ----------------------------------------------------------------------------

    @classmethod
    def load(cls, path: str | Path, *, allow_damaged: bool = False) -> CostDataset:
        """Return the dataset in a folder (a campaign's or `save`'s) or in a Parquet file.

        What it says is verified, by the digest in a Parquet file and by the chained checksums of a
        journal's lines. Files of older versions have neither: `is_verified` is False then.

        Args:
            path: A folder, or a Parquet file of one.
            allow_damaged: Whether to read what can be read of a damaged one: a Parquet file whose
                digest does not match, the lines of a journal before the first one that cannot be used.
                It is not verified then.

        Raises:
            InputError: There is none, or it is damaged.
        """
        return cls.from_parts(read_parts(Path(path), allow_damaged=allow_damaged))

    def save(self, folder: str | Path) -> None:
        """Write Parquet, specs and the dataset card into a folder.

        Raises:
            InputError: The folder holds something else or cannot be written.
        """
        save_dataset(self, folder)

    @classmethod
    def from_parts(cls, parts: DatasetParts) -> CostDataset:
        """Return the dataset of what was read or measured.

        Raises:
            InputError: The parts do not fit together, or a Parquet file's rows are none of a dataset.
        """
        file = parts.parquet_file
        with naming(file) if file is not None else contextlib.nullcontext():
            dataset = cls(
                parts.frame,
                parts.specs,
                device=parts.device,
                protocol=parts.protocol,
                source=parts.source,
                verification=parts.verification,
                judgement=parts.judgement,
            )
            if file is not None:
                check_rows(parts.frame, dataset.cost_names)
        return dataset

    @classmethod
    def from_frame(
        cls,
        df: pd.DataFrame,
        spec: NetworkSpec,
        units: Mapping[str, str] | None = None,
        *,
        source: str = "",
    ) -> CostDataset:
        """Return a dataset made of a user's table; costs are converted to SI.

        Args:
            df: One row per measurement. Widths in channels by name (or as `sparsity_<name>`),
                condition columns (`batch`, `threads`, ...) where known, every other column a cost.
            spec: The network.
            units: Cost column to its unit (`{"latency": "ms"}`). A column whose name ends in a
                unit (`latency_ms`) needs no entry.
            source: Where the table comes from.

        Raises:
            InputError: A column has no unit, a width is missing, not an integer or out of bounds,
                or a cost is not a positive finite number (missing is allowed).
        """
        frame = canonical_frame(df, spec, units or {}, about=ABOUT_COLUMNS)
        return cls(frame, {spec.fingerprint: spec}, source=source)

    @classmethod
    def from_measurements(
        cls,
        measurements: Sequence[Measurement],
        spec: NetworkSpec,
        *,
        device: Mapping[str, Any],
        protocol: Mapping[str, Any],
        source: str = "",
        verification: Verification = Verification(),  # noqa: B008 - frozen
        judgement: JudgementSettings | None = None,
    ) -> CostDataset:
        """Return the dataset of a campaign's measurements; variants without a visit are left out.

        A variant whose visits were all rejected keeps its row, with missing costs. What makes no
        cost is left out and said: one bad row takes no other with it.
        """
        return cls.from_parts(
            parts_of(
                measurements,
                spec,
                device=device,
                protocol=protocol,
                source=source,
                verification=verification,
                judgement=judgement,
            )
        )

    @classmethod
    def join(cls, datasets: Sequence[CostDataset], *, allow_different: bool = False) -> CostDataset:
        """Return the rows of several datasets of one device as one dataset.

        Args:
            datasets: One at least.
            allow_different: Whether they may be of several devices, and of unlike conditions as one:
                what is not the same in all is missing in the result.

        Raises:
            InputError: There is none, or they are of different devices.
        """
        if not datasets:
            raise InputError("there is no dataset to join")
        first = datasets[0]
        is_one_device = all(is_same_device(first.device, other.device) for other in datasets)
        for other in datasets[1:] if not allow_different else ():
            if not is_same_device(first.device, other.device):
                raise InputError(
                    f"the datasets are of different devices ({first.device_id} and "
                    f"{other.device_id}); fit one predictor per device"
                )
        if len(datasets) == 1:
            return first
        is_judged_alike = all(other.judgement == first.judgement for other in datasets)
        rows = pd.concat([item.to_pandas() for item in datasets], ignore_index=True)
        if allow_different:
            unlike = [name for name in CONDITION_NAMES if rows[name].nunique(dropna=False) > 1]
            rows = rows.assign(**dict.fromkeys(unlike))
        return cls(
            rows.filter(regex="^(?!sparsity_)"),
            {key: spec for dataset in datasets for key, spec in dataset.specs.items()},
            device=first.device if is_one_device else {},
            protocol=first.protocol,
            source=first.source,
            verification=joined(item.verification for item in datasets),
            judgement=first.judgement if is_judged_alike else None,
        )

    # -- what is measured ------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._frame)

    def __repr__(self) -> str:
        names = ", ".join(spec.name for spec in self.specs.values())
        mark = "; not verified" if self.is_verified is False else ""
        return f"CostDataset({len(self)} variants of {names}; {', '.join(self.cost_names)}{mark})"

    @property
    def is_verified(self) -> bool | None:
        """Whether something vouches for the file that it was read from; None if there is none."""
        return self.verification.is_verified

    def describe(self) -> list[str]:
        """Return what is to be known before the rows are used, one sentence each."""
        names = ", ".join(spec.name for spec in self.specs.values())
        return [
            f"{len(self)} variants of {names}, {self.source or 'of unknown source'}.",
            f"Costs: {', '.join(self.cost_names)}.",
            *self.verification.describe(),
        ]

    @property
    def spec(self) -> NetworkSpec:
        """The network.

        Raises:
            InputError: The dataset holds several; take one with `by_spec`.
        """
        if len(self.specs) != 1:
            names = ", ".join(spec.name for spec in self.specs.values())
            raise InputError(f"the dataset holds several networks ({names}); use by_spec()")
        return next(iter(self.specs.values()))

    def by_spec(self) -> dict[str, CostDataset]:
        """Return one dataset per network spec, by its fingerprint."""
        parts = {}
        for spec_id, spec in self.specs.items():
            others = self._all_width_names() - set(spec.width_names)
            rows = self._frame[self._frame["spec_id"] == spec_id].drop(columns=list(others))
            parts[spec_id] = CostDataset(
                rows,
                {spec_id: spec},
                device=self.device,
                protocol=self.protocol,
                source=self.source,
                verification=self.verification,
                judgement=self.judgement,
            )
        return parts

    def where(self, **conditions: Any) -> CostDataset:
        """Return the rows under the given conditions, such as `where(batch=1)`.

        Raises:
            InputError: An unknown condition, or no such rows.
        """
        chosen = pd.Series(data=True, index=self._frame.index)
        for name, value in conditions.items():
            if name not in CONDITION_NAMES:
                raise InputError(f"no condition '{name}'; conditions: {', '.join(CONDITION_NAMES)}")
            chosen &= self._frame[name] == value
        if not chosen.any():
            raise InputError(f"the dataset has no rows with {conditions}")
        return self.rows(np.flatnonzero(chosen.to_numpy()))

    def rows(self, indices: npt.ArrayLike) -> CostDataset:
        """Return the rows at the given positions as a dataset."""
        return CostDataset(
            self._frame.iloc[np.asarray(indices)],
            self.specs,
            device=self.device,
            protocol=self.protocol,
            source=self.source,
            verification=self.verification,
            judgement=self.judgement,
        )

    @property
    def width_names(self) -> tuple[str, ...]:
        """Names of the width columns, in the spec's order."""
        return self.spec.width_names

    @property
    def widths(self) -> npt.NDArray[np.int64]:
        """Widths in channels, `n x k`."""
        return self._frame[list(self.width_names)].to_numpy(dtype=np.int64)

    @property
    def sparsity(self) -> FloatArray:
        """1 - width / max per width, `n x k`."""
        return 1.0 - self.widths / np.asarray(self.spec.max_widths, dtype=np.float64)

    @property
    def latency_s(self) -> FloatArray:
        """Latency of one call of the batch in seconds, `n`; NaN where missing."""
        return self.cost("latency_s")

    @property
    def energy_j(self) -> FloatArray:
        """Net energy of one call of the batch in joules, `n`; NaN where missing."""
        return self.cost("energy_j")

    @property
    def conditions(self) -> pd.DataFrame:
        """Batch, resolution, precision, runtime and threads of every row."""
        return self._frame[list(CONDITION_NAMES)].copy()

    @property
    def fixed_conditions(self) -> dict[str, Any]:
        """The conditions that are the same in every row."""
        first = self._frame[list(CONDITION_NAMES)].iloc[0]
        return {
            name: _plain(first[name])
            for name in CONDITION_NAMES
            if self._frame[name].nunique(dropna=False) == 1
        }

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the columns of X: the widths, then the conditions that vary."""
        fixed = self.fixed_conditions
        return (*self.width_names, *(name for name in CONDITION_NAMES if name not in fixed))

    @property
    def device_id(self) -> str | None:
        """The device's stable id, None for imported tables."""
        return self.device.get("device_id")

    # -- costs -----------------------------------------------------------------------------------

    @property
    def cost_names(self) -> tuple[str, ...]:
        """The cost columns, each with its SI unit in its name; any of them can be a target."""
        return tuple(
            name
            for name in map(str, self._frame.columns)
            if unit_of_column(name) is not None
            and not name.removesuffix(_suffix(name)).endswith(_ABOUT_COST)
            and name not in (*ABOUT_COLUMNS, *self._all_width_names())
        )

    def cost(self, target: str) -> FloatArray:
        """Return a cost column in its SI unit, `n`; NaN where missing.

        Raises:
            InputError: No such column.
        """
        if target not in self.cost_names:
            raise InputError(
                f"the dataset has no cost '{target}'; it has: {', '.join(self.cost_names)}"
            )
        return self._frame[target].to_numpy(dtype=np.float64, na_value=np.nan)

    def unit(self, target: str) -> str:
        """Return the SI unit of a cost column."""
        self.cost(target)
        unit = unit_of_column(target)
        return unit.si if unit else ""

    def variance(self, target: str) -> FloatArray:
        """Return the variance of each row's cost in its unit squared, `n`; NaN where unknown."""
        return self._about(target, "_standard_error") ** 2

    def interval(self, target: str) -> tuple[FloatArray, FloatArray]:
        """Return the 95 % interval of each row's cost in its unit, two `n`; NaN where unknown."""
        return self._about(target, "_ci_low"), self._about(target, "_ci_high")

    def noise_floor(self, target: str = "latency_s") -> NoiseFloor | None:
        """Return how far two measurements of the same variant differ; None without re-visits."""
        a, b = self._about(target, "_revisit_a"), self._about(target, "_revisit_b")
        known = np.isfinite(a) & np.isfinite(b)
        return noise_floor(a[known], b[known]) if known.any() else None

    def xyw(self, target: str = "latency_s") -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return X, y and weights for fitting; rows without the cost are dropped with a warning.

        Args:
            target: A cost column.

        Returns:
            X (`n x (k + varying conditions)`, columns as in `feature_names`), y (`n`, in the target's
            SI unit) and the weights (`n`, mean 1, inversely proportional to each row's variance; all
            1 where no variance is known).

        Raises:
            InputError: No such column, no row has it, or a varying condition is not a number.
        """
        y = self.cost(target)
        kept = np.isfinite(y)
        if not kept.any():
            meters = self.device.get("meters") if target.startswith("energy") else None
            why = f" (its device's meters: {meters})" if isinstance(meters, str) else ""
            raise InputError(f"no row of the dataset has a value of '{target}'{why}")
        if dropped := int((~kept).sum()):
            warnings.warn(
                f"{dropped} of {len(y)} rows have no '{target}' and were left out",
                DroppedRowsWarning,
                stacklevel=2,
            )
        names = list(self.feature_names)
        try:
            X = self._frame[names].to_numpy(dtype=np.float64)
        except (TypeError, ValueError) as error:
            varying = [name for name in names if name not in self.width_names]
            raise InputError(
                f"the conditions {', '.join(varying)} vary and are not all numbers; choose one of "
                "each with where(...)"
            ) from error
        relative = self.variance(target) / y**2
        return X[kept], y[kept], _weights(y[kept], relative[kept])

    def to_pandas(self) -> pd.DataFrame:
        """Return all columns as a DataFrame, with a `sparsity_<name>` column per width."""
        frame = self._frame.copy()
        if len(self.specs) == 1:
            for index, name in enumerate(self.width_names):
                frame[f"sparsity_{name}"] = self.sparsity[:, index]
        return frame

    # -- checks ----------------------------------------------------------------------------------

    def _about(self, target: str, about: str) -> FloatArray:
        self.cost(target)
        suffix = _suffix(target)
        column = target.removesuffix(suffix) + about + suffix
        if column not in self._frame.columns:
            return np.full(len(self), np.nan)
        return self._frame[column].to_numpy(dtype=np.float64, na_value=np.nan)

    def _all_width_names(self) -> set[str]:
        return {name for spec in self.specs.values() for name in spec.width_names}

    def _check(self) -> None:
        needed = ["spec_id", *CONDITION_NAMES]
        if missing := [name for name in needed if name not in self._frame.columns]:
            raise InputError(f"the dataset has no column '{missing[0]}'")
        if len(self._frame) == 0:
            raise InputError("the dataset has no rows")
        reserved = {*needed, *ABOUT_COLUMNS}
        for spec in self.specs.values():
            if clash := reserved & set(spec.width_names):
                raise InputError(f"a width may not be named '{clash.pop()}': that name is taken")
            if missing := [name for name in spec.width_names if name not in self._frame.columns]:
                raise InputError(f"the dataset has no column for the width '{missing[0]}'")
        if unknown := set(self._frame["spec_id"]) - set(self.specs):
            raise InputError(f"the dataset has rows of an unknown network {min(unknown)!s:.20}")
        check_widths(self._frame, self.specs)
        if not self.cost_names:
            raise InputError("the dataset has no cost column")
        for name in self.cost_names:
            values = self.cost(name)
            bad = np.flatnonzero(np.isinf(values) | (values <= 0))
            if len(bad):
                raise InputError(
                    f"row {bad[0] + 1} has {name} {values[bad[0]]}; a cost is positive and finite, "
                    "or missing"
                )


def _suffix(column: str) -> str:
    return "_" + column.rpartition("_")[2]


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _weights(y: FloatArray, relative_variance: FloatArray) -> FloatArray:
    """Return weights 1 / variance of mean 1; all 1 where no variance is known.

    A relative variance below half the typical one counts as that: no row is so much better than
    the others that it may decide a fit alone.
    """
    known = np.isfinite(relative_variance)
    typical = float(np.median(relative_variance[known])) if known.any() else 0.0
    if typical <= 0:
        return np.ones_like(y)
    variance = np.where(known, relative_variance, typical)
    weights = 1.0 / (np.maximum(variance, typical / 2) * y**2)
    return np.asarray(weights / weights.mean(), dtype=np.float64)

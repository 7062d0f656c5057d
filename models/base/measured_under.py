"""What costs were measured under, and whether two sets of them can be compared."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd

from joulemap import InputError

from ...datasets import LayerProfiles
from ...datasets.device_identity import device_of, ids_of, is_same_device
from .input_checks import CONDITIONS
from .intervals import FloatArray

if TYPE_CHECKING:
    from .cost_module import CostInfo
    from .fittable import FittableDataset

# What imported tables say of a condition that their author did not write down.
UNKNOWN = "unknown"
DIGEST_LENGTH = 12
MAX_SHOWN = 4


class Predicting(Protocol):
    """What says of itself what its costs hold for, as predictors do."""

    def cost_info(self) -> CostInfo:
        """Return what its torch module says about itself."""


@dataclass(frozen=True)
class Difference:
    """Something that costs were measured under which is not the same.

    Attributes:
        name: What, such as 'batch'.
        first: Its value here; several where it varies.
        second: Its value there.
    """

    name: str
    first: tuple[Any, ...]
    second: tuple[Any, ...]

    def __str__(self) -> str:
        return f"{self.name} {_listed(self.first)} and {_listed(self.second)}"

    def to_dict(self) -> dict[str, Any]:
        """Return the difference as a dictionary for JSON."""
        return {"name": self.name, "values": [list(self.first), list(self.second)]}


@dataclass(frozen=True)
class MeasuredUnder:
    """Conditions, unit and device of costs, as far as they are recorded.

    Attributes:
        conditions: Batch, precision, ... to their values; several where one varies.
        unit: Unit of the cost; '' where it was not stated.
        device: Description of the device, empty where it is not recorded.
    """

    conditions: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    unit: str = ""
    device: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of_dataset(cls, ds: FittableDataset, target: str) -> MeasuredUnder:
        """Return what a dataset's measurements of one target hold for."""
        fixed = {name: (value,) for name, value in ds.fixed_conditions.items()}
        varying = {
            str(name): tuple(sorted(pd.unique(ds.conditions[name].dropna()).tolist(), key=str))
            for name in ds.conditions.columns
            if name not in fixed
        }
        device = device_of(ds)
        return cls(_recorded(fixed | varying), ds.unit(target), device if ids_of(device) else {})

    @classmethod
    def of_profiles(cls, profiles: LayerProfiles) -> MeasuredUnder:
        """Return what profiles of layers hold for."""
        conditions = {name: (value,) for name, value in profiles.conditions.items()}
        device = device_of(profiles)
        return cls(_recorded(conditions), "s", device if ids_of(device) else {})

    @classmethod
    def of_info(cls, info: CostInfo) -> MeasuredUnder:
        """Return what a cost module's costs hold for."""
        conditions = {name: (value,) for name, value in info.conditions.items()}
        return cls(_recorded(conditions), info.unit, _device(info.device_ids))

    @classmethod
    def of_predictor(cls, predictor: Predicting) -> MeasuredUnder:
        """Return what a predictor's costs hold for."""
        return cls.of_info(predictor.cost_info())

    def without(self, *names: str) -> MeasuredUnder:
        """Return the same without some conditions, which differ by design."""
        kept = {name: value for name, value in self.conditions.items() if name not in names}
        return MeasuredUnder(kept, self.unit, self.device)

    def differences(self, other: MeasuredUnder) -> tuple[Difference, ...]:
        """Return what is recorded on both sides and not the same."""
        found = [
            Difference(name, self.conditions[name], other.conditions[name])
            for name in self.conditions
            if name in other.conditions
            and not _is_same(self.conditions[name], other.conditions[name])
        ]
        if self.unit and other.unit and self.unit != other.unit:
            found.append(Difference("unit", (self.unit,), (other.unit,)))
        if self.device and other.device and not is_same_device(self.device, other.device):
            ids = [(str(each["device_id"]),) for each in (self.device, other.device)]
            found.append(Difference("device", *ids))
        return tuple(found)

    def not_recorded(self) -> tuple[str, ...]:
        """Return the names of what is not known."""
        missing = [name for name in CONDITIONS if name not in self.conditions]
        missing += [] if self.device else ["device"]
        return tuple(missing + ([] if self.unit else ["unit"]))


def refuse_unlike(
    differences: Iterable[Difference], what: str, *, can_be_allowed: bool = True
) -> None:
    """Check that costs can be compared.

    Args:
        differences: What is not the same.
        what: Both sides, such as 'the predictor and the dataset'.
        can_be_allowed: Whether the caller has `allow_different`.

    Raises:
        InputError: There are differences.
    """
    found = list(differences)
    if not found:
        return
    shown = "; ".join(map(str, found[:MAX_SHOWN]))
    more = f"; and {len(found) - MAX_SHOWN} more" if len(found) > MAX_SHOWN else ""
    remedy = "take data of the same ones"
    if can_be_allowed:
        remedy += ", or allow it by --allow-different (allow_different=True in Python)"
    raise InputError(f"{what} were measured under unlike conditions: {shown}{more}; {remedy}")


def row_digests(X: FloatArray, y: FloatArray) -> list[str]:
    """Return a digest of each row's widths and cost, as 12 hexadecimal digits.

    Costs count to ten digits, so that a change of units and back makes no other row.

    Args:
        X: Widths, shape (n, k).
        y: Costs, shape (n,).
    """
    rows = np.ascontiguousarray(X, dtype="<f8")
    return [
        hashlib.sha256(row.tobytes() + f"{cost:.9e}".encode()).hexdigest()[:DIGEST_LENGTH]
        for row, cost in zip(rows, np.asarray(y, dtype=np.float64).tolist(), strict=True)
    ]


def _device(ids: Sequence[str]) -> dict[str, Any]:
    return {"device_id": ids[0], "former_ids": list(ids[1:])} if ids else {}


def _recorded(conditions: Mapping[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
    found = {}
    for name, values in conditions.items():
        known = tuple(v for v in values if v is not None and not pd.isna(v) and v != UNKNOWN)
        if known:
            found[name] = known
    return found


def _is_same(first: tuple[Any, ...], second: tuple[Any, ...]) -> bool:
    return len(first) == len(second) == 1 and bool(first[0] == second[0])


def _listed(values: tuple[Any, ...]) -> str:
    shown = " and ".join(f"{value!s:.60}" for value in values[:3])
    return f"{shown}, ..." if len(values) > 3 else shown

"""A dataset with profiles of single layers beside it, as one thing to fit to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from joulemap import InputError

from ...datasets import LayerProfiles, NetworkSpec
from ...datasets.device_identity import device_of, is_same_device
from ...datasets.metrics import NoiseFloor
from ..base.fittable import FittableDataset
from ..base.measured_under import MeasuredUnder, refuse_unlike


class ProfiledDataset:
    """Variants of a network and profiles of its layers; a `FittableDataset`.

    Args:
        ds: The variants; None for the runs that the profiles hold themselves.
        profiles: What layers took.
        target: What is fitted: profiles hold seconds.

    Raises:
        InputError: They are of different networks or devices, or the target is no latency.
    """

    def __init__(self, ds: FittableDataset | None, profiles: LayerProfiles, target: str) -> None:
        self._ds, self.profiles = ds, profiles
        if ds is None:
            return
        if ds.spec is None or ds.spec.fingerprint != profiles.spec.fingerprint:
            raise InputError(f"the profiles are of {profiles.spec.name}, the dataset is not")
        if ds.unit(target) != "s":
            raise InputError(f"profiles hold seconds, and '{target}' is another cost")
        is_known = ds.device_id and profiles.device_id
        if is_known and not is_same_device(device_of(ds), device_of(profiles)):
            raise InputError(
                f"the dataset is of device {ds.device_id}, the profiles of {profiles.device_id}"
            )
        of_profiles = MeasuredUnder.of_profiles(profiles)
        refuse_unlike(
            MeasuredUnder.of_dataset(ds, target).differences(of_profiles),
            "the dataset and the profiles",
            can_be_allowed=False,
        )

    @property
    def spec(self) -> NetworkSpec:
        """The network."""
        return self.profiles.spec

    @property
    def width_names(self) -> tuple[str, ...]:
        """Names of its widths."""
        return self.profiles.spec.width_names

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of X's columns."""
        return self._ds.feature_names if self._ds is not None else self.width_names

    @property
    def conditions(self) -> pd.DataFrame:
        """Conditions of each row."""
        if self._ds is not None:
            return self._ds.conditions
        rows = [dict(self.profiles.conditions)] * len(self.profiles)
        return pd.DataFrame(rows)

    @property
    def fixed_conditions(self) -> Mapping[str, Any]:
        """The conditions that are the same in all rows."""
        if self._ds is not None:
            return self._ds.fixed_conditions
        return self.profiles.conditions

    @property
    def device_id(self) -> str | None:
        """The device that was measured."""
        return self._ds.device_id if self._ds is not None else self.profiles.device_id

    def xyw(self, target: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return X (n, k), y (n,) in seconds and weights (n,)."""
        if self._ds is not None:
            return self._ds.xyw(target)
        cost = np.array([variant.latency_s for variant in self.profiles.variants])
        return self.profiles.widths.astype(np.float64), cost, np.ones(len(cost))

    def unit(self, target: str) -> str:
        """Return the unit of a target."""
        return self._ds.unit(target) if self._ds is not None else "s"

    def noise_floor(self, target: str) -> NoiseFloor | None:
        """Return the noise floor of a target."""
        return self._ds.noise_floor(target) if self._ds is not None else None


def joined(profiles: LayerProfiles | Sequence[LayerProfiles]) -> LayerProfiles | None:
    """Return the profiles of one network as one, None for none.

    Raises:
        InputError: Of several networks.
    """
    several = [profiles] if isinstance(profiles, LayerProfiles) else list(profiles)
    if not several:
        return None
    first = several[0]
    for other in several[1:]:
        if other.spec.fingerprint != first.spec.fingerprint:
            raise InputError(f"the profiles are of {first.spec.name} and {other.spec.name}")
        refuse_unlike(
            MeasuredUnder.of_profiles(first).differences(MeasuredUnder.of_profiles(other)),
            "the profiles",
            can_be_allowed=False,
        )
    variants = tuple(variant for part in several for variant in part.variants)
    return LayerProfiles(
        first.spec, variants, device=first.device, conditions=dict(first.conditions)
    )

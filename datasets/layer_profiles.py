"""What each layer of a network's variants took, run by run, and the same as a file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from joulemap import InputError, __version__

from .network_spec import NetworkSpec
from .parquet_file import read_parquet, write_parquet

FILE_NAME = "layers.parquet"
READ_VERSIONS = (1, 2)
# 1: first version (2026-11).
# 2: a digest of the content, which is checked when it is read (2026-11).
_KEY = "joulemap_layers"
# A median of few runs has this many standard deviations of a mean's.
_MEDIAN_TO_MEAN = 1.2533
_MAD_TO_SD = 1.4826


@dataclass(frozen=True)
class LayerTime:
    """What layers that ran as one took in each run.

    Attributes:
        layers: Their names in the spec, in order; () for work that belongs to no layer.
        times_s: Seconds in each run, as the runtime's profiler gave them.
    """

    layers: tuple[str, ...]
    times_s: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.times_s or not all(np.isfinite(self.times_s)) or min(self.times_s) < 0:
            raise InputError(f"the times of {self.name} are not finite numbers >= 0")

    @property
    def name(self) -> str:
        """The layers, joined by plus signs; '' for none."""
        return "+".join(self.layers)

    @property
    def median_s(self) -> float:
        """The median over runs, seconds."""
        return float(np.median(self.times_s))

    @property
    def standard_error_s(self) -> float | None:
        """The median's standard error by the median absolute deviation; None from one run."""
        if len(self.times_s) < 2:
            return None
        deviation = float(np.median(np.abs(np.array(self.times_s) - self.median_s)))
        return _MEDIAN_TO_MEAN * _MAD_TO_SD * deviation / float(np.sqrt(len(self.times_s)))


@dataclass(frozen=True)
class VariantProfile:
    """One variant's layers, timed in the same runs.

    Attributes:
        widths: Its widths in channels.
        parts: What ran as one, in the network's order; the last may be work of no layer.
        runs_s: Seconds of the same runs as wholes, as the profiler gave them.
        unprofiled_s: Seconds of other runs of the same model without the profiler.
    """

    widths: tuple[int, ...]
    parts: tuple[LayerTime, ...]
    runs_s: tuple[float, ...]
    unprofiled_s: tuple[float, ...]

    @property
    def latency_s(self) -> float:
        """The median run without the profiler, seconds."""
        return float(np.median(self.unprofiled_s))

    @property
    def overhead(self) -> float:
        """By which share the profiler made a run longer; negative where noise hides it."""
        return float(np.median(self.runs_s)) / self.latency_s - 1.0

    @property
    def unassigned_share(self) -> float:
        """The share of the parts' time that belongs to no layer."""
        total = sum(part.median_s for part in self.parts)
        return sum(part.median_s for part in self.parts if not part.layers) / total

    @property
    def outside_share(self) -> float:
        """The share of a profiled run that was spent in no node: calls, queues, the clock."""
        return 1.0 - sum(part.median_s for part in self.parts) / float(np.median(self.runs_s))


@dataclass(frozen=True)
class LayerProfiles:
    """Profiles of a network's variants on one device.

    Args:
        spec: The network.
        variants: Their profiles.
        device: The device's fingerprint; None where not known.
        conditions: Batch, threads, runtime and its version.
        is_verified: Whether the digest of the file that they were read from was checked; None without
            a file. Files of older versions have none.

    Raises:
        InputError: No profile, one with other widths than the spec's, or layers that the spec
            does not have.
    """

    spec: NetworkSpec
    variants: tuple[VariantProfile, ...]
    device: Mapping[str, Any] | None = field(default=None, kw_only=True)
    conditions: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    is_verified: bool | None = field(default=None, kw_only=True, compare=False)

    def __post_init__(self) -> None:
        known = {layer.name for layer in self.spec.layers}
        if not self.variants:
            raise InputError(f"there are no layer profiles of {self.spec.name}")
        for variant in self.variants:
            self.spec.check_widths(variant.widths)
            if unknown := {name for part in variant.parts for name in part.layers} - known:
                raise InputError(f"{self.spec.name} has no layer '{min(unknown)}'")
            if not variant.parts or not variant.runs_s or not variant.unprofiled_s:
                raise InputError(f"a profile of {self.spec.name} has no times")
            times = np.array([*variant.runs_s, *variant.unprofiled_s], dtype=np.float64)
            if not np.all(np.isfinite(times) & (times > 0)):
                raise InputError(f"a profile of {self.spec.name} has times that are not above 0")
        if not isinstance(self.conditions, Mapping) or not isinstance(self.device, Mapping | None):
            raise InputError("the device or the conditions of layer profiles are no object")

    def __len__(self) -> int:
        return len(self.variants)

    @property
    def widths(self) -> npt.NDArray[np.int64]:
        """Widths in channels, shape (n, k)."""
        return np.array([variant.widths for variant in self.variants], dtype=np.int64)

    @property
    def device_id(self) -> str | None:
        """The device's stable identifier; None where not known."""
        return None if self.device is None else self.device.get("device_id")

    @property
    def overhead(self) -> float:
        """By which share the profiler made runs longer: the median over variants."""
        return float(np.median([variant.overhead for variant in self.variants]))

    @property
    def unassigned_share(self) -> float:
        """The share of time that belongs to no layer: the median over variants."""
        return float(np.median([variant.unassigned_share for variant in self.variants]))

    def to_pandas(self) -> pd.DataFrame:
        """Return one row per variant and part: widths, `layer`, times in seconds.

        `latency_s` is the part's share of the run without the profiler, `profiled_s` the median
        that the profiler gave, `standard_error_s` the error of that.
        """
        rows = []
        for index, variant in enumerate(self.variants):
            total = sum(part.median_s for part in variant.parts)
            widths = dict(zip(self.spec.width_names, variant.widths, strict=True))
            rows += [
                {
                    "variant": index,
                    **widths,
                    "layer": part.name,
                    "latency_s": part.median_s / total * variant.latency_s,
                    "profiled_s": part.median_s,
                    "standard_error_s": part.standard_error_s,
                }
                for part in variant.parts
            ]
        return pd.DataFrame(rows)

    # -- files -----------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write a Parquet file, with the spec inside.

        Raises:
            InputError: It cannot be written.
        """
        about = {
            "format_version": READ_VERSIONS[-1],
            "joulemap_version": __version__,
            "spec": json.loads(self.spec.to_json()),
            "device": self.device,
            "conditions": dict(self.conditions),
        }
        rows = [
            {
                "widths": list(variant.widths),
                "layers": [list(part.layers) for part in variant.parts],
                "times_s": [list(part.times_s) for part in variant.parts],
                "runs_s": list(variant.runs_s),
                "unprofiled_s": list(variant.unprofiled_s),
            }
            for variant in self.variants
        ]
        table = pa.Table.from_pylist(rows, schema=_SCHEMA)
        write_parquet(Path(path), table, _KEY, about)

    @classmethod
    def load(cls, path: str | Path) -> LayerProfiles:
        """Return the profiles in a Parquet file, or in a folder's `layers.parquet`.

        Raises:
            InputError: There is none, or it is damaged.
        """
        path = Path(path)
        path = path / FILE_NAME if path.is_dir() else path
        try:
            found = read_parquet(path, _KEY, READ_VERSIONS)
        except FileNotFoundError:
            raise InputError(
                f"no layer profiles at {path}: expected a file that `joulemap profile --layers` "
                "or `LayerProfiles.save` made"
            ) from None
        table, about = found.table, found.about
        try:
            spec = NetworkSpec.from_json(json.dumps(about["spec"]))
            variants = [_variant(row) for row in table.cast(_SCHEMA).to_pylist()]
            return cls(
                spec,
                tuple(variants),
                device=about["device"],
                conditions=about["conditions"],
                is_verified=found.is_verified,
            )
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        except KeyError as error:
            raise InputError(f"{path} holds no layer profiles of joulemap's ({error})") from error
        except (pa.ArrowException, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(f"{path} is damaged or no Parquet file: {str(error)[:300]}") from error


def _variant(row: Mapping[str, Any]) -> VariantProfile:
    layers: Sequence[Sequence[str]] = row["layers"]
    times: Sequence[Sequence[float]] = row["times_s"]
    if len(layers) != len(times):
        raise InputError("a variant has not as many times as parts")
    return VariantProfile(
        tuple(row["widths"]),
        tuple(
            LayerTime(tuple(names), tuple(values))
            for names, values in zip(layers, times, strict=True)
        ),
        tuple(row["runs_s"]),
        tuple(row["unprofiled_s"]),
    )


_SCHEMA = pa.schema(
    [
        ("widths", pa.list_(pa.int64())),
        ("layers", pa.list_(pa.list_(pa.string()))),
        ("times_s", pa.list_(pa.list_(pa.float64()))),
        ("runs_s", pa.list_(pa.float64())),
        ("unprofiled_s", pa.list_(pa.float64())),
    ]
)

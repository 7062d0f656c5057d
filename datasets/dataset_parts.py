"""What a dataset is made of: rows, networks, device, protocol, and whether they are vouched for."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from joulemap import InputError
from joulemap.showable_text import showable

from .judgement_settings import JudgementSettings
from .measurement import Measurement
from .measurement_rows import rows_of
from .network_spec import NetworkSpec
from .verification import Verification


class DroppedRowsWarning(UserWarning):
    """Rows without a value of the wanted cost were left out."""


@dataclass(frozen=True)
class DatasetParts:
    """What a `CostDataset` is made of, as it was read or measured.

    Attributes:
        frame: Canonical columns: `spec_id`, the widths by name, the conditions, the costs.
        specs: Fingerprint to network spec.
        device: The device's fingerprint; empty for imported tables.
        protocol: How variants were measured; empty for imported tables.
        source: Where the rows come from, for the dataset card.
        verification: Whether something vouches for the file that it was read from.
        parquet_file: The file that it was read from; None where it comes from measurements.
        judgement: What visits were judged by; None for imported tables and older files.
    """

    frame: pd.DataFrame
    specs: Mapping[str, NetworkSpec]
    device: Mapping[str, Any]
    protocol: Mapping[str, Any]
    source: str
    verification: Verification
    parquet_file: Path | None = None
    judgement: JudgementSettings | None = None


def parts_of(
    measurements: Sequence[Measurement],
    spec: NetworkSpec,
    *,
    device: Mapping[str, Any],
    protocol: Mapping[str, Any],
    source: str,
    verification: Verification,
    judgement: JudgementSettings | None,
) -> DatasetParts:
    """Return what the dataset of measurements is made of; see `CostDataset.from_measurements`.

    Raises:
        InputError: There are none, or none that makes a cost.
    """
    rel_error = float(protocol.get("rel_error", math.inf))
    rows, problems = rows_of(measurements, spec, rel_error)
    if problems:
        more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
        warnings.warn(
            f"left out of the dataset: {showable(problems[0], 300)}{more}",
            DroppedRowsWarning,
            stacklevel=3,
        )
    if not rows:
        raise InputError("there are no measurements yet: no visit has succeeded")
    return DatasetParts(
        frame=pd.DataFrame(rows),
        specs={spec.fingerprint: spec},
        device=device,
        protocol=protocol,
        source=source,
        verification=verification,
        judgement=judgement,
    )

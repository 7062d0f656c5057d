"""Layer profiles: figures, files, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulemap import InputError
from joulemap.datasets import (
    LayerProfiles,
    LayerSpec,
    LayerTime,
    NetworkSpec,
    VariantProfile,
    Width,
)

SPEC = NetworkSpec(
    "two",
    "zoo:two",
    (4,),
    (Width("a", 8),),
    (LayerSpec("fc1", "linear", 4, "a"), LayerSpec("fc2", "linear", "a", 2)),
)
PARTS = (
    LayerTime(("fc1",), (3e-6, 1e-6, 2e-6)),
    LayerTime(("fc2",), (5e-6, 5e-6, 5e-6)),
    LayerTime((), (1e-6, 1e-6, 1e-6)),
)
VARIANT = VariantProfile((4,), PARTS, (12e-6, 10e-6, 11e-6), (10e-6, 10e-6))
PROFILES = LayerProfiles(SPEC, (VARIANT,), device={"device_id": "d"}, conditions={"batch": 1})

seconds = st.floats(0, 10, allow_nan=False)


def test_figures_of_a_profile() -> None:
    assert PARTS[0].median_s == 2e-6
    assert PARTS[1].standard_error_s == 0.0
    assert LayerTime(("fc1",), (1e-6,)).standard_error_s is None
    assert VARIANT.overhead == pytest.approx(0.1)
    assert VARIANT.unassigned_share == pytest.approx(1 / 8)
    assert VARIANT.outside_share == pytest.approx(1 - 8 / 11)
    frame = PROFILES.to_pandas()
    assert frame["layer"].tolist() == ["fc1", "fc2", ""]
    assert frame["latency_s"].tolist() == pytest.approx([2.5e-6, 6.25e-6, 1.25e-6])
    assert PROFILES.device_id == "d"
    assert PROFILES.widths.tolist() == [[4]]


@given(st.lists(st.lists(seconds, min_size=3, max_size=3), min_size=1, max_size=3))
def test_a_file_gives_back_every_run(
    tmp_path_factory: pytest.TempPathFactory, times: list[list[float]]
) -> None:
    parts = tuple(LayerTime(("fc1",), tuple(values)) for values in times)
    profiles = LayerProfiles(SPEC, (dataclasses.replace(VARIANT, parts=parts),))
    path = tmp_path_factory.mktemp("profiles") / "layers.parquet"
    profiles.save(path)
    assert LayerProfiles.load(path) == profiles


def test_what_makes_no_sense_is_refused() -> None:
    for times in ((), (-1.0,), (float("nan"),), (float("inf"),)):
        with pytest.raises(InputError, match="times of fc1 are not finite numbers"):
            LayerTime(("fc1",), times)
    unknown = dataclasses.replace(VARIANT, parts=(LayerTime(("fc9",), (1.0,)),))
    with pytest.raises(InputError, match="two has no layer 'fc9'"):
        LayerProfiles(SPEC, (unknown,))
    with pytest.raises(InputError, match="there are no layer profiles of two"):
        LayerProfiles(SPEC, ())
    with pytest.raises(InputError, match="has no times"):
        LayerProfiles(SPEC, (dataclasses.replace(VARIANT, parts=()),))
    with pytest.raises(InputError, match="width"):
        LayerProfiles(SPEC, (dataclasses.replace(VARIANT, widths=(99,)),))


def test_damaged_and_foreign_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no layer profiles at"):
        LayerProfiles.load(tmp_path)
    damaged = tmp_path / "damaged.parquet"
    PROFILES.save(damaged)
    damaged.write_bytes(damaged.read_bytes()[:-20])
    with pytest.raises(InputError, match="damaged or no Parquet file"):
        LayerProfiles.load(damaged)
    foreign = tmp_path / "foreign.parquet"
    pq.write_table(pa.Table.from_pandas(pd.DataFrame({"x": [1]})), foreign)
    with pytest.raises(InputError, match="not one of joulemap"):
        LayerProfiles.load(foreign)
    newer = tmp_path / "newer.parquet"
    PROFILES.save(newer)
    table = pq.read_table(newer)
    about = table.schema.metadata[b"joulemap_layers"].replace(
        b'"format_version": 2', b'"format_version": 9'
    )
    pq.write_table(table.replace_schema_metadata({b"joulemap_layers": about}), newer)
    with pytest.raises(InputError, match="format version 9"):
        LayerProfiles.load(newer)

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from joulemap import InputError
from joulemap.datasets import CostDataset, CostTable, DroppedRowsWarning, NetworkSpec, Visit
from joulemap.datasets.dataset_card import dataset_card
from joulemap.datasets.journal import CampaignRecord, Journal
from joulemap.datasets.measurement import measurements_of
from joulemap.datasets.store import export_campaign, make_folder
from joulemap.datasets.units import UNITS, si_column, unit_named, unit_of_column

MakeVisits = Callable[..., list[Visit]]


@pytest.fixture
def dataset(tiny_spec: NetworkSpec, make_visits: MakeVisits) -> CostDataset:
    visits = make_visits(tiny_spec, variants=20)
    return CostDataset.from_measurements(
        measurements_of(visits), tiny_spec, device={"device_id": "abc"}, protocol={"visits": 3}
    )


@pytest.fixture
def frame() -> pd.DataFrame:
    return pd.DataFrame({"a": [1, 2, 8], "b": [4, 16, 2], "latency": [1.5, 2.0, 3.0]})


def test_the_columns_of_a_campaign(dataset: CostDataset, tiny_spec: NetworkSpec) -> None:
    assert len(dataset) == 20
    assert dataset.widths.shape == (20, 2)
    np.testing.assert_allclose(dataset.sparsity, 1 - dataset.widths / np.array([8, 16]))
    assert dataset.spec == tiny_spec
    assert dataset.feature_names == ("a", "b")
    assert dataset.fixed_conditions["resolution"] == "8x8"
    assert np.isnan(dataset.energy_j).all()
    low, high = dataset.interval("latency_s")
    assert ((low < dataset.latency_s) & (dataset.latency_s < high)).all()
    floor = dataset.noise_floor()
    assert floor is not None
    # 3 % per visit; the halves hold two visits and one.
    assert 0.01 < floor.value < 0.05
    assert "sparsity_a" in dataset.to_pandas()


def test_weights_are_larger_where_the_measurement_is_better(
    tiny_spec: NetworkSpec, make_visits: MakeVisits
) -> None:
    good = make_visits(tiny_spec, variants=10, seed=1, noise=0.01)
    bad = make_visits(tiny_spec, variants=10, seed=2, noise=0.2)
    seen = {visit.widths for visit in good}
    visits = good + [visit for visit in bad if visit.widths not in seen]
    dataset = CostDataset.from_measurements(
        measurements_of(visits), tiny_spec, device={}, protocol={}
    )
    X, y, weights = dataset.xyw("latency_s")
    assert X.shape == (len(y), 2)
    assert weights.mean() == pytest.approx(1)
    relative = weights * y**2
    assert relative[:10].mean() > 2 * relative[10:].mean()
    # No weight runs away because three visits happened to agree.
    assert relative.max() / np.median(relative[:10]) < 5


def test_a_table_in_any_unit_becomes_si(frame: pd.DataFrame, tiny_spec: NetworkSpec) -> None:
    frame["energy_mJ"] = [1.0, 2.0, np.nan]
    dataset = CostDataset.from_frame(frame, tiny_spec, units={"latency": "ms"})
    np.testing.assert_allclose(dataset.latency_s, [1.5e-3, 2e-3, 3e-3])
    np.testing.assert_allclose(dataset.energy_j, [1e-3, 2e-3, np.nan])
    assert dataset.cost_names == ("latency_s", "energy_j")
    assert dataset.unit("energy_j") == "J"
    with pytest.warns(DroppedRowsWarning, match="1 of 3 rows"):
        X, y, w = dataset.xyw("energy_j")
    assert X.shape == (2, 2)
    assert y.shape == w.shape == (2,)


def test_sparsities_may_stand_for_widths(frame: pd.DataFrame, tiny_spec: NetworkSpec) -> None:
    sparse = frame.assign(sparsity_a=1 - frame["a"] / 8).drop(columns="a")
    dataset = CostDataset.from_frame(sparse, tiny_spec, {"latency": "ms"})
    np.testing.assert_array_equal(dataset.widths[:, 0], [1, 2, 8])


def test_to_pandas_and_back_gives_the_same(dataset: CostDataset, tiny_spec: NetworkSpec) -> None:
    again = CostDataset.from_frame(dataset.to_pandas(), tiny_spec)
    np.testing.assert_array_equal(again.widths, dataset.widths)
    np.testing.assert_array_equal(again.latency_s, dataset.latency_s)
    assert again.noise_floor() == dataset.noise_floor()


@pytest.mark.parametrize(
    ("change", "units", "message"),
    [
        ({}, {}, "'latency' has no unit"),
        ({}, {"latency": "parsec"}, "unknown unit 'parsec'"),
        ({}, {"latency": "ms", "x": "s"}, "'x', which is no column"),
        ({"a": [0, 1, 2]}, {"latency": "ms"}, "row 1 .* outside 1..8"),
        ({"a": [1, 2, 9]}, {"latency": "ms"}, "row 3 .* outside 1..8"),
        ({"a": [1, 2.5, 3]}, {"latency": "ms"}, "row 2 .* not an int"),
        ({"a": [1, None, 3]}, {"latency": "ms"}, "row 2 .* lacks a width"),
        ({"a": ["1", "x", "3"]}, {"latency": "ms"}, "row 2 .* not a number"),
        ({"latency": [1, -1, 1]}, {"latency": "ms"}, "row 2 .* positive"),
        ({"latency": [1, 1, np.inf]}, {"latency": "ms"}, "row 3 .* finite"),
        ({"latency": [1, "nan?", 1]}, {"latency": "ms"}, "row 2 .* not a number"),
        ({"latency_ms": [1, 1, 1]}, {"latency": "s"}, "two columns"),
    ],
)
def test_tables_that_cannot_be_used_say_why(
    frame: pd.DataFrame,
    tiny_spec: NetworkSpec,
    change: dict[str, Any],
    units: dict[str, str],
    message: str,
) -> None:
    with pytest.raises(InputError, match=message):
        CostDataset.from_frame(frame.assign(**change), tiny_spec, units)


def test_a_missing_width_and_an_empty_table_are_refused(
    frame: pd.DataFrame, tiny_spec: NetworkSpec
) -> None:
    with pytest.raises(InputError, match="no column for the width 'b'"):
        CostDataset.from_frame(frame.drop(columns="b"), tiny_spec, {"latency": "ms"})
    with pytest.raises(InputError, match="no rows"):
        CostDataset.from_frame(frame.iloc[:0], tiny_spec, {"latency": "ms"})
    with pytest.raises(InputError, match="no cost column"):
        CostDataset.from_frame(frame.drop(columns="latency"), tiny_spec)


def test_conditions_that_vary_become_features(frame: pd.DataFrame, tiny_spec: NetworkSpec) -> None:
    table = frame.assign(batch=[1, 2, 2])
    dataset = CostDataset.from_frame(table, tiny_spec, {"latency": "ms"})
    assert dataset.feature_names == ("a", "b", "batch")
    X, _, _ = dataset.xyw("latency_s")
    np.testing.assert_array_equal(X[:, 2], [1, 2, 2])
    assert len(dataset.where(batch=2)) == 2
    mixed = frame.assign(precision=["fp32", "int8", "int8"])
    dataset = CostDataset.from_frame(mixed, tiny_spec, {"latency": "ms"})
    with pytest.raises(InputError, match=r"where\(\.\.\.\)"):
        dataset.xyw("latency_s")
    assert dataset.where(precision="int8").xyw("latency_s")[0].shape == (2, 2)
    with pytest.raises(InputError, match="no rows"):
        dataset.where(precision="fp16")
    with pytest.raises(InputError, match="no condition"):
        dataset.where(weather="dry")


def test_unknown_costs_are_refused_with_what_there_is(dataset: CostDataset) -> None:
    with pytest.raises(InputError, match="it has: latency_s"):
        dataset.xyw("power_w")
    with pytest.raises(InputError, match="no row"):
        dataset.xyw("energy_j")


def test_datasets_join_when_they_are_of_one_device(
    dataset: CostDataset, frame: pd.DataFrame, tiny_spec: NetworkSpec
) -> None:
    joined = CostDataset.join([dataset.rows(range(5)), dataset.rows(range(5, 20))])
    np.testing.assert_array_equal(joined.latency_s, dataset.latency_s)
    other = CostDataset.from_frame(frame, tiny_spec, {"latency": "ms"})
    with pytest.raises(InputError, match="different devices"):
        CostDataset.join([dataset, other])


# -- on disk ------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, campaign: CampaignRecord, make_visits: MakeVisits) -> Path:
    path = tmp_path / "run"
    path.mkdir()
    with Journal.create(path / "journal.jsonl", campaign) as journal:
        for visit in make_visits(campaign.spec, variants=6):
            journal.append(visit)
    export_campaign(path)
    return path


def test_folder_parquet_and_journal_hold_the_same_dataset(folder: Path) -> None:
    from_folder = CostDataset.load(folder)
    from_file = CostDataset.load(folder / "measurements.parquet")
    pd.testing.assert_frame_equal(from_folder.to_pandas(), from_file.to_pandas(), check_dtype=False)
    assert from_file.spec == from_folder.spec
    assert from_file.device == from_folder.device
    assert from_file.noise_floor() == from_folder.noise_floor()
    raw = pd.read_parquet(folder / "visits.parquet")
    assert len(raw) == 18
    assert len(raw["latencies_s"].iloc[0]) == 3
    card = (folder / "README.md").read_text()
    assert "Test CPU" in card
    assert "Noise floor" in card
    assert "no meter was read" in card


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(cut=st.floats(0, 0.999), flip=st.one_of(st.none(), st.floats(0, 0.999)))
def test_damaged_parquet_is_refused_with_a_clear_error(
    folder: Path, tmp_path: Path, cut: float, flip: float | None
) -> None:
    data = bytearray((folder / "measurements.parquet").read_bytes())
    if flip is None:
        data = data[: int(len(data) * cut)]
    else:
        data[int(len(data) * flip)] ^= 0xFF
    path = tmp_path / "damaged.parquet"
    path.write_bytes(data)
    try:
        CostDataset.load(path)
    except InputError as error:
        assert str(path) in str(error)  # noqa: PT017


def test_files_of_others_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no dataset at"):
        CostDataset.load(tmp_path)
    other = tmp_path / "other.parquet"
    pq.write_table(pa.table({"x": [1]}), other)
    with pytest.raises(InputError, match="not one of joulemap's"):
        CostDataset.load(other)
    about = json.dumps({"format_version": 99}).encode()
    pq.write_table(pa.table({"x": [1]}).replace_schema_metadata({b"joulemap": about}), other)
    with pytest.raises(InputError, match="format version 99"):
        CostDataset.load(other)
    pickle = tmp_path / "evil.parquet"
    pickle.write_bytes(b"cos\nsystem\n(S'touch evil'\ntR.")
    with pytest.raises(InputError, match="damaged or no Parquet"):
        CostDataset.load(pickle)


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot write to"):
        make_folder(Path("/proc/joulemap"))


# -- units and tables ---------------------------------------------------------------------------


@given(st.sampled_from(sorted(UNITS)), st.floats(1e-6, 1e6))
def test_every_unit_converts_to_its_si_column(name: str, value: float) -> None:
    unit = unit_named(name)
    column = si_column("cost", unit)
    si = unit_of_column(column)
    assert si is not None
    assert si.si == unit.si
    assert si.factor == 1.0
    features = pd.DataFrame({"x": [1.0]})
    table = CostTable(features, pd.DataFrame({"cost": [value]}), units={"cost": name})
    assert table.cost[column].iloc[0] == pytest.approx(value * unit.factor)
    assert table.units == {column: unit.si}


def test_a_cost_table_without_units_is_refused() -> None:
    features = pd.DataFrame({"x": [1.0, 2.0]})
    with pytest.raises(InputError, match="no unit"):
        CostTable(features, pd.DataFrame({"cost": [1.0, 2.0]}))
    with pytest.raises(InputError, match="2 rows of features and 1 of costs"):
        CostTable(features, pd.DataFrame({"cost_s": [1.0]}))
    with pytest.raises(InputError, match="positive"):
        CostTable(features, pd.DataFrame({"cost_s": [1.0, 0.0]}))


def test_the_card_speaks_in_words_and_says_what_is_simulated(
    tiny_spec: NetworkSpec, make_visits: MakeVisits
) -> None:
    measured = measurements_of(make_visits(tiny_spec, variants=3))
    device = {
        "affinity": {"is_bound": True, "reason": None},
        "cpus": [0, 1],
        "zones": [{"at": 3.5}],
        "meters": "none: nobody asked",
    }
    dataset = CostDataset.from_measurements(
        measured, tiny_spec, device=device, protocol={"time_cap_s": None}
    )
    said = dataset_card(dataset).splitlines()
    for line in ("affinity: is_bound yes", "cpus: 0, 1", "zones: at 3.5", "time_cap_s: none"):
        assert f"- {line}" in said
    with pytest.raises(InputError, match=r"value of 'energy_j' .*meters: none: nobody asked"):
        dataset.xyw("energy_j")
    frame = pd.DataFrame({"a": [1], "b": [4], "energy_j": [0.1], "energy_source": ["simulated"]})
    assert "Energies are simulated" in dataset_card(CostDataset.from_frame(frame, tiny_spec))


def test_the_card_makes_nothing_of_what_a_device_says(tiny_spec: NetworkSpec) -> None:
    said = "\x1b[2J<script>alert(1)</script> [here](http://evil) ![](x) `a` | b\n# c \u202e\u200b"
    frame = pd.DataFrame({"a": [1, 2], "b": [1, 2], "latency_s": [0.1, 0.2]})
    dataset = CostDataset.from_frame(frame, tiny_spec, source=said)
    dataset.device.update({"cpu_model": said, said: {said: [said]}})
    dataset.protocol.update({"temperature_zone": said})
    card = dataset_card(dataset)
    assert all(each.isprintable() or each == "\n" for each in card)
    plain = re.sub(r"\\.", "", card)
    assert not re.search(r"<script|\[here\]|!\[|`|\n# c", plain)
    assert r"\\x1b" in card

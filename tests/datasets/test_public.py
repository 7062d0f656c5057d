"""Measurements by others: units, rows, licences, and readers of further files of the same kinds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from joulemap import InputError
from joulemap.datasets import CostTable, DroppedRowsWarning, public
from joulemap.datasets.public import readers
from joulemap.datasets.units import unit_named
from joulemap.models import GaussianProcessPredictor

VECTORS = json.loads(
    (Path(__file__).parents[1] / "vectors" / "public_rows.json").read_text(encoding="utf-8")
)["sets"]


@pytest.mark.parametrize("name", public.names())
def test_a_row_of_each_set_is_as_its_authors_published_it(name: str) -> None:
    published = VECTORS[name]
    table = public.load(name)[published["table"]]
    assert len(table) == published["rows"]
    row = table.where(**published["where"])
    assert len(row) == 1
    assert len(published["cost"]) > 0
    for column, (value, unit) in published["cost"].items():
        assert row.cost[column].iloc[0] == pytest.approx(value * unit_named(unit).factor, rel=1e-12)
    for column, value in published.get("features", {}).items():
        assert row.features[column].iloc[0] == value


@pytest.mark.parametrize("name", public.names())
def test_each_set_names_its_licence_and_is_ready_to_fit(name: str) -> None:
    about = public.about(name)
    notice = (Path(public.__file__).parent / "NOTICE.md").read_text(encoding="utf-8")
    assert about.licence in ("MIT", "Apache-2.0")
    assert all(f"{file}" in notice for file in about.files)
    assert about.citation in str(about)
    for table in public.load(name).values():
        for target in table.targets:
            assert table.unit(target) in ("s", "J")
            known = np.flatnonzero(np.isfinite(table.cost[target]))
            X, y, weights = table.rows(known).xyw(target)
            assert np.isfinite(X).all()
            assert (y > 0).all()
            assert X.shape == (len(y), len(table.feature_names))
            assert (weights == 1).all()


def test_totals_over_layers_agree_with_the_published_ones_of_mobilenet() -> None:
    # MobileNetV1 at full width and 224x224 has 569 million multiply-accumulates and 4.2 million
    # parameters (Howard et al., table 4).
    table = next(iter(public.load("mlperf").values())).where(
        family="mobilenet_v1", width=1.0, resolution=224
    )
    row = table.features.iloc[0]
    macs = row["macs"] + row["first_conv_macs"] + row["depthwise_macs"]
    assert macs == pytest.approx(569e6, rel=0.01)
    assert row["parameters"] == pytest.approx(4.2e6, rel=0.02)


def test_loading_needs_no_torch() -> None:
    code = (
        "import sys; from joulemap.datasets import public; public.load('proxyless'); "
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_set_is_refused_with_the_known_names() -> None:
    with pytest.raises(InputError, match="no public set 'nasbench'; known: accel_nasbench, hat"):
        public.load("nasbench")


# -- files of the same kinds ---------------------------------------------------------------------

GRID = "net,layer,cin,cout,energy_J,latency_s\n"


def test_layer_grids_of_another_network_are_read(tmp_path: Path) -> None:
    path = tmp_path / "grid.csv"
    path.write_text(f"{GRID}vgg,conv1,8,16,0.5,0.001\nvgg,conv1,16,16,,0.002\nvgg,fc,8,8,1,1\n")
    tables = readers.read_layer_grids(path)
    assert list(tables) == ["vgg.conv1", "vgg.fc"]
    with pytest.warns(DroppedRowsWarning, match="1 of 2 rows have no 'energy_gross_j'"):
        X, y, _ = tables["vgg.conv1"].xyw("energy_gross_j")
    assert X.tolist() == [[8.0, 16.0]]
    assert y.tolist() == [0.5]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("net,layer,cin\nvgg,conv1,8\n", "has no column 'cout'"),
        (GRID, "has no rows"),
        (f"{GRID}vgg,conv1,many,16,0.5,0.001\n", "a value that is no number"),
        (f"{GRID}vgg,conv1,,16,0.5,0.001\n", "missing or infinite values"),
        (f"{GRID}vgg,conv1,8,16,-0.5,0.001\n", "not positive, finite"),
        (f"{GRID}vgg,conv1,8,16,0.5,inf\n", "not positive, finite"),
        ("", "cannot be read as a CSV table"),
    ],
)
def test_damaged_files_are_refused_with_what_is_wrong(
    tmp_path: Path, content: str, message: str
) -> None:
    path = tmp_path / "grid.csv"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        readers.read_layer_grids(path)


def test_a_file_that_is_not_there_or_no_gzip_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file"):
        readers.read_operators(tmp_path / "none.csv")
    (tmp_path / "broken.csv.gz").write_bytes(b"\x1f\x8b\x08broken")
    with pytest.raises(InputError, match=r"cannot read .*broken"):
        readers.read_operators(tmp_path / "broken.csv.gz")


# -- tables --------------------------------------------------------------------------------------


def made(**changes: object) -> CostTable:
    features = pd.DataFrame({"channels": [8.0, 16.0, 24.0], "kind": ["a", "b", "a"]})
    cost = pd.DataFrame({"latency_ms": [1.0, 2.0, np.nan]})
    labels = pd.DataFrame({"split": ["train", "train", "val"]})
    values: dict[str, object] = {"features": features, "cost": cost, "labels": labels} | changes
    return CostTable(
        values["features"],  # type: ignore[arg-type]
        values["cost"],  # type: ignore[arg-type]
        labels=values["labels"],  # type: ignore[arg-type]
    )


def test_text_becomes_columns_only_when_asked_for() -> None:
    train = made().where(split="train")
    with pytest.raises(InputError, match=r"'kind' holds text; write table.one_hot\('kind'\)"):
        train.xyw("latency_s")
    hot = train.one_hot("kind")
    assert hot.feature_names == ("channels", "kind=a", "kind=b")
    X, y, _ = hot.xyw("latency_s")
    assert X.tolist() == [[8.0, 1.0, 0.0], [16.0, 0.0, 1.0]]
    assert y.tolist() == [0.001, 0.002]
    with pytest.raises(InputError, match="no feature 'colour'"):
        hot.one_hot("colour")


def test_rows_are_chosen_by_labels_and_features() -> None:
    table = made()
    assert table.where(split="train", kind="b").features["channels"].tolist() == [16.0]
    assert table.rows(np.array([True, False, True])).labels["split"].tolist() == ["train", "val"]
    with pytest.raises(InputError, match="no label or feature 'fold'; it has: split, channels"):
        table.where(fold=1)
    with pytest.raises(InputError, match="no rows with"):
        table.where(kind="c")
    with pytest.raises(InputError, match="no cost 'energy_j'; it has: latency_s"):
        table.xyw("energy_j")
    with pytest.raises(InputError, match="no row of the table has a value"):
        table.one_hot("kind").where(split="val").xyw("latency_s")
    with pytest.raises(InputError, match="3 rows of costs and 1 of labels"):
        made(labels=pd.DataFrame({"split": ["train"]}))
    assert list(table.to_pandas().columns) == ["split", "channels", "kind", "latency_s"]


def test_a_predictor_is_fitted_to_a_table() -> None:
    table = public.load("proxyless")["operators"]
    predictor = GaussianProcessPredictor(learning_rows=40).fit_dataset(table, "latency_s")
    assert predictor.width_names_ == table.feature_names
    assert predictor.unit_ == "s"
    _, y, _ = table.xyw("latency_s")
    assert np.median(np.abs(predictor.predict(table.features) / y - 1)) < 0.1

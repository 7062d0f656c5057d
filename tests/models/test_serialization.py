import copy
import hashlib
import json
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from joulemap import InputError, models
from joulemap.datasets import NetworkSpec
from joulemap.models import (
    BilinearPredictor,
    CostModule,
    FlopsPredictor,
    load,
    save,
    serialization,
)
from joulemap.models.base.files import writing
from joulemap.models.base.intervals import FloatArray
from joulemap.models.base.predictor import Predictor
from joulemap.models.base.training import Training
from joulemap.models.registry import OUTSIDE
from joulemap.models.testing import ArrayDataset

Content = dict[str, Any]


@pytest.fixture(scope="module")
def predictor(dataset: ArrayDataset) -> Predictor:
    return BilinearPredictor().fit_dataset(dataset, "energy_j")


@pytest.fixture(scope="module")
def written(predictor: Predictor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("written") / "energy.safetensors"
    predictor.save(path)
    return path


def parts(path: Path) -> tuple[Content, Content]:
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    document = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["joulemap"])
    return document, dict(safetensors.numpy.load(data))


def rewrite(path: Path, document: Content, tensors: Content) -> None:
    """Write a file whose checksum is right, whatever its content."""
    document = {key: value for key, value in document.items() if key != "sha256"}
    arrays = {name: np.asarray(value, dtype=np.float64) for name, value in tensors.items()}
    document["sha256"] = writing.digest(document, arrays)
    metadata = {"joulemap": json.dumps(document)}
    path.write_bytes(safetensors.numpy.save(arrays, metadata=metadata))


def test_several_targets_in_one_file(dataset: ArrayDataset, tmp_path: Path) -> None:
    path = tmp_path / "both.safetensors"
    energy = BilinearPredictor().fit_dataset(dataset, "energy_j")
    latency = FlopsPredictor().fit_dataset(dataset, "latency_s")
    save([latency, energy], path)
    assert serialization.targets(path) == ("energy_j", "latency_s")
    X, _, _ = dataset.xyw("energy_j")
    np.testing.assert_array_equal(load(path, target="energy_j").predict(X), energy.predict(X))
    np.testing.assert_array_equal(load(path, target="latency_s").predict(X), latency.predict(X))
    assert load(path, target="latency_s").unit_ == "s"
    with pytest.raises(InputError, match="energy_j, latency_s"):
        load(path)
    with pytest.raises(InputError, match="no predictor for 'power_w'"):
        load(path, target="power_w")
    with pytest.raises(InputError, match="two predictors for"):
        save([energy, energy], path)
    with pytest.raises(InputError, match="no predictor to save"):
        save([], path)


def test_a_predictor_without_spec_or_data_survives(
    alexnet: Any, ecc: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "made.safetensors"
    made = BilinearPredictor.from_coefficients(alexnet, ecc["coefficients_a1_to_a8"], 0.1)
    made.save(path)
    assert load(path).predict(np.ones((1, 7))) == made.predict(np.ones((1, 7)))
    X = np.arange(1.0, 13.0).reshape(6, 2)
    plain = BilinearPredictor().fit(X, X.sum(axis=1))
    plain.save(path)
    np.testing.assert_array_equal(load(path).predict(X), plain.predict(X))
    np.testing.assert_array_equal(load(path).predict_interval(X), plain.predict_interval(X))


def test_the_header_is_readable_by_any_tool(written: Path, predictor: Predictor) -> None:
    document, tensors = parts(written)
    entry = document["predictors"]["energy_j"]
    assert entry["model"] == "bilinear"
    assert entry["unit"] == "J"
    assert entry["spec"]["name"] == "alexnet"
    assert entry["noise_floor"]["num_pairs"] == 30
    assert "joulemap.models" not in json.dumps(document)
    assert tensors["energy_j/coef_"].dtype == np.float64
    assert predictor.width_ranges_ is not None
    np.testing.assert_array_equal(tensors["energy_j/width_ranges_"], predictor.width_ranges_)


def test_writing_leaves_no_other_file_and_replaces_the_old_one(
    predictor: Predictor, tmp_path: Path
) -> None:
    path = tmp_path / "p.safetensors"
    path.write_text("old")
    predictor.save(path)
    assert [item.name for item in tmp_path.iterdir()] == ["p.safetensors"]
    assert path.stat().st_mode & 0o400
    load(path)


def test_a_failed_write_keeps_the_old_file(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "p.safetensors"
    predictor.save(path)
    content = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(InputError, match="No space left"):
        predictor.save(path)
    assert path.read_bytes() == content
    assert len(list(tmp_path.iterdir())) == 1


def test_paths_that_are_no_files(predictor: Predictor, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file"):
        load(tmp_path / "missing.safetensors")
    with pytest.raises(InputError, match="folder"):
        load(tmp_path)
    with pytest.raises(InputError, match="cannot be written"):
        predictor.save(tmp_path / "missing" / "p.safetensors")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        predictor.save(tmp_path / "file" / "p.safetensors")
    with pytest.raises(InputError, match="cannot be written"):
        predictor.save(tmp_path / ("a" * 300))
    with pytest.raises(InputError, match="is a folder"):
        predictor.save(tmp_path)


def test_a_conditions_value_that_json_cannot_hold(predictor: Predictor, tmp_path: Path) -> None:
    other = copy.copy(predictor)
    other.conditions_ = {"runtime": object()}
    with pytest.raises(InputError, match="JSON"):
        other.save(tmp_path / "p.safetensors")


class Trap:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return (pytest.fail, ("a pickle was loaded",))


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    for content in (b"", b"x", b"\x00" * 100, b"\xff" * 100, pickle.dumps(Trap()), b"{}"):
        path.write_bytes(content)
        with pytest.raises(InputError):
            load(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.pkl", pickle.dumps(Trap()))
    with pytest.raises(InputError, match="not a predictor file"):
        load(path)
    path.write_bytes(safetensors.numpy.save({"a": np.ones(3)}))
    with pytest.raises(InputError, match="not a predictor file"):
        load(path)
    path.write_bytes(safetensors.numpy.save({"a": np.ones(3)}, metadata={"joulemap": "[" * 99999}))
    with pytest.raises(InputError, match="cannot be read"):
        load(path)


def test_absurd_sizes_are_refused(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "p.safetensors"
    path.write_bytes(struct.pack("<Q", 1 << 60) + written.read_bytes()[8:])
    with pytest.raises(InputError, match="damaged"):
        load(path)
    with monkeypatch.context() as patch:
        patch.setattr(serialization, "MAX_METADATA_BYTES", 100)
        with pytest.raises(InputError, match="characters of metadata"):
            load(written)
    monkeypatch.setattr(serialization, "MAX_BYTES", 100)
    with pytest.raises(InputError, match="larger than 100 bytes"):
        load(written)


def edit(*keys: str, value: Any) -> Callable[[Content, Content], None]:
    def apply(document: Content, tensors: Content) -> None:
        place = document
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value

    return apply


def tensor(name: str, value: Any) -> Callable[[Content, Content], None]:
    def apply(document: Content, tensors: Content) -> None:
        if value is None:
            del tensors[f"energy_j/{name}"]
        else:
            tensors[f"energy_j/{name}"] = value

    return apply


ENTRY = ("predictors", "energy_j")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (edit("format", value="other"), "another format"),
        (edit("version", value=3), "version 3"),
        (edit("version", value=None), "version None"),
        (edit("predictors", value={}), "no predictors"),
        (edit("predictors", value=[1]), "no predictors"),
        (edit(*ENTRY, value=None), "do not describe"),
        (edit(*ENTRY, "model", value="os.system"), "holds a model 'os.system', which"),
        (edit(*ENTRY, "model", value=["bilinear"]), "no model named"),
        (edit(*ENTRY, "hyperparameters", value={"method": "lasso"}), "method is 'lasso'"),
        (edit(*ENTRY, "hyperparameters", value={"evil": 1}), "do not describe"),
        (edit(*ENTRY, "hyperparameters", value=3), "do not describe"),
        (edit(*ENTRY, "spec", value={}), "network spec"),
        (edit(*ENTRY, "spec", "widths", value=[]), "cannot be used"),
        (edit(*ENTRY, "width_names", value=["a"]), "not those of alexnet"),
        (edit(*ENTRY, "width_names", value=None), "not a list"),
        (edit(*ENTRY, "unit", value=3), "unit is 3"),
        (edit(*ENTRY, "noise_floor", value={"value": 1}), "noise floor"),
        (edit(*ENTRY, "conditions", value=[]), "conditions"),
        (edit(*ENTRY, "device_id", value={}), "device_id"),
        (edit(*ENTRY, "num_samples", value=-1), "num_samples"),
        (edit(*ENTRY, "num_samples", value=7), "do not fit its number"),
        (edit(*ENTRY, "num_distinct", value=0), "not positive"),
        (edit(*ENTRY, "num_distinct", value=1e9), "num_distinct"),
        (tensor("coef_", None), "no tensor 'coef_'"),
        (tensor("coef_", np.ones(7)), "coef_ has shape"),
        (tensor("coef_", np.full(8, np.nan)), "NaN"),
        (tensor("intercept_", np.ones(1)), "intercept_ has shape"),
        (tensor("upper_bounds_", np.ones(7)), "bounds of alexnet"),
        (tensor("upper_bounds_", np.zeros(7)), "not positive"),
        (tensor("held_out_.weights", -np.ones(150)), "not positive"),
        (tensor("held_out_.measured", np.ones(3)), "do not fit its number"),
        (tensor("held_out_.measured", np.full(150, 1e308)), "numbers beyond"),
        (tensor("width_ranges_", np.ones(3)), "width ranges"),
        (tensor("more", np.ones(3)), "unknown tensor 'more'"),
    ],
)
def test_content_that_does_not_fit_is_refused(
    written: Path, tmp_path: Path, change: Callable[[Content, Content], None], message: str
) -> None:
    document, tensors = parts(written)
    change(document, tensors)
    path = tmp_path / "p.safetensors"
    rewrite(path, document, tensors)
    with pytest.raises(InputError, match=message):
        load(path, target="energy_j")


def test_float32_tensors_are_refused(written: Path, tmp_path: Path) -> None:
    document, tensors = parts(written)
    path = tmp_path / "p.safetensors"
    halves = {name: value.astype(np.float32) for name, value in tensors.items()}
    metadata = {"joulemap": json.dumps(document)}
    path.write_bytes(safetensors.numpy.save(halves, metadata=metadata))
    with pytest.raises(InputError, match="F32"):
        load(path)


FUZZ = settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@FUZZ
@given(data=st.data())
def test_damaged_files_load_equal_or_are_refused(
    written: Path, predictor: Predictor, tmp_path: Path, data: st.DataObject
) -> None:
    content = bytearray(written.read_bytes())
    if data.draw(st.booleans(), label="truncate"):
        del content[data.draw(st.integers(0, len(content) - 1), label="length") :]
    else:
        positions = st.integers(0, len(content) - 1)
        for place in data.draw(st.lists(positions, min_size=1, max_size=3), label="places"):
            content[place] ^= data.draw(st.integers(1, 255), label="flip")
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(content)
    widths = np.ones((1, predictor.n_features_in_))
    try:
        loaded = load(path)
    except InputError:
        return
    assert loaded.predict(widths) == predictor.predict(widths)
    assert loaded.unit_ == predictor.unit_


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    if isinstance(value, dict):
        for key, inner in value.items():
            found += places(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            found += places(inner, (*path, index))
    return found


@FUZZ
@given(data=st.data())
def test_any_signed_metadata_load_or_are_refused(
    written: Path, tmp_path: Path, data: st.DataObject
) -> None:
    document, tensors = parts(written)
    del document["sha256"]
    where = data.draw(st.sampled_from(places(document)), label="where")
    place = document
    for key in where[:-1]:
        place = place[key]
    place[where[-1]] = data.draw(JSON, label="value")
    path = tmp_path / "forged.safetensors"
    try:
        rewrite(path, document, tensors)
    except ValueError:  # infinity: json refuses it when writing as well
        return
    try:
        loaded = load(path)
    except InputError:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert np.isfinite(loaded.predict(np.ones((1, loaded.n_features_in_)))).all()


def test_the_checksum_covers_names_and_shapes() -> None:
    digests = {
        writing.digest({}, arrays)
        for arrays in (
            {"a": np.zeros(2)},
            {"b": np.zeros(2)},
            {"a": np.zeros((1, 2))},
            {"a": np.array([0.0, 1.0])},
            {},
        )
    }
    assert len(digests) == 5
    assert hashlib.sha256(b"{}").hexdigest() in digests


# -- predictors that hold predictors -----------------------------------------------------------


class Mean(Predictor):
    """The mean of given predictors and of one that it fits itself."""

    part_names: ClassVar[tuple[str, ...]] = ("sources", "own_")

    own_: tuple[Predictor, ...]

    def __init__(
        self, spec: NetworkSpec | None = None, *, sources: Sequence[Predictor] = ()
    ) -> None:
        super().__init__(spec)
        self.sources = sources

    def fit_arrays(self, training: Training) -> None:
        own = FlopsPredictor(self.spec).fit(training.X, training.y, training.weights)
        self.own_ = (own,)

    def predict_arrays(self, X: FloatArray) -> FloatArray:
        several = [part.predict_arrays(X) for part in (*self.sources, *self.own_)]
        return np.asarray(np.mean(several, axis=0))

    def exact_module(self) -> CostModule:
        raise InputError("a mean of predictors has no module here")


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OUTSIDE, "registered", {})
    models.register("mean", Mean)


@pytest.fixture
def nested(dataset: ArrayDataset, registered: None) -> Mean:
    sources = tuple(BilinearPredictor().fit_dataset(dataset, t) for t in ("energy_j", "latency_s"))
    inner = Mean(sources=sources).fit_dataset(dataset, "energy_j")
    return Mean(sources=(inner, sources[1])).fit_dataset(dataset, "energy_j")


def test_predictors_inside_are_written_with_it(
    nested: Mean, dataset: ArrayDataset, tmp_path: Path
) -> None:
    path = tmp_path / "nested.safetensors"
    nested.save(path)
    found = load(path)
    assert isinstance(found, Mean)
    assert isinstance(found.sources[0], Mean)
    X, _, _ = dataset.xyw("energy_j")
    np.testing.assert_array_equal(found.predict(X), nested.predict(X))
    np.testing.assert_array_equal(
        found.sources[0].predict_interval(X), nested.sources[0].predict_interval(X)
    )
    assert [part.target_ for part in found.sources] == ["energy_j", "latency_s"]
    content = path.read_bytes()
    found.save(path)
    assert path.read_bytes() == content


def test_files_whose_parts_do_not_fit_are_refused(nested: Mean, tmp_path: Path) -> None:
    nested.save(tmp_path / "nested.safetensors")
    document, tensors = parts(tmp_path / "nested.safetensors")
    path = tmp_path / "changed.safetensors"
    entry = document["predictors"]["energy_j"]

    def refused(message: str) -> None:
        rewrite(path, document, tensors)
        with pytest.raises(InputError, match=message):
            load(path)

    kept = entry["parts"]
    values: list[Any] = [{}, None, [], {"sources": kept["sources"]}, {**kept, "more": []}]
    for value in values:
        entry["parts"] = value
        refused("does not hold the predictors that a Mean consists of")
    entry["parts"] = {**kept, "sources": kept["sources"][:1]}
    refused("unknown tensor")
    entry["parts"] = {**kept, "own_": [{**kept["own_"][0], "model": "os.system"}]}
    refused("it holds a model 'os.system', which")
    deep = json.loads(json.dumps(kept))
    innermost = deep
    for _ in range(8):
        innermost["sources"] = [
            {**entry, "target": "energy_j", "parts": json.loads(json.dumps(kept))}
        ]
        innermost = innermost["sources"][0]["parts"]
    entry["parts"] = deep
    refused("more than 4 deep")

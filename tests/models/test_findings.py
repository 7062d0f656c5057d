"""What predictor files hold beside arrays: read as from strangers, and from files of version 1."""

import copy
import doctest
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from joulemap import InputError
from joulemap.models import LayerwisePredictor, load
from joulemap.models.aligned import structure
from joulemap.models.base.files import findings, writing
from joulemap.models.base.files.findings import MAX_COUNT, MAX_ENTRIES, Findings

FORMER = Path(__file__).parent / "former_files"
EXPECTED: dict[str, Any] = json.loads((FORMER / "expected.json").read_text())
NAMES = sorted(EXPECTED["predictors"])
# Their findings are all that they hold beside arrays.
WITH_FINDINGS = ("aligned", "auto_few", "gp", "gp_table", "layerwise", "neural", "trees")


def parts(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    document = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["joulemap"])
    return document, dict(safetensors.numpy.load(data))


def rewrite(path: Path, document: dict[str, Any], tensors: dict[str, Any]) -> None:
    """Write a file whose checksum is right, whatever its content."""
    document = {key: value for key, value in document.items() if key != "sha256"}
    document["sha256"] = writing.digest(document, tensors)
    metadata = {"joulemap": json.dumps(document)}
    path.write_bytes(safetensors.numpy.save(tensors, metadata=metadata))


@pytest.mark.parametrize("name", NAMES)
def test_files_of_version_1_give_what_they_gave(name: str, tmp_path: Path) -> None:
    widths = np.array(EXPECTED["widths"])
    expected = EXPECTED["predictors"][name]
    document, _ = parts(FORMER / f"{name}.safetensors")
    assert document["version"] == 1
    loaded = load(FORMER / f"{name}.safetensors")
    np.testing.assert_allclose(loaded.predict(widths), expected["predicted"], rtol=1e-9)
    assert loaded.describe() == expected["describe"]
    if "upper" in expected:
        np.testing.assert_allclose(loaded.predict_upper(widths), expected["upper"], rtol=1e-9)
    loaded.save(tmp_path / "new.safetensors")
    again = load(tmp_path / "new.safetensors")
    np.testing.assert_array_equal(again.predict(widths), loaded.predict(widths))
    assert again.describe() == loaded.describe()


def test_choices_flags_and_texts_stand_readably_in_the_file(tmp_path: Path) -> None:
    found = {}
    for name in WITH_FINDINGS:
        load(FORMER / f"{name}.safetensors").save(tmp_path / f"{name}.safetensors")
        document, _ = parts(tmp_path / f"{name}.safetensors")
        assert document["version"] == 2
        (entry,) = document["predictors"].values()
        found[name] = entry["findings"]
    assert found["aligned"]["structure"] == {
        "divisor": 4,
        "block": 1,
        "is_staircase": False,
        "terms": "compute",
    }
    assert found["layerwise"]["num_networks"] == 1
    assert found["auto_few"]["reasons"]["aligned"].startswith("needs 6 variants")
    assert found["gp"]["mean"]["kind"] == "aligned"
    assert found["gp_table"]["mean"] == {"kind": "products", "structure": None}
    assert found["trees"] == {"is_log": True}
    assert [column["is_count"] for column in found["neural"]["columns"]] == [True, True]


def places(value: Any, *path: Any) -> Iterator[tuple[Any, ...]]:
    """Yield where the values of a JSON document stand, up to two entries of each list."""
    yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, *path, key)
    elif isinstance(value, list):
        for place, inner in enumerate(value[:2]):
            yield from places(inner, *path, place)


HOSTILE: tuple[Any, ...] = (
    None,
    True,
    1,
    -1,
    1.5,
    10**30,
    1e308,
    "evil",
    "\x1b[2J",
    [],
    [[]],
    {},
    {"a": {}},
)


@pytest.mark.parametrize("name", WITH_FINDINGS)
def test_forged_findings_are_refused_or_mean_what_they_say(name: str, tmp_path: Path) -> None:
    load(FORMER / f"{name}.safetensors").save(tmp_path / "new.safetensors")
    document, tensors = parts(tmp_path / "new.safetensors")
    ((target, entry),) = document["predictors"].items()
    refused = []
    for path in places(entry["findings"]):
        for value in HOSTILE:
            forged = copy.deepcopy(document)
            place, key = forged["predictors"][target], "findings"
            for step in path:
                place, key = place[key], step
            place[key] = value
            rewrite(tmp_path / "forged.safetensors", forged, tensors)
            try:
                loaded = load(tmp_path / "forged.safetensors")
            except InputError as error:
                refused.append(str(error))
                continue
            assert "\x1b" not in "".join(loaded.describe())
            kept = before(entry["findings"], path)
            assert type(value) is type(kept) or (isinstance(kept, float) and type(value) is int)
    assert len(refused) > 10
    assert max(map(len, refused)) < 400
    assert "\x1b" not in "".join(refused)


def before(findings: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        findings = findings[step]
    return findings


@pytest.mark.parametrize("name", WITH_FINDINGS)
def test_findings_that_lack_something_or_hold_more_are_refused(name: str, tmp_path: Path) -> None:
    load(FORMER / f"{name}.safetensors").save(tmp_path / "new.safetensors")
    document, tensors = parts(tmp_path / "new.safetensors")
    ((target, entry),) = document["predictors"].items()
    path = tmp_path / "forged.safetensors"
    for key in entry["findings"]:
        forged = copy.deepcopy(document)
        del forged["predictors"][target]["findings"][key]
        rewrite(path, forged, tensors)
        with pytest.raises(InputError, match=f"do not hold '{key}'"):
            load(path)
    forged = copy.deepcopy(document)
    forged["predictors"][target]["findings"]["more"] = 1
    rewrite(path, forged, tensors)
    with pytest.raises(InputError, match="hold 'more', which is not known"):
        load(path)
    del forged["predictors"][target]["findings"]
    rewrite(path, forged, tensors)
    with pytest.raises(InputError, match="do not describe a predictor"):
        load(path)


@pytest.mark.parametrize(
    ("name", "tensor", "value"),
    [
        ("aligned", "structure_", [3.0, 1.0, 0.0, 1.0]),
        ("aligned", "structure_", [4.0, 1.0]),
        ("aligned", "structure_", [4.0, 1.0, 9.0, 1.0]),
        ("aligned", "candidates_", [[1.0, 1.0, 0.0]]),
        ("aligned", "candidates_", [[1.0, 1.0, 0.5, 0.1]]),
        ("layerwise", "num_networks_", 1.5),
        ("auto_few", "reasons_", [1.0]),
        ("auto_few", "reasons_", [float("nan")]),
        ("gp", "mean_structure_", [7.0]),
        ("gp", "mean_structure_", [float("inf")]),
        ("gp", "columns_", [[0.5, 1.0]] * 6),
        ("neural", "trend_structure_", [3.0]),
        ("neural", "columns_", [[9.0, 1.0]] * 6),
        ("trees", "outcome_", [1.0]),
    ],
)
def test_forged_files_of_version_1_are_refused(
    name: str, tensor: str, value: Any, tmp_path: Path
) -> None:
    document, tensors = parts(FORMER / f"{name}.safetensors")
    ((target, _),) = document["predictors"].items()
    rewrite(tmp_path / "f", document, tensors | {f"{target}/{tensor}": np.array(value)})
    with pytest.raises(InputError, match="cannot be used"):
        load(tmp_path / "f")


def test_the_number_of_networks_is_a_number() -> None:
    loaded = load(FORMER / "layerwise.safetensors")
    assert isinstance(loaded, LayerwisePredictor)
    assert type(loaded.num_networks_) is int


def test_objects_are_bounded() -> None:
    large = dict.fromkeys(map(str, range(MAX_ENTRIES + 1)))
    objects: list[Any] = [None, [], "x", large]
    for values in objects:
        with pytest.raises(InputError, match="no object of at most"):
            Findings(values)
    with pytest.raises(InputError, match="a list of at most"):
        Findings({"a": [{}] * (MAX_ENTRIES + 1)}).parts("a")
    with pytest.raises(InputError, match="not a whole number of at least 1"):
        Findings({"a": MAX_COUNT + 1}).count("a", 1)


def test_examples_in_docstrings_run() -> None:
    for module in (findings, structure):
        assert doctest.testmod(module).failed == 0

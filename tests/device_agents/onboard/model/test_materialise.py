from __future__ import annotations

import copy
import json
import subprocess
import sys
import tracemalloc
from base64 import b64encode
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joulemap.device_agents.onboard.model import materialise
from joulemap.device_agents.onboard.model.materialise import Materialiser


def size(*terms: tuple[int, list[int]], divide: int = 1) -> dict[str, Any]:
    return {"terms": [list(term) for term in terms], "divide": divide}


def normal(name: str, dims: list[Any], fan_in: list[int], dtype: str = "float32") -> dict[str, Any]:
    data = {"kind": "normal", "scale": 1.0, "fan_in": fan_in, "fan_in_divisor": []}
    return {"name": name, "dtype": dtype, "dims": dims, "data": data}


def template() -> dict[str, Any]:
    """A linear layer 6 -> a, viewed as a/4 groups of 4, summed, then 4 -> b, times a constant."""
    a, b = size((1, [0])), size((1, [1]))
    gemm = {
        "op": "Gemm",
        "domain": "",
        "attributes": [{"name": "transB", "type": "int", "value": 1}],
    }
    raw = b64encode(np.float32(0.5).tobytes()).decode()
    return {
        "schema_version": materialise.TEMPLATE_SCHEMA_VERSION,
        "network": "tiny",
        "fingerprint": "",
        "batch": 2,
        "widths": [
            {"name": "a", "min": 4, "max": 40, "multiple": 4},
            {"name": "b", "min": 1, "max": 9, "multiple": 1},
        ],
        "ir_version": 10,
        "opsets": [["", 20]],
        "graph": "main",
        "inputs": [{"name": "x", "dtype": "float32", "dims": [2, 6], "high": None}],
        "outputs": [{"name": "y", "dtype": "float32", "dims": [2, b]}],
        "nodes": [
            {**gemm, "name": "first", "inputs": ["x", "w1"], "outputs": ["h"]},
            {
                "op": "Reshape",
                "domain": "",
                "name": "view",
                "inputs": ["h", "shape"],
                "outputs": ["v"],
                "attributes": [],
            },
            {
                "op": "ReduceSum",
                "domain": "",
                "name": "sum",
                "inputs": ["v", "axes"],
                "outputs": ["s"],
                "attributes": [{"name": "keepdims", "type": "int", "value": 0}],
            },
            {**gemm, "name": "last", "inputs": ["s", "w2"], "outputs": ["g"]},
            {
                "op": "Mul",
                "domain": "",
                "name": "scale",
                "inputs": ["g", "half"],
                "outputs": ["y"],
                "attributes": [],
            },
        ],
        "initializers": [
            normal("w1", [a, 6], [1]),
            normal("w2", [b, 4], [1]),
            {
                "name": "shape",
                "dtype": "int64",
                "dims": [3],
                "data": {"kind": "ints", "values": [2, size((1, [0]), divide=4), 4]},
            },
            {
                "name": "axes",
                "dtype": "int64",
                "dims": [1],
                "data": {"kind": "ints", "values": [1]},
            },
            {
                "name": "half",
                "dtype": "float32",
                "dims": [],
                "data": {"kind": "raw", "base64": raw},
            },
        ],
    }


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 10), st.integers(1, 9))
def test_variant_runs_and_computes_what_its_weights_say(quarter: int, b: int) -> None:
    materialiser = Materialiser(template())
    model = materialiser.materialise([4 * quarter, b])
    parsed = onnx.load_from_string(model)
    onnx.checker.check_model(parsed, full_check=True)
    assert parsed.SerializeToString() == model or len(parsed.SerializeToString()) == len(model)
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in parsed.graph.initializer}
    inputs = materialiser.make_inputs()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (result,) = session.run(None, inputs)
    hidden = (inputs["x"] @ weights["w1"].T).reshape(2, quarter, 4).sum(1)
    np.testing.assert_allclose(result, 0.5 * hidden @ weights["w2"].T, rtol=1e-4, atol=1e-5)


def test_equal_widths_give_equal_bytes() -> None:
    first, second = Materialiser(template()), Materialiser(json.dumps(template()))
    assert first.materialise([8, 3]) == second.materialise((8, 3))
    assert first.materialise(list(np.array([8, 3]))) == second.materialise([8, 3])
    assert first.materialise([8, 3]) != first.materialise([8, 4])
    assert Materialiser(json.dumps(template()).encode()).materialise([8, 3])


def test_weights_have_the_scale_of_their_fan_in() -> None:
    content = template()
    content["widths"][0]["max"] = 400_000
    model = onnx.load_from_string(Materialiser(content).materialise([400_000, 1]))
    weights = onnx.numpy_helper.to_array(model.graph.initializer[0])
    assert weights.shape == (400_000, 6)
    assert np.std(weights) == pytest.approx(1 / np.sqrt(6), rel=0.01)
    assert abs(np.mean(weights)) < 0.01
    assert not np.array_equal(weights[0], weights[materialise.BUFFER_LENGTH // 6])


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_floats(dtype: str) -> None:
    content = template()
    content["initializers"][0] = normal("w1", [size((1, [0])), 6], [1], dtype)
    tensor = onnx.load_from_string(Materialiser(content).materialise([8, 3])).graph.initializer[0]
    array = onnx.numpy_helper.to_array(tensor)
    assert array.dtype == dtype
    assert 0.1 < array.std() < 1


def test_positive_values() -> None:
    content = template()
    content["initializers"][0]["data"]["kind"] = "positive"
    tensor = onnx.load_from_string(Materialiser(content).materialise([8, 3])).graph.initializer[0]
    assert onnx.numpy_helper.to_array(tensor).min() > 0


def test_what_an_agent_needs_to_know() -> None:
    materialiser = Materialiser(template())
    assert materialiser.width_names == ("a", "b")
    assert materialiser.input_names == ("x",)
    assert materialiser.input_shapes == {"x": (2, 6)}
    assert materialiser.input_dtypes == {"x": "float32"}
    assert materialiser.output_names == ("y",)
    inputs = materialiser.make_inputs()
    assert inputs["x"].dtype == np.float32
    assert inputs["x"].shape == (2, 6)
    np.testing.assert_array_equal(inputs["x"], materialiser.make_inputs()["x"])
    assert not np.array_equal(inputs["x"], materialiser.make_inputs(seed=1)["x"])


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        ([8], "2 widths .a, b., but 1"),
        ([8, 3, 3], "but 3 were given"),
        ([8, 0], "'b' is 0, outside 1..9"),
        ([8, 10], "'b' is 10, outside 1..9"),
        ([6, 3], "'a' is 6, outside 4..40 in multiples of 4"),
        ([8, 3.0], "'b' is 3.0, not an int"),
        ([8, True], "'b' is True, not an int"),
        (["8", 3], "'a' is '8', not an int"),
        ([8, None], "not an int"),
    ],
)
def test_widths_that_do_not_fit(widths: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Materialiser(template()).materialise(widths)


def changed(path: str, value: Any) -> dict[str, Any]:
    content: Any = copy.deepcopy(template())
    *parents, last = [int(part) if part.isdigit() else part for part in path.split("/")]
    target = content
    for part in parents:
        target = target[part]
    target[last] = value
    return dict(content)


@pytest.mark.parametrize(
    "content",
    [
        changed("schema_version", 1),
        changed("schema_version", None),
        changed("widths", 5),
        changed("widths/0/min", 0),
        changed("widths/0/min", "4"),
        changed("widths/0/max", 3),
        changed("widths/0/multiple", 0),
        changed("ir_version", -(2**70)),
        changed("opsets", [["", "20"]]),
        changed("inputs/0/dtype", "complex64"),
        changed("inputs/0/dims", [size((1, [0])), 6]),
        changed("outputs/0/name", None),
        changed("nodes/0/attributes/0/type", "graph"),
        changed("nodes/0/attributes/0/value", 1.5),
        changed("nodes/0/attributes/0", {"name": "a", "type": "float", "value": None}),
        changed("nodes/0/attributes/0", {"name": "a", "type": "floats", "value": ["x"]}),
        changed("nodes/0/inputs", [3]),
        changed("initializers/0/dtype", "string"),
        changed("initializers/0/dtype", "int64"),
        changed("initializers/0/data/kind", "pickle"),
        changed("initializers/0/data/scale", 0.0),
        changed("initializers/0/data/scale", float("nan")),
        changed("initializers/0/data/fan_in", [7]),
        changed("initializers/0/dims/0", size((1, [2]))),
        changed("initializers/0/dims/0", size((1, [-1]))),
        changed("initializers/0/dims/0", size((1, [0]), divide=0)),
        changed("initializers/0/dims/0", size((1, [0] * 100_000))),
        changed("initializers/0/dims/0", "a"),
        changed("initializers/4/data/base64", "!!"),
        {},
        "",
        "[]",
        "3",
        b"\xff\xfe",
        "[" * 100_000,
    ],
)
def test_damaged_templates_are_refused(content: Any) -> None:
    with pytest.raises(ValueError, match="the template cannot be used"):
        Materialiser(content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (changed("initializers/0/dims/0", size((1, [0]), divide=3)), "no multiple of 3"),
        (changed("initializers/0/dims/0", size((-1, [0]))), "has the shape"),
        (changed("initializers/2/dims", [4]), "needs 32 bytes, not 24"),
        (changed("initializers/4/dims", [2]), "needs 8 bytes, not 4"),
        (changed("initializers/2/data/values/1", 2**63), "64 bits"),
        (changed("outputs/0/dims/1", 2**70), "64 bits"),
    ],
)
def test_sizes_that_make_no_tensor(content: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Materialiser(content).materialise([8, 3])


@pytest.mark.parametrize("num_tensors", [1, 3])
def test_model_beyond_two_gigabytes_is_refused_before_memory_is_taken(num_tensors: int) -> None:
    rows = 2**34 if num_tensors == 1 else 2**25
    content = template()
    content["initializers"] += [normal(f"big{n}", [rows, 6], [1]) for n in range(num_tensors)]
    materialiser = Materialiser(content)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="ONNX model"):
            materialiser.materialise([8, 3])
        assert tracemalloc.get_traced_memory()[1] < 10e6
    finally:
        tracemalloc.stop()


def test_runs_without_the_rest_of_joulemap(tmp_path: Path) -> None:
    folder = Path(materialise.__file__).parent
    (tmp_path / "onboard").symlink_to(folder.resolve())
    (tmp_path / "template.json").write_text(json.dumps(template()))
    program = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from onboard.materialise import Materialiser
with open({str(tmp_path / "template.json")!r}) as file:
    materialiser = Materialiser(file.read())
sys.stdout.buffer.write(materialiser.materialise([8, 3]))
heavy = {{"onnx", "torch", "joulemap", "google", "pandas"}} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, check=True)
    assert done.stdout == Materialiser(template()).materialise([8, 3])

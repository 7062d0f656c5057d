"""ONNX files as graphs: shapes made numbers, constants computed, external data beside the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from joulemap import InputError
from joulemap.profiler.networks.importing import ImportedGraph, import_onnx, parse_inputs

Dims = list[Any]


def tensor(name: str, *dims: int) -> TensorProto:
    values = np.random.default_rng(len(name)).standard_normal(dims).astype(np.float32)
    return numpy_helper.from_array(values, name)


def model(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, tuple[int, Dims | None]],
    initializers: list[TensorProto],
    opset: int = 17,
    **more: Any,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, *given) for name, given in inputs.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        initializers,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], **more)
    made.ir_version = 8
    return made


def convolutional(dims: Dims, opset: int = 17) -> onnx.ModelProto:
    """A convolution with a norm, and a shape that is computed from the input's."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c", "s", "b", "m", "v"], ["n"], name="norm"),
        helper.make_node("Shape", ["n"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["first"], axis=0),
        helper.make_node("Concat", ["first", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["n", "target"], ["y"], name="flatten"),
    ]
    weights = [tensor("w", 8, 3, 3, 3), *(tensor(name, 8) for name in "sbm")]
    weights.append(numpy_helper.from_array(np.ones(8, np.float32), "v"))
    weights.append(numpy_helper.from_array(np.array([0]), "zero"))
    weights.append(numpy_helper.from_array(np.array([-1]), "rest"))
    return model(nodes, {"x": (TensorProto.FLOAT, dims)}, weights, opset)


def elementwise(inputs: dict[str, tuple[int, Dims | None]]) -> onnx.ModelProto:
    a, b = inputs
    return model([helper.make_node("Add", [a, b], ["y"])], inputs, [])


Write = Callable[[onnx.ModelProto], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(made: onnx.ModelProto) -> Path:
        path = tmp_path / "my-net.onnx"
        path.write_bytes(made.SerializeToString())
        return path

    return write


def run(graph: ImportedGraph) -> np.ndarray:
    session = onnxruntime.InferenceSession(
        graph.model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (value,) = session.run(["y"], dict(graph.inputs))
    return np.asarray(value)


@pytest.mark.parametrize("opset", [7, 9, 13, 17, 21])
def test_shapes_are_numbers_and_constants_are_computed(opset: int, write: Write) -> None:
    made = convolutional(["batch", 3, "side", "side"], opset)
    path = write(made)
    graph = import_onnx(path, shapes=["x=2x3x16x16"])
    assert graph.name == "my_net"
    assert graph.source.startswith("onnx:")
    assert len(graph.source) == 69
    assert graph.module is None
    assert [node.op_type for node in graph.model.graph.node] == [
        "Conv",
        "BatchNormalization",
        "Reshape",
    ]
    assert [node.name for node in graph.model.graph.node] == ["conv", "norm", "flatten"]
    names = {item.name for item in graph.model.graph.initializer}
    assert names >= {"w", "s", "b", "m", "v"}
    assert graph.inputs["x"].shape == (2, 3, 16, 16)
    (opset_of_onnx,) = graph.model.opset_import
    assert opset_of_onnx.version == opset
    session = onnxruntime.InferenceSession(made.SerializeToString())
    np.testing.assert_allclose(run(graph), session.run(None, dict(graph.inputs))[0], atol=1e-5)
    shapes = {
        item.name: [dim.dim_value for dim in item.type.tensor_type.shape.dim]
        for item in [*graph.model.graph.value_info, *graph.model.graph.output]
    }
    assert shapes["c"] == [2, 8, 16, 16]
    assert shapes["y"] == [2, 2048]


def test_old_files_that_list_weights_as_inputs(write: Write) -> None:
    made = convolutional([1, 3, 8, 8], 7)
    made.ir_version = 3
    made.graph.input.extend(
        helper.make_tensor_value_info(item.name, item.data_type, list(item.dims))
        for item in made.graph.initializer
    )
    graph = import_onnx(write(made))
    assert list(graph.inputs) == ["x"]
    assert [item.name for item in graph.model.graph.input] == ["x"]


def test_a_first_size_that_is_open_is_the_batch(write: Write) -> None:
    path = write(convolutional(["n", 3, 8, 8]))
    assert import_onnx(path).inputs["x"].shape == (1, 3, 8, 8)
    assert import_onnx(path, batch=4).inputs["x"].shape == (4, 3, 8, 8)
    assert import_onnx(path, shapes=["1x3x8x8"], batch=4).inputs["x"].shape == (4, 3, 8, 8)


def test_a_file_of_one_batch_is_not_measured_at_another(write: Write) -> None:
    path = write(convolutional([1, 3, 8, 8]))
    with pytest.raises(InputError, match=r"is made for a batch of 1 \(its input 'x' is 1x3x8x8\)"):
        import_onnx(path, batch=4)


def test_one_name_of_a_size_is_one_number(write: Write) -> None:
    kinds = TensorProto.FLOAT
    path = write(elementwise({"a": (kinds, ["n", "len"]), "b": (kinds, ["n", "len"])}))
    graph = import_onnx(path, shapes=["a=1x7"])
    assert {name: value.shape for name, value in graph.inputs.items()} == {
        "a": (1, 7),
        "b": (1, 7),
    }


def functions() -> onnx.ModelProto:
    twice = helper.make_function(
        "own", "Twice", ["x"], ["y"], [helper.make_node("Add", ["x", "x"], ["y"])], [
            helper.make_opsetid("", 17)
        ]
    )  # fmt: skip
    made = model(
        [helper.make_node("Twice", ["x"], ["y"], domain="own")],
        {"x": (TensorProto.FLOAT, [1, 4])},
        [],
        functions=[twice],
    )
    made.opset_import.append(helper.make_opsetid("own", 1))
    return made


def test_functions_are_put_in_place_of_their_calls(write: Write) -> None:
    graph = import_onnx(write(functions()))
    assert [node.op_type for node in graph.model.graph.node] == ["Add"]
    assert not graph.model.functions


def test_integer_inputs_are_indices_that_exist(write: Write) -> None:
    nodes = [helper.make_node("Gather", ["table", "x"], ["y"])]
    graph = import_onnx(
        write(model(nodes, {"x": (TensorProto.INT64, [1, 3])}, [tensor("table", 1, 4)]))
    )
    assert graph.inputs["x"].tolist() == [[0, 0, 0]]


FLOAT = TensorProto.FLOAT


@pytest.mark.parametrize(
    ("made", "shapes", "message"),
    [
        (
            convolutional(["n", 3, "h", "w"]),
            [],
            r"leaves the shape of its input 'x' open \(nx3xhxw\); give it: --input x=\?x3x\?x\? with",
        ),
        (convolutional(["n", 3, 8, 8]), ["y=1x3x8x8"], "no input 'y'; its inputs are x"),
        (convolutional(["n", 3, 8, 8]), ["x=1x4x8x8"], "'x' of shape nx3x8x8, not 1x4x8x8"),
        (convolutional(["n", 3, 8, 8]), ["x=1x3"], "'x' of shape nx3x8x8, not 1x3"),
        (convolutional(["n", 3, 8, 8]), ["x=1x3x8x8:int64"], "'x' of type float32, not int64"),
        (
            elementwise({"a": (FLOAT, [1, 2]), "b": (FLOAT, None)}),
            [],
            "does not say the shape of its input 'b'",
        ),
        (
            elementwise({"a": (FLOAT, [1, 2]), "b": (FLOAT, [1, 2])}),
            ["1x2"],
            "has the inputs a, b: say which",
        ),
        (
            elementwise({"a": (FLOAT, ["n", "l"]), "b": (FLOAT, ["n", "l"])}),
            ["a=1x2", "b=1x3"],
            "one size 'l' of its inputs, given as 2 and 3",
        ),
        (
            elementwise({"a": (FLOAT, [1, 2]), "b": (FLOAT, [1, 3])}),
            [],
            "cannot be used|cannot be run|fails in onnxruntime",
        ),
    ],
)
def test_what_shapes_are_missing_or_wrong_is_one_sentence(
    made: onnx.ModelProto, shapes: list[str], message: str, write: Write
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        import_onnx(write(made), shapes=shapes)
    assert "\n" not in str(caught.value)


def test_a_size_called_by_a_question_mark_is_not_one_size(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(convolutional(["?", 3, "?", "?"]).SerializeToString())
    graph = import_onnx(path, shapes=parse_inputs(["x=1x3x8x6"]))
    assert graph.inputs["x"].shape == (1, 3, 8, 6)

"""ONNX files that are damaged, of another kind, or made to do harm: one sentence, in seconds."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from joulemap import InputError
from joulemap.profiler.networks.importing import import_onnx, onnx_child

FLOAT = TensorProto.FLOAT
OWN = helper.make_opsetid("", 17)


def node(kind: str, inputs: str, outputs: str = "y", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), outputs.split(), **attributes)


def integers(name: str, *values: int) -> TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), name)


def weight(name: str, dims: Iterable[int], kind: int = FLOAT, raw: bytes = b"") -> TensorProto:
    return TensorProto(name=name, dims=dims, data_type=kind, raw_data=raw)


def value(name: str, dims: list[int] | None, kind: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, dims)


def model(
    nodes: list[onnx.NodeProto],
    weights: Sequence[TensorProto] = (),
    inputs: list[onnx.ValueInfoProto] | None = None,
    opsets: Iterable[onnx.OperatorSetIdProto] = (OWN,),
    **more: Any,
) -> onnx.ModelProto:
    given = [value("x", [1, 4])] if inputs is None else inputs
    graph = helper.make_graph(nodes, "g", given, [value("y", None)], weights)
    made = helper.make_model(graph, opset_imports=list(opsets), **more)
    made.ir_version = 8
    return made


def with_weight(tensor: TensorProto) -> onnx.ModelProto:
    return model([node("Add", "x w")], [tensor])


def external(location: str, **more: object) -> onnx.ModelProto:
    tensor = TensorProto(name="w", dims=[4], data_type=FLOAT, data_location=TensorProto.EXTERNAL)
    for key, entry in {"location": location, **more}.items():
        tensor.external_data.add(key=key, value=str(entry))
    return with_weight(tensor)


def nested(depth: int) -> onnx.ModelProto:
    def branch(name: str, nodes: list[onnx.NodeProto]) -> onnx.GraphProto:
        return helper.make_graph(nodes, name, [], [value(name, None)])

    inner = branch("o0", [node("Identity", "x", "o0")])
    for level in range(1, depth):
        other = branch(f"e{level}", [node("Identity", "x", f"e{level}")])
        inside = node("If", "c", f"o{level}", then_branch=inner, else_branch=other)
        inner = branch(f"o{level}", [inside])
    other = branch("e", [node("Identity", "x", "e")])
    condition = numpy_helper.from_array(np.array(True), "c")
    return model([node("If", "c", then_branch=inner, else_branch=other)], [condition])


def endless() -> onnx.ModelProto:
    body = helper.make_graph(
        [node("Identity", "go", "on"), node("Mul", "v v", "w")],
        "b",
        [value("i", [], TensorProto.INT64), value("go", [], TensorProto.BOOL), value("v", None)],
        [value("on", [], TensorProto.BOOL), value("w", None)],
    )
    count = numpy_helper.from_array(np.array(1 << 60), "n")
    return model(
        [node("Loop", "n go x", body=body)], [count, numpy_helper.from_array(np.array(True), "go")]
    )


def calls(levels: int, *, is_circle: bool = False) -> onnx.ModelProto:
    opsets = [OWN, helper.make_opsetid("f", 1)]
    functions = []
    for level in range(levels):
        called = f"F{level - 1}" if level or is_circle else "Relu"
        if is_circle:
            called = f"F{(level - 1) % levels}"
        domain = "" if called == "Relu" else "f"
        nodes = [node(called, "x", "t", domain=domain), node(called, "t", domain=domain)]
        functions.append(helper.make_function("f", f"F{level}", ["x"], ["y"], nodes, opsets))
    return model([node(f"F{levels - 1}", "x", domain="f")], opsets=opsets, functions=functions)


GOOD = model([node("MatMul", "x w")], [weight("w", [4, 5], raw=bytes(80))])
IMAGE = [value("x", [1, 4, 4, 4])]
KERNEL = weight("w", [4, 4, 1, 1], raw=bytes(64))

CASES: list[tuple[str, onnx.ModelProto | bytes, str]] = [
    ("empty", b"", "is no ONNX file: it holds no operators"),
    ("cut off", GOOD.SerializeToString()[:-40], "is no ONNX file, or damaged"),
    ("a text", b"hello, this is no network\n" * 100, "is no ONNX file, or damaged"),
    ("noise", np.random.default_rng(1).bytes(3000), "is no ONNX file"),
    ("old", model([node("Relu", "x")], opsets=[helper.make_opsetid("", 6)]), "is of opset 6"),
    ("new", model([node("Relu", "x")], opsets=[helper.make_opsetid("", 99)]), "is of opset 99"),
    (
        "custom",
        model(
            [node("Magic\x1b[31m", "x", domain="own")], opsets=[OWN, helper.make_opsetid("own", 1)]
        ),
        r"custom operator own.Magic\\x1b\[31m, which onnxruntime does not bring",
    ),
    ("unknown", model([node("NoSuch", "x")]), "operator NoSuch, which is none of ONNX in opset 17"),
    ("no input", model([node("Relu", "x")], inputs=[]), "has no inputs"),
    ("text input", model([node("Identity", "x")], inputs=[value("x", [1], 8)]), "of type text"),
    ("huge input", model([node("Relu", "x")], inputs=[value("x", [1 << 40] * 2)]), "is too large"),
    ("nothing made it", model([node("Add", "x q")]), "input 'q' of node"),
    ("below zero", with_weight(weight("w", [-4])), "'w' with an impossible shape"),
    ("enormous", with_weight(weight("w", [1 << 40] * 2)), "tensor 'w' of more than 2 GB"),
    ("no such type", with_weight(weight("w", [1], 99)), "tensor 'w' of an unknown type"),
    ("too short", with_weight(weight("w", [1000], raw=b"1234")), "too small for the declared"),
    ("no groups", model([node("Conv", "x w", group=0)], [KERNEL], IMAGE), "cannot be run|fails in"),
    ("no stride", model([node("Conv", "x w", strides=[0, 0])], [KERNEL], IMAGE), "strides"),
    ("padding", model([node("Conv", "x w", pads=[1 << 40] * 4)], [KERNEL], IMAGE), "overflow"),
    ("deep", nested(24), "its graphs lie too deep inside each other"),
    ("laughs", calls(40), "call each other for more than 200000 operators"),
    ("circle", calls(3, is_circle=True), "functions that call themselves"),
    ("absolute", external("/etc/hostname"), "'/etc/hostname', which is not beside it"),
    ("above", external("../secret.bin"), r"'\.\./secret.bin', which is not beside it"),
    ("around", external("a/../../secret.bin"), "which is not beside it"),
    ("linked", external("link.bin"), "'link.bin', a link out of its folder"),
    ("missing", external("none.bin"), "'none.bin', which cannot be read: No such file"),
    ("pipe", external("pipe"), "'pipe', which cannot be read: it is a pipe"),
    ("cut data", external("short.bin"), r"\(16 bytes\) in 'short.bin', which is shorter"),
    ("beyond", external("data.bin", offset=1 << 62, length=16), "which is shorter or says another"),
    ("no place", external("data.bin", offset="x"), "says no place of the tensor 'w'"),
]

# What asks for memory, and gets it in a process without limits.
BOMBS: list[tuple[str, onnx.ModelProto, str]] = [
    (
        "bomb",
        model(
            [node("ConstantOfShape", "s", "c"), node("ReduceSum", "c", "r"), node("Add", "x r")],
            [integers("s", 100_000, 100_000, 10)],
        ),
        "Failed to allocate memory",
    ),
    ("wide", model([node("Expand", "x s")], [integers("s", 1 << 20, 1 << 15, 1, 4)]), "allocate"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "secret.bin").write_bytes(bytes(16))
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "link.bin").symlink_to("../secret.bin")
    (folder / "short.bin").write_bytes(b"1")
    (folder / "data.bin").write_bytes(np.arange(6, dtype=np.float32).tobytes())
    os.mkfifo(folder / "pipe")
    return folder


def answered(made: onnx.ModelProto | bytes, folder: Path) -> None:
    path = folder / "net.onnx"
    path.write_bytes(made if isinstance(made, bytes) else made.SerializeToString())
    import_onnx(path)


@pytest.mark.parametrize(
    ("made", "message"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_one_sentence(made: onnx.ModelProto | bytes, message: str, folder: Path) -> None:
    path = folder / "net.onnx"
    path.write_bytes(made if isinstance(made, bytes) else made.SerializeToString())
    request = {
        "path": str(path),
        "digest": hashlib.sha256(path.read_bytes()).hexdigest(),
        "folder": str(folder),
        "inputs": [],
        "batch": 1,
    }
    said = onnx_child.answer(request)["error"]
    assert re.search(message, said)
    assert "\n" not in said
    assert "\x1b" not in said


@pytest.mark.parametrize(
    ("made", "message"), [case[1:] for case in BOMBS], ids=[c[0] for c in BOMBS]
)
def test_one_sentence_of_a_process_of_its_own(
    made: onnx.ModelProto, message: str, folder: Path
) -> None:
    with pytest.raises(InputError, match=rf"the ONNX file .*net.onnx.*{message}"):
        answered(made, folder)


def test_a_loop_without_end_ends(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("joulemap.profiler.networks.importing.onnx_file.CPU_SECONDS", 3)
    with pytest.raises(InputError, match=r"takes too long to read: .* absurd amount of computing"):
        answered(endless(), folder)


def test_what_is_no_file(folder: Path) -> None:
    for name, message in (
        ("", "is a folder"),
        ("pipe", "it is a pipe"),
        ("none.onnx", "No such file or directory"),
        ("a\0b", "no file can have such a name"),
    ):
        with pytest.raises(InputError, match=message):
            import_onnx(f"{folder}/{name}")


def test_external_data_beside_the_file_is_read(folder: Path) -> None:
    path = folder / "net.onnx"
    path.write_bytes(external("data.bin", offset=8, length=16).SerializeToString())
    graph = import_onnx(path)
    (tensor,) = graph.model.graph.initializer
    assert numpy_helper.to_array(tensor).tolist() == [2, 3, 4, 5]
    assert tensor.data_location == TensorProto.DEFAULT


GOOD_BYTES = GOOD.SerializeToString()


@given(
    st.lists(
        st.tuples(st.integers(0, len(GOOD_BYTES) - 1), st.integers(0, 255)), min_size=1, max_size=6
    )
)
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_bytes_never_crash_the_caller(folder: Path, changes: list[tuple[int, int]]) -> None:
    content = bytearray(GOOD_BYTES)
    for place, byte in changes:
        content[place] = byte
    with contextlib.suppress(InputError):
        answered(bytes(content), folder)

from __future__ import annotations

import math
import struct

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulemap.device_agents.onboard.model import onnx_messages, protobuf

INT64 = st.integers(-(2**63), 2**63 - 1)
NAMES = st.text(min_size=1, max_size=300)
DIMS = st.lists(st.integers(0, 2**63 - 1), max_size=5)
DTYPES = st.sampled_from(sorted(onnx_messages.DATA_TYPES))


@given(INT64)
def test_varint_is_read_back(value: int) -> None:
    message = onnx.ModelProto.FromString(protobuf.int_field(1, value))
    assert message.ir_version == value
    assert message.SerializeToString() == protobuf.int_field(1, value)


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1])
def test_varint_beyond_64_bits_is_refused(value: int) -> None:
    with pytest.raises(ValueError, match="64 bits"):
        protobuf.varint(value)


@given(st.integers(1, 2**29 - 1), st.binary(max_size=400))
def test_unknown_fields_keep_the_parser_in_step(field: int, value: bytes) -> None:
    known = protobuf.string_field(2, "after")
    message = onnx.ModelProto()
    if field not in {item.number for item in onnx.ModelProto.DESCRIPTOR.fields}:
        message.ParseFromString(protobuf.bytes_field(field, value) + known)
        assert message.producer_name == "after"


@given(NAMES, DTYPES, DIMS, st.binary(max_size=400))
def test_tensor(name: str, dtype: str, dims: list[int], raw: bytes) -> None:
    named = onnx_messages.tensor_name(name, dtype)
    tensor = onnx.TensorProto.FromString(onnx_messages.tensor_header(named, dims, len(raw)) + raw)
    assert (tensor.name, list(tensor.dims), tensor.raw_data) == (name, dims, raw)
    assert onnx.TensorProto.DataType.Name(tensor.data_type) == {
        "float32": "FLOAT",
        "float64": "DOUBLE",
    }.get(dtype, dtype.upper())


@given(NAMES, DTYPES, DIMS)
def test_value_info(name: str, dtype: str, dims: list[int]) -> None:
    info = onnx.ValueInfoProto.FromString(onnx_messages.value_info(name, dtype, dims))
    assert info.name == name
    assert info.type.tensor_type.elem_type == onnx_messages.DATA_TYPES[dtype]
    assert [dim.dim_value for dim in info.type.tensor_type.shape.dim] == dims


def test_scalar_value_has_a_shape() -> None:
    info = onnx.ValueInfoProto.FromString(onnx_messages.value_info("x", "float32", []))
    assert info.type.tensor_type.HasField("shape")


VALUES = st.one_of(
    st.tuples(st.just("int"), INT64),
    st.tuples(st.just("ints"), st.lists(INT64, max_size=6)),
    st.tuples(st.just("float"), st.floats(width=32, allow_nan=False)),
    st.tuples(st.just("floats"), st.lists(st.floats(width=32, allow_nan=False), max_size=6)),
    st.tuples(st.just("string"), st.text(max_size=200)),
    st.tuples(st.just("strings"), st.lists(st.text(max_size=20), max_size=6)),
)


@given(NAMES, VALUES)
def test_attribute(name: str, kind_and_value: tuple[str, object]) -> None:
    kind, value = kind_and_value
    message = onnx.AttributeProto.FromString(onnx_messages.attribute(name, kind, value))
    found = onnx.helper.get_attribute_value(message)
    if kind == "string":
        found = found.decode()
    elif kind == "strings":
        found = [item.decode() for item in found]
    assert message.name == name
    assert onnx.AttributeProto.AttributeType.Name(message.type).lower() == kind
    assert (list(found) if kind.endswith("s") else found) == value


def test_attribute_of_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown kind 'graph'"):
        onnx_messages.attribute("body", "graph", None)


def test_tensor_attribute_and_nan() -> None:
    named = onnx_messages.tensor_name("", "float32")
    raw = struct.pack("<f", math.nan)
    tensor = onnx_messages.tensor_header(named, [1], 4) + raw
    message = onnx.AttributeProto.FromString(onnx_messages.attribute("value", "tensor", tensor))
    assert message.t.raw_data == raw
    assert not message.t.name


@given(NAMES, st.text(max_size=20), st.lists(st.text(max_size=9), max_size=4), st.lists(NAMES))
def test_node(name: str, domain: str, inputs: list[str], outputs: list[str]) -> None:
    head = onnx_messages.node_head("Conv", domain, name, inputs, outputs)
    attribute = protobuf.bytes_field(5, onnx_messages.attribute("group", "int", 3))
    node = onnx.NodeProto.FromString(head + attribute)
    assert (node.op_type, node.domain, node.name) == ("Conv", domain, name)
    assert (list(node.input), list(node.output)) == (inputs, outputs)
    assert node.attribute[0].i == 3


@given(st.lists(INT64, max_size=20))
def test_int64_bytes(values: list[int]) -> None:
    raw = onnx_messages.int64_bytes(values)
    tensor = onnx.TensorProto(data_type=7, dims=[len(values)], raw_data=raw)
    assert onnx.numpy_helper.to_array(tensor).tolist() == values
    with pytest.raises(ValueError, match="64 bits"):
        onnx_messages.int64_bytes([2**63])

"""Writes the messages of the ONNX format that a network without control flow needs."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any

from .protobuf import bytes_field, float_field, int_field, length_prefix, string_field

# TensorProto.DataType, for the types that a template may hold.
DATA_TYPES = {
    "float32": 1,
    "uint8": 2,
    "int8": 3,
    "uint16": 4,
    "int16": 5,
    "int32": 6,
    "int64": 7,
    "bool": 9,
    "float16": 10,
    "float64": 11,
    "uint32": 12,
    "uint64": 13,
}
ITEM_BYTES = {
    "float32": 4,
    "uint8": 1,
    "int8": 1,
    "uint16": 2,
    "int16": 2,
    "int32": 4,
    "int64": 8,
    "bool": 1,
    "float16": 2,
    "float64": 8,
    "uint32": 4,
    "uint64": 8,
}

# AttributeProto.AttributeType, for the types that a template may hold.
ATTRIBUTE_TYPES = {
    "float": 1,
    "int": 2,
    "string": 3,
    "tensor": 4,
    "floats": 6,
    "ints": 7,
    "strings": 8,
}

GRAPH_NODE, GRAPH_NAME, GRAPH_INITIALIZER, GRAPH_INPUT, GRAPH_OUTPUT = 1, 2, 5, 11, 12
MODEL_IR_VERSION, MODEL_PRODUCER, MODEL_GRAPH, MODEL_OPSET = 1, 2, 7, 8


def int64_bytes(values: Sequence[int]) -> bytes:
    """Return the integers as an int64 tensor's raw data.

    Raises:
        ValueError: One of them does not fit in 64 bits.
    """
    try:
        return struct.pack(f"<{len(values)}q", *values)
    except struct.error as error:
        raise ValueError(f"an integer of the template does not fit in 64 bits: {error}") from error


def tensor_name(name: str, dtype: str) -> bytes:
    """Return the fields of a TensorProto that say what it is called and holds."""
    return int_field(2, DATA_TYPES[dtype]) + (string_field(8, name) if name else b"")


def tensor_header(named: bytes, dims: Iterable[int], num_bytes: int) -> bytes:
    """Return a TensorProto up to its raw data, which follows as the last field.

    Args:
        named: What `tensor_name` returned.
        dims: The tensor's shape.
        num_bytes: Length of the raw data.
    """
    shape = b"".join([int_field(1, dim) for dim in dims])
    return shape + named + length_prefix(9, num_bytes)


def attribute(name: str, kind: str, value: Any) -> bytes:
    """Return an AttributeProto; `value` of a tensor is its serialised TensorProto.

    Raises:
        ValueError: The kind is unknown.
    """
    if kind not in ATTRIBUTE_TYPES:
        raise ValueError(f"attribute '{name}' is of the unknown kind '{kind}'")
    if kind == "float":
        body = float_field(2, value)
    elif kind == "int":
        body = int_field(3, value)
    elif kind == "string":
        body = string_field(4, value)
    elif kind == "tensor":
        body = bytes_field(5, value)
    elif kind == "floats":
        body = b"".join([float_field(7, item) for item in value])
    elif kind == "ints":
        body = b"".join([int_field(8, item) for item in value])
    else:
        body = b"".join([string_field(9, item) for item in value])
    return string_field(1, name) + body + int_field(20, ATTRIBUTE_TYPES[kind])


def node_head(
    operator: str, domain: str, name: str, inputs: Iterable[str], outputs: Iterable[str]
) -> bytes:
    """Return a NodeProto up to its attributes, which follow as fields 5."""
    return b"".join(
        [
            *[string_field(1, item) for item in inputs],
            *[string_field(2, item) for item in outputs],
            string_field(3, name),
            string_field(4, operator),
            string_field(7, domain) if domain else b"",
        ]
    )


def value_info(name: str, dtype: str, dims: Iterable[int]) -> bytes:
    """Return the ValueInfoProto of a tensor of known shape."""
    shape = b"".join([bytes_field(1, int_field(1, dim)) for dim in dims])
    tensor_type = int_field(1, DATA_TYPES[dtype]) + bytes_field(2, shape)
    return string_field(1, name) + bytes_field(2, bytes_field(1, tensor_type))


def opset_import(domain: str, version: int) -> bytes:
    """Return an OperatorSetIdProto."""
    return string_field(1, domain) + int_field(2, version)

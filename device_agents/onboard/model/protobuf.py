"""Writes protocol-buffer fields, so that a device needs neither protobuf nor onnx."""

from __future__ import annotations

import struct

VARINT = 0
LENGTH_DELIMITED = 2
FIXED32 = 5

# Parsers refuse messages of 2 GiB or more.
MAX_MESSAGE_BYTES = 2**31 - 1


def varint(value: int) -> bytes:
    """Return the integer as a varint; a negative one as its 64-bit two's complement.

    Raises:
        ValueError: The integer does not fit in 64 bits.
    """
    if not -(2**63) <= value < 2**64:
        raise ValueError(f"{value} does not fit in 64 bits")
    if value < 0:
        value += 2**64
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def tag(field: int, wire_type: int) -> bytes:
    """Return what stands before a field's value: its number and wire type."""
    return varint(field << 3 | wire_type)


def int_field(field: int, value: int) -> bytes:
    """Return an int32, int64, enum or bool field."""
    return tag(field, VARINT) + varint(value)


def float_field(field: int, value: float) -> bytes:
    """Return a 32-bit float field."""
    return tag(field, FIXED32) + struct.pack("<f", value)


def length_prefix(field: int, num_bytes: int) -> bytes:
    """Return what stands before `num_bytes` of a string, bytes or message field."""
    return tag(field, LENGTH_DELIMITED) + varint(num_bytes)


def bytes_field(field: int, value: bytes) -> bytes:
    """Return a bytes or message field."""
    return length_prefix(field, len(value)) + value


def string_field(field: int, value: str) -> bytes:
    """Return a string field in UTF-8."""
    return bytes_field(field, value.encode())

"""Length-prefixed, bounded frames: a JSON header and bytes.

Layout of a frame, integers big-endian::

    magic "JMF1" | header length, 4 bytes | payload length, 4 bytes | header (JSON) | payload

Both sides treat what they read as hostile: lengths are checked against the bounds before anything
is allocated, and the header must be a JSON object.
"""

from __future__ import annotations

import json
import math
import struct
from typing import Any, BinaryIO

MAGIC = b"JMF1"
MAX_HEADER = 8 * 1024 * 1024
MAX_PAYLOAD = 64 * 1024 * 1024
MAX_DIGITS = 20
MAX_DEPTH = 30
PREFIX = struct.Struct(">4sII")


class FrameError(Exception):
    """What was read is not a frame, or exceeds the bounds."""


class StreamClosed(Exception):
    """The other side closed the stream between two frames."""


def encode(header: dict[str, Any], payload: bytes = b"") -> bytes:
    """Return a frame as bytes.

    Raises:
        FrameError: Header or payload exceed the bounds, or the header is not JSON.
    """
    try:
        text = json.dumps(header, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise FrameError(f"the header cannot be written as JSON: {error}") from error
    check_lengths(len(text), len(payload))
    return PREFIX.pack(MAGIC, len(text), len(payload)) + text + payload


def decode_prefix(prefix: bytes) -> tuple[int, int]:
    """Return (header length, payload length) of a frame that starts with these 12 bytes.

    Raises:
        FrameError: Wrong magic, or lengths beyond the bounds.
    """
    magic, header_length, payload_length = PREFIX.unpack(prefix)
    if magic != MAGIC:
        raise FrameError(f"expected a frame, got {bytes(prefix)!r}")
    check_lengths(header_length, payload_length)
    return header_length, payload_length


def decode_header(text: bytes) -> dict[str, Any]:
    """Return the header's JSON object.

    Raises:
        FrameError: Not JSON, or no object.
    """
    try:
        # What is no number is not JSON, though the parser would take it.
        header = json.loads(
            text.decode(),
            parse_constant=_finite,
            parse_float=_finite,
            parse_int=_integer,
            object_pairs_hook=_table,
        )
    except (ValueError, RecursionError) as error:
        raise FrameError(f"the header of a frame is not JSON: {str(error)[:200]}") from error
    if not isinstance(header, dict):
        raise FrameError("the header of a frame is no JSON object")
    _check_depth(header)
    return header


def _integer(text: str) -> int | float:
    """Return an int of 64 bits, infinity for a longer one: it fits no column, and takes long to read.

    The frame stands: who reads it finds that this number lies beyond its bounds.
    """
    number = int(text) if len(text) <= MAX_DIGITS else None
    if number is None or not -(2**63) <= number < 2**63:
        return -math.inf if text.startswith("-") else math.inf
    return number


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object whose names are all different: of two equal ones nobody knows which counts."""
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError("an object has two fields of one name")
    return table


def _check_depth(header: dict[str, Any]) -> None:
    level: list[Any] = [header]
    for _ in range(MAX_DEPTH):
        level = [
            item
            for value in level
            for item in (value.values() if isinstance(value, dict) else value)
            if isinstance(item, (dict, list))
        ]
        if not level:
            return
    raise FrameError(f"the header of a frame is nested more than {MAX_DEPTH} deep")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is no finite number")
    return number


class FrameBuffer:
    """Collects bytes as they come and gives the frames that are complete."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> None:
        """Take further bytes."""
        self._data += data

    def pop(self) -> tuple[dict[str, Any], bytes] | None:
        """Return the next frame's (header, payload), None while it is not complete.

        Raises:
            FrameError: What was fed is no frame, or exceeds the bounds.
        """
        if len(self._data) < PREFIX.size:
            return None
        header_length, payload_length = decode_prefix(bytes(self._data[: PREFIX.size]))
        header_end = PREFIX.size + header_length
        end = header_end + payload_length
        if len(self._data) < end:
            return None
        header = decode_header(bytes(self._data[PREFIX.size : header_end]))
        payload = bytes(self._data[header_end:end])
        del self._data[:end]
        return header, payload


def check_lengths(header_length: int, payload_length: int) -> None:
    """Check a frame's lengths in bytes against the bounds.

    Raises:
        FrameError: One of them is beyond its bound.
    """
    if header_length > MAX_HEADER:
        raise FrameError(f"a header of {header_length} bytes exceeds {MAX_HEADER}")
    if payload_length > MAX_PAYLOAD:
        raise FrameError(f"a payload of {payload_length} bytes exceeds {MAX_PAYLOAD}")


def read_frame(stream: BinaryIO) -> tuple[dict[str, Any], bytes]:
    """Return (header, payload) of the next frame of a blocking binary stream.

    Raises:
        StreamClosed: The stream ended before a frame began.
        FrameError: Garbage, or the stream ended inside a frame.
    """
    prefix = stream.read(PREFIX.size)
    if not prefix:
        raise StreamClosed
    header_length, payload_length = decode_prefix(_exactly(prefix, stream, PREFIX.size))
    header = decode_header(_exactly(b"", stream, header_length))
    return header, _exactly(b"", stream, payload_length)


def _exactly(start: bytes, stream: BinaryIO, length: int) -> bytes:
    parts = [start]
    missing = length - len(start)
    while missing > 0:
        part = stream.read(missing)
        if not part:
            raise FrameError(f"the stream ended inside a frame, {missing} bytes early")
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)

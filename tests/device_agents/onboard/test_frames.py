from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulemap.device_agents.onboard import frames

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
HEADERS = st.dictionaries(st.text(max_size=10), JSON, max_size=4)


@given(st.lists(st.tuples(HEADERS, st.binary(max_size=200)), max_size=4))
def test_frames_are_read_back_one_by_one(messages: list[tuple[dict[str, Any], bytes]]) -> None:
    stream = io.BytesIO(b"".join(frames.encode(*message) for message in messages))
    assert [frames.read_frame(stream) for _ in messages] == messages
    with pytest.raises(frames.StreamClosed):
        frames.read_frame(stream)


@given(HEADERS, st.binary(max_size=50), st.data())
def test_a_frame_cut_short_is_an_error(
    header: dict[str, Any], payload: bytes, data: st.DataObject
) -> None:
    frame = frames.encode(header, payload)
    cut = data.draw(st.integers(1, len(frame) - 1))
    with pytest.raises(frames.FrameError, match="ended inside"):
        frames.read_frame(io.BytesIO(frame[:cut]))


@given(st.binary(min_size=1, max_size=300))
def test_garbage_is_an_error_and_never_a_large_allocation(garbage: bytes) -> None:
    with pytest.raises(frames.FrameError):
        frames.read_frame(io.BytesIO(garbage))


@pytest.mark.parametrize(
    ("header_length", "payload_length"), [(frames.MAX_HEADER + 1, 0), (2, frames.MAX_PAYLOAD + 1)]
)
def test_lengths_beyond_the_bounds_are_refused(header_length: int, payload_length: int) -> None:
    prefix = frames.PREFIX.pack(frames.MAGIC, header_length, payload_length)
    with pytest.raises(frames.FrameError, match="exceeds"):
        frames.read_frame(io.BytesIO(prefix + b"{}" * 100))


@pytest.mark.parametrize("text", [b"[1]", b"1", b"{", b"\xff\xff", b"null"])
def test_a_header_that_is_no_object_is_refused(text: bytes) -> None:
    with pytest.raises(frames.FrameError, match="header"):
        frames.decode_header(text)


@pytest.mark.parametrize(
    "text",
    [
        b'{"x": ' + b"[" * 40 + b"]" * 40 + b"}",
        b'{"x": ' * 100_000,
        b"[" * 100_000,
        b'{"x": 1, "y": {"a": 1, "a": 2}}',
        b'{"x": NaN}',
        b'{"x": -Infinity}',
        b'{"x": 1e999}',
    ],
)
def test_a_header_that_is_too_deep_or_says_a_thing_twice_is_refused(text: bytes) -> None:
    with pytest.raises(frames.FrameError, match="header"):
        frames.decode_header(text)


@pytest.mark.parametrize("digits", [20, 400, 4300, 5000, 1_000_000])
def test_an_integer_of_any_length_is_read_at_once_and_is_no_number_to_count_with(
    digits: int,
) -> None:
    header = frames.decode_header(b'{"x": ' + b"9" * digits + b', "y": -' + b"9" * digits + b"}")
    assert header == {"x": float("inf"), "y": float("-inf")}
    assert frames.decode_header(b'{"x": -9223372036854775808}') == {"x": -(2**63)}


def test_what_is_not_json_cannot_be_sent() -> None:
    with pytest.raises(frames.FrameError, match="JSON"):
        frames.encode({"x": float("nan")})
    with pytest.raises(frames.FrameError, match="JSON"):
        frames.encode({"x": object()})

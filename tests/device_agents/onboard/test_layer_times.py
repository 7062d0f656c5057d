"""A runtime's trace and optimised graph: read as they are, refused when they are not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulemap.device_agents.onboard import layer_times
from joulemap.device_agents.onboard.model.protobuf import bytes_field, int_field, string_field


def trace(runs: list[dict[str, int]]) -> str:
    events: list[dict[str, Any]] = [{"cat": "Session", "name": "session_initialization", "dur": 9}]
    for run in runs:
        for name, micros in run.items():
            events.append({"cat": "Node", "name": f"{name}_kernel_time", "dur": micros, "ts": 1})
            events.append({"cat": "Node", "name": f"{name}_fence_before", "dur": 50})
        events.append({"cat": "Session", "name": "SequentialExecutor::Execute", "dur": 70})
        events.append({"cat": "Session", "name": "model_run", "dur": 100})
    return json.dumps(events)


def node(name: str, inputs: list[str], outputs: list[str]) -> bytes:
    fields = [string_field(1, text) for text in inputs] + [string_field(2, t) for t in outputs]
    fields += [string_field(3, name), string_field(4, "Conv"), int_field(20, 7)]
    return bytes_field(1, b"".join(fields))


def model(nodes: list[bytes]) -> bytes:
    return int_field(1, 10) + bytes_field(7, string_field(2, "graph") + b"".join(nodes))


@given(
    st.lists(
        st.dictionaries(st.sampled_from("abcd"), st.integers(0, 10**6), min_size=1),
        min_size=1,
        max_size=4,
    )
)
def test_times_are_those_of_each_run_in_seconds(runs: list[dict[str, int]]) -> None:
    same = [{name: run.get(name, 0) for name in runs[0]} for run in runs]
    whole, times = layer_times.read_trace(trace(same), len(same))
    assert whole == pytest.approx([1e-4] * len(same))
    for name, seconds in times.items():
        assert seconds == pytest.approx([run[name] * 1e-6 for run in same])
    assert set(times) == set(runs[0])


@given(st.integers(0, 400))
def test_a_trace_that_is_cut_off_is_refused(length: int) -> None:
    text = trace([{"a": 1, "b": 2}, {"a": 3, "b": 4}])
    assert length < len(text)
    with pytest.raises(layer_times.TraceError):
        layer_times.read_trace(text[:length], 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "no list"),
        ("[]", "has 0 runs, not 1"),
        ('[{"name": "model_run"}]', "without category or name"),
        ("[3]", "without category or name"),
        ('[{"cat": "Node", "name": "a_kernel_time", "dur": -1}]', "took -1 us"),
        ('[{"cat": "Node", "name": "a_kernel_time", "dur": NaN}]', "took nan us"),
        ('[{"cat": "Node", "name": "a_kernel_time", "dur": "1"}]', "took '1' us"),
        (trace([{"a": 1}, {"a": 1}]), "has 2 runs, not 1"),
    ],
)
def test_what_is_no_trace_is_refused(text: str, message: str) -> None:
    with pytest.raises(layer_times.TraceError, match=message):
        layer_times.read_trace(text, 1)


def test_nodes_that_do_not_run_each_time_are_refused() -> None:
    with pytest.raises(layer_times.TraceError, match="other nodes in one run"):
        layer_times.read_trace(trace([{"a": 1}, {"b": 1}]), 2)


def test_nodes_are_read_from_a_model_and_joined_to_their_times() -> None:
    nodes = layer_times.read_nodes(model([node("a", ["x", "w"], ["y"]), node("b", ["y"], ["z"])]))
    assert [(n["name"], n["op"], n["inputs"], n["outputs"]) for n in nodes] == [
        ("a", "Conv", ["x", "w"], ["y"]),
        ("b", "Conv", ["y"], ["z"]),
    ]
    joined = layer_times.join(nodes, {"b": [1.0]})
    assert [(n["name"], n["times_s"]) for n in joined] == [("b", [1.0])]
    with pytest.raises(layer_times.TraceError, match="has no node 'c'"):
        layer_times.join(nodes, {"c": [1.0]})
    with pytest.raises(layer_times.TraceError, match=r"two nodes .* are called 'a'"):
        layer_times.join([*nodes, nodes[0]], {"a": [1.0]})


@given(st.integers(1, 60))
def test_a_model_that_is_cut_off_is_refused(length: int) -> None:
    whole = model([node("a", ["x", "w"], ["y"]), node("b", ["y"], ["z"])])
    with pytest.raises(layer_times.TraceError, match="cut off"):
        layer_times.read_nodes(whole[: max(3, len(whole) - length)])


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        nodes = layer_times.read_nodes(data)
    except layer_times.TraceError:
        return
    assert isinstance(nodes, list)

"""What each node of a model took, from a runtime's own trace and the graph that it ran.

Both are files that the runtime wrote: a trace in Chrome's event format, and the model after its
optimisations, of which only names are read.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from .layers_answer import LayersAnswer, NodeTimes
from .visit import Stopwatch

# Blocks of runs with and without the profiler, in turn, and the first runs of each that are not
# kept.
BLOCKS = 5
DISCARDED = 2
MAX_EVENTS = 2_000_000
_NODE_SUFFIX = "_kernel_time"
_MODEL_GRAPH, _GRAPH_NODE = 7, 1
_NODE_FIELDS = {1: "inputs", 2: "outputs", 3: "name", 4: "op"}


class TraceError(Exception):
    """The runtime's files do not say what each node took."""


def measure(
    run: Callable[[], None],
    profiler: Any,
    num_runs: int,
    max_warm_up_s: float,
    stopwatch: Stopwatch,
) -> LayersAnswer:
    """Return what each node took, with the same runs as wholes and others without the profiler.

    Blocks of runs with and without the profiler alternate, so that both meet the same states of
    the machine; a block's first runs bring its weights into the caches and are not kept.

    Args:
        run: Runs the model once, without the profiler.
        profiler: Has `run` and `finish`, as a runtime's.
        num_runs: Runs of each kind that are kept.
        max_warm_up_s: How long runs may take to settle.
        stopwatch: What blocks are timed with.

    Raises:
        TraceError: The profiler does not say what each node took.
    """
    stopwatch.warm_up(run, stopwatch.clock.monotonic_s() + max_warm_up_s, 0.0)
    unprofiled: list[float] = []
    kept: list[int] = []
    count = 0
    for number in range(BLOCKS):
        size = (num_runs * (number + 1)) // BLOCKS - (num_runs * number) // BLOCKS
        if not size:
            continue
        stopwatch.block(run, DISCARDED, 1)
        unprofiled += stopwatch.block(run, size, 1)["latencies_s"]
        stopwatch.block(profiler.run, DISCARDED + size, 1)
        count += DISCARDED + size
        kept += range(count - size, count)
    whole, nodes = profiler.finish()
    return LayersAnswer(
        nodes=[
            NodeTimes(
                name=node["name"],
                op=node["op"],
                inputs=node["inputs"],
                outputs=node["outputs"],
                times_s=[node["times_s"][place] for place in kept],
            )
            for node in nodes
        ],
        runs_s=[whole[place] for place in kept],
        unprofiled_s=unprofiled,
    )


def read_trace(text: str, num_runs: int) -> tuple[list[float], dict[str, list[float]]]:
    """Return seconds of each whole run, and of each node in each run.

    Args:
        text: JSON, a list of events. A run's events stand before its own, `model_run`.
        num_runs: How many runs there must be.

    Raises:
        TraceError: It is cut off, has too few runs, or nodes that did not run each time.
    """
    try:
        events = json.loads(text)
    except ValueError as error:
        raise TraceError(f"the runtime's trace is cut off or no JSON: {error}") from error
    if not isinstance(events, list) or len(events) > MAX_EVENTS:
        raise TraceError(f"the runtime's trace is no list of at most {MAX_EVENTS} events")
    runs: list[dict[str, float]] = []
    whole: list[float] = []
    current: dict[str, float] = {}
    for event in events:
        category, name, seconds = _event(event)
        if category == "Node" and name.endswith(_NODE_SUFFIX):
            node = name[: -len(_NODE_SUFFIX)]
            current[node] = current.get(node, 0.0) + seconds
        elif category == "Session" and name == "model_run":
            runs.append(current)
            whole.append(seconds)
            current = {}
    if len(runs) != num_runs or not runs[-1]:
        raise TraceError(f"the runtime's trace has {len(runs)} runs, not {num_runs}")
    names = list(runs[0])
    if any(run.keys() != runs[0].keys() for run in runs):
        raise TraceError("the runtime's trace has other nodes in one run than in another")
    return whole, {name: [run[name] for run in runs] for name in names}


def _event(event: Any) -> tuple[str, str, float]:
    try:
        category, name, micros = event["cat"], event["name"], event.get("dur", 0)
    except (TypeError, KeyError, AttributeError) as error:
        raise TraceError("the runtime's trace has an event without category or name") from error
    is_number = isinstance(micros, (int, float)) and not isinstance(micros, bool)
    if not is_number or not 0 <= micros < 1e12:
        raise TraceError(f"the runtime's trace has an event that took {micros!r} us")
    return str(category), str(name), micros * 1e-6


def read_nodes(model: bytes) -> list[dict[str, Any]]:
    """Return the nodes of a serialised ONNX model in order: name, op, inputs, outputs.

    Raises:
        TraceError: The bytes are no such model.
    """
    nodes = []
    for number, graph in _fields(memoryview(model)):
        if number != _MODEL_GRAPH or not isinstance(graph, memoryview):
            continue
        for kind, content in _fields(graph):
            if kind != _GRAPH_NODE or not isinstance(content, memoryview):
                continue
            node: dict[str, Any] = {"name": "", "op": "", "inputs": [], "outputs": []}
            for field, value in _fields(content):
                key = _NODE_FIELDS.get(field)
                if key is None or not isinstance(value, memoryview):
                    continue
                text = bytes(value).decode("utf-8", "replace")
                if isinstance(node[key], list):
                    node[key].append(text)
                else:
                    node[key] = text
            nodes.append(node)
    return nodes


def _fields(data: memoryview) -> Any:
    """Yield (number, value) of a message's fields; a memoryview where the value has a length."""
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        wire = key & 7
        if wire == 0:
            value, position = _varint(data, position)
            yield key >> 3, value
            continue
        if wire == 2:
            length, position = _varint(data, position)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise TraceError(f"the optimised model has a field of wire type {wire}")
        if position + length > len(data):
            raise TraceError("the optimised model is cut off")
        yield key >> 3, data[position : position + length]
        position += length


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            break
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise TraceError("the optimised model is cut off")


def join(nodes: list[dict[str, Any]], times: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Return the nodes that ran, in the graph's order, each with its `times_s`.

    Raises:
        TraceError: A node of the trace is not in the graph, or twice.
    """
    by_name: dict[str, dict[str, Any]] = {}
    for node in nodes:
        if node["name"] in times and node["name"] in by_name:
            raise TraceError(f"two nodes of the optimised model are called {node['name']!r}")
        by_name[node["name"]] = node
    missing = [name for name in times if name not in by_name]
    if missing:
        raise TraceError(f"the optimised model has no node {missing[0]!r}, which the trace times")
    return [{**node, "times_s": times[node["name"]]} for node in nodes if node["name"] in times]

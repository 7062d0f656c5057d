"""What an agent answers when it was asked for the times of single layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .answer_error import AnswerError

MAX_TIME_S = 1e6


@dataclass(frozen=True)
class NodeTimes:
    """A node of the graph as the runtime ran it.

    Args:
        name: Of the node.
        op: Its operator.
        inputs: Names of the tensors that it reads.
        outputs: ... and of those that it writes.
        times_s: What it took in each run that is kept.
    """

    name: str
    op: str
    inputs: Sequence[str]
    outputs: Sequence[str]
    times_s: Sequence[float]

    @classmethod
    def from_dict(cls, content: object) -> NodeTimes:
        """Return the node that an answer describes.

        Raises:
            AnswerError: It describes none.
        """
        if not isinstance(content, Mapping) or not isinstance(content.get("name"), str):
            raise AnswerError("sent a node without a name")
        name = content["name"]
        return cls(
            name=name,
            op=str(content.get("op")),
            inputs=_tensors(name, content.get("inputs")),
            outputs=_tensors(name, content.get("outputs")),
            times_s=_times(content.get("times_s"), f"node {name!r:.100}"),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it as it is sent, JSON."""
        return {
            "name": self.name,
            "op": self.op,
            "inputs": list(self.inputs),
            "outputs": list(self.outputs),
            "times_s": list(self.times_s),
        }


@dataclass(frozen=True)
class LayersAnswer:
    """What each node of a variant took, in each of some runs.

    Args:
        nodes: Of the graph as the runtime ran it, in order.
        runs_s: The same runs as wholes.
        unprofiled_s: Runs before and after without the profiler.
    """

    nodes: Sequence[NodeTimes]
    runs_s: Sequence[float]
    unprofiled_s: Sequence[float]

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], num_runs: int) -> LayersAnswer:
        """Return what an answer says, checked: a device may send anything.

        Args:
            content: The answer.
            num_runs: How many runs were asked for.

        Raises:
            AnswerError: A node is none, or was not timed in each run.
        """
        nodes = content.get("nodes")
        if not isinstance(nodes, list) or not nodes:
            raise AnswerError("timed no nodes")
        found = tuple(NodeTimes.from_dict(node) for node in nodes)
        for node in found:
            if len(node.times_s) != num_runs:
                raise AnswerError(f"timed a node {len(node.times_s)} times, not {num_runs}")
        return cls(
            found,
            _times(content.get("runs_s"), "runs"),
            _times(content.get("unprofiled_s"), "runs without the profiler"),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it as it is sent, JSON."""
        return {
            "nodes": [node.to_dict() for node in self.nodes],
            "runs_s": list(self.runs_s),
            "unprofiled_s": list(self.unprofiled_s),
        }


def _tensors(node: str, names: object) -> tuple[str, ...]:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise AnswerError(f"sent node {node!r:.100} without tensors")
    return tuple(names)


def _times(values: object, what: str) -> tuple[float, ...]:
    """Return durations in seconds: finite numbers of at least 0."""
    if not isinstance(values, list) or not values:
        raise AnswerError(f"sent no times of {what}")
    for value in values:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not 0 <= value < MAX_TIME_S:
            raise AnswerError(f"sent {value!r:.50} as a time of {what}")
    return tuple(float(value) for value in values)

"""Which layers the nodes of an optimised graph compute, from the names of tensors.

A runtime fuses nodes (convolution, addition and activation in one), renames what is left and puts
new ones between (copies into blocks of channels and back). Tensors that leave a fused node keep
their names, perhaps with a suffix, so each such tensor says what has been computed: every node of
the template between it and the next such tensors before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...device_agents.onboard.layers_answer import NodeTimes

_SUFFIX = "_nchwc"
# Runtimes compute additions and activations within the operator before, not the one after.
_ABSORBING = frozenset(
    {"Conv", "ConvTranspose", "Gemm", "MatMul", "MaxPool", "AveragePool", "ReduceMean"}
)


class LayerJoin:
    """Joins an optimised graph's nodes to a template's layers.

    Args:
        template: The template's content, whose nodes name their layers.
    """

    def __init__(self, template: Mapping[str, Any]) -> None:
        nodes = template["nodes"]
        self._producer = {tensor: node for node in nodes for tensor in node["outputs"] if tensor}
        self._by_name = {node["name"]: node for node in nodes}
        self._order = {
            layer: place
            for place, layer in enumerate(dict.fromkeys(node.get("layer") for node in nodes))
        }

    def units(self, nodes: Sequence[NodeTimes]) -> list[tuple[tuple[str, ...], list[int]]]:
        """Return groups of layers that ran together, each with the places of its nodes.

        Nodes that belong to no layer are in a last group whose layers are ().

        Args:
            nodes: The optimised graph's, in order.
        """
        ends = [None if _is_copy(node) else self._end_of(node) for node in nodes]
        boundary = {end: place for place, end in enumerate(ends) if end is not None}
        self._reach(nodes, ends)
        groups: dict[str, set[str]] = {end: set() for end in ends if end is not None}
        for end in groups:
            for owner, layer in self._covered(end, boundary):
                groups[owner].add(layer)
        return self._merged(ends, groups)

    def _end_of(self, node: NodeTimes) -> str | None:
        """Return the template's tensor that a node's name or output names, None for neither."""
        for name in (*node.outputs, node.name):
            for tensor in (name, name.removesuffix(_SUFFIX)):
                if tensor in self._producer:
                    return str(tensor)
        named = self._by_name.get(node.name.partition("/")[0])
        return str(named["outputs"][0]) if named else None

    def _reach(self, nodes: Sequence[NodeTimes], ends: list[str | None]) -> None:
        """Give nodes between others the end of the first one that reads them, or of their input.

        Copies out of blocks belong to what made them.
        """
        readers: dict[str, list[int]] = {}
        for place, node in enumerate(nodes):
            for tensor in node.inputs:
                readers.setdefault(tensor, []).append(place)
        for place in reversed(range(len(nodes))):
            if ends[place] is None and not _is_copy(nodes[place]):
                later = [
                    ends[reader]
                    for tensor in nodes[place].outputs
                    for reader in readers.get(tensor, ())
                    if reader > place and ends[reader] is not None
                ]
                ends[place] = later[0] if later else None
        written = {
            tensor: place for place, node in enumerate(nodes) for tensor in node.outputs if tensor
        }
        for place, node in enumerate(nodes):
            if ends[place] is None:
                before = [ends[written[tensor]] for tensor in node.inputs if tensor in written]
                ends[place] = next((end for end in before if end is not None), None)

    def _covered(self, end: str, boundary: Mapping[str, int]) -> list[tuple[str, str]]:
        """Return (end that it belongs to, layer) of the template's nodes back to the boundary."""
        found, waiting, seen = [], [(end, False)], {end}
        while waiting:
            tensor, is_before = waiting.pop()
            node = self._producer.get(tensor)
            if node is None:
                continue
            if node.get("layer") is not None:
                owner = self._last_before(tensor, boundary) if is_before else end
                found.append((owner or end, str(node["layer"])))
            is_before = is_before or node["op"] in _ABSORBING
            for before in node["inputs"]:
                if before not in boundary and before not in seen:
                    seen.add(before)
                    waiting.append((before, is_before))
        return found

    def _last_before(self, tensor: str, boundary: Mapping[str, int]) -> str | None:
        """Return the tensor of the boundary that was computed last among those before a tensor."""
        reached, waiting, seen = [], [tensor], {tensor}
        while waiting:
            node = self._producer.get(waiting.pop())
            for before in node["inputs"] if node else ():
                if before in boundary:
                    reached.append(before)
                elif before not in seen:
                    seen.add(before)
                    waiting.append(before)
        return max(reached, key=lambda name: boundary[name], default=None)

    def _merged(
        self, ends: Sequence[str | None], groups: Mapping[str, set[str]]
    ) -> list[tuple[tuple[str, ...], list[int]]]:
        """Return the groups with those that share a layer made one."""
        units: list[tuple[set[str], list[int]]] = []
        rest: list[int] = []
        for end, layers in groups.items():
            places = [place for place, other in enumerate(ends) if other == end]
            if not layers:
                rest += places
                continue
            touching = [unit for unit in units if unit[0] & layers]
            joined = (set(layers).union(*(unit[0] for unit in touching)), places)
            for unit in touching:
                joined[1].extend(unit[1])
                units.remove(unit)
            units.append(joined)
        rest += [place for place, end in enumerate(ends) if end is None]
        found = [(self._sorted(layers), sorted(places)) for layers, places in units]
        found.sort(key=lambda unit: self._order[unit[0][0]])
        return [*found, ((), sorted(rest))] if rest else found

    def _sorted(self, layers: Iterable[str]) -> tuple[str, ...]:
        return tuple(sorted(layers, key=lambda layer: self._order[layer]))


def _is_copy(node: NodeTimes) -> bool:
    return node.op == "ReorderOutput"

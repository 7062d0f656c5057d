"""From one ONNX graph to a spec: what is free, what it is called, which layers there are."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from joulemap import InputError

from ....datasets import NetworkSpec
from ....datasets.spec_difference import difference
from ..importing import ImportedGraph
from .solver import solve
from .width_space import WidthSpace, width_space


@dataclass(frozen=True)
class DerivedNetwork:
    """A network whose spec was derived from its graph.

    Attributes:
        spec: The network as data.
        space: Of which free sizes every axis of the graph is made.
        graph: What it was derived from.
    """

    spec: NetworkSpec
    space: WidthSpace
    graph: ImportedGraph


def derive(
    graph: ImportedGraph,
    *,
    freeze: Sequence[str] = (),
    multiples: Mapping[str, int] | None = None,
) -> DerivedNetwork:
    """Return a network's spec, derived from its graph, and what it was derived by.

    Args:
        graph: The graph, at a batch of 1.
        freeze: Patterns (`*`, `?`) of widths or module paths that keep their sizes.
        multiples: Pattern of widths to a number that they shall be multiples of.

    Raises:
        InputError: Nothing in it may change, onnxruntime cannot run it, or a pattern fits nothing.
    """
    solution = solve(graph.model, graph.inputs)
    space = width_space(solution, counted(graph), freeze, multiples)
    first = next(iter(graph.inputs.values()), None)
    if first is None:
        raise InputError(f"the network '{graph.name}' has no inputs")
    spec = NetworkSpec(
        name=graph.name,
        source=graph.source,
        input_shape=tuple(int(size) for size in first.shape[1:]) or (1,),
        widths=space.widths,
        layers=space.layers,
    )
    return DerivedNetwork(spec, space, graph)


def derive_again(
    graph: ImportedGraph, spec: NetworkSpec, *, is_same_batch: bool = True
) -> DerivedNetwork:
    """Return a network derived with the choices that a spec of it was made with.

    Args:
        graph: The same network, at any batch.
        spec: Derived from it before, with widths frozen or in steps or not.
        is_same_batch: Whether the layers can be compared as well; they hold sizes of one sample.

    Raises:
        InputError: The network is not the one that the spec was derived from.
    """
    solution = solve(graph.model, graph.inputs)
    space = width_space(solution, counted(graph), kept=spec.widths)
    found = NetworkSpec(spec.name, spec.source, spec.input_shape, space.widths, space.layers)
    problem = difference(spec, found if is_same_batch else replace(found, layers=spec.layers))
    if problem is not None:
        raise InputError(
            f"the network '{spec.name}' is not the one that its spec was derived from: {problem}; "
            "take the spec anew, or bring the network back to what it was"
        )
    return DerivedNetwork(spec, space, graph)


def counted(graph: ImportedGraph) -> frozenset[str]:
    """Return the names of a graph's initializers that count as parameters.

    Of a torch module they are its parameters; of an ONNX file, which does not tell them from
    statistics, all weights.
    """
    if graph.module is not None:
        return frozenset(name for name, _ in graph.module.named_parameters())
    return frozenset(
        item.name for item in graph.model.graph.initializer if item.data_type in (1, 10, 11, 16)
    )


def source_of_graph(graph: ImportedGraph) -> str:
    """Return a source for a network that only exists in this process: the digest of its graph.

    Weights do not count: the same network trained further has the same costs.
    """
    digest = hashlib.sha256()
    for item in graph.model.graph.initializer:
        digest.update(f"{item.name} {list(item.dims)} {item.data_type};".encode())
    for node in graph.model.graph.node:
        attributes = [
            item.SerializeToString(deterministic=True)
            for item in sorted(node.attribute, key=lambda item: item.name)
        ]
        head = f"{node.op_type} {list(node.input)} {list(node.output)};".encode()
        digest.update(head + b"".join(attributes))
    for name, value in graph.inputs.items():
        digest.update(f"{name} {value.shape} {value.dtype};".encode())
    return f"onnx:{digest.hexdigest()}"

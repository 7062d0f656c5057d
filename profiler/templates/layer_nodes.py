"""Which layer of the spec each node of an exported graph belongs to."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...datasets import NetworkSpec

if TYPE_CHECKING:
    import onnx

_SCOPES = "pkg.torch.onnx.name_scopes"
# Kinds of layers that have no module of their own, by the operator that computes them.
_KINDS = {
    "Add": "add",
    "Concat": "concat",
    "MatMul": "matmul",
    "Gemm": "linear",
    "MaxPool": "pool",
    "AveragePool": "pool",
    "GlobalAveragePool": "pool",
    "ReduceMean": "pool",
    "Relu": "activation",
    "Softmax": "activation",
}


def layers_of_nodes(spec: NetworkSpec, nodes: Sequence[onnx.NodeProto]) -> list[str | None]:
    """Return the name of each node's layer, None for nodes that only reshape or move data.

    A node belongs to the layer whose parameters it reads (unless they are shared); else to the innermost module that it
    was traced in, if that is a layer; else to the next layer of its kind in that module.

    Args:
        spec: The network.
        nodes: Nodes of its exported graph in topological order.
    """
    names = {layer.name for layer in spec.layers}
    by_module: dict[tuple[str, str], list[str]] = {}
    for layer in spec.layers:
        module = layer.name.rpartition(".")[0]
        by_module.setdefault((module, layer.kind), []).append(layer.name)
    kinds = {layer.name: layer.kind for layer in spec.layers}
    found: list[str | None] = []
    for node in nodes:
        owner = next((_layer(item) for item in node.input if _layer(item) in names), None)
        scope = next((scope for scope in reversed(_scopes(node)) if scope in names), None)
        # The exporter merges equal parameters, but keeps a convolution that it merged a norm into.
        is_shared = owner is not None and scope is not None and kinds[owner] == kinds[scope]
        found.append(scope if owner is None or is_shared else owner)
    taken = set(found)
    for place, node in enumerate(nodes):
        kind = _KINDS.get(node.op_type)
        if found[place] is not None or kind is None:
            continue
        for module in reversed(["", *_scopes(node)]):
            free = [name for name in by_module.get((module, kind), []) if name not in taken]
            if free:
                found[place] = free[0]
                taken.add(free[0])
                break
    return found


def _layer(parameter: str) -> str:
    """Return the name of the module that holds a parameter."""
    return parameter.rpartition(".")[0]


def _scopes(node: onnx.NodeProto) -> list[str]:
    """Return the modules around a node, outermost first; the last entry may be its operator."""
    for item in node.metadata_props:
        if item.key == _SCOPES:
            try:
                scopes = ast.literal_eval(item.value)
            except (SyntaxError, ValueError):
                return []
            return [scope for scope in scopes if isinstance(scope, str)]
    return []

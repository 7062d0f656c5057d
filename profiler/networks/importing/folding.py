"""Computes what does not depend on inputs or parameters, so that a graph holds numbers for it."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx_ir as ir

# Elements of a tensor that is computed: masks and positions of long sequences are not larger.
MAX_ELEMENTS = 1 << 24
# Operators with an optional bias, and which input it is.
_BIASES = {"Conv": 2, "ConvTranspose": 2, "Gemm": 2}
_SCOPES = "pkg.torch.onnx.name_scopes"


def fold(model: ir.Model, kept: Collection[str]) -> None:
    """Compute in place what depends on neither inputs nor the initializers that are kept.

    Splits into sequences become splits, casts to the same type go away, and so do biases of zeros
    that an exporter writes where a layer has none. What is computed becomes an initializer, and so
    do the graph's constants.

    Args:
        model: The graph of a torch module.
        kept: Names of initializers that stay as they are, and with them all that reads them.
    """
    import onnx_ir.passes.common as passes
    from onnxscript.optimizer import fold_constants_ir

    names = frozenset(kept)

    def is_folded(node: ir.Node) -> bool:
        return names.isdisjoint(value.name for value in node.inputs if value is not None)

    passes.InlinePass()(model)
    scopes = _scopes_of_splits(model)
    for _ in range(4):  # A chain of shapes opens up step by step.
        result = fold_constants_ir(
            model,
            onnx_shape_inference=True,
            input_size_limit=MAX_ELEMENTS,
            output_size_limit=MAX_ELEMENTS,
            should_fold=is_folded,
        )
        passes.RemoveUnusedNodesPass()(model)
        if not result.modified:
            break
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    _drop_zero_biases(model, names)
    passes.RemoveUnusedNodesPass()(model)
    passes.RemoveUnusedOpsetsPass()(model)
    passes.NameFixPass()(model)
    passes.ShapeInferencePass()(model)
    _name_splits(model, scopes)


def _scopes_of_splits(model: ir.Model) -> dict[str | None, str]:
    """Return the modules in which values are split into sequences, by the name of the value."""
    return {
        node.inputs[0].name: node.metadata_props[_SCOPES]
        for node in model.graph
        if node.op_type == "SplitToSequence"
        and node.inputs[0] is not None
        and _SCOPES in node.metadata_props
    }


def _name_splits(model: ir.Model, scopes: dict[str | None, str]) -> None:
    """Let the splits that stand for splits into sequences keep the modules of those."""
    for node in model.graph:
        if node.op_type == "Split" and _SCOPES not in node.metadata_props and node.inputs[0]:
            found = scopes.get(node.inputs[0].name)
            producer = node.inputs[0].producer()
            if found is None and producer is not None:
                found = producer.metadata_props.get(_SCOPES)
            if found is not None:
                node.metadata_props[_SCOPES] = found


def _drop_zero_biases(model: ir.Model, kept: Collection[str]) -> None:
    for node in model.graph:
        place = _BIASES.get(node.op_type)
        if place is None or len(node.inputs) <= place:
            continue
        bias = node.inputs[place]
        if bias is None or bias.name in kept or bias.const_value is None:
            continue
        if not np.any(bias.const_value.numpy()):
            node.replace_input_with(place, None)

"""Compares a derived spec with its variants, layer by layer, before anything is measured.

The spec's sums and the variant's come from different places: the spec's from polynomials, the variant's
from the shapes that onnxruntime has in a run of the very bytes that a device would run.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING

from joulemap import InputError

from ...datasets import NetworkSpec
from ..networks.graph import DerivedNetwork
from ..networks.graph.derive import counted
from ..networks.graph.tensors import run_once
from .template import Template

if TYPE_CHECKING:
    import onnx

    from ...device_agents.onboard.model.materialise import Materialiser

NUM_RANDOM = 2
_RECURRENT = {"LSTM": 4, "GRU": 3, "RNN": 1}

Shapes = Mapping[str, Sequence[int]]


def check_variants(template: Template, derived: DerivedNetwork, batch: int) -> None:
    """Compare a template's variants with the network: outputs, multiply-accumulates, parameters.

    Args:
        template: Made of the derived network.
        derived: The network.
        batch: Samples per call.

    Raises:
        InputError: They differ; says in which layer, at which widths.
    """
    spec = derived.spec
    materialiser = template.materialiser()
    layers = [node["layer"] for node in template.content["nodes"]]
    tensors = derived.space.solution.tensors
    outputs = {
        item.name: tensors.shapes[item.name] for item in derived.space.solution.model.graph.output
    }
    for widths in _vectors(spec):
        graph, shapes = _run(materialiser, widths)
        for name, shape in outputs.items():
            if tuple(shapes.get(name, ())) != shape:
                raise _differs(spec, widths, f"its output '{name[:60]}'", shapes.get(name), shape)
        found: dict[str, int] = {}
        for node, layer in zip(graph.node, layers, strict=True):
            if layer is not None:
                found[layer] = found.get(layer, 0) + macs_of(node, shapes)
        for layer_at in spec.at(widths, batch).layers:
            macs = found.get(layer_at.name, 0)
            if macs != layer_at.macs:
                what = f"the multiply-accumulates of layer '{layer_at.name[:60]}'"
                raise _differs(spec, widths, what, macs, layer_at.macs)
        held, stated = _parameters(derived, widths), spec.at(widths).params
        if held != stated:
            raise _differs(spec, widths, "the number of parameters", held, stated)


def macs_of(node: onnx.NodeProto, shapes: Shapes) -> int:
    """Return the multiply-accumulates of a node by the shapes of its tensors; 0 of most operators.

    Args:
        node: Of a graph.
        shapes: Of the graph's tensors, by name.
    """
    operator = node.op_type
    if operator not in ("Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum", *_RECURRENT):
        return 0
    first, second = (list(shapes[name]) for name in node.input[:2])
    output = list(shapes[node.output[0]]) if node.output[0] else []
    if operator == "Conv":
        return prod(output) * prod(second[1:])
    if operator == "ConvTranspose":
        return prod(first) * prod(second[1:])
    if operator in _RECURRENT:
        directions, steps, rows = second[0], first[0], first[1]
        hidden = shapes[node.input[2]][2]
        return directions * steps * rows * _RECURRENT[operator] * hidden * (first[2] + hidden)
    if operator == "Gemm":
        is_turned = any(item.name == "transA" and item.i for item in node.attribute)
        return prod(output) * first[0 if is_turned else 1]
    if operator == "MatMul":
        return prod(output) * first[-1]
    equation = next(item.s.decode() for item in node.attribute if item.name == "equation")
    terms, _, written = equation.replace(" ", "").partition("->")
    parts = terms.split(",")
    if len(parts) != 2 or set("".join(parts)) == set(written):
        return 0
    sizes: dict[str, int] = {}
    for part, shape in zip(parts, (first, second), strict=True):
        for letter, size in zip(part, shape, strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))
    return prod(sizes.values())


def _parameters(derived: DerivedNetwork, widths: Sequence[int]) -> int:
    """Return the elements of all parameters of the graph at a width vector, each once."""
    space = derived.space
    places = {
        space.names[extent]: width // step
        for extent, width, step in zip(space.extents, widths, space.steps, strict=True)
    }
    axes = space.solution.axes
    return sum(
        prod(space.size(axis).at(places) for axis in axes[name])
        for name in counted(derived.graph)
        if name in axes
    )


def _vectors(spec: NetworkSpec) -> Iterable[tuple[int, ...]]:
    draw = random.Random(spec.fingerprint)  # noqa: S311 - reproducible, not secret
    vectors = [spec.max_widths, spec.min_widths]
    vectors += [
        tuple(draw.randrange(width.min, width.max + 1, width.multiple) for width in spec.widths)
        for _ in range(NUM_RANDOM)
    ]
    return dict.fromkeys(vectors)


def _run(materialiser: Materialiser, widths: Sequence[int]) -> tuple[onnx.GraphProto, Shapes]:
    """Return a variant's graph and the shapes of its tensors, from one run."""
    import onnx

    model = onnx.load_from_string(materialiser.materialise(widths))
    return model.graph, run_once(model, materialiser.make_inputs()).shapes


def _differs(
    spec: NetworkSpec, widths: Sequence[int], what: str, found: object, expected: object
) -> InputError:
    return InputError(
        f"{what} of '{spec.name[:60]}' at widths {str(list(widths))[:80]} is {str(found)[:40]} in the "
        f"variant and {str(expected)[:40]} in the spec; freeze the widths of that layer, or report "
        "this network"
    )

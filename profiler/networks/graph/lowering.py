"""Rewrites what exporters write in a roundabout way, so that rules and templates need not know it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx


def lowered(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of a graph in which pieces of a sequence are the outputs of one `Split`.

    torch's exporter writes `chunk` and `split` as a sequence and an access for each piece.

    Args:
        model: A graph; it is left as it is.
    """
    import onnx
    from onnx import numpy_helper

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    nodes = copy.graph.node
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in nodes:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    constants = _constants(copy)
    shapes = {
        item.name: [dim.dim_value for dim in item.type.tensor_type.shape.dim]
        for item in (*copy.graph.value_info, *copy.graph.input)
    }
    outputs = {item.name for item in copy.graph.output}
    gone: set[int] = set()
    for node in nodes:
        if node.op_type != "SplitToSequence" or len(node.input) < 2 or node.output[0] in outputs:
            continue
        sizes = _pieces(node, constants.get(node.input[1]), shapes.get(node.input[0]))
        items = readers.get(node.output[0], [])
        places = [
            constants.get(item.input[1]) if item.op_type == "SequenceAt" else None for item in items
        ]
        keeps = next((item.i for item in node.attribute if item.name == "keepdims"), 1)
        if sizes is None or not keeps or any(item is None for item in places):
            continue
        names = [f"{node.output[0]}_{number}" for number in range(len(sizes))]
        renamed = {}
        for item, place in zip(items, places, strict=True):
            assert place is not None
            renamed[item.output[0]] = names[int(place.item()) % len(sizes)]
            gone.add(id(item))
        if constants[node.input[1]].ndim == 0:
            name = f"{node.output[0]}_sizes"
            sizes_tensor = numpy_helper.from_array(np.array(sizes, np.int64), name)
            copy.graph.initializer.append(sizes_tensor)
            node.input[1] = name
        node.op_type = "Split"
        del node.output[:]
        node.output.extend(names)
        for item in [part for part in node.attribute if part.name == "keepdims"]:
            node.attribute.remove(item)
        _rename(copy.graph, renamed)
    kept = [node for node in nodes if id(node) not in gone]
    if gone:
        kept = [_clone(node) for node in kept]
        del nodes[:]
        nodes.extend(kept)
    return copy


def _pieces(
    node: onnx.NodeProto,
    given: np.ndarray[tuple[int, ...], np.dtype[np.int64]] | None,
    shape: list[int] | None,
) -> list[int] | None:
    """Return the sizes of the pieces; None if they are not known."""
    if given is None or given.ndim == 1:
        return None if given is None else [int(item) for item in given]
    place = next((item.i for item in node.attribute if item.name == "axis"), 0)
    if not shape or not shape[place]:
        return None
    size, step = shape[place], int(given)
    return [min(step, size - start) for start in range(0, size, step)]


def _clone(node: onnx.NodeProto) -> onnx.NodeProto:
    import onnx

    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    return copy


def _rename(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name in names:
                node.input[place] = names[name]
    for item in graph.output:
        item.name = names.get(item.name, item.name)


def _constants(model: onnx.ModelProto) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.int64]]]:
    """Return the integer constants of a graph by name, those that are put together of others too."""
    from onnx import helper, numpy_helper

    found = {
        item.name: numpy_helper.to_array(item)
        for item in model.graph.initializer
        if item.data_type == 7
    }
    for node in model.graph.node:
        if node.op_type == "Constant" and len(node.attribute) == 1:
            value = helper.get_attribute_value(node.attribute[0])
            if node.attribute[0].name == "value":
                value = numpy_helper.to_array(value)
            if node.attribute[0].name in ("value", "value_int", "value_ints"):
                found[node.output[0]] = np.asarray(value)
        elif node.op_type == "Concat" and all(name in found for name in node.input):
            found[node.output[0]] = np.concatenate([found[name].ravel() for name in node.input])
    return found

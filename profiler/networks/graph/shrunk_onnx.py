"""An ONNX graph with fewer channels: constants sliced, integers that are sizes written anew."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from joulemap import InputError

from ..importing import import_onnx
from . import axes as algebra
from .channel_groups import Staying, indices_of, size_after
from .derive import DerivedNetwork
from .step import Rewrite

if TYPE_CHECKING:
    import onnx

# Attributes that are one integer although a rewrite is a row of them.
_SINGLE = ("group", "hidden_size")
# Number formats of weights, as ONNX counts them.
_FLOATS = (1, 10, 11, 16)


def shrunk_onnx(
    derived: DerivedNetwork,
    staying: Staying,
    weights: Mapping[str, NDArray[Any]] | None = None,
) -> onnx.ModelProto:
    """Return the graph of a derived network with what stays.

    Args:
        derived: The network.
        staying: Which places of each extent stay.
        weights: By name of the initializer: values to be written in place of the graph's, in the
            new size or in the old one.
    """
    import onnx
    from onnx import helper, numpy_helper

    weights = weights or {}
    solution = derived.space.solution
    found = onnx.ModelProto()
    found.CopyFrom(solution.model)
    del found.graph.value_info[:]
    for item in found.graph.initializer:
        axes = solution.axes.get(item.name, ())
        indices = indices_of(axes, staying)
        if indices or item.name in weights:
            value = weights.get(item.name)
            if value is None:
                value = numpy_helper.to_array(item)
            if value.shape == solution.tensors.shapes[item.name]:
                value = taken(value, indices)
            item.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value), item.name))
    for place, node in enumerate(found.graph.node):
        if node.op_type == "Constant" and node.output[0] in solution.axes:
            indices = indices_of(solution.axes[node.output[0]], staying)
            if indices:
                value = taken(solution.tensors.values[node.output[0]], indices)
                del node.attribute[:]
                node.attribute.append(
                    helper.make_attribute("value", numpy_helper.from_array(value))
                )
        for number, item in enumerate(solution.rewrites.get(place, ())):
            sizes = [size_after(axis, staying) for axis in item.values]
            if sizes != [algebra.size_of(axis) for axis in item.values]:
                _rewrite(found.graph, node, item, sizes, f"joulemap_sizes_{place}_{number}")
    return found


def weights_of(derived: DerivedNetwork, model: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    """Return the weights of a model by the names of the network's graph.

    Args:
        derived: The network.
        model: The same network, as the file is or as it was imported, of any sizes.

    Raises:
        InputError: It is another network.
    """
    from onnx import numpy_helper

    own = derived.space.solution.model
    for attempt in (model, None):
        found = attempt if attempt is not None else _imported(derived, model)
        if _outline(found) == _outline(own):
            return {item.name: numpy_helper.to_array(item) for item in found.graph.initializer}
    raise InputError(
        f"the ONNX model is not the network '{derived.spec.name}': its nodes or the names of its "
        "weights differ; derive the spec from this file"
    )


def taken(value: NDArray[Any], indices: Mapping[int, NDArray[np.int64]]) -> NDArray[Any]:
    """Return an array with the indices that stay along each axis."""
    for axis, own in indices.items():
        value = np.take(value, own, axis)
    return value


def _imported(derived: DerivedNetwork, model: onnx.ModelProto) -> onnx.ModelProto:
    shapes = [
        f"{name}={'x'.join(map(str, value.shape))}" for name, value in derived.graph.inputs.items()
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        path.write_bytes(model.SerializeToString())
        return import_onnx(path, shapes=shapes).model


def _outline(model: onnx.ModelProto) -> tuple[list[str], list[str]]:
    """Return the operators of a graph and the names of its weights."""
    return (
        [node.op_type for node in model.graph.node],
        [item.name for item in model.graph.initializer if item.data_type in _FLOATS],
    )


def _rewrite(
    graph: onnx.GraphProto, node: onnx.NodeProto, item: Rewrite, sizes: list[int], name: str
) -> None:
    from onnx import helper, numpy_helper

    if item.slot is not None:
        node.input.extend([""] * (item.slot + 1 - len(node.input)))
        node.input[item.slot] = name
        graph.initializer.append(numpy_helper.from_array(np.array(sizes, np.int64), name))
    elif item.attribute is not None:
        kept = [part for part in node.attribute if part.name != item.attribute]
        value = sizes[0] if item.attribute in _SINGLE else sizes
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute(item.attribute, value)])
    if node.op_type == "Split":
        kept = [part for part in node.attribute if part.name != "num_outputs"]
        del node.attribute[:]
        node.attribute.extend(kept)

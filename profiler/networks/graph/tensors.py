"""What the solver knows about the tensors of a graph before it starts: shapes, constants, small values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from joulemap import InputError

if TYPE_CHECKING:
    import onnx

Array: TypeAlias = "np.ndarray[Any, Any]"
Shape: TypeAlias = "tuple[int, ...]"

# Values of integers are kept up to so many elements: sizes, indices, axes.
MAX_VALUES = 4096
# ir versions that every onnxruntime in use reads.
MAX_IR_VERSION = 10


@dataclass(frozen=True)
class Tensors:
    """Shapes and values of the tensors of a graph, as found.

    Attributes:
        shapes: Of every tensor.
        dtypes: numpy dtype of every tensor.
        values: Of small integer tensors, and of all constants.
        constants: Names of initializers and of what `Constant` nodes write.
    """

    shapes: Mapping[str, Shape]
    dtypes: Mapping[str, np.dtype[Any]]
    values: Mapping[str, Array]
    constants: frozenset[str]


def run_once(model: onnx.ModelProto, inputs: Mapping[str, Array]) -> Tensors:
    """Return shapes and values of all tensors, from one run of the graph as it is.

    Args:
        model: The graph; shapes of its inputs are those of the arrays.
        inputs: Array by name of the graph's input.

    Raises:
        InputError: onnxruntime cannot run it.
    """
    import onnx
    import onnxruntime
    from onnx import numpy_helper

    values: dict[str, Array] = {}
    for item in model.graph.initializer:
        values[item.name] = numpy_helper.to_array(item)
    for node in model.graph.node:
        if node.op_type == "Constant" and len(node.attribute) == 1:
            values[node.output[0]] = _constant(node.attribute[0])
    constants = frozenset(values)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.ir_version = min(copy.ir_version, MAX_IR_VERSION)
    written = {item.name for item in copy.graph.output}
    for node in copy.graph.node:
        for name in node.output:
            if name and name not in written:
                copy.graph.output.append(onnx.ValueInfoProto(name=name))
                written.add(name)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(
            copy.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        names = [item.name for item in session.get_outputs()]
        results = session.run(None, dict(inputs))
    except Exception as error:
        said = " ".join(str(error).split())[:250]
        raise InputError(f"onnxruntime cannot run the network as it is: {said}") from error
    shapes: dict[str, Shape] = {name: tuple(np.shape(value)) for name, value in values.items()}
    dtypes = {name: np.asarray(value).dtype for name, value in values.items()}
    for name, value in [*inputs.items(), *zip(names, results, strict=True)]:
        if not isinstance(value, np.ndarray):
            continue  # a sequence or an optional: no rule takes it
        shapes[name] = value.shape
        dtypes[name] = value.dtype
        if value.size <= MAX_VALUES and (value.dtype.kind in "iub" or value.size == 1):
            values.setdefault(name, value)
    return Tensors(shapes, dtypes, values, constants)


def _constant(item: onnx.AttributeProto) -> Array:
    from onnx import helper, numpy_helper

    value = helper.get_attribute_value(item)
    if item.name == "value":
        array: Array = numpy_helper.to_array(item.t)
        return array
    dtypes = {"value_float": "f4", "value_floats": "f4", "value_int": "i8", "value_ints": "i8"}
    if item.name in dtypes:
        return np.array(value, dtype=dtypes[item.name])
    return np.array(value)

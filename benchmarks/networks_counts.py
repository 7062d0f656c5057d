"""Multiply-accumulates and parameters counted a second time, by nothing that specs are made with.

A variant's operators are counted one by one from the shapes that onnx infers in it; a torch module by
torch's own FlopCounterMode.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import helper, shape_inference
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
COUNTED = {"Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum", *GATES}


def torch_macs(module: nn.Module, inputs: Mapping[str, object], names: list[str]) -> int:
    """Return what torch counts: convolutions and matrix products, attention's own ones too.

    Recurrent layers count as nothing there.

    Args:
        module: In eval mode.
        inputs: Arrays by name.
        names: The names in the order of the module's arguments.
    """
    arguments = {name: torch.from_numpy(np.asarray(inputs[name])) for name in names}
    torch.backends.mha.set_fastpath_enabled(False)
    with FlopCounterMode(display=False) as flops, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        try:
            module(**arguments)
        except TypeError:
            module(*arguments.values())
    return int(flops.get_total_flops()) // 2


def variant_macs(content: bytes, inputs: Mapping[str, np.ndarray]) -> int:
    """Return the multiply-accumulates of a variant's operators that depend on its inputs.

    Args:
        content: The variant.
        inputs: What it runs on; asked where onnx infers no shape.
    """
    model = onnx.load_from_string(content)
    nodes = _depending(model)
    shapes = _shapes(
        model, {name for node in nodes for name in (*node.input, *node.output)}, inputs
    )
    return sum(_macs(node, shapes) for node in nodes if node.op_type in COUNTED)


def _depending(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    known = {item.name for item in model.graph.input}
    found = []
    for node in model.graph.node:
        if node.op_type not in ("Shape", "Size") and known.intersection(node.input):
            known.update(node.output)
            found.append(node)
    return found


def _shapes(
    model: onnx.ModelProto, wanted: Collection[str], inputs: Mapping[str, np.ndarray]
) -> dict[str, tuple[int, ...]]:
    shapes = {item.name: tuple(item.dims) for item in model.graph.initializer}
    inferred = shape_inference.infer_shapes(model, data_prop=True).graph
    for item in [*inferred.input, *inferred.value_info, *inferred.output]:
        dims = item.type.tensor_type.shape.dim
        if item.type.tensor_type.HasField("shape") and all(
            dim.HasField("dim_value") for dim in dims
        ):
            shapes[item.name] = tuple(dim.dim_value for dim in dims)
    written = {name for node in model.graph.node for name in node.output}
    missing = [name for name in wanted if name in written and name not in shapes]
    if missing:
        known = {item.name for item in model.graph.output}
        more = [name for name in missing if name not in known]
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in more)
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        for name, value in zip(missing, session.run(missing, dict(inputs)), strict=True):
            shapes[name] = np.shape(value)
    return shapes


def _macs(node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> int:
    attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    first, second, output = (shapes[name] for name in (*node.input[:2], node.output[0]))
    if node.op_type == "Conv":
        return math.prod(output) * math.prod(second[1:])
    if node.op_type == "ConvTranspose":
        return math.prod(first) * math.prod(second[1:])
    if node.op_type == "Gemm":
        return math.prod(output) * first[0 if attributes.get("transA") else 1]
    if node.op_type == "MatMul":
        return math.prod(output) * first[-1]
    if node.op_type == "Einsum":
        return _einsum_macs(attributes["equation"].decode(), first, second)
    steps, batch, size = first
    hidden = int(attributes["hidden_size"])
    return steps * batch * second[0] * GATES[node.op_type] * hidden * (size + hidden)


def _einsum_macs(equation: str, first: tuple[int, ...], second: tuple[int, ...]) -> int:
    terms, _, output = equation.replace(" ", "").partition("->")
    sizes: dict[str, int] = {}
    for term, shape in zip(terms.split(","), (first, second), strict=False):
        for letter, size in zip(term, shape, strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))
    is_product = "," in terms and any(letter not in output for letter in sizes)
    return math.prod(sizes.values()) if is_product else 0


def variant_parameters(
    largest: Mapping[str, int],
    variant: Mapping[str, int],
    sources: Mapping[str, tuple[str, ...]],
    elements: Mapping[str, int],
) -> int | None:
    """Return the elements of a variant's parameters, each once; None where they cannot be told.

    A parameter may stand in a variant as it is, transposed, in pieces, or joined with others: which, its
    largest variant says.

    Args:
        largest: Elements of the initializers of the variant at the largest widths, by name.
        variant: Of the variant to count.
        sources: Of initializers: the parameters that they are made of.
        elements: Of the network's parameters, as found.
    """
    total = 0
    for group in _groups(largest, sources, elements):
        made = [name for name in largest if group & set(sources.get(name, (name,)))]
        count = sum(elements[name] for name in group)
        whole = [name for name in made if largest[name] == count]
        if sum(largest[name] for name in made) == count:
            total += sum(variant[name] for name in made)
        elif whole:
            total += variant[whole[0]]
        elif made:  # some rows of it: the others are as long
            part = count * sum(variant[name] for name in made)
            if part % sum(largest[name] for name in made):
                return None
            total += part // sum(largest[name] for name in made)
        else:
            return None
    return total


def _groups(
    largest: Mapping[str, int], sources: Mapping[str, tuple[str, ...]], elements: Mapping[str, int]
) -> list[set[str]]:
    """Return the parameters in groups that no initializer joins with another group."""
    groups = [{name} for name in elements]
    for name in largest:
        joined = {item for item in sources.get(name, (name,)) if item in elements}
        if len(joined) > 1:
            touched = [group for group in groups if group & joined]
            groups = [group for group in groups if not group & joined] + [set().union(*touched)]
    return groups


def initializer_elements(content: bytes) -> dict[str, int]:
    """Return the number of elements of each initializer of a variant."""
    model = onnx.load_from_string(content)
    return {item.name: math.prod(item.dims) for item in model.graph.initializer}

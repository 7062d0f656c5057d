"""Which tensors of an exported graph are weights, and how large their random values are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnx import NodeProto

# Operators whose output a weight's scale has to make up for: they halve the mean square.
RECTIFIERS = frozenset(
    {"Relu", "Clip", "LeakyRelu", "PRelu", "Elu", "Celu", "HardSwish", "Gelu", "Mish", "Swish"}
)
# Operators between a weight and the activation that follows it.
TRANSPARENT = frozenset(
    {
        "Add", "AveragePool", "BatchNormalization", "Concat", "Flatten", "GlobalAveragePool",
        "Identity", "MaxPool", "Reshape", "Squeeze", "Transpose", "Unsqueeze",
    }
)  # fmt: skip
RECURRENT = ("GRU", "LSTM", "RNN")
MULTIPLIERS = ("Conv", "ConvTranspose", "Gemm", "MatMul", *RECURRENT)
NORMS = frozenset(
    {
        "BatchNormalization", "GroupNormalization", "InstanceNormalization", "LayerNormalization",
        "RMSNormalization",
    }
)  # fmt: skip

# Positive biases keep units alive in narrow layers, where a negative sum would silence them all.
BIAS_SCALE = 0.2
# Halved where the result is added to another branch, so that residual networks do not grow.
RESIDUAL_GAIN = 0.5

Rule = dict[str, Any]


class WeightRules:
    """The rules of one graph.

    Args:
        nodes: The graph's nodes.
        parameters: Names in the module's state_dict.
    """

    def __init__(self, nodes: Sequence[NodeProto], parameters: frozenset[str]) -> None:
        self.parameters = parameters
        self.slots: dict[str, tuple[NodeProto, int]] = {}
        self.consumers: dict[str, list[NodeProto]] = {}
        for node in nodes:
            for slot, name in enumerate(node.input):
                self.slots.setdefault(name, (node, slot))
                self.consumers.setdefault(name, []).append(node)

    def rule(self, name: str, num_dims: int) -> Rule | None:
        """Return the rule for the random values of an initializer; None if it is a constant.

        Args:
            name: The initializer.
            num_dims: Its number of dimensions.
        """
        if name not in self.slots:
            return None
        node, slot = self.slots[name]
        operator = node.op_type
        if operator in MULTIPLIERS:
            return self._multiplier(node, slot, num_dims)
        if operator in NORMS and slot > 0:
            return _positive(1.0) if slot in (1, 4) else _positive(BIAS_SCALE)
        if operator == "Gather" and slot == 0 and name in self.parameters:
            return _normal(1.0, [])
        if name in self.parameters:
            return _positive(BIAS_SCALE if operator == "Add" else 1.0)
        return None

    def _multiplier(self, node: NodeProto, slot: int, num_dims: int) -> Rule | None:
        operator = node.op_type
        gain = self._gain(node)
        attributes: Mapping[str, Any] = {item.name: item for item in node.attribute}
        if operator == "MatMul":
            return _normal(gain, [num_dims - 1 if slot == 0 else max(num_dims - 2, 0)])
        if operator == "Gemm" and slot < 2:
            name = ("transA", "transB")[slot]
            is_transposed = name in attributes and attributes[name].i == 1
            return _normal(gain, [int(is_transposed) if slot == 1 else 1 - int(is_transposed)])
        if operator in RECURRENT and slot in (1, 2):
            return _normal(1.0, [2])
        if operator == "Conv" and slot == 1:
            return _normal(gain, list(range(1, num_dims)))
        if operator == "ConvTranspose" and slot == 1:
            strides = math.prod(attributes["strides"].ints) if "strides" in attributes else 1
            groups = attributes["group"].i if "group" in attributes else 1
            return _normal(gain, [0, *range(2, num_dims)], [strides, groups])
        return _positive(BIAS_SCALE) if slot > 1 else None

    def _gain(self, node: NodeProto) -> float:
        """Return the factor that keeps the mean square of activations through the layer."""
        gain = 1.0
        names, seen = list(node.output), set(node.output)
        while names:
            for consumer in self.consumers.get(names.pop(0), []):
                if consumer.op_type == "Add":
                    gain = min(gain, RESIDUAL_GAIN)
                if consumer.op_type in RECTIFIERS:
                    return gain * math.sqrt(2)
                if consumer.op_type in TRANSPARENT:
                    names += [name for name in consumer.output if name not in seen]
                    seen.update(consumer.output)
        return gain


def _normal(scale: float, fan_in: list[int], divisor: list[int] | None = None) -> Rule:
    return {"kind": "normal", "scale": scale, "fan_in": fan_in, "fan_in_divisor": divisor or []}


def _positive(scale: float) -> Rule:
    return {"kind": "positive", "scale": scale, "fan_in": [], "fan_in_divisor": []}

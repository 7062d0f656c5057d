"""What a rule for an operator is given, and what it may say: axes that agree, sizes to write anew."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from . import axes as algebra
from .axes import Axis
from .tensors import Array, Shape, Tensors

if TYPE_CHECKING:
    import onnx

Axes: TypeAlias = "tuple[Axis, ...]"
Rule: TypeAlias = "Callable[[Step], list[Axes]]"

# Why kernels and maps keep their sides, which is no news to anybody.
SIDES = "the sides of kernels and maps stay"


class NotUnderstood(Exception):
    """An operator, or a use of it, that no rule describes; what it reads is frozen."""


@dataclass(frozen=True)
class Rewrite:
    """Integers of a node that depend on the widths.

    Attributes:
        slot: The input that holds them; None where it is an attribute.
        attribute: The attribute that holds them; None where it is an input.
        values: One axis per integer, whose size it is.
    """

    slot: int | None
    attribute: str | None
    values: Axes


class Step:
    """One node of the graph, with what is known of its inputs.

    Attributes:
        node: The node.
        inputs: Axes of each input; None where it is left out.
        shapes: Shape of each output as found.
        rewrites: What the rule says must be written anew.
        numbers: Axes whose sizes the elements of an integer tensor are, by the tensor's name.
    """

    def __init__(
        self,
        node: onnx.NodeProto,
        inputs: Sequence[Axes | None],
        tensors: Tensors,
        numbers: dict[str, Axes],
    ) -> None:
        self.node = node
        self.inputs = inputs
        self.tensors = tensors
        self.shapes: list[Shape] = [tensors.shapes.get(name, ()) for name in node.output]
        self.rewrites: list[Rewrite] = []
        self.numbers = numbers

    def axes(self, slot: int) -> Axes:
        """Return the axes of an input that must be there."""
        found = self.inputs[slot] if slot < len(self.inputs) else None
        if found is None:
            raise NotUnderstood(f"its input {slot} is not there")
        return found

    def has(self, slot: int) -> bool:
        """Return whether an input is there."""
        return slot < len(self.inputs) and self.inputs[slot] is not None

    def attribute(self, name: str, default: Any = None) -> Any:
        """Return the value of an attribute."""
        from onnx import helper

        for item in self.node.attribute:
            if item.name == name:
                value = helper.get_attribute_value(item)
                return value.decode() if isinstance(value, bytes) else value
        return default

    def ints(self, slot: int) -> list[int] | None:
        """Return the integers of a small input as found; None where it is left out."""
        if not self.has(slot):
            return None
        value: Array | None = self.tensors.values.get(self.node.input[slot])
        if value is None:
            raise NotUnderstood("a size or an index in it is computed from data")
        return [int(item) for item in np.ravel(value)]

    def needed_ints(self, slot: int) -> list[int]:
        """Return the integers of a small input that must be there, as found."""
        found = self.ints(slot)
        if found is None:
            raise NotUnderstood(f"its input {slot} is not there")
        return found

    def is_computed(self, slot: int) -> bool:
        """Return whether the integers of an input depend on sizes that may change."""
        found = self.numbers.get(self.node.input[slot]) if self.has(slot) else None
        return found is not None and not all(map(algebra.is_constant, found))

    def constants(self, shape: Iterable[int]) -> Axes:
        """Return axes of sizes that do not change."""
        return tuple(algebra.constant(size) for size in shape)

    def agree(self, left: Axis, right: Axis, reason: str | None = None) -> None:
        """Make two axes the same.

        Raises:
            NotUnderstood: They are of unequal size as found.
        """
        if algebra.size_of(left) != algebra.size_of(right):
            raise NotUnderstood(
                f"it takes {algebra.size_of(left)} and {algebra.size_of(right)} for the same size"
            )
        algebra.agree(left, right, reason or "it meets an input, or a size that is written out")

    def freeze(self, axes: Iterable[Axis], reason: str) -> None:
        """Give what axes are made of the sizes that it has."""
        algebra.freeze(axes, f"{self.node.op_type}: {reason}")

    def rewrite_input(self, slot: int, values: Sequence[Axis]) -> None:
        """Have the integers of an input written anew at each width vector."""
        self.rewrites.append(Rewrite(slot, None, tuple(values)))

    def rewrite_attribute(self, name: str, values: Sequence[Axis]) -> None:
        """Have the integers of an attribute written anew at each width vector."""
        self.rewrites.append(Rewrite(None, name, tuple(values)))

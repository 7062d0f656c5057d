"""Finds out of which free sizes the axes of all tensors of a graph are made.

    graph ─► one run: shapes, small values ─► rules, node by node ─► axes of every tensor

Every axis of a float constant starts as an extent of its own. Each node's rule ties the axes that must
agree. What no rule understands is frozen with its reason, and the rest goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from . import axes as algebra
from .axes import Axis, Extent
from .operators import RULES
from .step import Axes, NotUnderstood, Rewrite, Step
from .tensors import Array, Tensors, run_once

if TYPE_CHECKING:
    import onnx

# Integer tensors whose elements are followed as sizes: at most so many.
MAX_NUMBERS = 64
# Rules of these look at the sizes that they are given themselves.
_SHAPED = ("ConstantOfShape", "Expand", "Range", "Reshape", "Slice", "Split")
_KEPT = ("Identity", "Cast", "Unsqueeze", "Squeeze", "Reshape", "Flatten")


@dataclass(frozen=True)
class Frozen:
    """Something that keeps its size because it is not understood.

    Attributes:
        operator: The ONNX operator.
        node: The node's name.
        reason: What was not understood.
    """

    operator: str
    node: str
    reason: str


@dataclass(frozen=True)
class Solution:
    """The axes of every tensor of a graph.

    Attributes:
        model: The graph.
        tensors: Shapes and values as found.
        axes: Of every tensor, by name.
        rewrites: What nodes need anew at each width vector, by the node's place in the graph.
        frozen: What no rule understands.
        data: Names of tensors that depend on the values of the network's inputs.
        sources: Of other tensors: the float constants that they are made of, in order.
        numbers: Of small integer tensors: axes whose sizes the elements are.
        starts: Axes of the float constants as they began, one extent each, by name.
    """

    model: onnx.ModelProto
    tensors: Tensors
    axes: Mapping[str, Axes]
    rewrites: Mapping[int, tuple[Rewrite, ...]]
    frozen: tuple[Frozen, ...]
    data: frozenset[str]
    sources: Mapping[str, tuple[str, ...]]
    numbers: Mapping[str, Axes]
    starts: Mapping[str, Axes]

    def parameters(self) -> list[str]:
        """Return the names of the float constants that the graph starts from."""
        return [
            name
            for name in self.tensors.shapes
            if name in self.tensors.constants and self.tensors.dtypes[name].kind == "f"
        ]


def solve(model: onnx.ModelProto, inputs: Mapping[str, Array]) -> Solution:
    """Return the axes of every tensor of a graph.

    Args:
        model: The graph; its nodes in topological order, functions written out.
        inputs: An example of each input; their shapes do not change.

    Raises:
        InputError: onnxruntime cannot run it.
    """
    return _Propagation(model, run_once(model, inputs)).solution()


class _Propagation:
    def __init__(self, model: onnx.ModelProto, tensors: Tensors) -> None:
        self.model = model
        self.tensors = tensors
        self.axes: dict[str, Axes] = {}
        self.numbers: dict[str, Axes] = {}
        self.stains: dict[str, frozenset[Extent]] = {}
        self.rewrites: dict[int, tuple[Rewrite, ...]] = {}
        self.frozen: list[Frozen] = []
        self.data = {item.name for item in model.graph.input if item.name not in tensors.constants}
        self.sources: dict[str, tuple[str, ...]] = {}
        for name in sorted(tensors.constants):
            is_float = tensors.dtypes[name].kind == "f"
            make = algebra.free if is_float else algebra.constant
            self.axes[name] = tuple(make(size) for size in tensors.shapes[name])
            if is_float:
                self.sources[name] = (name,)
            elif tensors.dtypes[name].kind in "iu" and tensors.values[name].size <= MAX_NUMBERS:
                self.numbers[name] = tuple(
                    algebra.constant(int(value)) for value in np.ravel(tensors.values[name])
                )
        for item in model.graph.input:
            if item.name not in self.axes:
                shape = tensors.shapes.get(item.name, ())
                self.axes[item.name] = tuple(map(algebra.constant, shape))

    def solution(self) -> Solution:
        for place, node in enumerate(self.model.graph.node):
            if node.op_type != "Constant":
                self._node(place, node)
        for item in self.model.graph.output:
            algebra.freeze(self.axes[item.name], "it is an output of the network")
        self._drop_side_factors()
        return Solution(
            self.model,
            self.tensors,
            {name: tuple(map(algebra.expand, axes)) for name, axes in self.axes.items()},
            self.rewrites,
            tuple(self.frozen),
            frozenset(self.data),
            self.sources,
            {name: tuple(map(algebra.expand, axes)) for name, axes in self.numbers.items()},
            {name: self.axes[name] for name, sources in self.sources.items() if sources == (name,)},
        )

    def _node(self, place: int, node: onnx.NodeProto) -> None:
        inputs = [self.axes.get(name) if name else None for name in node.input]
        step = Step(node, inputs, self.tensors, self.numbers)
        try:
            self._follow_numbers(node)
            found = self._apply(step)
            self.rewrites[place] = tuple(step.rewrites)
        except (NotUnderstood, IndexError, TypeError, ValueError, ZeroDivisionError) as error:
            reads = [axes for axes in inputs if axes is not None]
            reads += [self.axes[name] for name in _captured(node) if name in self.axes]
            if any(not algebra.is_constant(axis) for axes in reads for axis in axes):
                reason = str(error) or type(error).__name__
                if not isinstance(error, NotUnderstood):
                    reason = "it is used in a way that is not understood"
                self.frozen.append(Frozen(node.op_type, node.name or node.output[0], reason))
                for axes in reads:
                    algebra.freeze(axes, f"{node.op_type} '{node.name}': {reason}")
            found = [tuple(map(algebra.constant, shape)) for shape in step.shapes]
        for name, axes in zip(node.output, found, strict=False):
            if name:
                self.axes[name] = axes
        self._follow_data(node)

    def _apply(self, step: Step) -> list[Axes]:
        node = step.node
        rule = RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if rule is None:
            raise NotUnderstood("joulemap does not know this operator")
        if any(item.type in (5, 10) for item in node.attribute):
            raise NotUnderstood("what it repeats or chooses is computed inside it")
        found = rule(step)
        for axes, shape in zip(found, step.shapes, strict=False):
            if tuple(map(algebra.size_of, axes)) != shape:
                raise NotUnderstood("its output has another size than its rule says")
        return found

    # -- integers that are sizes -------------------------------------------------------------------

    def _follow_numbers(self, node: onnx.NodeProto) -> None:
        """Say which axes' sizes the integers are that a node writes, or freeze what they come from."""
        operator = node.op_type
        if operator in ("Shape", "Size"):
            axes = self.axes[node.input[0]]
            if operator == "Shape":
                start, end = _attribute(node, "start", 0), _attribute(node, "end", None)
                self.numbers[node.output[0]] = axes[start:end]
                return
            if all(map(algebra.is_constant, axes)):
                return
            raise NotUnderstood("a number of elements is computed with")
        is_plain = not any(map(self._is_computed, node.input)) and not any(
            self.stains.get(name) for name in node.input
        )
        if is_plain and operator not in ("Gather", "Concat"):
            self._keep_known(node)
            return
        name = node.output[0]
        value = self.tensors.values.get(name)
        size = int(np.prod(self.tensors.shapes.get(name, (MAX_NUMBERS + 1,)) or (1,)))
        is_integer = self.tensors.dtypes.get(name, np.dtype("f4")).kind in "iu"
        followed = self._followed(node) if is_integer and size <= MAX_NUMBERS else None
        if followed is not None and value is not None:
            sizes = [algebra.size_of(axis) for axis in followed]
            if sizes == np.ravel(value).tolist():
                self.numbers[name] = followed
                return
        stains = self._stains(node.input)
        if not stains:
            self._keep_known(node)
            return
        if size == 1 and not is_integer:
            self.stains[name] = stains  # a scale: it changes values, not sizes
        elif is_integer and operator not in _SHAPED:
            reason = f"{operator}: a size is computed from it in a way that is not understood"
            algebra.freeze([((extent,),) for extent in stains], reason)
            self._keep_known(node)

    def _keep_known(self, node: onnx.NodeProto) -> None:
        if not all(item in self.numbers for item in node.input if item):
            return
        for name in node.output:
            value = self.tensors.values.get(name)
            if value is not None and value.dtype.kind in "iu" and value.size <= MAX_NUMBERS:
                self.numbers[name] = tuple(algebra.constant(int(item)) for item in np.ravel(value))

    def _is_computed(self, name: str) -> bool:
        numbers = self.numbers.get(name)
        return numbers is not None and not all(map(algebra.is_constant, numbers))

    def _stains(self, names: Iterable[str]) -> frozenset[Extent]:
        found: set[Extent] = set()
        for name in names:
            found |= self.stains.get(name, frozenset())
            for axis in self.numbers.get(name, ()):
                found.update(algebra.extents_of(axis))
        return frozenset(found)

    def _followed(self, node: onnx.NodeProto) -> Axes | None:
        inputs = [self.numbers.get(name) for name in node.input if name]
        if not inputs or inputs[0] is None:
            return None
        first = inputs[0]
        if node.op_type in _KEPT:
            return first
        if any(item is None for item in inputs):
            return None
        known = [item for item in inputs if item is not None]
        if node.op_type == "Concat":
            return tuple(axis for item in known for axis in item)
        if node.op_type == "Gather":
            places = self.tensors.values.get(node.input[1])
            if places is not None:
                return tuple(first[int(place)] for place in np.ravel(places))
        if node.op_type == "Slice":
            values = [self.tensors.values.get(name) for name in node.input[1:]]
            if all(value is not None for value in values) and (
                len(values) < 4 or int(np.ravel(values[3])[0]) == 1  # type: ignore[arg-type]
            ):
                start, end = (int(np.ravel(value)[0]) for value in values[:2])  # type: ignore[arg-type]
                return first[start:end]
        if node.op_type in _ARITHMETIC and len(known) == 2:
            left, right = known
            if len(left) == len(right) or 1 in (len(left), len(right)):
                length = max(len(left), len(right))
                pairs = zip(
                    left * (length // len(left)), right * (length // len(right)), strict=True
                )
                return tuple(_ARITHMETIC[node.op_type](*pair) for pair in pairs)
        return None

    # -- afterwards --------------------------------------------------------------------------------

    def _follow_data(self, node: onnx.NodeProto) -> None:
        # The second input of CastLike gives its number format alone.
        reads = set(node.input[:1] if node.op_type == "CastLike" else node.input) - {""}
        reads |= _captured(node)
        if node.op_type not in ("Shape", "Size") and not self.data.isdisjoint(reads):
            self.data.update(name for name in node.output if name)
            return
        sources = dict.fromkeys(
            source for name in node.input for source in self.sources.get(name, ())
        )
        for name in node.output:
            self.sources[name] = tuple(sources) if node.op_type not in ("Shape", "Size") else ()

    def _drop_side_factors(self) -> None:
        """Keep, of the free factors of one product, the largest and those that count equal parts.

        A reshape into 2 parts of 58 channels leaves the 2 as free as the 58, where nobody wants to
        choose it.
        """
        for axes in self.axes.values():
            for axis in axes:
                for block in algebra.expand(axis):
                    extents = [item for item in block if isinstance(item, Extent)]
                    if len(extents) < 2:
                        continue
                    largest = max(extents, key=lambda item: (not item.is_repeated, item.size))
                    for item in extents:
                        if item is not largest and not item.is_repeated:
                            algebra.freeze([((item,),)], "it is a number of parts")


def _product(left: Axis, right: Axis) -> Axis:
    return algebra.multiply(left, right)


def _sum(left: Axis, right: Axis) -> Axis:
    return algebra.join([left, right])


_ARITHMETIC: dict[str, Callable[[Axis, Axis], Axis]] = {"Mul": _product, "Add": _sum}


def _attribute(node: onnx.NodeProto, name: str, default: int | None) -> int | None:
    return next((int(item.i) for item in node.attribute if item.name == name), default)


def _captured(node: onnx.NodeProto) -> set[str]:
    """Return the names that the graphs inside a node read from outside it."""
    found: set[str] = set()
    graphs = [item.g for item in node.attribute if item.type == 5]
    graphs += [graph for item in node.attribute if item.type == 10 for graph in item.graphs]
    for graph in graphs:
        for inner in graph.node:
            found |= {name for name in inner.input if name} | _captured(inner)
    return found

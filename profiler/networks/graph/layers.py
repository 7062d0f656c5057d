"""Which layers a solved graph has: kinds, sizes, multiply-accumulates and parameters, node by node."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any

from ....datasets import LayerSpec, Size
from . import axes as algebra
from .axes import Axis, Extent
from .operators import POOLS, REDUCTIONS, UNARY
from .solver import Solution

if TYPE_CHECKING:
    import onnx

SCOPES = "pkg.torch.onnx.name_scopes"
_NORMS = [
    "BatchNormalization",
    "GroupNormalization",
    "InstanceNormalization",
    "LayerNormalization",
    "RMSNormalization",
    "SimplifiedLayerNormalization",
    "LpNormalization",
    "LRN",
]
_RECURRENT = {"LSTM": 4, "GRU": 3, "RNN": 1}
_MOVES = [
    "DepthToSpace",
    "Expand",
    "Gather",
    "GatherElements",
    "GatherND",
    "Pad",
    "ScatterElements",
    "ScatterND",
    "Slice",
    "SpaceToDepth",
    "Split",
    "Tile",
    "Transpose",
]
# They change how a tensor is read, and move nothing; or nothing of a size that counts.
_FREE = [
    "Cast",
    "CastLike",
    "Constant",
    "ConstantOfShape",
    "Dropout",
    "Flatten",
    "Identity",
    "Range",
    "Reshape",
    "Shape",
    "Size",
    "Squeeze",
    "Unsqueeze",
]
_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum", *_RECURRENT)
_KINDS = {
    **dict.fromkeys(UNARY, "activation"),
    **dict.fromkeys(POOLS, "pool"),
    **dict.fromkeys(_NORMS, "norm"),
    **dict.fromkeys(REDUCTIONS, "reduce"),
    **dict.fromkeys(_MOVES, "rearrange"),
    "Concat": "concat",
    "Resize": "resize",
    "Upsample": "resize",
}
_MERGED = ("activation", "elementwise", "norm")
# Kinds that a module of their own stands for.
_WHOLE = ("activation", "norm", "pool", "resize", "reduce")


@dataclass(frozen=True)
class Features:
    """What a layer reads or writes: channels, and the places of a map or vectors they are given for."""

    channels: Size
    size: tuple[int, int] = (1, 1)
    positions: int = 1


@dataclass
class Layers:
    """The layers of a graph.

    Attributes:
        specs: The layers, sizes in names of extents.
        of_nodes: Name of each node's layer, None for nodes that compute nothing.
        producers: Axes that a layer makes, and the path of the module it stands for.
    """

    specs: list[LayerSpec] = field(default_factory=list)
    of_nodes: list[str | None] = field(default_factory=list)
    producers: list[tuple[Axis, str]] = field(default_factory=list)


def layers_of(solution: Solution, names: Mapping[Extent, str], counted: frozenset[str]) -> Layers:
    """Return the layers of a solved graph.

    Args:
        solution: The graph and the axes of its tensors.
        names: What each free extent is called in sizes.
        counted: Names of the constants that count as trainable parameters.
    """
    return _Reader(solution, names, counted).read()


def size_of(axis: Axis, names: Mapping[Extent, str]) -> Size:
    """Return the size of an axis as a polynomial.

    Args:
        axis: Any axis.
        names: What each free extent is called; others count as they are.
    """
    total = Size(0)
    for block in axis:
        product = Size(1)
        for factor in block:
            if isinstance(factor, int):
                product *= factor
            elif factor.binding is not None:
                product *= size_of(factor.binding, names)
            else:
                product *= Size(names[factor]) if factor in names else Size(factor.size)
        total += product
    return total


def scopes_of(node: onnx.NodeProto) -> list[str]:
    """Return the paths of the modules that a node was traced in, outermost first."""
    for item in node.metadata_props:
        if item.key == SCOPES:
            try:
                scopes = ast.literal_eval(item.value)
            except (SyntaxError, ValueError, RecursionError, MemoryError):
                return []
            return [scope for scope in scopes[:-1] if isinstance(scope, str)]
    return []


def path_of(parameter: str) -> str:
    """Return the path of the module that a parameter belongs to: `fc` of `fc.weight`.

    Example:
        >>> path_of("attn.in_proj_weight")
        'attn.in_proj'
    """
    for end in ("weight", "bias"):
        for mark in (".", "_"):
            if parameter.endswith(mark + end) and parameter != mark + end:
                return parameter.removesuffix(mark + end)
    head, _, tail = parameter.rpartition(".")
    if tail.startswith(("weight_", "bias_", "running_")):
        return head or parameter
    return parameter


class _Reader:
    def __init__(
        self, solution: Solution, names: Mapping[Extent, str], counted: frozenset[str]
    ) -> None:
        self.solution = solution
        self.names = names
        self.nodes = solution.model.graph.node
        self.found = Layers()
        self.features: dict[str, Features] = {}
        self.writers: dict[str, str] = {}
        self.places: dict[str, int] = {}
        self.scope_of_layer: dict[str, str] = {}
        # The constants whose parameters no layer holds yet.
        self.waiting = set(counted)

    def read(self) -> Layers:
        for item in self.solution.model.graph.input:
            self.writers[item.name] = ""
        for node in self.nodes:
            self.found.of_nodes.append(self._node(node))
        return self.found

    # -- one node ----------------------------------------------------------------------------------

    def _node(self, node: onnx.NodeProto) -> str | None:
        data = [name for name in node.input if name and not self._is_fixed(name)]
        held = [name for name in node.input if name and self._is_fixed(name)]
        sources = {source for name in held for source in self.solution.sources.get(name, ())}
        if not data:
            return None
        before = self._written_by(data)
        operator = node.op_type
        output = node.output[0]
        if operator in _FREE or self._moves_nothing(node) or not self._is_counted(node):
            if before and before[0]:
                self._hold(before[0], sources)
            for name in node.output:
                self.writers[name] = before[0] if before else ""
                if operator in ("Identity", "Cast", "Dropout"):
                    self._copy_features(data[0], name)
            return None
        if operator == "Split":
            return self._split(node, before)
        kind, fields = self._described(node, data)
        scope, path = self._place(node, held)
        merged = self._merge(kind, scope, before, node, data)
        if merged is not None:
            self._hold(merged, sources)
        else:
            merged = self._new(kind, path, fields, before, sources)
            self.scope_of_layer[merged] = scope
            if operator in _PRODUCTS or operator == "Gather":
                axes = self.solution.axes[output]
                axis = axes[1] if operator in ("Conv", "ConvTranspose") else axes[-1]
                if held:
                    self.found.producers.append((axis, path_of(self._origin(held) or path)))
        for name in node.output:
            if name:
                self.writers[name] = merged
                self.features.setdefault(name, self._features(name))
        if kind in ("conv", "conv_transpose", "pool", "resize"):
            self.features[output] = self._map(output)
        elif kind in _MERGED and self._same_axes(data[0], output):
            self._copy_features(data[0], output)
        return merged

    def _split(self, node: onnx.NodeProto, before: Sequence[str]) -> str:
        """Return the first of the layers of a split: each piece is read and written."""
        _, path = self._place(node, ())
        made = []
        for name in node.output:
            piece = self.features[name] = self._features(name)
            fields = {
                "in_channels": piece.channels,
                "out_channels": piece.channels,
                "in_size": piece.size,
                "out_size": piece.size,
                "positions": piece.positions,
            }
            made.append(self._new("rearrange", path, fields, before, set()))
            self.writers[name] = made[-1]
        return made[0]

    def _moves_nothing(self, node: onnx.NodeProto) -> bool:
        """Return whether a transpose only moves sides of 1."""
        if node.op_type != "Transpose":
            return False
        shape = self.solution.tensors.shapes[node.input[0]]
        order = self._ints(node, "perm") or list(range(len(shape)))[::-1]
        moved = [place for place in order if shape[place] != 1]
        return moved == sorted(moved)

    def _is_fixed(self, name: str) -> bool:
        return name not in self.solution.data

    def _is_counted(self, node: onnx.NodeProto) -> bool:
        """Return whether a node computes with features, not with sizes and indices."""
        tensors = self.solution.tensors
        names = [name for name in node.output if name]
        if all(tensors.dtypes.get(name) is None for name in names):
            return False
        is_float = any(tensors.dtypes[name].kind == "f" for name in names if name in tensors.dtypes)
        return is_float and (
            node.op_type in _PRODUCTS
            or any(prod(tensors.shapes.get(name, ())) > 1 for name in names)
        )

    def _origin(self, held: Sequence[str]) -> str | None:
        sources = (source for name in held for source in self.solution.sources.get(name, ()))
        return next(sources, None)

    def _written_by(self, data: Sequence[str]) -> list[str]:
        return [self.writers[name] for name in data if name in self.writers]

    # -- features ----------------------------------------------------------------------------------

    def _size(self, axis: Axis) -> Size:
        return size_of(axis, self.names)

    def _features(self, name: str) -> Features:
        """Return channels and places of a tensor: what may change are channels."""
        if name in self.features:
            return self.features[name]
        axes = self.solution.axes.get(name, ())[1:]
        free = [place for place, axis in enumerate(axes) if not algebra.is_constant(axis)]
        if (not free and len(axes) >= 3) or (free == [0] and len(axes) > 1):
            return self._map(name)
        places = free or [len(axes) - 1] if axes else []
        channels = prod((self._size(axes[place]) for place in places), start=Size(1))
        others = [axis for place, axis in enumerate(axes) if place not in places]
        return Features(channels, positions=prod(map(algebra.size_of, others)))

    def _map(self, name: str) -> Features:
        """Return channels and places of a map, whose channels stand behind the batch."""
        axes = self.solution.axes.get(name, ())
        if len(axes) < 3:
            return self._features(name)
        sides = [algebra.size_of(axis) for axis in axes[2:]]
        size = (1, sides[0]) if len(sides) == 1 else (prod(sides[:-1]), sides[-1])
        return Features(self._size(axes[1]), size)

    def _same_axes(self, one: str, other: str) -> bool:
        return self.solution.axes.get(one) == self.solution.axes.get(other)

    def _copy_features(self, one: str, other: str) -> None:
        if one in self.features:
            self.features[other] = self.features[one]

    # -- kinds -------------------------------------------------------------------------------------

    def _described(self, node: onnx.NodeProto, data: Sequence[str]) -> tuple[str, dict[str, Any]]:
        operator = node.op_type
        first, output = data[0], node.output[0]
        if operator in ("Conv", "ConvTranspose"):
            return self._conv(node)
        if operator in ("Gemm", "MatMul"):
            return self._product(node)
        if operator == "Einsum":
            return self._einsum(node)
        if operator in _RECURRENT:
            return self._recurrent(node)
        if operator == "Gather" and self._is_fixed(node.input[0]):
            rows, columns = self.solution.axes[node.input[0]][0], self._features(output)
            return "embedding", {
                "in_channels": self._size(rows),
                "out_channels": columns.channels,
                "out_size": (columns.positions, prod(columns.size)),
            }
        kind = _KINDS.get(operator, "elementwise")
        if operator in ("Add", "Sub", "Sum", "Mul", "Div") and len(data) > 1:
            kind = "multiply" if operator in ("Mul", "Div") else "add"
        elif operator == "Mul":
            kind = "norm"
        before, after = self._features(first), self._features(output)
        if kind in ("pool", "resize"):
            before, after = self._map(first), self._map(output)
        if kind == "concat":
            axes = self.solution.axes
            place = self._attribute(node, "axis", 0) % len(axes[output])
            if place == 1 and len(axes[output]) > 2:
                after = self._map(output)
            before = after
        if kind == "add":
            whole = all(self._features(name) == after for name in data)
            kind = "add" if whole else "elementwise"
        window: dict[str, Any] = {}
        if kind == "pool" and (kernel := self._ints(node, "kernel_shape")):
            window = {
                "kernel_size": _pair(kernel),
                "stride": _pair(self._ints(node, "strides") or [1] * len(kernel)),
            }
        return kind, {**_sides(before, after), **window}

    def _conv(self, node: onnx.NodeProto) -> tuple[str, dict[str, Any]]:
        before, after = self._map(node.input[0]), self._map(node.output[0])
        kernel = list(self.solution.tensors.shapes[node.input[1]][2:])
        ones = [1] * len(kernel)
        pads = self._ints(node, "pads") or [0] * (2 * len(kernel))
        groups = Size(self._attribute(node, "group", 1))
        if groups != 1 and groups == algebra.size_of(self.solution.axes[node.input[0]][1]):
            groups = before.channels
        is_conv = node.op_type == "Conv"
        return "conv" if is_conv else "conv_transpose", {
            "in_channels": before.channels,
            "out_channels": after.channels,
            "in_size": before.size,
            "out_size": after.size,
            "kernel_size": _pair(kernel),
            "stride": _pair(self._ints(node, "strides") or ones),
            "dilation": _pair(self._ints(node, "dilations") or ones),
            "padding": _pair(pads[: len(kernel)], start=0),
            "groups": groups,
            "bias": len(node.input) > 2,
        }

    def _product(self, node: onnx.NodeProto) -> tuple[str, dict[str, Any]]:
        left, right = (list(self.solution.axes[name]) for name in node.input[:2])
        if node.op_type == "Gemm":
            left = left[::-1] if self._attribute(node, "transA", 0) else left
            right = right[::-1] if self._attribute(node, "transB", 0) else right
        rows = left[-2] if len(left) > 1 else algebra.constant(1)
        columns = right[-1] if len(right) > 1 else algebra.constant(1)
        inner = left[-1]
        output = self.solution.axes[node.output[0]]
        many = list(output[: max(len(left), len(right), 2) - 2])
        is_weighted = self._is_fixed(node.input[0]) or self._is_fixed(node.input[1])
        if self._is_fixed(node.input[0]) or (
            algebra.is_constant(columns) and not algebra.is_constant(rows)
        ):
            rows, columns = columns, rows
        bias = node.op_type == "Gemm" and len(node.input) > 2
        return self._matmul(many, rows, inner, columns, is_weighted, bias)

    def _matmul(
        self,
        many: Sequence[Axis],
        rows: Axis,
        inner: Axis,
        columns: Axis,
        is_weighted: bool,
        bias: bool,
    ) -> tuple[str, dict[str, Any]]:
        others = [*many, rows]
        groups = prod(
            (self._size(axis) for axis in others if not algebra.is_constant(axis)), start=Size(1)
        )
        positions = prod(algebra.size_of(axis) for axis in others if algebra.is_constant(axis))
        return "linear" if is_weighted else "matmul", {
            "in_channels": self._size(inner) * groups,
            "out_channels": self._size(columns) * groups,
            "groups": groups,
            "positions": positions,
            "bias": bias,
        }

    def _einsum(self, node: onnx.NodeProto) -> tuple[str, dict[str, Any]]:
        text = _text(node, "equation").replace(" ", "")
        terms, _, output = text.partition("->")
        letters: dict[str, Axis] = {}
        parts = terms.split(",")
        for term, name in zip(parts, node.input, strict=True):
            for letter, axis in zip(term, self.solution.axes[name], strict=True):
                if letter not in letters or algebra.size_of(letters[letter]) == 1:
                    letters[letter] = axis
        summed = [letter for letter in letters if letter not in output]
        if len(parts) != 2 or not summed:
            first, last = (self._features(name) for name in (node.input[0], node.output[0]))
            return "elementwise", _sides(first, last)
        inner: Axis = algebra.constant(1)
        for letter in summed:
            inner = algebra.multiply(inner, letters[letter])
        columns = [letter for letter in output if letter in parts[1] and letter not in parts[0]]
        outer: Axis = algebra.constant(1)
        for letter in columns:
            outer = algebra.multiply(outer, letters[letter])
        many = [letters[letter] for letter in output if letter not in columns]
        is_weighted = any(map(self._is_fixed, node.input[:2]))
        return self._matmul(many, algebra.constant(1), inner, outer, is_weighted, bias=False)

    def _recurrent(self, node: onnx.NodeProto) -> tuple[str, dict[str, Any]]:
        data = self.solution.axes[node.input[0]]
        weight = self.solution.axes[node.input[1]]
        directions = algebra.size_of(weight[0])
        hidden = self._size(self.solution.axes[node.input[2]][2])
        return "recurrent", {
            "in_channels": self._size(data[2]),
            "out_channels": hidden * directions,
            "positions": algebra.size_of(data[0]),
            "gates": _RECURRENT[node.op_type],
            "directions": directions,
            "bias": len(node.input) > 3 and bool(node.input[3]),
        }

    def _attribute(self, node: onnx.NodeProto, name: str, default: int) -> int:
        return next((int(item.i) for item in node.attribute if item.name == name), default)

    def _ints(self, node: onnx.NodeProto, name: str) -> list[int]:
        return next((list(item.ints) for item in node.attribute if item.name == name), [])

    # -- names -------------------------------------------------------------------------------------

    def _place(self, node: onnx.NodeProto, held: Sequence[str]) -> tuple[str, str]:
        """Return the module that a node was traced in, and what its layer is called."""
        scopes = scopes_of(node)
        scope = scopes[-1] if scopes else ""
        origin = self._origin(held)
        if origin is not None and node.op_type in (*_PRODUCTS, *_NORMS, "Gather"):
            path = path_of(origin)
            return scope or path, path
        short = node.op_type.lower()
        if scopes:
            if scope and scope not in self.places and _KINDS.get(node.op_type) in _WHOLE:
                return scope, scope
            return scope, f"{scope}.{short}" if scope else short
        return scope, node.name or node.output[0]

    def _merge(
        self,
        kind: str,
        scope: str,
        before: Sequence[str],
        node: onnx.NodeProto,
        data: Sequence[str],
    ) -> str | None:
        """Return the layer that a node is a part of: that of the same module that it goes on with."""
        if kind not in _MERGED or not scope or len(set(before)) != 1 or node.op_type in _NORMS:
            return None
        name = before[0]
        if not name or self.scope_of_layer.get(name) != scope:
            return None
        spec = self.found.specs[self.places[name]]
        if not self._same_axes(data[0], node.output[0]):
            return None
        if spec.kind in (*_MERGED, "linear", "conv", "conv_transpose"):
            return name
        return None

    def _new(
        self,
        kind: str,
        path: str,
        fields: dict[str, Any],
        before: Sequence[str],
        sources: set[str],
    ) -> str:
        name = self._free_name(path or kind)
        inputs = list(before) or [""]
        if kind not in ("add", "concat", "multiply", "elementwise", "matmul"):
            inputs = inputs[:1]
        if kind in ("concat", "conv", "conv_transpose", "norm", "activation", "pool"):
            inputs = self._fitted(kind, inputs, fields)
        if kind == "add" and not self._are_equal(inputs, fields):
            kind = "elementwise"
        spec = LayerSpec(
            name=name,
            kind=kind,  # type: ignore[arg-type]
            inputs=inputs,
            parameters=self._taken(sources),
            **{**fields, "bias": fields.get("bias", False)},
        )
        self.places[name] = len(self.found.specs)
        self.found.specs.append(spec)
        return name

    def _free_name(self, path: str) -> str:
        if path not in self.places:
            return path
        number = 2
        while f"{path}#{number}" in self.places:
            number += 1
        return f"{path}#{number}"

    def _fitted(self, kind: str, inputs: list[str], fields: dict[str, Any]) -> list[str]:
        """Return the inputs, with a layer between where a reshape changed what are channels."""
        if "" in inputs:
            return inputs
        total = sum((self._spec(name).out_channels for name in inputs), Size(0))
        if total == fields["in_channels"]:
            return inputs
        if kind == "concat":
            fields["in_channels"] = (
                total if total == fields["out_channels"] else fields["in_channels"]
            )
        producer = self._spec(inputs[0])
        name = self._free_name(f"{inputs[0]}.reshape")
        between = LayerSpec(
            name=name,
            kind="rearrange",
            in_channels=total,
            out_channels=fields["in_channels"],
            in_size=(producer.out_size[0] * producer.positions, producer.out_size[1]),
            out_size=(fields["in_size"][0] * fields.get("positions", 1), fields["in_size"][1]),
            inputs=inputs,
            bias=False,
            parameters=0,
        )
        self.places[name] = len(self.found.specs)
        self.found.specs.append(between)
        return [name]

    def _are_equal(self, inputs: Sequence[str], fields: Mapping[str, Any]) -> bool:
        wanted = (fields["out_channels"], fields["in_size"])
        return len(inputs) > 1 and all(
            not name or (self._spec(name).out_channels, self._spec(name).out_size) == wanted
            for name in inputs
        )

    def _spec(self, name: str) -> LayerSpec:
        return self.found.specs[self.places[name]]

    # -- parameters --------------------------------------------------------------------------------

    def _taken(self, sources: set[str]) -> Size:
        """Return the number of parameters of constants that no layer holds yet."""
        total = Size(0)
        for name in sorted(sources & self.waiting):
            self.waiting.discard(name)
            axes = self.solution.axes[name]
            total += prod((self._size(axis) for axis in axes), start=Size(1))
        return total

    def _hold(self, name: str, sources: set[str]) -> None:
        more = self._taken(sources)
        if more != 0:
            place = self.places[name]
            spec = self.found.specs[place]
            values = {**vars(spec), "parameters": (spec.parameters or Size(0)) + more}
            self.found.specs[place] = LayerSpec(**values)


def _sides(before: Features, after: Features) -> dict[str, Any]:
    """Return the fields of a layer that reads and writes these."""
    sides = {"in_channels": before.channels, "out_channels": after.channels}
    if before.positions == after.positions:
        sizes = {"in_size": before.size, "out_size": after.size, "positions": after.positions}
        return {**sides, **sizes}
    one, other = ((item.positions * item.size[0], item.size[1]) for item in (before, after))
    return {**sides, "in_size": one, "out_size": other}


def _pair(values: Sequence[int], start: int = 1) -> tuple[int, int]:
    """Return a window setting as height and width, of a volume with depth and height as one."""
    if len(values) == 1:
        return (start, values[0])
    if start == 0:
        return (sum(values[:-1]), values[-1])
    return (prod(values[:-1]), values[-1])


def _text(node: onnx.NodeProto, name: str) -> str:
    return next((item.s.decode() for item in node.attribute if item.name == name), "")

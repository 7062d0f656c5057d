"""The template of a network whose width space was solved on its graph: no second export, no primes.

The solution says for every tensor of which extents its axes are made, and which integers of which nodes
go with them. What is left is to write this down, weights left out::

    WidthSpace ─► nodes that depend on data, constants folded ─► integers written anew ─► Template
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from joulemap import InputError

from ...datasets import NetworkSpec
from ...device_agents.onboard.model.materialise import TEMPLATE_SCHEMA_VERSION
from ..networks.graph import axes as algebra
from ..networks.graph.axes import Axis, Extent
from ..networks.graph.width_space import WidthSpace
from .generic_widths import Polynomial
from .template import ATTRIBUTE_KINDS, DTYPES, Template, base64_of
from .weight_rules import MULTIPLIERS, NORMS, WeightRules

if TYPE_CHECKING:
    import onnx

# Constants that depend on no width travel as they are up to this many elements.
MAX_RAW = 1 << 16
# Newer files than this are refused by runtimes in use.
MAX_IR_VERSION = 10
# Weights that only these make of parameters are weights of another shape, whatever their values.
_FOLDED = frozenset(
    [
        "Cast",
        "CastLike",
        "Concat",
        "Expand",
        "Flatten",
        "Gather",
        "Identity",
        "Reshape",
        "Slice",
        "Split",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    ]
)


def derived_template(spec: NetworkSpec, space: WidthSpace, *, batch: int = 1) -> Template:
    """Return the template of a solved network.

    Args:
        spec: The network's spec, of the same widths.
        space: What the solver found.
        batch: Samples per call that the graph was solved for.

    Raises:
        InputError: The graph holds what a template cannot.
    """
    return _Writer(spec, space, batch).template()


class _Writer:
    def __init__(self, spec: NetworkSpec, space: WidthSpace, batch: int) -> None:
        self.spec = spec
        self.space = space
        self.batch = batch
        self.solution = space.solution
        self.tensors = space.solution.tensors
        self.graph = space.solution.model.graph
        self.places = {extent: place for place, extent in enumerate(space.extents)}
        self.initializers: dict[str, dict[str, Any]] = {}
        self.folded: set[str] = set()
        self.lists: dict[tuple[str, ...], str] = {}

    def template(self) -> Template:
        if self.solution.model.functions or self.graph.sparse_initializer:
            raise InputError(f"{self.spec.name} holds functions or sparse tensors")
        kept = self._kept()
        self.rules = WeightRules([node for _, node in kept], frozenset())
        nodes = [self._node(place, node) for place, node in kept]
        read = {name for node in nodes for name in node["inputs"] if name}
        read |= {item.name for item in self.graph.output}
        written = {name for node in nodes for name in node["outputs"]}
        known = {item.name for item in self.graph.input}
        names = [
            *(name for name in self.tensors.shapes if name in read - written - known),
            *(name for name in self.initializers if name in read),
        ]
        initializers = [
            self.initializers.get(name) or self._initializer(name) for name in dict.fromkeys(names)
        ]
        return Template(
            {
                "schema_version": TEMPLATE_SCHEMA_VERSION,
                "network": self.spec.name,
                "fingerprint": self.spec.fingerprint,
                "batch": self.batch,
                "widths": [asdict(width) for width in self.spec.widths],
                "ir_version": min(self.solution.model.ir_version, MAX_IR_VERSION),
                "opsets": [[item.domain, item.version] for item in self._opsets(nodes)],
                "graph": self.graph.name or "network",
                "inputs": [
                    self._input(item)
                    for item in self.graph.input
                    if item.name not in self.tensors.constants
                ],
                "outputs": [self._value(item.name) for item in self.graph.output],
                "nodes": nodes,
                "initializers": initializers,
            }
        )

    def _opsets(self, nodes: Iterable[Mapping[str, Any]]) -> list[onnx.OperatorSetIdProto]:
        used = {node["domain"] for node in nodes} | {""}
        return [item for item in self.solution.model.opset_import if item.domain in used]

    # -- which nodes stay --------------------------------------------------------------------------

    def _kept(self) -> list[tuple[int, onnx.NodeProto]]:
        """Return the nodes that a variant needs, those left out that only prepare constants."""
        nodes = list(enumerate(self.graph.node))
        for _, node in nodes:
            if node.op_type != "Constant" and self._is_foldable(node):
                self.folded.update(name for name in node.output if name)
        wanted = {item.name for item in self.graph.output}
        kept: list[tuple[int, onnx.NodeProto]] = []
        for place, node in reversed(nodes):
            if node.op_type == "Constant" or not wanted.intersection(node.output):
                continue
            if self.folded.issuperset(name for name in node.output if name):
                continue
            kept.append((place, node))
            rewritten = {item.slot for item in self.solution.rewrites.get(place, ())}
            wanted.update(
                name for slot, name in enumerate(node.input) if name and slot not in rewritten
            )
        return kept[::-1]

    def _is_foldable(self, node: onnx.NodeProto) -> bool:
        names = [name for name in node.output if name]
        if not names or not self.solution.data.isdisjoint(names):
            return False
        for name in names:
            is_fixed = all(map(algebra.is_constant, self.solution.axes.get(name, ())))
            if self.solution.sources.get(name):
                if node.op_type not in _FOLDED or not self._are_plain(node.input):
                    return False
            elif not (is_fixed and name in self.tensors.values) or not self._is_known(name):
                return False
        return True

    def _are_plain(self, names: Iterable[str]) -> bool:
        return all(
            not name
            or name in self.tensors.constants
            or name in self.folded
            or not self.solution.sources.get(name)
            for name in names
        )

    def _is_known(self, name: str) -> bool:
        """Return whether the values of a small tensor are the same at all widths."""
        numbers = self.solution.numbers.get(name)
        return numbers is not None and all(map(algebra.is_constant, numbers))

    # -- sizes -------------------------------------------------------------------------------------

    def _polynomial(self, axis: Axis) -> Polynomial:
        terms = _terms(axis, self.places)
        divisors = {
            monomial: math.prod(self.space.steps[place] for place in monomial) for monomial in terms
        }
        divisor = math.lcm(*divisors.values()) if divisors else 1
        if not any(terms):
            return sum(terms.values())
        return {
            "terms": [
                [coefficient * divisor // divisors[monomial], list(monomial)]
                for monomial, coefficient in terms.items()
            ],
            "divide": divisor,
        }

    def _dims(self, name: str) -> list[Polynomial]:
        axes = self.solution.axes.get(name)
        if axes is None:
            return [int(size) for size in self.tensors.shapes[name]]
        return [self._polynomial(axis) for axis in axes]

    def _value(self, name: str) -> dict[str, Any]:
        if name not in self.tensors.dtypes:
            raise InputError(f"'{name[:60]}' of {self.spec.name} is no tensor")
        return {"name": name, "dtype": self._dtype(name), "dims": self._dims(name)}

    def _dtype(self, name: str) -> str:
        dtype = self.tensors.dtypes[name].name
        if dtype not in DTYPES.values():
            raise InputError(f"'{name[:60]}' has the number format {dtype}, which templates lack")
        return dtype

    def _input(self, item: onnx.ValueInfoProto) -> dict[str, Any]:
        content = self._value(item.name)
        return {
            **content,
            "high": None if content["dtype"].startswith("float") else self._high(item),
        }

    def _high(self, item: onnx.ValueInfoProto) -> int:
        """Return a bound below which integers of an input are valid indices at every width."""
        waiting, seen = [item.name], set()
        found = []
        while waiting:
            name = waiting.pop()
            for node in self.graph.node:
                if node.op_type == "Gather" and node.input[1] == name:
                    axis = next((part.i for part in node.attribute if part.name == "axis"), 0)
                    found.append(algebra.size_of(self.solution.axes[node.input[0]][axis]))
                elif name in node.input and node.op_type in ("Cast", "Identity", "Reshape"):
                    waiting += [part for part in node.output if part not in seen]
                    seen.update(node.output)
        return max(1, min(found)) if found else 2

    # -- nodes -------------------------------------------------------------------------------------

    def _node(self, place: int, node: onnx.NodeProto) -> dict[str, Any]:
        inputs = list(node.input)
        values: dict[str, Any] = {}
        for item in self.solution.rewrites.get(place, ()):
            numbers = [self._polynomial(axis) for axis in item.values]
            is_fixed = not any(isinstance(number, dict) for number in numbers)
            if is_fixed and (item.slot is None or self._is_static(inputs, item.slot)):
                continue
            if item.slot is not None:
                inputs += [""] * (item.slot + 1 - len(inputs))
                inputs[item.slot] = self._list(numbers)
            elif item.attribute in ("group", "hidden_size"):
                values[item.attribute] = numbers[0]
            elif item.attribute is not None:
                values[item.attribute] = numbers
        if node.op_type == "Split" and len(inputs) > 1 and inputs[1]:
            values["num_outputs"] = None
        return {
            "op": node.op_type,
            "domain": node.domain,
            "name": node.name,
            "inputs": inputs,
            "outputs": list(node.output),
            "attributes": self._attributes(node, values),
            "layer": self.space.of_nodes[place],
        }

    def _is_static(self, inputs: list[str], slot: int) -> bool:
        """Return whether an input with integers is a constant as it is."""
        return slot < len(inputs) and (
            inputs[slot] in self.tensors.constants or inputs[slot] in self.folded
        )

    def _list(self, numbers: list[Polynomial]) -> str:
        key = tuple(map(str, numbers))
        if key not in self.lists:
            name = self.lists[key] = f"joulemap_sizes_{len(self.lists)}"
            self.initializers[name] = {
                "name": name,
                "dtype": "int64",
                "dims": [len(numbers)],
                "data": {"kind": "ints", "values": numbers},
            }
        return self.lists[key]

    def _attributes(self, node: onnx.NodeProto, values: Mapping[str, Any]) -> list[dict[str, Any]]:
        from onnx import helper, numpy_helper

        found = []
        for item in node.attribute:
            where = f"attribute '{item.name}' of {node.op_type} '{node.name[:60]}'"
            if item.type not in ATTRIBUTE_KINDS or item.ref_attr_name:
                raise InputError(f"{where} is of a kind that templates cannot hold")
            kind = ATTRIBUTE_KINDS[item.type]
            value: Any = helper.get_attribute_value(item)
            if item.name in values:
                value = values[item.name]
                if value is None:
                    continue
            elif kind == "string":
                value = value.decode()
            elif kind == "strings":
                value = [text.decode() for text in value]
            elif kind in ("ints", "floats"):
                value = list(value)
            elif kind == "tensor":
                array = numpy_helper.to_array(item.t)
                if array.dtype.name not in DTYPES.values():
                    raise InputError(f"{where} has a number format that templates lack")
                value = {
                    "dtype": array.dtype.name,
                    "dims": list(array.shape),
                    "base64": base64_of(array),
                }
            found.append({"name": item.name, "type": kind, "value": value})
        present = {item["name"] for item in found}
        for name, value in values.items():
            if value is not None and name not in present:
                kind = "ints" if isinstance(value, list) else "int"
                found.append({"name": name, "type": kind, "value": value})
        return found

    # -- constants ---------------------------------------------------------------------------------

    def _initializer(self, name: str) -> dict[str, Any]:
        content = self._value(name)
        dims = content["dims"]
        is_free = any(isinstance(dim, dict) for dim in dims)
        if content["dtype"].startswith("float"):
            rule = self.rules.rule(name, len(dims))
            if rule is not None and self._is_weight(name, is_free):
                return {**content, "data": rule}
            if is_free or name not in self.tensors.values or math.prod(dims) > MAX_RAW:
                data = {"kind": "positive", "scale": 1.0, "fan_in": [], "fan_in_divisor": []}
                return {**content, "data": data}
        if is_free or name not in self.tensors.values:
            raise InputError(
                f"'{name[:60]}' of {self.spec.name} holds integers in a size that depends on the "
                "widths"
            )
        return {
            **content,
            "data": {"kind": "raw", "base64": base64_of(self.tensors.values[name])},
        }

    def _is_weight(self, name: str, is_free: bool) -> bool:
        """Return whether a constant is weights, whose values say nothing about cost."""
        if is_free or name not in self.tensors.values:
            return True
        node, slot = self.rules.slots[name]
        return node.op_type in (*MULTIPLIERS, *NORMS) or (
            node.op_type == "Gather" and slot == 0 and self.tensors.values[name].size > 1
        )


def _terms(axis: Axis, places: Mapping[Extent, int]) -> dict[tuple[int, ...], int]:
    """Return the polynomial of an axis: coefficient by the sorted places of its widths."""
    total: dict[tuple[int, ...], int] = {}
    for block in axis:
        product: dict[tuple[int, ...], int] = {(): 1}
        for factor in block:
            if isinstance(factor, int):
                other: dict[tuple[int, ...], int] = {(): factor}
            elif factor.binding is not None:
                other = _terms(factor.binding, places)
            elif factor in places:
                other = {(places[factor],): 1}
            else:
                other = {(): factor.size}
            product = _product(product, other)
        for monomial, coefficient in product.items():
            total[monomial] = total.get(monomial, 0) + coefficient
    return total


def _product(
    left: Mapping[tuple[int, ...], int], right: Mapping[tuple[int, ...], int]
) -> dict[tuple[int, ...], int]:
    found: dict[tuple[int, ...], int] = {}
    for one, coefficient in left.items():
        for other, factor in right.items():
            monomial = tuple(sorted((*one, *other)))
            found[monomial] = found.get(monomial, 0) + coefficient * factor
    return found

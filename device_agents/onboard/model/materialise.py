"""Turns a template and a width vector into the bytes of an ONNX model, on the device itself.

A template (see `joulemap.profiler.templates.export`) is a network's exported graph with every size that
depends on widths written as a polynomial. Filling it in takes milliseconds, where an export takes
seconds and needs torch::

    template (JSON, once) ──┐
    widths (a few bytes)  ──┴─► nodes ─ shapes ─ random weights ─► bytes for the runtime

A polynomial is an int, or `{"terms": [[coefficient, [width index, ...]], ...], "divide": int}`.
"""

from __future__ import annotations

import json
import math
import struct
from base64 import b64decode
from collections.abc import Sequence
from io import BytesIO
from typing import Any

from .onnx_messages import (
    GRAPH_INITIALIZER,
    GRAPH_INPUT,
    GRAPH_NAME,
    GRAPH_NODE,
    GRAPH_OUTPUT,
    ITEM_BYTES,
    MODEL_GRAPH,
    MODEL_IR_VERSION,
    MODEL_OPSET,
    MODEL_PRODUCER,
    attribute,
    int64_bytes,
    node_head,
    opset_import,
    tensor_header,
    tensor_name,
    value_info,
)
from .protobuf import MAX_MESSAGE_BYTES, bytes_field, int_field, length_prefix, string_field

TEMPLATE_SCHEMA_VERSION = 2
# 1: first version (2026-11).

# All weights are cut from one buffer of this many values. It is prime, so that the rows of a
# tensor longer than the buffer differ.
BUFFER_LENGTH = 262_139
# Where the n-th tensor starts in the buffer: n times this, modulo the length.
OFFSET_STEP = 104_729
# Weights are scaled this many at a time, which stays in the cache.
CHUNK = 65_536


class Materialiser:
    """Writes the ONNX model of any width vector of one template.

    The weights are random, of fixed seed: equal widths give equal bytes. Their magnitudes keep the
    activations of every layer finite, different and neither huge nor denormal, since some
    processors take longer for such values.

    Args:
        template: The template as JSON, or as the dictionary that the JSON holds.

    Attributes:
        width_names: The widths that `materialise` takes, in order.
        input_names: The model's inputs.
        input_shapes: Shape of each input, the batch first.
        input_dtypes: Name of the numpy dtype of each input.
        output_names: The model's outputs.

    Raises:
        ValueError: The template is damaged or of another version.
    """

    def __init__(self, template: str | bytes | dict[str, Any]) -> None:
        try:
            content = template if isinstance(template, dict) else json.loads(template)
            version = content["schema_version"]
            if version != TEMPLATE_SCHEMA_VERSION:
                raise ValueError(
                    f"it has schema version {version!r}, this agent reads {TEMPLATE_SCHEMA_VERSION}"
                )
            self._read(content)
        except (ValueError, OverflowError, RecursionError) as error:
            raise ValueError(f"the template cannot be used: {error}") from error
        except (KeyError, TypeError, AttributeError, IndexError, struct.error) as error:
            raise ValueError(
                f"the template cannot be used: it is damaged ({type(error).__name__}: {error})"
            ) from error

    def materialise(self, widths: Sequence[int]) -> bytes:
        """Return the serialised ONNX model at the given widths.

        Args:
            widths: k ints in channels, in the order of `width_names`.

        Raises:
            ValueError: Wrong count, no ints, out of bounds, or a model of 2 GiB or more.
        """
        sizes = self._polynomials.at(self._check(widths))
        nodes = [node.encoded(sizes) for node in self._nodes]
        tensors = [tensor.sized(sizes) for tensor in self._tensors]
        prefixes = [
            length_prefix(GRAPH_INITIALIZER, len(header) + num_bytes) + header
            for header, num_bytes, _ in tensors
        ]
        ends = b"".join(
            bytes_field(field, value_info(name, dtype, sizes.all(dims)))
            for field, name, dtype, dims in self._ends
        )
        num_graph_bytes = len(self._graph_name) + len(ends) + sum(map(len, nodes))
        num_graph_bytes += sum(map(len, prefixes)) + sum(size for _, size, _ in tensors)
        head = self._head + length_prefix(MODEL_GRAPH, min(num_graph_bytes, MAX_MESSAGE_BYTES))
        if len(head) + num_graph_bytes > MAX_MESSAGE_BYTES:
            raise ValueError(
                f"the model at widths {list(widths)} has {num_graph_bytes} bytes; ONNX models are "
                f"smaller than {MAX_MESSAGE_BYTES + 1} bytes"
            )
        # Of the final length from the start: it is written in place and never copied.
        model = BytesIO(bytes(len(head) + num_graph_bytes))
        model.write(head)
        model.write(b"".join(nodes))
        model.write(self._graph_name)
        for prefix, (_, num_bytes, values) in zip(prefixes, tensors):
            model.write(prefix)
            if isinstance(values, bytes):
                model.write(values)
            else:
                values.write(model, num_bytes)
        model.write(ends)
        return model.getvalue()

    def make_inputs(self, seed: int = 0) -> dict[str, Any]:
        """Return a numpy array per input: standard normal, or uniform indices for integer inputs.

        Args:
            seed: Equal seeds give equal arrays.
        """
        import numpy as np

        draw = np.random.RandomState(seed)
        arrays: dict[str, Any] = {}
        for name in self.input_names:
            shape, dtype = self.input_shapes[name], self.input_dtypes[name]
            high = self._input_limits[name]
            if high is None:
                arrays[name] = draw.standard_normal(shape).astype(dtype)
            else:
                arrays[name] = draw.randint(0, high, shape).astype(dtype)
        return arrays

    def _read(self, content: dict[str, Any]) -> None:
        self._bounds = [
            (str(width["name"]), _int(width["min"]), _int(width["max"]), _int(width["multiple"]))
            for width in content["widths"]
        ]
        self.width_names = tuple(name for name, *_ in self._bounds)
        if any(low < 1 or low > high or step < 1 for _, low, high, step in self._bounds):
            raise ValueError("its width bounds are not positive and in order")
        self._polynomials = polynomials = _Polynomials(len(self._bounds))

        self._head = (
            int_field(MODEL_IR_VERSION, _int(content["ir_version"]))
            + string_field(MODEL_PRODUCER, "joulemap")
            + b"".join(
                bytes_field(MODEL_OPSET, opset_import(domain, _int(version)))
                for domain, version in content["opsets"]
            )
        )
        self._graph_name = string_field(GRAPH_NAME, content["graph"])
        self._ends = [
            (field, item["name"], item["dtype"], [polynomials.index(dim) for dim in item["dims"]])
            for field, key in ((GRAPH_INPUT, "inputs"), (GRAPH_OUTPUT, "outputs"))
            for item in content[key]
        ]
        self.input_names = tuple(item["name"] for item in content["inputs"])
        self.input_shapes = {
            item["name"]: tuple(_int(dim) for dim in item["dims"]) for item in content["inputs"]
        }
        self.input_dtypes = {item["name"]: str(item["dtype"]) for item in content["inputs"]}
        self._input_limits = {
            item["name"]: None if item["high"] is None else _int(item["high"])
            for item in content["inputs"]
        }
        self.output_names = tuple(item["name"] for item in content["outputs"])
        self._nodes = [_Node(node, polynomials) for node in content["nodes"]]
        buffer = _WeightBuffer()
        self._tensors = [
            _Tensor(item, polynomials, buffer, position)
            for position, item in enumerate(content["initializers"])
        ]
        for field, name, dtype, _ in self._ends:
            if dtype not in ITEM_BYTES or not isinstance(name, str):
                raise ValueError(f"field {field} holds {name!r} of dtype {dtype!r}")

    def _check(self, widths: Sequence[int]) -> list[int]:
        if len(widths) != len(self._bounds):
            raise ValueError(
                f"there are {len(self._bounds)} widths ({', '.join(self.width_names)}), but "
                f"{len(widths)} were given"
            )
        checked = []
        for value, (name, low, high, multiple) in zip(widths, self._bounds):
            if isinstance(value, bool) or not hasattr(value, "__index__"):
                raise ValueError(f"width '{name}' is {value!r}, not an int")
            integer = value.__index__()
            if not low <= integer <= high or integer % multiple:
                steps = f" in multiples of {multiple}" if multiple > 1 else ""
                raise ValueError(f"width '{name}' is {integer}, outside {low}..{high}{steps}")
            checked.append(integer)
        return checked


class _Sizes(list[int]):
    """Values of a template's polynomials at one width vector, by index."""

    def all(self, indices: Sequence[int]) -> list[int]:
        return [self[index] for index in indices]


class _Polynomials:
    """The distinct polynomials of a template; each is evaluated once per width vector."""

    def __init__(self, num_widths: int) -> None:
        self.num_widths = num_widths
        self.known: dict[str, int] = {}
        self.terms: list[tuple[list[tuple[int, list[int]]], int]] = []

    def index(self, polynomial: Any) -> int:
        """Return where `at` puts the value of the polynomial."""
        key = json.dumps(polynomial)
        if key not in self.known:
            self.known[key] = len(self.terms)
            self.terms.append(self._parse(polynomial))
        return self.known[key]

    def is_constant(self, index: int) -> bool:
        return all(not factors for _, factors in self.terms[index][0])

    def at(self, widths: Sequence[int]) -> _Sizes:
        """Return the values of all polynomials at the widths.

        Raises:
            ValueError: A division leaves a remainder.
        """
        values = _Sizes()
        for terms, divisor in self.terms:
            total = 0
            for coefficient, factors in terms:
                for factor in factors:
                    coefficient *= widths[factor]
                total += coefficient
            if divisor != 1:
                total, remainder = divmod(total, divisor)
                if remainder:
                    raise ValueError(f"{terms} is no multiple of {divisor} at {list(widths)}")
            values.append(total)
        return values

    def _parse(self, polynomial: Any) -> tuple[list[tuple[int, list[int]]], int]:
        if isinstance(polynomial, int):
            return [(_int(polynomial), [])], 1
        terms = [
            (_int(coefficient), [_int(factor) for factor in factors])
            for coefficient, factors in polynomial["terms"]
        ]
        divisor = _int(polynomial["divide"])
        used = [factor for _, factors in terms for factor in factors]
        if divisor < 1 or any(not 0 <= factor < self.num_widths for factor in used):
            raise ValueError(f"{polynomial} is no polynomial in its {self.num_widths} widths")
        if len(used) > 1000:
            raise ValueError("a polynomial has more than 1000 factors")
        return terms, divisor


class _Node:
    """One node; all but the attributes that depend on widths is encoded once."""

    def __init__(self, node: dict[str, Any], polynomials: _Polynomials) -> None:
        self.head = node_head(
            node["op"], node["domain"], node["name"], node["inputs"], node["outputs"]
        )
        self.attributes: list[tuple[str, str, list[int]]] = []
        for item in node["attributes"]:
            name, kind, value = item["name"], item["type"], item["value"]
            if kind in ("int", "ints"):
                indices = [
                    polynomials.index(part) for part in (value if kind == "ints" else [value])
                ]
                if not all(polynomials.is_constant(index) for index in indices):
                    self.attributes.append((name, kind, indices))
                    continue
            elif kind == "tensor":
                value = _literal_tensor(value)
            self.head += bytes_field(5, attribute(name, kind, value))
        self.whole = bytes_field(GRAPH_NODE, self.head)

    def encoded(self, sizes: _Sizes) -> bytes:
        """Return the node as a field of the graph."""
        if not self.attributes:
            return self.whole
        body = self.head
        for name, kind, indices in self.attributes:
            values = sizes.all(indices)
            value = values if kind == "ints" else values[0]
            body += bytes_field(5, attribute(name, kind, value))
        return bytes_field(GRAPH_NODE, body)


class _WeightBuffer:
    """The random values that every weight is cut from, made when first needed."""

    def __init__(self) -> None:
        self.values: Any = None
        self.scratch: dict[str, Any] = {}

    def prepare(self) -> None:
        if self.values is None:
            import numpy as np

            draw = np.random.RandomState(20260718)
            magnitudes = 0.5 + draw.random_sample(BUFFER_LENGTH)
            signs = np.where(draw.random_sample(BUFFER_LENGTH) < 0.5, -1.0, 1.0)
            # Divided by their standard deviation: E[m^2] of a uniform m in [0.5, 1.5] is 13/12.
            self.values = (magnitudes * signs / math.sqrt(13 / 12)).astype("<f4")

    def chunk(self, dtype: str) -> Any:
        if dtype not in self.scratch:
            import numpy as np

            self.scratch[dtype] = np.empty(CHUNK, dtype=np.dtype(dtype).newbyteorder("<"))
        return self.scratch[dtype]


class _Weights:
    """The random values of one tensor at one width vector."""

    __slots__ = ("buffer", "dtype", "offset", "positive", "scale")

    def __init__(
        self, buffer: _WeightBuffer, dtype: str, offset: int, scale: float, positive: bool
    ) -> None:
        self.buffer = buffer
        self.dtype = dtype
        self.offset = offset
        self.scale = scale
        self.positive = positive

    def write(self, model: BytesIO, num_bytes: int) -> None:
        """Write the values as raw data."""
        import numpy as np

        values, scratch = self.buffer.values, self.buffer.chunk(self.dtype)
        remaining = num_bytes // ITEM_BYTES[self.dtype]
        position = self.offset
        while remaining:
            count = min(remaining, CHUNK, BUFFER_LENGTH - position)
            part = scratch[:count]
            np.multiply(
                values[position : position + count], self.scale, out=part, casting="same_kind"
            )
            if self.positive:
                np.absolute(part, out=part)
            model.write(part)
            remaining -= count
            position = (position + count) % BUFFER_LENGTH


class _Tensor:
    """One initializer: literal values, integers that depend on widths, or random weights."""

    def __init__(
        self,
        item: dict[str, Any],
        polynomials: _Polynomials,
        buffer: _WeightBuffer,
        position: int,
    ) -> None:
        self.name = str(item["name"])
        self.dtype = str(item["dtype"])
        if self.dtype not in ITEM_BYTES:
            raise ValueError(f"tensor '{self.name}' is of the unknown dtype '{self.dtype}'")
        self.named = tensor_name(self.name, self.dtype)
        self.dims = [polynomials.index(dim) for dim in item["dims"]]
        self.raw: bytes | None = None
        self.values: list[int] | None = None
        self.buffer = buffer
        self.offset = position * OFFSET_STEP % BUFFER_LENGTH
        data = item["data"]
        kind = data["kind"]
        self.positive = kind == "positive"
        if kind == "raw":
            self.raw = b64decode(data["base64"], validate=True)
        elif kind == "ints":
            if self.dtype != "int64":
                raise ValueError(f"tensor '{self.name}' of {self.dtype} holds 64-bit integers")
            self.values = [polynomials.index(value) for value in data["values"]]
        elif kind in ("normal", "positive"):
            if not self.dtype.startswith("float"):
                raise ValueError(f"tensor '{self.name}' of {self.dtype} cannot hold weights")
            self.scale = float(data["scale"])
            self.fan_in = [self.dims[_int(axis)] for axis in data["fan_in"]]
            self.fan_in_divisor = [polynomials.index(value) for value in data["fan_in_divisor"]]
            if not (math.isfinite(self.scale) and self.scale > 0):
                raise ValueError(f"tensor '{self.name}' has the scale {self.scale}")
            buffer.prepare()
        else:
            raise ValueError(f"tensor '{self.name}' holds data of the unknown kind '{kind}'")

    def sized(self, sizes: _Sizes) -> tuple[bytes, int, bytes | _Weights]:
        """Return the header, the number of raw bytes and what writes them.

        Raises:
            ValueError: A dimension is negative, or data does not fill the shape.
        """
        dims = sizes.all(self.dims)
        num_elements = 1
        for dim in dims:
            if dim < 0:
                raise ValueError(f"tensor '{self.name}' has the shape {dims}")
            num_elements *= dim
        num_bytes = num_elements * ITEM_BYTES[self.dtype]
        values: bytes | _Weights
        if self.raw is not None:
            values = self.raw
        elif self.values is not None:
            values = int64_bytes(sizes.all(self.values))
        else:
            fan_in = math.prod(sizes.all(self.fan_in))
            divisor = math.prod(sizes.all(self.fan_in_divisor))
            scale = self.scale / math.sqrt(max(fan_in, 1) / max(divisor, 1))
            values = _Weights(self.buffer, self.dtype, self.offset, scale, self.positive)
        if isinstance(values, bytes) and len(values) != num_bytes:
            raise ValueError(
                f"tensor '{self.name}' of shape {dims} needs {num_bytes} bytes, not {len(values)}"
            )
        if num_bytes > MAX_MESSAGE_BYTES:
            raise ValueError(
                f"tensor '{self.name}' of shape {dims} has {num_bytes} bytes; an ONNX model holds "
                f"at most {MAX_MESSAGE_BYTES}"
            )
        return tensor_header(self.named, dims, num_bytes), num_bytes, values


def _literal_tensor(item: dict[str, Any]) -> bytes:
    raw = b64decode(item["base64"], validate=True)
    dims = [_int(dim) for dim in item["dims"]]
    named = tensor_name("", item["dtype"])
    if math.prod(dims) * ITEM_BYTES[item["dtype"]] != len(raw):
        raise ValueError(f"a constant of shape {dims} has {len(raw)} bytes")
    return tensor_header(named, dims, len(raw)) + raw


def _int(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{value!r} stands where an integer belongs")
    return value

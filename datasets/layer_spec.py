"""One layer of a network as data, and the same layer with its sizes resolved to numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from math import prod
from typing import Any, Literal, TypeAlias, get_args

from joulemap import InputError

from .size import Size, SizeLike

Kind: TypeAlias = Literal[
    "conv",
    "conv_transpose",
    "linear",
    "matmul",
    "norm",
    "activation",
    "add",
    "concat",
    "pool",
    "recurrent",
    "embedding",
    "multiply",
    "elementwise",
    "reduce",
    "resize",
    "rearrange",
]
KINDS: tuple[str, ...] = get_args(Kind)

# A gated recurrent unit: reset, update and candidate.
RECURRENT_GATES = 3
BYTES_PER_ELEMENT = 4

_NEW_FIELDS = ("gates", "directions", "parameters", "extra_parameters")

Pair: TypeAlias = tuple[int, int]


@dataclass(frozen=True)
class ResolvedLayer:
    """A layer whose sizes are numbers: ints at one width vector, or arrays over many.

    Attributes:
        in_channels: Input channels (features); the sum over inputs for a `concat`.
        out_channels: Output channels (features).
        groups: Convolution groups.
        batch: Samples per call.
        num_inputs: How many tensors of `in_channels` an `add` reads; 1 elsewhere.
        gates: Of a `recurrent` layer.
        directions: Of a `recurrent` layer; `out_channels` holds the features of all of them.
        parameters: Trainable parameters where the kind does not tell them; None where it does.
        extra_parameters: Trainable parameters beside those.
    """

    name: str
    kind: str
    in_channels: Any
    out_channels: Any
    groups: Any
    kernel_size: Pair
    stride: Pair
    padding: Pair
    dilation: Pair
    in_size: Pair
    out_size: Pair
    positions: int
    bias: bool
    batch: int
    num_inputs: int
    gates: int = RECURRENT_GATES
    directions: int = 1
    parameters: Any = None
    extra_parameters: Any = 0

    @property
    def macs(self) -> Any:
        """Multiply-accumulates of one call of the batch; 0 for layers without weights."""
        channels = self.in_channels * self.out_channels
        if self.kind == "conv":
            return self._per_group(channels) * (
                self.batch * prod(self.kernel_size) * prod(self.out_size)
            )
        if self.kind == "conv_transpose":
            return self._per_group(channels) * (
                self.batch * prod(self.kernel_size) * prod(self.in_size)
            )
        if self.kind in ("linear", "matmul"):
            return self._per_group(channels) * (self.batch * self.positions)
        if self.kind == "recurrent":
            return self._recurrent_weights() * (self.batch * self.positions)
        return 0

    @property
    def params(self) -> Any:
        """Trainable parameters."""
        own = self._parameters_of_kind() if self.parameters is None else self.parameters
        return own + self.extra_parameters

    def _parameters_of_kind(self) -> Any:
        channels = self.in_channels * self.out_channels
        if self.kind in ("conv", "conv_transpose"):
            weights = self._per_group(channels) * prod(self.kernel_size)
            return weights + (self.out_channels if self.bias else 0)
        if self.kind == "linear":
            return self._per_group(channels) + (self.out_channels if self.bias else 0)
        if self.kind == "norm":
            return self.out_channels * (2 if self.bias else 1)
        if self.kind == "recurrent":
            biases = 2 * self.gates * self.out_channels if self.bias else 0
            return self._recurrent_weights() + biases
        if self.kind == "embedding":
            return channels
        return 0

    @property
    def input_elements(self) -> Any:
        """Elements read from the layer's inputs by one call of the batch."""
        per_channel = self.batch * self.positions * prod(self.in_size) * self.num_inputs
        return self.in_channels * per_channel

    @property
    def output_elements(self) -> Any:
        """Elements written by one call of the batch."""
        return self.out_channels * (self.batch * self.positions * prod(self.out_size))

    @property
    def bytes(self) -> Any:
        """Bytes of weights, inputs and outputs in fp32, each counted once."""
        elements = self.params + self.input_elements + self.output_elements
        return elements * BYTES_PER_ELEMENT

    def _recurrent_weights(self) -> Any:
        hidden = self.out_channels * self.out_channels
        hidden = hidden // self.directions if isinstance(hidden, int) else hidden / self.directions
        return (self.in_channels * self.out_channels + hidden) * self.gates

    def _per_group(self, channels: Any) -> Any:
        # Exact in integers: groups divides the channels, which `LayerSpec.at` has checked.
        if isinstance(channels, int) and isinstance(self.groups, int):
            return channels // self.groups
        return channels / self.groups


@dataclass(frozen=True)
class LayerSpec:
    """One layer: its kind, its sizes as polynomials in the widths, its geometry.

    Args:
        name: The name of the torch module that it describes.
        kind: One of `KINDS`. `multiply` takes two feature maps, `elementwise` is any other function
            of values one by one, `reduce` sums or averages, `rearrange` only moves values.
        in_channels: Input channels or features; for an `embedding` the vocabulary.
        out_channels: Output channels or features.
        inputs: Names of the layers it reads; '' is the network's input; () the layer before.
        kernel_size: Height and width; an int means both. Likewise the following.
        stride: Step of the kernel.
        padding: Zeros on each side.
        dilation: Distance between the kernel's taps.
        output_padding: Extra rows and columns of a `conv_transpose`.
        groups: Convolution groups; depthwise is groups = in_channels = out_channels. Of a `matmul` or
            `linear`, independent products side by side, such as the heads of attention.
        in_size: Height and width of the input. Signals have height 1; of a volume, depth and height
            are one number, here and in the kernel.
        out_size: Height and width of the output.
        positions: Vectors per sample that a `linear`, `matmul` or `recurrent` layer works on.
        bias: Whether there is an additive parameter per output channel.
        gates: Of a `recurrent` layer: 3 of a GRU, 4 of an LSTM, 1 of a plain one.
        directions: Of a `recurrent` layer; `out_channels` holds the features of all of them.
        parameters: Trainable parameters where the kind does not tell them, such as 0 for the second
            call of a module.
        extra_parameters: Parameters beside those of the kind, such as the gain of scaled weights.

    Raises:
        InputError: Unknown kind, or a value that is not of its type.
    """

    name: str
    kind: Kind
    in_channels: Size
    out_channels: Size
    inputs: tuple[str, ...] = field(default=(), kw_only=True)
    kernel_size: Pair = field(default=(1, 1), kw_only=True)
    stride: Pair = field(default=(1, 1), kw_only=True)
    padding: Pair = field(default=(0, 0), kw_only=True)
    dilation: Pair = field(default=(1, 1), kw_only=True)
    output_padding: Pair = field(default=(0, 0), kw_only=True)
    groups: Size = field(default=Size(1), kw_only=True)
    in_size: Pair = field(default=(1, 1), kw_only=True)
    out_size: Pair = field(default=(1, 1), kw_only=True)
    positions: int = field(default=1, kw_only=True)
    bias: bool = field(default=True, kw_only=True)
    gates: int = field(default=RECURRENT_GATES, kw_only=True)
    directions: int = field(default=1, kw_only=True)
    parameters: Size | None = field(default=None, kw_only=True)
    extra_parameters: Size = field(default=Size(0), kw_only=True)

    def __init__(
        self,
        name: str,
        kind: Kind,
        in_channels: SizeLike,
        out_channels: SizeLike,
        *,
        inputs: Sequence[str] = (),
        kernel_size: int | Sequence[int] = (1, 1),
        stride: int | Sequence[int] = (1, 1),
        padding: int | Sequence[int] = (0, 0),
        dilation: int | Sequence[int] = (1, 1),
        output_padding: int | Sequence[int] = (0, 0),
        groups: SizeLike = 1,
        in_size: int | Sequence[int] = (1, 1),
        out_size: int | Sequence[int] = (1, 1),
        positions: int = 1,
        bias: bool = True,
        gates: int = RECURRENT_GATES,
        directions: int = 1,
        parameters: SizeLike | None = None,
        extra_parameters: SizeLike = 0,
    ) -> None:
        if not isinstance(name, str) or not name:
            raise InputError(f"a layer's name is a text, not {name!r}")
        if kind not in KINDS:
            raise InputError(f"layer '{name}' has kind {kind!r}; known: {', '.join(KINDS)}")
        if isinstance(inputs, str) or not all(isinstance(item, str) for item in inputs):
            raise InputError(f"inputs of layer '{name}' is a sequence of layer names")
        if not isinstance(bias, bool):
            raise InputError(f"bias of layer '{name}' is true or false, not {bias!r}")
        for label, count in (
            ("positions", positions),
            ("gates", gates),
            ("directions", directions),
        ):
            if isinstance(count, bool) or not isinstance(count, int) or count < 1:
                raise InputError(f"{label} of layer '{name}' is {count!r}, not an int >= 1")
        values = {
            "name": name,
            "kind": kind,
            "in_channels": Size(in_channels),
            "out_channels": Size(out_channels),
            "inputs": tuple(inputs),
            "kernel_size": _pair(name, "kernel_size", kernel_size, 1),
            "stride": _pair(name, "stride", stride, 1),
            "padding": _pair(name, "padding", padding, 0),
            "dilation": _pair(name, "dilation", dilation, 1),
            "output_padding": _pair(name, "output_padding", output_padding, 0),
            "groups": Size(groups),
            "in_size": _pair(name, "in_size", in_size, 1),
            "out_size": _pair(name, "out_size", out_size, 1),
            "positions": positions,
            "bias": bias,
            "gates": gates,
            "directions": directions,
            "parameters": None if parameters is None else Size(parameters),
            "extra_parameters": Size(extra_parameters),
        }
        for key, value in values.items():
            object.__setattr__(self, key, value)

    def at(self, widths: Mapping[str, Any], batch: int = 1) -> ResolvedLayer:
        """Return the layer with its sizes at the given widths.

        Args:
            widths: Width name to a value in channels: ints, or arrays and tensors of one
                `batch_shape`.
            batch: Samples per call.

        Raises:
            InputError: A size is below 1, or groups do not divide the channels (ints only).
        """
        sizes = {
            "in_channels": self.in_channels.at(widths),
            "out_channels": self.out_channels.at(widths),
            "groups": self.groups.at(widths),
        }
        if all(isinstance(value, int) for value in sizes.values()):
            for label, value in sizes.items():
                if value < 1:
                    raise InputError(f"{label} of layer '{self.name}' is {value} at {dict(widths)}")
            if sizes["in_channels"] % sizes["groups"] or sizes["out_channels"] % sizes["groups"]:
                raise InputError(
                    f"groups of layer '{self.name}' is {sizes['groups']}, which does not divide "
                    f"{sizes['in_channels']} input and {sizes['out_channels']} output channels"
                )
        return ResolvedLayer(
            name=self.name,
            kind=self.kind,
            **sizes,
            kernel_size=self.kernel_size,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            in_size=self.in_size,
            out_size=self.out_size,
            positions=self.positions,
            bias=self.bias,
            batch=batch,
            num_inputs=max(1, len(self.inputs)) if self.kind == "add" else 1,
            gates=self.gates,
            directions=self.directions,
            parameters=None if self.parameters is None else self.parameters.at(widths),
            extra_parameters=self.extra_parameters.at(widths),
        )

    def check_inputs(self, producers: Sequence[LayerSpec]) -> None:
        """Check the layer's sizes against the layers that it names as inputs.

        Raises:
            InputError: Unequal sizes into an `add`, or channels that do not fit the producers.
        """
        if self.kind == "add":
            for producer in producers:
                if (producer.out_channels, producer.out_size) != (self.out_channels, self.in_size):
                    raise InputError(
                        f"add '{self.name}' of {self.out_channels} channels {self.in_size} reads "
                        f"'{producer.name}' of {producer.out_channels} channels "
                        f"{producer.out_size}; the inputs of an add are equal"
                    )
        elif self.kind in ("concat", "conv", "conv_transpose", "norm", "activation", "pool"):
            total = sum((producer.out_channels for producer in producers), Size(0))
            if len(producers) == len(self.inputs) > 0 and total != self.in_channels:
                names = ", ".join(self.inputs)
                raise InputError(
                    f"{self.kind} '{self.name}' has {self.in_channels} input channels, but "
                    f"{names} give {total}"
                )

    def to_dict(self) -> dict[str, Any]:
        """Return the layer as a dictionary for JSON, sizes as texts."""
        content: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            # Left out where they say nothing: specs keep the fingerprint that they had before.
            if item.name in _NEW_FIELDS and value == item.default:
                continue
            if isinstance(value, Size):
                value = str(value)
            elif isinstance(value, tuple):
                value = list(value)
            content[item.name] = value
        return content

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> LayerSpec:
        """Return the layer that `to_dict` wrote.

        Raises:
            InputError: Unknown or missing fields, or invalid values.
        """
        try:
            return cls(**content)
        except TypeError as error:
            raise InputError(f"a layer of the network spec cannot be read: {error}") from error


def _pair(layer: str, label: str, value: int | Sequence[int], least: int) -> Pair:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or any(
        isinstance(item, bool) or not isinstance(item, int) or item < least for item in pair
    ):
        raise InputError(f"{label} of layer '{layer}' is {value!r}, not one or two ints >= {least}")
    return (pair[0], pair[1])

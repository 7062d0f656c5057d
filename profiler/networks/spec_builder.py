"""Writes a NetworkSpec layer by layer, keeping track of channels, height and width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, TypeAlias

from joulemap import InputError

from ...datasets import LayerSpec, NetworkSpec, Size, Width
from ...datasets.layer_spec import Pair
from ...datasets.size import SizeLike

PairLike: TypeAlias = int | Sequence[int]
Inputs: TypeAlias = str | None


@dataclass(frozen=True)
class _Tensor:
    """What a layer writes: channels, height and width, or vectors at `positions`."""

    channels: Size
    size: Pair = (1, 1)
    positions: int = 1


class SpecBuilder:
    """Builds a NetworkSpec from calls in the order of the forward pass.

    Every call adds one layer that reads the layer before it, or the one named by `inputs` ('' is
    the network's input), and returns the layer's name::

        net = SpecBuilder("tiny", (3, 32, 32), [Width("conv1", 16)])
        net.conv("conv1", "conv1", 3, padding=1)
        net.activation("relu1")
        net.flatten()
        net.linear("fc", 10)
        spec = net.spec()

    Args:
        name: What users call the network.
        input_shape: One sample: (channels, height, width), (positions, features) or (features,).
        widths: The width variables.
        source: Where the network comes from; `networks.get` fills it in for registered networks
            and outside factories.
    """

    def __init__(
        self,
        name: str,
        input_shape: Sequence[int],
        widths: Sequence[Width],
        *,
        source: str | None = None,
    ) -> None:
        self.name = name
        self.input_shape = tuple(input_shape)
        self.widths = tuple(widths)
        self.source = source or f"zoo:{name}"
        self._layers: list[LayerSpec] = []
        shape = self.input_shape
        if len(shape) == 3:
            start = _Tensor(Size(shape[0]), (shape[1], shape[2]))
        elif len(shape) == 2:
            start = _Tensor(Size(shape[1]), positions=shape[0])
        elif len(shape) == 1:
            start = _Tensor(Size(shape[0]))
        else:
            raise InputError(
                f"input_shape of '{name}' is {shape}; write (channels, height, width), "
                "(positions, features) or (features,)"
            )
        self._outputs = {"": start}
        self._current = ""

    @property
    def channels(self) -> Size:
        """Channels (features) of what the latest layer writes."""
        return self._outputs[self._current].channels

    @property
    def size(self) -> Pair:
        """Height and width of what the latest layer writes."""
        return self._outputs[self._current].size

    def conv(
        self,
        name: str,
        out_channels: SizeLike,
        kernel_size: PairLike,
        *,
        stride: PairLike = 1,
        padding: PairLike = 0,
        dilation: PairLike = 1,
        groups: SizeLike = 1,
        bias: bool = True,
        inputs: Inputs = None,
    ) -> str:
        """Add a convolution and return its name."""
        source = self._read(inputs)
        kernel, step, pad, gap = map(_pair, (kernel_size, stride, padding, dilation))
        out_size = self._window(name, source.size, kernel, step, pad, gap)
        return self._add(
            LayerSpec(
                name,
                "conv",
                source.channels,
                out_channels,
                kernel_size=kernel,
                stride=step,
                padding=pad,
                dilation=gap,
                groups=groups,
                in_size=source.size,
                out_size=out_size,
                bias=bias,
                **_reads(inputs),
            )
        )

    def depthwise(
        self,
        name: str,
        kernel_size: PairLike,
        *,
        stride: PairLike = 1,
        padding: PairLike = 0,
        dilation: PairLike = 1,
        bias: bool = True,
        inputs: Inputs = None,
    ) -> str:
        """Add a convolution of each channel by itself and return its name."""
        channels = self._read(inputs).channels
        return self.conv(
            name,
            channels,
            kernel_size,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=channels,
            bias=bias,
            inputs=inputs,
        )

    def conv_transpose(
        self,
        name: str,
        out_channels: SizeLike,
        kernel_size: PairLike,
        *,
        stride: PairLike = 1,
        padding: PairLike = 0,
        output_padding: PairLike = 0,
        dilation: PairLike = 1,
        groups: SizeLike = 1,
        bias: bool = True,
        inputs: Inputs = None,
    ) -> str:
        """Add a transposed convolution and return its name."""
        source = self._read(inputs)
        kernel, step, pad, gap = map(_pair, (kernel_size, stride, padding, dilation))
        extra = _pair(output_padding)
        height, width = (
            (source.size[axis] - 1) * step[axis]
            - 2 * pad[axis]
            + gap[axis] * (kernel[axis] - 1)
            + extra[axis]
            + 1
            for axis in (0, 1)
        )
        return self._add(
            LayerSpec(
                name,
                "conv_transpose",
                source.channels,
                out_channels,
                kernel_size=kernel,
                stride=step,
                padding=pad,
                dilation=gap,
                output_padding=extra,
                groups=groups,
                in_size=source.size,
                out_size=(height, width),
                bias=bias,
                **_reads(inputs),
            )
        )

    def linear(
        self, name: str, out_features: SizeLike, *, bias: bool = True, inputs: Inputs = None
    ) -> str:
        """Add a linear layer, applied at every position, and return its name."""
        source = self._read(inputs)
        if source.size != (1, 1):
            raise InputError(
                f"linear '{name}' of {self.name} reads maps of {source.size}; call flatten() first"
            )
        return self._add(
            LayerSpec(
                name,
                "linear",
                source.channels,
                out_features,
                positions=source.positions,
                bias=bias,
                **_reads(inputs),
            )
        )

    def matmul(
        self,
        name: str,
        in_features: SizeLike,
        out_features: SizeLike,
        *,
        positions: int,
        inputs: Sequence[str],
    ) -> str:
        """Add a product of two tensors, as attention has, and return its name.

        Args:
            name: What the layer is called; the forward pass may write it as an expression.
            in_features: Over how many elements each result sums.
            out_features: Results at each of `positions`.
            positions: Vectors per sample that it writes.
            inputs: The two layers that it reads.
        """
        for item in inputs:
            self._read(item)
        return self._add(
            LayerSpec(
                name,
                "matmul",
                in_features,
                out_features,
                positions=positions,
                inputs=inputs,
                bias=False,
            )
        )

    def recurrent(
        self, name: str, out_features: SizeLike, *, bias: bool = True, inputs: Inputs = None
    ) -> str:
        """Add a gated recurrent unit (GRU) over the positions and return its name."""
        source = self._read(inputs)
        return self._add(
            LayerSpec(
                name,
                "recurrent",
                source.channels,
                out_features,
                positions=source.positions,
                bias=bias,
                **_reads(inputs),
            )
        )

    def position_embedding(self, name: str, *, inputs: Inputs = None) -> str:
        """Add the addition of one learned vector per position and return its name."""
        source = self._read(inputs)
        return self._add(
            LayerSpec(
                name,
                "embedding",
                source.positions,
                source.channels,
                positions=source.positions,
                bias=False,
                **_reads(inputs),
            )
        )

    def norm(self, name: str, *, bias: bool = True, inputs: Inputs = None) -> str:
        """Add a normalisation with one scale (and shift) per channel and return its name."""
        source = self._read(inputs)
        return self._add(
            LayerSpec(
                name,
                "norm",
                source.channels,
                source.channels,
                in_size=source.size,
                out_size=source.size,
                positions=source.positions,
                bias=bias,
                **_reads(inputs),
            )
        )

    def activation(self, name: str, *, inputs: Inputs = None) -> str:
        """Add a pointwise function and return its name."""
        source = self._read(inputs)
        return self._add(
            LayerSpec(
                name,
                "activation",
                source.channels,
                source.channels,
                in_size=source.size,
                out_size=source.size,
                positions=source.positions,
                bias=False,
                **_reads(inputs),
            )
        )

    def pool(
        self,
        name: str,
        kernel_size: PairLike | None = None,
        *,
        stride: PairLike | None = None,
        padding: PairLike = 0,
        ceil_mode: bool = False,
        inputs: Inputs = None,
    ) -> str:
        """Add a pooling over windows, over the whole map without `kernel_size`; return its name.

        With `ceil_mode` a last window that is partly outside the map counts, as in torch.
        """
        source = self._read(inputs)
        kernel = source.size if kernel_size is None else _pair(kernel_size)
        step, pad = kernel if stride is None else _pair(stride), _pair(padding)
        out_size = self._window(name, source.size, kernel, step, pad, (1, 1), ceil_mode)
        return self._add(
            LayerSpec(
                name,
                "pool",
                source.channels,
                source.channels,
                kernel_size=kernel,
                stride=step,
                padding=pad,
                in_size=source.size,
                out_size=out_size,
                bias=False,
                **_reads(inputs),
            )
        )

    def add(self, name: str, inputs: Sequence[str]) -> str:
        """Add the elementwise sum of equal tensors, a residual, and return its name."""
        source = self._read(inputs[0])
        return self._add(
            LayerSpec(
                name,
                "add",
                source.channels,
                source.channels,
                inputs=inputs,
                in_size=source.size,
                out_size=source.size,
                positions=source.positions,
                bias=False,
            )
        )

    def concat(self, name: str, inputs: Sequence[str]) -> str:
        """Add the concatenation of tensors over their channels and return its name."""
        sources = [self._read(item) for item in inputs]
        if len({(source.size, source.positions) for source in sources}) != 1:
            sizes = ", ".join(f"'{item}' {self._read(item).size}" for item in inputs)
            raise InputError(f"concat '{name}' of {self.name} reads unequal maps: {sizes}")
        channels = sum((source.channels for source in sources), Size(0))
        return self._add(
            LayerSpec(
                name,
                "concat",
                channels,
                channels,
                inputs=inputs,
                in_size=sources[0].size,
                out_size=sources[0].size,
                positions=sources[0].positions,
                bias=False,
            )
        )

    def flatten(self) -> None:
        """Let the next layer read the maps as one vector; this costs nothing and is no layer."""
        source = self._outputs[self._current]
        elements = source.channels * (source.size[0] * source.size[1] * source.positions)
        self._outputs[self._current] = _Tensor(elements)

    def arrange(self, *, size: PairLike = 1, positions: int = 1) -> None:
        """Let the next layer read the same vectors as maps or at positions; this is no layer.

        Args:
            size: Height and width of the maps.
            positions: Vectors per sample, where there are no maps.

        Raises:
            InputError: There are more or fewer vectors than that.
        """
        source, new_size = self._outputs[self._current], _pair(size)
        found, wanted = source.positions * prod(source.size), positions * prod(new_size)
        if found != wanted:
            raise InputError(
                f"'{self._current}' of {self.name} writes {found} vectors, which cannot be "
                f"arranged as {wanted}"
            )
        self._outputs[self._current] = _Tensor(source.channels, new_size, positions)

    def last_position(self) -> None:
        """Let the next layer read the last position alone; this is no layer."""
        source = self._outputs[self._current]
        self._outputs[self._current] = _Tensor(source.channels, source.size)

    def spec(self) -> NetworkSpec:
        """Return the finished spec.

        Raises:
            InputError: The layers do not fit together.
        """
        return NetworkSpec(
            self.name, self.source, self.input_shape, self.widths, tuple(self._layers)
        )

    def _read(self, inputs: Inputs) -> _Tensor:
        name = self._current if inputs is None else inputs
        if name not in self._outputs:
            raise InputError(f"'{name}' is no earlier layer of {self.name}")
        return self._outputs[name]

    def _add(self, layer: LayerSpec) -> str:
        if layer.name in self._outputs:
            raise InputError(f"{self.name} has two layers named '{layer.name}'")
        self._layers.append(layer)
        self._outputs[layer.name] = _Tensor(layer.out_channels, layer.out_size, layer.positions)
        self._current = layer.name
        return layer.name

    def _window(
        self,
        name: str,
        size: Pair,
        kernel: Pair,
        step: Pair,
        pad: Pair,
        gap: Pair,
        ceil_mode: bool = False,
    ) -> Pair:
        height, width = (
            _num_windows(
                size[axis], gap[axis] * (kernel[axis] - 1) + 1, step[axis], pad[axis], ceil_mode
            )
            for axis in (0, 1)
        )
        if height < 1 or width < 1:
            raise InputError(
                f"'{name}' of {self.name} has a kernel of {kernel} on maps of {size}, which are "
                "too small; use a larger resolution"
            )
        return height, width


def _num_windows(size: int, extent: int, step: int, pad: int, ceil_mode: bool) -> int:
    steps, rest = divmod(size + 2 * pad - extent, step)
    # torch drops a partial window that would start in the padding behind the map.
    if ceil_mode and rest and (steps + 1) * step < size + pad:
        steps += 1
    return steps + 1


def _pair(value: PairLike) -> Pair:
    first, second = (value, value) if isinstance(value, int) else value
    return first, second


def _reads(inputs: Inputs) -> dict[str, Any]:
    return {} if inputs is None else {"inputs": (inputs,)}

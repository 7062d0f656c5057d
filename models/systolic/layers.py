"""A network as the systolic array sees it: for each layer with weights, what it counts.

Of a dense layer the counts are products of few numbers that the widths do not change (how many
windows there are, how often an input is read, ...) and of its channel counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from joulemap import InputError

from ...datasets import LayerSpec, NetworkSpec, Size
from ...datasets.layer_spec import ResolvedLayer
from .energy import ConvGeometry, overlapping
from .hardware import SystolicHardware


@dataclass(frozen=True)
class SystolicLayer:
    """A layer with weights on the array.

    Attributes:
        name: The spec's layer; a recurrent one stands for two, with inputs and with its state.
        in_channels: Input channels c.
        out_channels: Output channels d.
        groups: Groups g of channels.
        area: Inputs per channel.
        positions: Outputs per channel, L.
        num_reads: How often the inputs of a channel are read by an output channel, all together.
        taps: Weights between an input and an output channel.
        row: Inputs of a channel in one row of the map.
        passes: How often weights come from their cache, ceil(L / rows of the array).
        is_linear: Whether inputs that do not fit their cache are read again for each pass over
            the outputs, as a linear layer of one position does.
        shared_rows: By the number of rows that fit into the cache of inputs, how many are read
            twice; -1 where too few fit.
    """

    name: str
    in_channels: Size
    out_channels: Size
    groups: Size
    area: int
    positions: int
    num_reads: int
    taps: int
    row: int
    passes: int
    is_linear: bool
    shared_rows: tuple[int, ...]


def systolic_layers(spec: NetworkSpec, hardware: SystolicHardware) -> list[SystolicLayer]:
    """Return the layers of a network that have weights; the others cost nothing.

    Args:
        spec: The network.
        hardware: The array.
    """
    return [item for layer in spec.layers for item in _items(layer, hardware)]


def dense_chain(names: Sequence[str]) -> list[SystolicLayer]:
    """Return linear layers between one input, hidden layers of the named widths, and one output."""
    sizes = [Size(1), *(Size(name) for name in names), Size(1)]
    return [
        _linear(f"layer{number}", inputs, outputs)
        for number, (inputs, outputs) in enumerate(pairwise(sizes))
    ]


def geometry_of(layer: ResolvedLayer) -> ConvGeometry:
    """Return a convolution's geometry with whole numbers.

    Args:
        layer: A layer of kind conv or conv_transpose.

    Raises:
        InputError: A kernel that is larger than its input.
    """
    channels = layer.in_channels, layer.out_channels
    geometry: Any = (
        *channels,
        layer.in_size,
        layer.kernel_size,
        layer.stride,
        layer.padding,
        layer.dilation,
        layer.groups,
    )
    is_conv = layer.kind == "conv"
    try:
        plain = ConvGeometry(*geometry) if is_conv else ConvGeometry.transposed(*geometry)
    except InputError as error:
        raise InputError(f"layer '{layer.name}': {error}") from error
    # An output larger than symmetric padding gives is padded more at its end.
    steps = layer.stride if is_conv else (1, 1)
    more = [(layer.out_size[axis] - plain.out_size[axis]) * steps[axis] for axis in (0, 1)]
    if layer.out_size == (1, 1) or not any(more):
        return plain
    if min(more) < 0:
        raise InputError(
            f"layer '{layer.name}' states an output of {layer.out_size}, and its kernel, stride "
            f"and padding give {plain.out_size}"
        )
    return replace(plain, tail=(more[0], more[1]))


def _items(layer: LayerSpec, hardware: SystolicHardware) -> Iterator[SystolicLayer]:
    if layer.kind in ("conv", "conv_transpose"):
        yield _conv(layer, hardware)
    elif layer.kind in ("linear", "matmul"):
        yield _linear(layer.name, layer.in_channels, layer.out_channels, layer.positions, hardware)
    elif layer.kind == "recurrent":
        gates = layer.out_channels * layer.gates
        yield _linear(layer.name, layer.in_channels, gates, layer.positions, hardware)
        # One step after the other: no two share a pass.
        yield _linear(layer.name, layer.out_channels, gates, layer.positions)


def _linear(
    name: str,
    inputs: Size,
    outputs: Size,
    positions: int = 1,
    hardware: SystolicHardware | None = None,
) -> SystolicLayer:
    """Return a linear layer; without hardware its positions cannot share a pass."""
    return SystolicLayer(
        name,
        inputs,
        outputs,
        Size(1),
        area=positions,
        positions=positions,
        num_reads=positions,
        taps=1,
        row=1,
        passes=-(-positions // hardware.rows) if hardware else positions,
        is_linear=positions == 1,
        shared_rows=(0 if positions == 1 else -1, 0),
    )


def _conv(layer: LayerSpec, hardware: SystolicHardware) -> SystolicLayer:
    # One channel is enough: all counts are per channel.
    single = LayerSpec(**{**vars(layer), "in_channels": 1, "out_channels": 1, "groups": 1})
    conv = geometry_of(single.at({}))
    positions = prod(conv.out_size)
    return SystolicLayer(
        layer.name,
        layer.in_channels,
        layer.out_channels,
        layer.groups,
        area=prod(conv.in_size),
        positions=positions,
        num_reads=conv.num_reads,
        taps=prod(conv.kernel_size),
        row=conv.in_size[1],
        passes=-(-positions // hardware.rows),
        is_linear=False,
        shared_rows=_shared_rows(conv),
    )


@lru_cache(maxsize=1024)
def _shared_rows(conv: ConvGeometry) -> tuple[int, ...]:
    rows: NDArray[np.int64] = conv.row_map
    shared = []
    for fitting in range(conv.in_size[0]):
        try:
            shared.append(overlapping(conv, rows, fitting))
        except InputError:
            shared.append(-1)
    return (*shared, 0)

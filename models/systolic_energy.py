"""Energy of one layer on a systolic array, exact to the last number that is moved or multiplied.

Source: Yang, Zhu, Liu, ICLR 2019 (see `systolic_hardware`). What the released code counts by
unfolding inputs and convolving supports is counted here in closed form: how often an input is read
is a product of how many windows cover its row and its column, and the multiply-accumulates whose
operands are both non-zero are a sum over the taps of a kernel.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from joulemap import InputError

from ..datasets.layer_spec import Pair
from .systolic_hardware import SystolicHardware

Mask: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True)
class LayerEnergy:
    """Energy of a layer by what causes it, in the hardware's unit.

    Attributes:
        weight: Moving weights.
        input: Moving inputs and outputs.
        computation: Multiply-accumulates.
    """

    weight: float
    input: float
    computation: float

    @property
    def total(self) -> float:
        """The sum, in the hardware's unit."""
        return self.weight + self.input + self.computation


@dataclass(frozen=True)
class ConvGeometry:
    """A convolution with whole numbers.

    Attributes:
        in_channels: Input channels.
        out_channels: Output channels.
        in_size: Height and width of the input.
        kernel_size: Height and width of the kernel.
        stride: Step of the kernel.
        padding: Zeros on each side.
        dilation: Distance between the kernel's taps.
        groups: Groups of channels.
    """

    in_channels: int
    out_channels: int
    in_size: Pair
    kernel_size: Pair
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    def __post_init__(self) -> None:
        if self.in_channels % self.groups or self.out_channels % self.groups:
            raise InputError(
                f"{self.groups} groups do not divide {self.in_channels} input and "
                f"{self.out_channels} output channels"
            )
        if min(self.out_size) < 1:
            raise InputError(
                f"a kernel of {self.kernel_size} is larger than the padded input of {self.in_size}"
            )

    @property
    def extent(self) -> Pair:
        """Rows and columns of the input that one window spans."""
        height, width = (self.dilation[axis] * (self.kernel_size[axis] - 1) + 1 for axis in (0, 1))
        return height, width

    @property
    def out_size(self) -> Pair:
        """Height and width of the output."""
        height, width = (
            (self.in_size[axis] + 2 * self.padding[axis] - self.extent[axis]) // self.stride[axis]
            + 1
            for axis in (0, 1)
        )
        return height, width

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """Shape of the weights: outputs, inputs of a group, kernel height and width."""
        return (self.out_channels, self.in_channels // self.groups, *self.kernel_size)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape of the input: channels, height, width."""
        return (self.in_channels, *self.in_size)


def conv_energy(
    hardware: SystolicHardware,
    conv: ConvGeometry,
    *,
    weight_mask: Mask | None = None,
    input_mask: Mask | None = None,
    is_exact: bool = True,
) -> LayerEnergy:
    """Return the energy of a convolution in the hardware's unit (ICLR 2019, methods B.2).

    Args:
        hardware: The array.
        conv: The layer.
        weight_mask: Which weights are not zero, shape `conv.weight_shape`; all where None.
        input_mask: Which inputs are not zero, shape `conv.input_shape`; all where None.
        is_exact: Whether multiplications by zero inputs, padding included, cost nothing; otherwise
            every non-zero weight costs one at every output position, which bounds it from above.

    Raises:
        InputError: A mask of another shape, or fewer rows than the kernel's fit into the cache.
    """
    _check_mask("weight", weight_mask, conv.weight_shape)
    _check_mask("input", input_mask, conv.input_shape)
    positions = conv.out_size[0] * conv.out_size[1]
    in_use = input_mask if input_mask is not None else np.ones(conv.input_shape, dtype=bool)
    num_inputs = int(np.count_nonzero(in_use))
    num_weights = (
        int(np.prod(conv.weight_shape))
        if weight_mask is None
        else int(np.count_nonzero(weight_mask))
    )
    read = _num_reads(conv, in_use)
    sharing = conv.out_channels // conv.groups
    overlap = _overlap(hardware, conv, in_use, num_inputs)
    in_memory = num_inputs + overlap + positions * conv.out_channels
    input_energy = (
        hardware.memory_energy * in_memory
        + hardware.cache_energy * read * ceil(sharing / hardware.columns)
        + hardware.register_energy * read * sharing
    )
    passes = ceil(positions / hardware.rows)
    cached = min(num_weights, hardware.weight_cache)
    weight_energy = (
        hardware.memory_energy * (cached + passes * (num_weights - cached))
        + hardware.cache_energy * passes * num_weights
        + hardware.register_energy * positions * num_weights
    )
    macs = _num_macs(conv, weight_mask, in_use) if is_exact else positions * num_weights
    return _scaled(hardware, weight_energy, input_energy, hardware.mac_energy * macs)


def linear_energy(
    hardware: SystolicHardware,
    in_features: int,
    out_features: int,
    *,
    weight_mask: Mask | None = None,
) -> LayerEnergy:
    """Return the energy of a linear layer in the hardware's unit (ICLR 2019, methods B.2).

    Args:
        hardware: The array.
        in_features: Inputs; none of them counts as zero.
        out_features: Outputs.
        weight_mask: Which weights are not zero, shape (outputs, inputs); all where None.

    Raises:
        InputError: A mask of another shape.
    """
    _check_mask("weight", weight_mask, (out_features, in_features))
    num_weights = in_features * out_features
    if weight_mask is not None:
        num_weights = int(np.count_nonzero(weight_mask))
    cached = min(in_features, hardware.input_cache)
    passes = ceil(out_features / hardware.columns)
    input_energy = (
        hardware.memory_energy * (cached + passes * (in_features - cached) + out_features)
        + hardware.cache_energy * passes * in_features
        + hardware.register_energy * out_features * in_features
    )
    each = hardware.memory_energy + hardware.cache_energy + hardware.register_energy
    return _scaled(hardware, each * num_weights, input_energy, hardware.mac_energy * num_weights)


def _scaled(
    hardware: SystolicHardware, weight: float, inputs: float, computation: float
) -> LayerEnergy:
    factor = hardware.joule_per_mac or 1.0
    return LayerEnergy(weight * factor, inputs * factor, computation * factor)


def _check_mask(what: str, mask: Mask | None, shape: tuple[int, ...]) -> None:
    if mask is not None and mask.shape != shape:
        raise InputError(f"the {what} mask has shape {mask.shape}, the layer's is {shape}")


def _tap_rows(conv: ConvGeometry, axis: int, tap: int) -> tuple[slice, int]:
    """Return the input rows (columns) that a tap reads inside the map, and how many."""
    first = tap * conv.dilation[axis] - conv.padding[axis]
    step, count = conv.stride[axis], conv.out_size[axis]
    begin = max(0, -(first // step)) if first < 0 else 0
    end = min(count, (conv.in_size[axis] - 1 - first) // step + 1)
    if end <= begin:
        return slice(0, 0), 0
    return slice(first + begin * step, first + (end - 1) * step + 1, step), end - begin


def _coverage(conv: ConvGeometry, axis: int) -> NDArray[np.int64]:
    """Return how many windows read each row (column) of the map, shape (size,)."""
    counts = np.zeros(conv.in_size[axis], dtype=np.int64)
    for tap in range(conv.kernel_size[axis]):
        rows, _ = _tap_rows(conv, axis, tap)
        counts[rows] += 1
    return counts


def _num_reads(conv: ConvGeometry, in_use: Mask) -> int:
    """Return how many non-zero inputs the unfolded input has."""
    by_place = in_use.sum(axis=0, dtype=np.int64)
    return int(_coverage(conv, 0) @ by_place @ _coverage(conv, 1))


def _num_macs(conv: ConvGeometry, weight_mask: Mask | None, in_use: Mask) -> int:
    """Return how many multiplications have two operands that are not zero."""
    groups, within = conv.groups, conv.in_channels // conv.groups
    outputs = conv.out_channels // groups
    if weight_mask is None:
        uses = np.full((groups, within, *conv.kernel_size), outputs, dtype=np.int64)
    else:
        by_group = weight_mask.reshape(groups, outputs, within, *conv.kernel_size)
        uses = by_group.sum(axis=1, dtype=np.int64)
    total = 0
    for row in range(conv.kernel_size[0]):
        rows, _ = _tap_rows(conv, 0, row)
        for column in range(conv.kernel_size[1]):
            columns, _ = _tap_rows(conv, 1, column)
            read = in_use[:, rows, columns].sum(axis=(1, 2), dtype=np.int64)
            total += int(read @ uses[:, :, row, column].reshape(-1))
    return total


def _overlap(hardware: SystolicHardware, conv: ConvGeometry, in_use: Mask, num_inputs: int) -> int:
    """Return the inputs that are read twice, since strips of rows overlap (methods B.3)."""
    if num_inputs <= hardware.input_cache:
        return 0
    rows = np.pad(in_use.sum(axis=(0, 2), dtype=np.int64), conv.padding[0])
    reached = np.concatenate([[0], np.cumsum(rows)])
    extent, step = conv.extent[0], conv.stride[0]
    total, begin = 0, 0
    while begin + extent <= len(rows):
        end = int(np.searchsorted(reached, reached[begin] + hardware.input_cache, "right")) - 1
        if end - begin < extent:
            raise InputError(
                f"{extent} rows of a layer's input of {conv.input_shape} do not fit into the input "
                f"cache of '{hardware.name}' ({hardware.input_cache} numbers), which the model needs"
            )
        following = begin + ((end - begin - extent) // step + 1) * step
        if following + extent <= len(rows):
            total += int(reached[end] - reached[min(following, end)])
        begin = following
    return total

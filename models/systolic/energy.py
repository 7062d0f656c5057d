"""Energy of one layer on a systolic array, exact to the last number that is moved or multiplied.

Source: Yang, Zhu, Liu, ICLR 2019 (see `systolic_hardware`). What the released code counts by
unfolding inputs and convolving supports is counted here in closed form: how often an input is read
is a product of how many windows cover its row and its column, and the multiply-accumulates whose
operands are both non-zero are a sum over the taps of a kernel.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import ceil, prod
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from joulemap import InputError

from ...datasets.layer_spec import Pair
from .hardware import SystolicHardware

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

    def __add__(self, other: LayerEnergy) -> LayerEnergy:
        return LayerEnergy(
            self.weight + other.weight,
            self.input + other.input,
            self.computation + other.computation,
        )


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
        spacing: Distance of the inputs on the map that the kernel moves over; above 1 the layer is
            a transposed convolution, which reads zeros between its inputs.
        tail: Rows and columns of zeros that the map has at its end besides the padding.
    """

    in_channels: int
    out_channels: int
    in_size: Pair
    kernel_size: Pair
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    spacing: Pair = (1, 1)
    tail: Pair = (0, 0)

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

    @classmethod
    def transposed(
        cls,
        in_channels: int,
        out_channels: int,
        in_size: Pair,
        kernel_size: Pair,
        stride: Pair = (1, 1),
        padding: Pair = (0, 0),
        dilation: Pair = (1, 1),
        groups: int = 1,
        output_padding: Pair = (0, 0),
    ) -> ConvGeometry:
        """Return a transposed convolution as the convolution over its inputs spread out.

        Args:
            in_channels: Input channels.
            out_channels: Output channels.
            in_size: Height and width of the input.
            kernel_size: Height and width of the kernel.
            stride: Distance of the inputs on the map that the kernel moves over.
            padding: Rows and columns that the output loses on each side.
            dilation: Distance between the kernel's taps.
            groups: Groups of channels.
            output_padding: Rows and columns that the output gains at its end.

        Raises:
            InputError: More padding than the kernel reaches over the edge.
        """
        around = [dilation[axis] * (kernel_size[axis] - 1) - padding[axis] for axis in (0, 1)]
        if min(around) < 0:
            raise InputError(
                f"a padding of {padding} of a transposed convolution is larger than its kernel of "
                f"{kernel_size} reaches over the edge"
            )
        return cls(
            in_channels,
            out_channels,
            in_size,
            kernel_size,
            padding=(around[0], around[1]),
            dilation=dilation,
            groups=groups,
            spacing=stride,
            tail=output_padding,
        )

    @property
    def map_size(self) -> Pair:
        """Height and width of the map that the kernel moves over, without padding."""
        height, width = (
            (self.in_size[axis] - 1) * self.spacing[axis] + 1 + self.tail[axis] for axis in (0, 1)
        )
        return height, width

    @property
    def extent(self) -> Pair:
        """Rows and columns of the input that one window spans."""
        height, width = (self.dilation[axis] * (self.kernel_size[axis] - 1) + 1 for axis in (0, 1))
        return height, width

    @property
    def out_size(self) -> Pair:
        """Height and width of the output."""
        height, width = (
            (self.map_size[axis] + 2 * self.padding[axis] - self.extent[axis]) // self.stride[axis]
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

    @cached_property
    def tap_matrices(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """1 where a tap of the kernel reads a row, and a column: (taps, rows), (taps, columns)."""
        return _tap_matrix(self, 0), _tap_matrix(self, 1)

    @cached_property
    def windows_per_tap(self) -> NDArray[np.int64]:
        """Windows in which a tap lies inside the map, shape of the kernel."""
        rows, columns = (matrix.sum(axis=1).astype(np.int64) for matrix in self.tap_matrices)
        windows: NDArray[np.int64] = np.multiply.outer(rows, columns)
        return windows

    @property
    def num_reads(self) -> int:
        """How often the numbers of one input channel are read together, padding left out."""
        return int(self.windows_per_tap.sum())

    @cached_property
    def row_map(self) -> NDArray[np.int64]:
        """1 for every row of the padded map that holds inputs, 0 for the others."""
        rows = np.zeros(self.map_size[0], dtype=np.int64)
        rows[: (self.in_size[0] - 1) * self.spacing[0] + 1 : self.spacing[0]] = 1
        return np.pad(rows, self.padding[0])


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
    num_weights = _count(weight_mask, conv.weight_shape)
    num_inputs = _count(input_mask, conv.input_shape)
    if input_mask is None:
        read = conv.in_channels * conv.num_reads
    else:
        tap_reads = _tap_reads(conv, input_mask)
        read = int(tap_reads.sum())
    sharing = conv.out_channels // conv.groups
    overlap = 0
    if num_inputs > hardware.input_cache:
        rows = conv.row_map * (conv.in_channels * conv.in_size[1])
        if input_mask is not None:
            rows[conv.row_map > 0] = np.count_nonzero(input_mask, axis=(0, 2))
        overlap = overlapping(conv, rows, hardware.input_cache)
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
    if not is_exact:
        macs = positions * num_weights
    elif weight_mask is None:
        macs = read * sharing
    else:
        if input_mask is None:
            tap_reads = np.broadcast_to(conv.windows_per_tap, (conv.in_channels, *conv.kernel_size))
        macs = int((tap_reads * _weights_per_tap(conv, weight_mask)).sum())
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


def _tap_rows(conv: ConvGeometry, axis: int, tap: int) -> slice:
    """Return the input rows (columns) that a tap reads, one for each window that has one there."""
    first = tap * conv.dilation[axis] - conv.padding[axis]
    step, spacing = conv.stride[axis], conv.spacing[axis]
    if spacing > 1:  # The stride is 1.
        begin = max(0, -(-first // spacing))
        end = min(conv.in_size[axis], (first + conv.out_size[axis] - 1) // spacing + 1)
        return slice(begin, max(begin, end))
    begin = max(0, -(first // step)) if first < 0 else 0
    end = min(conv.out_size[axis], (conv.in_size[axis] - 1 - first) // step + 1)
    if end <= begin:
        return slice(0, 0)
    return slice(first + begin * step, first + (end - 1) * step + 1, step)


def _counting(largest: int) -> type[np.floating[Any]]:
    """Return the fastest type in whose products of matrices counts up to the largest are exact."""
    return np.float32 if largest <= 1 << 24 else np.float64


def _tap_matrix(conv: ConvGeometry, axis: int) -> NDArray[Any]:
    """Return 1 where a tap reads a row (column) of the input, shape (taps, rows)."""
    counting = _counting(prod(conv.in_size))
    matrix = np.zeros((conv.kernel_size[axis], conv.in_size[axis]), dtype=counting)
    for tap in range(conv.kernel_size[axis]):
        matrix[tap, _tap_rows(conv, axis, tap)] = 1
    return matrix


def _tap_reads(conv: ConvGeometry, input_mask: Mask) -> NDArray[np.int64]:
    """Return how many non-zero inputs each tap reads of each input channel."""
    rows, columns = conv.tap_matrices
    # Sums of at most one channel's inputs.
    counts: NDArray[np.int64] = (rows @ (input_mask.astype(rows.dtype) @ columns.T)).astype(
        np.int64
    )
    return counts


def _weights_per_tap(conv: ConvGeometry, weight_mask: Mask) -> NDArray[np.int64]:
    """Return the non-zero weights of each tap of each input channel, summed over outputs."""
    outputs = conv.out_channels // conv.groups
    counting = _counting(outputs)
    by_group = weight_mask.reshape(conv.groups, outputs, -1).astype(counting)
    counts = np.ones(outputs, dtype=counting) @ by_group
    return counts.astype(np.int64).reshape(conv.in_channels, *conv.kernel_size)


def _count(mask: Mask | None, shape: tuple[int, ...]) -> int:
    return prod(shape) if mask is None else int(np.count_nonzero(mask))


def overlapping(conv: ConvGeometry, rows: NDArray[np.int64], cache: int) -> int:
    """Return how many inputs are read twice, since strips of rows overlap (methods B.3).

    Args:
        conv: The layer.
        rows: Non-zero inputs in each row of the padded map.
        cache: Numbers that fit into the cache of inputs.

    Raises:
        InputError: Fewer rows fit than the kernel needs.
    """
    reached = np.concatenate([[0], np.cumsum(rows)])
    extent, step = conv.extent[0], conv.stride[0]
    total, begin = 0, 0
    while begin + extent <= len(rows):
        end = int(np.searchsorted(reached, reached[begin] + cache, "right")) - 1
        if end - begin < extent:
            raise InputError(
                f"{extent} rows of a layer's input of {conv.input_shape} do not fit into the input "
                f"cache of {cache} numbers, which the model needs"
            )
        following = begin + ((end - begin - extent) // step + 1) * step
        if following + extent <= len(rows):
            total += int(reached[end] - reached[min(following, end)])
        begin = following
    return total

"""The energy and the cycles of dense layers on a systolic array, in torch, for many widths at once.

All layers are computed side by side: tensors are (..., layers).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import torch

from joulemap import InputError

from .cost_module import CostInfo, CostModule
from .size_matrix import as_matrix
from .systolic_hardware import SystolicHardware
from .systolic_layers import SystolicLayer

Form: TypeAlias = Literal["exact", "relaxed"]
Quantity: TypeAlias = Literal["energy", "latency"]


class Energies(NamedTuple):
    """Energies of layers by what causes them, each (..., layers), in the hardware's unit."""

    weight: torch.Tensor
    input: torch.Tensor
    computation: torch.Tensor


class Cycles(NamedTuple):
    """Clock cycles of layers, each (..., layers).

    Attributes:
        array: With the array at work, filling and draining it included.
        memory: That moving data to and from memory takes; 0 where its bandwidth is not given.
        macs: That the multiply-accumulates would take with all of the array in use.
    """

    array: torch.Tensor
    memory: torch.Tensor
    macs: torch.Tensor

    @property
    def total(self) -> torch.Tensor:
        """The longer of array and memory, which work at the same time."""
        return torch.maximum(self.array, self.memory)


class _Counts(NamedTuple):
    inputs: torch.Tensor
    outputs: torch.Tensor
    groups: torch.Tensor
    sharing: torch.Tensor
    weights: torch.Tensor


class SystolicCostModule(CostModule):
    """A network's cost on a systolic array: widths (..., k) -> (...).

    cost = intercept + coefficient * (energy or latency of the array).

    At whole channel counts it is exact. Between them ceilings and the overlap of strips are
    interpolated linearly; with `is_smooth` they are replaced by what they are on average.

    Args:
        layers: The layers.
        hardware: The array.
        info: What the module predicts.
        quantity: 'energy' or 'latency'.
        form: 'exact', or 'relaxed' for multiplications by padding that cost like others.
        is_smooth: Whether steps are replaced by their average.
        intercept: Cost that the model does not explain.
        coefficient: Cost of a unit of energy or time.
    """

    size_matrix: torch.Tensor
    size_constant: torch.Tensor
    area: torch.Tensor
    positions: torch.Tensor
    num_reads: torch.Tensor
    taps: torch.Tensor
    row: torch.Tensor
    passes: torch.Tensor
    is_linear: torch.Tensor
    sharing_varies: torch.Tensor
    shared_rows: torch.Tensor
    rows_needed: torch.Tensor
    placing: torch.Tensor
    intercept: torch.Tensor
    coefficient: torch.Tensor

    def __init__(
        self,
        layers: Sequence[SystolicLayer],
        hardware: SystolicHardware,
        info: CostInfo,
        *,
        quantity: Quantity = "energy",
        form: Form = "exact",
        is_smooth: bool = False,
        intercept: float = 0.0,
        coefficient: float = 1.0,
    ) -> None:
        super().__init__(info)
        self.hardware, self.quantity, self.form = hardware, quantity, form
        self.is_smooth = is_smooth
        self.layer_names = tuple(layer.name for layer in layers)
        names = info.spec.width_names if info.spec is not None else info.width_names
        sizes = [
            size
            for kind in ("in_channels", "out_channels", "groups")
            for size in (getattr(layer, kind) for layer in layers)
        ]
        matrix, constant, self.products = as_matrix(sizes, names)
        columns = {
            name: np.array([getattr(layer, name) for layer in layers], dtype=np.float64)
            for name in ("area", "positions", "num_reads", "taps", "row", "passes", "is_linear")
        }
        # Per layer: whether the outputs that share an input change with the widths.
        columns["sharing_varies"] = np.array(
            [
                not layer.out_channels.is_constant and layer.out_channels != layer.groups
                for layer in layers
            ],
            dtype=np.float64,
        )
        shared, needed = _tables(layers)
        arrays = columns | {
            "size_matrix": matrix,
            "size_constant": constant,
            "shared_rows": shared,
            "rows_needed": needed,
            "intercept": np.array(intercept),
            "coefficient": np.array(coefficient),
        }
        for name, values in arrays.items():
            self.register_buffer(name, torch.from_numpy(np.asarray(values, dtype=np.float64)))
        self.overlapping = [int(index) for index in np.flatnonzero(shared.any(axis=1))]
        placing = torch.eye(len(layers), dtype=torch.float64)[self.overlapping]
        self.register_buffer("placing", placing)

    def cost(self, widths: torch.Tensor) -> torch.Tensor:
        """Return the cost (...) of widths (..., k), both in the buffers' dtype."""
        if self.quantity == "energy":
            total = sum(part.sum(-1) for part in self.energies(widths))
        else:
            total = self.cycles(widths).total.sum(-1) / (self.hardware.clock_hz or 1.0)
        result: torch.Tensor = self.intercept + self.coefficient * total
        return result

    def energies(self, widths: torch.Tensor) -> Energies:
        """Return the energies of the layers (ICLR 2019, methods B.2), in the hardware's unit.

        Args:
            widths: Widths in channels, (..., k), in the buffers' dtype.
        """
        hardware, counts = self.hardware, self._counts(widths)
        pairs = counts.inputs * counts.sharing
        weight = (
            hardware.memory_energy * self._weight_words(counts)
            + (hardware.cache_energy * self.passes + hardware.register_energy * self.positions)
            * counts.weights
        )
        inputs = (
            hardware.memory_energy * self._input_words(counts)
            + hardware.cache_energy * self.num_reads * counts.inputs * self._column_tiles(counts)
            + hardware.register_energy * self.num_reads * pairs
        )
        macs = self.num_reads * pairs if self.form == "exact" else self.positions * counts.weights
        scale = hardware.joule_per_mac or 1.0
        return Energies(weight * scale, inputs * scale, macs * (hardware.mac_energy * scale))

    def cycles(self, widths: torch.Tensor) -> Cycles:
        """Return the clock cycles of the layers.

        Outputs stay in place. A tile of r output positions by c output channels takes a cycle for
        each of the T products of an output, and 2 r + c - 2 to fill and to drain; all tiles of a
        group together nR nC (T - 2) + 2 L nC + q nR, with nR by nC tiles, L positions and q
        outputs.

        Source: Samajdar et al., "A systematic methodology for characterizing scalability of DNN
        accelerators using SCALE-Sim", ISPASS 2020, output-stationary dataflow.

        Args:
            widths: Widths in channels, (..., k), in the buffers' dtype.
        """
        hardware, counts = self.hardware, self._counts(widths)
        tiles = self._column_tiles(counts)
        length = self.taps * counts.inputs / counts.groups
        array = counts.groups * (
            self.passes * tiles * (length - 2)
            + 2 * self.positions * tiles
            + counts.sharing * self.passes
        )
        words = self._weight_words(counts) + self._input_words(counts)
        per_cycle = hardware.memory_bytes_per_cycle
        factor = hardware.word_bytes / per_cycle if per_cycle is not None else 0.0
        macs = self.positions * counts.weights / (hardware.rows * hardware.columns)
        return Cycles(array, words * factor, macs)

    def refuse_too_large(self, widths: torch.Tensor) -> None:
        """Check that enough rows of every layer's input fit into the cache of inputs.

        Args:
            widths: Whole numbers of channels, (n, k), in the buffers' dtype.

        Raises:
            InputError: A layer that the model cannot compute.
        """
        inputs = self._counts(widths).inputs
        fitting = torch.floor(self.hardware.input_cache / (self.row * inputs))
        bad = fitting < self.rows_needed
        if bad.any():
            row, layer = (int(index) for index in bad.nonzero()[0])
            raise InputError(
                f"layer '{self.layer_names[layer]}' with {inputs[row, layer]:.0f} input channels "
                f"needs {int(self.rows_needed[layer])} rows of its input in the input cache of "
                f"'{self.hardware.name}' ({self.hardware.input_cache} numbers), and "
                f"{int(fitting[row, layer])} fit; name hardware with a larger cache"
            )

    # -- counts ----------------------------------------------------------------------------------

    def _counts(self, widths: torch.Tensor) -> _Counts:
        monomials = widths
        if self.products:
            more = [widths[..., columns].prod(dim=-1) for columns in self.products]
            monomials = torch.cat([widths, torch.stack(more, dim=-1)], dim=-1)
        sizes = monomials @ self.size_matrix + self.size_constant
        count = len(self.layer_names)
        inputs, outputs, groups = (
            sizes[..., start : start + count] for start in range(0, 3 * count, count)
        )
        sharing = outputs / groups
        return _Counts(inputs, outputs, groups, sharing, self.taps * inputs * sharing)

    def _weight_words(self, counts: _Counts) -> torch.Tensor:
        """Return the weights read from memory: those that find no room in the cache, each pass."""
        beyond = torch.relu(counts.weights - self.hardware.weight_cache)
        return counts.weights + (self.passes - 1) * beyond

    def _input_words(self, counts: _Counts) -> torch.Tensor:
        """Return the inputs read from memory and the outputs written to it."""
        beyond = torch.relu(counts.inputs - self.hardware.input_cache)
        again = self.is_linear * (self._column_tiles(counts) - 1) * beyond
        words = self.area * counts.inputs + again + self.positions * counts.outputs
        if self.overlapping:
            words = words + self._overlap(counts.inputs[..., self.overlapping]) @ self.placing
        return words

    def _column_tiles(self, counts: _Counts) -> torch.Tensor:
        columns = self.hardware.columns
        low = counts.sharing.detach().floor()
        below, above = (low / columns).ceil(), ((low + 1) / columns).ceil()
        exact = torch.lerp(below, above, counts.sharing - low)
        if not self.is_smooth:
            return exact
        average = counts.sharing / columns + (columns - 1) / (2 * columns)
        return torch.where(self.sharing_varies > 0, average.clamp(min=1.0), exact)

    def _overlap(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the inputs read twice of the layers in `overlapping`, (..., layers in it)."""
        row = self.row[self.overlapping]
        if self.is_smooth:
            # On average half a row of those that would fit does not.
            fitting = self.hardware.input_cache / (row * inputs) - 0.5
            low = fitting.detach().floor()
            shared = torch.lerp(self._shared(low), self._shared(low + 1), fitting - low)
            return shared * row * inputs
        low = inputs.detach().floor()
        ends = []
        for count in (low, low + 1):
            fitting = (self.hardware.input_cache / (row * count)).floor()
            ends.append(self._shared(fitting) * row * count)
        return torch.lerp(ends[0], ends[1], inputs - low)

    def _shared(self, fitting: torch.Tensor) -> torch.Tensor:
        table = self.shared_rows[self.overlapping]
        index = fitting.clamp(0, table.shape[1] - 1).long()
        return table[torch.arange(len(self.overlapping)), index]


def _tables(layers: Sequence[SystolicLayer]) -> tuple[np.ndarray, np.ndarray]:
    """Return rows read twice by rows that fit, (layers, n), and the rows that must fit (layers,)."""
    length = max((len(layer.shared_rows) for layer in layers), default=1)
    shared = np.zeros((len(layers), length))
    needed = np.zeros(len(layers))
    for index, layer in enumerate(layers):
        values = np.array(layer.shared_rows, dtype=np.float64)
        needed[index] = int(np.flatnonzero(values < 0).max()) + 1 if (values < 0).any() else 0
        # Where too few rows fit the module goes on with what it knows.
        values[: int(needed[index])] = values[int(needed[index])]
        shared[index, : len(values)] = values
    return shared, needed

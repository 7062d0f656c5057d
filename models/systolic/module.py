"""The energy and the cycles of dense layers on a systolic array, in torch, for many widths at once.

All layers are computed side by side: tensors are (..., layers).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import torch

from joulemap import InputError

from ..base.cost_module import CostInfo, CostModule
from ..base.size_matrix import as_matrix
from .hardware import SystolicHardware
from .layers import SystolicLayer

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
    """Channel counts of layers, and the outputs that share an input, each (..., layers)."""

    inputs: torch.Tensor
    outputs: torch.Tensor
    groups: torch.Tensor
    sharing: torch.Tensor
    tiles: torch.Tensor


# What energies and words are sums of, each times a constant of the layer: input channels c, output
# channels d, c times the q outputs that share an input, c times the tiles of columns, weights that
# find no room in their cache, inputs that a linear layer reads again, inputs that strips share.
_BASIS = ("c", "d", "cq", "c tiles", "weights beyond", "inputs beyond", "overlap")


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
    positions: torch.Tensor
    taps: torch.Tensor
    passes: torch.Tensor
    sharing_varies: torch.Tensor
    weight_rates: torch.Tensor
    input_rates: torch.Tensor
    computation_rates: torch.Tensor
    rates: torch.Tensor
    word_rates: torch.Tensor
    row: torch.Tensor
    shared_rows: torch.Tensor
    rows_needed: torch.Tensor
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
        self.linear = [index for index, layer in enumerate(layers) if layer.is_linear]
        self.overlapping = [
            index for index, layer in enumerate(layers) if max(layer.shared_rows) > 0
        ]
        shared, needed = _tables(layers)
        arrays = _rates(layers, hardware, form) | {
            "size_matrix": matrix,
            "size_constant": constant,
            "positions": np.array([layer.positions for layer in layers]),
            "taps": np.array([layer.taps for layer in layers]),
            "passes": np.array([layer.passes for layer in layers]),
            # Whether the outputs that share an input change with the widths.
            "sharing_varies": np.array(
                [
                    not layer.out_channels.is_constant and layer.out_channels != layer.groups
                    for layer in layers
                ]
            ),
            "row": np.array([layer.row for layer in layers]),
            "shared_rows": shared[self.overlapping],
            "rows_needed": needed,
            "intercept": np.array(intercept),
            "coefficient": np.array(coefficient),
        }
        for name, values in arrays.items():
            self.register_buffer(name, torch.from_numpy(np.asarray(values, dtype=np.float64)))

    def cost(self, widths: torch.Tensor) -> torch.Tensor:
        """Return the cost (...) of widths (..., k), both in the buffers' dtype."""
        return self.intercept + self.coefficient * self.array_cost(widths)

    def array_cost(self, widths: torch.Tensor, is_whole: bool = False) -> torch.Tensor:
        """Return the array's energy or latency (...), without the fitted intercept and coefficient.

        Args:
            widths: Widths in channels, (..., k), in the buffers' dtype.
            is_whole: Whether all of them are whole numbers, which is faster.
        """
        if self.quantity == "latency":
            return self.cycles(widths, is_whole).total.sum(-1) / (self.hardware.clock_hz or 1.0)
        basis = self._basis(self._counts(widths, is_whole), is_whole)
        total = widths[..., 0] * 0.0
        for index, (part, columns) in enumerate(basis):
            rates = self.rates[index] if columns is None else self.rates[index, columns]
            total = total + part @ rates
        return total

    def energies(self, widths: torch.Tensor) -> Energies:
        """Return the energies of the layers (ICLR 2019, methods B.2), in the hardware's unit.

        Args:
            widths: Widths in channels, (..., k), in the buffers' dtype.
        """
        basis = self._basis(self._counts(widths))
        return Energies(
            self._weighted(basis, self.weight_rates),
            self._weighted(basis, self.input_rates),
            self._weighted(basis, self.computation_rates),
        )

    def cycles(self, widths: torch.Tensor, is_whole: bool = False) -> Cycles:
        """Return the clock cycles of the layers.

        Outputs stay in place. A tile of r output positions by c output channels takes a cycle for
        each of the T products of an output, and 2 r + c - 2 to fill and to drain; all tiles of a
        group together nR nC (T - 2) + 2 L nC + q nR, with nR by nC tiles, L positions and q
        outputs.

        Source: Samajdar et al., "A systematic methodology for characterizing scalability of DNN
        accelerators using SCALE-Sim", ISPASS 2020, output-stationary dataflow.

        Args:
            widths: Widths in channels, (..., k), in the buffers' dtype.
            is_whole: Whether all of them are whole numbers, which is faster.
        """
        hardware, counts = self.hardware, self._counts(widths, is_whole)
        length = self.taps * counts.inputs / counts.groups
        array = counts.groups * (
            self.passes * counts.tiles * (length - 2)
            + 2 * self.positions * counts.tiles
            + counts.sharing * self.passes
        )
        words = self._weighted(self._basis(counts, is_whole), self.word_rates)
        per_cycle = hardware.memory_bytes_per_cycle
        factor = hardware.word_bytes / per_cycle if per_cycle is not None else 0.0
        macs = self.positions * self.taps * counts.inputs * counts.sharing
        return Cycles(array, words * factor, macs / (hardware.rows * hardware.columns))

    def refuse_too_large(self, widths: torch.Tensor) -> None:
        """Check that enough rows of every layer's input fit into the cache of inputs.

        Args:
            widths: Whole numbers of channels, (n, k), in the buffers' dtype.

        Raises:
            InputError: A layer that the model cannot compute.
        """
        inputs = self._sizes(widths)[0]
        needed = self.rows_needed * self.row * inputs.amax(dim=0)
        if not (needed > self.hardware.input_cache).any():
            return
        # Beyond the bounds the cost is extrapolated.
        if self.spec is not None:
            bounds = torch.tensor(self.spec.max_widths, dtype=widths.dtype)
            inputs = self._sizes(widths.minimum(bounds))[0]
        bad = self.rows_needed * self.row * inputs > self.hardware.input_cache
        if bad.any():
            row, layer = (int(index) for index in bad.nonzero()[0])
            fitting = self.hardware.input_cache // (self.row * inputs)[row, layer]
            raise InputError(
                f"layer '{self.layer_names[layer]}' with {inputs[row, layer]:.0f} input channels "
                f"needs {int(self.rows_needed[layer])} rows of its input in the input cache of "
                f"'{self.hardware.name}' ({self.hardware.input_cache} numbers), and "
                f"{int(fitting)} fit; name hardware with a larger cache"
            )

    # -- counts ----------------------------------------------------------------------------------

    def _sizes(self, widths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        monomials = widths
        if self.products:
            more = [widths[..., columns].prod(dim=-1) for columns in self.products]
            monomials = torch.cat([widths, torch.stack(more, dim=-1)], dim=-1)
        sizes = monomials @ self.size_matrix + self.size_constant
        count = len(self.layer_names)
        inputs, outputs, groups = (
            sizes[..., start : start + count] for start in range(0, 3 * count, count)
        )
        return inputs, outputs, groups

    def _counts(self, widths: torch.Tensor, is_whole: bool = False) -> _Counts:
        inputs, outputs, groups = self._sizes(widths)
        sharing = outputs / groups
        columns = self.hardware.columns
        if is_whole:
            return _Counts(inputs, outputs, groups, sharing, (sharing / columns).ceil())
        low = sharing.detach().floor()
        tiles = torch.lerp((low / columns).ceil(), ((low + 1) / columns).ceil(), sharing - low)
        if self.is_smooth:
            average = sharing / columns + (columns - 1) / (2 * columns)
            tiles = torch.where(self.sharing_varies > 0, average.clamp(min=1.0), tiles)
        return _Counts(inputs, outputs, groups, sharing, tiles)

    def _basis(
        self, counts: _Counts, is_whole: bool = False
    ) -> list[tuple[torch.Tensor, list[int] | None]]:
        """Return what `_BASIS` names, and of which layers; None is all."""
        inputs, hardware = counts.inputs, self.hardware
        pairs = inputs * counts.sharing
        basis: list[tuple[torch.Tensor, list[int] | None]] = [
            (inputs, None),
            (counts.outputs, None),
            (pairs, None),
            (inputs * counts.tiles, None),
            (torch.relu(self.taps * pairs - hardware.weight_cache), None),
        ]
        if self.linear:
            beyond = torch.relu(inputs[..., self.linear] - hardware.input_cache)
            basis.append(((counts.tiles[..., self.linear] - 1) * beyond, self.linear))
        else:
            basis.append((inputs[..., :0], []))
        if self.overlapping:
            overlap = self._overlap(inputs[..., self.overlapping], is_whole)
            basis.append((overlap, self.overlapping))
        return basis

    def _weighted(
        self, basis: list[tuple[torch.Tensor, list[int] | None]], rates: torch.Tensor
    ) -> torch.Tensor:
        """Return the sum of the basis (..., layers) with a rate for each and layer."""
        total = basis[0][0] * rates[0]
        for (part, columns), rate in zip(basis[1:], rates[1:], strict=False):
            if columns is None:
                total = total + part * rate
            elif columns:
                # A product with ones and zeros puts the few layers in their places.
                places = torch.eye(len(rate), dtype=rate.dtype)[columns]
                total = total + (part * rate[columns]) @ places
        return total

    def _overlap(self, inputs: torch.Tensor, is_whole: bool) -> torch.Tensor:
        """Return the inputs read twice of the layers in `overlapping`, (..., layers in it)."""
        row, cache = self.row[self.overlapping], self.hardware.input_cache
        if is_whole:
            return self._shared((cache / (row * inputs)).floor()) * row * inputs
        if self.is_smooth:
            # On average half a row of those that would fit does not.
            fitting = cache / (row * inputs) - 0.5
            low = fitting.detach().floor()
            shared = torch.lerp(self._shared(low), self._shared(low + 1), fitting - low)
            return shared * row * inputs
        low = inputs.detach().floor()
        ends = [
            self._shared((cache / (row * count)).floor()) * row * count for count in (low, low + 1)
        ]
        return torch.lerp(ends[0], ends[1], inputs - low)

    def _shared(self, fitting: torch.Tensor) -> torch.Tensor:
        index = fitting.clamp(0, self.shared_rows.shape[1] - 1).long()
        return self.shared_rows[torch.arange(len(self.overlapping)), index]


def _rates(
    layers: Sequence[SystolicLayer], hardware: SystolicHardware, form: Form
) -> dict[str, np.ndarray]:
    """Return what a unit of each of `_BASIS` costs in each layer, (len(_BASIS), layers).

    ICLR 2019, methods B.2, by causes and summed; and the words moved from and to memory.
    """
    number, scale = len(layers), hardware.joule_per_mac or 1.0
    memory, cache, register = (
        hardware.memory_energy,
        hardware.cache_energy,
        hardware.register_energy,
    )
    weight, inputs, computation, words = (np.zeros((len(_BASIS), number)) for _ in range(4))
    for index, layer in enumerate(layers):
        reads, passes, positions = layer.num_reads, layer.passes, layer.positions
        words[:, index] = (
            layer.area,
            positions,
            layer.taps,
            0,
            passes - 1,
            1 if layer.is_linear else 0,
            1,
        )
        of_memory = memory * words[:, index]
        moves_weights = np.isin(_BASIS, ("cq", "weights beyond"))
        weight[:, index] = np.where(moves_weights, of_memory, 0)
        inputs[:, index] = np.where(moves_weights, 0, of_memory)
        pair, tile = _BASIS.index("cq"), _BASIS.index("c tiles")
        weight[pair, index] += layer.taps * (cache * passes + register * positions)
        inputs[pair, index] += register * reads
        inputs[tile, index] += cache * reads
        macs = reads if form == "exact" else positions * layer.taps
        computation[pair, index] = hardware.mac_energy * macs
    return {
        "weight_rates": weight * scale,
        "input_rates": inputs * scale,
        "computation_rates": computation * scale,
        "rates": (weight + inputs + computation) * scale,
        "word_rates": words,
    }


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

"""What the aligned model counts: terms of a network's layers, each a column of its regression.

A layer's cost depends on its input and its output channels, and on whether they suit the kernels:
a runtime that packs channels in blocks has one kernel for channel counts that are multiples of a
divisor d and another for the rest (the regimes `aligned` and `misaligned`), and may pad its output
to whole blocks of b channels. Every term is therefore a sum, over the layers of one family, of

    coefficient * f(input channels) * g(output channels),

f and g from the few functions of `Function`. Layers of a family share the term's rate, so a
handful of rates describes a network, and the same sum of products is a fast torch module.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import pairwise
from math import gcd, prod
from typing import Any, TypeAlias

import numpy as np

from joulemap import InputError

from ...datasets import LayerSpec, NetworkSpec, Size, Width
from ..base.intervals import FloatArray

COMPLEXITIES = ("compute", "memory", "overheads")


class Function(IntEnum):
    """A function of a channel count s, of the divisor d and the block b.

    With a = 1 where d divides s and 0 elsewhere, and p = b * ceil(s / b).
    """

    ONE = 0
    VALUE = 1  # s
    ALIGNED = 2  # a
    MISALIGNED = 3  # 1 - a
    ALIGNED_VALUE = 4  # a s
    MISALIGNED_VALUE = 5  # (1 - a) s
    PADDED = 6  # p
    ALIGNED_PADDED = 7  # a p


Factor: TypeAlias = tuple[int, Function]
"""Index of a size, and the function that is taken of it."""


@dataclass(frozen=True)
class Piece:
    """One product: coefficient * function(size) * function(size)."""

    coefficient: float
    left: Factor
    right: Factor

    @property
    def left_index(self) -> int:
        """Column of the left factor among all functions of all sizes, side by side."""
        return self.left[0] * len(Function) + self.left[1]

    @property
    def right_index(self) -> int:
        """Column of the right factor."""
        return self.right[0] * len(Function) + self.right[1]


@dataclass
class Term:
    """A column of the regression: a sum of pieces that share one rate.

    Attributes:
        family: The layers it belongs to, in words, such as 'pointwise convolution'.
        quantity: What is counted, in words, such as 'MACs'.
        regime: 'all' layers, or those of the regime 'aligned' or 'misaligned'.
        complexity: Index in `COMPLEXITIES` from which on the term takes part; negative for the
            terms of ECC's bilinear model, None for the constant, which always does.
        pieces: The products.
        layers: For each piece, the name of its layer.
    """

    family: str
    quantity: str
    regime: str
    complexity: int | None
    pieces: list[Piece] = field(default_factory=list)
    layers: list[str] = field(default_factory=list)


class TermTable:
    """The terms of a network and the channel counts that they are functions of.

    Args:
        spec: The network.

    Attributes:
        sizes: What the functions are taken of.
        channel_counts: Those sizes that are a layer's input or output channels.

    Raises:
        InputError: A layer's groups are neither constant nor its input or output channels.
    """

    def __init__(self, spec: NetworkSpec) -> None:
        self.width_names = spec.width_names
        self.sizes: list[Size] = []
        self._index: dict[Size, int] = {}
        self._terms: dict[tuple[str, str, str], Term] = {}
        self._layer = ""
        absorbing: set[str] = set()
        one = self._size(Size(1))
        self._add("network", "call", "all", None, 1.0, (one, Function.ONE), (one, Function.ONE))
        self._add_products(spec)
        self.channel_counts: set[Size] = set()
        for layer in spec.layers:
            self._layer = layer.name
            producers = spec.producers[layer.name]
            # Runtimes compute these within the convolution.
            if layer.kind in ("norm", "activation") and absorbing.issuperset(producers):
                absorbing.add(layer.name)
                continue
            if layer.kind in ("conv", "conv_transpose"):
                absorbing.add(layer.name)
            self._add_layer(layer, is_first="" in producers)

    @property
    def terms(self) -> list[Term]:
        """The terms; the first is the constant."""
        return list(self._terms.values())

    # -- the network -----------------------------------------------------------------------------

    def _add_products(self, spec: NetworkSpec) -> None:
        """Add ECC's terms: products of neighbouring widths between fixed ends."""
        ends = [Size(1)] if spec.layers[-1].out_channels.is_constant else []
        chain = [Size(1), *(Size(name) for name in spec.width_names), *ends]
        for left, right in pairwise(chain):
            factors = [(self._size(size), Function.VALUE) for size in (left, right)]
            self._add("network", f"{left} x {right}", "all", -1, 1.0, *factors)

    # -- one layer -------------------------------------------------------------------------------

    def _add_layer(self, layer: LayerSpec, *, is_first: bool) -> None:
        family = family_of(layer, is_first=is_first)
        self.channel_counts |= {layer.in_channels, layer.out_channels}
        inputs, outputs = self._size(layer.in_channels), self._size(layer.out_channels)
        in_positions = prod(layer.in_size) * layer.positions
        out_positions = prod(layer.out_size) * layer.positions
        taps = prod(layer.kernel_size)
        if layer.kind in ("conv", "conv_transpose"):
            positions = out_positions if layer.kind == "conv" else in_positions
            groups = layer.groups
            if groups == 1 or groups.is_constant:
                share = 1.0 / int(groups.at({}))
                self._dense(family, inputs, outputs, taps * positions * share, taps * share)
                if taps > 1:
                    self._of_input(family, "patches", 1, taps * out_positions, inputs)
            elif groups in (layer.in_channels, layer.out_channels):
                side = outputs if groups == layer.in_channels else inputs
                self._per_channel(family, side, taps * positions, taps)
            else:
                raise InputError(
                    f"layer '{layer.name}' has {groups} groups, neither constant nor its input or "
                    "output channels; the aligned model knows no kernel for that"
                )
        elif layer.kind in ("linear", "matmul"):
            weights = 1.0 if layer.kind == "linear" else 0.0
            share, each = share_of_groups(layer)
            self._dense(family, inputs, self._size(each), layer.positions * share, weights * share)
        elif layer.kind == "recurrent":
            gates, share = layer.gates, 1.0 / layer.directions
            self._dense(family, inputs, outputs, gates * layer.positions, gates)
            self._dense(family, outputs, outputs, gates * layer.positions * share, gates * share)
        elif layer.kind == "pool":
            self._of_input(family, "taps", 0, taps * out_positions, outputs)
        reads = max(1, len(layer.inputs)) if layer.kind == "add" else 1
        self._of_input(family, "input elements", 1, in_positions * reads, inputs)
        self._of_output(family, "output elements", 1, out_positions, inputs, outputs)
        for regime, left, right in (
            ("aligned", Function.ALIGNED, Function.MISALIGNED_VALUE),
            ("misaligned", Function.MISALIGNED, Function.ALIGNED_VALUE),
        ):
            self._add(
                "any layer",
                "elements that change regime",
                regime,
                1,
                out_positions,
                (inputs, left),
                (outputs, right),
            )
        self._of_input(family, "input channels", 2, 1.0, inputs)
        self._of_output(family, "output channels", 2, 1.0, inputs, outputs)
        one = self._size(Size(1))
        for regime, function in _CONSTANT:
            self._add(family, "layer", regime, 2, 1.0, (inputs, function), (one, Function.ONE))

    def _dense(self, family: str, inputs: int, outputs: int, macs: float, weights: float) -> None:
        """Add layers that combine all inputs to all outputs; aligned ones work on padded outputs."""
        for quantity, level, coefficient in (("MACs", 0, macs), ("weights", 1, weights)):
            if not coefficient:
                continue
            aligned = ((inputs, Function.ALIGNED_VALUE), (outputs, Function.PADDED))
            misaligned = ((inputs, Function.MISALIGNED_VALUE), (outputs, Function.VALUE))
            for pair in (aligned, misaligned):
                self._add(family, quantity, "all", level, coefficient, *pair)
            self._add(family, quantity, "misaligned", level, coefficient, *misaligned)
            self._add(family, quantity, "aligned", level, coefficient, *aligned)

    def _per_channel(self, family: str, side: int, macs: float, weights: float) -> None:
        """Add layers that work on each channel by itself."""
        one = (self._size(Size(1)), Function.ONE)
        for quantity, level, coefficient in (("MACs", 0, macs), ("weights", 1, weights)):
            aligned, misaligned = (
                (side, Function.ALIGNED_PADDED),
                (side, Function.MISALIGNED_VALUE),
            )
            for left in (aligned, misaligned):
                self._add(family, quantity, "all", level, coefficient, left, one)
            self._add(family, quantity, "misaligned", level, coefficient, misaligned, one)
            self._add(family, quantity, "aligned", level, coefficient, aligned, one)

    def _of_input(
        self, family: str, quantity: str, level: int, coefficient: float, inputs: int
    ) -> None:
        one = (self._size(Size(1)), Function.ONE)
        for regime, function in _VALUE:
            self._add(family, quantity, regime, level, coefficient, (inputs, function), one)

    def _of_output(
        self,
        family: str,
        quantity: str,
        level: int,
        coefficient: float,
        inputs: int,
        outputs: int,
    ) -> None:
        for regime, function in _CONSTANT:
            right = (outputs, Function.VALUE)
            self._add(family, quantity, regime, level, coefficient, (inputs, function), right)

    def _add(
        self,
        family: str,
        quantity: str,
        regime: str,
        complexity: int | None,
        coefficient: float,
        left: Factor,
        right: Factor,
    ) -> None:
        key = (family, quantity, regime)
        term = self._terms.setdefault(key, Term(family, quantity, regime, complexity))
        term.pieces.append(Piece(float(coefficient), left, right))
        term.layers.append(self._layer)

    def _size(self, size: Size) -> int:
        if size not in self._index:
            self._index[size] = len(self.sizes)
            self.sizes.append(size)
        return self._index[size]


_VALUE = (
    ("all", Function.VALUE),
    ("misaligned", Function.MISALIGNED_VALUE),
    ("aligned", Function.ALIGNED_VALUE),
)
_CONSTANT = (
    ("all", Function.ONE),
    ("misaligned", Function.MISALIGNED),
    ("aligned", Function.ALIGNED),
)


def family_of(layer: LayerSpec, *, is_first: bool) -> str:
    """Return the family whose rates a layer shares, in words.

    Args:
        layer: The layer.
        is_first: Whether it reads the network's input.
    """
    if layer.kind == "conv":
        if not layer.groups.is_constant:
            return "depthwise convolution"
        if layer.groups != 1:
            return "grouped convolution"
        if is_first:
            return "first convolution"
        return "pointwise convolution" if prod(layer.kernel_size) == 1 else "convolution"
    return {"conv_transpose": "transposed convolution", "norm": "normalisation"}.get(
        layer.kind, layer.kind
    )


def share_of_groups(layer: LayerSpec) -> tuple[float, Size]:
    """Return a product's share and the output size of it that computes with all inputs.

    Args:
        layer: A linear layer or a product of matrices, in groups or not.
    """
    if layer.groups.is_constant:
        return 1.0 / int(layer.groups.at({})), layer.out_channels
    each = layer.out_channels.divided_by(layer.groups)
    return (1.0, layer.out_channels) if each is None else (1.0, each)


def functions_of(table: TermTable, widths: FloatArray, divisor: int, block: int) -> FloatArray:
    """Return all functions of all sizes, shape (n, len(table.sizes) * len(Function)).

    Between integers of a size (of its primitive part: 9 conv5 counts in steps of 9) they are
    interpolated linearly.

    Args:
        table: The network's terms and sizes.
        widths: Shape (n, k), in channels.
        divisor: d.
        block: b; of outputs, in aligned layers. Negative for a staircase in steps of -b: every
            channel count, inputs and outputs, costs as the next multiple of -b.
    """
    columns = {name: widths[:, i] for i, name in enumerate(table.width_names)}
    result = np.empty((len(widths), len(table.sizes), len(Function)))
    for index, size in enumerate(table.sizes):
        step = content(size)
        value = np.broadcast_to(np.asarray(size.at(columns), dtype=np.float64), len(widths)) / step
        low = np.floor(value)
        share = value - low
        aligned = (1 - share) * _divides(divisor, low * step)
        aligned += share * _divides(divisor, (low + 1) * step)
        padded = (1 - share) * _padded(abs(block), low * step)
        padded += share * _padded(abs(block), (low + 1) * step)
        value = padded if block < 0 else value * step
        result[:, index, :] = np.stack(
            [
                np.ones_like(value),
                value,
                aligned,
                1 - aligned,
                aligned * value,
                (1 - aligned) * value,
                padded,
                aligned * padded,
            ],
            axis=1,
        )
    return result.reshape(len(widths), -1)


def content(size: Size) -> int:
    """Return the greatest common divisor of a size's coefficients: the step that it counts in."""
    return max(1, gcd(*size.terms.values()))


def _divides(divisor: int, value: FloatArray) -> Any:
    return np.mod(value, divisor) == 0


def _padded(block: int, value: FloatArray) -> Any:
    return np.ceil(value / block) * block


def columns_of(terms: Sequence[Term], functions: FloatArray) -> FloatArray:
    """Return the regression's columns, shape (n, len(terms)).

    Args:
        terms: The terms.
        functions: What `functions_of` gave.
    """
    columns = np.empty((len(functions), len(terms)))
    for number, term in enumerate(terms):
        products = functions[:, [piece.left_index for piece in term.pieces]]
        products *= functions[:, [piece.right_index for piece in term.pieces]]
        columns[:, number] = products @ [piece.coefficient for piece in term.pieces]
    return columns


class SumOfProducts:
    """The terms times their rates as one sum of products of functions, equal ones merged.

    Args:
        terms: The terms.
        rates: Their rates, shape (len(terms),).

    Attributes:
        left: Column of each product's left factor among all functions, shape (m,).
        right: The same for the right factor.
        coefficients: Rate times coefficient, shape (m,).
    """

    def __init__(self, terms: Sequence[Term], rates: FloatArray) -> None:
        merged: dict[tuple[int, int], float] = {}
        for term, rate in zip(terms, rates, strict=True):
            for piece in term.pieces if rate else ():
                key = (piece.left_index, piece.right_index)
                merged[key] = merged.get(key, 0.0) + float(rate) * piece.coefficient
        pairs = np.array(sorted(merged), dtype=np.int64).reshape(-1, 2)
        self.left, self.right = pairs[:, 0], pairs[:, 1]
        self.coefficients = np.array([merged[key] for key in sorted(merged)], dtype=np.float64)

    def at(self, functions: FloatArray) -> FloatArray:
        """Return the sum, shape (n,), of functions as `functions_of` gives them."""
        products = functions[:, self.left] * functions[:, self.right]
        total: FloatArray = products @ self.coefficients
        return total


def chain_of(num_widths: int) -> NetworkSpec:
    """Return a chain of dense layers between one input and one output, widths x0, x1, ..."""
    names = [f"x{index}" for index in range(num_widths)]
    layers = [
        LayerSpec(f"layer{index}", "linear", left, right)
        for index, (left, right) in enumerate(pairwise(["1", *names, "1"]))
    ]
    widths = tuple(Width(name, 1) for name in names)
    return NetworkSpec("chain", "zoo:chain", (1,), widths, tuple(layers))

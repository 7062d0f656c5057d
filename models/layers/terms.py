"""What the layerwise model counts in a layer: terms whose rates hold for all networks.

As the aligned model's terms (`aligned_terms`), with two differences. A network's own totals say
nothing about another network, so there are none of them. And since layers of many shapes are
seen, the regime of a layer depends on both of its channel counts: it is aligned where its kernels
can work on whole blocks of input and of output channels.
"""

from __future__ import annotations

from math import prod

from ...datasets import LayerSpec, NetworkSpec
from ..aligned.terms import Function, TermTable, family_of, share_of_groups

FAMILIES = (
    "network",
    "first convolution",
    "convolution",
    "pointwise convolution",
    "depthwise convolution",
    "grouped convolution",
    "transposed convolution",
    "linear",
    "matmul",
    "recurrent",
    "pool",
    "elementwise",
)
QUANTITIES = (
    "call",
    "MACs",
    "weights",
    "patches",
    "taps",
    "input elements",
    "output elements",
    "elements",
    "copied elements",
    "output channels",
    "layer",
)
REGIMES = ("all", "aligned", "misaligned")
KEYS = tuple((f, q, r) for f in FAMILIES for q in QUANTITIES for r in REGIMES)
PLACES = {key: place for place, key in enumerate(KEYS)}
# Whose rates stand in for a family that no measured network has, the nearest first.
RELATIVES = {
    "first convolution": ("convolution", "pointwise convolution"),
    "convolution": ("pointwise convolution", "first convolution"),
    "pointwise convolution": ("convolution", "linear"),
    "depthwise convolution": ("grouped convolution", "convolution"),
    "grouped convolution": ("convolution", "pointwise convolution"),
    "transposed convolution": ("convolution", "pointwise convolution"),
    "linear": ("matmul", "pointwise convolution", "convolution"),
    "matmul": ("linear", "pointwise convolution", "convolution"),
    "recurrent": ("linear", "matmul", "pointwise convolution"),
    "pool": ("elementwise",),
    "elementwise": ("pool",),
}
# What moves elements and computes next to nothing shares its rates: few networks have many of each.
ELEMENTWISE = (
    "norm",
    "activation",
    "add",
    "concat",
    "embedding",
    "multiply",
    "elementwise",
    "reduce",
    "resize",
    "rearrange",
)
_ALIGNED = {
    Function.ONE: Function.ALIGNED,
    Function.VALUE: Function.ALIGNED_VALUE,
    Function.PADDED: Function.ALIGNED_PADDED,
}
_UNPADDED = {Function.PADDED: Function.VALUE}


class LayerTermTable(TermTable):
    """The terms of a network's layers, and the channel counts that they are functions of.

    Args:
        spec: The network.
    """

    def _add_products(self, spec: NetworkSpec) -> None:
        """Add nothing: products of a network's own widths mean nothing elsewhere."""

    def _add_layer(self, layer: LayerSpec, *, is_first: bool) -> None:
        family = "elementwise" if layer.kind in ELEMENTWISE else family_of(layer, is_first=is_first)
        self.channel_counts |= {layer.in_channels, layer.out_channels}
        sides = self._size(layer.in_channels), self._size(layer.out_channels)
        in_positions = prod(layer.in_size) * layer.positions
        out_positions = prod(layer.out_size) * layer.positions
        taps = prod(layer.kernel_size)
        one, value, padded = Function.ONE, Function.VALUE, Function.PADDED
        add = _Adder(self, family, sides, is_blocked=is_blocked(layer))
        if layer.kind in ("conv", "conv_transpose"):
            positions = out_positions if layer.kind == "conv" else in_positions
            if family == "depthwise convolution":
                add("MACs", taps * positions, one, padded)
                add("weights", taps, one, value)
            else:
                groups = int(layer.groups.at({})) if layer.groups.is_constant else 1
                add("MACs", taps * positions / groups, value, padded)
                add("weights", taps / groups, value, value)
                if taps > 1:
                    add("patches", taps * out_positions, value, one)
        elif layer.kind in ("linear", "matmul"):
            share, each = share_of_groups(layer)
            product = _Adder(self, family, (sides[0], self._size(each)), is_blocked=False)
            product("MACs", layer.positions * share, value, padded)
            if layer.kind == "linear":
                product("weights", share, value, value)
        elif layer.kind == "recurrent":
            add("MACs", layer.gates * layer.positions, value, value)
            add("weights", layer.gates, value, value)
            recurrent = _Adder(self, family, (sides[1], sides[1]), is_blocked=False)
            recurrent("MACs", layer.gates * layer.positions / layer.directions, value, value)
            recurrent("weights", layer.gates / layer.directions, value, value)
        elif layer.kind == "pool":
            add("taps", taps * out_positions, one, value)
        if family in ("elementwise", "pool"):
            reads = max(1, len(layer.inputs)) if layer.kind == "add" else 1
            add("elements", in_positions * reads, value, one)
            add("elements", out_positions, one, value)
        else:
            add("input elements", in_positions, value, one)
            add("output elements", out_positions, one, value)
            add("output channels", 1.0, one, value)
        if is_blocked(layer):
            self._add_copies(family, sides, in_positions, out_positions)
        add("layer", 1.0, one, one)

    def _add_copies(
        self, family: str, sides: tuple[int, int], in_positions: int, out_positions: int
    ) -> None:
        """Add the elements that are copied into or out of blocks, where only one side has them."""
        inputs, outputs = sides
        for coefficient, left, right in (
            (in_positions, Function.ALIGNED_VALUE, Function.MISALIGNED),
            (out_positions, Function.MISALIGNED, Function.ALIGNED_VALUE),
        ):
            self._add(
                family,
                "copied elements",
                "all",
                0,
                coefficient,
                (inputs, left),
                (outputs, right),
            )


def is_blocked(layer: LayerSpec) -> bool:
    """Return whether runtimes have kernels that work on blocks of its channels."""
    return layer.kind in ("conv", "conv_transpose", "pool", "add", "concat", "activation")


class _Adder:
    """Adds one quantity of a layer to all layers' terms and to those of its regime.

    Args:
        table: Where to.
        family: The layer's family.
        sides: The sizes of its input and output channels.
        is_blocked: Whether there are regimes at all.
    """

    def __init__(
        self, table: LayerTermTable, family: str, sides: tuple[int, int], *, is_blocked: bool
    ) -> None:
        self.table, self.family, self.sides, self.is_blocked = table, family, sides, is_blocked

    def __call__(self, quantity: str, coefficient: float, left: Function, right: Function) -> None:
        inputs, outputs = self.sides
        unpadded = _UNPADDED.get(right, right)
        table = self.table
        is_narrow = table.sizes[inputs].is_constant and self.family == "first convolution"
        # The first layer's few input channels are no block, and have kernels of their own.
        aligned = (inputs, left if is_narrow else _ALIGNED[left]), (outputs, _ALIGNED[right])
        within = (aligned[0], (outputs, _ALIGNED[unpadded]))
        everything = (inputs, left), (outputs, unpadded)
        if not self.is_blocked:
            padded = (inputs, left), (outputs, right)
            table._add(self.family, quantity, "all", 0, coefficient, *padded)  # noqa: SLF001
            return
        regimes = (
            ("aligned", [(coefficient, aligned)]),
            ("misaligned", [(coefficient, everything), (-coefficient, within)]),
        )
        for regime, pieces in regimes:
            for factor, pair in pieces:
                table._add(self.family, quantity, "all", 0, factor, *pair)  # noqa: SLF001
                table._add(self.family, quantity, regime, 0, factor, *pair)  # noqa: SLF001

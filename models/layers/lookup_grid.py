"""The tables of a network's layers: knots over channel counts, and interpolation between them.

Where kernels need channel counts that a divisor divides, each layer has two tables: one for variants
at which it is aligned, input and output channels, and one for the others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...datasets import LayerProfiles, NetworkSpec, Size
from ..aligned.terms import Function, content, family_of
from ..base.intervals import FloatArray
from .terms import PLACES, LayerTermTable, is_blocked

# What functions of a channel count are where it is aligned, and where it is not: 0, 1 or itself.
_VALUE = "value"
_ALIGNED: dict[Function, float | str] = {
    Function.ONE: 1.0,
    Function.VALUE: _VALUE,
    Function.ALIGNED: 1.0,
    Function.MISALIGNED: 0.0,
    Function.ALIGNED_VALUE: _VALUE,
    Function.MISALIGNED_VALUE: 0.0,
    Function.PADDED: _VALUE,
    Function.ALIGNED_PADDED: _VALUE,
}
_MISALIGNED: dict[Function, float | str] = _ALIGNED | {
    Function.ALIGNED: 0.0,
    Function.MISALIGNED: 1.0,
    Function.ALIGNED_VALUE: 0.0,
    Function.MISALIGNED_VALUE: _VALUE,
    Function.ALIGNED_PADDED: 0.0,
}


@dataclass(frozen=True)
class Table:
    """Where a layer's table lies among all sizes.

    Attributes:
        layer: Its name.
        inputs: Index of the size on its first axis.
        outputs: Index of the size on its second axis; that of the constant 1 where the output
            channels are the input channels.
        aligned_by: Indices of the two sizes that must be aligned; 0, the constant, always is.
    """

    layer: str
    inputs: int
    outputs: int
    aligned_by: tuple[int, int]


class LookupGrid:
    """Knots of all channel counts and the layers' tables over them.

    Args:
        spec: The network.
        low: Smallest widths, shape (k,), in channels.
        high: Largest widths, shape (k,).
        knots: Knots of each size that varies, evenly spaced.
        divisor: What aligned channel counts are multiples of; 1 for a single table per layer.

    Attributes:
        sizes: The channel counts, s of them; the first is the constant 1.
        tables: One for each layer.
        first: First knot of each size, shape (s,).
        step: Distance between its knots, shape (s,).
    """

    def __init__(
        self, spec: NetworkSpec, low: FloatArray, high: FloatArray, knots: int, divisor: int = 1
    ) -> None:
        self.terms = LayerTermTable(spec)
        self.knots, self.divisor = knots, divisor
        self.regimes = (_ALIGNED, _MISALIGNED) if divisor > 1 else (_ALIGNED,)
        self.width_names = spec.width_names
        by_name = {layer.name: layer for layer in spec.layers}
        self.sizes: list[Size] = [Size(1)]
        index = {Size(1): 0}
        self.tables: list[Table] = []
        for name in dict.fromkeys(name for term in self.terms.terms for name in term.layers):
            if name not in by_name:
                continue
            places = []
            for size in (by_name[name].in_channels, by_name[name].out_channels):
                if size not in index:
                    index[size] = len(self.sizes)
                    self.sizes.append(size)
                places.append(index[size])
            inputs, outputs = places
            layer = by_name[name]
            aligned_by = (inputs, outputs) if is_blocked(layer) else (0, 0)
            is_first = "" in spec.producers[name]
            if family_of(layer, is_first=is_first) == "first convolution":
                aligned_by = (0, outputs)
            only = outputs if outputs != inputs else 0
            self.tables.append(Table(name, inputs, only, aligned_by))
        ends = [self.values(np.array([end], dtype=np.float64))[0] for end in (low, high)]
        self.first = np.minimum(*ends)
        spread = np.abs(ends[1] - ends[0])
        self.step = np.where(spread > 0, spread / max(1, knots - 1), 1.0)
        self.counts = np.array([float(content(size)) for size in self.sizes])

    def values(self, X: FloatArray) -> FloatArray:
        """Return the sizes, shape (n, s), of widths (n, k)."""
        columns = {name: X[:, place] for place, name in enumerate(self.width_names)}
        return np.column_stack(
            [
                np.broadcast_to(np.asarray(size.at(columns), dtype=np.float64), len(X))
                for size in self.sizes
            ]
        )

    def hats(self, X: FloatArray) -> FloatArray:
        """Return the weight of each knot of each size, shape (n, s, knots); extrapolates linearly."""
        position = (self.values(X) - self.first) / self.step
        left = np.clip(np.floor(position), 0, max(0, self.knots - 2)).astype(np.int64)
        share = position - left
        result = np.zeros((*position.shape, self.knots))
        np.put_along_axis(result, left[..., None], (1 - share)[..., None], axis=-1)
        if self.knots > 1:
            np.put_along_axis(result, left[..., None] + 1, share[..., None], axis=-1)
        return result

    def aligned(self, X: FloatArray) -> FloatArray:
        """Return how far each table's layer is aligned, shape (n, tables), 0 or 1 at integers."""
        counted = self.values(X) / self.counts
        low = np.floor(counted)
        below, above = (np.mod(value * self.counts, self.divisor) == 0 for value in (low, low + 1))
        share = counted - low
        result = (1 - share) * below + share * above
        result[:, 0] = 1.0
        first, second = np.array([table.aligned_by for table in self.tables]).T
        product: FloatArray = result[:, first] * result[:, second]
        return product

    def products(self, X: FloatArray) -> FloatArray:
        """Return the weight of each cell of each table, shape (n, tables, regimes * knots**2)."""
        hats = self.hats(X)
        left = hats[:, [table.inputs for table in self.tables]]
        right = hats[:, [table.outputs for table in self.tables]]
        cells = left[..., :, None] * right[..., None, :]
        cells = cells.reshape(len(X), len(self.tables), -1)
        if len(self.regimes) == 1:
            return cells
        aligned = self.aligned(X)[..., None]
        return np.concatenate([aligned * cells, (1 - aligned) * cells], axis=-1)

    def part_products(self, profiles: LayerProfiles) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return weights of cells of each part (m, tables, knots**2), its variant (m,) and share (m,).

        Args:
            profiles: What layers took.
        """
        places = {table.layer: place for place, table in enumerate(self.tables)}
        products = self.products(profiles.widths.astype(np.float64))
        rows, variants, shares = [], [], []
        for index, variant in enumerate(profiles.variants):
            total = sum(part.median_s for part in variant.parts)
            for part in variant.parts:
                chosen = [places[name] for name in part.layers if name in places]
                if chosen and part.median_s > 0:
                    row = np.zeros(products.shape[1:])
                    row[chosen] = products[index, chosen]
                    rows.append(row)
                    variants.append(index)
                    shares.append(part.median_s / total)
        return np.array(rows), np.array(variants), np.array(shares)

    def tables_of(self, rates: FloatArray) -> tuple[float, FloatArray]:
        """Return a constant and tables (tables, regimes * knots**2) that hold a layerwise model.

        Args:
            rates: As `layerwise_fit.fit_rates` gives them, for blocks of one channel.
        """
        knots = self.first[:, None] + self.step[:, None] * np.arange(self.knots)
        places = {table.layer: place for place, table in enumerate(self.tables)}
        result = np.zeros((len(self.tables), len(self.regimes), self.knots, self.knots))
        constant = 0.0
        for term in self.terms.terms:
            rate = max(0.0, rates[PLACES[term.family, term.quantity, term.regime]])
            for piece, layer in zip(term.pieces, term.layers, strict=True) if rate else ():
                if layer not in places:
                    constant += rate * piece.coefficient
                    continue
                table = self.tables[places[layer]]
                for number, regime in enumerate(self.regimes):
                    product = np.full((self.knots, self.knots), rate * piece.coefficient)
                    for size, function in (piece.left, piece.right):
                        known = regime[function]
                        if isinstance(known, float):
                            product *= known
                        else:
                            product *= self._axis(self.terms.sizes[size], table, knots)
                    result[places[layer], number] += product
        # Elements that are copied may make up for terms that are subtracted, nothing else can.
        return constant, np.maximum(result, 0.0).reshape(len(self.tables), -1)

    def _axis(self, size: Size, table: Table, knots: FloatArray) -> FloatArray:
        """Return a size's values over a table, shape (knots, 1), (1, knots) or ()."""
        if size == self.sizes[table.inputs]:
            return np.asarray(knots[table.inputs][:, None])
        if size == self.sizes[table.outputs]:
            return np.asarray(knots[table.outputs][None, :])
        return np.array(float(size.at({})))


def curvature(knots: int) -> FloatArray:
    """Return the penalty of a table's second differences, shape (knots**2, knots**2)."""
    second = np.diff(np.eye(knots), n=2, axis=0)
    identity = np.eye(knots)
    rows, columns = np.kron(second, identity), np.kron(identity, second)
    penalty: FloatArray = rows.T @ rows + columns.T @ columns
    return penalty

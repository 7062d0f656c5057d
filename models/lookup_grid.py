"""The tables of a network's layers: knots over channel counts, and interpolation between them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..datasets import LayerProfiles, NetworkSpec, Size
from .aligned_terms import Function
from .intervals import FloatArray
from .layer_terms import PLACES, LayerTermTable

# Functions of a channel count without regimes and blocks.
_ONES = (Function.ONE, Function.ALIGNED)
_NONE = (Function.MISALIGNED, Function.MISALIGNED_VALUE)


@dataclass(frozen=True)
class Table:
    """Where a layer's table lies among all sizes.

    Attributes:
        layer: Its name.
        inputs: Index of the size on its first axis.
        outputs: Index of the size on its second axis; that of the constant 1 where the output
            channels are the input channels.
    """

    layer: str
    inputs: int
    outputs: int


class LookupGrid:
    """Knots of all channel counts and the layers' tables over them.

    Args:
        spec: The network.
        low: Smallest widths, shape (k,), in channels.
        high: Largest widths, shape (k,).
        knots: Knots of each size that varies, evenly spaced.

    Attributes:
        sizes: The channel counts, s of them; the first is the constant 1.
        tables: One for each layer.
        first: First knot of each size, shape (s,).
        step: Distance between its knots, shape (s,).
    """

    def __init__(self, spec: NetworkSpec, low: FloatArray, high: FloatArray, knots: int) -> None:
        self.terms = LayerTermTable(spec)
        self.knots = knots
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
            self.tables.append(Table(name, inputs, outputs if outputs != inputs else 0))
        ends = [self.values(np.array([end], dtype=np.float64))[0] for end in (low, high)]
        self.first = np.minimum(*ends)
        spread = np.abs(ends[1] - ends[0])
        self.step = np.where(spread > 0, spread / max(1, knots - 1), 1.0)

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

    def products(self, X: FloatArray) -> FloatArray:
        """Return the weight of each cell of each table, shape (n, tables, knots**2)."""
        hats = self.hats(X)
        left = hats[:, [table.inputs for table in self.tables]]
        right = hats[:, [table.outputs for table in self.tables]]
        cells = left[..., :, None] * right[..., None, :]
        return cells.reshape(len(X), len(self.tables), -1)

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
        """Return a constant and tables (tables, knots**2) that hold a layerwise model without regimes.

        Args:
            rates: As `layerwise_fit.fit_rates` gives them.
        """
        knots = self.first[:, None] + self.step[:, None] * np.arange(self.knots)
        places = {table.layer: place for place, table in enumerate(self.tables)}
        result = np.zeros((len(self.tables), self.knots, self.knots))
        constant = 0.0
        for term in self.terms.terms:
            rate = max(0.0, rates[PLACES[term.family, term.quantity, term.regime]])
            for piece, layer in zip(term.pieces, term.layers, strict=True) if rate else ():
                if layer not in places:
                    constant += rate * piece.coefficient
                    continue
                table = self.tables[places[layer]]
                product = np.full((self.knots, self.knots), rate * piece.coefficient)
                for number, function in (piece.left, piece.right):
                    if function in _NONE:
                        product *= 0.0
                    elif function not in _ONES:
                        product *= self._axis(self.terms.sizes[number], table, knots)
                result[places[layer]] += product
        return constant, result.reshape(len(self.tables), -1)

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

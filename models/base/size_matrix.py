"""Many channel counts as one affine function of the widths and of products of widths."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...datasets import Size
from .intervals import FloatArray


def as_matrix(
    sizes: Sequence[Size], names: Sequence[str]
) -> tuple[FloatArray, FloatArray, list[list[int]]]:
    """Return the sizes as (matrix, constant, products): sizes = [widths, products] matrix + constant.

    Args:
        sizes: Polynomials in the widths, s of them.
        names: Names of the k widths, in order.

    Returns:
        The matrix (k + p, s), the constant (s,), and for each of the p products of widths the
        columns that are multiplied.
    """
    index = {name: number for number, name in enumerate(names)}
    rows: dict[tuple[str, ...], int] = {(name,): number for name, number in index.items()}
    products: list[list[int]] = []
    constant = np.zeros(len(sizes))
    entries: list[tuple[int, int, float]] = []
    for column, size in enumerate(sizes):
        for monomial, coefficient in size.terms.items():
            if not monomial:
                constant[column] = coefficient
                continue
            if monomial not in rows:
                rows[monomial] = len(rows)
                products.append([index[name] for name in monomial])
            entries.append((rows[monomial], column, float(coefficient)))
    matrix = np.zeros((len(rows), len(sizes)))
    for row, column, value in entries:
        matrix[row, column] = value
    return matrix, constant, products

"""Rows of the same widths whose costs contradict each other."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from joulemap import InputError

from .intervals import FloatArray

# Noise of a visit is a few percent, and tens of percent on the worst machines.
LEAST_RATIO = 2.0
# From so many of the repeated rows on, it is not an accident.
REFUSED_SHARE = 0.5


class ContradictionWarning(UserWarning):
    """A few rows of the same widths have costs that differ by more than noise does."""


def check_contradictions(
    X: FloatArray, y: FloatArray, names: Sequence[str], *, is_network: bool, stacklevel: int
) -> None:
    """Warn where rows of the same widths have costs that differ by a factor of 2 or more.

    Where at least half of the repeated width vectors of a network do, the data mix what they do
    not tell apart, and are refused. Features of a table need not determine the cost: only a warning.

    Args:
        X: Widths, shape (n, k).
        y: Costs, shape (n,); costs that are not all positive have no ratio and are not checked.
        names: Names of the columns.
        is_network: Whether the columns are the widths of a network.
        stacklevel: Of the warning, counted from the caller.

    Raises:
        InputError: Contradictions in at least half of the repeated width vectors.
    """
    distinct, inverse, counts = np.unique(X, axis=0, return_inverse=True, return_counts=True)
    num_repeated = int(np.sum(counts > 1))
    if not num_repeated or np.any(y <= 0):
        return
    low, high = np.full(len(distinct), np.inf), np.zeros(len(distinct))
    np.minimum.at(low, inverse.reshape(-1), y)
    np.maximum.at(high, inverse.reshape(-1), y)
    ratio = high / low
    num_contradictory = int(np.sum(ratio >= LEAST_RATIO))
    if not num_contradictory:
        return
    worst = int(np.argmax(ratio))
    at = ", ".join(
        f"{name}={value:g}" for name, value in zip(names[:8], distinct[worst, :8], strict=True)
    )
    more = ", ..." if len(names) > 8 else ""
    sentence = (
        f"the data contradict themselves: {num_contradictory} of {num_repeated} repeated rows have "
        f"costs that differ by a factor of {LEAST_RATIO:g} or more, such as {low[worst]:.4g} and "
        f"{high[worst]:.4g} at {at}{more}; leave out the wrong rows, or select those of one device "
        "and one set of conditions"
    )
    if is_network and num_contradictory >= REFUSED_SHARE * num_repeated:
        raise InputError(sentence)
    warnings.warn(sentence, ContradictionWarning, stacklevel=stacklevel + 1)

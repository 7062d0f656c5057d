"""Which width vectors to measure, so that the aligned model's predictions become sure soonest."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...datasets import NetworkSpec
from ..base.intervals import FloatArray
from ..base.selection import least_variance
from .fit import SEARCH_COMPLEXITY, Candidate, Design
from .terms import TermTable

# Which divisor a device has is not known before it is measured, so the design serves them all.
LIKELY_DIVISORS = (4, 8, 16)
# Variance of the noise of one measurement, over the prior variance of what the model predicts.
NOISE_SHARE = 0.001


def informative_widths(
    spec: NetworkSpec, candidates: FloatArray, num_measured: int = 0
) -> Iterator[int]:
    """Yield the indices of the candidates to measure next, the most informative first.

    Each lowers most what would remain uncertain, on average over all candidates, of the relative
    cost by the aligned model, whichever of the likely divisors the device has. No cost needs to be
    known: how sure a linear model is depends on where it is measured, not on what is found there.

    Args:
        spec: The network.
        candidates: Width vectors in channels, shape (n, k).
        num_measured: How many of the first candidates are measured already.

    Raises:
        InputError: The network has a layer that the aligned model has no term for.
    """
    design = Design(TermTable(spec), candidates)
    without_regimes, _ = design.columns(Candidate(1, 1, SEARCH_COMPLEXITY))
    # What a network costs roughly, up to a factor: each quantity has the same share on average.
    rough_cost = (without_regimes / without_regimes.mean(axis=0)).mean(axis=1)
    features = []
    for divisor in LIKELY_DIVISORS:
        columns, _ = design.columns(Candidate(divisor, divisor, SEARCH_COMPLEXITY))
        relative = columns / rough_cost[:, None]
        size = np.sqrt((relative**2).mean(axis=0))
        relative = relative[:, size > 0] / size[size > 0]
        # Every term explains as much as any other.
        features.append(relative / np.sqrt(relative.shape[1]))
    return least_variance(features, NOISE_SHARE, num_measured)

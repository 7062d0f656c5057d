"""How noisy a running campaign is: what repeats of the same variant differ by."""

from __future__ import annotations

import math
from collections.abc import Iterable

from ....datasets import Visit


class NoiseTracker:
    """Keeps the mean relative difference of successive visits of the same variant.

    The figure is the noise floor's formula (|a - b| over their mean, over the square root of 2) on
    single visits, so it is what one visit is good for; the dataset's noise floor compares halves.
    """

    def __init__(self, visits: Iterable[Visit] = ()) -> None:
        self._last: dict[str, float] = {}
        self._total = 0.0
        self._pairs = 0
        for visit in visits:
            self.add(visit)

    def add(self, visit: Visit) -> None:
        """Take one more visit into account; failed ones say nothing."""
        if visit.timing is None:
            return
        latency = visit.timing.latency_s
        before = self._last.get(visit.variant_id)
        if before is not None:
            self._total += abs(latency - before) / ((latency + before) / 2) / math.sqrt(2)
            self._pairs += 1
        self._last[visit.variant_id] = latency

    @property
    def single_visit(self) -> float | None:
        """The noise of a single visit as a fraction; None before any variant was visited twice."""
        return self._total / self._pairs if self._pairs else None

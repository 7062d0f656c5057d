"""A sampler that favours the ends of each width's range."""

from __future__ import annotations

import random
from collections.abc import Iterator

from joulemap.datasets import NetworkSpec
from joulemap.profiler import Sampler


def draw(spec: NetworkSpec, count: int, seed: int) -> Iterator[tuple[int, ...]]:
    """Yield vectors whose widths are the least or the most, every other vector uniform."""
    del count
    rng = random.Random(seed)
    while True:
        yield tuple(rng.choice((width.min, width.max)) for width in spec.widths)
        yield tuple(rng.randrange(w.min, w.max + 1, w.multiple) for w in spec.widths)


SAMPLER = Sampler(draw, is_prefix_stable=True)

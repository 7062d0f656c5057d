"""Visits whose process did not have a processor all the time, told by its own CPU time.

A runtime that computes on processors keeps at least one of them busy from the first call of a block
to the last: with one thread its CPU time is the block's duration, with several it is that or more,
whether idle threads spin or sleep (see `docs/protocol.md` for what honest visits show). Where it is
clearly less, something else had the processor: other programs, a container's CPU quota, a stopped
process. The load average does not show a quota, and may be low beside a single busy program.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...datasets.records import Timing

# Not calibrated on many devices: process clocks of old kernels step by 4 to 10 ms of a block's 50, and
# small kernels on several threads that do not spin have shown 0.84 to 0.88 on a busy machine.
MIN_PROCESSOR_SHARE = 0.85
# Runtimes that compute on processors.
CPU_RUNTIMES = ("onnxruntime", "litert", "torch")


@dataclass(frozen=True)
class Starvation:
    """How far visits lacked a processor.

    Attributes:
        num_visits: Visits that lacked one.
        share: Of the visits.
        processor_share: Median over these visits of CPU time over duration.
    """

    num_visits: int
    share: float
    processor_share: float


def processor_share(timing: Timing) -> float:
    """Return the CPU time of a visit's blocks over their duration, withheld time left out."""
    wall_s = sum(block.wall_s - (block.steal_s or 0.0) for block in timing.blocks)
    return sum(block.cpu_s for block in timing.blocks) / max(wall_s, 1e-9)


def starvation(timings: Sequence[Timing]) -> Starvation | None:
    """Return how far visits lacked a processor; None if none did.

    Args:
        timings: Of visits whose runtime computes on processors.
    """
    shares = np.array([processor_share(timing) for timing in timings])
    starved = shares < MIN_PROCESSOR_SHARE
    if not starved.any():
        return None
    return Starvation(int(starved.sum()), float(starved.mean()), float(np.median(shares[starved])))


def computes_on_processors(runtime: str) -> bool:
    """Return whether a runtime's work is CPU time of its process."""
    return runtime in CPU_RUNTIMES

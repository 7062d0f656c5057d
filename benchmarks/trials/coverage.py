"""Whole campaigns on simulated devices whose truth is known: do stated 95 % intervals hold it?

Rows of one campaign share an error, so a round is one campaign, and whether the promise holds is
judged from campaign to campaign. `python benchmarks/protocol.py` prints coverages of many more.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from protocol import measure

from joulemap.profiler import Protocol
from trials import Outcome, Trial

SAMPLES = 30
# What rows may miss of intervals that should hold 95 %, and with every disturbance at once.
REALISTIC_MISSES = 0.07
HARSH_MISSES = 0.1


def covered(preset: str, machine: int) -> Outcome:
    """Return how many rows of a campaign the truth lies outside of."""
    memory = Path("/dev/shm")  # noqa: S108 - a journal syncs every line, which disks take long for
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        found = measure(preset, machine, SAMPLES, Protocol(), 0.0, Path(folder))
    is_known = np.isfinite(found.ratios)
    failures = tuple(
        f"{preset}, machine {machine}, row {row}: stated {found.ratios[row]:.3f} times the truth "
        f"+-{100 * found.half_widths[row]:.1f} %"
        for row in np.flatnonzero(~found.is_covered & is_known)
    )
    figures = (
        ("half-width", float(np.nanmedian(found.half_widths))),
        ("common error", abs(float(np.nanmedian(found.ratios)) - 1)),
    )
    return Outcome(int(is_known.sum()), failures, figures)


TRIALS = (
    *(
        Trial(
            f"coverage-{preset.replace('_', '-')}",
            f"95 % intervals of latency hold the truth: {preset}",
            40,
            partial(covered, preset),
            may_fail=REALISTIC_MISSES,
        )
        for preset in ("quiet", "shared_host", "phone")
    ),
    Trial(
        "coverage-harsh",
        "the same with every disturbance at once",
        40,
        partial(covered, "harsh"),
        may_fail=HARSH_MISSES,
    ),
)

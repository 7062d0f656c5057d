"""Whole campaigns on simulated devices whose truth is known: do stated 95 % intervals hold it?

Rows of one campaign share an error, so that a few campaigns say little about the last per cent:
`python benchmarks/protocol.py` prints each preset's coverage with an interval over campaigns.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from protocol import measure

from joulemap.profiler import Protocol
from trials import Outcome, Trial

CAMPAIGNS = 4
SAMPLES = 30
# What rows may miss: 5 % by the intervals' own word, the rest for so few campaigns.
REALISTIC_MISSES = 0.1
HARSH_MISSES = 0.2


def covered(preset: str, seed: int) -> Outcome:
    """Return how many rows of some campaigns the truth lies outside of."""
    tries, failures, widths, common = 0, [], [], []
    memory = Path("/dev/shm")  # noqa: S108 - a journal syncs every line, which disks take long for
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        for number in range(CAMPAIGNS):
            # Rounds have neighbouring seeds; no two may share a machine.
            machine = CAMPAIGNS * seed + number
            found = measure(preset, machine, SAMPLES, Protocol(), 0.0, Path(folder))
            missed = np.flatnonzero(~found.is_covered & np.isfinite(found.ratios))
            tries += int(np.isfinite(found.ratios).sum())
            failures += [
                f"{preset}, machine {machine}, row {row}: stated {found.ratios[row]:.3f} times the "
                f"truth +-{100 * found.half_widths[row]:.1f} %"
                for row in missed
            ]
            widths.append(float(np.nanmedian(found.half_widths)))
            common.append(abs(float(np.nanmedian(found.ratios)) - 1))
    return Outcome(
        tries,
        tuple(failures),
        (("half_width", float(np.mean(widths))), ("common_error", float(np.mean(common)))),
    )


TRIALS = (
    *(
        Trial(
            f"coverage-{preset.replace('_', '-')}",
            f"95 % intervals of latency hold the truth: {preset}",
            10,
            partial(covered, preset),
            may_fail=REALISTIC_MISSES,
        )
        for preset in ("quiet", "shared_host", "phone")
    ),
    Trial(
        "coverage-harsh",
        "the same with every disturbance at once",
        10,
        partial(covered, "harsh"),
        may_fail=HARSH_MISSES,
    ),
)

"""Whether two counters are one that is shown twice, maybe with a delay.

Processors of several dies have one energy counter, which some kernels show once per die. A copy may be
an update behind. Two counters that count by themselves never show the same numbers: a step is some
microjoules, an update thousands of steps. So both are read in quick succession for a moment, and what
tells is how many of the numbers that the one shows the other one shows as well.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ..onboard.energy.meter import MeterError
from ..onboard.files import Files
from .readings import NumberFile

# Counters of one supply since the same start, further apart than a copy can be behind.
MAX_APART_UJ = 20e6
WATCH_S = 0.25
STILL_S = 0.05
# So many numbers in common are no chance.
SHARED_VALUES = 3
# Where nothing moves, as far apart as an update of a large processor at its most.
STILL_APART_UJ = 0.5e6


def is_mirror(
    files: Files,
    first: str,
    second: str,
    range_uj: float,
    *,
    is_one_package: bool,
    clock: Callable[[], float] = time.monotonic,
) -> bool:
    """Return whether two counters show one.

    Args:
        files: The machine's files.
        first: File of the one, in microjoules.
        second: File of the other.
        range_uj: Where they start again at 0.
        is_one_package: Whether both are of one processor package. Of two packages the counters
            are taken for one only where they are seen to move alike.
        clock: The time in s.
    """
    opened: list[NumberFile] = []
    try:
        opened += [NumberFile(files, first), NumberFile(files, second)]
        return _is_mirror(opened[0], opened[1], range_uj, is_one_package, clock)
    except (OSError, MeterError):
        return False
    finally:
        for file in opened:
            file.close()


def _is_mirror(
    first: NumberFile,
    second: NumberFile,
    range_uj: float,
    is_one_package: bool,
    clock: Callable[[], float],
) -> bool:
    ours, theirs = {first.read()}, {second.read()}
    apart = abs(min(ours) - min(theirs))
    apart = min(apart, abs(range_uj - apart))
    if apart > MAX_APART_UJ:
        return False
    began = clock()
    while len(ours & theirs) < SHARED_VALUES:
        ours.add(first.read())
        theirs.add(second.read())
        passed_s = clock() - began
        is_still = len(ours) == len(theirs) == 1
        if passed_s > WATCH_S or (is_still and passed_s > STILL_S):
            break
    if min(len(ours), len(theirs)) >= SHARED_VALUES:
        return len(ours & theirs) >= SHARED_VALUES
    return is_one_package and apart <= STILL_APART_UJ

"""Which CPUs of a processor are cores of one kind, where the kernel names no cores.

Linux gives each CPU of an x86 processor a frequency of its own, so frequencies that CPUs share tell
nothing there. What does::

    the counters' names     cpu_core, cpu_atom and cpu_lowpower of Intel's hybrid processors
    a gap in speed          cores of two kinds are apart by more than a fifth

Cores of one kind differ as well, by what each may boost to; they do so in steps, without a gap.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ..files import Files

# Events of the performance counters: where each kind of core has its own, its CPUs are listed.
_COUNTERS = {
    "cpu_core": "performance core",
    "cpu_atom": "efficiency core",
    "cpu_lowpower": "low-power core",
}
_MAX_CPUS = 4096
# The slower of two kinds has at most so much of the faster one's frequency. Intel's favoured cores are
# ahead of the others by a twentieth, AMD's by up to a fifth.
GAP = 0.8
INTEL_GAP = 0.9


def named_kinds(files: Files) -> dict[int, str]:
    """Return CPU -> kind of core, as the counters of a hybrid processor tell; nothing on others."""
    found: dict[int, str] = {}
    for folder, kind in _COUNTERS.items():
        cpus = parse_cpus(files.text(f"sys/devices/{folder}/cpus") or "")
        found.update(dict.fromkeys(cpus, kind))
    return found if len(set(found.values())) > 1 else {}


def parts_by_gap(speeds: Mapping[int, float | None], gap: float = GAP) -> dict[int, int]:
    """Return CPU -> number of its part, 0 for the slowest; parts are those with a gap between them.

    Args:
        speeds: CPU -> its highest frequency or capacity; None, where unknown, is a part of its own.
        gap: Two neighbours in order are apart where the slower has less than this share of the other.
    """
    known = sorted({speed for speed in speeds.values() if speed})
    starts = [b for a, b in zip(known, known[1:]) if a < gap * b]
    return {
        cpu: sum(start <= speed for start in starts) if speed else -1
        for cpu, speed in speeds.items()
    }


def parse_cpus(text: str) -> Sequence[int]:
    """Return the CPUs that the kernel writes as 0-3,6."""
    cpus: list[int] = []
    for span in text.split(","):
        ends = re.match(r"([0-9]{1,4})(?:-([0-9]{1,4}))?\Z", span.strip())
        if ends:
            last = min(int(ends[2] or ends[1]), _MAX_CPUS)
            cpus += range(int(ends[1]), last + 1)
    return cpus

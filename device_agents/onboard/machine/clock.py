"""The clocks that a visit is timed with; a simulated device brings its own."""

from __future__ import annotations

import time
from collections.abc import Sequence

from .host_state import MACHINE


class MachineClock:
    """The machine's clocks, in seconds; each has an origin of its own, so only differences count."""

    def monotonic_s(self) -> float:
        """Return the clock that latencies are measured with: finest steps, never set."""
        return time.perf_counter()

    def sleep(self, duration_s: float) -> None:
        """Let time pass without work."""
        time.sleep(duration_s)

    def cpu_s(self) -> float:
        """Return the CPU time of this process."""
        return time.process_time()

    def wall_s(self) -> float:
        """Return the wall clock, which can be set and then jumps."""
        return time.time()

    def boot_s(self) -> float:
        """Return the time since boot with suspended time; the monotonic clock if there is none."""
        if hasattr(time, "CLOCK_BOOTTIME"):
            return time.clock_gettime(time.CLOCK_BOOTTIME)
        return time.perf_counter()

    def steal_s(self, cpus: Sequence[int]) -> float | None:
        """Return the time that the hypervisor withheld from these CPUs, None if unknown."""
        return MACHINE.steal_s(cpus)

"""One visit: the reference, the variant's warm-up and blocks, the reference again.

::

    |reference| w w w w . . w |  block  |  block  |  block  | ... |reference|
               ^ warm-up ends when the change-point test passes
               |<--------------- at most max_visit_s -------------->|

Where meters are read, idle time lies before and after the blocks, and the blocks last until the
meters have seen enough (see `energy_visit`).

A block is a handful of runs that together last about `block_s`; a run is one call, or several when
one call is shorter than `min_run_s`. Raw times stay in the result; statistics come later.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .energy.visit import EnergyVisit
from .machine.clock import MachineClock
from .visit_settings import VisitSettings
from .warm_up import steady_from

MIN_WARM_UP_RUNS = 5
MAX_WARM_UP_RUNS = 400
MAX_REFERENCE_RUNS = 30
# The reference warms up for at most so many times its block's duration.
REFERENCE_WARM_UP_SHARE = 10.0


@dataclass(frozen=True)
class Measured:
    """What one visit's runs told.

    Args:
        warm_up_s: Seconds per call of each warm-up run.
        is_settled: Whether the warm-up ended before its time was up.
        blocks: The timed blocks (see `Stopwatch.block`).
        reference_before: Such a block of the reference, before.
        reference_after: ... and after.
        measuring_s: First warm-up call to last timed call.
        suspended_s: How long the machine slept meanwhile.
        clock_jump_s: By how much its wall clock was set.
        energy: What the meters say; None without one.
    """

    warm_up_s: list[float]
    is_settled: bool
    blocks: list[dict[str, Any]]
    reference_before: dict[str, Any]
    reference_after: dict[str, Any]
    measuring_s: float
    suspended_s: float
    clock_jump_s: float
    energy: dict[str, Any] | None


class Stopwatch:
    """Times runs with one clock on given CPUs.

    Args:
        clock: See `clock.MachineClock`.
        cpus: The CPUs that the runs are bound to, for their steal counters.
    """

    def __init__(self, clock: MachineClock, cpus: Sequence[int]) -> None:
        self.clock = clock
        self.cpus = cpus

    def block(self, run: Callable[[], None], num_runs: int, calls: int) -> dict[str, Any]:
        """Return the raw times of a block of runs."""
        now = self.clock.monotonic_s
        further = range(calls - 1)
        stolen = self.clock.steal_s(self.cpus)
        cpu = self.clock.cpu_s()
        began = now()
        times = []
        for _ in range(num_runs):
            first = now()
            run()
            for _ in further:
                run()
            times.append((now() - first) / calls)
        wall = now() - began
        cpu = self.clock.cpu_s() - cpu
        after = self.clock.steal_s(self.cpus)
        return {
            "latencies_s": times,
            "calls_per_run": calls,
            "wall_s": wall,
            "cpu_s": cpu,
            "steal_s": None if stolen is None or after is None else max(0.0, after - stolen),
        }

    def block_of(self, run: Callable[[], None], duration_s: float) -> dict[str, Any]:
        """Return a block that lasts about the duration, judged by its first call."""
        began = self.clock.monotonic_s()
        run()
        once = max(self.clock.monotonic_s() - began, 1e-7)
        calls = max(1, math.ceil(duration_s / MAX_REFERENCE_RUNS / once))
        return self.block(run, max(3, math.ceil(duration_s / (once * calls))), calls)

    def warm_up(
        self, run: Callable[[], None], deadline: float, min_run_s: float
    ) -> tuple[int, list[float], bool]:
        """Return (calls per run, run times per call in seconds, whether they settled)."""
        now = self.clock.monotonic_s
        times: list[float] = []
        calls = 1
        check_at = MIN_WARM_UP_RUNS
        while True:
            began = now()
            for _ in range(calls):
                run()
            ended = now()
            times.append((ended - began) / calls)
            if calls == 1 and len(times) == 2 and times[1] < min_run_s:
                calls = math.ceil(min_run_s / max(times[1], 1e-7))
            if len(times) >= check_at:
                steady = steady_from(times)
                # Half of the runs: a slow decay looks steady over its last few.
                if steady is not None and steady <= len(times) // 2:
                    return calls, times, True
                check_at = math.ceil(check_at * 1.3)
            if len(times) >= 2 and (ended >= deadline or len(times) >= MAX_WARM_UP_RUNS):
                return calls, times, False


def still_warming(blocks: list[dict[str, Any]], min_blocks: int) -> int:
    """Return how many of the first blocks still belong to the warm-up.

    A decay that is slow against a handful of runs shows between blocks.
    """
    if len(blocks) < 2 * min_blocks:
        return 0
    medians = [sorted(block["latencies_s"])[len(block["latencies_s"]) // 2] for block in blocks]
    steady = steady_from(medians, min_blocks)
    if steady is None:
        steady = len(blocks) // 2
    return min(steady, len(blocks) - min_blocks)


def measure(
    run_variant: Callable[[], None],
    run_reference: Callable[[], None],
    settings: VisitSettings,
    stopwatch: Stopwatch,
    is_cancelled: Callable[[], bool],
    energy: EnergyVisit | None = None,
) -> Measured:
    """Return the raw times of one visit, in seconds, and what meters say.

    Args:
        run_variant: Calls the variant once.
        run_reference: Calls the reference variant once.
        settings: How the visit is made.
        stopwatch: Times the runs.
        is_cancelled: Asked between blocks; when true the visit ends with `SystemExit`.
        energy: Reads the meters; None without. The blocks are then its window.
    """
    clock = stopwatch.clock
    window = settings.max_visit_s
    gc.collect()
    gc.disable()
    try:
        clocks = (clock.monotonic_s(), clock.boot_s(), clock.wall_s())
        ready_by = clocks[0] + REFERENCE_WARM_UP_SHARE * settings.reference_s
        stopwatch.warm_up(run_reference, ready_by, settings.min_run_s)
        before = stopwatch.block_of(run_reference, settings.reference_s)
        start = clock.monotonic_s()
        calls, warm_up, settled = stopwatch.warm_up(
            run_variant,
            start + settings.max_warm_up_s,
            max(settings.min_run_s, energy.min_run_s if energy else 0.0),
        )
        # A long warm-up may not leave the blocks without time.
        deadline = max(start + window, clock.monotonic_s() + window / 2)
        run_s = calls * sorted(warm_up)[len(warm_up) // 2]
        block_s = max(settings.block_s, energy.block_s if energy else 0.0)
        num_runs = max(1, math.ceil(block_s / run_s))
        blocks: list[dict[str, Any]] = []
        if energy:
            energy.before(run_variant)
        while len(blocks) < settings.min_blocks or (
            not energy.is_over() if energy else clock.monotonic_s() + num_runs * run_s <= deadline
        ):
            if is_cancelled():
                raise SystemExit(0)
            blocks.append(stopwatch.block(run_variant, num_runs, calls))
        end = clock.monotonic_s()
        metered_calls = sum(len(block["latencies_s"]) for block in blocks) * calls
        if energy:
            energy.ended()
        late = still_warming(blocks, settings.min_blocks)
        for block in blocks[:late]:
            warm_up += block["latencies_s"]
        blocks = blocks[late:]
        after = stopwatch.block_of(run_reference, settings.reference_s)
        if energy:
            energy.after()
        elapsed = clock.monotonic_s() - clocks[0]
        suspended = clock.boot_s() - clocks[1] - elapsed
        jumped = clock.wall_s() - clocks[2] - elapsed - suspended
    finally:
        gc.enable()
    return Measured(
        warm_up_s=warm_up,
        is_settled=settled,
        blocks=blocks,
        reference_before=before,
        reference_after=after,
        measuring_s=end - start,
        suspended_s=suspended,
        clock_jump_s=jumped,
        energy=energy.answer(metered_calls) if energy else None,
    )

"""One visit: the reference, the variant's warm-up and blocks, the reference again.

::

    |reference| w w w w . . w |  block  |  block  |  block  | ... |reference|
               ^ warm-up ends when the change-point test passes
               |<--------------- at most max_visit_s -------------->|

A block is a handful of runs that together last about `block_s`; a run is one call, or several when
one call is shorter than `min_run_s`. Raw times stay in the result; statistics come later.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from . import host_state
from .warm_up import steady_from

MIN_WARM_UP_RUNS = 5
MAX_WARM_UP_RUNS = 400


def measure(
    run_variant: Callable[[], None],
    run_reference: Callable[[], None],
    protocol: dict[str, Any],
    cpus: Sequence[int],
    is_cancelled: Callable[[], bool],
) -> dict[str, Any]:
    """Return the raw times of one visit, in seconds.

    Args:
        run_variant: Calls the variant once.
        run_reference: Calls the reference variant once.
        protocol: `max_visit_s`, `warm_up_share`, `block_s`, `min_blocks`, `min_run_s`,
            `reference_s`.
        cpus: The CPUs that the runs are bound to, for their steal counters.
        is_cancelled: Asked between blocks; when true the visit ends with `SystemExit`.
    """
    gc.collect()
    gc.disable()
    try:
        before = _block(run_reference, *_runs_for(run_reference, protocol["reference_s"]), cpus)
        start = time.perf_counter()
        deadline = start + protocol["max_visit_s"]
        calls, warm_up, settled = _warm_up(
            run_variant, start + protocol["max_visit_s"] * protocol["warm_up_share"], protocol
        )
        run_s = sorted(warm_up)[len(warm_up) // 2]
        num_runs = max(1, math.ceil(protocol["block_s"] / run_s))
        blocks: list[dict[str, Any]] = []
        while (
            len(blocks) < protocol["min_blocks"]
            or time.perf_counter() + num_runs * run_s <= deadline
        ):
            if is_cancelled():
                raise SystemExit(0)
            blocks.append(_block(run_variant, num_runs, calls, cpus))
        end = time.perf_counter()
        after = _block(run_reference, *_runs_for(run_reference, protocol["reference_s"]), cpus)
    finally:
        gc.enable()
    return {
        "warm_up_s": warm_up,
        "is_settled": settled,
        "blocks": blocks,
        "reference_before": before,
        "reference_after": after,
        "measuring_s": end - start,
    }


def _warm_up(
    run: Callable[[], None], deadline: float, protocol: dict[str, Any]
) -> tuple[int, list[float], bool]:
    """Return (calls per run, run times per call in seconds, whether they settled)."""
    times: list[float] = []
    calls = 1
    check_at = MIN_WARM_UP_RUNS
    while True:
        began = time.perf_counter()
        for _ in range(calls):
            run()
        now = time.perf_counter()
        times.append((now - began) / calls)
        if calls == 1 and len(times) == 2 and times[1] < protocol["min_run_s"]:
            calls = math.ceil(protocol["min_run_s"] / max(times[1], 1e-7))
        if len(times) >= check_at:
            if steady_from(times) is not None:
                return calls, times, True
            check_at = math.ceil(check_at * 1.3)
        if len(times) >= 2 and (now >= deadline or len(times) >= MAX_WARM_UP_RUNS):
            return calls, times, False


def _runs_for(run: Callable[[], None], duration_s: float) -> tuple[int, int]:
    """Return (runs, calls per run) that fill the duration, from the time of one call."""
    began = time.perf_counter()
    run()
    once = max(time.perf_counter() - began, 1e-7)
    calls = max(1, math.ceil(duration_s / 30 / once))
    return max(3, math.ceil(duration_s / (once * calls))), calls


def _block(
    run: Callable[[], None], num_runs: int, calls: int, cpus: Sequence[int]
) -> dict[str, Any]:
    clock = time.perf_counter
    loop = range(calls - 1)
    stolen = host_state.steal_s(cpus)
    cpu = time.process_time()
    began = clock()
    times = []
    for _ in range(num_runs):
        first = clock()
        run()
        for _ in loop:
            run()
        times.append((clock() - first) / calls)
    wall = clock() - began
    cpu = time.process_time() - cpu
    after = host_state.steal_s(cpus)
    return {
        "latencies_s": times,
        "calls_per_run": calls,
        "wall_s": wall,
        "cpu_s": cpu,
        "steal_s": None if stolen is None or after is None else max(0.0, after - stolen),
    }

"""The start gate: waits until the machine is idle and cool enough to be measured on."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from ..ready_answer import ReadyAnswer
from .host_state import HostState

MAX_ZONES_TOLD = 8


def never() -> bool:
    """Return False: nobody cancels."""
    return False


def wait_until_ready(
    state: HostState,
    max_busy_share: float,
    max_temperature_c: float | None,
    timeout_s: float,
    interval_s: float,
    sleep: Callable[[float], None] = time.sleep,
    now: Callable[[], float] = time.monotonic,
    *,
    cpus: Sequence[int] = (),
    is_cancelled: Callable[[], bool] = never,
) -> ReadyAnswer:
    """Return whether the machine became ready within the time limit, and what was in the way.

    It is looked at least once. What cannot be read is not waited for, and the reason says so.

    Args:
        state: Reads the machine.
        max_busy_share: Share of CPU time, 0 to 1, that other processes may use.
        max_temperature_c: Limit of the hottest zone, None for no limit.
        timeout_s: Time limit.
        interval_s: How long each look watches the CPUs, and so the time between looks.
        sleep: Waits.
        now: A clock that is never set.
        cpus: The CPUs that measure.
        is_cancelled: Asked after each look; when true the wait ends with `SystemExit`.
    """
    began = now()
    while True:
        busy = state.busy_share(interval_s, cpus, sleep)
        temperature = state.hottest_c()
        waited = now() - began
        zone = state.zones.in_words()
        obstacles = _obstacles(busy, max_busy_share, temperature, max_temperature_c, zone)
        if not obstacles or waited + interval_s > timeout_s:
            break
        if is_cancelled():
            raise SystemExit(0)
    reasons = [f"after {waited:.0f} s {text}" for text in obstacles]
    unknown = _unknown(busy, temperature, max_temperature_c, state.zones.labels())
    return ReadyAnswer(
        is_ready=not obstacles,
        waited_s=waited,
        busy_share=busy,
        temperature_c=temperature,
        reason="; ".join(reasons + unknown) or None,
    )


def _obstacles(
    busy: float | None,
    max_busy_share: float,
    temperature: float | None,
    max_temperature_c: float | None,
    zone: str | None = None,
) -> list[str]:
    found = []
    if busy is not None and busy > max_busy_share:
        found.append(
            f"other programs still use {busy:.0%} of the CPUs, more than {max_busy_share:.0%}: "
            "end them, or measure at a quieter time"
        )
    if (
        temperature is not None
        and max_temperature_c is not None
        and temperature > max_temperature_c
    ):
        found.append(
            f"the machine is still at {temperature:.1f} deg C, above {max_temperature_c:.1f}: let "
            "it cool, add a fan or a heat sink, or allow a higher temperature"
            + (f" (told by {zone})" if zone else "")
        )
    return found


def _unknown(
    busy: float | None,
    temperature: float | None,
    max_temperature_c: float | None,
    zones: Sequence[str],
) -> list[str]:
    found = []
    if busy is None:
        found.append("the load cannot be read here (/proc/stat), so it was not waited for")
    if temperature is None and max_temperature_c is not None:
        named = (
            f"; other zones are there by --temperature-zone: {', '.join(zones[:MAX_ZONES_TOLD])}"
        )
        found.append(
            "the temperature cannot be read here (/sys/class/thermal), so it was not waited for"
            + (named if zones else "")
        )
    return found

"""How a device's clocks stand to this machine's, told from exchanges over the link.

    here   sent ------- middle ------- received      of several exchanges the fastest counts:
    there               reading                      offset = reading - middle, +- half the round trip

Two groups of exchanges, some time apart, tell how much faster the device's clock runs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import TransientDeviceError

CLOCKS = ("monotonic_s", "boot_s", "wall_s")
EXCHANGES = 8
SPAN_S = 1.0


@dataclass(frozen=True)
class ClockOffset:
    """One clock of the device.

    Args:
        offset_s: Its reading minus this machine's monotonic clock (for `wall_s`: wall clock).
        offset_uncertainty_s: The true offset lies within so much of it: half a round trip.
        skew: Seconds that it gains on this machine's clock per second.
        skew_uncertainty: The true skew lies within so much of it.
    """

    offset_s: float
    offset_uncertainty_s: float
    skew: float
    skew_uncertainty: float


@dataclass(frozen=True)
class ClockComparison:
    """All clocks of the device.

    Args:
        round_trip_s: The fastest exchange.
        clocks: By name: `monotonic_s`, `boot_s`, `wall_s`.
    """

    round_trip_s: float
    clocks: Mapping[str, ClockOffset]

    def to_dict(self) -> dict[str, Any]:
        """Return it as a dictionary for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class _Exchange:
    round_trip_s: float
    middle_s: Mapping[str, float]
    there_s: Mapping[str, float]


def compare_clocks(
    ask: Callable[[], Mapping[str, Any]],
    *,
    exchanges: int = EXCHANGES,
    span_s: float = SPAN_S,
    monotonic: Callable[[], float] = time.perf_counter,
    wall: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> ClockComparison:
    """Return how the device's clocks stand to this machine's.

    Args:
        ask: One exchange: returns the device's clocks.
        exchanges: In each of the two groups.
        span_s: Time between the groups.
        monotonic: This machine's clock that is never set.
        wall: Its wall clock.
        sleep: Waits.

    Raises:
        TransientDeviceError: The device's answer is no time.
    """

    def exchange() -> _Exchange:
        # In this order: a pause between the two is part of the round trip, which covers it.
        before, wall_before = monotonic(), wall()
        there = _readings(ask())
        after = monotonic()
        middle = (before + after) / 2
        # The wall clock goes along with the other for this short time, unless it is set just now.
        wall_middle = wall_before + (after - before) / 2
        middles = {"monotonic_s": middle, "boot_s": middle, "wall_s": wall_middle}
        return _Exchange(after - before, middles, there)

    first = min((exchange() for _ in range(exchanges)), key=lambda each: each.round_trip_s)
    sleep(span_s)
    last = min((exchange() for _ in range(exchanges)), key=lambda each: each.round_trip_s)
    best = min(first, last, key=lambda each: each.round_trip_s)
    clocks = {}
    for name in CLOCKS:
        passed = last.middle_s[name] - first.middle_s[name]
        gained = (last.there_s[name] - first.there_s[name]) - passed
        unsure = (first.round_trip_s + last.round_trip_s) / 2
        clocks[name] = ClockOffset(
            offset_s=best.there_s[name] - best.middle_s[name],
            offset_uncertainty_s=best.round_trip_s / 2,
            skew=gained / passed if passed > 0 else 0.0,
            skew_uncertainty=unsure / passed if passed > 0 else math.inf,
        )
    return ClockComparison(best.round_trip_s, clocks)


def _readings(answer: Mapping[str, Any]) -> dict[str, float]:
    found = {}
    for name in CLOCKS:
        value = answer.get(name)
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not math.isfinite(float(value or 0)):
            raise TransientDeviceError(f"the device's clock {name} says {str(value)[:50]}, no time")
        found[name] = float(value or 0)
    return found

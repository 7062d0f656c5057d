"""Lets the machine cool down before a visit, so that heat of the one before is not measured."""

from __future__ import annotations

import time
from collections.abc import Callable

from .readiness import never

# A machine above its limit cools to so far below it: else every visit would begin at the limit.
BAND_C = 3.0
INTERVAL_S = 0.5


def cool_down(
    hottest_c: Callable[[], float | None],
    max_temperature_c: float | None,
    timeout_s: float,
    sleep: Callable[[float], None] = time.sleep,
    now: Callable[[], float] = time.monotonic,
    is_cancelled: Callable[[], bool] = never,
) -> dict[str, float | None]:
    """Wait while the machine is too hot, at most for the time limit; return what to record.

    Args:
        hottest_c: Reads the hottest zone in degrees Celsius, None where it cannot be read.
        max_temperature_c: Limit; None does not wait and records nothing.
        timeout_s: Time limit.
        sleep: Waits.
        now: A clock that is never set.
        is_cancelled: Asked between looks; when true the wait ends with `SystemExit`.

    Returns:
        `cool_down_s`, how long it waited; `start_temperature_c`, the temperature then; `is_cool`,
        1 if that is within the limit, 0 if not, None where it cannot be read.
    """
    if max_temperature_c is None:
        return {}
    began = now()
    temperature = hottest_c()
    if temperature is not None and temperature > max_temperature_c:
        while temperature is not None and temperature > max_temperature_c - BAND_C:
            if now() - began + INTERVAL_S > timeout_s:
                break
            if is_cancelled():
                raise SystemExit(0)
            sleep(INTERVAL_S)
            temperature = hottest_c()
    return {
        "cool_down_s": now() - began,
        "start_temperature_c": temperature,
        "is_cool": None if temperature is None else float(temperature <= max_temperature_c),
    }

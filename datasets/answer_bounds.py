"""What numbers a device may say: the one table of bounds, and the check of answers against it.

A device is not to be believed: an integer of 400 digits or a latency of 1e308 s is a number too. Each
number of each answer has its bounds here, with the reason, by the answer's kind and the field's name;
a number of a field that is not listed has those of `OTHER`. The same bounds hold for what journals
hold, which may be older than they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from joulemap import InputError

MAX_VISIT_S = 7 * 86_400.0
MAX_RUNS = 1_000_000
MAX_READINGS = 200_000
MAX_ITEMS = 10_000
MAX_DEPTH = 40
# More power than a rack of accelerators draws.
MAX_POWER_W = 1e6


class Bound(NamedTuple):
    """What values one field may have.

    Args:
        low: The least.
        high: The greatest.
        why: The reason.
        is_whole: Whether it is an int.
        smallest: The least distance from 0 but for 0 itself: nearer, quotients overflow.
        longest: How many values a list of them may have; 0 where no list may stand.
    """

    low: float
    high: float
    why: str
    is_whole: bool = False
    smallest: float = 0.0
    longest: int = 0


OTHER = Bound(-1e15, 1e15, "a number that nothing is computed from")

_CALL_S = Bound(1e-12, 86_400.0, "from far below a clock's tick to a day for one call")
_RUNS_S = _CALL_S._replace(longest=MAX_RUNS)
_STRETCH_S = Bound(0.0, MAX_VISIT_S, "a part of a visit, which ends within a week")
_COUNT = Bound(0, 10**12, "more cannot be counted within a visit", is_whole=True)
_SHARE = Bound(0.0, 1.0, "a share of a whole")
_HERTZ = Bound(0.0, 1e12, "a thousand times today's clocks")
_CELSIUS = Bound(-273.15, 1000.0, "from absolute zero to molten boards")
_BYTES = Bound(0, 2**60, "an exbibyte", is_whole=True)
_JOULE = Bound(-1e9, 1e9, "an hour of a megawatt's station in one call", smallest=1e-21)
_ERROR_J = Bound(0.0, 1e9, "as uncertain as the largest energy", smallest=1e-30)
_WATT = Bound(-MAX_POWER_W, MAX_POWER_W, "the power of a rack of accelerators")
_MOMENT_S = Bound(-1.0, MAX_VISIT_S, "since the first reading of a visit", longest=MAX_READINGS)
_CLOCK_S = Bound(-1e10, 1e10, "three centuries since a clock's start")
_CPU = Bound(0, 2**20, "the number of a CPU", is_whole=True, longest=MAX_ITEMS)

_VISIT: Mapping[str, Bound] = {
    "latencies_s": _RUNS_S,
    "warm_up_s": _RUNS_S,
    "calls_per_run": Bound(1, 10**9, "a call is no shorter than a nanosecond", is_whole=True),
    "wall_s": Bound(1e-12, MAX_VISIT_S, "a block ends within a visit's week"),
    "cpu_s": Bound(0.0, 1e4 * MAX_VISIT_S, "ten thousand CPUs for a week"),
    "steal_s": Bound(0.0, 1e4 * MAX_VISIT_S, "ten thousand CPUs for a week"),
    "measuring_s": Bound(1e-12, MAX_VISIT_S, "a visit ends within a week"),
    "materialise_s": _STRETCH_S,
    "load_s": _STRETCH_S,
    "model_bytes": Bound(1, 2**50, "a pebibyte", is_whole=True),
    "pid": Bound(1, 2**31 - 1, "what systems number processes with", is_whole=True),
    # The machine's state.
    "load_1min": Bound(0.0, 1e7, "the kernel counts its threads, at most millions"),
    "num_runnable": Bound(0.0, 1e7, "the kernel counts its threads, at most millions"),
    "frequency_hz": _HERTZ,
    "temperature_c": _CELSIUS,
    "start_temperature_c": _CELSIUS,
    "cool_down_s": _STRETCH_S,
    "is_cool": _SHARE,
    "is_throttled": _SHARE,
    "num_throttle_events": Bound(0.0, 1e15, "a counter of the kernel's"),
    "throttling_flags": Bound(0.0, 2.0**32, "32 flags of a firmware"),
    "memory_pressure_share": _SHARE,
    "cpu_pressure_share": _SHARE,
    "available_memory_bytes": Bound(0, 2**60, "an exbibyte"),
    "suspended_s": Bound(-MAX_VISIT_S, 1e10, "three centuries of sleep"),
    "clock_jump_s": _CLOCK_S,
    # What meters say; the second names are those of the journal.
    "simulated_energy_j": Bound(1e-21, 1e9, _JOULE.why),
    "energy_j": _JOULE,
    "energy_gross_j": _JOULE,
    "energy_estimate_j": Bound(1e-21, 1e9, _JOULE.why),
    "net_j": _JOULE,
    "gross_j": _JOULE,
    "standard_error_j": _ERROR_J,
    "net_standard_error_j": _ERROR_J,
    "gross_standard_error_j": _ERROR_J,
    "freedom": Bound(0.0, 1e15, "as many degrees of freedom as readings, or none that count"),
    "idle_w": _WATT,
    "idle_standard_error_w": Bound(0.0, MAX_POWER_W, _WATT.why),
    "window_s": _STRETCH_S,
    "calls": Bound(1, 10**15, "a call is no shorter than a nanosecond", is_whole=True),
    "updates": _COUNT,
    "missing_share": _SHARE,
    "disagreement": Bound(-1e18, 1e18, "a quotient of two energies"),
    "times_s": _MOMENT_S,
    "values": Bound(-1e15, 1e15, "joules of a counter's lifetime", longest=MAX_READINGS),
    "num_readings": _COUNT,
    "num_failed": _COUNT,
    **dict.fromkeys(("idle_before", "window", "busy", "idle_after"), _MOMENT_S),
}
_LAYERS: Mapping[str, Bound] = {
    "times_s": Bound(0.0, 86_400.0, "a day for one node", longest=MAX_RUNS),
    "runs_s": Bound(0.0, 86_400.0, "a day for one run", longest=MAX_RUNS),
    "unprofiled_s": _RUNS_S,
}
_METERS: Mapping[str, Bound] = {
    "resolution": Bound(0.0, 1e9, "a step of a counter or a gauge"),
    "range_j": Bound(0.0, 1e20, "64 bits of microjoules"),
    "update_period_s": Bound(0.0, 3600.0, "a meter that is updated once an hour measures no visit"),
    "observed_update_period_s": Bound(1e-9, 3600.0, "no update is seen more often"),
    "averaging_s": Bound(0.0, 3600.0, "a gauge that averages for longer measures no visit"),
    "max_power_w": Bound(0.0, 1e9, "a power station"),
    "read_s": Bound(0.0, 3600.0, "a meter that may be read once an hour measures no visit"),
}
_PREPARE: Mapping[str, Bound] = {
    **_METERS,
    "cpus": _CPU,
    "pid": _VISIT["pid"],
}
_PROBE: Mapping[str, Bound] = {
    "num_cpus": Bound(1, 2**20, "more than any kernel runs on", is_whole=True),
    "available_cpus": _CPU,
    "cpus": _CPU,
    "capacity": Bound(0.0, 1e6, "the kernel's scale ends at 1024"),
    "min_frequency_hz": _HERTZ,
    "max_frequency_hz": _HERTZ,
    "frequency_hz": _HERTZ,
    "memory_bytes": _BYTES,
    "temperature_c": _CELSIUS,
    # Of simulated hardware.
    **dict.fromkeys(
        ("rows", "columns", "word_bytes"), Bound(1, 2**31, "the side of an array", is_whole=True)
    ),
    **dict.fromkeys(("input_cache_bytes", "weight_cache_bytes"), _BYTES),
    **dict.fromkeys(
        ("mac_energy", "memory_energy", "cache_energy", "register_energy"),
        Bound(0.0, 1e12, "in units of one operation's"),
    ),
    "joule_per_mac": Bound(0.0, 1.0, "a joule for one operation"),
    "clock_hz": _HERTZ,
    "memory_bytes_per_cycle": Bound(0.0, 1e12, "a terabyte each cycle"),
}
_READY: Mapping[str, Bound] = {
    "waited_s": Bound(0.0, 2 * 86_400.0, "the start gate waits a day at most"),
    "busy_share": _SHARE,
    "temperature_c": _CELSIUS,
}
_CLOCK: Mapping[str, Bound] = dict.fromkeys(("monotonic_s", "boot_s", "wall_s"), _CLOCK_S)

# By what was asked; what is not listed holds no numbers but those of `OTHER`.
BOUNDS: Mapping[str, Mapping[str, Bound]] = {
    "visit": _VISIT,
    "layers": _LAYERS,
    "meters": _METERS,
    "prepare": _PREPARE,
    "probe": _PROBE,
    "ready": _READY,
    "clock": _CLOCK,
    "free": {},
    "close": {},
}


def checked(kind: str, answer: Any) -> Any:
    """Return an answer, or a part of it, whose numbers all lie within their bounds.

    Args:
        kind: What was asked, a key of `BOUNDS`.
        answer: JSON values.

    Raises:
        InputError: A number lies beyond them or is none, a list is too long, a field that says
            whether something is so says something else.
    """
    found, problems = cleaned(kind, answer)
    if problems:
        raise InputError(problems[0])
    return found


def cleaned(kind: str, answer: Any) -> tuple[Any, list[str]]:
    """Return an answer with None for what is beyond its bounds, and what that was, as texts.

    Args:
        kind: What was asked, a key of `BOUNDS`.
        answer: JSON values.
    """
    problems: list[str] = []
    found = _cleaned(BOUNDS.get(kind, {}), "", answer, MAX_DEPTH, problems)
    return found, problems


def number_text(value: Any) -> str:
    """Return a value as a short text, whatever it is and however long."""
    if isinstance(value, int) and value.bit_length() > 64:
        return f"an integer of {value.bit_length()} bits"
    return repr(value)[:50] if isinstance(value, (int, float, str)) else type(value).__name__


def _cleaned(
    table: Mapping[str, Bound], name: str, value: Any, depth: int, problems: list[str]
) -> Any:
    bound = table.get(name)
    if isinstance(value, (Mapping, list, tuple)) and not depth:
        problems.append("an answer that is nested without end")
        return None
    if isinstance(value, Mapping):
        if bound is not None:
            problems.append(f"{name} is a table, no number")
            return None
        return {
            key: _cleaned(table, str(key), item, depth - 1, problems) for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        longest = MAX_ITEMS if bound is None else bound.longest
        if len(value) > longest or (bound is not None and _holds_lists(value)):
            what = f"{len(value)} values, more than {longest}" if longest else "no number"
            problems.append(f"{name} is a list of {what}")
            return None
        if bound is not None and _all_within(bound, value):
            return list(value)
        return [_cleaned(table, name, item, depth - 1, problems) for item in value]
    problem = _problem(bound, name, value)
    if problem is not None:
        problems.append(problem)
        return None
    return value


def _problem(bound: Bound | None, name: str, value: Any) -> str | None:
    """Return what is wrong with a single value, None if nothing is."""
    if value is None:
        return None
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if bound is None and name.startswith("is_"):
        is_answered = isinstance(value, bool)
        return None if is_answered else f"{name} is {number_text(value)}, neither true nor false"
    if bound is None and not is_number:
        return None
    bound = bound or OTHER
    if not is_number or (bound.is_whole and not isinstance(value, int)):
        kind = "whole number" if bound.is_whole else "number"
        return f"{name} is {number_text(value)}, no {kind}"
    if not bound.low <= value <= bound.high or 0 < abs(value) < bound.smallest:
        least = f", and if it is not 0 at least {bound.smallest:g}" if bound.smallest else ""
        return (
            f"{name} is {number_text(value)}, beyond what is possible: {bound.low:g} to "
            f"{bound.high:g}{least} ({bound.why})"
        )
    return None


def _holds_lists(values: Any) -> bool:
    return any(isinstance(value, (list, tuple)) for value in values)


def _all_within(bound: Bound, values: Any) -> bool:
    """Return whether all values of a list of times or readings are good: the short way."""
    if not values or bound.smallest or bound.is_whole:
        return False
    if {type(value) for value in values} - {int, float}:
        return False
    # Each by itself: what is no number compares with nothing, and `min` would pass over it.
    return all(bound.low <= value <= bound.high for value in values)

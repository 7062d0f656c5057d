"""Energy of a window net of idle, with the variance of each part.

::

    |  idle  | settle |       window: blocks of calls       | reference |  idle  |
       P_b                            P_w                                  P_a

    P_i   = (1 - s) P_b + s P_a + bend       s: where the window's middle lies between the idles';
                                             bend: how heat bends the path (see `idle_power`)
    net   = (P_w - P_i) x window / calls
    gross = net + P_i x busy time / calls

    Var P_b = known part + L / duration, likewise P_a             L: the idle power's long-run
                                                                  variance, from the idle times of
                                                                  this visit and those before (see
                                                                  `idle_power`)
    Var P_i = (1 - s)^2 Var P_b + s^2 Var P_a
            + max(0, (P_a - P_b)^2 - Var P_b - Var P_a) / 48      drift need not be straight: a path
                                                                  that bends by up to a quarter
            + Var bend
            + L / window   (counters)                             the window's own idle power is not
                                                                  seen
    Var P_w = known part (the moments of a counter's edges count by P_i: its joules between them are
              known), for gauges + long-run variance of the window / duration
    Var net = (Var P_w + Var P_i) (window / calls)^2

A counter's window reaches from an update before the first call to one after the last, so a little
idle time is part of it and is subtracted as such. A gauge's window is the blocks themselves, after
the variant has run for as long as the gauge averages. Degrees of freedom are those of Welch and
Satterthwaite, so the 95 % interval is net +- t standard errors.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from .counter import Counter, unwrap
from .fluctuation import LongRun, long_run
from .idle_power import NO_BEND, Bend
from .mean_power import MAX_MISSING_SHARE, MeanPower, Refused, combined_freedom, t_quantile
from .meter import SAMPLER, MeterInfo
from .power_log import PowerLog
from .sampler import Samples, check_gauge, check_moves, updates_of

# The path of idle power between two idles bends by at most a quarter of their difference, evenly.
DRIFT_DIVISOR = 48.0
# A load this many times the idle power, or a tenth less than it, is marked.
MAX_LOAD_RATIO = 200.0
TRACE_POINTS = 20_000


@dataclass(frozen=True)
class Spans:
    """The moments of a visit between which power is averaged, on the visit's clock, in seconds.

    Args:
        idle_before: Start and end of the idle time before.
        window: Start and end of the window; for counters around the blocks.
        busy: First call's start and last call's end.
        idle_after: Start and end of the idle time after.
    """

    idle_before: tuple[float, float]
    window: tuple[float, float]
    busy: tuple[float, float]
    idle_after: tuple[float, float]


@dataclass(frozen=True)
class Energy:
    """Energy of one call.

    Args:
        net_j: Net of idle.
        net_standard_error_j: Of the net energy.
        gross_j: With idle.
        gross_standard_error_j: Of the gross energy.
        idle_w: Idle power in the window.
        idle_standard_error_w: Of the idle power.
        freedom: Degrees of freedom of the net energy's standard error; None where it is known.
        window_s: Duration of the window.
        updates: Updates of the meter in the window.
        missing_share: Share of the window without readings.
        flags: What else must be known, short words.
    """

    net_j: float
    net_standard_error_j: float
    gross_j: float
    gross_standard_error_j: float
    idle_w: float
    idle_standard_error_w: float
    freedom: float | None
    window_s: float
    updates: int
    missing_share: float
    flags: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the energy as a dictionary for JSON."""
        return {**asdict(self), "flags": list(self.flags)}

    @property
    def half_width_j(self) -> float:
        """Half the 95 % interval of the net energy."""
        freedom = math.inf if self.freedom is None else self.freedom
        return t_quantile(freedom) * self.net_standard_error_j


def powers(log: PowerLog, period_s: float, spans: Spans) -> tuple[MeanPower, MeanPower, MeanPower]:
    """Return the mean power of the idle time before, the window and the idle time after.

    Args:
        log: The readings of one visit.
        period_s: Time between two of the meter's updates.
        spans: What to average over.

    Raises:
        Refused: The readings make no energy.
    """
    _check_log(log)
    if log.meter.info.kind == SAMPLER:
        return _sampled(log, period_s, spans)
    counter = counter_of(log, period_s)
    found = []
    for start, end in (spans.idle_before, spans.window, spans.idle_after):
        found.append(counter.mean_power(*outer_edges(counter, start, end)))
    return found[0], found[1], found[2]


def counter_of(log: PowerLog, period_s: float) -> Counter:
    """Return a counter's readings without wraps.

    Raises:
        Refused: It went backwards or jumped.
    """
    info = log.meter.info
    energy = unwrap(log.before_s, log.after_s, log.values, info.range_j, info.max_power_w, period_s)
    return Counter(log.before_s, log.after_s, energy, period_s, info.resolution or 0.0)


def outer_edges(counter: Counter, start_s: float, end_s: float) -> Any:
    """Return the edges that were awaited at both ends of a stretch."""
    return counter.edge(start_s, is_first=True), counter.edge(end_s, is_first=False)


def samples_of(log: PowerLog, period_s: float) -> Samples:
    """Return a gauge's updates.

    Raises:
        Refused: It shows what no gauge of power shows.
    """
    info = log.meter.info
    times, power = updates_of(log.before_s, log.after_s, log.values, period_s)
    check_gauge(power, info.max_power_w, info.resolution or 0.0)
    visible = max(period_s, log.interval_s)
    return Samples(times, power, visible, info.resolution or 0.0, info.averaging_s)


def _sampled(
    log: PowerLog, period_s: float, spans: Spans
) -> tuple[MeanPower, MeanPower, MeanPower]:
    samples = samples_of(log, period_s)
    check_moves(samples.times_s, samples.power_w, *spans.window)
    before = samples.mean_power(*spans.idle_before)
    window = samples.mean_power(*spans.window)
    return before, window, samples.mean_power(*spans.idle_after)


def _check_log(log: PowerLog) -> None:
    if log.gone:
        raise Refused(f"the meter is gone: {log.gone}")
    tried = len(log.values) + len(log.failed_s)
    if not log.values:
        raise Refused(f"the meter gave no reading: {log.reason or 'nothing was read'}")
    failed = len(log.failed_s) / tried
    if failed > MAX_MISSING_SHARE:
        raise Refused(f"{100 * failed:.1f} % of the readings failed, the first so: {log.reason}")


def energy_of(
    before: MeanPower,
    window: MeanPower,
    after: MeanPower,
    info: MeterInfo,
    busy_s: float,
    calls: int,
    fluctuation: LongRun,
    bend: Bend = NO_BEND,
) -> Energy:
    """Return the energy of one call, net of idle.

    Args:
        before: Idle power before.
        window: Power of the window.
        after: Idle power after.
        info: The meter.
        busy_s: First call to last call.
        calls: Calls in the window.
        fluctuation: The idle power's long-run variance.
        bend: Idle power in the window beyond the line between the idle times.
    """
    share = (window.middle_s - before.middle_s) / (after.middle_s - before.middle_s)
    share = min(1.0, max(0.0, share))
    idle_w = (1 - share) * before.power_w + share * after.power_w + bend.power_w
    varying, freedom = fluctuation.w2_s, fluctuation.freedom
    known = [before.fixed_w2, after.fixed_w2]
    spread = (after.power_w - before.power_w) ** 2 - sum(known)
    spread -= varying / before.duration_s + varying / after.duration_s
    rate = (1 - share) ** 2 / before.duration_s + share**2 / after.duration_s
    if info.kind != SAMPLER:
        # A gauge's readings in the window hold its noise; a counter's energy is that of this window.
        rate += 1 / window.duration_s
    parts = [
        ((1 - share) ** 2 * known[0] + share**2 * known[1], math.inf),
        (varying * rate, freedom),
        (max(0.0, spread) / DRIFT_DIVISOR, max(1.0, freedom)),
        (bend.variance_w2, max(1.0, bend.freedom)),
    ]
    idle_variance = sum(variance for variance, _ in parts)
    # Between a counter's edges the energy is known: their moments count by the idle power that is
    # taken off for too long or too short, not by the window's.
    window_w2 = window.fixed_w2
    window_w2 -= (window.power_w**2 - idle_w**2) * window.moments_s2 / window.duration_s**2
    window_w2 = max(0.0, window_w2)
    net_parts = [*parts, (window_w2, math.inf)]
    if info.kind == SAMPLER:
        of_window = long_run([window.pieces])
        net_parts.append((of_window.w2_s / window.duration_s, of_window.freedom))
        window_w2 += of_window.w2_s / window.duration_s
    net_w = window.power_w - idle_w
    per_call = window.duration_s / calls
    net_j = net_w * per_call
    net_error = math.sqrt(sum(variance for variance, _ in net_parts)) * per_call
    freedom = combined_freedom(net_parts)
    gross_j = net_j + idle_w * busy_s / calls
    if gross_j <= 0:
        raise Refused(f"the mean power in the window is {window.power_w:.3g} W, not above zero")
    waited_s = max(0.0, window.duration_s - busy_s)
    gross_error = math.hypot(
        math.sqrt(window_w2) * window.duration_s, math.sqrt(idle_variance) * waited_s
    )
    flags = []
    if net_j - t_quantile(freedom) * net_error <= 0:
        flags.append("not_above_idle")
    if idle_w <= 0:
        flags.append("idle_not_above_0")
    elif window.power_w > MAX_LOAD_RATIO * idle_w:
        flags.append("load_ratio")
    return Energy(
        net_j,
        net_error,
        gross_j,
        gross_error / calls,
        idle_w,
        math.sqrt(idle_variance),
        None if math.isinf(freedom) else freedom,
        window.duration_s,
        window.updates,
        window.missing_share,
        tuple(flags),
    )


def trace_of(log: PowerLog, spans: Spans) -> dict[str, Any]:
    """Return the raw readings, compact: repeats of a value left out but for the last of a row.

    Returns:
        `times_s` since the first reading and `values` (J or W, counters without unwrapping),
        `num_failed`, and the spans on the same time line.
    """
    kept = [
        i
        for i, value in enumerate(log.values)
        if i in (0, len(log.values) - 1) or value != log.values[i - 1] or value != log.values[i + 1]
    ]
    kept = kept[:: max(1, math.ceil(len(kept) / TRACE_POINTS))]
    origin = log.before_s[0] if log.before_s else 0.0
    return {
        "times_s": [round((log.before_s[i] + log.after_s[i]) / 2 - origin, 6) for i in kept],
        "values": [float(f"{log.values[i]:.12g}") for i in kept],
        "num_readings": len(log.values),
        "num_failed": len(log.failed_s),
        "spans_s": {
            name: [round(moment - origin, 6) for moment in span]
            for name, span in asdict(spans).items()
        },
    }

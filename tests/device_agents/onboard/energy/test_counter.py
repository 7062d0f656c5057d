"""Counters: unwrapping, edges, sticking; for any course of power."""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joulemap.device_agents.onboard.energy.counter import Counter, unwrap
from joulemap.device_agents.onboard.energy.fluctuation import NOTHING, LongRun, long_run
from joulemap.device_agents.onboard.energy.mean_power import MeanPower, Refused
from joulemap.device_agents.onboard.energy.meter import COUNTER, MeterInfo
from joulemap.device_agents.onboard.energy.meter_choice import enrol
from joulemap.device_agents.onboard.energy.window import energy_of

from .virtual_power import VirtualCounter, VirtualPower

STEPS = st.lists(st.tuples(st.floats(0.01, 0.2), st.floats(0.0, 100.0)), min_size=2, max_size=60)


def readings(
    steps: list[tuple[float, float]], range_j: float, start_j: float
) -> tuple[list[float], list[float], list[float]]:
    """Return moments, shown joules and true joules of (seconds, watts)."""
    times = list(itertools.accumulate([0.0, *(s for s, _ in steps)]))
    joules = list(itertools.accumulate([0.0, *(s * w for s, w in steps)]))
    return times, [(start_j + j) % range_j for j in joules], joules


@given(STEPS, st.floats(30.0, 1e5), st.floats(0.0, 1.0))
@settings(max_examples=150, deadline=None)
def test_wraps_never_show(steps: list[tuple[float, float]], range_j: float, at: float) -> None:
    times, shown, joules = readings(steps, range_j, at * range_j)
    # 100 W for 0.2 s and what may be late: far below the range.
    found = unwrap(times, times, shown, range_j, 100.0, 0.001)
    assert found == pytest.approx(joules, abs=1e-6 * range_j)


@pytest.mark.parametrize("wraps", [0, 1, 2, 5])
def test_several_wraps_between_two_readings_are_found_by_the_power_of_the_others(
    wraps: int,
) -> None:
    # 10 W, range 30 J; after 2 s of readings comes a pause of wraps x 3 s and a bit.
    pause = wraps * 3.0 + 1.0
    steps = [(0.1, 10.0)] * 20 + [(pause, 10.0)] + [(0.1, 10.0)] * 20
    times, shown, joules = readings(steps, 30.0, 25.0)
    assert unwrap(times, times, shown, 30.0, 40.0, 0.001) == pytest.approx(joules)


def test_wraps_that_power_does_not_tell_are_refused() -> None:
    steps = [(0.1, 10.0)] * 5 + [(10.0, 11.5)] + [(0.1, 10.0)] * 5
    times, shown, _ = readings(steps, 30.0, 0.0)
    with pytest.raises(Refused, match="several times"):
        unwrap(times, times, shown, 30.0, 40.0, 0.001)
    with pytest.raises(Refused, match="several times"):
        unwrap([0.0, 10.0], [0.0, 10.0], [0.0, 1.0], 30.0, 40.0, 0.001)


@pytest.mark.parametrize(
    ("values", "range_j", "message"),
    [
        ([1.0, 2.0, 1.5], None, "backwards by 0.5 J"),
        ([1.0, 2.0, 1.5], 1000.0, "backwards"),
        ([1.0, 2.0, 3000.0], None, "jumped"),
        ([1.0, 2.0, 3000.0], 1e6, "jumped"),
        ([1.0, 2000.0, 1.0], 1000.0, "range"),
        ([1.0, 2.0, -3.0], 1000.0, "range"),
    ],
)
def test_what_no_counter_does_is_refused(
    values: list[float], range_j: float | None, message: str
) -> None:
    times = [0.1 * i for i in range(len(values))]
    with pytest.raises(Refused, match=message):
        unwrap(times, times, values, range_j, 100.0, 0.001)


def polled(
    period_s: float, power_w: float, duration_s: float, poll_s: float, seed: int = 0
) -> Counter:
    """Return a counter that was read now and then, and quickly at both ends."""
    draw = random.Random(seed)
    phase = draw.uniform(0.0, 0.001)
    times = [phase + 0.001 * i for i in range(int(2.5 * period_s / 0.001))]
    moment = times[-1]
    while moment < duration_s:
        moment += poll_s * draw.uniform(0.8, 1.2)
        times.append(moment)
    phase = draw.uniform(0.0, 0.001)
    times += [moment + phase + 0.001 * i for i in range(1, int(2.5 * period_s / 0.001))]
    joules = [power_w * math.floor(time / period_s) * period_s for time in times]
    return Counter(times, times, joules, period_s, 0.0)


@pytest.mark.parametrize(("period_s", "poll_s"), [(0.1, 0.05), (0.004, 0.05), (0.5, 0.05)])
def test_power_between_edges_is_exact_within_what_it_states(period_s: float, poll_s: float) -> None:
    inside = 0
    for seed in range(20):
        counter = polled(period_s, 10.0, 10.0, poll_s, seed)
        first = counter.edge(0.0, is_first=True)
        last = counter.edge(counter.after_s[-1], is_first=False)
        power = counter.mean_power(first, last)
        assert power.power_w == pytest.approx(10.0, rel=1e-3)
        error = math.sqrt(power.fixed_w2)
        assert error < 2e-3 * 10.0
        inside += abs(power.power_w - 10.0) <= 2 * error + 1e-9
    assert inside >= 17


def test_a_counter_that_sticks_where_an_update_is_awaited_has_no_edge() -> None:
    """It stuck 25 ms after a reading; the next one shows a change, whose moment is not known."""
    times = [0.05 * i for i in range(21)] + [1.0 + 0.001 * i for i in range(1, 101)]
    joules = [10.0 * math.floor(min(time, 0.975) / 0.001) * 0.001 for time in times]
    counter = Counter(times, times, joules, 0.001, 0.0)
    with pytest.raises(Refused, match="sticks"):
        counter.edge(times[-1], is_first=False)


def test_a_counter_that_sticks_is_refused() -> None:
    counter = polled(0.01, 10.0, 4.0, 0.05)
    shown = zip(counter.after_s, counter.energy_j, strict=True)
    stuck = [min(joules, 20.0) if moment < 3.0 else joules for moment, joules in shown]
    broken = Counter(counter.before_s, counter.after_s, stuck, 0.01, 0.0)
    first = broken.edge(0.0, is_first=True)
    last = broken.edge(counter.after_s[-1], is_first=False)
    with pytest.raises(Refused, match="stuck"):
        broken.mean_power(first, last)
    still = Counter([0.0, 0.1, 0.2], [0.0, 0.1, 0.2], [1.0, 1.0, 1.0], 0.01, 0.0)
    with pytest.raises(Refused, match="sticks"):
        still.edge(0.0, is_first=True)


def test_a_reading_that_took_long_is_no_fluctuation() -> None:
    """The machine paused for 80 ms while the counter was read, before it answered."""
    before = [0.02 * i for i in range(50)]
    after = [moment + 0.0002 for moment in before]
    after[40] = before[40] + 0.08
    before[41:] = [moment + 0.08 for moment in before[41:]]
    after[41:] = [moment + 0.08 for moment in after[41:]]
    joules = [2.0 * math.floor(moment / 0.001) * 0.001 for moment in after]
    counter = Counter(before, after, joules, 0.001, 0.0)
    power = counter.mean_power(counter.edge_at(1), counter.edge_at(49))
    assert power.power_w == pytest.approx(2.0, rel=0.01)
    # Pieces err by an update of 1 ms at both ends, in 40 ms.
    assert long_run([power.pieces]).w2_s < 0.05 * (2.0 * 0.001 / 0.04) ** 2


def test_a_line_through_all_updates_tells_a_slow_meter_s_moments() -> None:
    """Updates every 0.125 s, read about every 0.05 s: nothing but the number of updates is sharp."""
    inside, sharper = 0, 0
    for seed in range(40):
        draw = random.Random(seed)
        times = [draw.random()]
        while times[-1] < 8.0:
            times.append(times[-1] + 0.05 * draw.uniform(0.9, 1.1))
        joules = [10.0 * math.floor(time / 0.125) * 0.125 for time in times]
        counter = Counter(times, times, joules, 0.125, 0.0)
        first = counter.edge(times[0], is_first=True)
        last = counter.edge(times[-1], is_first=False)
        found = counter.mean_power(first, last)
        error = math.sqrt(found.fixed_w2)
        inside += abs(found.power_w - 10.0) <= 2 * error
        ends = 10.0 * math.hypot(first.width_s, last.width_s) / math.sqrt(12) / found.duration_s
        sharper += error < ends / 2
    assert inside >= 36
    assert sharper >= 36


def test_the_period_of_a_meter_that_is_read_slowly_is_the_mean_of_its_gaps() -> None:
    power = VirtualPower()
    counter = VirtualCounter(power, period_s=0.125)
    counter.info = replace(counter.info, read_s=0.05)
    assert enrol(counter, power.machine).period_s == pytest.approx(0.125, rel=0.03)


def test_moments_of_edges_count_by_idle_power() -> None:
    """Joules between two edges are known; a moment that is late takes off too little idle power."""
    info = MeterInfo("counter", "all", COUNTER, "a machine")

    def power(watts: float, start_s: float, moments_s2: float) -> MeanPower:
        fixed = watts**2 * moments_s2 / 2.0**2
        return MeanPower(watts, fixed, NOTHING, start_s, start_s + 2.0, 20, 0.0, moments_s2)

    parts = power(1.0, 0.0, 0.0), power(21.0, 2.0, 0.01**2), power(1.0, 4.0, 0.0)
    energy = energy_of(*parts, info, 2.0, 10, LongRun(0.0, 0.0, 0))
    assert energy.net_j == pytest.approx(4.0)
    assert energy.net_standard_error_j == pytest.approx(1.0 * 0.01 / 10)
    # Beside no idle power they count nothing, whatever rounding leaves.
    idle = power(0.0, 0.0, 0.0), power(0.0, 4.0, 0.0)
    for tenths in range(1, 200):
        watts, squares_s2 = tenths / 10, 2 * 0.0123**2
        fixed = (watts**2 * squares_s2 / 12) / 1.9**2
        loaded = MeanPower(watts, fixed, NOTHING, 2.1, 4.0, 20, 0.0, squares_s2 / 12)
        energy = energy_of(idle[0], loaded, idle[1], info, 1.9, 10, LongRun(0.0, 0.0, 0))
        assert energy.net_standard_error_j == pytest.approx(0.0, abs=1e-6)

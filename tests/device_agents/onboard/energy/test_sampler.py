"""Gauges: updates, integration, gaps, what no gauge shows."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from joulemap.device_agents.onboard.energy.fluctuation import long_run
from joulemap.device_agents.onboard.energy.mean_power import Refused, combined_freedom, t_quantile
from joulemap.device_agents.onboard.energy.sampler import (
    Samples,
    check_gauge,
    check_moves,
    updates_of,
)


def gauge(times: list[float], power: list[float], period_s: float = 0.1) -> Samples:
    return Samples(times, power, period_s, 0.0, 0.0)


@given(
    st.lists(st.floats(0.02, 0.25), min_size=30, max_size=80),
    st.floats(0.1, 50.0),
    st.floats(-1.0, 1.0),
    st.floats(0.0, 0.2),
)
@settings(max_examples=100, deadline=None)
def test_a_ramp_is_integrated_exactly(
    gaps: list[float], start_w: float, slope: float, cut: float
) -> None:
    times = [0.0]
    for gap in gaps:
        times.append(times[-1] + gap)
    power = [start_w + slope * time for time in times]
    begin, end = cut * times[-1] + 0.03, (1 - cut) * times[-1] - 0.03
    inside = [t for t in times if begin <= t <= end]
    found = gauge(times, power).mean_power(begin, end)
    # Both ends count from the readings inside: the first and last one hold to the edge.
    assert found.updates == len(inside)
    middle = start_w + slope * (begin + end) / 2
    assert found.power_w == pytest.approx(middle, abs=abs(slope) * 0.25 + 1e-9)


@given(st.floats(1e-3, 1e3), st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_units_scale_everything(factor: float, seed: int) -> None:
    draw = random.Random(seed)
    times = [0.1 * i for i in range(100)]
    power = [draw.uniform(1, 2) for _ in times]
    one = gauge(times, power).mean_power(0.5, 9.0)
    other = gauge(times, [factor * p for p in power]).mean_power(0.5, 9.0)
    assert other.power_w == pytest.approx(factor * one.power_w)
    assert long_run([other.pieces]).w2_s == pytest.approx(factor**2 * long_run([one.pieces]).w2_s)


def test_repeats_of_one_update_are_dropped_and_equal_updates_are_not() -> None:
    times = [0.05 * i for i in range(40)]
    values = [float(i // 2 // 5) for i in range(40)]
    kept, power = updates_of(times, times, values, 0.1)
    assert len(kept) in range(10, 22)
    assert sorted(set(power)) == [0.0, 1.0, 2.0, 3.0]


def test_gaps_are_missing_and_too_many_are_refused() -> None:
    times = [0.1 * i for i in range(600)]
    power = [10.0 + 0.1 * (i % 3) for i in range(600)]
    whole = gauge(times, power).mean_power(0.5, 59.0)
    hole = [i for i in range(600) if not 300 <= i < 304]
    holed = gauge([times[i] for i in hole], [power[i] for i in hole]).mean_power(0.5, 59.0)
    assert whole.missing_share == 0
    assert 0.003 < holed.missing_share < 0.01
    assert holed.fixed_w2 > whole.fixed_w2
    hole = [i for i in range(600) if not 300 <= i < 320]
    with pytest.raises(Refused, match="without readings"):
        gauge([times[i] for i in hole], [power[i] for i in hole]).mean_power(0.5, 59.0)


@pytest.mark.parametrize(
    ("power", "message"),
    [([], "no reading"), ([5.0, 5000.0], "unit"), ([5.0, -5.0], "sign"), ([-2.0, -3.0], "sign")],
)
def test_what_no_gauge_shows_is_refused(power: list[float], message: str) -> None:
    with pytest.raises(Refused, match=message):
        check_gauge(power, 100.0, 0.01)


def test_a_gauge_that_sticks_is_refused() -> None:
    draw = random.Random(1)
    times = [0.1 * i for i in range(150)]
    power = [(5.0 if 50 <= i < 100 else 2.0) + draw.gauss(0, 0.1) for i in range(150)]
    check_moves(times, power, 5.0, 9.9)
    with pytest.raises(Refused, match="with and without load"):
        check_moves(times, power[:70] + [power[70]] * 60 + power[130:], 5.0, 9.9)
    with pytest.raises(Refused, match="stuck"):
        check_moves(times, power[:60] + [power[60]] * 30 + power[90:], 5.0, 9.9)
    # Idle power that is steady to the gauge's step is no fault.
    steady = [p if 50 <= i < 100 else 2.0 for i, p in enumerate(power)]
    check_moves(times, steady, 5.0, 9.9)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 8, 20, 100])
def test_t_quantiles(freedom: int) -> None:
    assert t_quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=5e-3)


def test_degrees_of_freedom_of_a_sum() -> None:
    assert t_quantile(math.inf) == pytest.approx(1.96, abs=1e-3)
    assert combined_freedom([(1.0, 5.0), (0.0, 3.0)]) == pytest.approx(5.0)
    assert combined_freedom([(1.0, 5.0), (1.0, 5.0)]) == pytest.approx(10.0)
    assert math.isinf(combined_freedom([(1.0, math.inf)]))

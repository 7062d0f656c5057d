"""A battery's counter beside its gauge: when it has a say, and that it never cries wolf."""

from __future__ import annotations

import math
import random

import pytest

from joulemap.device_agents.onboard.energy.charge_check import (
    KEPT_VISITS,
    Reserve,
    check,
    compare,
    drawn_j,
)
from joulemap.device_agents.onboard.energy.power_log import PowerLog

from .virtual_power import VirtualGauge, VirtualPower

READING = {"meter": "battery", "channel": "BAT0", "energy": {"gross_j": 2.0}}


def visits(
    count: int, step_j: float, gain: float, visit_j: float, seed: int
) -> list[tuple[float, float]]:
    """Return visits of a campaign, with gaps in between, of a counter with steps."""
    rng = random.Random(seed)
    left_j, drawn = 1e6 * rng.random(), []
    for _ in range(count):
        true_j = visit_j * rng.uniform(0.7, 1.3)
        left_j -= visit_j * rng.random()
        before = math.floor(left_j / step_j)
        left_j -= true_j
        after = math.floor(left_j / step_j)
        drawn.append((true_j * gain * rng.gauss(1.0, 0.01), (before - after) * step_j))
    return drawn


def test_right_gauges_are_hardly_ever_contradicted() -> None:
    wrong = total = 0
    for seed in range(400):
        for step_j in (0.5, 14.0, 36.0, 100.0, 400.0, 3000.0):
            for count in (5, 8, 20, KEPT_VISITS):
                found = check(READING, visits(count, step_j, 1.0, 120.0, seed))
                total += 1
                wrong += found is not None and found["is_disagreement"]
    assert wrong <= 0.005 * total


@pytest.mark.parametrize("step_j", [0.5, 14.0, 36.0])
def test_a_gauge_that_is_off_by_a_third_is_contradicted_with_both_figures(step_j: float) -> None:
    for seed in range(20):
        found = check(READING, visits(KEPT_VISITS, step_j, 1.5, 120.0, seed))
        assert found is not None
        assert found["is_disagreement"]
        assert found["gross_j"] == pytest.approx(2.0 / 1.5, rel=0.1)


def test_joules_between_two_moments_are_those_of_gauge_and_counter() -> None:
    power = VirtualPower()
    log = PowerLog(VirtualGauge(power), power.machine)
    log.before_s = log.after_s = [0.01 * k for k in range(401)]
    log.values = [2.0 + 0.01 * k for k in range(401)]
    before, after = Reserve(1.0, 5000.0, 4.0), Reserve(3.0, 4998.0, 3.8)
    # The ramp's middle by the time; two units of 3.9 J.
    assert drawn_j(log, before, after) == pytest.approx((4.0 * 2.0, 2.0 * 3.9), rel=1e-3)
    log.failed_s = [1.5]
    assert drawn_j(log, before, after) is not None
    log.failed_s = [1.5] * 5
    assert drawn_j(log, before, after) is None


def test_too_few_visits_and_a_counter_that_does_not_move_say_nothing() -> None:
    assert compare(visits(4, 0.5, 1.5, 120.0, 1)) is None
    assert compare([(100.0, 0.0)] * 20) is None
    assert compare([(0.0, 1.0)] * 20) is None
    assert check({**READING, "energy": None}, visits(20, 0.5, 1.5, 120.0, 1)) is None

"""Idle power's fluctuation and bend, from the idle times of several visits."""

from __future__ import annotations

import math
import random

import pytest

from joulemap.device_agents.onboard.energy.fluctuation import LongRun, pieces_of
from joulemap.device_agents.onboard.energy.idle_power import (
    NO_BEND,
    IdleTimes,
    bend_of,
    idle_fluctuation,
    idle_times,
)
from joulemap.device_agents.onboard.energy.mean_power import MeanPower

LENGTH_S = 0.1
IDLE_W, NET_W = 5.0, 5.0
Visit = tuple[MeanPower, MeanPower, MeanPower]


def stretch(start_s: float, powers: list[float]) -> MeanPower:
    end = start_s + LENGTH_S * len(powers)
    mean = sum(powers) / len(powers)
    return MeanPower(mean, 0.0, pieces_of(powers, LENGTH_S), start_s, end, len(powers), 0.0)


def visit(
    draw: random.Random,
    *,
    noise: float,
    heat_w: float,
    constant_s: float,
    idle_s: float = 2.5,
    window_s: float = 5.0,
    warmth: float = 0.0,
) -> tuple[Visit, float]:
    """Return a visit's powers and by how much idle power is above the line in the window."""
    gap, now, found, idle = 0.1, 0.0, [], []
    for duration, load in ((idle_s, 0.0), (gap, 0.0), (window_s, 1.0), (gap, 0.0), (idle_s, 0.0)):
        powers, sums = [], []
        for _ in range(round(duration / LENGTH_S)):
            keep = math.exp(-LENGTH_S / constant_s)
            warmer = heat_w * load + (warmth - heat_w * load) * keep
            mean = (warmth - warmer) * constant_s / LENGTH_S + heat_w * load
            warmth, now = warmer, now + LENGTH_S
            sums.append(mean)
            powers.append(IDLE_W + mean + NET_W * load + draw.gauss(0, noise))
        if duration != gap:
            found.append(stretch(now - duration, powers))
            idle.append(sum(sums) / len(sums))
    return (found[0], found[1], found[2]), idle[1] - (idle[0] + idle[2]) / 2


def told(draw: random.Random, count: int, **how: float) -> list[IdleTimes]:
    return [idle_times(*visit(draw, **how)[0]) for _ in range(count)]


@pytest.mark.parametrize("warmth", [0.0, 0.3])
@pytest.mark.parametrize("constant_s", [3.0, 8.0, 20.0, 200.0])
def test_the_bend_is_that_of_a_body_that_warms_and_cools(constant_s: float, warmth: float) -> None:
    how = {"noise": 1e-6, "heat_w": 0.5, "constant_s": constant_s, "warmth": warmth}
    draw = random.Random(1)
    powers, true = visit(draw, **how)
    visits = told(draw, 5, **how)
    found = bend_of(visits, idle_fluctuation(visits), *powers)
    assert found.power_w == pytest.approx(true, rel=0.15, abs=1e-3)


def test_chance_makes_no_bend_and_a_bend_no_fluctuation() -> None:
    noise = 0.02
    draw = random.Random(2)
    bends, ratios, hot = [], [], []
    for _ in range(60):
        quiet = told(draw, 8, noise=noise, heat_w=0.0, constant_s=20.0)
        fluctuation = idle_fluctuation(quiet)
        ratios.append(fluctuation.w2_s / (noise**2 * LENGTH_S))
        powers, _ = visit(draw, noise=noise, heat_w=0.0, constant_s=20.0)
        bends.append(bend_of(quiet, fluctuation, *powers).power_w)
        warm = told(draw, 8, noise=noise, heat_w=0.5, constant_s=20.0)
        hot.append(idle_fluctuation(warm).w2_s / (noise**2 * LENGTH_S))
    assert 0.85 < sum(ratios) / 60 < 1.15
    assert 0.85 < sum(hot) / 60 < 1.3
    # No more than the error of the line between the idle times adds.
    line2 = noise**2 * LENGTH_S / 2.5 / 2
    assert sum(bend**2 for bend in bends) / 60 < line2
    assert sum(bend == 0 for bend in bends) > 40


def test_a_slow_wander_counts_by_the_differences() -> None:
    draw = random.Random(3)
    visits = []
    for _ in range(20):
        (before, window, after), _ = visit(draw, noise=0.01, heat_w=0.0, constant_s=20.0)
        shift = draw.gauss(0, 0.5)
        moved = stretch(after.start_s, [after.power_w + shift] * 25)
        visits.append(idle_times(before, window, moved))
    found = idle_fluctuation(visits)
    assert (
        found.w2_s
        > 10 * idle_fluctuation(told(draw, 20, noise=0.01, heat_w=0.0, constant_s=20.0)).w2_s
    )


def test_a_disturbed_visit_does_not_rule() -> None:
    draw = random.Random(4)
    visits = told(draw, 12, noise=0.02, heat_w=0.0, constant_s=20.0)
    before = idle_fluctuation(visits).w2_s
    wild = told(draw, 1, noise=2.0, heat_w=0.0, constant_s=20.0)
    assert idle_fluctuation([*visits, *wild]).w2_s < 4 * before


def test_without_pieces_nothing_is_told() -> None:
    assert idle_fluctuation([]) == LongRun(0.0, 0.0, 0)
    short = stretch(0.0, [5.0])
    told_little = [idle_times(short, stretch(1.0, [10.0]), stretch(2.0, [5.1]))]
    assert idle_fluctuation(told_little) == LongRun(0.0, 0.0, 0)
    assert bend_of(told_little, LongRun(0.0, 0.0, 0), short, stretch(1.0, [10.0]), short) == NO_BEND

"""How much a mean varies: long-run variances of several stretches, their degrees of freedom."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest

from joulemap.device_agents.onboard.energy.fluctuation import (
    LongRun,
    Pieces,
    levelled,
    long_run,
    pieces_of,
)
from joulemap.device_agents.onboard.energy.idle_power import IdleTimes, idle_fluctuation


def fading(draw: random.Random, count: int, memory: float) -> list[float]:
    """Return a level that forgets by and by."""
    level, found = draw.gauss(0, 1), []
    for _ in range(count):
        level = memory * level + math.sqrt(1 - memory**2) * draw.gauss(0, 1)
        found.append(level)
    return found


def redrawn(draw: random.Random, count: int, length: float) -> list[float]:
    """Return means of a level that is drawn anew every so many pieces, from a random moment on."""
    parts = 20
    passed, level, found = draw.random() * length, draw.gauss(0, 1), []
    for _ in range(count):
        total = 0.0
        for _ in range(parts):
            passed += 1 / parts
            if passed >= length:
                passed, level = passed - length, draw.gauss(0, 1)
            total += level
        found.append(total / parts)
    return found


@pytest.mark.parametrize("memory", [0.0, 0.5, 0.8])
def test_the_long_run_variance_allows_for_memory(memory: float) -> None:
    """Over many stretches the stated variance is that of their means, within a third."""
    draw = random.Random(3)
    stated, means = [], []
    for _ in range(300):
        pieces = fading(draw, 40, memory)
        stated.append(long_run([pieces_of(pieces, 1.0)]).w2_s / 40)
        means.append(sum(pieces) / 40)
    true = sum(mean**2 for mean in means) / len(means)
    assert 0.7 < sum(stated) / len(stated) / true < 1.7


@pytest.mark.parametrize("length", [1, 2, 4, 8])
@pytest.mark.parametrize("stretches", [2, 6, 20])
def test_short_stretches_tell_neither_too_much_nor_too_little(
    length: float, stretches: int
) -> None:
    """A power that is drawn anew every `length` pieces, idle times of 20 pieces: as in half a
    second of a fast counter. The long-run variance is `length`; its scatter is as the degrees of
    freedom say."""
    draw = random.Random(f"{length}/{stretches}")
    found: list[LongRun] = []
    for _ in range(150):
        pieces = [pieces_of(redrawn(draw, 20, length), 1.0) for _ in range(stretches)]
        found.append(long_run(pieces))
    values = [item.w2_s / length for item in found]
    mean = sum(values) / len(values)
    assert 0.8 < mean < 1.25
    variance = sum((value - mean) ** 2 for value in values) / len(values)
    freedom = sum(item.freedom for item in found) / len(found)
    assert 0.4 < freedom * variance / (2 * mean**2) < 2.5


def test_units_scale_and_order_does_not_matter() -> None:
    draw = random.Random(5)
    stretches = [fading(draw, 30, 0.5) for _ in range(4)]
    one = long_run([pieces_of(pieces, 0.1) for pieces in stretches])
    other = long_run(
        [pieces_of([1000 * power for power in pieces], 0.1) for pieces in reversed(stretches)]
    )
    assert other.w2_s == pytest.approx(1e6 * one.w2_s)
    assert other.freedom == pytest.approx(one.freedom)


@pytest.mark.parametrize("level_w", [0.5, 2.0])
def test_what_the_meter_adds_is_no_fluctuation_but_scatters_what_is_found(level_w: float) -> None:
    """Uncertain moments between pieces give to one what they take from its neighbour."""
    draw = random.Random(8)
    found: list[LongRun] = []
    for _ in range(100):
        stretches = []
        for _ in range(160):
            moments = [draw.gauss(0, 1) for _ in range(21)]
            means = [draw.gauss(0, level_w) + b - a for a, b in pairwise(moments)]
            stretches.append(pieces_of(means, 1.0, own_w2=2.0))
        found.append(long_run(stretches))
    values = [item.w2_s for item in found]
    mean = sum(values) / len(values)
    assert mean == pytest.approx(level_w**2, rel=0.2)
    variance = sum((value - mean) ** 2 for value in values) / len(values)
    stated = sum(item.squared_error for item in found) / len(found)
    assert 0.6 < stated / variance < 1.7


def test_drowned_pieces_do_not_outweigh_the_difference_of_idle_times() -> None:
    """Where moments add most of the pieces' variance, what these tell by chance is little is little
    known: idle times of 0.5 s with ten pieces, whose power is drawn anew every fourth piece."""
    draw = random.Random(12)
    found: list[LongRun] = []
    for _ in range(200):
        visits = [drowned(draw) for _ in range(20)]
        found.append(idle_fluctuation(visits))
    mean = sum(item.w2_s for item in found) / len(found)
    assert 0.7 < mean / 4.0 < 1.4
    assert all(item.w2_s > 4.0 / 3 for item in found)


def drowned(draw: random.Random) -> IdleTimes:
    """Return idle times whose fluctuation has a variance of 1 W^2; the moments add four times that."""
    powers, pieces = [], []
    for _ in range(2):
        moments = [draw.gauss(0, math.sqrt(2)) for _ in range(11)]
        level = redrawn(draw, 10, 4.0)
        shown = [x + b - a for x, (a, b) in zip(level, pairwise(moments), strict=True)]
        pieces.append(pieces_of(shown, 1.0, own_w2=4.0))
        powers.append(sum(level) / len(level))
    return IdleTimes(pieces[0], pieces[1], powers[1] - powers[0], 0.0, 5.0, 1.0)


def test_a_known_slope_is_taken_off() -> None:
    draw = random.Random(9)
    level = [draw.gauss(0, 1) for _ in range(15)]
    rising = [power + 3.0 * i for i, power in enumerate(level)]
    one, other = pieces_of(level, 0.5), pieces_of(rising, 0.5)
    assert other.slope_w_s - one.slope_w_s == pytest.approx(6.0)
    straight = pieces_of([3.0 * i for i in range(15)], 0.5)
    assert levelled(straight, 36.0).sums_w2 == pytest.approx([0.0] * len(straight.sums_w2))


@pytest.mark.parametrize(
    ("stretches", "expected"),
    [
        ([], LongRun(0.0, 0.0, 0)),
        ([pieces_of([], 1.0), pieces_of([3.0], 1.0)], LongRun(0.0, 0.0, 0)),
    ],
)
def test_nothing_is_told_by_nothing(stretches: list[Pieces], expected: LongRun) -> None:
    assert long_run(stretches) == expected


def test_two_pieces_and_steady_power_tell_what_they_can() -> None:
    two = long_run([pieces_of([1.0, 2.0], 1.0)])
    assert two.w2_s == pytest.approx(0.5)
    assert two.freedom == pytest.approx(1.0)
    steady = long_run([pieces_of([2.0] * 20, 1.0)])
    assert steady.w2_s == 0
    assert steady.freedom > 0

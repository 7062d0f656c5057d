from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulemap.device_agents.onboard.warm_up import change_point, steady_from


def noisy(level: float, count: int, rng: random.Random, noise: float = 0.02) -> list[float]:
    return [level * rng.gauss(1.0, noise) for _ in range(count)]


@pytest.mark.parametrize("slow_runs", [1, 2, 5, 10])
@pytest.mark.parametrize("factor", [1.3, 3.0])
def test_slow_first_runs_are_recognised(slow_runs: int, factor: float) -> None:
    hits = 0
    for seed in range(50):
        rng = random.Random(seed)
        times = noisy(0.01 * factor, slow_runs, rng) + noisy(0.01, 15, rng)
        hits += steady_from(times) == slow_runs
    assert hits >= 45


@pytest.mark.parametrize("count", [5, 10, 30])
def test_steady_times_are_steady_from_the_start(count: int) -> None:
    hits = sum(steady_from(noisy(0.01, count, random.Random(seed))) == 0 for seed in range(100))
    assert hits >= 95


def test_two_changes_are_both_discarded() -> None:
    rng = random.Random(1)
    times = noisy(0.05, 3, rng) + noisy(0.02, 4, rng) + noisy(0.01, 12, rng)
    assert steady_from(times) == 7


@pytest.mark.parametrize("decay_runs", [3.0, 8.0])
def test_a_slow_decay_is_waited_for(decay_runs: float) -> None:
    rng = random.Random(4)
    times: list[float] = []
    while len(times) < 5 or steady_from(times) is None:
        excess = 2 * math.exp(-len(times) / decay_runs)
        times.append(0.01 * (1 + excess) * rng.gauss(1, 0.02))
    start = steady_from(times)
    assert start is not None
    # What is left of the excess is a tenth of it at most.
    assert math.exp(-len(times) / decay_runs) < 0.15
    assert len(times) < 60


def test_times_that_still_change_are_not_steady() -> None:
    rng = random.Random(1)
    assert steady_from(noisy(0.02, 8, rng) + noisy(0.01, 2, rng)) is None
    assert steady_from([0.02, 0.01]) is None


def test_a_single_slow_run_in_the_middle_changes_nothing() -> None:
    rng = random.Random(3)
    times = noisy(0.01, 20, rng)
    times[10] *= 1.5
    assert steady_from(times) == 0


@given(st.lists(st.floats(1e-7, 10), max_size=40))
def test_the_answer_is_an_index_into_the_times_or_none(times: list[float]) -> None:
    index = steady_from(times)
    assert index is None or 0 <= index <= len(times) - 5


@given(st.floats(1e-6, 1), st.integers(3, 50))
def test_a_constant_has_no_change(level: float, count: int) -> None:
    assert change_point([level] * count) is None

"""The fastest speed that a machine held, read off noisy visits whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joulemap.datasets.baseline import fastest_speed
from joulemap.datasets.local_level import DIFFUSE, local_level


def test_the_smoother_agrees_with_the_normal_equations() -> None:
    """A random walk in noise is a Gaussian whose mean solves a linear system."""
    random = np.random.default_rng(0)
    values, variance = random.normal(size=30), random.uniform(0.5, 2.0, 30)
    variance[7] = math.inf
    steps = np.array([0.1, 1.0])
    found = local_level(values[:, None], variance, steps)
    for column, step in enumerate(steps):
        difference = np.diff(np.eye(30), axis=0)
        precision = np.diag(1.0 / variance) + difference.T @ difference / step
        precision[0, 0] += 1.0 / DIFFUSE
        seen = np.where(np.isfinite(variance), values / variance, 0.0)
        np.testing.assert_allclose(
            found.level[:, column], np.linalg.solve(precision, seen), atol=1e-8
        )


def test_the_fastest_speed_is_not_taken_for_faster_by_its_noise() -> None:
    """The lowest twentieth of a noisy series lies far below the truth; the speed must not."""
    errors, naive = [], []
    for seed in range(40):
        random = np.random.default_rng(seed)
        stairs = np.where((np.arange(200) // 40) % 2, 0.4, 0.0)
        heat = 0.1 * np.sin(np.arange(200) / 30)
        seen = stairs + heat + 0.1 * random.normal(size=200)
        found = fastest_speed(seen, stairs, np.full(200, 0.01), np.ones(200), 0.05, 0.6)
        truth = np.sort(stairs + heat)[10]
        errors.append((found.level - truth) / math.sqrt(found.variance))
        naive.append(np.sort(seen)[10] - truth)
    assert np.mean(naive) < -0.05
    assert abs(np.mean(errors)) < 1.0
    assert np.mean(np.abs(errors) < 1.96) > 0.9


def test_it_is_the_speed_of_a_share_of_the_time_not_of_the_visits() -> None:
    slowdown = np.repeat([0.0, 0.5], [10, 90])
    variance = np.full(100, 1e-6)
    long = np.repeat([1.0, 1.0], [10, 90])
    short = np.repeat([0.02, 1.0], [10, 90])
    none = np.zeros(100)
    assert fastest_speed(slowdown, none, variance, long, 0.05, 0.6).level == pytest.approx(
        0.0, abs=0.01
    )
    assert fastest_speed(slowdown, none, variance, short, 0.05, 0.6).level == pytest.approx(
        0.5, abs=0.01
    )


@settings(max_examples=25, deadline=None)
@given(
    values=st.lists(st.floats(-1.0, 1.0), min_size=2, max_size=30),
    missing=st.sets(st.integers(1, 29)),
)
def test_it_lies_among_what_was_seen(values: list[float], missing: set[int]) -> None:
    slowdown = np.array(values)
    variance = np.full(len(values), 1e-4)
    variance[[at for at in missing if at < len(values)]] = math.inf
    found = fastest_speed(slowdown, 0 * slowdown, variance, np.ones(len(values)), 0.05, 0.6)
    seen = slowdown[np.isfinite(variance)]
    assert seen.min() - 0.2 <= found.level <= seen.max() + 0.2
    assert math.isfinite(found.variance)

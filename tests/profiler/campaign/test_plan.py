"""What a remote device may be sent ahead of time is what will be asked for, in that order."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from joulemap.datasets import NetworkSpec
from joulemap.profiler import Protocol
from joulemap.profiler.campaign.plan import VisitPlan

from ...conftest import CONDITIONS, make_timing, true_latency_s

VARIANTS = [(a, b) for a in (1, 3, 8) for b in (2, 7, 16)]


def plan_of(spec: NetworkSpec, **settings: object) -> VisitPlan:
    protocol = replace(Protocol(visits=2, max_further_visits=2), **settings)  # type: ignore[arg-type]
    return VisitPlan(spec, CONDITIONS, VARIANTS, protocol, seed=3)


def test_visits_ahead_are_those_that_follow(tiny_spec: NetworkSpec) -> None:
    plan, rng = plan_of(tiny_spec), random.Random(0)
    expected: list[tuple[str, int, int]] = []
    num_ahead = 0
    for number, visit in enumerate(plan):
        if expected:
            assert visit.key == expected.pop(0)
        ahead = [later.key for later in plan.ahead(4)]
        assert ahead[0] == visit.key
        assert ahead[1 : 1 + len(expected)] == expected
        expected = ahead[1:]
        num_ahead += len(expected)
        if number % 7 == 5:
            plan.note(replace(visit, error="transient: the agent died"))
        else:
            plan.note(replace(visit, timing=make_timing(true_latency_s(visit.widths), rng)))
    assert num_ahead > 60
    assert not plan.ahead(4)


@pytest.mark.parametrize("cap", [0.01, 0.1, 0.25])
def test_nothing_is_ahead_that_the_time_cap_forbids(tiny_spec: NetworkSpec, cap: float) -> None:
    def made(look: int) -> list[tuple[str, int, int]]:
        plan, rng = plan_of(tiny_spec, time_cap_s=cap), random.Random(0)
        promised: set[tuple[str, int, int]] = set()
        keys = []
        for visit in plan:
            promised |= {later.key for later in plan.ahead(look)}
            keys.append(visit.key)
            plan.note(replace(visit, timing=make_timing(0.001, rng)))
        assert promised <= set(keys)
        return keys

    assert made(16) == made(1) == made(0)

"""What the campaign learns of its visits' warm-up, against curves that are known."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joulemap.datasets import Block, NetworkSpec, Timing, Visit
from joulemap.datasets.estimation import CampaignEstimate
from joulemap.datasets.measurement import measurements_of
from joulemap.datasets.warm_up_excess import WarmUpCurve, warm_up_curve

MakeVisits = Callable[..., list[Visit]]


def warming(timing: Timing, curve: WarmUpCurve, runs: int, rng: random.Random) -> Timing:
    """The visit with so many warm-up runs, all of whose runs follow the curve."""
    level_s = timing.latency_s
    num_blocks = len(timing.blocks)

    def run_s(number: int) -> float:
        excess = float(curve.excess(np.array([number], dtype=float))[0])
        return level_s * math.exp(excess + rng.gauss(0.0, 0.02))

    def block(number: int, block: Block) -> Block:
        return dataclasses.replace(block, latencies_s=(run_s(runs + number),), calls_per_run=1)

    return dataclasses.replace(
        timing,
        warm_up_s=tuple(run_s(number) for number in range(runs)),
        blocks=tuple(block(number, item) for number, item in enumerate(timing.blocks[:num_blocks])),
    )


def campaign(
    visits: list[Visit], curve: WarmUpCurve, lengths: tuple[int, ...], seed: int = 0
) -> list[Visit]:
    rng = random.Random(seed)
    found = []
    for visit in visits:
        assert visit.timing is not None
        runs = lengths[visit.widths[0] % len(lengths)]
        found.append(dataclasses.replace(visit, timing=warming(visit.timing, curve, runs, rng)))
    return found


@pytest.fixture
def visits(tiny_spec: NetworkSpec, make_visits: MakeVisits) -> list[Visit]:
    return make_visits(tiny_spec, variants=30, visits=3, noise=0.02)


def test_visits_that_end_before_they_settled_are_stated_as_settled(visits: list[Visit]) -> None:
    """Dear variants get few calls: without the curve they look up to 80 % dearer than they are."""
    found = campaign(visits, WarmUpCurve(2.0, 8.0), (7, 12, 60))
    settled = {m.visits[0].variant_id: m.latency for m in measurements_of(visits)}
    estimate = CampaignEstimate(found)
    assert estimate.warm_up.first == pytest.approx(2.0, rel=0.1)
    assert estimate.warm_up.decay_calls == pytest.approx(8.0, rel=0.1)
    for measurement in measurements_of(found):
        truth, stated = settled[measurement.visits[0].variant_id], measurement.latency
        assert truth is not None
        assert stated is not None
        assert stated.latency_s == pytest.approx(truth.latency_s, rel=0.06)


def test_settled_blocks_are_left_as_they_are(visits: list[Visit]) -> None:
    found = campaign(visits, WarmUpCurve(2.0, 2.0), (40,))
    curve = warm_up_curve([visit.timing for visit in found if visit.timing])
    assert curve.first == 0.0
    for visit in found:
        assert visit.timing is not None
        assert not curve.of_blocks(visit.timing).any()


def test_visits_without_a_warm_up_have_no_curve(visits: list[Visit]) -> None:
    timings = [visit.timing for visit in visits if visit.timing]
    assert warm_up_curve(timings).first == 0.0
    assert warm_up_curve(timings[:3]).first == 0.0
    assert warm_up_curve([]).first == 0.0


def test_several_calls_in_a_run_count_as_several(visits: list[Visit]) -> None:
    timing = visits[0].timing
    assert timing is not None
    blocks = tuple(
        dataclasses.replace(block, latencies_s=(1.0, 1.0), calls_per_run=10)
        for block in timing.blocks[:2]
    )
    timing = dataclasses.replace(timing, warm_up_s=(1.0,) * 4, blocks=blocks)
    curve = WarmUpCurve(1.0, 10.0)
    # Two single calls and two runs of ten come before; the middle of two runs of ten is 9.5 on.
    places = np.array([22 + 9.5, 42 + 9.5])
    np.testing.assert_allclose(curve.of_blocks(timing), curve.excess(places))


@settings(max_examples=25, deadline=None)
@given(
    first=st.floats(0.0, 5.0), decay=st.floats(0.5, 100.0), calls=st.lists(st.integers(0, 10_000))
)
def test_an_excess_is_never_negative_and_never_rises(
    first: float, decay: float, calls: list[int]
) -> None:
    excess = WarmUpCurve(first, decay).excess(np.array(sorted(calls), dtype=float))
    assert (excess >= 0).all()
    assert (np.diff(excess) <= 0).all()

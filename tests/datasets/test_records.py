from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from joulemap import InputError
from joulemap.datasets import Block, Measurement, NetworkSpec, Timing, Visit
from joulemap.datasets.records import measurements_of

MakeVisits = Callable[..., list[Visit]]


def test_a_visit_survives_json_exactly(tiny_spec: NetworkSpec, make_visits: MakeVisits) -> None:
    for visit in make_visits(tiny_spec, variants=3):
        assert Visit.from_dict(json.loads(json.dumps(visit.to_dict()))) == visit


def test_a_measurement_is_the_median_of_block_medians_with_an_interval_over_visits(
    tiny_spec: NetworkSpec, make_visits: MakeVisits
) -> None:
    measurement = measurements_of(make_visits(tiny_spec, variants=1, visits=5))[0]
    blocks = [block for timing in measurement.timings for block in timing.blocks]
    assert measurement.latency_s == np.median([np.median(b.latencies_s) for b in blocks])
    logs = np.log(measurement.visit_latencies_s)
    low, high = measurement.latency_ci_s or (0.0, 0.0)
    half = stats.t.ppf(0.975, 4) * logs.std(ddof=1) / np.sqrt(5)
    assert np.log(high / low) == pytest.approx(2 * half)
    assert low < (measurement.latency_s or 0) < high
    assert measurement.latency_mean_s == pytest.approx(
        np.mean([run for b in blocks for run in b.latencies_s])
    )
    assert measurement.steal_share == 0.0


def test_one_visit_has_no_interval_and_no_visit_no_latency(
    tiny_spec: NetworkSpec, make_visits: MakeVisits
) -> None:
    one = make_visits(tiny_spec, variants=1, visits=1)[0]
    assert Measurement((one,)).latency_s is not None
    assert Measurement((one,)).latency_ci_s is None
    failed = Visit(**{**vars_of(one), "timing": None, "error": "transient: gone"})
    measurement = Measurement((failed,))
    assert (measurement.latency_s, measurement.latency_mean_s, measurement.cpu_time_s) == (
        None,
        None,
        None,
    )


def vars_of(visit: Visit) -> dict[str, Any]:
    return {name: getattr(visit, name) for name in Visit.__dataclass_fields__}


def test_visits_of_two_variants_are_no_measurement(
    tiny_spec: NetworkSpec, make_visits: MakeVisits
) -> None:
    with pytest.raises(InputError, match="one variant"):
        Measurement(tuple(make_visits(tiny_spec, variants=2, visits=1)))


GOOD_BLOCK = {
    "latencies_s": [0.001],
    "calls_per_run": 1,
    "wall_s": 0.001,
    "cpu_s": 0.001,
    "steal_s": None,
}


@pytest.mark.parametrize(
    "change",
    [
        {"latencies_s": []},
        {"latencies_s": [0.0]},
        {"latencies_s": [-1.0]},
        {"latencies_s": [float("nan")]},
        {"latencies_s": [float("inf")]},
        {"latencies_s": ["0.1"]},
        {"latencies_s": "0.1"},
        {"latencies_s": [True]},
        {"calls_per_run": 0},
        {"calls_per_run": 1.5},
        {"wall_s": None},
        {"cpu_s": -1},
        {"steal_s": "x"},
        {"extra": 1},
    ],
)
def test_a_block_that_cannot_be_is_refused(change: dict[str, Any]) -> None:
    assert Block.from_dict(GOOD_BLOCK).median_s == 0.001
    with pytest.raises(InputError):
        Block.from_dict(GOOD_BLOCK | change)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=10),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from([*Timing.__dataclass_fields__, *Block.__dataclass_fields__, "x"]),
                inner,
            )
        ),
        max_leaves=20,
    )
)
def test_whatever_a_device_answers_is_a_timing_or_a_clear_error(answer: Any) -> None:
    with pytest.raises(InputError):
        Timing.from_dict(answer)


@pytest.mark.parametrize("key", sorted(Timing.__dataclass_fields__))
def test_an_answer_that_lacks_a_field_is_refused(key: str) -> None:
    block = Block((0.001,), 1, 0.001, 0.001, None)
    timing = Timing((0.001,), True, (block,), block, block, 0.1, 0.1, 0.1, 10, {}, 1)
    content = asdict(timing)
    assert Timing.from_dict(content) == timing
    del content[key]
    with pytest.raises(InputError, match=key):
        Timing.from_dict(content)

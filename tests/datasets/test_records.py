from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulemap import InputError
from joulemap.datasets import Block, NetworkSpec, Timing, Visit

MakeVisits = Callable[..., list[Visit]]


def test_a_visit_survives_json_exactly(tiny_spec: NetworkSpec, make_visits: MakeVisits) -> None:
    for visit in make_visits(tiny_spec, variants=3):
        assert Visit.from_dict(json.loads(json.dumps(visit.to_dict()))) == visit


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

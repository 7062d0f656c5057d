"""Energies of visits: their records, and what several of them say about a variant."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import Any

import pytest

from joulemap import InputError
from joulemap.datasets import Visit
from joulemap.datasets.energy import EnergyStatistics
from joulemap.datasets.energy_records import (
    EnergyEstimateReading,
    EnergyReading,
    MeterCheck,
    PowerTrace,
)
from joulemap.datasets.records import Conditions

CONDITIONS = Conditions(1, "8x8", "fp32", "onnxruntime", 1)
CHECK = MeterCheck("gauge", "all", "sampler", True, 1.1, 0.01, 2.0, 0.1, False, None)
READING = EnergyReading(
    1.0, 0.01, 12.5, 2.0, 0.02, 5.0, 0.1, "counter", "rapl", "cpu", 1.5, 300, 1500, 0.0, (), CHECK
)
TRACE = PowerTrace((0.0, 0.1), (1.0, 2.0), 3, 0, {"idle_before": (0.0, 0.1)})


def visit(variant: int, energy: EnergyReading | None, index: int = 0) -> Visit:
    return Visit("spec", (variant,), CONDITIONS, index, 0, index, "", error="none", energy=energy)


def reading(energy_j: float, error_j: float | None, **more: Any) -> EnergyReading:
    return replace(READING, energy_j=energy_j, standard_error_j=error_j, **more)


def test_records_survive_json() -> None:
    made = replace(visit(1, READING), power_trace=TRACE, energy_refused="why")
    made = replace(made, energy_estimate=EnergyEstimateReading(1.0, "cpu_time", "all", ("note",)))
    assert Visit.from_dict(json.loads(json.dumps(made.to_dict()))) == made


def test_visits_of_the_first_version_are_read() -> None:
    content = visit(1, None).to_dict()
    for name in ("energy", "energy_estimate", "energy_refused", "power_trace"):
        del content[name]
    flat: dict[str, Any] = {"energy_j": None, "energy_gross_j": None, "energy_source": None}
    assert Visit.from_dict(content | flat).energy is None
    flat = {"energy_j": 1.5, "energy_gross_j": None, "energy_source": "simulated"}
    old = Visit.from_dict(content | flat).energy
    assert old == EnergyReading.simple(1.5)
    assert old.interval_j is None
    with pytest.raises(InputError, match="energy_j"):
        Visit.from_dict(content | flat | {"energy_j": -1.0})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"energy_j": float("nan")}, "energy_j"),
        ({"energy_j": -1.0, "standard_error_j": None}, "nothing explains it"),
        ({"standard_error_j": -0.1}, "standard_error_j"),
        ({"gross_j": 0.0}, "gross_j"),
        ({"source": "guess"}, "counter, sampled, simulated"),
        ({"source": ["counter"]}, "source"),
        ({"meter": 3}, "meter"),
        ({"calls": 0}, "calls"),
        ({"updates": 1.5}, "updates"),
        ({"flags": "none"}, "flags"),
        ({"flags": ["x" * 300]}, "flags"),
        ({"missing_share": "0"}, "missing_share"),
        ({"check": {"meter": "x"}}, "lacks"),
        ({"extra": 1}, "unknown field"),
    ],
)
def test_a_reading_is_checked_field_by_field(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        EnergyReading.from_dict(READING.to_dict() | change)


@pytest.mark.parametrize(
    "change",
    [
        {"times_s": [0.0]},
        {"times_s": [1.0, 0.5]},
        {"values": [1.0, None]},
        {"values": "12"},
        {"num_failed": -1},
        {"spans_s": {"window": [1.0]}},
        {"spans_s": [1.0]},
    ],
)
def test_a_trace_is_checked(change: dict[str, Any]) -> None:
    good = {
        "times_s": [0.0, 0.1],
        "values": [1.0, 2.0],
        "num_readings": 3,
        "num_failed": 0,
        "spans_s": {"idle_before": [0.0, 0.1]},
    }
    assert PowerTrace.from_dict(good) == TRACE
    assert TRACE.idle_s == pytest.approx(0.1)
    with pytest.raises(InputError):
        PowerTrace.from_dict(good | change)


def test_an_interval_of_one_visit_uses_its_degrees_of_freedom() -> None:
    low, high = READING.interval_j or (0, 0)
    assert high - low == pytest.approx(2 * 2.17 * 0.01, rel=0.01)
    low, high = replace(READING, freedom=None).interval_j or (0, 0)
    assert high - low == pytest.approx(2 * 1.96 * 0.01, rel=0.01)


@pytest.mark.parametrize(("spread", "own"), [(0.0, 0.02), (0.03, 0.002), (0.02, 0.02)])
def test_intervals_hold_the_truth_whatever_dominates(spread: float, own: float) -> None:
    """Visits err by their meter and by the machine: the interval allows for both."""
    draw = random.Random(5)
    visits = []
    for variant in range(1, 201):
        for index in range(3):
            energy = variant * (1 + draw.gauss(0, spread)) * (1 + draw.gauss(0, own))
            visits.append(visit(variant, reading(energy, own * variant), index))
    statistics = EnergyStatistics(visits)
    assert statistics.spread == pytest.approx(spread, abs=0.008)
    inside = 0
    for variant in range(1, 201):
        found = statistics.energy([v for v in visits if v.widths == (variant,)])
        assert found is not None
        inside += found.low_j <= variant <= found.high_j
    assert 180 <= inside <= 200


def test_precise_visits_count_more() -> None:
    visits = [visit(1, reading(1.0, 0.001)), visit(1, reading(1.4, 0.4), 1)]
    found = EnergyStatistics(visits).energy(visits)
    assert found is not None
    assert found.energy_j == pytest.approx(1.0, abs=0.01)
    assert found.idle_w == 5.0


def test_what_is_not_above_zero_stays_missing() -> None:
    visits = [visit(1, reading(-0.1, 0.2)), visit(1, reading(-0.2, 0.2), 1)]
    assert EnergyStatistics(visits).energy(visits) is None
    assert EnergyStatistics([]).energy([visit(1, None)]) is None


def test_a_reading_that_states_no_error_is_not_taken_for_exact() -> None:
    visits = [
        visit(1, reading(1.0, 0.1)),
        visit(1, reading(1.0, 0.1)),
        visit(1, reading(2.0, None)),
    ]
    found = EnergyStatistics(visits).energy(visits)
    assert found is not None
    assert found.energy_j == pytest.approx(4 / 3)

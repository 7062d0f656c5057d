"""What a device answers to a visit, on its way from the agent to the campaign."""

from __future__ import annotations

from typing import Any

import pytest

from joulemap.datasets import Timing
from joulemap.device_agents import Preparation
from joulemap.device_agents.errors import TransientDeviceError
from joulemap.device_agents.onboard.visit_answer import VisitAnswer
from joulemap.device_agents.simulated import simulated_device
from joulemap.device_agents.simulated.agent import SimulatedAgent


def answer_of(**options: Any) -> VisitAnswer:
    device, _ = simulated_device(lambda widths: 0.005, **options)
    with device:
        device.prepare(Preparation(b"", (1,), meter="auto"))
        return device.visit([2], {})


def test_an_answer_is_sent_and_read_as_it_is() -> None:
    answer = answer_of(energy=lambda widths: 0.25)
    assert answer.simulated_energy_j == pytest.approx(0.25)
    assert VisitAnswer.from_dict(answer.to_dict()) == answer
    assert Timing.from_dict(answer.timing()).pid == answer.pid


def test_what_no_meter_says_is_not_sent() -> None:
    answer = answer_of()
    assert answer.to_dict() == answer.timing()
    assert "energy" not in answer.timing()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda told: told.pop("pid"), "a timing lacks 'pid'"),
        (lambda told: told.update({"x" * 99: 1}), f"an unknown field '{'x' * 50}'"),
    ],
)
def test_an_answer_of_other_fields_fails_its_visit_in_words(
    change: Any, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = SimulatedAgent.visit

    def visit(agent: SimulatedAgent, request: dict[str, Any], payload: bytes) -> dict[str, Any]:
        told = make(agent, request, payload)
        change(told)
        return told

    monkeypatch.setattr(SimulatedAgent, "visit", visit)
    with pytest.raises(TransientDeviceError, match=f"makes no sense: .*{words}"):
        answer_of()

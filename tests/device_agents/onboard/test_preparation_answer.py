"""What a device answers to a preparation and at the start gate, on its way to the campaign."""

from __future__ import annotations

import json
from typing import Any

import pytest

from joulemap.device_agents import Device, Preparation
from joulemap.device_agents.device import StartGate
from joulemap.device_agents.host.agent_client import AgentClient
from joulemap.device_agents.onboard.preparation_answer import (
    Affinity,
    Exclusivity,
    FrequencyHold,
    MetersInUse,
    PreparationAnswer,
)
from joulemap.device_agents.onboard.ready_answer import ReadyAnswer
from joulemap.device_agents.simulated import simulated_device


def test_an_answer_is_sent_as_ever_and_read_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[dict[str, Any]] = []
    ask = AgentClient.ask

    def listening(self: AgentClient, *arguments: Any, **others: Any) -> dict[str, Any]:
        sent.append(ask(self, *arguments, **others))
        return sent[-1]

    monkeypatch.setattr(AgentClient, "ask", listening)
    device, _ = simulated_device(lambda widths: 0.005, energy=lambda widths: 0.1)
    with device:
        device.prepare(Preparation(b"", (1,), meter="auto"))
        ready = device.wait_until_ready(StartGate())
    prepared, waited = sent[:2]
    assert set(prepared) == {
        *("meters", "runtime_version", "cpus", "affinity", "frequency_lock", "temperature_zone"),
        *("pid", "device_lock"),
    }
    assert prepared["affinity"] == {"is_bound": True, "reason": None}
    assert set(prepared["meters"]) == {"chosen", "why", "warnings", "is_simulated"}
    answer = PreparationAnswer.from_dict(prepared)
    assert json.loads(json.dumps(answer.to_dict())) == prepared
    assert (device.affinity, device.device_lock) == (answer.affinity, answer.device_lock)
    assert device.meters == answer.meters
    assert ReadyAnswer.from_dict(waited) == ready
    assert ready.to_dict() == waited


def test_this_machine_answers_in_the_same_words() -> None:
    answer = PreparationAnswer(
        "1.31", [3], Affinity(is_bound=True), FrequencyHold(is_locked=False), None, MetersInUse(), 7
    )
    sent = answer.to_dict()
    assert "device_lock" not in sent
    assert "is_simulated" not in sent["meters"]
    assert answer.alone().to_dict()["device_lock"] == {"is_exclusive": True, "reason": None}


@pytest.mark.parametrize("junk", [5, "text", ["a"], {"is_bound": "yes", "reason": 1}, True, None])
def test_what_makes_no_sense_says_nothing(junk: object) -> None:
    names = ("cpus", "affinity", "frequency_lock", "device_lock", "temperature_zone", "pid")
    found = PreparationAnswer.from_dict(dict.fromkeys(names, junk))
    assert not found.cpus
    assert (found.affinity, found.frequency_lock) == (Affinity(), FrequencyHold())
    assert found.device_lock in (None, Exclusivity())
    assert (
        not ReadyAnswer.from_dict({"is_ready": junk, "busy_share": junk}).is_ready or junk is True
    )


def test_a_device_that_was_not_asked_yet_says_nothing() -> None:
    with Device("local:") as device:
        assert device.meters == MetersInUse()
        assert device.device_lock == Exclusivity()

"""Whatever numbers a device answers with, a campaign ends in order and its dataset loads."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from joulemap import JoulemapError
from joulemap.datasets import CostDataset
from joulemap.datasets.answer_bounds import BOUNDS
from joulemap.datasets.journal import FILE_NAME, read_journal
from joulemap.device_agents import Device, Preparation
from joulemap.device_agents.device import StartGate
from joulemap.device_agents.errors import TransientDeviceError
from joulemap.device_agents.host.agent_client import AgentClient
from joulemap.device_agents.onboard import frames
from joulemap.device_agents.onboard.visit_answer import VisitAnswer
from joulemap.device_agents.simulated import simulated_device
from joulemap.profiler import Protocol, networks, profile
from joulemap.profiler.campaign.protocol import reference_widths
from joulemap.profiler.templates.export import cached_template

from ...device_agents.onboard.energy.virtual_power import VirtualCounter, VirtualPower
from .test_metered_campaign import device_with

FAST = Protocol(has_revisits=False, max_further_visits=0, visits=2)
HUGE = 10**400


def spoil(answer: dict[str, Any], kind: str) -> None:
    block = answer["blocks"][0]
    if kind == "calls":
        block["calls_per_run"] = HUGE
    elif kind == "latencies":
        for each in answer["blocks"]:
            each["latencies_s"] = [1e308] * len(each["latencies_s"])
    elif kind == "load":
        answer["load_s"] = HUGE
    elif kind == "tiny":
        answer["reference_before"]["latencies_s"] = [5e-324]
    elif kind == "many":
        answer["blocks"] = answer["blocks"] * 20_000
    elif kind == "machine":
        answer["machine"]["load_1min"] = -1e308
    elif kind == "no blocks":
        answer["blocks"] = None


@pytest.mark.parametrize(
    "kind", ["calls", "latencies", "load", "tiny", "many", "machine", "no blocks"]
)
def test_an_impossible_answer_is_a_rejected_visit_and_the_campaign_ends_as_ever(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = networks.get("lenet5")
    device, _ = simulated_device(lambda widths: 0.005 + 1e-5 * sum(widths))
    made, visit = [0], device.visit

    def spoiled(*arguments: Any) -> VisitAnswer:
        answer = copy.deepcopy(visit(*arguments).to_dict())
        made[0] += 1
        if made[0] == 5:
            spoil(answer, kind)
        return VisitAnswer.from_dict(answer)

    monkeypatch.setattr(device, "visit", spoiled)
    dataset = profile(device, spec, samples=6, out=tmp_path, protocol=FAST)
    assert len(dataset) == 6
    assert made[0] == 13
    assert dataset.latency_s.max() < 1
    content = read_journal(tmp_path / FILE_NAME)
    failed = [visit for visit in content.visits if visit.error]
    assert len(failed) == 1
    assert str(failed[0].error).startswith("transient: the device's answer makes no sense: ")
    assert not content.unusable
    assert len(CostDataset.load(tmp_path)) == 6


class Told:
    """A process whose agent answers every request with the same words."""

    def __init__(self, text: bytes) -> None:
        self.text, self.answers = text, b""

    def write(self, data: bytes, timeout_s: float) -> None:
        self.answers += frames.PREFIX.pack(frames.MAGIC, len(self.text), 0) + self.text

    def read(self, length: int, timeout_s: float) -> bytes:
        data, self.answers = self.answers[:length], self.answers[length:]
        return data

    def stderr_tail(self) -> str:
        return ""

    def is_alive(self) -> bool:
        return True

    def kill(self) -> None:
        pass


@pytest.mark.parametrize("number", ["1" + "0" * 400, "9" * 100_000, "1e300", "true", '"5"', "[1]"])
def test_numbers_are_bounded_where_answers_enter(number: str) -> None:
    def ask(operation: str) -> Any:
        text = '{"id": 1, "result": {"load_s": %s, "memory_bytes": %s, "os": "a\\u001b[2Jb"}}'
        client = AgentClient(Told((text % (number, number)).encode()))
        return client.ask(operation, timeout_s=1)

    with pytest.raises(TransientDeviceError, match="load_s") as caught:
        ask("visit")
    assert len(str(caught.value)) < 300
    # Of itself a device may say what it likes: what cannot be so is not known.
    said = ask("probe")
    assert said["memory_bytes"] is None
    assert said["os"] == "a\\x1b[2Jb"


def numbers(value: Any, name: str = "") -> Iterator[str]:
    """Yield the names of all fields of an answer that hold numbers."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from numbers(item, str(key))
    elif isinstance(value, list):
        for item in value:
            yield from numbers(item, name)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield name


def answers_of(device: Device, template: bytes, meter: str) -> Iterator[tuple[str, Any]]:
    spec = networks.get("lenet5")
    widths, protocol = reference_widths(spec), FAST.to_dict()
    heard: list[tuple[str, Any]] = []
    ask: Callable[..., Any] = AgentClient.ask

    def listening(self: Any, operation: str, *arguments: Any, **others: Any) -> Any:
        answer = ask(self, operation, *arguments, **others)
        heard.append((operation, answer))
        return answer

    with pytest.MonkeyPatch.context() as patch, device:
        patch.setattr(AgentClient, "ask", listening)
        device.probe()
        device.find_meters()
        device.clocks()
        device.prepare(Preparation(template, widths, meter=meter, protocol=protocol))
        device.wait_until_ready(StartGate(timeout_s=0.1, interval_s=0.05, max_temperature_c=150))
        device.visit(widths, {**protocol, "max_temperature_c": 150.0})
        if template:
            device.layer_times(widths, 2)
    yield from heard


@pytest.mark.parametrize("kind", ["local", "simulated", "metered"])
def test_every_number_that_an_agent_sends_has_a_bound_of_its_own(kind: str) -> None:
    template, meter = b"", "none"
    if kind == "local":
        device = Device("local:")
        template = cached_template(networks.get("lenet5"), 1).to_json().encode()
    elif kind == "simulated":
        device, meter = simulated_device(lambda widths: 0.005, energy=lambda widths: 0.1)[0], "auto"
    else:
        power = VirtualPower()
        device, meter = device_with(power, VirtualCounter(power)), "counter"
    seen: set[str] = set()
    for operation, answer in answers_of(device, template, meter):
        names = set(numbers(answer))
        assert not names - set(BOUNDS[operation]), f"of {operation}: see datasets/answer_bounds.py"
        seen |= names
    wanted = {"local": "unprofiled_s", "simulated": "simulated_energy_j", "metered": "net_j"}
    assert wanted[kind] in seen


def test_a_device_that_never_answers_possible_numbers_ends_the_campaign_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device, _ = simulated_device(lambda widths: 0.005)
    visit = device.visit

    def spoiled(*arguments: Any) -> VisitAnswer:
        answer = copy.deepcopy(visit(*arguments).to_dict())
        spoil(answer, "calls")
        return VisitAnswer.from_dict(answer)

    monkeypatch.setattr(device, "visit", spoiled)
    with pytest.raises(JoulemapError, match="calls_per_run is an integer of") as caught:
        profile(device, networks.get("lenet5"), samples=6, out=tmp_path, protocol=FAST)
    assert len(str(caught.value)) <= 400
    assert read_journal(tmp_path / FILE_NAME).visits

"""A campaign on a device that shall cool down: what is warned of and what is advised."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from joulemap import InputError
from joulemap.datasets import CostDataset
from joulemap.datasets.journal import FILE_NAME, read_journal
from joulemap.device_agents.onboard.machine.host_state import MACHINE
from joulemap.device_agents.simulated import simulated_device
from joulemap.device_agents.simulated.disturbances import Disturbances, Throttling
from joulemap.profiler import Protocol, networks, profile
from joulemap.profiler.campaign.advice import advise
from joulemap.profiler.campaign.observer import Silent
from joulemap.profiler.command_line import cli

from ...calm_judgement import CALM


def test_visits_that_began_too_hot_are_counted(tmp_path: Path) -> None:
    heat = Throttling(ambient_c=50.0, full_load_rise_c=1.0, limit_c=200.0)
    device, _ = simulated_device(lambda widths: 1e-3, Disturbances(throttling=heat))
    protocol = Protocol(
        visits=1, max_visit_s=0.1, has_revisits=False, max_temperature_c=40, start_timeout_s=1
    )
    profile(device, networks.get("lenet5"), samples=3, out=tmp_path, protocol=protocol)
    journal = read_journal(tmp_path / FILE_NAME)
    assert all(visit.timing.machine["is_cool"] == 0 for visit in journal.visits if visit.timing)
    advice = " ".join(advise(journal))
    assert f"{len(journal.visits)} of {len(journal.visits)} visits began hotter than" in advice
    assert "40 C asked for, 0 at a temperature that cannot be read" in advice


class Messages(Silent):
    """Keeps what a campaign says."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def message(self, text: str) -> None:
        self.said.append(text)


def test_a_temperature_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    messages = Messages()
    protocol = Protocol(
        visits=1,
        max_attempts=10,
        max_visit_s=0.05,
        has_revisits=False,
        max_temperature_c=149,
        max_busy_share=1.0,
        max_further_visits=0,
        start_timeout_s=0.1,
    )
    profile(
        "local:",
        "lenet5",
        samples=1,
        out=tmp_path,
        protocol=protocol,
        judgement=CALM,
        observer=messages,
    )
    is_unreadable = MACHINE.hottest_c() is None
    assert ("the temperature cannot be read" in " ".join(messages.said)) is is_unreadable
    advice = " ".join(advise(read_journal(tmp_path / FILE_NAME)))
    assert ("a temperature that cannot be read there" in advice) is is_unreadable


def test_the_command_line_takes_the_limit(tmp_path: Path) -> None:
    arguments = ["profile", "sim:eyeriss", "--network", "lenet5", "--samples", "1"]
    assert cli.main([*arguments, "--max-temperature", "61", "--out", str(tmp_path)]) == 0
    journal = read_journal(tmp_path / FILE_NAME)
    assert journal.campaign.protocol["max_temperature_c"] == 61


def test_the_zone_is_in_the_journal_and_another_one_is_another_campaign(tmp_path: Path) -> None:
    def measure(zone: str | None) -> None:
        heat = Throttling(ambient_c=50.0, full_load_rise_c=1.0, limit_c=200.0)
        device, _ = simulated_device(lambda widths: 1e-3, Disturbances(throttling=heat))
        protocol = Protocol(
            visits=1, max_visit_s=0.1, has_revisits=False, temperature_zone=zone, start_timeout_s=1
        )
        profile(device, networks.get("lenet5"), samples=2, out=tmp_path, protocol=protocol)

    measure("simulated")
    campaign = read_journal(tmp_path / FILE_NAME).campaign
    assert campaign.protocol["temperature_zone"] == "simulated"
    assert campaign.device["temperature_zone"] == "simulated"
    assert CostDataset.load(tmp_path).device["temperature_zone"] == "simulated"
    measure("simulated")
    with pytest.raises(InputError, match="protocol temperature_zone: simulated there, None here"):
        measure(None)


def test_a_zone_that_the_device_has_not_is_refused_with_those_that_it_has(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["profile", "local:", "--network", "lenet5", "--samples", "1", "--meter", "none"]
    out = tmp_path / "runs"
    assert cli.main([*arguments, "--temperature-zone", "no-such", "--out", str(out)]) != 0
    said = " ".join(capsys.readouterr().err.split())
    assert "this device has no thermal zone 'no-such'; it has: " in said
    assert not (out / FILE_NAME).exists()


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 101, "\x1b[31m", 7])
def test_what_is_no_name_of_a_zone_is_refused(name: object) -> None:
    with pytest.raises(InputError, match="no name of a thermal zone"):
        Protocol(temperature_zone=name)  # type: ignore[arg-type]


def test_visits_in_which_something_held_the_processor_back_are_counted(tmp_path: Path) -> None:
    heat = Throttling(ambient_c=84.0, full_load_rise_c=1.0, limit_c=200.0)
    device, _ = simulated_device(lambda widths: 1e-3, Disturbances(throttling=heat))
    protocol = Protocol(visits=1, max_visit_s=0.1, has_revisits=False)
    profile(device, networks.get("lenet5"), samples=3, out=tmp_path, protocol=protocol)
    journal = read_journal(tmp_path / FILE_NAME)
    said = " ".join(advise(journal))
    assert "held the processor" not in said
    # The zone is named.
    assert "The device reached 8" in said
    assert "C (simulated), where many throttle" in said
    first, *others = journal.visits
    assert first.timing is not None
    machine = {**first.timing.machine, "is_throttled": 1.0}
    held = replace(first, timing=replace(first.timing, machine=machine))
    said = " ".join(advise(replace(journal, visits=(held, *others))))
    assert f"In 1 of {len(journal.visits)} visits a cooling device or the firmware held" in said

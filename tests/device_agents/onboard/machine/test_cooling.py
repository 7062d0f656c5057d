"""Cooling down before a visit."""

from __future__ import annotations

import pytest

from joulemap.datasets import Timing
from joulemap.device_agents.device import Device, Preparation
from joulemap.device_agents.onboard.machine.cooling import BAND_C, cool_down
from joulemap.device_agents.simulated import simulated_device
from joulemap.device_agents.simulated.disturbances import Disturbances, Throttling
from joulemap.profiler import Protocol, networks
from joulemap.profiler.templates.export import cached_template


class Machine:
    """Cools by a degree in two seconds; its clock is virtual."""

    def __init__(self, temperature_c: float | None) -> None:
        self.start_c, self.now_s = temperature_c, 0.0

    def hottest_c(self) -> float | None:
        return None if self.start_c is None else self.start_c - self.now_s / 2

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def cool(self, limit_c: float | None, timeout_s: float = 100) -> dict[str, float | None]:
        return cool_down(self.hottest_c, limit_c, timeout_s, self.sleep, lambda: self.now_s)


def test_a_hot_machine_cools_to_below_its_limit() -> None:
    found = Machine(70).cool(60)
    assert found["start_temperature_c"] == pytest.approx(60 - BAND_C, abs=0.3)
    assert found["cool_down_s"] == pytest.approx(2 * (10 + BAND_C), abs=1)
    assert found["is_cool"] == 1


def test_a_cool_machine_does_not_wait() -> None:
    assert Machine(59).cool(60) == {"cool_down_s": 0, "start_temperature_c": 59, "is_cool": 1}


def test_one_that_stays_hot_is_measured_and_that_is_recorded() -> None:
    found = Machine(90).cool(60, timeout_s=10)
    assert found["is_cool"] == 0
    assert found["cool_down_s"] == pytest.approx(10, abs=0.6)


def test_what_cannot_be_read_is_not_waited_for() -> None:
    assert Machine(None).cool(60)["is_cool"] is None


def test_without_a_limit_nothing_is_recorded() -> None:
    assert Machine(90).cool(None) == {}


def test_a_host_that_is_gone_ends_the_wait() -> None:
    machine = Machine(90)
    with pytest.raises(SystemExit):
        cool_down(machine.hottest_c, 60, 100, machine.sleep, lambda: 0.0, lambda: True)


def test_a_visit_records_how_it_cooled_down() -> None:
    heat = Throttling(full_load_rise_c=60.0, limit_c=200.0, time_constant_s=2.0)
    device, machine = simulated_device(lambda widths: 1e-3, Disturbances(throttling=heat))
    protocol = Protocol(max_visit_s=4.0, max_temperature_c=50.0, start_timeout_s=60.0)
    with device:
        device.prepare(Preparation(b"", (8,)))
        device.visit([8], protocol.to_dict())
        assert machine.temperature_c is not None
        assert machine.temperature_c > 50
        cooled = device.visit([8], protocol.to_dict()).machine
    assert cooled["is_cool"] == 1
    assert cooled["cool_down_s"] > 0.5
    assert cooled["start_temperature_c"] <= 50 - BAND_C


def test_a_visit_of_the_real_agent_records_what_it_could_read() -> None:
    spec = networks.get("lenet5")
    protocol = Protocol(max_visit_s=0.05, max_temperature_c=149.0).to_dict()
    with Device("local:") as device:
        device.prepare(Preparation(cached_template(spec).to_json().encode(), spec.max_widths))
        machine = Timing.from_dict(device.visit(spec.max_widths, protocol).timing()).machine
    assert machine["cool_down_s"] is not None
    # Not readable on most virtual machines: recorded as such.
    assert machine["is_cool"] == (None if machine["start_temperature_c"] is None else 1)

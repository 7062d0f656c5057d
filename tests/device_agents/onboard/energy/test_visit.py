"""How long a metered visit idles, settles and measures, and where its readings are made."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

import pytest

from joulemap.device_agents.onboard.agent import Agent
from joulemap.device_agents.onboard.energy.meter import SAMPLER, MeterInfo
from joulemap.device_agents.onboard.energy.power_log import PowerLog
from joulemap.device_agents.onboard.energy.visit import RecorderLike
from joulemap.device_agents.onboard.machine.clock import MachineClock
from joulemap.device_agents.simulated.agent import VirtualRecorder

from .virtual_power import MeteredAgent, VirtualCounter, VirtualGauge, VirtualPower


def settling_s(answer: dict[str, Any]) -> float:
    spans = answer["trace"]["spans_s"]
    return float(spans["busy"][0] - spans["idle_before"][1])


@pytest.mark.parametrize("averaging_s", [0.02, 0.5, 2.5])
def test_a_gauge_that_averages_has_a_window_of_5_s_and_its_memory_passes_before(
    averaging_s: float,
) -> None:
    power = VirtualPower(seed=1)
    gauge = VirtualGauge(power, period_s=0.02, averaging_s=averaging_s, noise_sd=0.001)
    answer = MeteredAgent(power, [gauge], "gauge").energy()
    assert answer["energy"]["window_s"] >= 5.0
    assert settling_s(answer) >= max(1.0, averaging_s)


@pytest.mark.parametrize(
    ("meter", "period_s"), [("gauge", 0.05), ("gauge", 0.4), ("counter", 0.001), ("counter", 0.1)]
)
def test_a_window_lasts_a_second_and_holds_50_updates(meter: str, period_s: float) -> None:
    power = VirtualPower(seed=2)
    made = (
        VirtualCounter(power, period_s=period_s)
        if meter == "counter"
        else VirtualGauge(power, period_s=period_s, averaging_s=0.0, noise_sd=0.001)
    )
    energy = MeteredAgent(power, [made], meter).energy()["energy"]
    assert energy["updates"] >= 50
    assert energy["window_s"] >= max(1.0, 50 * period_s)


class StarvedAgent(MeteredAgent):
    """Its machine is too busy to read the gauge as often as it should."""

    def make_recorder(self, logs: Sequence[PowerLog]) -> RecorderLike:
        recorder = VirtualRecorder(self.machine, logs)

        class Rarely:
            def start(self) -> None:
                recorder._timers = [logs[0].clock.every(0.28, log.read) for log in logs]  # type: ignore[attr-defined]

            def stop(self) -> None:
                recorder.stop()

        return Rarely()


def test_a_window_with_too_few_updates_is_refused() -> None:
    power = VirtualPower(seed=3)
    gauge = VirtualGauge(power, period_s=0.1, averaging_s=0.0, noise_sd=0.001)
    answer = StarvedAgent(power, [gauge], "gauge").energy()
    assert answer["energy"] is None
    assert "updates of the meter, not 50" in answer["refused"]


def test_windows_begin_at_any_phase_of_a_slow_meter() -> None:
    power = VirtualPower(seed=4)
    agent = MeteredAgent(power, [VirtualGauge(power, period_s=0.5, averaging_s=0.5)], "gauge")
    pauses = [settling_s(agent.energy()) for _ in range(5)]
    assert max(pauses) - min(pauses) > 0.1


class WhereMeter:
    """Tells which CPUs the thread that reads it may use."""

    info = MeterInfo("where", "all", SAMPLER, "nothing")

    def __init__(self) -> None:
        self.cpus: list[list[int]] = []

    def read(self) -> float:
        self.cpus.append(sorted(os.sched_getaffinity(0)))
        return 1.0

    def close(self) -> None:
        """Nothing is held."""


def test_readings_leave_the_variant_s_cpus_in_peace() -> None:
    agent, meter = Agent({}, lambda: False), WhereMeter()
    agent.all_cpus = sorted(os.sched_getaffinity(0))
    agent.cpus = agent.all_cpus[1:]
    recorder = agent.make_recorder([PowerLog(meter, MachineClock())])
    recorder.start()
    end = time.monotonic() + 60.0
    while not meter.cpus and time.monotonic() < end:
        time.sleep(0.005)
    recorder.stop()
    assert meter.cpus[0] == agent.all_cpus[:1]

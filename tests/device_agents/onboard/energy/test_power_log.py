"""The recorder reads in real time, beside the work, on the visit's clock."""

from __future__ import annotations

import os
import threading
import time

import pytest

from joulemap.device_agents.onboard.energy.meter import COUNTER, MeterGone, MeterInfo
from joulemap.device_agents.onboard.energy.meter_choice import enrol
from joulemap.device_agents.onboard.energy.power_log import PowerLog, Recorder
from joulemap.device_agents.onboard.energy.visit import ChosenMeter
from joulemap.device_agents.onboard.machine.clock import MachineClock
from joulemap.device_agents.onboard.visit import Stopwatch, measure
from joulemap.profiler import Protocol

from ...watched_visit import WatchedVisit


class ClockMeter:
    """A counter of 10 W by the machine's clock, and of 20 W more per CPU second of this process."""

    def __init__(self, period_s: float = 0.005) -> None:
        self.info = MeterInfo(
            "clock", "all", COUNTER, "a clock", resolution=1e-6, max_power_w=500.0
        )
        self._period_s = period_s
        self._shown = (0.0, 0.0)
        self.is_gone = False

    def read(self) -> float:
        if self.is_gone:
            raise MeterGone("the clock was unplugged")
        now = time.perf_counter()
        if now - self._shown[0] >= self._period_s:
            self._shown = (now, 10.0 * now + 20.0 * time.process_time())
        return self._shown[1]

    def close(self) -> None:
        """Nothing is held."""


def recorder(logs: list[PowerLog]) -> Recorder:
    return Recorder(logs, sorted(os.sched_getaffinity(0)))


def test_readings_come_in_the_background_until_it_is_stopped() -> None:
    log = PowerLog(ClockMeter(), MachineClock())
    recording = recorder([log])
    began = log.clock.monotonic_s()
    recording.start()
    while len(log.values) < 5:
        time.sleep(0.01)
    threads = [thread for thread in threading.enumerate() if thread.name == "power-log"]
    recording.stop()
    assert threads
    assert not any(thread.is_alive() for thread in threads)
    # At most 20 a second on average: what they cost is part of the idle power.
    assert len(log.values) - 1 <= (log.after_s[-1] - began) / (0.9 * log.interval_s)
    assert all(a <= b for a, b in zip(log.before_s, log.after_s, strict=True))
    assert log.before_s == sorted(log.before_s)
    recording.stop()


def test_readings_are_not_in_step_with_a_meter() -> None:
    log = PowerLog(ClockMeter(), MachineClock())
    pauses = [log.next_interval_s() for _ in range(200)]
    assert len(set(pauses)) > 190
    assert min(pauses) >= 0.9 * log.interval_s
    assert max(pauses) <= 1.1 * log.interval_s
    assert sum(pauses) / 200 == pytest.approx(log.interval_s, rel=0.02)


def test_a_meter_that_is_gone_is_not_asked_again() -> None:
    meter = ClockMeter()
    log = PowerLog(meter, MachineClock())
    assert log.read()
    meter.is_gone = True
    assert not log.read()
    meter.is_gone = False
    assert not log.read()
    assert log.gone == "the clock was unplugged"
    assert not log.await_update(0.05)
    assert len(log.failed_s) >= 2


def test_an_update_is_awaited_and_seen_between_two_close_readings() -> None:
    log = PowerLog(ClockMeter(0.02), MachineClock())
    assert log.await_update(60.0)
    assert log.values[-1] != log.values[-2]
    # A pause of the machine may outlast any limit.
    assert PowerLog(ClockMeter(0.0), MachineClock()).await_update(0.0)
    stuck = ClockMeter(1e9)
    stuck.read()
    assert not PowerLog(stuck, MachineClock()).await_update(0.05)


@pytest.mark.parametrize("is_unplugged", [False, True])
def test_a_visit_in_real_time(is_unplugged: bool) -> None:
    """Net energy is the process's CPU time by 20 W, whatever else the machine does."""
    clock = MachineClock()
    meter = ClockMeter()
    chosen: ChosenMeter = enrol(meter, clock)
    assert 0.004 < chosen.period_s < 0.05
    protocol = Protocol(max_warm_up_s=0.05, max_energy_window_s=1.5).visit_settings
    energy = WatchedVisit([chosen], clock, recorder, protocol)

    def run() -> None:
        sum(range(100_000))
        if is_unplugged and energy.is_open:
            meter.is_gone = True

    result = measure(run, run, protocol, Stopwatch(clock, [0]), lambda: False, energy)
    energy.stop()
    answer = result.energy
    assert answer is not None
    if is_unplugged:
        assert answer["energy"] is None
        assert "unplugged" in answer["refused"]
        return
    assert answer["refused"] is None
    truth = 20.0 * energy.cpu_s / answer["calls"]
    assert answer["energy"]["net_j"] == pytest.approx(truth, rel=0.25)
    blocks = result.blocks
    in_blocks = sum(len(block["latencies_s"]) * block["calls_per_run"] for block in blocks)
    assert answer["calls"] >= in_blocks
    assert energy.cpu_s >= sum(block["cpu_s"] for block in blocks)

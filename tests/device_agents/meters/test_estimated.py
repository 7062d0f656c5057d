"""The estimate: the process's CPU time, and nothing that could be taken for a measurement."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulemap.device_agents.meters import estimated
from joulemap.device_agents.meters.estimated import CpuTimeMeter
from joulemap.device_agents.onboard.energy.meter import MeterError, MeterGone, Missing
from joulemap.device_agents.onboard.files import Files
from joulemap.device_agents.testing import FaultyFiles, MeterContract


class TestEstimateContract(MeterContract):
    module = "estimated"

    @pytest.fixture(autouse=True)
    def _clock(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # The process's CPU time itself never stands still between two readings.
        self.cpu_s = 3.0
        monkeypatch.setattr(time, "process_time", lambda: self.cpu_s)

    def make(self, folder: Path) -> None:
        """There on every machine."""

    def step(self, folder: Path) -> float:
        self.cpu_s += 0.25
        return 0.25 * estimated.DEFAULT_WATTS_PER_CORE

    def absent(self, files: Files) -> list[Any]:
        return []

    def test_it_says_when_it_is_gone(self, files: FaultyFiles, tmp_path: Path) -> None:
        meter = self.meter(files)
        meter.close()
        with pytest.raises(MeterGone):
            meter.read()


def test_it_is_the_process_cpu_time_times_the_stated_power() -> None:
    meter = CpuTimeMeter(10.0)
    earliest_s, before, begun_s = time.process_time(), meter.read(), time.process_time()
    while time.process_time() - begun_s < 0.05:
        pass
    ended_s, after, latest_s = time.process_time(), meter.read(), time.process_time()
    least_j, most_j = (ended_s - begun_s) * 10.0, (latest_s - earliest_s) * 10.0
    assert least_j - 1e-9 <= after - before <= most_j + 1e-9
    assert meter.info.kind == "estimate"


def test_the_power_is_what_was_asked_for() -> None:
    meter = estimated.CpuTimeMeter().with_setting("3.5")
    assert not isinstance(meter, Missing)
    assert "3.5 W" in meter.info.domain


@given(setting=st.text(min_size=1) | st.floats().map(str))
def test_any_other_setting_is_refused(setting: str) -> None:
    try:
        watts = float(setting)
    except ValueError:
        watts = -1.0
    if 0 < watts <= 1000:
        assert estimated.CpuTimeMeter().with_setting(setting)
        return
    with pytest.raises(MeterError, match="estimated:"):
        estimated.CpuTimeMeter().with_setting(setting)

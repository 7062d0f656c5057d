"""The start gate on a folder like /proc and /sys whose files change while it waits."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from joulemap.device_agents.onboard.machine.host_state import HostState
from joulemap.device_agents.onboard.machine.readiness import wait_until_ready
from joulemap.device_agents.onboard.ready_answer import ReadyAnswer


class Board:
    """Advances a board's counters and temperature with the time that the gate sleeps.

    Args:
        root: The board's root folder.
        busy: Elapsed seconds -> share of CPU time used.
        temperature_c: Elapsed seconds -> temperature of its zones.
    """

    def __init__(
        self,
        root: Path,
        busy: Callable[[float], float],
        temperature_c: Callable[[float], float] = lambda _: 40.0,
    ) -> None:
        self.root, self.busy, self.temperature_c = root, busy, temperature_c
        self.elapsed_s = 0.0
        self.used = self.idle = 1e6
        self.sleep(0.0)

    def sleep(self, seconds: float) -> None:
        self.used += 1e4 * seconds * self.busy(self.elapsed_s)
        self.idle += 1e4 * seconds * (1 - self.busy(self.elapsed_s))
        self.elapsed_s += seconds
        (self.root / "proc/stat").write_text(f"cpu  {self.used:.0f} 0 0 {self.idle:.0f} 0 0 0 0\n")
        for zone in self.root.glob("sys/class/thermal/thermal_zone*/temp"):
            zone.write_text(f"{self.temperature_c(self.elapsed_s) * 1e3:.0f}\n")

    def gate(self, **settings: Any) -> ReadyAnswer:
        values = {
            "max_busy_share": 0.1,
            "max_temperature_c": 60.0,
            "timeout_s": 100.0,
            "interval_s": 1.0,
            **settings,
        }
        return wait_until_ready(
            HostState(str(self.root)), sleep=self.sleep, now=lambda: self.elapsed_s, **values
        )


def test_an_idle_cool_machine_is_ready_at_the_first_look(board: Path) -> None:
    answer = Board(board, lambda _: 0.02).gate(timeout_s=0)
    assert answer.busy_share == pytest.approx(0.02, abs=0.01)
    expected = ReadyAnswer(is_ready=True, waited_s=1.0, temperature_c=40.0)
    assert dataclasses.replace(answer, busy_share=None) == expected


def test_it_waits_for_others_to_end_and_for_the_heat_to_go(board: Path) -> None:
    machine = Board(board, lambda t: 0.9 if t < 20 else 0.01, lambda t: max(45.0, 80 - t / 2))
    answer = machine.gate()
    assert answer.is_ready
    assert answer.waited_s == 40
    assert answer.temperature_c == 60


def test_what_is_in_the_way_is_said_when_the_time_is_up(board: Path) -> None:
    answer = Board(board, lambda _: 0.5).gate(timeout_s=30)
    assert not answer.is_ready
    assert answer.waited_s == 30
    assert str(answer.reason).startswith("after 30 s other programs still use 50% of the CPUs")
    assert "deg C" not in str(answer.reason)
    answer = Board(board, lambda _: 0.0, lambda _: 83.4).gate(timeout_s=30)
    assert not answer.is_ready
    assert "83.4 deg C, above 60.0" in str(answer.reason)
    assert "told by the hottest of thermal_zone0, thermal_zone1" in str(answer.reason)
    assert "other programs" not in str(answer.reason)


def test_what_cannot_be_read_is_not_waited_for_and_said(board: Path) -> None:
    machine = Board(board, lambda _: 0.0)
    for zone in board.glob("sys/class/thermal/thermal_zone*/temp"):
        zone.unlink()
    answer = machine.gate()
    assert answer.is_ready
    assert answer.temperature_c is None
    assert "temperature cannot be read" in str(answer.reason)
    assert machine.gate(max_temperature_c=None).reason is None


def test_the_wait_ends_with_its_host(board: Path) -> None:
    with pytest.raises(SystemExit):
        Board(board, lambda _: 0.5).gate(is_cancelled=lambda: True)

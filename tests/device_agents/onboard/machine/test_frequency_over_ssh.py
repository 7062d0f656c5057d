"""A board over SSH is left as it was: its CPU folder lies over the machine's for the server alone."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from joulemap.device_agents.device import Device, Preparation
from joulemap.device_agents.onboard.preparation_answer import FrequencyHold
from joulemap.profiler import Protocol, networks
from joulemap.profiler.campaign.protocol import reference_widths
from joulemap.profiler.templates.export import cached_template

from ...sshd import SshClientHome, Sshd

GOVERNORS = "sys/devices/system/cpu/cpufreq/*/scaling_governor"
BEFORE = ["ondemand", "powersave"]


def _governors(board: Path) -> list[str]:
    return [path.read_text().strip() for path in sorted(board.glob(GOVERNORS))]


@pytest.fixture
def board(make_board: Callable[[int], Path]) -> Path:
    return make_board(1 + max(os.sched_getaffinity(0)))


@pytest.fixture
def server(board: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sshd]:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    server = Sshd(tmp_path / "sshd")
    SshClientHome(tmp_path, server)
    mounted = f"mount --bind {board}/sys/devices/system/cpu /sys/devices/system/cpu && exec "
    server.start(prefix=("unshare", "--mount", "--propagation", "private", "sh", "-c", mounted))
    yield server
    server.stop()
    server.end_agents()


@pytest.mark.parametrize("end", ["close", "kill -9"])
def test_the_governor_returns(server: Sshd, board: Path, end: str) -> None:
    spec = networks.get("lenet5")
    template, reference = cached_template(spec).to_json().encode(), reference_widths(spec)
    protocol = Protocol(max_visit_s=0.05, block_s=0.01, reference_s=0.005).to_dict()
    with Device(f"ssh:{server.address}") as device:
        probed = device.probe().details
        assert probed["control"]["frequency_lock"] == {"is_permitted": True, "reason": None}
        assert {group["governor"] for group in probed["clusters"]} == set(BEFORE)
        device.prepare(Preparation(template, reference, lock_frequency=True))
        assert device.frequency_lock == FrequencyHold(is_locked=True)
        assert device.affinity.is_bound
        assert device.visit(reference, protocol).machine["frequency_hz"] in (1.2e9, 1.5e9)
        assert "performance" in _governors(board)
        if end == "kill -9":
            assert server.agents()
            server.end_agents()
            # Before anybody closes anything.
            _wait_until_restored(board)
    _wait_until_restored(board)


def _wait_until_restored(board: Path) -> None:
    deadline = time.monotonic() + 60
    while _governors(board) != BEFORE:
        assert time.monotonic() < deadline, _governors(board)
        time.sleep(0.02)

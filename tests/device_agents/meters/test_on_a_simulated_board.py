"""The real readers on a file system with live meters: they say what the board's model says."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from joulemap.device_agents.meters.battery import BatteryMeter
from joulemap.device_agents.onboard.energy.meter import Meter, MeterError, MeterGone, Missing
from joulemap.device_agents.onboard.files import Files
from joulemap.device_agents.simulated.board_options import BoardOptions
from joulemap.device_agents.simulated.board_server import BoardServer

METERS = "rapl,dram,psys,ina219,ina3221,battery,laptop,odpm"
WATTS_PER_CORE = 5.0
RAPL = "class/powercap/intel-rapl:0/energy_uj"
INA219 = "class/hwmon/hwmon0/power1_input"


@pytest.fixture(scope="module")
def served() -> Iterator[BoardServer]:
    options = BoardOptions(meter=METERS, active_w=WATTS_PER_CORE, noise=0.0)
    with BoardServer(options) as server:
        server.watch(os.getpid())
        yield server


@pytest.fixture
def board(served: BoardServer) -> Iterator[BoardServer]:
    yield served
    served.clear_faults()
    served.plug_charger(is_plugged=False)


@pytest.fixture
def find(board: BoardServer, tmp_path: Path) -> Iterator[Callable[[str], dict[str, Meter]]]:
    """Returns a function: backend -> its meters by channel; closed after the test."""
    (tmp_path / "sys").symlink_to(board.folder)
    opened: list[Meter] = []

    def look(backend: str) -> dict[str, Meter]:
        module = importlib.import_module(f"joulemap.device_agents.meters.{backend}")
        found = module.find(Files(str(tmp_path)))
        assert not [item for item in found if isinstance(item, Missing)]
        opened.extend(found)
        return {item.info.channel: item for item in found}

    yield look
    for meter in opened:
        meter.close()


def work(cpu_s: float) -> None:
    end = time.process_time() + cpu_s
    while time.process_time() < end:
        pass


@pytest.mark.parametrize(
    ("backend", "channel"), [("rapl", "cpu"), ("rapl", "psys"), ("android_odpm", "S1M_VDD_MIF")]
)
def test_a_counter_counts_the_boards_joules(
    board: BoardServer, find: Callable[[str], dict[str, Meter]], backend: str, channel: str
) -> None:
    meter = find(backend)[channel]
    times_s = [time.perf_counter()]
    before = meter.read()
    times_s.append(time.perf_counter())
    work(0.2)
    times_s.append(time.perf_counter())
    after = meter.read()
    times_s.append(time.perf_counter())
    time.sleep(0.01)
    least, most = (board.truth(*span) for span in (times_s[1:3], (times_s[0], times_s[3])))
    assert most.net_j >= 0.2 * WATTS_PER_CORE
    # A value is as old as one update, in which the board used this much at most.
    period_s, share = (0.002, 1.0) if backend == "rapl" else (0.130, 0.3)
    stale_j = period_s * (2.0 + WATTS_PER_CORE * (os.cpu_count() or 1))
    if backend == "rapl":
        # Package and memory are the whole board, and so is psys.
        assert least.energy_j - stale_j <= after - before <= most.energy_j + stale_j
    else:
        assert 0.0 <= after - before <= share * (most.energy_j + stale_j)


def test_gauges_show_the_boards_watts(tmp_path: Path) -> None:
    # Nothing works on it: it uses what it does when idle, and more and more as it warms up.
    options = BoardOptions(meter="ina219,ina3221", idle_w=7.5, noise=0.0, flicker=0.0)
    with BoardServer(options) as server:
        (tmp_path / "sys").symlink_to(server.folder)
        files = Files(str(tmp_path))
        hwmon, jetson = (
            importlib.import_module(f"joulemap.device_agents.meters.{name}").find(files)
            for name in ("hwmon", "jetson")
        )
        gauges = {meter.info.channel: meter for meter in hwmon}
        for meter in (gauges["ina219-power1"], gauges["VDD_IN"], jetson[0]):
            watts, read_s = meter.read(), time.perf_counter()
            time.sleep(0.02)
            later_s = time.perf_counter()
            later_w = server.truth(read_s, later_s).energy_j / (later_s - read_s)
            # Half a step of the coarsest gauge: 8 mA of a supply of 5 V.
            assert 7.5 - 0.021 <= watts <= later_w + 0.021
        assert [meter.info.channel for meter in jetson] == ["VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"]
        assert jetson[1].read() + jetson[2].read() < jetson[0].read()
        for meter in (*hwmon, *jetson):
            meter.close()


def test_a_battery_is_calibrated_by_real_work(
    board: BoardServer, find: Callable[[str], dict[str, Meter]]
) -> None:
    meters = find("battery")
    phone = meters["battery"]
    assert isinstance(phone, BatteryMeter)
    learned = phone.calibrate(stretch_s=2.4, slice_s=0.1)
    assert (learned.sign, learned.factor) == (-1, 1.0)
    assert phone.read() > 0.0
    board.plug_charger(is_plugged=True)
    with pytest.raises(MeterError, match="charger is plugged in"):
        phone.read()
    assert phone.state()["plugged"] != "none"


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("eio", MeterError, "cannot be read now"),
        ("enodev", MeterGone, "is gone"),
        ("nan", MeterError, "instead of a number"),
        ("scale", MeterError, "more than|beyond"),
        ("sign", MeterError, "less than nothing|beyond"),
    ],
)
@pytest.mark.parametrize("path", [RAPL, INA219])
def test_faults_are_errors_and_pass(
    board: BoardServer,
    find: Callable[[str], dict[str, Meter]],
    path: str,
    kind: str,
    error: type[MeterError],
    message: str,
) -> None:
    meters = find("rapl" if path == RAPL else "hwmon")
    channel = "package-0" if path == RAPL else "ina219-power1"
    # A counter far from its range shows other numbers as well as this one; that is the reader's part.
    value = 1e9 if kind == "scale" else None
    meters[channel].read()
    board.set_fault(path, kind, value)
    with pytest.raises(error, match=message):
        meters[channel].read()
    board.clear_faults()
    assert meters[channel].read() > 0


def test_a_counter_that_is_closed_to_users_is_missing(board: BoardServer, tmp_path: Path) -> None:
    (tmp_path / "sys").symlink_to(board.folder)
    board.set_fault("class/powercap/*/energy_uj", "eacces")
    rapl = importlib.import_module("joulemap.device_agents.meters.rapl")
    (missing,) = rapl.find(Files(str(tmp_path)))
    assert isinstance(missing, Missing)
    assert "intel-rapl:0/energy_uj" in missing.reason
    assert "chmod" in missing.remedy

"""The real readers on a file system with live meters: they say what the board's model says."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from joulemap.device_agents.meters.battery import BatteryMeter
from joulemap.device_agents.onboard.files import Files
from joulemap.device_agents.onboard.meter import Meter, MeterError, MeterGone, Missing
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


def test_counters_count_the_boards_joules(
    board: BoardServer, find: Callable[[str], dict[str, Meter]]
) -> None:
    rapl, odpm = find("rapl"), find("android_odpm")
    meters = [rapl["cpu"], rapl["psys"], rapl["package-0.dram"], *odpm.values()]
    del odpm["total"]
    start_s = time.perf_counter()
    before = [meter.read() for meter in meters]
    work(0.3)
    time.sleep(0.1)
    after = [meter.read() for meter in meters]
    end_s = time.perf_counter()
    used = [b - a for a, b in zip(before, after, strict=True)]
    truth_j = board.truth(start_s, end_s).energy_j
    assert truth_j > 0.3 * WATTS_PER_CORE
    # Package and memory are the whole board; the counters' updates are 1 ms apart, reading takes some.
    assert used[0] == pytest.approx(truth_j, rel=0.05)
    assert used[1] == pytest.approx(truth_j, rel=0.05)
    assert used[2] < 0.6 * used[0]
    # Updated eight times in a second, but all at once.
    assert used[3] <= sum(used[4:]) + 1e-6


def test_gauges_show_the_boards_watts(
    board: BoardServer, find: Callable[[str], dict[str, Meter]]
) -> None:
    meters = [*find("hwmon").values()]
    total = next(meter for meter in meters if meter.info.channel.startswith("ina219"))
    # Averages of the milliseconds before: of a stretch of work that went on for longer.
    start_s = time.perf_counter()
    watts = []
    while time.perf_counter() - start_s < 0.3:
        watts.append(total.read())
        time.sleep(0.002)
    end_s = time.perf_counter()
    truth_w = board.truth(start_s, end_s).energy_j / (end_s - start_s)
    assert sum(watts) / len(watts) == pytest.approx(truth_w, rel=0.1)
    assert {"VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"} <= {meter.info.channel for meter in meters}


def test_a_jetsons_total_is_the_whole_module(tmp_path: Path) -> None:
    jetson = importlib.import_module("joulemap.device_agents.meters.jetson")
    with BoardServer(BoardOptions(meter="ina3221", idle_w=7.5, noise=0.0)) as server:
        (tmp_path / "sys").symlink_to(server.folder)
        meters = jetson.find(Files(str(tmp_path)))
        assert [meter.info.channel for meter in meters] == ["VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"]
        # Nothing works on it.
        assert meters[0].read() == pytest.approx(7.5, abs=meters[0].info.resolution)
        assert meters[1].read() + meters[2].read() < meters[0].read()
        for meter in meters:
            meter.close()


def test_a_battery_is_calibrated_by_real_work(
    board: BoardServer, find: Callable[[str], dict[str, Meter]]
) -> None:
    meters = find("battery")
    phone = meters["battery"]
    assert isinstance(phone, BatteryMeter)
    learned = phone.calibrate(work, time.sleep, stretch_s=1.2, slice_s=0.1)
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

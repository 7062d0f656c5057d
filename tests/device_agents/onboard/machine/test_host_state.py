"""The real readers on a folder laid out like /proc and /sys, whole, damaged and missing."""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulemap.device_agents.onboard.files import read_text
from joulemap.device_agents.onboard.machine.host_state import MACHINE, HostState, over_visit

TICKS = os.sysconf("SC_CLK_TCK")


def test_every_reading_of_a_whole_machine(board: Path) -> None:
    assert HostState(str(board)).snapshot([0, 1]) == {
        "load_1min": 0.52,
        "num_runnable": 3,
        "frequency_hz": 1.2e9,
        "temperature_c": 61.25,
        "num_throttle_events": 2 + 5 + 7,
        "is_throttled": 0.0,
        # Capped and throttled at some time since the start, but not now.
        "throttling_flags": float(0x50000),
        "memory_pressure_share": 0.125,
        "cpu_pressure_share": 0.0025,
        "available_memory_bytes": 2_500_000 * 1024,
    }
    assert HostState(str(board)).steal_s([1]) == 50 / TICKS
    assert HostState(str(board)).steal_s([0, 1]) == 70 / TICKS
    assert HostState(str(board)).lowest_frequency_hz([0]) == 1.5e9


def test_a_machine_that_says_nothing_gives_none(tmp_path: Path) -> None:
    for state in (HostState(str(tmp_path)), HostState(str(tmp_path / "missing"))):
        assert set(state.snapshot([0, 1]).values()) == {None}
        assert state.steal_s([0]) is None
        assert state.busy_share(0) is None


def test_this_machine_can_be_read() -> None:
    snapshot = MACHINE.snapshot([0])
    assert snapshot["load_1min"] is not None
    assert snapshot["num_runnable"] is not None
    assert snapshot["available_memory_bytes"] is not None
    assert snapshot.keys() == HostState("/nowhere").snapshot([0]).keys()


DAMAGED = st.one_of(
    st.sampled_from(
        [b"", b"\n", b"-5\n", b"-274000\n", b"nan", b"inf", b"1e5", b"<unknown>\n", b"9" * 5000]
    ),
    st.sampled_from(
        [b"cpu0 1 2 x\n", b"some avg10=\n", b"some avg10=900.0 \n", b"MemAvailable:\n"]
    ),
    st.sampled_from([b"cpu  9 9\n" * 9000, b"MemAvailable: -1 kB\n", b"MemTotal: 1_0 kB\n"]),
    st.binary(max_size=200),
    st.text(max_size=50).map(str.encode),
    st.integers(-(10**30), 10**30).map(lambda number: str(number).encode()),
)


@pytest.fixture(scope="module")
def lasting_board(plant_board: Callable[[Path], Path], tmp_path_factory: Any) -> Path:
    return plant_board(tmp_path_factory.mktemp("board"))


@given(data=st.data())
def test_a_damaged_file_gives_none_or_a_plausible_value(
    data: st.DataObject, lasting_board: Path, board_files: dict[str, str]
) -> None:
    names = st.sampled_from(sorted(board_files))
    damage = data.draw(st.dictionaries(names, st.one_of(DAMAGED, st.none()), max_size=5))
    bounds = {
        "frequency_hz": (1e6, 2e10),
        "temperature_c": (0, 150),
        "is_throttled": (0, 1),
        "memory_pressure_share": (0, 1),
        "cpu_pressure_share": (0, 1),
    }
    try:
        for name, content in damage.items():
            if content is None:
                (lasting_board / name).unlink()
                (lasting_board / name).mkdir()
            else:
                (lasting_board / name).write_bytes(content)
        state = HostState(str(lasting_board))
        for name, value in state.snapshot([0, 1]).items():
            low, high = bounds.get(name, (0, math.inf))
            assert value is None or low <= value <= high, (name, value)
            assert value is None or math.isfinite(value), (name, value)
        for value in (state.steal_s([0, 1]), state.busy_share(0, [0, 1])):
            assert value is None or 0 <= value < math.inf
    finally:
        for name in damage:
            if (lasting_board / name).is_dir():
                (lasting_board / name).rmdir()
            (lasting_board / name).write_text(board_files[name])


@pytest.mark.parametrize("content", ["", "abc\n", "-12000\n", "9" * 400, "\0\xff"])
@pytest.mark.parametrize(
    ("pattern", "reading"),
    [
        ("sys/class/thermal/thermal_zone*/temp", "temperature_c"),
        ("sys/devices/system/cpu/cpufreq/*/scaling_cur_freq", "frequency_hz"),
        ("sys/devices/system/cpu/cpu*/thermal_throttle/*", "num_throttle_events"),
        ("proc/loadavg", "load_1min"),
        ("proc/loadavg", "num_runnable"),
        ("proc/meminfo", "available_memory_bytes"),
        ("proc/pressure/memory", "memory_pressure_share"),
        ("proc/pressure/cpu", "cpu_pressure_share"),
    ],
)
def test_one_damaged_source_costs_one_reading(
    board: Path, content: str, pattern: str, reading: str
) -> None:
    paths = list(board.glob(pattern))
    assert paths
    for path in paths:
        path.write_text(content)
    assert HostState(str(board)).snapshot([0, 1])[reading] is None


def test_a_zone_that_is_switched_off_does_not_count(board: Path) -> None:
    for off in ("0\n", "-274000\n", "2147483647\n"):
        (board / "sys/class/thermal/thermal_zone1/temp").write_text(off)
        assert HostState(str(board)).hottest_c() == 48.3


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("sys/devices/platform/soc/soc:firmware/get_throttled", "50004\n"),
        ("sys/devices/platform/soc/soc:firmware/get_throttled", "8\n"),
        ("sys/class/thermal/cooling_device0/cur_state", "2\n"),
    ],
)
def test_throttling_is_seen_by_firmware_or_cooling_device(
    board: Path, path: str, text: str
) -> None:
    state = HostState(str(board))
    assert state.is_throttled() == 0
    (board / path).write_text(text)
    assert state.is_throttled() == 1
    # A fan holds no CPU back.
    (board / path).unlink()
    shutil.rmtree(board / "sys/class/thermal/cooling_device0")
    shutil.rmtree(board / "sys/devices/platform")
    assert HostState(str(board)).is_throttled() is None


def test_the_busy_share_is_the_worse_of_the_machines_and_the_measuring_cpus(board: Path) -> None:
    stat = board / "proc/stat"

    def work(seconds: float) -> None:
        assert seconds == 1
        # CPU 0 idles for 100 ticks; CPU 1 works for 60, loses 20 to the hypervisor, idles for 20.
        stat.write_text(
            "cpu  460 0 200 3110 110 10 20 90 0 0\n"
            "cpu0 100 0 100 1890 60 10 20 20 0 0\n"
            "cpu1 360 0 100 1220 50 0 0 70 0 0\n"
        )

    state = HostState(str(board))
    before = stat.read_text()
    for cpus, expected in (([], 0.4), ([0], 0.4), ([1], 0.8), ([0, 1], 0.4)):
        stat.write_text(before)
        assert state.busy_share(1, cpus, work) == pytest.approx(expected, abs=0.05)


def test_this_process_own_work_is_not_the_machines_load() -> None:
    def work(seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pass

    cpu = max(os.sched_getaffinity(0))
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        began, began_s = time.process_time(), time.monotonic()
        share = MACHINE.busy_share(0.5, (), work)
        own, passed_s = time.process_time() - began, time.monotonic() - began_s
    finally:
        os.sched_setaffinity(0, allowed)
    assert share is not None
    # At least what this process got is taken off, whatever the others do meanwhile and however long
    # they keep it waiting.
    total = passed_s * (os.cpu_count() or 1)
    assert share <= 1 - own / total + 0.1


def test_a_visit_keeps_the_worse_of_two_snapshots() -> None:
    before: dict[str, float | None] = {
        "frequency_hz": 6e8,
        "temperature_c": 70.0,
        "is_throttled": 1.0,
        "num_throttle_events": 5.0,
        "available_memory_bytes": 100.0,
        "load_1min": 3.0,
    }
    after: dict[str, float | None] = {
        "frequency_hz": 15e8,
        "temperature_c": 65.0,
        "is_throttled": 0.0,
        "num_throttle_events": 7.0,
        "available_memory_bytes": 90.0,
        "load_1min": 1.0,
    }
    assert over_visit(before, after) == {
        "frequency_hz": 15e8,
        "temperature_c": 70.0,
        "is_throttled": 1.0,
        "num_throttle_events": 2.0,
        "available_memory_bytes": 90.0,
        "load_1min": 1.0,
    }
    unknown: dict[str, float | None] = dict.fromkeys(before)
    assert over_visit(unknown, unknown) == unknown
    half = over_visit(unknown, after)
    assert half["temperature_c"] == 65.0
    assert half["num_throttle_events"] is None


def test_a_pipe_that_nobody_writes_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert read_text(str(tmp_path / "pipe")) == ""
    (tmp_path / "large").write_bytes(b"7" * 1_000_000)
    assert len(read_text(str(tmp_path / "large")) or "") == 65536

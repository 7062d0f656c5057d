"""One counter that is shown twice, with and without a delay, and two that only look alike."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from joulemap.device_agents.meters import rapl
from joulemap.device_agents.meters.mirrored_counters import is_mirror
from joulemap.device_agents.onboard.energy.meter import Meter, Missing
from joulemap.device_agents.onboard.files import Files, OpenFile

CLASS = "sys/class/powercap"
RANGE_UJ = 65_532_610_987
UPDATE_S = 1e-3


class Counters(Files):
    """Counters that go on by themselves; the rest are files.

    Args:
        root: What the files begin at.
        counters: File -> its microjoules at a time.
    """

    def __init__(self, root: str, counters: dict[str, Callable[[float], int]]) -> None:
        super().__init__(root)
        self.counters = counters

    def open(self, path: str) -> OpenFile:
        if path not in self.counters:
            return super().open(path)
        return Counter(self.path(path), self.counters[path])


class Counter(OpenFile):
    def __init__(self, path: str, value: Callable[[float], int]) -> None:
        super().__init__(path)
        self.value = value

    def read(self) -> str:
        return str(self.value(time.monotonic()))


def counter(
    power_w: float, start_uj: int, *, lag_s: float = 0.0, seed: int = 1
) -> Callable[[float], int]:
    """A counter whose power wanders."""

    def value(now_s: float) -> int:
        tick = int((now_s - lag_s) / UPDATE_S)
        wander = (tick * 2654435761 * seed) % 8191
        return (start_uj + int((tick % 10**9) * power_w * 1e3 + wander)) % RANGE_UJ

    return value


def zones(root: Path, names: list[str], packages: int = 0) -> None:
    for number, name in enumerate(names):
        folder = root / CLASS / f"intel-rapl:{number}"
        folder.mkdir(parents=True)
        (folder / "name").write_text(f"{name}\n")
        (folder / "energy_uj").write_text("0\n")
        (folder / "max_energy_range_uj").write_text(f"{RANGE_UJ}\n")
    for cpu in range(4 if packages else 0):
        topology = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
        topology.mkdir(parents=True)
        (topology / "physical_package_id").write_text(f"{cpu % packages}\n")


def num_counted(root: Path, *values: Callable[[float], int]) -> int:
    """How many of the counters the sum holds."""
    files = Counters(
        str(root), {f"{CLASS}/intel-rapl:{n}/energy_uj": v for n, v in enumerate(values)}
    )
    found = rapl.find(files)
    meters: list[Meter] = [item for item in found if not isinstance(item, Missing)]
    cpu = next(item for item in meters if item.info.channel == "cpu")
    for item in meters:
        item.close()
    return cpu.info.rail.count("intel-rapl:")


@pytest.mark.parametrize("lag_s", [0.0, 1e-3, -1e-3, 0.02, -0.05])
def test_a_copy_counts_once_however_far_behind(tmp_path: Path, lag_s: float) -> None:
    zones(tmp_path, ["package-0-die-0", "package-0-die-1"])
    assert num_counted(tmp_path, counter(68, 10**10), counter(68, 10**10, lag_s=lag_s)) == 1


def test_four_dies_that_show_one_counter_count_once(tmp_path: Path) -> None:
    zones(tmp_path, [f"package-0-die-{number}" for number in range(4)])
    copies = [counter(120, 10**9, lag_s=lag * 1e-3) for lag in range(4)]
    assert num_counted(tmp_path, *copies) == 1


def test_dies_with_counters_of_their_own_are_added_though_they_are_close(tmp_path: Path) -> None:
    zones(tmp_path, ["package-0-die-0", "package-0-die-1"])
    assert num_counted(tmp_path, counter(34, 10**10), counter(34, 10**10 + 40_003, seed=5)) == 2


@pytest.mark.parametrize(("packages", "expected"), [(2, 2), (1, 1)])
def test_two_processors_that_stand_still_are_one_only_if_there_is_one(
    tmp_path: Path, packages: int, expected: int
) -> None:
    zones(tmp_path, ["package-0", "package-1"], packages)
    still = [lambda now_s: 5_000_000, lambda now_s: 5_068_000]
    assert num_counted(tmp_path, *still) == expected


def test_two_packages_that_are_seen_to_move_alike_are_one(tmp_path: Path) -> None:
    zones(tmp_path, ["package-0", "package-1"])
    assert num_counted(tmp_path, counter(68, 10**10), counter(68, 10**10, lag_s=1e-3)) == 1
    assert num_counted(tmp_path, counter(68, 10**10), counter(68, 10**10 + 777, seed=9)) == 2


def test_a_copy_across_the_end_of_the_range_is_found(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("20000\n")
    (tmp_path / "b").write_text(f"{RANGE_UJ - 40_000}\n")
    files = Files(str(tmp_path))
    assert is_mirror(files, "a", "b", RANGE_UJ, is_one_package=True)
    assert not is_mirror(files, "a", "b", RANGE_UJ, is_one_package=False)
    (tmp_path / "b").write_text("nonsense\n")
    assert not is_mirror(files, "a", "b", RANGE_UJ, is_one_package=True)
    assert not is_mirror(files, "a", "gone", RANGE_UJ, is_one_package=True)

"""RAPL zones: what is added, what is left out, wraps, and counters that nobody may read."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from joulemap.device_agents.meters import rapl
from joulemap.device_agents.meters.readings import NumberFile, parse_number
from joulemap.device_agents.onboard.energy.meter import Meter, MeterError, MeterInfo, Missing
from joulemap.device_agents.onboard.files import Files
from joulemap.device_agents.testing import FaultyFiles, MeterContract

Plant = Callable[[Path, Mapping[str, object]], None]

CLASS = "sys/class/powercap"
RANGE_UJ = 262_143_328_850
DRAM_RANGE_UJ = 65_712_999_613


def zones(layout: Mapping[str, tuple[str, int]], range_uj: int = RANGE_UJ) -> dict[str, object]:
    """Zone -> (name, energy) as files."""
    files: dict[str, object] = {f"{CLASS}/intel-rapl/enabled": 1}
    for zone, (name, energy) in layout.items():
        files[f"{CLASS}/{zone}/name"] = name
        files[f"{CLASS}/{zone}/energy_uj"] = energy
        files[f"{CLASS}/{zone}/max_energy_range_uj"] = range_uj
    return files


SERVER = {
    "intel-rapl:0": ("package-0", 7_000_000),
    "intel-rapl:0:0": ("dram", 1_000_000),
    "intel-rapl:1": ("package-1", 20_000_000),
    "intel-rapl:1:0": ("dram", 3_000_000),
}
LAPTOP = {
    "intel-rapl:0": ("package-0", 5_000_000),
    "intel-rapl:0:0": ("core", 2_000_000),
    "intel-rapl:0:1": ("uncore", 500_000),
    "intel-rapl:1": ("psys", 9_000_000),
    "intel-rapl-mmio:0": ("package-0", 5_000_000),
}


def find(root: Path, plant: Plant, layout: Mapping[str, tuple[str, int]]) -> dict[str, Meter]:
    plant(root, zones(layout))
    found = rapl.find(Files(str(root)))
    assert not [item for item in found if isinstance(item, Missing)]
    return {item.info.channel: item for item in found if not isinstance(item, Missing)}


class TestRaplContract(MeterContract):
    module = "rapl"
    protected = (f"{CLASS}/*/energy_uj",)

    def make(self, folder: Path) -> None:
        for name, content in zones({"intel-rapl:0": ("package-0", RANGE_UJ - 50_000_000)}).items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{content}\n")

    def step(self, folder: Path) -> float:
        file = folder / CLASS / "intel-rapl:0/energy_uj"
        file.write_text(f"{(int(file.read_text()) + 20_000_000) % RANGE_UJ}\n")
        return 20.0


class TestRaplSumContract(TestRaplContract):
    """Two packages and a memory whose range is another: all three wrap apart."""

    def make(self, folder: Path) -> None:
        super().make(folder)
        near_the_end = {
            "intel-rapl:1": ("package-1", RANGE_UJ - 35_000_000),
            "intel-rapl:1:0": ("dram", DRAM_RANGE_UJ - 5_000_000),
        }
        for name, content in zones(near_the_end).items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{content}\n")
        (folder / CLASS / "intel-rapl:1:0/max_energy_range_uj").write_text(f"{DRAM_RANGE_UJ}\n")

    def step(self, folder: Path) -> float:
        joules = super().step(folder)
        for zone, added_uj in (("intel-rapl:1", 10_000_000), ("intel-rapl:1:0", 2_000_000)):
            range_uj = int((folder / CLASS / zone / "max_energy_range_uj").read_text())
            file = folder / CLASS / zone / "energy_uj"
            file.write_text(f"{(int(file.read_text()) + added_uj) % range_uj}\n")
        return joules + 12.0


def test_packages_and_their_memory_are_added(tmp_path: Path, plant: Plant) -> None:
    meters = find(tmp_path, plant, SERVER)
    assert next(iter(meters)) == "cpu"
    assert meters["cpu"].read() == pytest.approx(31.0)
    assert meters["package-1.dram"].read() == pytest.approx(3.0)
    assert meters["cpu"].info.domain == (
        "processor: package-0 + package-0.dram + package-1 + package-1.dram"
    )


def test_parts_of_the_package_the_platform_and_a_second_view_are_not_added(
    tmp_path: Path, plant: Plant
) -> None:
    meters = find(tmp_path, plant, LAPTOP)
    assert meters["cpu"].read() == pytest.approx(5.0)
    assert set(meters) == {"cpu", "package-0", "package-0.core", "package-0.uncore", "psys"}
    # The sum of one package is that package: whoever takes two meters can see it.
    assert meters["cpu"].info.rail == meters["package-0"].info.rail
    assert meters["psys"].info.rail != meters["package-0"].info.rail


def test_parts_that_are_listed_below_their_parent_only_are_found(
    tmp_path: Path, plant: Plant
) -> None:
    nested = {"intel-rapl:0": ("package-0", 0), "intel-rapl:0/intel-rapl:0:0": ("dram", 2_000_000)}
    assert find(tmp_path, plant, nested)["package-0.dram"].read() == pytest.approx(2.0)


def test_dies_of_one_package_with_counters_of_their_own_are_added(
    tmp_path: Path, plant: Plant
) -> None:
    dies = {
        "intel-rapl:0": ("package-0-die-0", 4_000_000),
        "intel-rapl:1": ("package-0-die-1", 6_000_000),
    }
    assert find(tmp_path, plant, dies)["cpu"].read() == pytest.approx(10.0)


@pytest.mark.parametrize(
    ("second", "energy_uj"),
    # One counter that two dies show, and one name twice.
    [("package-0-die-1", 4_000_000), ("package-0-die-0", 4_000_900)],
)
def test_what_is_shown_twice_counts_once(
    tmp_path: Path, plant: Plant, second: str, energy_uj: int
) -> None:
    dies = {
        "intel-rapl:0": ("package-0-die-0", 4_000_000),
        "intel-rapl:1": (second, energy_uj),
        "intel-rapl:1:0": ("core", 1_000_000),
    }
    meters = find(tmp_path, plant, dies)
    assert meters["cpu"].read() == pytest.approx(4.0)
    assert set(meters) == {"cpu", "package-0-die-0"}


def test_the_bound_of_its_power_comes_from_the_limits(tmp_path: Path, plant: Plant) -> None:
    plant(
        tmp_path,
        {
            f"{CLASS}/intel-rapl:0/constraint_0_max_power_uw": 28_000_000,
            f"{CLASS}/intel-rapl:0/constraint_1_max_power_uw": 0,
            f"{CLASS}/intel-rapl:0/constraint_1_power_limit_uw": 64_000_000,
        },
    )
    assert find(tmp_path, plant, LAPTOP)["cpu"].info.max_power_w == pytest.approx(128.0)


def test_a_step_of_the_counter_is_known_from_its_range(tmp_path: Path, plant: Plant) -> None:
    # 2**-14 J, the step of most of Intel's processors.
    assert find(tmp_path, plant, LAPTOP)["cpu"].info.resolution == pytest.approx(2**-14, rel=1e-5)


def test_one_memory_that_is_closed_leaves_the_rest(tmp_path: Path, plant: Plant) -> None:
    plant(tmp_path, zones(SERVER))
    files = FaultyFiles(str(tmp_path))
    files.denied = (f"{CLASS}/intel-rapl:1:0/energy_uj",)
    found = rapl.find(files)
    missing = [item for item in found if isinstance(item, Missing)]
    assert [item.channel for item in missing] == ["package-1.dram"]
    assert "CVE-2020-8694" in missing[0].reason
    assert "chmod" in missing[0].remedy
    assert not isinstance(found[0], Missing)
    assert found[0].info.domain == "processor: package-0 + package-0.dram + package-1"


def test_a_reading_beyond_the_range_is_refused(tmp_path: Path, plant: Plant) -> None:
    meters = find(tmp_path, plant, SERVER)
    (tmp_path / CLASS / "intel-rapl:0/energy_uj").write_text(f"{RANGE_UJ + 1}\n")
    with pytest.raises(MeterError, match="beyond its range"):
        meters["cpu"].read()


@pytest.mark.parametrize("code", [errno.EIO, errno.EAGAIN])
def test_a_read_error_can_pass(tmp_path: Path, plant: Plant, code: int) -> None:
    plant(tmp_path, zones(SERVER))
    files = FaultyFiles(str(tmp_path))
    meter = rapl.find(files)[0]
    assert not isinstance(meter, Missing)
    files.failure = code
    with pytest.raises(MeterError, match="cannot be read now"):
        meter.read()
    files.failure = 0
    assert meter.read() == pytest.approx(31.0)


@given(text=st.text() | st.sampled_from(["", "nan", "inf", "-", "1e5", "0x10", "1_000", "1 2"]))
def test_what_is_no_number_is_an_error(text: str) -> None:
    assume(not re.fullmatch(r"[+-]?[0-9]+(\.[0-9]+)?", text, re.ASCII))
    with pytest.raises(MeterError, match="/sys/x holds"):
        parse_number(text, "/sys/x")


@given(number=st.integers(-(10**20) + 1, 10**20 - 1))
def test_every_integer_of_the_kernel_is_read(number: int) -> None:
    assert parse_number(str(number), "/sys/x") == float(number)


@settings(max_examples=25)
@given(steps=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), min_size=1, max_size=30))
def test_a_sum_of_unequal_ranges_never_loses_a_wrap(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, int]]
) -> None:
    folder = tmp_path_factory.mktemp("sum")
    for name in ("a", "b"):
        (folder / name).write_text("0")
    files = Files(str(folder))
    meter = rapl.RaplMeter(
        MeterInfo("rapl", "cpu", "counter", "processor"),
        [NumberFile(files, "a"), NumberFile(files, "b")],
        [100, 61],
    )
    start, truth, now = meter.read(), 0, [0, 0]
    for added in steps:
        now = [(now[0] + added[0]) % 100, (now[1] + added[1]) % 61]
        (folder / "a").write_text(str(now[0]))
        (folder / "b").write_text(str(now[1]))
        truth += sum(added)
        assert meter.read() - start == pytest.approx(truth * 1e-6)
    meter.close()


def test_a_processor_that_is_shown_in_the_second_view_alone_is_read_there(
    tmp_path: Path, plant: Plant
) -> None:
    layout = {
        "intel-rapl-mmio:0": ("package-0", 6_000_000),
        "intel-rapl-mmio:0:0": ("dram", 1_000_000),
    }
    meters = find(tmp_path, plant, layout)
    assert meters["cpu"].read() == pytest.approx(7.0)


def test_one_of_two_processors_that_is_closed_leaves_no_total(tmp_path: Path, plant: Plant) -> None:
    plant(tmp_path, zones(SERVER))
    files = FaultyFiles(str(tmp_path))
    files.denied = (f"{CLASS}/intel-rapl:1/energy_uj",)
    found = rapl.find(files)
    missing = [item.channel for item in found if isinstance(item, Missing)]
    names = [item.info.channel for item in found if not isinstance(item, Missing)]
    assert missing == ["package-1"]
    assert "cpu" not in names
    assert all(item.info.is_partial for item in found if not isinstance(item, Missing))


def test_zones_that_a_container_hides_are_missing_with_the_way_out(tmp_path: Path) -> None:
    # As Docker since 24.0.7: the class has the links, and what they lead to is an empty folder.
    folder = tmp_path / CLASS
    folder.mkdir(parents=True)
    for name in ("intel-rapl", "intel-rapl:0", "intel-rapl:0:0"):
        (folder / name).symlink_to(f"../../devices/virtual/powercap/{name}")
    (missing,) = rapl.find(Files(str(tmp_path)))
    assert isinstance(missing, Missing)
    assert "a container hides them" in missing.reason
    assert "systempaths=unconfined" in missing.remedy

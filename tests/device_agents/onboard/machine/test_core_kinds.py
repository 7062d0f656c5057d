"""Groups of CPUs: kinds of cores on x86, clusters on Arm, one group where all are equal."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulemap.device_agents.onboard.files import Files
from joulemap.device_agents.onboard.machine.core_kinds import GAP, parse_cpus, parts_by_gap
from joulemap.device_agents.onboard.machine.processor import clusters

CPUS = "sys/devices/system/cpu"
INTEL = "vendor_id\t: GenuineIntel\nmodel name\t: Intel(R) Core(TM) Ultra 7 155H"
AMD = "vendor_id\t: AuthenticAMD\nmodel name\t: AMD Ryzen"


def write(root: Path, path: str, text: str) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{text}\n")


def machine(
    root: Path,
    max_mhz: Sequence[float],
    cpuinfo: str | Sequence[str],
    policies: Sequence[int] | None = None,
    capacities: Sequence[int] = (),
    **counters: str,
) -> list[list[int]]:
    """Write a machine; return the CPUs of each group. A policy is named by its first CPU."""
    named = list(range(len(max_mhz))) if policies is None else list(policies)
    infos = [cpuinfo] * len(named) if isinstance(cpuinfo, str) else list(cpuinfo)
    write(
        root,
        "proc/cpuinfo",
        "\n\n".join(f"processor\t: {cpu}\n{text}" for cpu, text in enumerate(infos)),
    )
    write(root, f"{CPUS}/online", f"0-{len(named) - 1}")
    for cpu, (policy, mhz) in enumerate(zip(named, max_mhz, strict=True)):
        folder = f"{CPUS}/cpufreq/policy{policy}"
        write(root, f"{folder}/scaling_governor", "schedutil")
        write(root, f"{folder}/scaling_available_governors", "performance schedutil")
        write(root, f"{folder}/cpuinfo_min_freq", "400000")
        write(root, f"{folder}/cpuinfo_max_freq", f"{mhz * 1000:.0f}")
        related = [str(other) for other, its in enumerate(named) if its == policy]
        write(root, f"{folder}/related_cpus", " ".join(related))
        (root / f"{CPUS}/cpu{cpu}").mkdir(parents=True, exist_ok=True)
        (root / f"{CPUS}/cpu{cpu}/cpufreq").symlink_to(f"../cpufreq/policy{policy}")
        if capacities:
            write(root, f"{CPUS}/cpu{cpu}/cpu_capacity", str(capacities[cpu]))
    for name, cpus in counters.items():
        write(root, f"sys/devices/{name}/cpus", cpus)
    return [group["cpus"] for group in clusters(Files(str(root)))]


def arm(part: int) -> str:
    return f"CPU implementer\t: 0x41\nCPU part\t: {part:#x}"


def test_a_hybrid_processor_has_a_group_for_each_kind_of_core(tmp_path: Path) -> None:
    groups = machine(
        tmp_path,
        [4800] * 4 + [4600] * 8 + [3800] * 8 + [2500] * 2,
        INTEL,
        cpu_core="0-11",
        cpu_atom="12-21",
    )
    assert groups == [list(range(12)), list(range(12, 20)), [20, 21]]
    first, second, third = clusters(Files(str(tmp_path)))
    assert first["core"] == "Intel(R) Core(TM) Ultra 7 155H (performance core)"
    assert second["core"] == third["core"] == "Intel(R) Core(TM) Ultra 7 155H (efficiency core)"
    assert (first["max_frequency_hz"], third["max_frequency_hz"]) == (4.8e9, 2.5e9)
    assert first["governors"] == ["performance", "schedutil"]


@pytest.mark.parametrize(
    ("max_mhz", "cpuinfo", "sizes"),
    [
        # Favoured cores boost higher; that makes no cluster.
        ([5300, 5300, 5400, 5400, 5300, 5300], INTEL, [6]),
        ([5750, 5700, 5640, 5550, 5480, 5400, 5250, 5050], AMD, [8]),
        ([5050, 4950, 4650, 4350, 4950, 4400, 4550, 4750], AMD, [8]),
        # Where the counters are hidden the gap tells.
        ([5400] * 4 + [4200] * 4, INTEL, [4, 4]),
        ([5100] * 4 + [3300] * 8, AMD, [4, 8]),
        ([3700] * 256, AMD, [256]),
    ],
)
def test_what_differs_in_boost_alone_is_of_one_kind(
    tmp_path: Path, max_mhz: list[float], cpuinfo: str, sizes: list[int]
) -> None:
    assert [len(group) for group in machine(tmp_path, max_mhz, cpuinfo)] == sizes


def test_two_sockets_are_of_one_kind(tmp_path: Path) -> None:
    assert len(machine(tmp_path, [3900] * 96, INTEL)) == 1


def test_cpus_with_another_governor_are_a_group_of_their_own(tmp_path: Path) -> None:
    machine(tmp_path, [3900] * 6, INTEL)
    for cpu in (2, 3):
        write(tmp_path, f"{CPUS}/cpufreq/policy{cpu}/scaling_governor", "powersave")
    groups = clusters(Files(str(tmp_path)))
    assert [(group["cpus"], group["governor"]) for group in groups] == [
        ([0, 1, 4, 5], "schedutil"),
        ([2, 3], "powersave"),
    ]


def test_an_arm_server_with_a_frequency_for_each_core_has_one_group(tmp_path: Path) -> None:
    assert len(machine(tmp_path, [3000] * 80, arm(0xD0C))) == 1


def test_arms_clusters_stay(tmp_path: Path) -> None:
    rockchip = [arm(0xD05)] * 4 + [arm(0xD0B)] * 4
    groups = machine(
        tmp_path / "rk3588",
        [1800] * 4 + [2400] * 4,
        rockchip,
        [0, 0, 0, 0, 4, 4, 6, 6],
        [530] * 4 + [1024] * 4,
    )
    assert groups == [[0, 1, 2, 3], [4, 5], [6, 7]]
    # One core of three equal ones is clocked higher.
    phone = [arm(0xD05)] * 4 + [arm(0xD0D)] * 4
    groups = machine(
        tmp_path / "phone",
        [1800] * 4 + [2420] * 3 + [3190],
        phone,
        [0, 0, 0, 0, 4, 4, 4, 7],
        [250] * 4 + [780] * 3 + [1024],
    )
    assert groups == [[0, 1, 2, 3], [4, 5, 6], [7]]


def test_arm_cores_that_a_kernel_names_alike_are_told_by_their_parts(tmp_path: Path) -> None:
    name = "model name\t: ARMv7 Processor rev 3 (v7l)\n"
    infos = [name + arm(0xC07)] * 2 + [name + arm(0xC0F)] * 2
    machine(tmp_path, [1400, 1400, 2000, 2000], infos, [0, 0, 2, 2])
    assert [g["core"] for g in clusters(Files(str(tmp_path)))] == ["Cortex-A7", "Cortex-A15"]


@given(
    speeds=st.dictionaries(
        st.integers(0, 300), st.none() | st.floats(1e5, 6e6, exclude_min=True), max_size=64
    )
)
def test_parts_are_apart_and_hold_together(speeds: dict[int, float | None]) -> None:
    parts = parts_by_gap(speeds)
    assert parts.keys() == speeds.keys()
    for number in set(parts.values()) - {-1}:
        inside = sorted({speeds[cpu] or 0.0 for cpu, part in parts.items() if part == number})
        assert all(low >= GAP * high for low, high in pairwise(inside))
        faster = [speeds[cpu] or 0.0 for cpu, part in parts.items() if part > number]
        assert not faster or inside[-1] < GAP * min(faster)
    assert all((parts[cpu] == -1) == (speed is None) for cpu, speed in speeds.items())


@given(cpus=st.sets(st.integers(0, 4095), max_size=100))
def test_lists_of_cpus_are_read(cpus: set[int]) -> None:
    assert set(parse_cpus(",".join(map(str, sorted(cpus))))) == cpus


@given(text=st.text(alphabet="0123456789-, \n;a", max_size=40))
def test_any_list_of_cpus_is_bounded(text: str) -> None:
    assert all(0 <= cpu <= 9999 for cpu in parse_cpus(text))

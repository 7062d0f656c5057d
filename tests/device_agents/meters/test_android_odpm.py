"""Pixel's power monitors: snapshots of many rails, rails that change, and text that is cut off."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulemap.device_agents.meters import android_odpm
from joulemap.device_agents.onboard.energy.meter import Meter, MeterError, Missing
from joulemap.device_agents.onboard.files import Files
from joulemap.device_agents.testing import FaultyFiles, MeterContract

IIO = "sys/bus/iio/devices"
MAIN = {"S1M_VDD_CPUCL2": 5_000_000, "VSYS_PWR_MODEM": 800_000, "L15M_VDD_SLC_M": 70_000}
SUB = {"S2S_VDD_G3D": 2_500_000}


def snapshot(rails: dict[str, int], t_ms: int = 1_000) -> str:
    lines = [
        f"CH{index}(T={t_ms})[{name}], {value}" for index, (name, value) in enumerate(rails.items())
    ]
    return "\n".join([f"t={t_ms}", *lines, ""])


def monitor(folder: Path, index: int, rails: dict[str, int]) -> Path:
    device = folder / f"{IIO}/iio:device{index}"
    device.mkdir(parents=True, exist_ok=True)
    (device / "name").write_text(f"s2mpg1{index}-odpm\n")
    (device / "energy_value").write_text(snapshot(rails))
    lines = [f"CH{number}[{name}]:part{number}" for number, name in enumerate(rails)]
    (device / "enabled_rails").write_text("\n".join([*lines, ""]))
    return device / "energy_value"


def find(folder: Path) -> dict[str, Meter]:
    found = android_odpm.find(Files(str(folder)))
    assert not [item for item in found if isinstance(item, Missing)]
    return {item.info.channel: item for item in found if not isinstance(item, Missing)}


class TestOdpmContract(MeterContract):
    module = "android_odpm"
    protected = (f"{IIO}/*/energy_value",)

    def make(self, folder: Path) -> None:
        self.main, self.sub = dict(MAIN), dict(SUB)
        monitor(folder, 0, self.main)
        monitor(folder, 1, self.sub)

    def step(self, folder: Path) -> float:
        self.main["S1M_VDD_CPUCL2"] += 300_000
        self.main["L15M_VDD_SLC_M"] += 50_000
        self.sub["S2S_VDD_G3D"] += 20_000
        monitor(folder, 0, self.main)
        monitor(folder, 1, self.sub)
        return 0.32


def test_the_total_leaves_out_what_may_hang_on_another_rail(tmp_path: Path) -> None:
    monitor(tmp_path, 0, MAIN)
    monitor(tmp_path, 1, SUB)
    meters = find(tmp_path)
    assert meters["total"].read() == pytest.approx(8.3)
    assert "L15M_VDD_SLC_M" in meters["total"].info.unmeasured
    assert set(meters) == {"total", *MAIN, *SUB}
    assert meters["L15M_VDD_SLC_M"].read() == pytest.approx(0.07)
    assert "part0" in meters["S2S_VDD_G3D"].info.domain
    assert len({meter.info.rail for meter in meters.values()}) == len(meters)


def test_a_rail_that_is_exchanged_is_noticed(tmp_path: Path) -> None:
    monitor(tmp_path, 0, MAIN)
    meters = find(tmp_path)
    exchanged = {"S4M_VDD_CPUCL0": 3, **dict(list(MAIN.items())[1:])}
    monitor(tmp_path, 0, exchanged)
    with pytest.raises(MeterError, match="rails were changed"):
        meters["total"].read()
    assert meters["VSYS_PWR_MODEM"].read() == pytest.approx(0.8)


def test_older_phones_have_no_durations(tmp_path: Path) -> None:
    file = monitor(tmp_path, 0, MAIN)
    file.write_text("t=4711\nCH0[VSYS_PWR_MMWAVE], 1000000\nCH1[S2_VDD_CPU], 2000000\n")
    assert find(tmp_path)["total"].read() == pytest.approx(3.0)


@pytest.mark.parametrize("keep", [0, 3, 20, 40])
def test_a_snapshot_that_is_cut_off_is_an_error(tmp_path: Path, keep: int) -> None:
    file = monitor(tmp_path, 0, MAIN)
    meter = find(tmp_path)["total"]
    file.write_text(snapshot(MAIN)[:keep])
    with pytest.raises(MeterError):
        meter.read()


def test_one_monitor_that_is_closed_leaves_no_total(tmp_path: Path) -> None:
    monitor(tmp_path, 0, MAIN)
    monitor(tmp_path, 1, SUB)
    files = FaultyFiles(str(tmp_path))
    files.denied = (f"{IIO}/iio:device1/energy_value",)
    found = android_odpm.find(files)
    channels = {item.info.channel for item in found if not isinstance(item, Missing)}
    assert channels == set(MAIN)
    missing = [item for item in found if isinstance(item, Missing)]
    assert "adb root" in missing[0].remedy


def test_other_devices_are_none_of_its_business(tmp_path: Path) -> None:
    (tmp_path / f"{IIO}/iio:device0").mkdir(parents=True)
    (tmp_path / f"{IIO}/iio:device0/in_accel_x_raw").write_text("12\n")
    assert android_odpm.find(Files(str(tmp_path))) == []


@given(text=st.text() | st.text(alphabet="CHt=()[]T,0123456789 -\n"))
def test_any_text_gives_energies_or_an_error(text: str) -> None:
    try:
        values = android_odpm.parse_energy(text, "/sys/x")
    except MeterError:
        return
    assert all(energy >= 0 and name for name, energy in values.values())


@given(
    rails=st.dictionaries(
        st.text(alphabet="ABCSVDLMPU_0123456789", min_size=1, max_size=20),
        st.integers(0, 10**15),
        min_size=1,
        max_size=12,
    )
)
def test_every_snapshot_is_read_whole(rails: dict[str, int]) -> None:
    values = android_odpm.parse_energy(snapshot(rails), "/sys/x")
    assert dict(values.values()) == rails


def test_a_monitor_whose_folder_is_closed_is_missing_with_the_way_in(tmp_path: Path) -> None:
    # As for the shell's user of a phone as it is sold.
    monitor(tmp_path, 0, MAIN)
    files = FaultyFiles(str(tmp_path))
    files.denied = (f"{IIO}/iio:device0", f"{IIO}/iio:device0/*")
    (missing,) = android_odpm.find(files)
    assert isinstance(missing, Missing)
    assert "adb root" in missing.remedy

"""Jetson boards: which rail is the total, in both layouts of their sensors' files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from joulemap.device_agents.meters import hwmon, jetson
from joulemap.device_agents.onboard.energy.meter import Meter, Missing
from joulemap.device_agents.onboard.files import Files
from joulemap.device_agents.testing import MeterContract

I2C = "sys/bus/i2c/drivers"
ORIN = (("VDD_IN", 5_000, 2_000), ("VDD_CPU_GPU_CV", 5_000, 800), ("VDD_SOC", 5_000, 400))
AGX_ORIN = (
    (("VDD_GPU_SOC", 20_000, 500), ("VDD_CPU_CV", 20_000, 200), ("VIN_SYS_5V0", 5_000, 900)),
    (("NC", 0, 0), ("VDDQ_VDD2_1V8AO", 5_000, 300), ("NC", 0, 0)),
)
AGX_XAVIER = (
    (("GPU", 19_000, 100), ("CPU", 19_000, 50), ("SOC", 19_000, 80)),
    (("CV", 19_000, 0), ("VDDRQ", 19_000, 20), ("SYS5V", 5_000, 400)),
)
TX2 = (
    (("VDD_SYS_GPU", 19_000, 20), ("VDD_SYS_SOC", 19_000, 40), ("VDD_4V0_WIFI", 4_800, 1)),
    (("VDD_IN", 19_000, 200), ("VDD_SYS_CPU", 19_000, 30), ("VDD_SYS_DDR", 4_800, 60)),
)
Chip = Sequence[tuple[str, int, int]]


def write(folder: Path, contents: Mapping[str, object]) -> None:
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")


def board(folder: Path, model: str, compatible: str = "") -> None:
    base = folder / "proc/device-tree"
    base.mkdir(parents=True, exist_ok=True)
    (base / "model").write_text(f"{model}\0")
    (base / "compatible").write_text(compatible.replace(" ", "\0") + "\0nvidia,tegra\0")


def new_layout(folder: Path, chips: Sequence[Chip]) -> None:
    """JetPack 5 and later: the chip's folder, and a link to it in the kernel's class."""
    for index, chip in enumerate(chips):
        device = f"{I2C}/ina3221/1-004{index}"
        chip_folder = f"{device}/hwmon/hwmon{index + 3}"
        contents: dict[str, object] = {f"{chip_folder}/name": "ina3221", f"{device}/name": "x"}
        for number, (label, millivolt, milliampere) in enumerate(chip, start=1):
            contents[f"{chip_folder}/in{number}_label"] = label
            contents[f"{chip_folder}/in{number}_input"] = millivolt
            contents[f"{chip_folder}/curr{number}_input"] = milliampere
            contents[f"{chip_folder}/shunt{number}_resistor"] = 5_000
        write(folder, contents)
        (folder / chip_folder / "device").symlink_to(folder / device)
        link = folder / f"sys/class/hwmon/hwmon{index + 3}"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(folder / chip_folder)


def old_layout(folder: Path, chips: Sequence[Chip]) -> None:
    """JetPack 4: milliwatts of an IIO device."""
    for index, chip in enumerate(chips):
        device = f"{I2C}/ina3221x/0-004{index}/iio:device{index}"
        contents: dict[str, object] = {f"{device}/name": "ina3221x"}
        for number, (label, millivolt, milliampere) in enumerate(chip):
            contents[f"{device}/rail_name_{number}"] = label
            contents[f"{device}/in_voltage{number}_input"] = millivolt
            contents[f"{device}/in_current{number}_input"] = milliampere
            contents[f"{device}/in_power{number}_input"] = millivolt * milliampere // 1000
        write(folder, contents)


def find(folder: Path) -> list[Meter]:
    found = jetson.find(Files(str(folder)))
    assert not [item for item in found if isinstance(item, Missing)]
    return [item for item in found if not isinstance(item, Missing)]


class TestNewLayoutContract(MeterContract):
    module = "jetson"
    protected = (f"{I2C}/*/curr?_input",)

    def make(self, folder: Path) -> None:
        board(folder, "NVIDIA Orin Nano Developer Kit", "nvidia,p3767-0003 nvidia,tegra234")
        new_layout(folder, [ORIN])

    def step(self, folder: Path) -> float:
        file = folder / f"{I2C}/ina3221/1-0040/hwmon/hwmon3/curr1_input"
        file.write_text(f"{int(file.read_text()) + 8}\n")
        return 5.0 * int(file.read_text()) * 1e-3

    def test_a_denial_names_file_and_remedy(self, files, tmp_path) -> None:  # type: ignore[no-untyped-def,override]
        files.denied = self.protected
        missing = [item for item in self.find(files) if isinstance(item, Missing)]
        assert len(missing) == 3
        assert all("curr" in item.reason and "chmod" in item.remedy for item in missing)


class TestSumContract(MeterContract):
    module = "jetson"

    def make(self, folder: Path) -> None:
        board(folder, "Jetson AGX Orin Developer Kit", "nvidia,p3701-0005")
        new_layout(folder, AGX_ORIN)

    def step(self, folder: Path) -> float:
        file = folder / f"{I2C}/ina3221/1-0040/hwmon/hwmon3/curr2_input"
        file.write_text(f"{int(file.read_text()) + 8}\n")
        return 20.0 * 0.5 + 20.0 * int(file.read_text()) * 1e-3 + 5.0 * 0.3


class TestOldLayoutContract(MeterContract):
    module = "jetson"

    def make(self, folder: Path) -> None:
        board(folder, "NVIDIA Jetson Nano Developer Kit")
        old_layout(folder, [[("POM_5V_IN", 5_000, 900), ("POM_5V_GPU", 5_000, 10)]])

    def step(self, folder: Path) -> float:
        file = folder / f"{I2C}/ina3221x/0-0040/iio:device0/in_power0_input"
        file.write_text(f"{int(file.read_text()) + 100}\n")
        return int(file.read_text()) * 1e-3


@pytest.mark.parametrize(
    ("model", "compatible", "chips", "channel", "power_w"),
    [
        ("NVIDIA Jetson Nano Developer Kit", "", [[("POM_5V_IN", 5_000, 900)]], "POM_5V_IN", 4.5),
        ("quill", "nvidia,quill nvidia,tegra186", TX2, "VDD_IN", 3.8),
        ("NVIDIA Jetson Xavier NX Developer Kit", "", [ORIN], "VDD_IN", 10.0),
        ("NVIDIA Orin NX Developer Kit", "nvidia,p3767-0000", [ORIN], "VDD_IN", 10.0),
        ("NVIDIA Jetson Orin Nano Developer Kit", "", [ORIN], "VDD_IN", 10.0),
        # 19 V on five rails and 5 V on the sixth, side by side.
        ("Jetson-AGX", "nvidia,p2888 nvidia,tegra194", AGX_XAVIER, "total", 19 * 0.25 + 2.0),
        # Memory once: it hangs on VIN_SYS_5V0, which is not added.
        ("NVIDIA Jetson AGX Orin Developer Kit", "", AGX_ORIN, "total", 10.0 + 4.0 + 1.5),
    ],
)
@pytest.mark.parametrize("layout", [new_layout, old_layout])
def test_each_board_has_the_total_of_its_table(  # type: ignore[no-untyped-def]
    tmp_path: Path, layout, model: str, compatible: str, chips, channel: str, power_w: float
) -> None:
    board(tmp_path, model, compatible)
    layout(tmp_path, chips)
    meters = find(tmp_path)
    assert meters[0].info.channel == channel
    assert meters[0].read() == pytest.approx(power_w)
    assert "the whole module" in meters[0].info.domain
    assert "carrier board" in meters[0].info.unmeasured
    rails = {label for chip in chips for label, _, _ in chip} - {"NC"}
    assert {meter.info.channel for meter in meters} - {"total"} == rails


def test_a_rail_is_the_same_one_for_hwmon(tmp_path: Path) -> None:
    board(tmp_path, "NVIDIA Orin NX Developer Kit")
    new_layout(tmp_path, [ORIN])
    as_hwmon = {
        item.info.channel: item.info.rail
        for item in hwmon.find(Files(str(tmp_path)))
        if not isinstance(item, Missing)
    }
    assert {meter.info.channel: meter.info.rail for meter in find(tmp_path)} == as_hwmon
    assert len(set(as_hwmon.values())) == 3


def test_a_board_that_is_not_in_the_table_has_no_total(tmp_path: Path) -> None:
    board(tmp_path, "NVIDIA Jetson Next Developer Kit", "nvidia,p9999")
    new_layout(tmp_path, [ORIN])
    found = jetson.find(Files(str(tmp_path)))
    assert isinstance(found[0], Missing)
    assert "not in the table" in found[0].reason
    assert "jetson:VDD_IN" in found[0].remedy
    assert len(found) == 4


def test_a_total_with_a_part_absent_is_missing(tmp_path: Path) -> None:
    board(tmp_path, "Jetson AGX Orin Developer Kit")
    new_layout(tmp_path, AGX_ORIN[:1])
    found = jetson.find(Files(str(tmp_path)))
    assert isinstance(found[0], Missing)
    assert "VDDQ_VDD2_1V8AO" in found[0].reason


def test_a_board_without_a_sensor_says_so(tmp_path: Path) -> None:
    board(tmp_path, "NVIDIA Jetson Nano 2GB Developer Kit")
    (missing,) = jetson.find(Files(str(tmp_path)))
    assert isinstance(missing, Missing)
    assert "external meter" in missing.remedy


def test_another_board_with_such_a_sensor_is_no_jetson(tmp_path: Path) -> None:
    new_layout(tmp_path, [ORIN])
    base = tmp_path / "proc/device-tree"
    base.mkdir(parents=True)
    (base / "model").write_text("Raspberry Pi 4 Model B Rev 1.5\0")
    assert jetson.find(Files(str(tmp_path))) == []

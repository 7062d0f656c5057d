"""Whose power a sensor tells: the machine's where that is known, else a part's that is taken by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulemap.device_agents.meters import hwmon
from joulemap.device_agents.meters.whole_machine import Sensor, is_machines_meter, see_all
from joulemap.device_agents.onboard.energy.meter import Missing
from joulemap.device_agents.onboard.energy.meter_choice import choose, find_meters
from joulemap.device_agents.onboard.files import Files

Plant = Callable[[Path, Mapping[str, object]], None]
HWMON = "sys/class/hwmon"
MODULES = {"hwmon": "hwmon", "battery": "battery"}


def sensor(number: int, chip: str, **labels: int) -> dict[str, object]:
    """A hwmon chip with power sensors, label -> microwatts."""
    folder = f"{HWMON}/hwmon{number}"
    files: dict[str, object] = {f"{folder}/name": chip}
    for place, (label, power_uw) in enumerate(labels.items(), 1):
        files[f"{folder}/power{place}_input"] = power_uw
        if not label.startswith("_"):
            files[f"{folder}/power{place}_label"] = label.replace("_", " ")
    return files


def wholes(root: Path) -> list[str]:
    found = hwmon.find(Files(str(root)))
    meters = [item for item in found if not isinstance(item, Missing)]
    names = [item.info.channel for item in meters if not item.info.is_partial]
    for item in meters:
        item.close()
    return names


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (sensor(0, "macsmc_hwmon", Total_System_Power=9_650_000, AC_Input_Power=0), ["Total_System_Power"]),
        (sensor(0, "corsairpsu", power_total=180_000_000, **{"power_+12v": 150_000_000}), ["power_total"]),
        (sensor(0, "ibmpowernv", System=612_000_000, Proc_0=90_000_000), ["System"]),
        (sensor(0, "power_meter", _=212_000_000), ["power_meter-power1"]),
        (sensor(0, "power_meter", System_Board_Pwr_Consumption=212_000_000), ["System_Board_Pwr_Consumption"]),
        (sensor(0, "power_meter", CPU_Power=61_000_000), []),
        # Two that do not say what they measure: supplies, or nodes.
        ({**sensor(0, "power_meter", _=1), **sensor(1, "power_meter", _=2)}, []),
        # A card, a disk, memory, a network adapter, a supply's regulators, a processor's part.
        (sensor(3, "wormhole", _=23_000), []),
        (sensor(0, "habanalabs", _=20_000), []),
        (sensor(0, "nvme", _=20_000), []),
        (sensor(0, "mlx5", _=11_000_000), []),
        (sensor(0, "spd5118", _=900_000), []),
        (sensor(0, "tps53679", pout1=60_000_000), []),
        (sensor(0, "dps650ab", pin=190_000_000), []),
        (sensor(0, "zenpower", SVI2_P_Core=30_000_000), []),
        (sensor(0, "i915", _=9_000_000), []),
        (sensor(0, "xgene_hwmon", CPU_power=20_000_000), []),
        (sensor(0, "", _=5_000_000), []),
        # Chips that are soldered into a supply: one is the supply's, of two none is known to be.
        (sensor(0, "ina226", _=8_500_000), ["ina226-power1"]),
        (sensor(0, "ina260", _=8_500_000), ["ina260-power1"]),
        (sensor(0, "isl28022", _=8_500_000), ["isl28022-power1"]),
        (sensor(0, "ltc2947", _=8_500_000), ["ltc2947-power1"]),
        (sensor(0, "ina231_sensor", vdd_cpu=8_500_000), []),
        ({**sensor(0, "ina226", _=1), **sensor(1, "ina226", _=2)}, []),
        # What cannot be the supply does not take its place from it.
        ({**sensor(0, "ina226", _=1), **sensor(1, "nvme", _=2)}, ["ina226-power1"]),
        ({**sensor(0, "ina226", _=1), **sensor(1, "wormhole", _=2)}, ["ina226-power1"]),
    ],
)  # fmt: skip
def test_known_sensors_alone_are_the_machines(
    tmp_path: Path, plant: Plant, files: Mapping[str, object], expected: list[str]
) -> None:
    plant(tmp_path, files)
    assert wholes(tmp_path) == expected


def test_an_unknown_card_is_listed_by_name_and_can_be_taken(tmp_path: Path, plant: Plant) -> None:
    plant(tmp_path, sensor(3, "wormhole", _=23_000))
    found = find_meters(MODULES, Files(str(tmp_path)))
    meters, why = choose("auto", found)
    assert meters == []
    assert "hwmon:wormhole-power1" in why
    assert "name it by --meter" in why
    (meter,), _ = choose("hwmon:wormhole-power1", found)
    assert meter.read() == pytest.approx(0.023)


@pytest.mark.parametrize("name", ["sfp_eth1", "sfp", "qsfp0"])
def test_light_is_no_power_of_a_rail(tmp_path: Path, plant: Plant, name: str) -> None:
    module = sensor(1, name, TX_power=563, RX_power=412)
    module |= {f"{HWMON}/hwmon1/in1_input": 3_280, f"{HWMON}/hwmon1/curr1_input": 6}
    plant(tmp_path, {**module, **sensor(0, "ina226", _=8_500_000)})
    found = find_meters(MODULES, Files(str(tmp_path)))
    assert [item.info.channel for item in found if not isinstance(item, Missing)] == [
        "ina226-power1"
    ]
    (meter,), _ = choose("auto", found)
    assert meter.read() == pytest.approx(8.5)


@pytest.mark.parametrize(
    ("kind", "vendor", "is_supply"),
    [
        # An accelerator's own chip; the bus of a PC's board; the pins of a Raspberry Pi 5.
        ("0x120000", "0x1e52", False),
        ("0x020000", "0x15b3", False),
        ("0x0c0500", "0x8086", True),
        ("0x020000", "0x1de4", True),
    ],
)
def test_a_chip_on_a_card_is_the_cards(
    tmp_path: Path, plant: Plant, kind: str, vendor: str, is_supply: bool
) -> None:
    card = "sys/devices/pci0000:00/0000:00:01.0/0000:01:00.0"
    chip = f"{card}/i2c-5/5-0040"
    plant(tmp_path, {f"{card}/class": kind, f"{card}/vendor": vendor, f"{chip}/name": "ina226"})
    plant(tmp_path, {f"{HWMON}/hwmon0/name": "ina226", f"{HWMON}/hwmon0/power1_input": 8_000_000})
    (tmp_path / f"{HWMON}/hwmon0/device").symlink_to(tmp_path / chip)
    assert bool(wholes(tmp_path)) is is_supply


def test_one_socket_is_the_processor_and_two_are_parts(tmp_path: Path, plant: Plant) -> None:
    folder = f"{HWMON}/hwmon0"
    plant(tmp_path, {f"{folder}/name": "amd_energy", f"{folder}/energy1_input": 5_000_000})
    plant(tmp_path, {f"{folder}/energy1_label": "Esocket0"})
    assert wholes(tmp_path) == ["Esocket0"]
    plant(tmp_path, {f"{folder}/energy2_input": 1, f"{folder}/energy2_label": "Esocket1"})
    assert wholes(tmp_path) == []


names = st.text(alphabet="abcdefghijklmnopqrstuvwxyz0123456789_", max_size=12)


@given(
    chips=st.lists(st.tuples(names, st.text(max_size=20), st.integers(0, 3)), max_size=6),
)
def test_of_chips_that_nobody_knows_none_is_the_machines(
    chips: list[tuple[str, str, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    known = (
        "power_meter",
        "macsmc",
        "corsair",
        "ibmpowernv",
        "amd_energy",
        "ina",
        "isl",
        "ltc",
        "sq",
    )
    sensors = [
        Sensor(chip, label, f"supply{supply}", "sys/x")
        for chip, label, supply in chips
        if not chip.startswith(known)
    ]
    files = Files(str(tmp_path_factory.mktemp("none")))
    assert not any(see_all(files, sensors))
    assert not any(is_machines_meter(each) for each in sensors)

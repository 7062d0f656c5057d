"""Which zones tell of the processor, in which unit, on the trees of real devices and on odd ones."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulemap.device_agents.onboard.machine.host_state import HostState
from joulemap.device_agents.onboard.machine.thermal_names import (
    CHIP,
    ELSEWHERE,
    FIRMWARE,
    NO_TEMPERATURE,
    PROCESSOR,
    UNKNOWN,
    place_of,
)
from joulemap.device_agents.onboard.machine.thermal_units import (
    UNITS,
    evident_unit,
    in_celsius,
    unit_of,
)
from joulemap.device_agents.onboard.machine.thermal_zones import ThermalZones, UnknownZoneError

JETSON = {
    "AO-therm": 44_000,
    "CPU-therm": 41_000,
    "GPU-therm": 39_500,
    "PLL-therm": 40_000,
    "PMIC-Die": 100_000,
    "thermal-fan-est": 40_250,
}
# A handheld with a Snapdragon 865: percent, volts and sensors that are switched off among the zones.
SNAPDRAGON = {
    "aoss0-usr": 26_900,
    "cpu-0-0-usr": 29_200,
    "cpu-1-1-usr": 34_200,
    "gpuss-0-usr": 27_300,
    "q6-hvx-usr": 27_500,
    "pm8150_tz": 88_801,
    "pm8150b-ibat-lvl0": 95_546,
    "pm8150b-vbat-lvl0": 3_986,
    "pm8150b-bcl-lvl0": 0,
    "soc": 72,
    "pm8150l-bcl-lvl0": -274_000,
    "xo-therm-usr": 58_423,
    "camera-therm-usr": -40_000,
    "modem-mmw0-usr": -273_000,
    "gpu-skin-avg-step": 67_600,
    "battery": 45_500,
}
MEDIATEK = {"mtktsAP": 71_000, "mtktscpu": 62_100, "mtktspmic": 75_000, "mtktsbattery": 64_000}
TENSOR = {"BIG": 51_000, "MID": 49_000, "LITTLE": 47_000, "G3D": 46_000, "soc": 93, "disp": 70_000}
LAPTOP = {
    "acpitz": 27_800,
    "INT3400 Thermal": 20_000,
    "x86_pkg_temp": 64_000,
    "TCPU": 63_000,
    "pch_cannonlake": 71_500,
    "iwlwifi_1": 82_000,
    "SEN1": 90_050,
}


def plant(folder: Path, zones: Mapping[str, object], **more: Mapping[str, object]) -> Path:
    """Write thermal zones, name -> temp; `more` has further files of single zones."""
    for number, (name, raw) in enumerate(zones.items()):
        zone = folder / f"sys/class/thermal/thermal_zone{number}"
        zone.mkdir(parents=True)
        (zone / "type").write_text(f"{name}\n")
        (zone / "temp").write_text(f"{raw}\n")
        for file, content in more.get(name, {}).items():
            (zone / file).write_text(f"{content}\n")
    return folder


def hwmon(folder: Path, number: int, chip: str, sensors: Mapping[str, int]) -> None:
    chip_folder = folder / f"sys/class/hwmon/hwmon{number}"
    chip_folder.mkdir(parents=True)
    (chip_folder / "name").write_text(f"{chip}\n")
    for place, (label, raw) in enumerate(sensors.items(), 1):
        (chip_folder / f"temp{place}_label").write_text(f"{label}\n")
        (chip_folder / f"temp{place}_input").write_text(f"{raw}\n")


@pytest.mark.parametrize(
    ("zones", "hottest_c", "used"),
    [
        (JETSON, 44.0, "the hottest of AO-therm, CPU-therm, GPU-therm, PLL-therm"),
        (SNAPDRAGON, 34.2, "the hottest of aoss0-usr, cpu-0-0-usr, cpu-1-1-usr, gpuss-0-usr, q6-hvx-usr"),
        (MEDIATEK, 62.1, "mtktscpu"),
        (TENSOR, 51.0, "the hottest of BIG, MID, LITTLE, G3D"),
        (LAPTOP, 64.0, "the hottest of x86_pkg_temp, TCPU"),
        # Whole degrees and tenths, whole degrees beside thousandths, sensors that are off.
        ({"tsens_tz_sensor0": 65}, 65.0, "tsens_tz_sensor0"),
        ({"tsens_tz_sensor0": 453}, 45.3, "tsens_tz_sensor0"),
        (
            {"pm8953_tz": 37_000, "tsens_tz_sensor0": 84, "tsens_tz_sensor4": 88},
            88.0,
            "the hottest of tsens_tz_sensor0, tsens_tz_sensor4",
        ),
        ({"cpu0": 47_000, "cpu1": 0, "cpu2": -274_000, "cpu3": 127_000}, 47.0, "cpu0"),
        ({"cpu0": 48_000, "cpu1": 125_000, "cpu2": 255, "cpu3": 200_000}, 48.0, "cpu0"),
        # In whole degrees 200 and 255 are sensors that are off, not 20 and 25.5 degrees.
        ({"cpu0": 46, "cpu1": 200, "cpu2": 255, "cpu3": 41}, 46.0, "the hottest of cpu0, cpu3"),
        ({"cpu-thermal": 52_000, "gpu-thermal": 135_000}, 52.0, "cpu-thermal"),
        ({"cpu-thermal": 52, "gpu-thermal": 135}, 52.0, "cpu-thermal"),
        # Nobody says where it sits, but one of them says what no chip beside the others can.
        ({"zone-a": 100_000, "zone-b": 41_000}, 41.0, "zone-b"),
        ({"zone-a": 100, "zone-b": 41, "zone-c": 44}, 44.0, "the hottest of zone-b, zone-c"),
        # Hot all over is hot.
        ({"zone-a": 100_000, "zone-b": 85_000}, 100.0, "the hottest of zone-a, zone-b"),
        ({"cpu-thermal": 97_312, "gpu-thermal": 60_000}, 97.312, "the hottest of cpu-thermal, gpu-thermal"),
        ({"soc": 61_000}, 61.0, "soc"),
        ({"acpitz": 53_000}, 53.0, "acpitz"),
        # What firmware without a sensor writes.
        ({"acpitz": 27_800}, None, None),
        ({"battery": 310, "battery2": 31_000}, None, None),
        ({"cpu-thermal": 0}, None, None),
        ({}, None, None),
    ],
)  # fmt: skip
def test_the_zones_of_the_processor_count(
    tmp_path: Path, zones: Mapping[str, object], hottest_c: float | None, used: str | None
) -> None:
    found = ThermalZones(str(plant(tmp_path, zones)))
    assert found.hottest_c() == hottest_c
    assert found.in_words() == used


def test_each_zone_is_listed_with_the_reason_why_it_does_not_count(tmp_path: Path) -> None:
    zones = {"cpu-thermal": 48_250, "PMIC-Die": 100_000, "soc": 72, "gpu-thermal": -274_000}
    zones |= {"npu-thermal": 100_000, "foo": 51_000}
    listed = HostState(str(plant(tmp_path, zones))).thermal_zones()
    assert {zone["type"]: (zone["temperature_c"], zone["note"]) for zone in listed} == {
        "cpu-thermal": (48.25, None),
        "PMIC-Die": (100.0, "not on the processor's chip"),
        "soc": (None, "holds no temperature"),
        "gpu-thermal": (None, "switched off, or no temperature"),
        "npu-thermal": (100.0, "taken for stuck at 100 deg C"),
        "foo": (51.0, "its name does not say where it sits"),
    }
    assert [zone["is_used"] for zone in listed] == [True, False, False, False, False, False]


@pytest.mark.parametrize("wanted", ["battery", "Battery", "thermal_zone3"])
def test_a_zone_is_taken_by_its_name(tmp_path: Path, wanted: str) -> None:
    plant(tmp_path, {"cpu-thermal": 48_000, "PMIC-Die": 100_000, "acpitz": 27_800, "battery": 312})
    state = HostState(str(tmp_path), wanted)
    state.zones.check()
    assert state.hottest_c() == 31.2
    assert state.zones.in_words() == "battery, asked for by name"
    (used,) = [zone for zone in state.thermal_zones() if zone["is_used"]]
    assert used["type"] == "battery"


def test_of_two_zones_of_one_name_the_hotter_counts(tmp_path: Path) -> None:
    for number, raw in enumerate((51_000, 63_000, 80_000)):
        zone = tmp_path / f"sys/class/thermal/thermal_zone{number}"
        zone.mkdir(parents=True)
        (zone / "type").write_text("x86_pkg_temp" if number < 2 else "pch_skylake")
        (zone / "temp").write_text(str(raw))
    assert ThermalZones(str(tmp_path), "x86_pkg_temp").hottest_c() == 63.0
    assert ThermalZones(str(tmp_path)).hottest_c() == 63.0


def test_an_unknown_name_is_told_the_zones_that_are_there(tmp_path: Path) -> None:
    plant(tmp_path, SNAPDRAGON)
    with pytest.raises(
        UnknownZoneError, match=r"no thermal zone 'cpu'; it has: aoss0-usr, cpu-0-0"
    ):
        ThermalZones(str(tmp_path), "cpu").check()
    with pytest.raises(UnknownZoneError, match="it has: none"):
        ThermalZones(str(tmp_path / "empty"), "cpu").check()
    plant(tmp_path / "many", {f"a-very-long-name-of-a-zone-{n}": 40_000 for n in range(200)})
    with pytest.raises(UnknownZoneError) as caught:
        ThermalZones(str(tmp_path / "many"), "x" * 5000).check()
    assert len(str(caught.value)) < 400
    ThermalZones(str(tmp_path), "cpu-1-1-usr").check()
    ThermalZones(str(tmp_path)).check()


def test_drivers_of_processors_tell_where_no_zone_does(tmp_path: Path) -> None:
    plant(tmp_path, {"acpitz": 27_800, "iwlwifi_1": 82_000})
    hwmon(tmp_path, 0, "nvme", {"Composite": 84_000})
    hwmon(tmp_path, 1, "coretemp", {"Package id 0": 58_000, "Core 0": 56_000, "Core 1": 91_000})
    found = ThermalZones(str(tmp_path))
    assert found.hottest_c() == 58.0
    assert found.in_words() == "coretemp:Package id 0"
    assert ThermalZones(str(tmp_path), "coretemp:Package id 0").hottest_c() == 58.0


@pytest.mark.parametrize(
    ("chip", "sensors", "hottest_c"),
    [
        # The control temperature of the first Threadrippers is 27 degrees above the die's.
        ("k10temp", {"Tctl": 95_000, "Tdie": 68_000}, 68.0),
        ("k10temp", {"Tctl": 62_000, "Tccd1": 63_500}, 63.5),
        ("k10temp", {"": 35_000}, 35.0),
        ("zenpower", {"Tdie": 51_000, "Tctl": 78_000}, 51.0),
        ("coretemp", {"Core 0": 56_000, "Core 1": 61_000}, 61.0),
        ("nct6798", {"CPUTIN": 110_000}, None),
    ],
)
def test_a_processors_own_sensors(
    tmp_path: Path, chip: str, sensors: Mapping[str, int], hottest_c: float | None
) -> None:
    hwmon(tmp_path, 3, chip, sensors)
    assert ThermalZones(str(tmp_path)).hottest_c() == hottest_c


def test_a_zone_that_never_moves_while_others_do_is_stuck(tmp_path: Path) -> None:
    plant(tmp_path, {"cpu-thermal": 50_000, "gpu-thermal": 88_000})
    zones = ThermalZones(str(tmp_path))
    file = tmp_path / "sys/class/thermal/thermal_zone0/temp"
    seen = []
    for number in range(30):
        file.write_text(f"{50_000 + 500 * number}\n")
        seen.append(zones.hottest_c())
    assert seen[0] == 88.0
    assert seen[-1] == pytest.approx(64.5)
    assert zones.in_words() == "cpu-thermal"
    # Once it moves it is none.
    (tmp_path / "sys/class/thermal/thermal_zone1/temp").write_text("87000\n")
    assert zones.hottest_c() == 87.0


def test_one_odd_reading_does_not_decide_the_unit(tmp_path: Path) -> None:
    plant(tmp_path, {"cpu-thermal": 200})
    zones = ThermalZones(str(tmp_path))
    file = tmp_path / "sys/class/thermal/thermal_zone0/temp"
    zones.hottest_c()
    for raw in (45, 46, 47):
        file.write_text(f"{raw}\n")
        assert zones.hottest_c() in (raw, raw / 10)
    assert zones.hottest_c() == 47.0


@pytest.mark.parametrize(
    ("raw", "trips", "unit"),
    [
        (1100, (95_000, 115_000), 1e-3),
        (1100, (850, 1150), 0.1),
        (63, (85, 115), 1.0),
        # Trip points were mended and the reading was not.
        (63, (95_000,), None),
        # Firmware's nonsense tells nothing.
        (47_000, (20_800, 19_800), None),
        (47_000, (0.0, 1e12), None),
        (None, (85_000,), 1e-3),
    ],
)
def test_trip_points_tell_the_unit(
    raw: float | None, trips: tuple[float, ...], unit: float | None
) -> None:
    assert evident_unit(raw, trips, [] if raw is None else [raw]) == unit


@given(
    temperature_c=st.floats(15.0, 110.0),
    unit=st.sampled_from(UNITS),
    shut_down_c=st.floats(60.0, 130.0) | st.none(),
)
def test_a_temperature_is_right_or_unknown_in_any_unit(
    temperature_c: float, unit: float, shut_down_c: float | None
) -> None:
    raw = float(round(temperature_c / unit))
    trips = [] if shut_down_c is None else [float(round(shut_down_c / unit))]
    found_c = in_celsius(raw, evident_unit(raw, trips, [raw]) or unit_of(raw))
    if shut_down_c is None and raw == 255:
        assert found_c is None
    else:
        assert found_c == pytest.approx(temperature_c, abs=unit)


@given(
    raws=st.lists(st.integers(15, 110), min_size=2, max_size=8),
    unit=st.sampled_from(UNITS),
    off=st.lists(st.sampled_from([0, 127, 255, 200, 125_000, 2_147_483_647]), max_size=1),
)
def test_zones_of_one_driver_tell_the_unit_of_each_other(
    raws: list[int], unit: float, off: list[int]
) -> None:
    relatives = [float(round(raw / unit)) for raw in raws]
    assert evident_unit(relatives[0], [], [*relatives, *map(float, off)]) == unit


@given(seed=st.integers(0, 10_000), name=st.text(max_size=30))
def test_any_name_has_a_place(seed: int, name: str) -> None:
    draw = random.Random(seed)
    known = [*JETSON, *SNAPDRAGON, *LAPTOP, "Battery", "soc"]
    places = {PROCESSOR, CHIP, FIRMWARE, UNKNOWN, ELSEWHERE, NO_TEMPERATURE}
    assert place_of(name, draw.sample(known, 3)) in places
    assert place_of(name.upper()) == place_of(name.upper().lower())


@pytest.mark.parametrize(
    ("place", "names"),
    [
        (PROCESSOR, "cpu_thermal cpu0-thermal soc-thermal bigcore0-thermal littlecore-thermal tj-thermal"),
        (PROCESSOR, "package_thermal imx_thermal_zone exynos-therm cluster0 bcm2835_thermal B0D4 TCPU"),
        (PROCESSOR, "MCPU-therm BCPU-therm Tdiode_tegra s5p-tmu tsens_tz_sensor12 cpuss-0-usr apc-0-max-step"),
        (CHIP, "gpu_thermal gpuss-1-usr npu-thermal ddr-usr q6-hvx-usr G3D ve-thermal aoss-1-usr CV0-therm"),
        (ELSEWHERE, "battery bms Battery_zte charger mtktsbattery wlan-usr iwlwifi_1 modem0 mdm-core-usr"),
        (ELSEWHERE, "pm8998_tz pmi632-tz quiet_therm xo-therm-adc skin-therm shell_front Tboard_tegra nvme usb"),
        (NO_TEMPERATURE, "ibat-high pm8150b-vbat-lvl0 pm8150l-vph-lvl0 bcl-lvl0 socd soc-step"),
        (FIRMWARE, "acpitz acpitz-0"),
        (UNKNOWN, "thermal foo lmh-dcvs-00"),
    ],
)  # fmt: skip
def test_names_of_real_zones(place: str, names: str) -> None:
    assert {name: place_of(name) for name in names.split()} == dict.fromkeys(names.split(), place)

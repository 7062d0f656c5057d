"""Rails of hwmon chips and IIO devices: units, pairs, labels, settings, and readings that make no sense."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joulemap.device_agents.meters import hwmon
from joulemap.device_agents.meters.readings import channel_name
from joulemap.device_agents.onboard.energy.meter import Meter, MeterError, MeterGone, Missing
from joulemap.device_agents.onboard.files import Files
from joulemap.device_agents.testing import FaultyFiles, MeterContract

HWMON = "sys/class/hwmon/hwmon0"
IIO = "sys/bus/iio/devices/iio:device0"
INA219 = {
    f"{HWMON}/name": "ina219",
    f"{HWMON}/in0_input": 3,
    f"{HWMON}/in1_input": 5_040,
    f"{HWMON}/curr1_input": 600,
    f"{HWMON}/power1_input": 3_020_000,
    f"{HWMON}/shunt_resistor": 100_000,
    f"{HWMON}/update_interval": 2,
}
INA3221 = {
    f"{HWMON}/name": "ina3221",
    f"{HWMON}/samples": 16,
    f"{HWMON}/update_interval": 105,
    f"{HWMON}/in1_label": "VDD_IN",
    f"{HWMON}/in1_input": 5_000,
    f"{HWMON}/curr1_input": 1_200,
    f"{HWMON}/shunt1_resistor": 5_000,
    f"{HWMON}/in2_label": "VDD CPU/GPU",
    f"{HWMON}/in2_input": 5_008,
    f"{HWMON}/curr2_input": 400,
    f"{HWMON}/shunt2_resistor": 5_000,
    f"{HWMON}/in4_input": 6,
    f"{HWMON}/curr4_input": 1_600,
}
INA2XX_ADC = {
    f"{IIO}/name": "ina219",
    f"{IIO}/in_voltage1_raw": 1_260,
    f"{IIO}/in_voltage1_scale": 4,
    f"{IIO}/in_power2_raw": 151,
    f"{IIO}/in_power2_scale": 20,
    f"{IIO}/in_current3_raw": 600,
    f"{IIO}/in_current3_scale": 1,
    f"{IIO}/in_shunt_resistor": "0.010000000",
    f"{IIO}/in_sampling_frequency": 455,
}


def write(folder: Path, contents: Mapping[str, object]) -> None:
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")


def find(root: Path, contents: Mapping[str, object]) -> dict[str, Meter]:
    write(root, contents)
    found = hwmon.find(Files(str(root)))
    assert not [item for item in found if isinstance(item, Missing)]
    return {item.info.channel: item for item in found if not isinstance(item, Missing)}


class TestPowerContract(MeterContract):
    module = "hwmon"
    protected = (f"{HWMON}/power1_input",)

    def make(self, folder: Path) -> None:
        write(folder, INA219)

    def step(self, folder: Path) -> float:
        file = folder / HWMON / "power1_input"
        file.write_text(f"{int(file.read_text()) + 20_000}\n")
        return int(file.read_text()) * 1e-6


class TestVoltageAndCurrentContract(MeterContract):
    module = "hwmon"
    protected = (f"{HWMON}/curr1_input", f"{HWMON}/curr2_input")

    def make(self, folder: Path) -> None:
        write(folder, INA3221)

    def step(self, folder: Path) -> float:
        file = folder / HWMON / "curr1_input"
        file.write_text(f"{int(file.read_text()) + 8}\n")
        return 5.0 * int(file.read_text()) * 1e-3


class TestEnergyContract(MeterContract):
    module = "hwmon"
    protected = (f"{HWMON}/energy1_input",)

    def make(self, folder: Path) -> None:
        write(folder, {f"{HWMON}/name": "scmi_sensors", f"{HWMON}/energy1_input": 1_000_000})

    def step(self, folder: Path) -> float:
        file = folder / HWMON / "energy1_input"
        file.write_text(f"{int(file.read_text()) + 250_000}\n")
        return 0.25


class TestIioContract(MeterContract):
    module = "hwmon"
    protected = (f"{IIO}/in_power2_raw",)

    def make(self, folder: Path) -> None:
        write(folder, INA2XX_ADC)

    def step(self, folder: Path) -> float:
        file = folder / IIO / "in_power2_raw"
        file.write_text(f"{int(file.read_text()) + 3}\n")
        return int(file.read_text()) * 20e-3


def test_an_ina219_has_its_own_power_and_states_its_step(tmp_path: Path) -> None:
    meter = find(tmp_path, INA219)["ina219-power1"]
    assert meter.read() == pytest.approx(3.02)
    # 20 steps of the current, each 10 uV over 100 mOhm.
    assert meter.info.resolution == pytest.approx(20 * 10e-6 / 0.1)
    assert meter.info.update_period_s == pytest.approx(0.002)
    assert meter.info.averaging_s == 0
    assert meter.info.max_power_w == pytest.approx(0.32 / 0.1 * 26)
    assert any("100 mOhm" in note for note in meter.info.notes)


def test_an_ina3221s_rails_are_products_named_by_their_labels(tmp_path: Path) -> None:
    meters = find(tmp_path, INA3221)
    # Not the sum (curr4), not the voltages over the shunts (in4 to in6).
    assert set(meters) == {"VDD_IN", "VDD_CPU_GPU"}
    assert meters["VDD_IN"].read() == pytest.approx(6.0)
    info = meters["VDD_IN"].info
    # 40 uV over 5 mOhm at 5 V, and 8 mV at 1.2 A.
    assert info.resolution == pytest.approx(5.0 * 8e-3 + 1.2 * 8e-3)
    assert info.update_period_s == pytest.approx(0.105)
    assert info.averaging_s == pytest.approx(0.105)
    assert any("one after the other" in note for note in info.notes)
    assert meters["VDD_IN"].info.rail != meters["VDD_CPU_GPU"].info.rail


def test_an_iio_device_has_scales(tmp_path: Path) -> None:
    meter = find(tmp_path, INA2XX_ADC)["ina219-power2"]
    assert meter.read() == pytest.approx(3.02)
    assert meter.info.resolution == pytest.approx(20 * 10e-6 / 0.01)
    assert meter.info.update_period_s == pytest.approx(1 / 455)


def test_voltage_and_current_of_an_iio_device_are_multiplied(tmp_path: Path) -> None:
    rails = {
        f"{IIO}/name": "pac1934",
        f"{IIO}/in_voltage1_raw": 1_000,
        f"{IIO}/in_voltage_scale": "4.882812500",
        f"{IIO}/in_current1_raw": 200,
        f"{IIO}/in_current1_scale": "0.500000000",
    }
    assert find(tmp_path, rails)["pac1934-1"].read() == pytest.approx(4.8828125 * 0.1)


def test_two_names_of_one_chip_are_one_rail(tmp_path: Path) -> None:
    write(tmp_path, {"sys/devices/i2c-1/1-0040/name": "ina219"})
    device = tmp_path / "sys/devices/i2c-1/1-0040"
    for name in ("hwmon0", "hwmon1"):
        write(tmp_path, {key.replace("hwmon0", name): value for key, value in INA219.items()})
        (tmp_path / f"sys/class/hwmon/{name}/device").symlink_to(device)
    meters = list(find(tmp_path, {}).values())
    assert len(meters) == 2
    assert meters[0].info.rail == meters[1].info.rail == "sys/devices/i2c-1/1-0040#1"
    assert meters[0].info.channel != meters[1].info.channel


def test_batteries_and_graphics_cards_are_left_to_their_own_backends(tmp_path: Path) -> None:
    write(tmp_path, {f"{HWMON}/name": "BAT0", f"{HWMON}/power1_input": 5_000_000})
    write(tmp_path, {f"{HWMON}/device/type": "Battery"})
    write(tmp_path, {"sys/class/hwmon/hwmon1/name": "amdgpu"})
    write(tmp_path, {"sys/class/hwmon/hwmon1/power1_average": 30_000_000})
    assert find(tmp_path, {}) == {}


def test_the_machines_own_meter_is_called_what_it_is(tmp_path: Path) -> None:
    acpi = {
        f"{HWMON}/name": "power_meter",
        f"{HWMON}/power1_average": 212_000_000,
        f"{HWMON}/power1_average_interval": 1_000,
    }
    (meter,) = find(tmp_path, acpi).values()
    assert meter.read() == pytest.approx(212.0)
    assert meter.info.averaging_s == pytest.approx(1.0)
    assert "whole machine" in meter.info.domain


def test_a_meter_whose_files_are_at_its_device_is_found_with_its_own_label(tmp_path: Path) -> None:
    # As on servers with several ACPI power meters, one of them for the processor alone.
    acpi = {
        f"{HWMON}/device/name": "power_meter",
        f"{HWMON}/device/power1_average": 61_000_000,
        f"{HWMON}/device/power1_average_interval": 50,
        f"{HWMON}/device/power1_oem_info": "CPU Power Socket 0",
    }
    meter = find(tmp_path, acpi)["CPU_Power_Socket_0"]
    assert meter.read() == pytest.approx(61.0)
    assert "whole machine" not in meter.info.domain
    assert meter.info.averaging_s == pytest.approx(0.05)


def test_an_input_that_is_switched_off_is_missing(tmp_path: Path) -> None:
    write(tmp_path, {**INA3221, f"{HWMON}/in2_enable": 0})
    files = FaultyFiles(str(tmp_path))
    check = files.check

    def switched_off(path: str) -> None:
        if path.endswith("in2_input"):
            raise OSError(errno.ENODATA, "No data available", path)
        check(path)

    files.check = switched_off  # type: ignore[method-assign]
    (missing,) = [item for item in hwmon.find(files) if isinstance(item, Missing)]
    assert missing.channel == "VDD_CPU_GPU"
    assert f"echo 1 > /{HWMON}/in2_enable" in missing.remedy
    # Where it is switched on that is not the reason.
    write(tmp_path, {f"{HWMON}/in2_enable": 1})
    (missing,) = [item for item in hwmon.find(files) if isinstance(item, Missing)]
    assert missing.remedy.startswith("the driver has no value: ")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "nothing"),
        ("nan", "'nan'"),
        ("3020000 W", "'3020000 W'"),
        ("-50000000", "backwards"),
        ("3020000000", "more than"),
        ("99999999999999999999", "more than"),
        ("9" * 40, "instead of a number"),
    ],
)
def test_rubbish_is_an_error_and_the_next_reading_is_good(
    tmp_path: Path, content: str, message: str
) -> None:
    (meter,) = find(tmp_path, INA219).values()
    file = tmp_path / HWMON / "power1_input"
    file.write_text(content)
    with pytest.raises(MeterError, match=message):
        meter.read()
    file.write_text("2500000\n")
    assert meter.read() == pytest.approx(2.5)


def test_noise_around_zero_is_no_error(tmp_path: Path) -> None:
    (meter,) = find(tmp_path, INA219).values()
    (tmp_path / HWMON / "power1_input").write_text("-4000\n")
    assert meter.read() == pytest.approx(-0.004)


@pytest.mark.parametrize(
    ("code", "is_gone"),
    [(errno.EIO, False), (errno.EAGAIN, False), (errno.ENXIO, True), (errno.ENODEV, True)],
)
def test_a_busy_chip_is_not_gone(tmp_path: Path, code: int, is_gone: bool) -> None:
    write(tmp_path, INA219)
    files = FaultyFiles(str(tmp_path))
    (meter,) = hwmon.find(files)
    assert not isinstance(meter, Missing)
    files.failure = code
    with pytest.raises(MeterError, match="power1_input") as caught:
        meter.read()
    assert isinstance(caught.value, MeterGone) == is_gone


@given(label=st.text(max_size=200))
def test_a_label_becomes_a_name_that_a_command_line_takes(label: str) -> None:
    name = channel_name(label, "otherwise")
    assert 0 < len(name) <= 48
    assert not set(name) & set(" :,;/\\'\"$`|&<>\n\r\t\0*?")


@settings(max_examples=25)
@given(voltage_mv=st.integers(0, 26_000), current_ma=st.integers(0, 32_000))
def test_power_is_the_product_in_watts(
    tmp_path_factory: pytest.TempPathFactory, voltage_mv: int, current_ma: int
) -> None:
    folder = tmp_path_factory.mktemp("rail")
    write(folder, INA3221)
    write(folder, {f"{HWMON}/in1_input": voltage_mv, f"{HWMON}/curr1_input": current_ma})
    meter = hwmon.find(Files(str(folder)))[0]
    assert not isinstance(meter, Missing)
    assert meter.read() == pytest.approx(voltage_mv * current_ma * 1e-6)
    meter.close()


@pytest.mark.parametrize("is_swapped", [False, True])
def test_two_chips_of_one_name_are_told_by_their_places(tmp_path: Path, is_swapped: bool) -> None:
    # The kernel numbers them in the order in which they answer, another one after each start.
    for place, power_uw in (("1-0040", 1_000_000), ("1-0041", 2_000_000)):
        write(tmp_path, {f"sys/devices/i2c-1/{place}/name": "ina219"})
        name = f"hwmon{int(place.endswith('1')) ^ int(is_swapped)}"
        write(tmp_path, {f"sys/class/hwmon/{name}/name": "ina219"})
        write(tmp_path, {f"sys/class/hwmon/{name}/power1_input": power_uw})
        (tmp_path / f"sys/class/hwmon/{name}/device").symlink_to(
            tmp_path / f"sys/devices/i2c-1/{place}"
        )
    meters = find(tmp_path, {})
    assert {name: meter.read() for name, meter in meters.items()} == {
        "ina219-power1@1-0040": 1.0,
        "ina219-power1@1-0041": 2.0,
    }


@pytest.mark.parametrize("name", ["in_current1_offset", "in_current_offset"])
def test_raw_numbers_with_an_offset_are_no_factor_of_power(tmp_path: Path, name: str) -> None:
    rails = {
        f"{IIO}/name": "pmic",
        f"{IIO}/in_voltage1_raw": 1_000,
        f"{IIO}/in_voltage1_scale": 1,
        f"{IIO}/in_current1_raw": 200,
        f"{IIO}/in_current1_scale": 1,
        f"{IIO}/{name}": -120,
    }
    assert find(tmp_path, rails) == {}

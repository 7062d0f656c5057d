"""Batteries: nothing before calibration, nothing while charged, and the charge counter beside it."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path

import pytest

from joulemap.device_agents.meters import battery
from joulemap.device_agents.meters.battery import BatteryMeter
from joulemap.device_agents.meters.battery_sign import Calibration
from joulemap.device_agents.onboard.energy.meter import Meter, MeterError, MeterGone, Missing
from joulemap.device_agents.onboard.energy.power_log import PowerLog
from joulemap.device_agents.onboard.files import Files
from joulemap.device_agents.onboard.machine.clock import MachineClock
from joulemap.device_agents.testing import FaultyFiles, MeterContract

CLASS = "sys/class/power_supply"
PHONE = f"{CLASS}/battery"
LAPTOP = f"{CLASS}/BAT0"
LEARNED = Calibration(-1, 1.0, 0.3, 1.2, True)


def write(folder: Path, contents: Mapping[str, object]) -> None:
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")


def phone(folder: Path, **changes: object) -> None:
    contents: dict[str, object] = {
        "type": "Battery",
        "status": "Discharging",
        "present": 1,
        "current_now": -300_000,
        "voltage_now": 3_850_000,
        "charge_counter": 3_000_000,
        "charge_full_design": 4_500_000,
        "capacity": 67,
        **changes,
    }
    write(folder, {f"{PHONE}/{name}": content for name, content in contents.items()})
    write(folder, {f"{CLASS}/usb/type": "USB", f"{CLASS}/usb/online": 0})


def laptop(folder: Path, **changes: object) -> None:
    contents: dict[str, object] = {
        "type": "Battery",
        "status": "Discharging",
        "power_now": 8_000_000,
        "voltage_now": 11_400_000,
        "energy_now": 40_000_000,
        **changes,
    }
    write(folder, {f"{LAPTOP}/{name}": content for name, content in contents.items()})
    write(folder, {f"{CLASS}/AC/type": "Mains", f"{CLASS}/AC/online": 0})


def gauge(folder: Path, files: Files | None = None) -> BatteryMeter:
    meter = battery.find(files or Files(str(folder)))[0]
    assert isinstance(meter, BatteryMeter)
    return meter


class TestGaugeContract(MeterContract):
    module = "battery"
    protected = (f"{PHONE}/current_now",)

    def make(self, folder: Path) -> None:
        phone(folder)

    def meter(self, files: Files) -> Meter:
        meter = super().meter(files)
        assert isinstance(meter, BatteryMeter)
        meter.calibration = LEARNED
        return meter

    def step(self, folder: Path) -> float:
        file = folder / PHONE / "current_now"
        file.write_text(f"{int(file.read_text()) - 50_000}\n")
        return -int(file.read_text()) * 1e-6 * 3.85


class TestChargeContract(MeterContract):
    module = "battery"

    def make(self, folder: Path) -> None:
        phone(folder)

    def meter(self, files: Files) -> Meter:
        found = [item for item in self.find(files) if not isinstance(item, Missing)]
        return found[1]

    def step(self, folder: Path) -> float:
        file = folder / PHONE / "charge_counter"
        file.write_text(f"{int(file.read_text()) - 2_000}\n")
        return 0.002 * 3600 * 3.85


class TestEnergyCounterContract(TestChargeContract):
    def make(self, folder: Path) -> None:
        laptop(folder)

    def step(self, folder: Path) -> float:
        file = folder / LAPTOP / "energy_now"
        file.write_text(f"{int(file.read_text()) - 10_000}\n")
        return 0.01 * 3600


class Phone:
    """A phone whose current follows what it does, in time of its own; its files are written anew.

    Args:
        folder: What its paths begin at.
        sign: Of the current when the battery gives.
        unit: Microamperes per step of `current_now`.
        charge_step_uah: Step of the charge counter.
    """

    def __init__(
        self, folder: Path, sign: int, unit: float, charge_step_uah: float = 100.0
    ) -> None:
        self.folder, self.sign, self.unit, self.step = folder, sign, unit, charge_step_uah
        self.time_s = 0.0
        self.charge_uah = 3_000_000.0
        self.shown_a = 0.25
        phone(folder)

    def spend(self, seconds: float, current_a: float) -> None:
        self.time_s += seconds
        self.charge_uah -= current_a * seconds / 3600 * 1e6
        # The gauge follows slowly.
        self.shown_a += (current_a - self.shown_a) * min(1.0, seconds / 1.0)
        charge = round(self.charge_uah / self.step) * self.step
        raw = round(self.sign * self.shown_a * 1e6 / self.unit)
        write(self.folder, {f"{PHONE}/current_now": raw, f"{PHONE}/charge_counter": round(charge)})

    def idle(self, seconds: float) -> None:
        self.spend(seconds, 0.25)

    def burn(self, seconds: float) -> None:
        self.spend(seconds, 1.25)

    def clock(self) -> float:
        return self.time_s


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("unit", [1.0, 1e3, 1e-3])
def test_a_step_of_the_load_teaches_sign_and_unit(tmp_path: Path, sign: int, unit: float) -> None:
    device = Phone(tmp_path, sign, unit)
    meter = gauge(tmp_path)
    with pytest.raises(MeterError, match="learned first"):
        meter.read()
    learned = meter.calibrate(device.burn, device.idle, clock=device.clock)
    assert (learned.sign, learned.factor, learned.is_confirmed) == (sign, unit, True)
    device.burn(30.0)
    assert meter.read() == pytest.approx(1.25 * 3.85, rel=0.01)
    assert meter.state()["learned"] == f"sign {sign:+d}, factor {unit:g}"


def test_a_pause_of_the_machine_while_it_learns_is_no_disagreement(tmp_path: Path) -> None:
    device = Phone(tmp_path, -1, 1.0)
    slices = 0

    def burn(seconds: float) -> None:
        nonlocal slices
        slices += 1
        device.burn(seconds)
        if slices == 30:
            device.idle(40.0)

    learned = gauge(tmp_path).calibrate(burn, device.idle, clock=device.clock)
    assert (learned.sign, learned.factor, learned.is_confirmed) == (-1, 1.0, True)


def test_whether_the_charge_counter_moved_in_time_does_not_part_the_agents_of_a_campaign(
    tmp_path: Path,
) -> None:
    device = Phone(tmp_path, 1, 1.0, charge_step_uah=2700.0)
    states, notes = [], set()
    for phase_s in range(30):
        device.burn(1.7 * phase_s)
        meter = gauge(tmp_path)
        meter.calibrate(device.burn, device.idle, clock=device.clock)
        states.append(meter.state())
        notes.add(meter.info.notes[-1].rpartition("; ")[2])
        meter.close()
    assert notes == {"the charge counter agrees.", "the charge counter moved too little to tell."}
    assert all(state == states[0] for state in states)


def test_milliamperes_are_not_believed_without_the_charge_counter(tmp_path: Path) -> None:
    device = Phone(tmp_path, -1, 1e3, charge_step_uah=50_000.0)
    with pytest.raises(MeterError, match=r"--meter 'battery\?current_unit=mA&sign=-'"):
        gauge(tmp_path).calibrate(device.burn, device.idle, clock=device.clock)


def test_a_cable_during_calibration_is_noticed(tmp_path: Path) -> None:
    device = Phone(tmp_path, -1, 1.0)

    def burn(seconds: float) -> None:
        device.burn(seconds)
        write(tmp_path, {f"{CLASS}/usb/online": 1})

    with pytest.raises(MeterError, match="charger is plugged in"):
        gauge(tmp_path).calibrate(burn, device.idle, clock=device.clock)


@pytest.mark.parametrize("sag_uv", [0, 40_000])
def test_power_of_a_laptop_is_learned_as_well(tmp_path: Path, sag_uv: int) -> None:
    laptop(tmp_path)
    time_s, energy = [0.0], [40_000_000.0]

    def spend(seconds: float, power_w: float) -> None:
        time_s[0] += seconds
        energy[0] -= power_w * seconds / 3600 * 1e6
        write(tmp_path, {f"{LAPTOP}/power_now": round(power_w * 1e6)})
        # The voltage falls with the load.
        voltage_uv = 11_400_000 - round(sag_uv * power_w)
        write(tmp_path, {f"{LAPTOP}/voltage_now": voltage_uv})
        write(tmp_path, {f"{LAPTOP}/energy_now": round(energy[0] / 1000) * 1000})

    meter = gauge(tmp_path)
    learned = meter.calibrate(
        lambda s: spend(s, 25.0), lambda s: spend(s, 8.0), clock=lambda: time_s[0]
    )
    assert (learned.sign, learned.factor, learned.is_confirmed) == (1, 1.0, True)
    spend(1.0, 30.0)
    assert meter.read() == pytest.approx(30.0)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"status": "Charging"}, "status is 'Charging'"),
        ({"status": "Full"}, "status is 'Full'"),
        ({"status": "Not charging"}, "status is 'Not charging'"),
        ({}, "usb/online is 1"),
    ],
)
def test_a_battery_that_is_charged_is_missing_with_the_way_out(
    tmp_path: Path, changes: dict[str, object], reason: str
) -> None:
    phone(tmp_path, **changes)
    if not changes:
        write(tmp_path, {f"{CLASS}/usb/online": 1})
    (missing,) = battery.find(Files(str(tmp_path)))
    assert isinstance(missing, Missing)
    assert reason in missing.reason
    assert "unplug" in missing.remedy
    assert "input_suspend" in missing.remedy


def test_a_cable_that_is_cut_off_by_software_does_not_matter(tmp_path: Path) -> None:
    phone(tmp_path, input_suspend=1)
    write(tmp_path, {f"{CLASS}/usb/online": 1})
    meter = gauge(tmp_path)
    meter.calibration = LEARNED
    assert meter.read() == pytest.approx(0.3 * 3.85)


def test_a_cable_plugged_in_while_measuring_is_an_error_and_in_the_state(tmp_path: Path) -> None:
    phone(tmp_path)
    gauge_meter, charge = (
        item for item in battery.find(Files(str(tmp_path))) if not isinstance(item, Missing)
    )
    assert isinstance(gauge_meter, BatteryMeter)
    gauge_meter.calibration = LEARNED
    charge.read()
    assert gauge_meter.state()["plugged"] == "none"
    write(tmp_path, {f"{CLASS}/usb/online": 1})
    for meter in (gauge_meter, charge):
        with pytest.raises(MeterError, match="charger is plugged in"):
            meter.read()
    assert gauge_meter.state()["plugged"] == "usb"
    assert gauge_meter.state()["status"] == "Discharging"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (300_000, "into the battery"),
        (0, "into the battery"),
        (-300_000_000, "more than"),
        # Forty times what it was when idle, ten times what it was under load.
        (-12_000_000, "more than"),
        (-2_147_483_648, "without a value"),
        ("", "nothing"),
        ("nan", "'nan'"),
    ],
)
def test_readings_that_make_no_sense_are_errors(tmp_path: Path, raw: object, message: str) -> None:
    phone(tmp_path)
    meter = gauge(tmp_path)
    meter.calibration = LEARNED
    write(tmp_path, {f"{PHONE}/current_now": raw})
    with pytest.raises(MeterError, match=message):
        meter.read()
    write(tmp_path, {f"{PHONE}/current_now": -400_000})
    assert meter.read() == pytest.approx(0.4 * 3.85)


@pytest.mark.parametrize(("raw", "volts"), [(3_850_000, 3.85), (3_850, 3.85), (11_400_000, 11.4)])
def test_the_voltages_unit_is_the_plausible_one(raw: float, volts: float) -> None:
    assert battery.voltage_v(raw, "/sys/v") == pytest.approx(volts)


@pytest.mark.parametrize("raw", [0, -3_850_000, 700_000_000, 5])
def test_a_voltage_that_no_battery_has_is_refused(raw: float) -> None:
    with pytest.raises(MeterError, match="no battery's voltage"):
        battery.voltage_v(raw, "/sys/v")


def test_a_state_stays_the_same_while_the_battery_drains(tmp_path: Path) -> None:
    device = Phone(tmp_path, -1, 1.0)
    meter = gauge(tmp_path)
    meter.calibrate(device.burn, device.idle, clock=device.clock)
    before = meter.state()
    write(tmp_path, {f"{PHONE}/capacity": 41, f"{PHONE}/voltage_now": 3_700_000})
    device.burn(600.0)
    assert meter.state() == before


def test_the_charge_counter_refuses_to_rise(tmp_path: Path) -> None:
    phone(tmp_path)
    charge = battery.find(Files(str(tmp_path)))[1]
    assert not isinstance(charge, Missing)
    assert charge.read() == 0.0
    write(tmp_path, {f"{PHONE}/charge_counter": 3_001_000})
    with pytest.raises(MeterError, match="was charged"):
        charge.read()


@pytest.mark.parametrize(
    ("charge", "full"), [(3_000_000, 4_500_000), (3_000, 4_500), (3_000_000, "")]
)
def test_the_charges_unit_is_the_plausible_one(tmp_path: Path, charge: int, full: object) -> None:
    phone(tmp_path, charge_counter=charge, charge_full_design=full)
    meter = battery.find(Files(str(tmp_path)))[1]
    assert not isinstance(meter, Missing)
    meter.read()
    write(tmp_path, {f"{PHONE}/charge_counter": round(charge * 0.999)})
    assert meter.read() == pytest.approx(0.003 * 3600 * 3.85)


def test_the_battery_of_a_mouse_and_an_absent_one_are_none(tmp_path: Path) -> None:
    write(tmp_path, {f"{CLASS}/hidpp/type": "Battery", f"{CLASS}/hidpp/scope": "Device"})
    laptop(tmp_path, present=0)
    assert battery.find(Files(str(tmp_path))) == []


def test_gauge_and_charge_counter_are_one_rail(tmp_path: Path) -> None:
    phone(tmp_path)
    infos = [
        item.info for item in battery.find(Files(str(tmp_path))) if not isinstance(item, Missing)
    ]
    assert [(info.channel, info.kind) for info in infos] == [
        ("battery", "sampler"),
        ("battery-charge", "counter"),
    ]
    assert infos[0].rail == infos[1].rail


def test_a_gauge_that_vanishes_is_gone(tmp_path: Path) -> None:
    phone(tmp_path)
    files = FaultyFiles(str(tmp_path))
    meter = gauge(tmp_path, files)
    meter.calibration = LEARNED
    files.failure = errno.ENXIO
    with pytest.raises(MeterGone):
        meter.read()


def test_a_charge_in_between_is_seen_by_whoever_adds_up(tmp_path: Path) -> None:
    phone(tmp_path)
    charge = battery.find(Files(str(tmp_path)))[1]
    assert not isinstance(charge, Missing)
    log = PowerLog(charge, MachineClock())
    for uah in (3_000_000, 2_999_000, 3_004_000, 3_003_000, 3_002_000):
        write(tmp_path, {f"{PHONE}/charge_counter": uah})
        log.read()
    # One reading failed; those around it must not look as if nothing had been.
    assert len(log.failed_s) == 1
    assert log.values[2] < log.values[1]


@pytest.mark.parametrize("hiccup", [-(2**31), ""])
def test_a_reading_that_fails_does_not_end_the_calibration(tmp_path: Path, hiccup: object) -> None:
    device = Phone(tmp_path, -1, 1.0)
    count = 0

    def burn(seconds: float) -> None:
        nonlocal count
        device.burn(seconds)
        count += 1
        if count % 10 == 0:
            write(tmp_path, {f"{PHONE}/current_now": hiccup})

    learned = gauge(tmp_path).calibrate(burn, device.idle, clock=device.clock)
    assert (learned.sign, learned.is_confirmed) == (-1, True)
    assert learned.load_a == pytest.approx(1.25, rel=0.01)


def test_two_batteries_are_parts_of_the_device(tmp_path: Path) -> None:
    laptop(tmp_path)
    write(tmp_path, {f"{CLASS}/BAT1/type": "Battery", f"{CLASS}/BAT1/status": "Unknown"})
    write(tmp_path, {f"{CLASS}/BAT1/power_now": 0, f"{CLASS}/BAT1/voltage_now": 11_400_000})
    found = battery.find(Files(str(tmp_path)))
    infos = {item.info.channel: item.info for item in found if not isinstance(item, Missing)}
    assert set(infos) == {"BAT0", "BAT0-charge", "BAT1"}
    assert all(info.is_partial for info in infos.values())
    assert "BAT1" in infos["BAT0"].unmeasured


def test_a_phone_s_battery_is_the_device_s_whatever_gauge_chips_stand_beside_it(
    tmp_path: Path,
) -> None:
    phone(tmp_path)
    write(tmp_path, {f"{CLASS}/maxfg/type": "Battery", f"{CLASS}/maxfg/status": "Discharging"})
    write(tmp_path, {f"{CLASS}/maxfg/current_now": -300_000})
    write(tmp_path, {f"{CLASS}/maxfg/voltage_now": 3_850_000})
    found = battery.find(Files(str(tmp_path)))
    infos = {item.info.channel: item.info for item in found if not isinstance(item, Missing)}
    assert {name: info.is_partial for name, info in infos.items()} == {
        "battery": False,
        "battery-charge": False,
        "maxfg": True,
    }


def test_a_gauge_that_has_no_answer_needs_no_permission(tmp_path: Path) -> None:
    # As on laptops of several makers: the file is there, and reading it ends in ENODEV.
    laptop(tmp_path)

    class NoDevice(Files):
        def read(self, path: str) -> str:
            if path.endswith("power_now"):
                raise OSError(errno.ENODEV, "No such device")
            return super().read(path)

    missing, charge = battery.find(NoDevice(str(tmp_path)))
    assert isinstance(missing, Missing)
    assert missing.remedy == "use another meter: this gauge tells no power"
    assert not isinstance(charge, Missing)


def test_a_phone_that_closes_its_batteries_says_so(tmp_path: Path) -> None:
    phone(tmp_path)
    files = FaultyFiles(str(tmp_path))
    for denied in ((CLASS, f"{CLASS}/*"), (PHONE, f"{PHONE}/*")):
        files.denied = denied
        (missing,) = battery.find(files)
        assert isinstance(missing, Missing)
        assert "adb root" in missing.remedy


def test_what_is_left_is_in_joules_whatever_counts_it(tmp_path: Path) -> None:
    phone(tmp_path)
    meter = gauge(tmp_path)
    amount, joules_each = meter.reserve() or (0.0, 0.0)
    assert amount * joules_each == pytest.approx(3.0 * 3600 * 3.85)
    write(tmp_path, {f"{PHONE}/charge_counter": ""})
    assert meter.reserve() is None
    other = tmp_path / "laptop"
    laptop(other)
    amount, joules_each = gauge(other).reserve() or (0.0, 0.0)
    assert amount == pytest.approx(40.0 * 3600)
    assert joules_each == 1.0

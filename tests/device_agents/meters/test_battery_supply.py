"""Who feeds the device: chargers, ports, mice and second batteries whose flags contradict each other."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulemap.device_agents.meters import battery
from joulemap.device_agents.meters.battery_supply import CLASS, Supply, batteries, supplies
from joulemap.device_agents.onboard.energy.meter import Missing
from joulemap.device_agents.onboard.files import Files

PORT = "tps6598x-source-psy-0-0038"
MAC = {
    "macsmc-battery/type": "Battery",
    "macsmc-battery/status": "Discharging",
    "macsmc-battery/current_now": -334_000,
    "macsmc-battery/voltage_now": 12_100_000,
    "macsmc-ac/type": "Mains",
    "macsmc-ac/online": 0,
    f"{PORT}/type": "USB",
    f"{PORT}/online": 1,
}
PHONE = {
    "battery/type": "Battery",
    "battery/status": "Discharging",
    "battery/current_now": -300_000,
    "battery/voltage_now": 3_850_000,
}


def machine(root: Path, *supplies: Mapping[str, object]) -> Files:
    for contents in supplies:
        for name, content in contents.items():
            path = root / CLASS / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{content}\n")
    return Files(str(root))


def charging(files: Files, told: Mapping[str, str] | None = None) -> str:
    return supplies(files, told or {})[0].charging()


@pytest.mark.parametrize(
    "more",
    [
        {},
        # A port without any current, or whose voltage has gone.
        {f"{PORT}/current_now": 0},
        {f"{PORT}/voltage_now": 0},
        {f"{PORT}/type": "USB_PD", f"{PORT}/online": 2},
    ],
)
def test_a_ports_claim_is_outweighed_by_the_mains_and_the_battery(
    tmp_path: Path, more: Mapping[str, object]
) -> None:
    files = machine(tmp_path, MAC, more)
    assert charging(files) == ""
    assert not [item for item in battery.find(files) if isinstance(item, Missing)]
    assert supplies(files, {})[0].state() == {"status": "Discharging", "plugged": "none"}


@pytest.mark.parametrize(
    "more",
    [
        {"macsmc-ac/online": 1},
        {"macsmc-battery/status": "Charging"},
        {"macsmc-battery/status": "Full"},
        # The port shows the current of a charger.
        {f"{PORT}/current_now": 1_500_000, f"{PORT}/voltage_now": 20_000_000},
        # Nobody knows of the mains.
        {"macsmc-ac/online": ""},
        {"macsmc-ac/type": "USB"},
    ],
)
def test_but_not_where_anything_else_says_so(tmp_path: Path, more: Mapping[str, object]) -> None:
    assert charging(machine(tmp_path, MAC, more)) != ""


def test_a_computer_that_feeds_a_phone_too_little_is_a_charger(tmp_path: Path) -> None:
    mains = {"ac/type": "Mains", "ac/online": 0}
    files = machine(tmp_path, PHONE, mains, {"usb/type": "USB", "usb/online": 1})
    assert charging(files) == f"/{CLASS}/usb/online is 1: a charger is plugged in"
    (missing,) = battery.find(files)
    assert isinstance(missing, Missing)
    assert missing.remedy.endswith("--meter 'battery?ignore_charger=usb'")
    # What the user answers.
    told = {"ignore_charger": "usb"}
    assert charging(files, told) == ""
    assert supplies(files, told)[0].state()["ignored"] == "usb"
    assert not [item for item in battery.find(files, told) if isinstance(item, Missing)]


@pytest.mark.parametrize(
    ("more", "gives"),
    [
        ({"otg/type": "USB", "otg/online": 1}, "otg"),
        ({"usb_otg/type": "USB", "usb_otg/online": 1}, "usb_otg"),
        ({"pogo/type": "OTG", "pogo/online": 1}, "pogo"),
        ({"usb/type": "USB", "usb/online": 1, "usb/typec_mode": "Sink attached"}, "usb"),
        (
            {
                "ucsi-source-psy-USBC000:001/type": "USB",
                "ucsi-source-psy-USBC000:001/online": 1,
                "../typec/port0/power_role": "[source] sink",
            },
            "ucsi-source-psy-USBC000_001",
        ),
    ],
)
def test_a_port_that_gives_power_is_no_charger_and_is_told(
    tmp_path: Path, more: Mapping[str, object], gives: str
) -> None:
    files = machine(tmp_path, PHONE, more)
    assert charging(files) == ""
    assert supplies(files, {})[0].state()["gives"] == gives


@pytest.mark.parametrize(
    "more",
    [
        {"usb/type": "USB", "usb/online": 1, "usb/typec_mode": "Source attached (default current)"},
        {"wireless/type": "Wireless", "wireless/online": 1},
        {"pd/type": "USB_PD", "pd/online": 2},
        {"dc/type": "Unknown", "dc/online": 1},
        # Its charge is paused; the charger feeds the phone all the same.
        {"ac/type": "Mains", "ac/online": 0, "usb/type": "USB_PD", "usb/online": 1},
    ],
)
def test_what_charges_is_a_charger(tmp_path: Path, more: Mapping[str, object]) -> None:
    assert charging(machine(tmp_path, PHONE, more)) != ""


@pytest.mark.parametrize(
    "more",
    [
        # The charging cradle of a mouse, a UPS on the mains.
        {"dock/type": "USB", "dock/online": 1, "dock/scope": "Device"},
        {"ups/type": "UPS", "ups/online": 1, "ups/scope": "System"},
        {"mouse/type": "Battery", "mouse/scope": "Device", "mouse/status": "Charging"},
    ],
)
def test_what_belongs_to_others_charges_nothing(tmp_path: Path, more: Mapping[str, object]) -> None:
    files = machine(tmp_path, PHONE, more)
    assert charging(files) == ""
    assert batteries(files) == ["battery"]


def test_a_ups_and_a_keyboard_give_a_desktop_no_battery(tmp_path: Path) -> None:
    files = machine(
        tmp_path, {"ups/type": "UPS", "ups/scope": "System", "ups/status": "Discharging"}
    )
    keyboard = tmp_path / "sys/devices/usb1/0003:046D:C52B.0004/power_supply/hid-keys"
    keyboard.mkdir(parents=True)
    (keyboard / "type").write_text("Battery\n")
    (tmp_path / CLASS / "hid-keys").symlink_to(keyboard)
    assert batteries(files) == []
    assert battery.find(files) == []


def test_a_unit_of_current_means_nothing_to_a_battery_that_gives_power(tmp_path: Path) -> None:
    laptop = {"BAT0/type": "Battery", "BAT0/status": "Discharging", "BAT0/power_now": 8_000_000}
    files = machine(tmp_path, laptop, {"BAT0/voltage_now": 11_400_000})
    (missing,) = battery.find(files, {"current_unit": "mA"})
    assert isinstance(missing, Missing)
    assert "no current_now" in missing.reason
    assert not isinstance(battery.find(files, {"sign": "+"})[0], Missing)


def test_one_of_two_batteries_rests_while_the_other_gives(tmp_path: Path) -> None:
    both = {
        "BAT0/type": "Battery",
        "BAT0/status": "Not charging",
        "BAT0/power_now": 0,
        "BAT1/type": "Battery",
        "BAT1/status": "Discharging",
        "BAT1/power_now": 9_000_000,
        "AC/type": "Mains",
        "AC/online": 0,
    }
    files = machine(tmp_path, both)
    assert [supply.charging() for supply in supplies(files, {})] == ["", ""]
    files = machine(tmp_path, {"BAT1/status": "Not charging"})
    assert all(supply.charging() for supply in supplies(files, {}))


FLAGS = {
    "status": ["Charging", "Discharging", "Full", "Not charging", "Unknown", ""],
    "ac": ["0", "1", ""],
    "usb": ["0", "1", "2", ""],
    "port": ["0", "1", ""],
}


def test_a_battery_that_is_charged_is_never_read_whatever_the_flags(tmp_path: Path) -> None:
    for number, (status, ac, usb, port) in enumerate(product(*FLAGS.values())):
        files = machine(
            tmp_path / str(number),
            PHONE,
            {"battery/status": status, "ac/type": "Mains", "ac/online": ac},
            {"usb/type": "USB", "usb/online": usb, f"{PORT}/type": "USB", f"{PORT}/online": port},
        )
        is_fed = (
            status in ("Charging", "Full", "Not charging")
            or ac == "1"
            or usb in ("1", "2")
            or (port == "1" and not (status == "Discharging" and ac == "0"))
        )
        assert bool(charging(files)) is is_fed, (status, ac, usb, port)


@given(
    contents=st.dictionaries(
        st.tuples(
            st.sampled_from(["battery", "BAT0", "usb", "ac", PORT, "otg"]),
            st.sampled_from(
                ["type", "status", "online", "scope", "voltage_now", "current_now", "typec_mode"]
            ),
        ),
        st.sampled_from(["Battery", "Mains", "USB", "Discharging", "1", "-1", "nan", "", "Device"])
        | st.text(max_size=6).filter(lambda text: "\0" not in text),
        max_size=12,
    )
)
def test_whatever_the_kernel_says_is_answered(
    contents: dict[tuple[str, str], str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("supplies")
    for (name, file), text in contents.items():
        path = root / CLASS / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode("utf-8", "replace"))
    files = Files(str(root))
    for supply in supplies(files, {}):
        assert isinstance(supply.charging(), str)
        assert all(text.isprintable() for text in supply.state().values())
    for item in battery.find(files):
        if not isinstance(item, Missing):
            item.close()
    assert isinstance(Supply(files, "none").charging(), str)

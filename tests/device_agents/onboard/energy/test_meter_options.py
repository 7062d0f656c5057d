"""What a user tells of a meter: after its name, or in the device's URL."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulemap import InputError
from joulemap.device_agents.meters.battery import BatteryMeter
from joulemap.device_agents.onboard.energy.meter import Missing
from joulemap.device_agents.onboard.energy.meter_choice import choose, find_meters, find_told
from joulemap.device_agents.onboard.energy.meter_options import (
    MeterOptionError,
    in_words,
    split_url,
    split_wanted,
)
from joulemap.device_agents.onboard.files import Files
from joulemap.device_agents.registry import check_meters, plain_url

MODULES = {"hwmon": "hwmon", "battery": "battery", "estimated": "estimated"}
SUPPLY = "sys/class/power_supply"


@pytest.mark.parametrize(
    ("wanted", "plain", "told"),
    [
        ("auto", "auto", {}),
        ("rapl:cpu,nvml", "rapl:cpu,nvml", {}),
        ("battery?current_unit=mA&sign=-", "battery", {"current_unit": "mA", "sign": "-"}),
        ("battery:BAT0?sign=+", "battery:BAT0", {"sign": "+"}),
        ("battery?sign=%2B&current_unit=UA", "battery", {"sign": "+", "current_unit": "uA"}),
        ("battery?current_unit=\u00b5A", "battery", {"current_unit": "uA"}),
        (
            "battery?ignore_charger=tps6598x-source-psy-0-0038,hwmon:VIN",
            "battery,hwmon:VIN",
            {"ignore_charger": "tps6598x-source-psy-0-0038"},
        ),
    ],
)
def test_options_follow_a_meters_name(wanted: str, plain: str, told: dict[str, str]) -> None:
    assert split_wanted(wanted) == (plain, {"battery": told} if told else {})
    check_meters(wanted)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("battery?current_unit=mW", "current_unit is 'mW'; write uA, mA, nA or A"),
        ("battery?sign=0", r"sign is '0'; write \+ or -"),
        ("battery?unit=mA", "no option 'unit'; known: current_unit, sign, ignore_charger"),
        ("battery?current_unit=mA&current_unit=uA", "current_unit is told twice"),
        ("battery?", "no option ''"),
        ("battery?ignore_charger=../../etc", "a name in /sys/class/power_supply"),
        ("rapl?current_unit=mA", "rapl takes no options; those that do: battery"),
        ("auto?current_unit=mA", "auto takes no options"),
    ],
)
def test_what_cannot_be_is_refused_before_a_device_is_asked(wanted: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        check_meters(wanted)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("url", "plain", "told"),
    [
        ("local:", "local:", {}),
        ("local:?current_unit=mA&sign=-", "local:", {"current_unit": "mA", "sign": "-"}),
        (
            "ssh://u0@phone:8022?python=~/bin/python&sign=-&cache=/x",
            "ssh://u0@phone:8022?python=~/bin/python&cache=/x",
            {"sign": "-"},
        ),
        ("adb:R58M12?current_unit=mA", "adb:R58M12", {"current_unit": "mA"}),
        ("sim:board?meter=battery&sign=-", "sim:board?meter=battery", {"sign": "-"}),
    ],
)
def test_or_stand_in_the_devices_url(url: str, plain: str, told: dict[str, str]) -> None:
    assert plain_url(url) == (plain, {"battery": told} if told else {})


def test_what_a_url_tells_is_checked() -> None:
    with pytest.raises(InputError, match=r"device 'local:\?current_unit=kA': current_unit is"):
        plain_url("local:?current_unit=kA")


@given(text=st.text(max_size=60))
def test_any_text_is_split_or_refused(text: str) -> None:
    with contextlib.suppress(MeterOptionError):
        split_url(text)
    try:
        plain, told = split_wanted(text)
    except MeterOptionError as error:
        said = str(error)
    else:
        said = ""
        assert "?" not in plain
        assert len(plain.split(",")) == len(text.split(","))
        assert set(told) <= {"battery"}
    assert len(said) < 400


@given(
    unit=st.sampled_from(["nA", "uA", "mA", "A"]),
    sign=st.sampled_from("+-"),
    rest=st.lists(st.sampled_from(["python=/x", "cache=/y", "device=cuda:1"]), unique=True),
)
def test_what_is_told_returns_as_it_was_written(unit: str, sign: str, rest: list[str]) -> None:
    url = "&".join([*rest, f"sign={sign}", f"current_unit={unit}"])
    plain, told = split_url(f"ssh://host?{url}")
    assert plain == "ssh://host" + ("?" + "&".join(rest) if rest else "")
    assert in_words(told["battery"]) == f"current_unit={unit}&sign={sign}"


def test_a_battery_is_found_anew_with_what_is_told_of_it(tmp_path: Path) -> None:
    for name, text in {
        "battery/type": "Battery",
        "battery/status": "Discharging",
        "battery/current_now": "-180",
        "battery/voltage_now": "3850000",
        "usb/type": "USB",
        "usb/online": "1",
    }.items():
        (tmp_path / SUPPLY / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / SUPPLY / name).write_text(f"{text}\n")
    files = Files(str(tmp_path))
    found = find_meters(MODULES, files)
    (missing,) = [item for item in found if isinstance(item, Missing)]
    assert "battery?ignore_charger=usb" in missing.remedy
    plain, told = split_wanted("battery?ignore_charger=usb&current_unit=mA&sign=-")
    again = find_told(found, MODULES, files, told)
    assert [item for item in again if isinstance(item, Missing)] == []
    (meter,), _ = choose(plain, again)
    assert isinstance(meter, BatteryMeter)
    # Part of what a campaign is: another run of it must tell the same.
    assert meter.state() == {
        "status": "Discharging",
        "plugged": "none",
        "ignored": "usb",
        "told": "current_unit=mA&sign=-",
    }
    assert [item for item in again if not isinstance(item, Missing)][-1].info.name == "estimated"

"""What holds CPUs back, by the files of boards and by a program in the place of `vcgencmd`."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulemap.device_agents.onboard.files import Files
from joulemap.device_agents.onboard.machine import firmware
from joulemap.device_agents.onboard.machine.fingerprint import fingerprint
from joulemap.device_agents.onboard.machine.host_state import HostState, over_visit
from joulemap.device_agents.onboard.machine.throttling import (
    MEANINGS,
    Throttling,
    held_since,
    in_words,
    parse_flags,
)

PI_5 = "sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled"
PI_4 = "sys/devices/platform/soc/soc:firmware/get_throttled"
OLDEST = "sys/devices/platform/soc:firmware/get_throttled"


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that pauses for longer than the limit makes no program one that hangs."""
    monkeypatch.setattr(firmware, "TIME_LIMIT_S", 60.0)


def write(folder: Path, name: str, text: str, mode: int = 0o644) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def vcgencmd(folder: Path, body: str, model: str = "Raspberry Pi 5 Model B Rev 1.0") -> None:
    write(folder, "proc/device-tree/model", f"{model}\0")
    write(folder, "usr/bin/vcgencmd", f"#!/bin/sh\n{body}\n", 0o755)


@pytest.mark.parametrize("path", [PI_5, PI_4, OLDEST])
@pytest.mark.parametrize(
    ("text", "is_throttled"),
    [("e0008", 1.0), ("0xe0004", 1.0), ("2", 1.0), ("50000", 0.0), ("50001", 0.0), ("0", 0.0)],
)
def test_the_firmwares_file_is_found_on_every_board(
    tmp_path: Path, path: str, text: str, is_throttled: float
) -> None:
    write(tmp_path, path, f"{text}\n")
    assert HostState(str(tmp_path)).is_throttled() == is_throttled


def test_a_kernel_without_the_file_is_asked_by_the_program(tmp_path: Path) -> None:
    vcgencmd(tmp_path, '[ "$*" = get_throttled ] && echo "throttled=0x50004"')
    state = HostState(str(tmp_path))
    assert state.is_throttled() == 1.0
    assert state.snapshot([0])["throttling_flags"] == 0x50004
    said = fingerprint({}, str(tmp_path))["firmware_throttling"]
    assert said == {
        "now": ["throttled"],
        "since_start": ["the supply's voltage is too low", "throttled"],
    }


@pytest.mark.parametrize("body", ["exit 255", "echo error=1", "echo throttled=", "exec yes"])
def test_a_program_that_does_not_answer_is_asked_once(tmp_path: Path, body: str) -> None:
    vcgencmd(tmp_path, f"echo x >> '{tmp_path}/asked'; {body}")
    throttling = Throttling(str(tmp_path))
    assert throttling.firmware_flags() is None
    throttling.firmware_flags()
    # What makes no sense may do so the next time.
    asked = len((tmp_path / "asked").read_text().split())
    assert asked == (1 if body in ("exit 255", "exec yes") else 2)


def test_no_other_board_is_asked(tmp_path: Path) -> None:
    vcgencmd(tmp_path, "echo throttled=0xf", model="Radxa ROCK 5B")
    assert Throttling(str(tmp_path)).firmware_flags() is None
    assert firmware.program(Files(str(tmp_path))) is None


@pytest.mark.parametrize(
    ("kind", "is_held"),
    [
        ("cpufreq-cpu0", True),
        ("thermal-cpufreq-1", True),
        ("Processor", True),
        ("intel_powerclamp", True),
        ("cpu-isolate3", True),
        ("thermal-pause-20", True),
        ("pwm-fan", None),
        ("thermal-devfreq-0", None),
        ("TCC Offset", None),
    ],
)
def test_cooling_devices_that_take_speed_of_the_processor(
    tmp_path: Path, kind: str, is_held: bool | None
) -> None:
    write(tmp_path, "sys/class/thermal/cooling_device4/type", kind)
    write(tmp_path, "sys/class/thermal/cooling_device4/cur_state", "2\n")
    assert Throttling(str(tmp_path)).is_held(None) is is_held
    write(tmp_path, "sys/class/thermal/cooling_device4/cur_state", "0\n")
    assert Throttling(str(tmp_path)).is_held(None) is (None if is_held is None else False)


def test_a_jetsons_counts_of_too_much_current_are_throttle_events(tmp_path: Path) -> None:
    for number in (1, 3):
        write(tmp_path, f"sys/class/hwmon/hwmon2/oc{number}_event_cnt", f"{number}\n")
    write(tmp_path, "sys/class/hwmon/hwmon2/oc1_throt_en", "1\n")
    assert Throttling(str(tmp_path)).num_events([0]) == 4


def test_what_occurs_within_a_visit_for_the_first_time_is_seen_after_it() -> None:
    calm: dict[str, float | None] = {"throttling_flags": 0.0, "is_throttled": 0.0}
    after: dict[str, float | None] = {"throttling_flags": float(0x40000), "is_throttled": 0.0}
    assert over_visit(calm, after)["is_throttled"] == 1.0
    # It had occurred before, or only the supply's voltage was low.
    assert over_visit(after, after)["is_throttled"] == 0.0
    assert not held_since(0.0, float(0x10000))
    assert not held_since(None, float(0x40000))


@given(flags=st.integers(0, 0xFFFFF), form=st.sampled_from(["{:x}", "0x{:x}", "throttled=0x{:X}"]))
def test_every_word_of_bits_is_read_and_told(flags: int, form: str) -> None:
    assert parse_flags(form.format(flags)) == flags
    said = in_words(flags)
    assert said is not None
    now = [text for bit, text in enumerate(MEANINGS) if flags & 1 << bit]
    assert said["now"] == now
    assert len(said["since_start"]) == (flags >> 16).bit_count()


@given(text=st.text(max_size=30))
def test_any_other_text_is_none(text: str) -> None:
    flags = parse_flags(text)
    assert flags is None or 0 <= flags < 2**32

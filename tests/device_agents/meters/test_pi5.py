"""The Pi 5's power chip: a program in its place prints what the firmware does, or something else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulemap.device_agents.meters import pi5
from joulemap.device_agents.onboard.energy.meter import Meter, MeterError, MeterGone, Missing
from joulemap.device_agents.onboard.files import Files
from joulemap.device_agents.onboard.machine import firmware
from joulemap.device_agents.testing import FaultyFiles, MeterContract

PROGRAM = "usr/bin/vcgencmd"
RAILS = {"3V7_WL_SW": (0.1, 3.7), "VDD_CORE": (2.0, 0.8), "DDR_VDD2": (0.5, 1.1)}
# A rail with a voltage alone: the supply's.
REST = "     EXT5V_V volt(24)=5.13480000V\n      BATT_V volt(25)=0.00488400V\n"


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that pauses for longer than the limit makes no program one that hangs."""
    monkeypatch.setattr(firmware, "TIME_LIMIT_S", 60.0)


def answer(rails: dict[str, tuple[float, float]]) -> str:
    lines = [
        f" {name:>12}_A current({number})={ampere:.8f}A\n"
        for number, (name, (ampere, _)) in enumerate(rails.items())
    ]
    lines += [
        f" {name:>12}_V volt({number + 8})={volt:.8f}V\n"
        for number, (name, (_, volt)) in enumerate(rails.items())
    ]
    return "".join(lines) + REST


def program(folder: Path, body: str) -> None:
    path = folder / PROGRAM
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(f'#!/bin/sh\n[ "$*" = pmic_read_adc ] || exit 9\n{body}\n')
    new.chmod(0o755)
    new.replace(path)


def board(folder: Path, text: str = "", model: str = "Raspberry Pi 5 Model B Rev 1.0") -> None:
    (folder / "proc/device-tree").mkdir(parents=True, exist_ok=True)
    (folder / "proc/device-tree/model").write_text(f"{model}\0")
    (folder / "answer").write_text(text or answer(RAILS))
    program(folder, f"cat '{folder}/answer'")


def find(folder: Path) -> dict[str, Meter]:
    found = pi5.find(Files(str(folder)))
    assert not [item for item in found if isinstance(item, Missing)]
    return {item.info.channel: item for item in found if not isinstance(item, Missing)}


class TestPi5Contract(MeterContract):
    module = "pi5"

    def make(self, folder: Path) -> None:
        self.rails = dict(RAILS)
        board(folder)

    def step(self, folder: Path) -> float:
        ampere, volt = self.rails["VDD_CORE"]
        self.rails["VDD_CORE"] = (ampere + 0.25, volt)
        (folder / "answer").write_text(answer(self.rails))
        return sum(ampere * volt for ampere, volt in self.rails.values())

    def vanish(self, folder: Path, files: FaultyFiles) -> None:
        (folder / PROGRAM).unlink()

    def absent(self, files: Files) -> list[Any]:
        return pi5.find(files)


def test_rails_with_volts_and_amperes_are_added(tmp_path: Path) -> None:
    board(tmp_path)
    meters = find(tmp_path)
    assert meters["total"].read() == pytest.approx(0.37 + 1.6 + 0.55)
    assert meters["VDD_CORE"].read() == pytest.approx(1.6)
    assert "USB" in meters["total"].info.unmeasured
    assert meters["total"].info.read_s >= 0.1


def test_a_rail_that_disappears_is_an_error_not_less_power(tmp_path: Path) -> None:
    board(tmp_path)
    meter = find(tmp_path)["total"]
    (tmp_path / "answer").write_text(answer({"VDD_CORE": (2.0, 0.8)}))
    with pytest.raises(MeterError, match="leaves out 3V7_WL_SW, DDR_VDD2"):
        meter.read()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("echo 'VCHI initialization failed' >&2; exit 255", "VCHI initialization failed"),
        ("echo 'error=1 error_msg=\"Command not registered\"'", "no rail with V and A"),
        ("exec yes", "does not stop printing"),
        ("exec >&- 2>&-; exec sleep 30", "took more than"),
        ("yes | head -c 1000", "no rail with V and A"),
        ("exec sleep 30", "took more than"),
    ],
)
def test_a_program_that_does_not_answer_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, reason: str
) -> None:
    if reason == "took more than":
        monkeypatch.setattr(firmware, "TIME_LIMIT_S", 0.3)
    board(tmp_path)
    program(tmp_path, body)
    (missing,) = pi5.find(Files(str(tmp_path)))
    assert isinstance(missing, Missing)
    assert reason in missing.reason
    assert ("video" if "registered" not in body else "update the firmware") in missing.remedy


def test_without_the_program_it_says_what_to_install(tmp_path: Path) -> None:
    board(tmp_path)
    (tmp_path / PROGRAM).unlink()
    (missing,) = pi5.find(Files(str(tmp_path)))
    assert isinstance(missing, Missing)
    assert "raspi-utils" in missing.remedy


def test_a_pi_4_has_no_such_chip(tmp_path: Path) -> None:
    board(tmp_path, model="Raspberry Pi 4 Model B Rev 1.5")
    assert pi5.find(Files(str(tmp_path))) == []


def test_a_program_that_is_gone_is_a_meter_that_is_gone(tmp_path: Path) -> None:
    board(tmp_path)
    meter = find(tmp_path)["VDD_CORE"]
    (tmp_path / PROGRAM).unlink()
    with pytest.raises(MeterGone):
        meter.read()


def test_too_much_power_is_refused(tmp_path: Path) -> None:
    board(tmp_path)
    meter = find(tmp_path)["VDD_CORE"]
    (tmp_path / "answer").write_text(answer({"VDD_CORE": (2000.0, 0.8)}))
    with pytest.raises(MeterError, match="more than"):
        meter.read()


@given(text=st.text() | st.text(alphabet="VDD_CORE_AV current()volt=0123456789.-naN\n"))
def test_any_answer_gives_powers_or_an_error(text: str) -> None:
    try:
        powers = pi5.parse_rails(text)
    except MeterError:
        return
    assert all(power >= 0 for power in powers.values())


@given(
    rails=st.dictionaries(
        st.from_regex(r"[A-Z0-9][A-Z0-9_]{0,15}", fullmatch=True),
        st.tuples(st.floats(0, 20), st.floats(0, 20)),
        min_size=1,
        max_size=12,
    )
)
def test_every_rail_of_an_answer_counts(rails: dict[str, tuple[float, float]]) -> None:
    powers = pi5.parse_rails(answer(rails))
    assert powers == {
        name: pytest.approx(ampere * volt, abs=1e-6) for name, (ampere, volt) in rails.items()
    }

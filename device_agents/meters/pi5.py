"""The Raspberry Pi 5's power chip: volts and amperes of its rails, as the firmware tells them.

    $ vcgencmd pmic_read_adc
      3V7_WL_SW_A current(0)=0.09759592A
      3V7_WL_SW_V volt(8)=3.70730800V

What feeds the rails is not measured: the supply's 5 V has a voltage and no current here.
"""

from __future__ import annotations

import math
import re

from ..onboard.energy.meter import SAMPLER, Meter, MeterError, MeterGone, MeterInfo, Missing
from ..onboard.files import Files
from ..onboard.machine import firmware
from .readings import check_power

_COMMAND = "pmic_read_adc"
_MODELS = ("raspberry pi 5", "raspberry pi 500", "compute module 5")
_LINE = re.compile(
    r"\s*([A-Za-z0-9][A-Za-z0-9_]{0,30})_([AV])\s+(?:current|volt)\([0-9]{1,3}\)="
    r"([0-9]{1,6}(?:\.[0-9]{1,12})?)([AV])\s*\Z"
)
# A program is started for each reading, which takes some milliseconds of a core.
_READ_S = 0.1
_MAX_POWER_W = 40.0
_UPDATE = "update the firmware: sudo apt full-upgrade, then restart"
_REMEDY = "sudo usermod -aG video $USER, then log in again"
_HANGS = f"the firmware does not answer: restart the board; if that does not help: {_REMEDY}"


class PmicMeter:
    """The sum of the rails' powers.

    Args:
        info: What is known about it.
        program: Where `vcgencmd` is.
        rails: Those that are added.
    """

    def __init__(self, info: MeterInfo, program: str, rails: frozenset[str]) -> None:
        self.info = info
        self._program = program
        self._rails = rails

    def read(self) -> float:
        """Return watts."""
        powers = parse_rails(_ask(self._program))
        absent = self._rails - set(powers)
        if absent:
            raise MeterError(
                f"'vcgencmd {_COMMAND}' leaves out {', '.join(sorted(absent))}, which it had before"
            )
        power_w = math.fsum(powers[rail] for rail in self._rails)
        return check_power(power_w, self.info.max_power_w, f"'vcgencmd {_COMMAND}'")

    def close(self) -> None:
        """Nothing is held."""


def find(files: Files) -> list[Meter | Missing]:
    """Return the sum of the rails first, then the processor's core; nothing but on a Pi 5."""
    model = firmware.model(files)
    if not any(name in model for name in _MODELS):
        return []
    program = firmware.program(files)
    if program is None:
        reason = f"{firmware.places()} are not there"
        return [Missing("pi5", "", reason, "sudo apt install raspi-utils")]
    try:
        powers = parse_rails(_ask(program))
    except MeterError as error:
        said = str(error)
        remedy = _UPDATE if "not registered" in said else _REMEDY
        if "took more than" in said or "stop printing" in said:
            remedy = _HANGS
        return [Missing("pi5", "", str(error), remedy)]
    found: list[Meter | Missing] = [
        _meter("total", program, frozenset(powers), f"board: the rails {', '.join(sorted(powers))}")
    ]
    if "VDD_CORE" in powers:
        what = "processor cores and graphics (VDD_CORE)"
        found.append(_meter("VDD_CORE", program, frozenset({"VDD_CORE"}), what))
    return found


def parse_rails(text: str) -> dict[str, float]:
    """Return rail -> watts for the rails that have both a voltage and a current.

    Raises:
        MeterError: There is none, or a rail is told twice.
    """
    amperes: dict[str, float] = {}
    volts: dict[str, float] = {}
    for line in text.splitlines():
        match = _LINE.match(line)
        if match is None or match.group(2) != match.group(4):
            continue
        values = amperes if match.group(2) == "A" else volts
        if match.group(1) in values:
            raise MeterError(f"'vcgencmd {_COMMAND}' tells {match.group(1)} twice")
        values[match.group(1)] = float(match.group(3))
    powers = {rail: volts[rail] * ampere for rail, ampere in amperes.items() if rail in volts}
    if not powers:
        raise MeterError(f"'vcgencmd {_COMMAND}' answers {text[:60]!r}: no rail with V and A")
    return powers


def _ask(program: str) -> str:
    """Return what the program prints.

    Raises:
        MeterGone: It is not there.
        MeterError: It gives no answer.
    """
    try:
        return firmware.ask(program, _COMMAND)
    except firmware.FirmwareGone as error:
        raise MeterGone(str(error)) from error
    except firmware.FirmwareError as error:
        raise MeterError(str(error)) from error


def _meter(channel: str, program: str, rails: frozenset[str], what: str) -> PmicMeter:
    info = MeterInfo(
        name="pi5",
        channel=channel,
        kind=SAMPLER,
        domain=what,
        unmeasured="USB devices, HATs, the fan, losses of converters and supply: all that takes 5 V directly",
        rail="pi5 pmic" if channel == "total" else f"pi5 pmic {channel}",
        max_power_w=_MAX_POWER_W,
        read_s=_READ_S,
        is_partial=channel != "total",
        notes=(
            "Each reading starts a program, which itself takes energy: the idle is to be measured with it.",
            "Voltage and current are converted one after the other: biased where they step.",
        ),
    )
    return PmicMeter(info, program, rails)

"""What is said of a file that gives no reading, for each of the kernel's reasons."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from joulemap.device_agents.meters import android_odpm, battery, hwmon, rapl
from joulemap.device_agents.meters.readings import reading_failed
from joulemap.device_agents.meters.refusals import TRIES, read_at_first, remedy_of
from joulemap.device_agents.onboard.energy.meter import Missing
from joulemap.device_agents.onboard.files import Files

Plant = Callable[[Path, Mapping[str, object]], None]
NUMBERS = [
    errno.EIO,
    errno.ENODATA,
    errno.ENODEV,
    errno.EBUSY,
    errno.EAGAIN,
    errno.ETIMEDOUT,
    errno.EINVAL,
    errno.ENOENT,
    errno.EROFS,
]
RAPL = "sys/class/powercap/intel-rapl:0"
CHIP = "sys/class/hwmon/hwmon0"
PHONE = "sys/class/power_supply/battery"
MONITOR = "sys/bus/iio/devices/iio:device0"
MACHINE = {
    f"{RAPL}/name": "package-0",
    f"{RAPL}/energy_uj": 5,
    f"{RAPL}/max_energy_range_uj": 262_143_328_850,
    f"{CHIP}/name": "ina226",
    f"{CHIP}/power1_input": 1,
    f"{PHONE}/type": "Battery",
    f"{PHONE}/status": "Discharging",
    f"{PHONE}/current_now": 1,
    f"{PHONE}/voltage_now": 3_800_000,
    f"{MONITOR}/energy_value": "t=1\nCH0(T=1)[S1M], 5",
}
VALUES = ("energy_uj", "power1_input", "current_now", "energy_value")


class Refusing(Files):
    """Files whose values the kernel refuses.

    Args:
        root: What they begin at.
        number: The error's.
        times: How often, before it passes.
    """

    def __init__(self, root: str, number: int, times: int = 10**6) -> None:
        super().__init__(root)
        self.number, self.times = number, times

    def read(self, path: str) -> str:
        if path.rpartition("/")[2] in VALUES and self.times > 0:
            self.times -= 1
            raise OSError(self.number, "refused", path)
        return super().read(path)


def missing(module: object, root: Path, number: int) -> Missing:
    found = module.find(Refusing(str(root), number))  # type: ignore[attr-defined]
    return next(item for item in found if isinstance(item, Missing))


@pytest.mark.parametrize("module", [rapl, hwmon, battery, android_odpm])
def test_each_reason_has_a_remedy_of_its_own(tmp_path: Path, plant: Plant, module: object) -> None:
    plant(tmp_path, MACHINE)
    told = [missing(module, tmp_path, number).remedy for number in NUMBERS]
    permit = missing(module, tmp_path, errno.EACCES).remedy
    assert missing(module, tmp_path, errno.EPERM).remedy == permit
    # Permission mends nothing else.
    assert permit not in told
    assert not [text for text in told if "chmod" in text or "adb root" in text]
    first_six = told[:6]
    assert len(set(first_six)) == 6
    assert all(len(text) < 400 for text in told)


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EBUSY, errno.ETIMEDOUT])
def test_what_passes_by_itself_is_tried_again(tmp_path: Path, plant: Plant, number: int) -> None:
    plant(tmp_path, MACHINE)
    found = rapl.find(Refusing(str(tmp_path), number, TRIES - 1))
    assert not [item for item in found if isinstance(item, Missing)]
    with pytest.raises(OSError, match="refused"):
        read_at_first(Refusing(str(tmp_path), errno.EIO, 1), f"{RAPL}/energy_uj")


def test_a_reading_that_fails_later_says_what_to_do_as_well() -> None:
    said = str(reading_failed(OSError(errno.ETIMEDOUT, "Connection timed out"), "/sys/x"))
    assert said.startswith("/sys/x cannot be read now (Connection timed out): the sensor did not ")
    assert remedy_of(OSError(12345, "odd"), "permit") == remedy_of(OSError(99999, "odd"), "permit")

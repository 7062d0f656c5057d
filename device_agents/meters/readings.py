"""Numbers from kernel files that may refuse, vanish or hold rubbish: each failure becomes an error."""

from __future__ import annotations

import errno
import math
import re

from ..onboard.energy.meter import MeterError, MeterGone
from ..onboard.files import Files
from .refusals import GONE, remedy_of

# No exponent, "nan" or "inf": the kernel writes none of them where a reading is good.
_NUMBER = re.compile(r"[+-]?[0-9]{1,20}(\.[0-9]{1,12})?\Z")
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_.+-]+")
_MAX_NAME = 48


class NumberFile:
    """A kernel file that stays open and holds one number.

    Args:
        files: The machine's files.
        path: The file, such as `sys/class/hwmon/hwmon0/power1_input`.

    Raises:
        OSError: It cannot be opened.
    """

    def __init__(self, files: Files, path: str) -> None:
        self.path = "/" + path.lstrip("/")
        self._file = files.open(path)

    def read(self) -> float:
        """Return the number.

        Raises:
            MeterGone: The device is no longer there.
            MeterError: It cannot be read now, or is no number.
        """
        return parse_number(self.text(), self.path)

    def text(self) -> str:
        """Return the file's text.

        Raises:
            MeterGone: The device is no longer there.
            MeterError: It cannot be read now.
        """
        try:
            return self._file.read()
        except OSError as error:
            raise reading_failed(error, self.path) from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def reading_failed(error: OSError, path: str) -> MeterError:
    """Return the error that says whether a file is gone or only cannot be read now."""
    reason = error.strerror or str(error)
    if error.errno in GONE:
        return MeterGone(
            f"{path} is gone ({reason}): the meter was unplugged or its driver removed"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return MeterError(
            f"{path}: {reason}; it could be read when the meter was found: permissions changed, or the device sleeps"
        )
    return MeterError(f"{path} cannot be read now ({reason}): {remedy_of(error, '')}")


def parse_number(text: str, path: str) -> float:
    """Return the number that the text is, in the file's own unit.

    Raises:
        MeterError: It is none.
    """
    if not _NUMBER.match(text):
        shown = repr(text[:40]) if text else "nothing"
        raise MeterError(f"{path} holds {shown} instead of a number")
    return float(text)


def known_number(files: Files, path: str) -> float | None:
    """Return the number that a file holds, None if it cannot be read or holds none."""
    text = files.text(path)
    return float(text) if text is not None and _NUMBER.match(text) else None


def check_power(
    power_w: float, max_power_w: float, path: str, *, min_power_w: float = 0.0
) -> float:
    """Return the power in W if it can be believed.

    Args:
        power_w: What was read.
        max_power_w: More is not believed.
        path: Where it was read.
        min_power_w: Less is not believed; noise around zero is slightly negative on some chips.

    Raises:
        MeterError: It is negative, no number, or too much.
    """
    if not math.isfinite(power_w):
        raise MeterError(f"{path} gives {power_w} W, which is no power")
    if power_w < min_power_w:
        raise MeterError(
            f"{path} gives {power_w:.6g} W, less than nothing: current flows backwards, or the shunt "
            "is connected the other way round"
        )
    if power_w > max_power_w:
        raise MeterError(
            f"{path} gives {power_w:.6g} W, more than the {max_power_w:.6g} W that are possible: "
            "a broken reading, or another unit than the file should have"
        )
    return power_w


def channel_name(text: str | None, otherwise: str) -> str:
    """Return a label as a channel's name: without blanks and signs that a command line could trip on."""
    name = _NOT_IN_A_NAME.sub("_", text or "").strip("_.")[:_MAX_NAME]
    return name or otherwise


def chip_folder(files: Files, folder: str) -> str:
    """Return the chip's own folder for a sensor's, such as `sys/class/hwmon/hwmon0/device`."""
    device = f"{folder}/device"
    return device if files.list(device) else folder


def rail_name(files: Files, folder: str, channel: str) -> str:
    """Return one name for a sensor's supply, whichever way led to the sensor.

    Args:
        files: The machine's files.
        folder: The sensor's, such as `sys/class/hwmon/hwmon0`; its `device` is the chip itself.
        channel: Number of the sensor's input.
    """
    return f"{files.resolve(chip_folder(files, folder))}#{channel}"

"""A gauge: watts that some program writes into a file. Runs on the device, Python 3.9 and newer."""

from __future__ import annotations

from joulemap.device_agents.meters.readings import NumberFile, check_power
from joulemap.device_agents.onboard.energy.meter import SAMPLER, Meter, MeterInfo, Missing
from joulemap.device_agents.onboard.files import Files

NEEDS = "a program that writes watts into /run/example/power_w"
PATH = "run/example/power_w"
MAX_W = 100.0


class WattFile:
    """The file as a gauge.

    Args:
        file: It, open.
    """

    def __init__(self, file: NumberFile) -> None:
        self.info = MeterInfo(
            name="watt_file",
            channel="all",
            kind=SAMPLER,
            domain="what the program measures",
            rail="watt_file",
            resolution=0.001,
            max_power_w=MAX_W,
        )
        self._file = file

    def read(self) -> float:
        return check_power(self._file.read(), MAX_W, self._file.path)

    def close(self) -> None:
        self._file.close()


def find(files: Files) -> list[Meter | Missing]:
    """Return the gauge where the file is."""
    try:
        return [WattFile(NumberFile(files, PATH))]
    except FileNotFoundError:
        return []
    except OSError as error:
        return [Missing("watt_file", "", f"/{PATH}: {error.strerror}", f"chmod a+r /{PATH}")]

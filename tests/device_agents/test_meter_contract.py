"""The contract of meters holds for a counter and a gauge as simple as can be."""

from __future__ import annotations

import errno
from pathlib import Path

from joulemap.device_agents.onboard.energy.meter import (
    Meter,
    MeterError,
    MeterGone,
    MeterInfo,
    Missing,
)
from joulemap.device_agents.onboard.files import Files
from joulemap.device_agents.testing import MeterContract

RANGE_UJ = 1_000_000


class FileMeter:
    """Reads a number of micro-units in one file."""

    def __init__(self, files: Files, path: str, info: MeterInfo) -> None:
        self.info = info
        self._file = files.open(path)

    def read(self) -> float:
        try:
            return int(self._file.read()) * 1e-6
        except OSError as error:
            text = f"{self._file.path} cannot be read: {error}"
            raise (MeterGone if error.errno == errno.ENODEV else MeterError)(text) from error

    def close(self) -> None:
        self._file.close()


class ToyContract(MeterContract):
    module = "toy"
    protected = ("sys/toy/value",)
    kind = "counter"

    def make(self, folder: Path) -> None:
        (folder / "sys/toy").mkdir(parents=True)
        (folder / "sys/toy/value").write_text(str(RANGE_UJ - 50_000))

    def find(self, files: Files) -> list[Meter | Missing]:
        if not files.list("sys/toy"):
            return []
        range_j = RANGE_UJ * 1e-6 if self.kind == "counter" else None
        info = MeterInfo("toy", "all", self.kind, "a file", range_j=range_j)
        try:
            meter = FileMeter(files, "sys/toy/value", info)
        except OSError as error:
            reason = f"sys/toy/value cannot be read: {error.strerror}"
            return [Missing("toy", "all", reason, "chmod o+r /sys/toy/value")]
        meter.read()
        return [meter]


class TestCounterContract(ToyContract):
    def step(self, folder: Path) -> float:
        file = folder / "sys/toy/value"
        file.write_text(str((int(file.read_text()) + 20_000) % RANGE_UJ))
        return 0.02


class TestGaugeContract(ToyContract):
    kind = "sampler"

    def step(self, folder: Path) -> float:
        file = folder / "sys/toy/value"
        file.write_text(str(int(file.read_text()) + 1_000))
        return int(file.read_text()) * 1e-6

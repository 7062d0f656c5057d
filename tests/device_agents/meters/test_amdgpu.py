"""AMD's cards: counter before power, power of the moment before the average."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from joulemap.device_agents.meters import amdgpu
from joulemap.device_agents.onboard.energy.meter import Meter, Missing
from joulemap.device_agents.onboard.files import Files
from joulemap.device_agents.testing import FaultyFiles, MeterContract

CARD = "sys/class/hwmon/hwmon2"


def write(folder: Path, contents: Mapping[str, object]) -> None:
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")


def find(folder: Path, **contents: object) -> list[Meter]:
    write(folder, {f"{CARD}/name": "amdgpu"})
    write(folder, {f"{CARD}/{name}": content for name, content in contents.items()})
    found = amdgpu.find(Files(str(folder)))
    assert not [item for item in found if isinstance(item, Missing)]
    return [item for item in found if not isinstance(item, Missing)]


class TestAveragePowerContract(MeterContract):
    module = "amdgpu"
    protected = (f"{CARD}/power1_average",)

    def make(self, folder: Path) -> None:
        write(folder, {f"{CARD}/name": "amdgpu", f"{CARD}/power1_average": 30_000_000})

    def step(self, folder: Path) -> float:
        file = folder / CARD / "power1_average"
        file.write_text(f"{int(file.read_text()) + 1_000_000}\n")
        return int(file.read_text()) * 1e-6


def test_a_counter_comes_first_and_the_power_of_the_moment_next(tmp_path: Path) -> None:
    counter, power = find(
        tmp_path, energy1_input=9_000_000, power1_input=40_000_000, power1_average=33_000_000
    )
    assert (counter.info.channel, counter.info.kind) == ("gpu0", "counter")
    assert (power.info.channel, power.info.kind) == ("gpu0-power", "sampler")
    assert counter.read() == pytest.approx(9.0)
    assert power.read() == pytest.approx(40.0)
    assert counter.info.rail == power.info.rail


def test_an_average_is_stated_and_bounded(tmp_path: Path) -> None:
    (meter,) = find(
        tmp_path, power1_average=33_000_000, power1_cap_max=220_000_000, power1_label="PPT"
    )
    assert meter.info.averaging_s == 1.0
    assert meter.info.max_power_w == pytest.approx(440.0)
    assert "PPT" in meter.info.domain


def test_a_card_that_tells_nothing_is_missing(tmp_path: Path) -> None:
    write(tmp_path, {f"{CARD}/name": "amdgpu", f"{CARD}/temp1_input": 40_000})
    (missing,) = amdgpu.find(Files(str(tmp_path)))
    assert isinstance(missing, Missing)
    assert "power1_average" in missing.reason


def test_a_file_without_an_answer_leaves_it_to_the_next_one(tmp_path: Path) -> None:
    write(tmp_path, {f"{CARD}/name": "amdgpu"})
    for name in ("power1_input", "power1_average"):
        write(tmp_path, {f"{CARD}/{name}": 33_000_000})
    files = FaultyFiles(str(tmp_path))
    files.denied = (f"{CARD}/power1_input",)
    (meter,) = amdgpu.find(files)
    assert not isinstance(meter, Missing)
    assert (meter.info.channel, meter.info.averaging_s) == ("gpu0", 1.0)
    assert meter.read() == pytest.approx(33.0)

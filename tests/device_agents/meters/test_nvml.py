"""NVML by the real nvidia-ml-py, which loads a library of our own with a power model behind it."""

from __future__ import annotations

import ctypes
import importlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from joulemap.device_agents.errors import StableDeviceError
from joulemap.device_agents.meters import nvml
from joulemap.device_agents.onboard.energy.meter import Meter, MeterError, MeterGone, Missing
from joulemap.device_agents.onboard.energy.meter_choice import enrol
from joulemap.device_agents.onboard.energy.power_log import Recorder
from joulemap.device_agents.onboard.files import Files
from joulemap.device_agents.onboard.machine.clock import MachineClock
from joulemap.device_agents.onboard.visit import Stopwatch, measure
from joulemap.device_agents.simulated.nvml_library import LIBRARY, SETTINGS_VARIABLE
from joulemap.device_agents.testing import FaultyFiles, MeterContract, build_nvml
from joulemap.profiler import Protocol

from ..watched_visit import WatchedVisit

NOT_SUPPORTED, NO_PERMISSION, DRIVER_NOT_LOADED, LOST, UNKNOWN = 3, 4, 9, 15, 999
Set = Callable[..., None]


@pytest.fixture(scope="session")
def library_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the library, compiled from the source that the package ships."""
    folder = tmp_path_factory.mktemp("nvml")
    build_nvml(folder)
    return folder


@pytest.fixture(scope="session")
def library(library_folder: Path) -> ctypes.CDLL:
    """The library; loaded by its path, it is what its bare name stands for in this process."""
    return ctypes.CDLL(str(library_folder / LIBRARY))


@pytest.fixture
def settings(
    tmp_path: Path, library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Set]:
    """Returns a function that sets names (`gpu0__power` for `gpu0.power`); nothing is left open."""
    path = tmp_path / "nvml.txt"
    monkeypatch.setenv(SETTINGS_VARIABLE, str(path))
    lines: dict[str, object] = {}

    def write(**values: object) -> None:
        lines.update({name.replace("__", "."): value for name, value in values.items()})
        new = path.with_suffix(".new")
        new.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
        new.replace(path)

    write(gpus=1)
    yield write
    assert library.joulemap_nvml_users() == 0


def find() -> list[Meter | Missing]:
    return nvml.find(Files())


def meters() -> list[Meter]:
    return [item for item in find() if not isinstance(item, Missing)]


def close(opened: list[Meter]) -> None:
    for meter in opened:
        meter.close()


def first() -> Meter:
    opened = meters()
    close(opened[1:])
    return opened[0]


class NvmlContract(MeterContract):
    module = "nvml"
    shown = ""
    step_milli = 0
    supported: ClassVar[dict[str, int]] = {}

    @pytest.fixture(autouse=True)
    def _library(self, settings: Set, library: ctypes.CDLL) -> Iterator[None]:
        self.settings = settings
        yield
        while library.joulemap_nvml_users():
            library.nvmlShutdown()

    @pytest.fixture
    def files(self, tmp_path: Path, _library: None) -> FaultyFiles:
        self.make(tmp_path)
        return FaultyFiles("/")

    def make(self, folder: Path) -> None:
        self.value = 5_000_000 if self.shown == "energy_mj" else 50_000
        self.settings(**{self.shown: self.value}, **self.supported)

    def step(self, folder: Path) -> float:
        self.value += self.step_milli
        self.settings(**{self.shown: self.value})
        return (self.step_milli if self.shown == "energy_mj" else self.value) * 1e-3

    def vanish(self, folder: Path, files: FaultyFiles) -> None:
        self.settings(energy=LOST, power=LOST, instant=LOST)

    def absent(self, files: Files) -> list[Any]:
        self.settings(gpus=0)
        return find()


class TestCounterContract(NvmlContract):
    shown = "energy_mj"
    step_milli = 12_345


class TestInstantPowerContract(NvmlContract):
    shown = "power_mw"
    step_milli = 1_234
    supported: ClassVar[dict[str, int]] = {"energy": NOT_SUPPORTED}


class TestAveragePowerContract(NvmlContract):
    shown = "power_mw"
    step_milli = 1_234
    supported: ClassVar[dict[str, int]] = {"energy": NOT_SUPPORTED, "instant": NOT_SUPPORTED}


def truth_j(t: float, idle_w: float, active_w: float, period_s: float, duty: float) -> float:
    whole, rest = divmod(t, period_s)
    on_s = duty * period_s
    return idle_w * t + (active_w - idle_w) * (whole * on_s + min(rest, on_s))


def test_two_cards_have_a_counter_and_a_gauge_on_one_rail_each(settings: Set) -> None:
    settings(gpus=2)
    opened = meters()
    assert [(m.info.channel, m.info.kind) for m in opened] == [
        ("gpu0", "counter"),
        ("gpu0-power", "sampler"),
        ("gpu1", "counter"),
        ("gpu1-power", "sampler"),
    ]
    rails = [meter.info.rail for meter in opened]
    assert rails[0] == rails[1] != rails[2] == rails[3]
    assert "GPU-00000000-0000-0000-0000-000000000001" in opened[2].info.notes[0]
    # The highest limit is 300 W; peaks may be twice that.
    assert opened[0].info.max_power_w == pytest.approx(600.0)
    close(opened)


def test_the_counter_moves_in_steps_and_holds_the_models_energy(settings: Set) -> None:
    model = {"idle_w": 20.0, "active_w": 220.0, "period_s": 0.3, "duty": 0.4}
    settings(**model, energy_offset_mj=0)
    meter = first()
    for _ in range(20):
        before, joules, after = time.monotonic(), meter.read(), time.monotonic()
        steps = range(int(before * 10), int(after * 10) + 1)
        shown = [truth_j(step / 10, **model) for step in steps]
        assert any(joules == pytest.approx(value, abs=0.002) for value in shown)
        time.sleep(0.013)
    meter.close()


def test_the_average_is_one_over_its_window_and_the_moment_is_not(settings: Set) -> None:
    settings(idle_w=20, active_w=120, period_s=0.5, duty=0.25, window_s=1)
    opened = meters()
    assert opened[1].read() in (pytest.approx(20.0), pytest.approx(120.0))
    close(opened)
    settings(instant=NOT_SUPPORTED)
    opened = meters()
    assert opened[1].info.averaging_s == 1.0
    assert opened[1].read() == pytest.approx(45.0, abs=0.01)
    close(opened)


def test_a_processes_cpu_time_takes_energy(settings: Set) -> None:
    settings(idle_w=0, active_w=0, energy_step_s=0, pid=os.getpid(), joules_per_cpu_s=1000)
    meter = first()
    meter.read()
    time.sleep(0.02)
    earliest_s, before, start_s = time.process_time(), meter.read(), time.process_time()
    while time.process_time() - start_s < 0.05:
        pass
    end_s, after, latest_s = time.process_time(), meter.read(), time.process_time()
    assert (
        (end_s - start_s) * 1000 - 0.01 <= after - before <= (latest_s - earliest_s) * 1000 + 0.01
    )
    meter.close()


@pytest.mark.parametrize(
    ("answers", "channel", "averaging_s"),
    [
        ({"energy": NOT_SUPPORTED}, "gpu0", 0.0),
        ({"energy_mj": 0}, "gpu0", 0.0),
        ({"energy_mj": 2**64 - 1}, "gpu0", 0.0),
        ({"energy": NO_PERMISSION, "instant": UNKNOWN}, "gpu0", 1.0),
        ({"energy": NOT_SUPPORTED, "fields": NOT_SUPPORTED}, "gpu0", 1.0),
    ],
)
def test_what_a_card_does_not_answer_is_passed_over(
    settings: Set, answers: dict[str, int], channel: str, averaging_s: float
) -> None:
    settings(**answers)
    opened = meters()
    assert [(m.info.channel, m.info.kind, m.info.averaging_s) for m in opened] == [
        (channel, "sampler", averaging_s)
    ]
    close(opened)


@pytest.mark.parametrize(
    ("answer", "reason", "remedy"),
    [
        (NOT_SUPPORTED, "Not Supported", "--meter jetson"),
        (NO_PERMISSION, "Insufficient Permissions", "/dev/nvidia"),
        (UNKNOWN, "Unknown Error", "nvidia-smi"),
    ],
)
def test_a_card_that_answers_nothing_is_missing(
    settings: Set, answer: int, reason: str, remedy: str
) -> None:
    # As on a Jetson: the library starts and finds a card, and then has nothing to say.
    settings(energy=answer, power=answer, instant=answer, limit=answer)
    (missing,) = find()
    assert isinstance(missing, Missing)
    assert reason in missing.reason
    assert remedy in missing.remedy


def test_a_query_that_an_old_package_lacks_is_passed_over(
    settings: Set, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = importlib.import_module("pynvml")
    monkeypatch.delattr(library, "nvmlDeviceGetTotalEnergyConsumption")
    monkeypatch.delattr(library, "NVML_FI_DEV_POWER_INSTANT")
    (meter,) = meters()
    assert (meter.info.channel, meter.info.averaging_s) == ("gpu0", 0.0)
    monkeypatch.delattr(library, "nvmlDeviceGetFieldValues")
    (older,) = meters()
    assert older.info.averaging_s == 1.0
    close([meter, older])


def test_without_a_compiler_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StableDeviceError, match=r"apt-get install .* g\+\+"):
        build_nvml(tmp_path)


def test_one_lost_card_leaves_the_other(settings: Set) -> None:
    settings(gpus=2, gpu0__handle=LOST)
    found = find()
    assert isinstance(found[0], Missing)
    assert "GPU is lost" in found[0].reason
    opened = [item for item in found if not isinstance(item, Missing)]
    assert [meter.info.channel for meter in opened] == ["gpu1", "gpu1-power"]
    close(opened)


@pytest.mark.parametrize(
    ("answer", "remedy"), [(DRIVER_NOT_LOADED, "modprobe nvidia"), (NO_PERMISSION, "/dev/nvidia")]
)
def test_a_library_that_does_not_start_is_missing(settings: Set, answer: int, remedy: str) -> None:
    settings(init=answer)
    (missing,) = find()
    assert isinstance(missing, Missing)
    assert remedy in missing.remedy


def test_an_answer_that_fails_once_can_be_asked_again(settings: Set) -> None:
    meter = first()
    settings(energy=UNKNOWN)
    with pytest.raises(MeterError, match="cannot be read now") as caught:
        meter.read()
    assert not isinstance(caught.value, MeterGone)
    settings(energy=0)
    assert meter.read() > 0
    meter.close()


def test_impossible_values_are_refused(settings: Set) -> None:
    opened = meters()
    settings(energy_mj=2**64 - 1, power_mw=2**32 - 1)
    for meter in opened:
        with pytest.raises(MeterError):
            meter.read()
    close(opened)


def test_nothing_is_found_below_another_root(settings: Set, tmp_path: Path) -> None:
    assert nvml.find(Files(str(tmp_path))) == []


FIND = """
from joulemap.device_agents.errors import StableDeviceError
from joulemap.device_agents.meters import nvml
from joulemap.device_agents.onboard.files import Files
for meter in nvml.find(Files()):
    print(meter.info.channel, meter.read())
    meter.close()
"""


def test_a_program_finds_it_by_the_path_of_libraries(library_folder: Path, tmp_path: Path) -> None:
    settings = tmp_path / "nvml.txt"
    settings.write_text("gpus=1\nenergy_mj=4242000\ninstant=3\npower_mw=77000\n")
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": str(library_folder),
        SETTINGS_VARIABLE: str(settings),
    }
    ended = subprocess.run(
        [sys.executable, "-c", FIND],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert ended.stdout.splitlines() == ["gpu0 4242.0", "gpu0-power 77.0"]


def test_without_the_package_a_driver_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    files = Files(str(tmp_path))
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidia0").touch()
    monkeypatch.setattr(files, "root", "/")
    monkeypatch.setattr(files, "path", lambda path: str(tmp_path / path))
    (missing,) = nvml.find(files)
    assert isinstance(missing, Missing)
    assert missing.remedy == "pip install nvidia-ml-py"
    (tmp_path / "dev/nvidia0").unlink()
    assert nvml.find(files) == []


def test_a_card_that_is_divided_says_whose_energy_it_is(settings: Set) -> None:
    for mode, count in ((-1, 0), (0, 0), (1, 2)):
        settings(mig=mode)
        opened = meters()
        assert sum("MIG is on" in " ".join(meter.info.notes) for meter in opened) == count
        close(opened)


def test_an_old_package_answers_bytes(settings: Set, monkeypatch: pytest.MonkeyPatch) -> None:
    library = importlib.import_module("pynvml")
    for name, answer in (("Name", b"Tesla V100"), ("UUID", b"GPU-1234")):
        monkeypatch.setattr(library, f"nvmlDeviceGet{name}", lambda handle, answer=answer: answer)
    meter = first()
    assert meter.info.notes[0] == "Tesla V100, GPU-1234."
    assert meter.info.rail == "nvml/GPU-1234"
    meter.close()


def test_a_visit_s_energy_is_that_of_the_process(settings: Set) -> None:
    """The counter's steps of 0.1 s are met at both ends of the window; what idles is taken off."""
    settings(idle_w=20, active_w=20, pid=os.getpid(), joules_per_cpu_s=60, gpu0__energy_step_s=0.02)
    clock = MachineClock()
    found = meters()
    close(found[1:])
    chosen = enrol(found[0], clock)
    protocol = Protocol(
        max_warm_up_s=0.05, max_energy_window_s=4.0, energy_updates=20
    ).visit_settings
    energy = WatchedVisit([chosen], clock, Recorder, protocol)

    def run() -> None:
        sum(range(200_000))

    result = measure(run, run, protocol, Stopwatch(clock, [0]), lambda: False, energy)
    energy.stop()
    found[0].close()
    answer = result.energy
    assert answer is not None
    assert answer["refused"] is None
    truth = 60.0 * energy.cpu_s / answer["calls"]
    assert answer["energy"]["net_j"] == pytest.approx(truth, rel=0.15)
    assert answer["energy"]["idle_w"] == pytest.approx(20.0, abs=3.0)


def test_one_update_of_the_counter_shows_one_number(settings: Set) -> None:
    settings(idle_w=20, active_w=20, pid=os.getpid(), joules_per_cpu_s=60, energy_step_s=0.05)
    meter = first()
    end = time.monotonic() + 0.5
    shown = []
    while time.monotonic() < end:
        shown.append(meter.read())
        sum(range(20_000))
    meter.close()
    assert shown == sorted(shown)
    assert len(set(shown)) <= 12


def test_cards_are_asked_no_more_often_than_they_bear_and_say_what_is_sampled(
    settings: Set, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = meters()
    # Faster polling has been seen to return errors.
    assert all(meter.info.read_s >= 0.05 for meter in opened)
    close(opened)
    library = importlib.import_module("pynvml")
    monkeypatch.setattr(library, "nvmlDeviceGetName", lambda handle: "NVIDIA A100-SXM4-40GB")
    settings(energy=NOT_SUPPORTED, instant=NOT_SUPPORTED)
    meter = first()
    assert any("about 25 % of the time" in note for note in meter.info.notes)
    meter.close()

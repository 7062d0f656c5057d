"""Windows of load whose true energy is known: in real time through a file system, in virtual time.

Both run the meters and the window code of the agent as they are. The truth is the integral of the
simulated board's own power over the window, less what the board does at that moment without the
load: idling, and the agent reading its meter, which the idle times before and after hold as well.
"""

from __future__ import annotations

import importlib
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from joulemap.device_agents.meters.battery import BatteryMeter
from joulemap.device_agents.meters.battery_sign import Calibration
from joulemap.device_agents.onboard.energy.mean_power import t_quantile
from joulemap.device_agents.onboard.energy.meter import SAMPLER
from joulemap.device_agents.onboard.energy.meter_choice import choose, enrol
from joulemap.device_agents.onboard.energy.power_log import PowerLog, Recorder
from joulemap.device_agents.onboard.energy.visit import ChosenMeter, EnergyVisit, RecorderLike
from joulemap.device_agents.onboard.files import Files
from joulemap.device_agents.onboard.machine.clock import MachineClock
from joulemap.device_agents.onboard.model.materialise import Materialiser
from joulemap.device_agents.runtimes.onnx_runtime import Runtime
from joulemap.device_agents.simulated.agent import VirtualRecorder
from joulemap.device_agents.simulated.board_options import BoardOptions
from joulemap.device_agents.simulated.board_server import BoardServer
from joulemap.device_agents.simulated.virtual_board import VirtualBoard
from joulemap.device_agents.simulated.virtual_machine import VirtualMachine
from joulemap.profiler import Protocol, networks
from joulemap.profiler.templates.export import cached_template

FloatArray = npt.NDArray[np.float64]
# (start, end) in seconds -> (all joules, joules of idle power).
Truth = Callable[[float, float], tuple[float, float]]
# A call of the virtual load.
CALL_S = 0.01
CALLS_PER_LOOK = 5
# On a busy machine the load fluctuates: windows would grow towards the protocol's two minutes.
MAX_WINDOW_S = 15.0
# ... of a slow meter so many updates.
MAX_WINDOW_UPDATES = 75


@dataclass(frozen=True)
class Window:
    """What one window says, against the truth; joules of the whole window.

    Args:
        true_j: Net of idle.
        net_j: As the agent says.
        half_j: Half the stated 95 % interval.
        standard_error_j: As stated.
        gross_naive_j: Mean power of the readings times time.
        net_naive_j: Likewise, minus one idle reading times time.
        idle_share: Of the true energy.
        window_s: Duration.
    """

    true_j: float
    net_j: float
    half_j: float
    standard_error_j: float
    gross_naive_j: float
    net_naive_j: float
    idle_share: float
    window_s: float

    @property
    def is_covered(self) -> bool:
        """Whether the truth lies in the stated interval."""
        return abs(self.net_j - self.true_j) <= self.half_j


@dataclass(frozen=True)
class Windows:
    """Several windows, and why others were refused."""

    accepted: list[Window]
    refused: list[str]

    def errors(self, attribute: str = "net_j") -> FloatArray:
        """Return relative errors of one of the ways against the truth."""
        said = np.array([getattr(window, attribute) for window in self.accepted])
        errors: FloatArray = np.abs(said / [window.true_j for window in self.accepted] - 1)
        return errors

    def up_to(self, most: float, least: float = 0.0) -> Windows:
        """Return the windows whose idle energy is such a share of all, and those refused."""
        kept = [window for window in self.accepted if least <= window.idle_share <= most]
        return Windows(kept, self.refused)

    @property
    def num_covered(self) -> int:
        """How often the truth lies in the stated interval."""
        return sum(window.is_covered for window in self.accepted)

    @property
    def stated_over_true(self) -> float:
        """The stated standard error over the error, root mean squares of shares of the energy."""
        true = np.array([window.true_j for window in self.accepted])
        stated = np.array([window.standard_error_j for window in self.accepted]) / true
        return float(np.sqrt(np.mean(stated**2) / np.mean(self.errors() ** 2)))

    def __add__(self, other: Windows) -> Windows:
        return Windows(self.accepted + other.accepted, self.refused + other.refused)


class Metering:
    """Measures windows with one meter.

    Args:
        files: Where the meter's files are.
        module: The meter's module.
        clock: The visit's clock.
        make_recorder: Makes what reads in the background.
        truth: Knows the energy of any past interval.
        options: What the board has.
    """

    def __init__(
        self,
        files: Files,
        module: str,
        clock: MachineClock,
        make_recorder: Callable[[Sequence[PowerLog]], RecorderLike],
        truth: Truth,
        options: BoardOptions,
    ) -> None:
        found = importlib.import_module(f"joulemap.device_agents.meters.{module}").find(files)
        meter = choose(module, found)[0][0]
        if isinstance(meter, BatteryMeter):
            # What a step of the load would teach.
            idle_a = options.idle_w / 3.85
            meter.calibration = Calibration(-1, 1.0, idle_a, idle_a + options.active_w, True)
        self.chosen: ChosenMeter = enrol(meter, clock)
        self.clock = clock
        self.make_recorder = make_recorder
        self.truth = truth
        most_s = max(MAX_WINDOW_S, MAX_WINDOW_UPDATES * self.chosen.period_s)
        self.settings = Protocol(max_energy_window_s=most_s).visit_settings

    def windows(
        self, run: Callable[[], None], number: int, seed: int, most_s: float = float("inf")
    ) -> Windows:
        """Return so many windows of a load, or as many as begin within a time."""
        made: list[Window | str] = []
        end_s = self.clock.monotonic_s() + most_s
        while len(made) < number and self.clock.monotonic_s() < end_s:
            made.append(self._window(run, f"{seed}/{len(made)}"))
        return Windows(
            [item for item in made if isinstance(item, Window)],
            [item for item in made if isinstance(item, str)],
        )

    def _window(self, run: Callable[[], None], seed: str) -> Window | str:
        visit = EnergyVisit([self.chosen], self.clock, self.make_recorder, self.settings, seed)
        calls = 0
        try:
            visit.before(run)
            while not visit.is_over():
                for _ in range(CALLS_PER_LOOK):
                    run()
                calls += CALLS_PER_LOOK
            visit.ended()
            visit.after()
        finally:
            visit.stop()
        answer = visit.answer(calls)
        energy = answer["energy"]
        if energy is None:
            return str(answer["refused"])
        log = visit.logs[0]
        origin = log.before_s[0]
        spans = {
            name: (origin + span[0], origin + span[1])
            for name, span in answer["trace"]["spans_s"].items()
        }
        return self._judged(energy, calls, log, spans)

    def _judged(
        self, energy: dict[str, Any], calls: int, log: PowerLog, spans: dict[str, Any]
    ) -> Window:
        busy = spans["busy"]
        busy_s = busy[1] - busy[0]
        whole_j, idle_j = self.truth(*busy)
        # What the board does besides idling while nothing runs: the agent's own readings.
        own_w = [
            (total - idle) / (span[1] - span[0])
            for span in (spans["idle_before"], spans["idle_after"])
            for total, idle in [self.truth(*span)]
        ]
        true_j = whole_j - idle_j - sum(own_w) / 2 * busy_s
        freedom = float("inf") if energy["freedom"] is None else energy["freedom"]
        half_j = t_quantile(freedom) * energy["net_standard_error_j"] * calls
        power_w, idle_w = naive_powers(log, spans)
        return Window(
            true_j=true_j,
            net_j=energy["net_j"] * calls,
            half_j=half_j,
            standard_error_j=energy["net_standard_error_j"] * calls,
            gross_naive_j=power_w * busy_s,
            net_naive_j=(power_w - idle_w) * busy_s,
            idle_share=idle_j / whole_j,
            window_s=busy_s,
        )


def naive_powers(log: PowerLog, spans: dict[str, Any]) -> tuple[float, float]:
    """Return the mean of the readings in the window, and one reading while idle, in W.

    A counter's power is the difference of two readings that follow each other; where it wrapped,
    there is none.
    """
    times = np.array(log.after_s)
    values = np.array(log.values)
    if log.meter.info.kind != SAMPLER:
        # The regular readings: those in quick succession await an update.
        regular = np.flatnonzero(np.diff(times, prepend=-np.inf) > 0.02)
        times, values = times[regular], values[regular]
        values = np.diff(values) / np.diff(times)
        times = times[1:]
        times, values = times[values >= 0], values[values >= 0]
    inside = (times >= spans["busy"][0]) & (times <= spans["busy"][1])
    idle = (times >= spans["idle_before"][0]) & (times <= spans["idle_before"][1])
    return float(values[inside].mean()), float(values[idle][-1])


@contextmanager
def real_metering(options: BoardOptions, module: str) -> Iterator[Metering]:
    """Give metering of this process through a board's file system, in real time."""
    with BoardServer(options) as server, tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "sys").symlink_to(server.folder)
        server.watch_self()

        def truth(start_s: float, end_s: float) -> tuple[float, float]:
            found = server.truth(start_s, end_s)
            return found.energy_j, found.idle_j

        yield Metering(Files(folder), module, MachineClock(), Recorder, truth, options)


def virtual_windows(
    options: BoardOptions, module: str, number: int, seed: int, load_w: float
) -> Windows:
    """Return windows in virtual time, of a load with this power."""
    machine = VirtualMachine(lambda widths: CALL_S, seed=seed)
    board = VirtualBoard(machine, lambda widths: load_w * CALL_S, options)

    def truth(start_s: float, end_s: float) -> tuple[float, float]:
        # Moments of a trace are rounded, also upwards.
        end_s = min(end_s, board.board.advance())
        total_j = board.board.true_energy_j(start_s, end_s)
        return total_j, board.board.true_idle_j(start_s, end_s)

    def make_recorder(logs: Sequence[PowerLog]) -> RecorderLike:
        return VirtualRecorder(machine, logs)

    assert machine.files is not None
    metering = Metering(machine.files, module, machine, make_recorder, truth, options)
    # Windows begin anywhere in the board's life.
    machine.idle(random.Random(seed).random())  # noqa: S311 - reproducible, not secret
    return metering.windows(machine.load((1,)), number, seed)


def network_call(name: str = "mobilenet_v1", size: int = 64) -> Callable[[], None]:
    """Return a function that runs a network once, as the agent does."""
    spec = networks.get(name, size)
    materialiser = Materialiser(cached_template(spec).to_json())
    model = materialiser.materialise([max(1, width.max // 4) for width in spec.widths])
    call: Callable[[], None] = Runtime(threads=1).load(model, materialiser.make_inputs())
    return call


def cpu_s_per_call(run: Callable[[], None], duration_s: float) -> float:
    """Return the CPU time of a call in a stretch of calls, other threads' included."""
    end = time.perf_counter() + duration_s
    calls, began = 0, time.process_time()
    while time.perf_counter() < end:
        run()
        calls += 1
    return (time.process_time() - began) / calls


def cpu_share(run: Callable[[], None]) -> float:
    """Return the share of a CPU that calls get on this machine now, at least a tenth."""
    began, cpu_s = time.perf_counter(), time.process_time()
    cpu_s_per_call(run, 2.0)
    return max(0.1, (time.process_time() - cpu_s) / (time.perf_counter() - began))

"""The real agent on a virtual machine: its own requests, visits and statistics, simulated calls."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ..onboard.agent import Agent, RequestError
from ..onboard.energy import meter_choice
from ..onboard.energy.power_log import PowerLog
from ..onboard.energy.visit import RecorderLike
from ..onboard.machine import cooling
from ..onboard.preparation_answer import MetersInUse, PreparationAnswer
from ..onboard.ready_answer import ReadyAnswer
from ..onboard.visit_answer import VisitAnswer
from ..onboard.visit_settings import VisitSettings
from .virtual_machine import Timer, VirtualMachine

VERSION = "simulated"
# Seconds of undisturbed work.
START_S = 0.3
MATERIALISE_S = 0.005
LOAD_S = 0.02
# Process ids of the machine's agents: the first, and one more for each.
FIRST_PID = 1000


class WidthsAsModel:
    """Stands in for the materialiser: a variant's widths are its model."""

    def __init__(self, machine: VirtualMachine) -> None:
        self._machine = machine

    def materialise(self, widths: Sequence[int]) -> bytes:
        """Return the widths as JSON."""
        self._machine.run(MATERIALISE_S)
        return json.dumps(list(widths)).encode()

    def make_inputs(self) -> dict[str, Any]:
        """Return no inputs: simulated calls read none."""
        return {}


class SimulatedRuntime:
    """Stands in for a runtime and for its module.

    Args:
        machine: Where variants run.
    """

    def __init__(self, machine: VirtualMachine) -> None:
        self._machine = machine

    def version(self) -> str:
        """Return that it is none."""
        return VERSION

    def Runtime(self, threads: int) -> SimulatedRuntime:
        """Return the runtime; the cost does not depend on the threads."""
        return self

    def load(self, model: bytes, inputs: dict[str, Any]) -> Callable[[], None]:
        """Return a function that advances the machine's clocks by one call."""
        self._machine.run(LOAD_S)
        return self._machine.load(json.loads(model))


class VirtualRecorder:
    """Reads meters in virtual time, while the machine works and idles.

    Args:
        machine: Whose time passes.
        logs: Where the readings go.
    """

    def __init__(self, machine: VirtualMachine, logs: Sequence[PowerLog]) -> None:
        self._machine = machine
        self._logs = logs
        self._timers: list[Timer] = []

    def start(self) -> None:
        """Begin to read."""
        self._timers = [self._begin(log) for log in self._logs]

    def _begin(self, log: PowerLog) -> Timer:
        timers: list[Timer] = []

        def read() -> None:
            log.read()
            # The first reading is made at once, before there is a timer.
            for timer in timers:
                timer.interval_s = log.next_interval_s()

        timers.append(self._machine.every(log.next_interval_s(), read))
        return timers[0]

    def stop(self) -> None:
        """Read no more."""
        for timer in self._timers:
            self._machine.cancel(timer)
        self._timers = []


class SimulatedAgent(Agent):
    """The agent with what it touches of its machine replaced.

    Args:
        machine: What it measures.
        number: 0, 1, ... for the agents of one machine.
    """

    def __init__(self, machine: VirtualMachine, number: int = 0) -> None:
        super().__init__(
            {}, lambda: False, clock=machine, meters=machine.meter_modules, files=machine.files
        )
        self.machine = machine
        self.cpus = [0]
        self.pid = FIRST_PID + number
        self.is_metered = True
        machine.run(START_S)

    def probe(self, request: dict[str, Any], payload: bytes) -> dict[str, Any]:
        """Return the fingerprint of the simulated device."""
        machine = self.machine
        parts = (machine.name, machine.details, machine.seed, machine.disturbances)
        identity = repr(parts).encode()
        return machine.details | {
            "device_id": "sim-" + hashlib.sha256(identity).hexdigest()[:12],
            "cpu_model": f"simulated {machine.name}".strip(),
            "num_cpus": 1,
            "available_cpus": self.cpus,
            "system": "simulated",
            "runtimes": {},
            "is_virtual": True,
        }

    def take_preparation(self, request: dict[str, Any], payload: bytes) -> PreparationAnswer:
        """Load the reference variant, any runtime will do; nobody else is in virtual time."""
        self.machine.reference_widths = tuple(request["reference_widths"])
        self.runtimes = {request["runtime"]: VERSION}
        return super().take_preparation(request, payload).alone()

    def make_visit(self, request: dict[str, Any]) -> VisitAnswer:
        """Return the visit's times, with the simulated meter's reading where there is one."""
        answer = super().make_visit(request)
        if self.chosen or not self.is_metered:
            return answer
        return replace(answer, simulated_energy_j=self.machine.read_energy_j(request["widths"]))

    def choose_meters(
        self, request: dict[str, Any], settings: VisitSettings, run_reference: Callable[[], None]
    ) -> MetersInUse:
        """Choose as ever; the simulator's own energies count where it has no simulated meter."""
        self.is_metered = request.get("meter") != meter_choice.NONE
        answer = super().choose_meters(request, settings, run_reference)
        has_own = self.is_metered and not self.chosen and self.machine.has_energy
        return replace(answer, is_simulated=has_own)

    def find_meters(self) -> list[meter_choice.Found]:
        """Return the machine's own meters, and those that its files show."""
        return [*self.machine.meters, *super().find_meters()]

    def make_recorder(self, logs: Sequence[PowerLog]) -> RecorderLike:
        """Return what reads meters as virtual time passes."""
        return VirtualRecorder(self.machine, logs)

    def runtime_module(self, name: str) -> SimulatedRuntime:
        """Return the stand-in for every runtime."""
        return SimulatedRuntime(self.machine)

    def bind_cpus(self, threads: int) -> tuple[list[int], str | None]:
        """Return simulated CPU numbers; this process stays where it is."""
        return list(range(threads)), None

    def await_ready(self, request: dict[str, Any]) -> ReadyAnswer:
        """Let the simulated machine cool down for as long as the gate allows."""
        machine, limit_c = self.machine, request["max_temperature_c"]
        waited_s = 0.0
        while (
            limit_c is not None
            and machine.temperature_c is not None
            and machine.temperature_c > limit_c
            and waited_s < request["timeout_s"]
        ):
            machine.idle(request["interval_s"])
            waited_s += request["interval_s"]
        return ReadyAnswer(
            is_ready=True,
            waited_s=waited_s,
            busy_share=0.0,
            temperature_c=machine.temperature_c,
        )

    def cool_down(self, settings: VisitSettings) -> dict[str, float | None]:
        """Let the simulated machine cool down before a visit."""
        machine = self.machine
        return cooling.cool_down(
            lambda: machine.temperature_c,
            settings.max_temperature_c,
            settings.start_timeout_s,
            sleep=machine.idle,
            now=machine.monotonic_s,
        )

    def choose_zone(self, settings: VisitSettings) -> str | None:
        """Return the machine's one zone, where its temperature is simulated."""
        zone = None if self.machine.temperature_c is None else "simulated"
        wanted = settings.temperature_zone
        if wanted not in (None, zone):
            raise RequestError(
                f"this device has no thermal zone {str(wanted)[:60]!r}; it has: {zone or 'none'}"
            )
        return zone

    def make_materialiser(self, template: str) -> WidthsAsModel:
        """Return the stand-in; the template is not needed."""
        return WidthsAsModel(self.machine)

    def machine_state(self) -> dict[str, Any]:
        """Return frequency and temperature where they are simulated."""
        return {
            "load_1min": None,
            "frequency_hz": self.machine.frequency_hz,
            "temperature_c": self.machine.temperature_c,
            "available_memory_bytes": None,
        }

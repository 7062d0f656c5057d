"""The agent's loop: read a request, answer it, until the host is gone.

Requests are frames on standard input, answers frames on standard output. Anything that libraries
print goes to standard error, so it can never be taken for a frame. On a remote device the keeper
writes the requests and reads the answers; it takes further requests of its own (see `keeper`).

=========  =======================================================  ==============================
operation  request                                                  answer
=========  =======================================================  ==============================
probe      -                                                        the device's fingerprint
clock      -                                                        its clocks, at this moment
meters     meter_options                                            meters: available, missing
prepare    template (payload), runtime, threads, reference widths,  versions, CPUs, affinity,
           lock_frequency, meter, meter_options, protocol,          frequency lock, meters, zone
           meters_before
free       timeout_s                                                nothing, once nobody measures
ready      max_busy_share, max_temperature_c, timeout_s, interval_s whether the machine is ready
visit      widths, protocol                                         raw times, conditions, energy
layers     widths, num_runs, max_warm_up_s                          raw times of each node
close      -                                                        an empty answer, then it ends
=========  =======================================================  ==============================
"""

from __future__ import annotations

import importlib
import os
import re
import select
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any, BinaryIO

from . import frames, layer_times, visit
from .energy import meter_choice, meter_options
from .energy.meter import Meter
from .energy.power_log import PowerLog, Recorder
from .energy.visit import ChosenMeter, EnergyVisit, RecorderLike
from .files import Files
from .keeper import device_lock
from .machine import cooling, fingerprint
from .machine.clock import MachineClock
from .machine.frequency import FrequencyLock
from .machine.host_state import HostState, over_visit
from .machine.readiness import wait_until_ready
from .machine.thermal_zones import UnknownZoneError
from .model.materialise import Materialiser
from .preparation_answer import Affinity, FrequencyHold, MetersInUse, PreparationAnswer
from .ready_answer import ReadyAnswer
from .visit_answer import VisitAnswer
from .visit_settings import VisitSettings

_MODULE_NAME = re.compile(r"[a-z][a-z0-9_]*\Z")
# The folder beside `onboard` that holds the runtimes, both here and in the archive.
_RUNTIMES = __name__.rsplit(".", 2)[0] + ".runtimes"


class RequestError(Exception):
    """The request cannot be answered; asking again will not help."""


class Agent:
    """Answers requests one at a time; holds the template and the reference between visits.

    Args:
        runtimes: Runtime name to the module (in the runtimes folder) that drives it.
        is_cancelled: Asked while measuring; when true the agent ends.
        clock: What visits are timed with; the machine's clocks when None.
        meters: Meter name to the module (in the meters folder) that finds such meters, in the order
            of preference.
        files: The machine's files, which meters read.
    """

    def __init__(
        self,
        runtimes: dict[str, str],
        is_cancelled: Callable[[], bool],
        clock: MachineClock | None = None,
        meters: dict[str, str] | None = None,
        files: Files | None = None,
    ) -> None:
        self.runtimes = runtimes
        self.meters = meters or {}
        self.files = files or Files()
        self.clock = clock or MachineClock()
        self.is_cancelled = is_cancelled
        self.materialiser: Any = None
        self.runtime: Any = None
        self.reference: Any = None
        self.cpus = fingerprint.available_cpus()
        self.pid = os.getpid()
        self.frequency = FrequencyLock()
        self.chosen: list[ChosenMeter] = []
        self.all_cpus = self.cpus
        self.num_visits = 0
        self.host = HostState(self.files.root)

    def answer(self, request: dict[str, Any], payload: bytes) -> dict[str, Any]:
        """Return the answer to a request, a result or an error, as a frame's header."""
        answer: dict[str, Any] = {"id": request.get("id")}
        operations = {
            "probe": self.probe,
            "clock": self.read_clocks,
            "meters": self.list_meters,
            "prepare": self.prepare,
            "free": self.free,
            "ready": self.ready,
            "visit": self.visit,
            "layers": self.layers,
        }
        operation = request.get("op")
        try:
            if operation == "close":
                # Before the answer: the host kills the agent once it has it.
                self.close()
                answer["result"] = {}
            elif operation in operations:
                answer["result"] = operations[operation](request, payload)
            else:
                raise RequestError(f"unknown operation {operation!r}")
        except RequestError as error:
            answer["error"] = {"message": str(error), "is_transient": False}
        except MemoryError:
            answer["error"] = {"message": "the device is out of memory", "is_transient": True}
        except Exception as error:  # noqa: BLE001 - whatever a runtime raises is this visit's answer
            traceback.print_exc(file=sys.stderr)
            message = f"{type(error).__name__}: {error}"
            answer["error"] = {"message": message[:2000], "is_transient": False}
        return answer

    def probe(self, request: dict[str, Any], payload: bytes) -> dict[str, Any]:
        """Return the device's fingerprint with the version of each runtime."""
        versions: dict[str, str | None] = {}
        for name, module in self.runtimes.items():
            try:
                versions[name] = _load_runtime(module).version()
            except ImportError:
                versions[name] = None
        return fingerprint.fingerprint(versions)

    def read_clocks(self, request: dict[str, Any], payload: bytes) -> dict[str, Any]:
        """Return `monotonic_s`, `boot_s` and `wall_s`, read one right after the other."""
        return {
            "monotonic_s": self.clock.monotonic_s(),
            "boot_s": self.clock.boot_s(),
            "wall_s": self.clock.wall_s(),
        }

    def list_meters(self, request: dict[str, Any], payload: bytes) -> dict[str, Any]:
        """Return the meters that can be read, and those that cannot with what to do about it."""
        found = self.find_told(request.get("meter_options") or {})
        answer = meter_choice.describe_all(found)
        self.close_meters(found)
        return answer.to_dict()

    def prepare(self, request: dict[str, Any], payload: bytes) -> dict[str, Any]:
        """Make ready for visits (see `PreparationAnswer`)."""
        return self.take_preparation(request, payload).to_dict()

    def take_preparation(self, request: dict[str, Any], payload: bytes) -> PreparationAnswer:
        """Keep the template, bind the process to CPUs, load the reference; return what was possible."""
        name = request["runtime"]
        if name not in self.runtimes:
            raise RequestError(f"this agent knows no runtime '{name}'")
        try:
            module = self.runtime_module(name)
            version = module.version()
        except ImportError as error:
            raise RequestError(f"{name} cannot be imported on the device: {error}") from error
        told = request.get("protocol")
        settings = VisitSettings.from_dict(told) if told else VisitSettings()
        temperature_zone = self.choose_zone(settings)
        threads = int(request["threads"])
        self.cpus, unbound = self.bind_cpus(threads)
        frequency_lock = FrequencyHold(is_locked=False)
        if request.get("lock_frequency"):
            frequency_lock = self.frequency.lock(self.cpus)
        self.materialiser = self.make_materialiser(payload.decode())
        self.runtime = module.Runtime(threads=threads)
        self.reference = self.materialiser.materialise(request["reference_widths"])
        # Fails here, not at the first visit, if the runtime cannot run it.
        run_reference = self.runtime.load(self.reference, self.materialiser.make_inputs())
        run_reference()
        meters = self.choose_meters(request, settings, run_reference)
        return PreparationAnswer(
            runtime_version=version,
            cpus=self.cpus,
            affinity=Affinity(is_bound=unbound is None, reason=unbound),
            frequency_lock=frequency_lock,
            temperature_zone=temperature_zone,
            meters=meters,
            pid=self.pid,
        )

    def choose_zone(self, settings: VisitSettings) -> str | None:
        """Take the thermal zone that the settings name, or those of the processor; return which."""
        self.host = HostState(self.files.root, settings.temperature_zone)
        try:
            self.host.zones.check()
        except UnknownZoneError as error:
            raise RequestError(str(error)) from error
        return self.host.zones.in_words()

    def choose_meters(
        self, request: dict[str, Any], settings: VisitSettings, run_reference: Callable[[], None]
    ) -> MetersInUse:
        """Find, choose, calibrate and watch the meters that visits read; return which.

        Where `auto` chose one that proves unusable, the next one is tried; in the end none.
        """
        self.close_meters([item.meter for item in self.chosen])
        self.chosen = []
        before = request.get("meters_before")
        wanted = meter_choice.wanted_again(str(request.get("meter") or meter_choice.NONE), before)
        if wanted == meter_choice.NONE:
            return MetersInUse(why="no meter was asked for")
        try:
            wanted, told = meter_options.split_wanted(wanted)
        except meter_options.MeterOptionError as error:
            raise RequestError(str(error)) from error
        for name, options in (request.get("meter_options") or {}).items():
            told[name] = {**options, **told.get(name, {})}
        found = self.find_told(told)

        def use(meter: Meter) -> ChosenMeter:
            meter_choice.calibrate(meter, run_reference, self.clock, self.is_cancelled)
            return meter_choice.enrol(meter, self.clock, self.is_cancelled)

        try:
            chosen, why = meter_choice.choose_usable(wanted, found, use, settings)
        except meter_choice.MeterChoiceError as error:
            self.close_meters(found)
            raise RequestError(str(error)) from error
        # What held when the campaign began, not when this agent did.
        states = [dict(item.get("state") or {}) for item in before or ()]
        self.chosen = [
            replace(item, state=states[index]) if index < len(states) else item
            for index, item in enumerate(chosen)
        ]
        in_use = [item.meter for item in chosen]
        self.close_meters([item for item in found if item not in in_use])
        names = {item.meter.info.name for item in self.chosen}
        unused = [
            f"{meter_options.in_words(options)} is told of a {name}, and none is read"
            for name, options in told.items()
            if options and name not in names
        ]
        warning = meter_choice.same_rail(self.chosen)
        return MetersInUse(
            chosen=[meter_choice.describe_chosen(item, why) for item in self.chosen],
            why=why,
            warnings=[*([warning] if warning else []), *unused],
        )

    def find_told(self, told: dict[str, dict[str, str]]) -> list[meter_choice.Found]:
        """Return the meters, with what the user tells of them."""
        return meter_choice.find_told(self.find_meters(), self.meters, self.files, told)

    def close_meters(self, found: Sequence[Any]) -> None:
        """Let go of meters."""
        for item in found:
            if hasattr(item, "close"):
                item.close()

    def free(self, request: dict[str, Any], payload: bytes) -> dict[str, Any]:
        """Wait until the campaign that measures here ends, or the time limit passes."""
        device_lock.wait(float(request["timeout_s"]), self.is_cancelled)
        if self.is_cancelled():
            raise SystemExit(0)
        return {}

    def ready(self, request: dict[str, Any], payload: bytes) -> dict[str, Any]:
        """Wait until the machine is ready (see `ReadyAnswer`)."""
        return self.await_ready(request).to_dict()

    def await_ready(self, request: dict[str, Any]) -> ReadyAnswer:
        """Wait until the machine is idle and cool enough, or the time limit passes; return which."""
        limit_c = request["max_temperature_c"]
        return wait_until_ready(
            self.host,
            max_busy_share=float(request["max_busy_share"]),
            max_temperature_c=None if limit_c is None else float(limit_c),
            timeout_s=float(request["timeout_s"]),
            interval_s=float(request["interval_s"]),
            cpus=self.cpus,
            is_cancelled=self.is_cancelled,
        )

    def visit(self, request: dict[str, Any], payload: bytes) -> dict[str, Any]:
        """Materialise the variant, load it, measure it, forget it (see `VisitAnswer`)."""
        return self.make_visit(request).to_dict()

    def make_visit(self, request: dict[str, Any]) -> VisitAnswer:
        """Return what a visit measured."""
        if self.materialiser is None or self.runtime is None:
            raise RequestError("visit came before prepare")
        settings = VisitSettings.from_dict(request["protocol"])
        cooled = self.cool_down(settings)
        before = self.machine_state()
        began = self.clock.monotonic_s()
        model = self.materialiser.materialise(request["widths"])
        materialised = self.clock.monotonic_s()
        run = self.runtime.load(model, self.materialiser.make_inputs())
        loaded = self.clock.monotonic_s()
        # A session's place in memory makes it a few percent faster or slower: the reference gets a
        # new one for each visit, so that this averages out as it does for variants.
        run_reference = self.runtime.load(self.reference, self.materialiser.make_inputs())
        self.num_visits += 1
        energy = None
        if self.chosen:
            seed = f"{self.pid}/{self.num_visits}"
            energy = EnergyVisit(self.chosen, self.clock, self.make_recorder, settings, seed)
        try:
            measured = visit.measure(
                run,
                run_reference,
                settings,
                visit.Stopwatch(self.clock, self.cpus),
                self.is_cancelled,
                energy,
            )
        finally:
            if energy is not None:
                energy.stop()
        return VisitAnswer(
            warm_up_s=measured.warm_up_s,
            is_settled=measured.is_settled,
            blocks=measured.blocks,
            reference_before=measured.reference_before,
            reference_after=measured.reference_after,
            measuring_s=measured.measuring_s,
            materialise_s=materialised - began,
            load_s=loaded - materialised,
            model_bytes=len(model),
            machine={
                **over_visit(before, self.machine_state()),
                **cooled,
                "suspended_s": measured.suspended_s,
                "clock_jump_s": measured.clock_jump_s,
            },
            pid=self.pid,
            energy=measured.energy,
        )

    def layers(self, request: dict[str, Any], payload: bytes) -> dict[str, Any]:
        """Time each node by the runtime's profiler, and whole runs without (see `LayersAnswer`)."""
        if self.materialiser is None or self.runtime is None:
            raise RequestError("layers came before prepare")
        if not hasattr(self.runtime, "profiler"):
            raise RequestError("this device's runtime has no profiler of single layers")
        model = self.materialiser.materialise(request["widths"])
        run = self.runtime.load(model, self.materialiser.make_inputs())
        profiler = self.runtime.profiler(model, self.materialiser.make_inputs())
        try:
            measured = layer_times.measure(
                run,
                profiler,
                int(request["num_runs"]),
                float(request["max_warm_up_s"]),
                visit.Stopwatch(self.clock, self.cpus),
            )
            return measured.to_dict()
        except layer_times.TraceError as error:
            raise RequestError(str(error)) from error
        finally:
            profiler.close()

    # -- what a simulated device replaces ----------------------------------------------------------

    def find_meters(self) -> list[meter_choice.Found]:
        """Return the meters of this machine, and those that cannot be read."""
        return meter_choice.find_meters(self.meters, self.files)

    def make_recorder(self, logs: Sequence[PowerLog]) -> RecorderLike:
        """Return what reads meters in the background, on other CPUs than the visit's if possible."""
        return Recorder(logs, [cpu for cpu in self.all_cpus if cpu not in self.cpus])

    def runtime_module(self, name: str) -> Any:
        """Return what drives a runtime: it has `version` and `Runtime`."""
        return _load_runtime(self.runtimes[name])

    def bind_cpus(self, threads: int) -> tuple[list[int], str | None]:
        """Bind the process to as many CPUs as threads: their numbers, and why it was not done."""
        return bind_cpus(threads)

    def make_materialiser(self, template: str) -> Any:
        """Return what turns widths into a model's bytes and makes its inputs."""
        return Materialiser(template)

    def machine_state(self) -> dict[str, Any]:
        """Return the readable conditions of the machine (see `host_state.HostState`)."""
        return self.host.snapshot(self.cpus)

    def cool_down(self, settings: VisitSettings) -> dict[str, float | None]:
        """Wait until the machine is cool enough for a visit; return what to record of it."""
        return cooling.cool_down(
            self.host.hottest_c,
            settings.max_temperature_c,
            settings.start_timeout_s,
            is_cancelled=self.is_cancelled,
        )

    def close(self) -> None:
        """Put back what `prepare` changed on the machine."""
        self.close_meters([item.meter for item in self.chosen])
        self.chosen = []
        for failure in self.frequency.restore():
            print(failure, file=sys.stderr)


def bind_cpus(threads: int) -> tuple[list[int], str | None]:
    """Bind the process to as many CPUs as threads, the last ones: the first serve interrupts.

    Returns:
        The CPU numbers, and why they are all the available ones where binding was not possible.
    """
    cpus = fingerprint.available_cpus()
    chosen = cpus[-threads:]
    if len(chosen) < threads:
        return cpus, f"{threads} threads share the {len(cpus)} CPUs that are available"
    if not hasattr(os, "sched_setaffinity"):
        return cpus, "this system cannot bind a process to CPUs"
    try:
        os.sched_setaffinity(0, chosen)
    except OSError as error:
        return cpus, f"binding to CPUs {chosen} is not permitted: {error.strerror}"
    return chosen, None


def _load_runtime(module: str) -> ModuleType:
    if not _MODULE_NAME.match(module):
        raise RequestError(f"'{module}' names no runtime module")
    return importlib.import_module(_RUNTIMES + "." + module)


def _host_is_gone(stdin_fd: int) -> bool:
    if not hasattr(select, "poll"):
        return False
    poll = select.poll()
    poll.register(stdin_fd, select.POLLHUP)
    return any(event & select.POLLHUP for _, event in poll.poll(0))


def serve(
    stdin: BinaryIO, stdout: BinaryIO, runtimes: dict[str, str], meters: dict[str, str]
) -> None:
    """Answer requests until `close` or the end of the input.

    Args:
        stdin: Binary stream of requests.
        stdout: Binary stream of answers.
        runtimes: Runtime name to the module (in the runtimes folder) that drives it.
        meters: Meter name to the module (in the meters folder) that finds such meters.
    """
    agent = Agent(runtimes, lambda: _host_is_gone(stdin.fileno()), meters=meters)
    try:
        while True:
            try:
                request, payload = frames.read_frame(stdin)
            except frames.StreamClosed:
                return
            stdout.write(frames.encode(agent.answer(request, payload)))
            stdout.flush()
            if request.get("op") == "close":
                return
    finally:
        agent.close()


def main(runtimes: dict[str, str], meters: dict[str, str]) -> None:
    """Serve standard input and output; what libraries print goes to standard error."""
    device_lock.keep_from_children()
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        serve(sys.stdin.buffer, answers, runtimes, meters)
    except (frames.FrameError, BrokenPipeError) as error:
        print(f"agent ends: {error}", file=sys.stderr)
        sys.exit(3)

"""The agent's loop: read a request, answer it, until the host is gone.

Requests are frames on standard input, answers frames on standard output. Anything that libraries
print goes to standard error, so it can never be taken for a frame.

=========  =======================================================  ==============================
operation  request                                                  answer
=========  =======================================================  ==============================
probe      -                                                        the device's fingerprint
prepare    template (payload), runtime, threads, reference widths   versions, CPUs, input shapes
visit      widths, protocol                                         raw times, conditions
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
from collections.abc import Callable
from types import ModuleType
from typing import Any, BinaryIO

from . import fingerprint, frames, host_state, visit
from .clock import MachineClock
from .materialise import Materialiser

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
    """

    def __init__(
        self,
        runtimes: dict[str, str],
        is_cancelled: Callable[[], bool],
        clock: MachineClock | None = None,
    ) -> None:
        self.runtimes = runtimes
        self.clock = clock or MachineClock()
        self.is_cancelled = is_cancelled
        self.materialiser: Any = None
        self.runtime: Any = None
        self.reference: Any = None
        self.cpus = fingerprint.available_cpus()
        self.pid = os.getpid()

    def answer(self, request: dict[str, Any], payload: bytes) -> dict[str, Any]:
        """Return the answer to a request, a result or an error, as a frame's header."""
        answer: dict[str, Any] = {"id": request.get("id")}
        operations = {"probe": self.probe, "prepare": self.prepare, "visit": self.visit}
        operation = request.get("op")
        try:
            if operation == "close":
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

    def prepare(self, request: dict[str, Any], payload: bytes) -> dict[str, Any]:
        """Keep the template, bind the process to CPUs, load the reference variant."""
        name = request["runtime"]
        if name not in self.runtimes:
            raise RequestError(f"this agent knows no runtime '{name}'")
        try:
            module = self.runtime_module(name)
            version = module.version()
        except ImportError as error:
            raise RequestError(f"{name} cannot be imported on the device: {error}") from error
        threads = int(request["threads"])
        self.cpus = self.bind_cpus(threads)
        self.materialiser = self.make_materialiser(payload.decode())
        self.runtime = module.Runtime(threads=threads)
        self.reference = self.runtime.load(
            self.materialiser.materialise(request["reference_widths"]),
            self.materialiser.make_inputs(),
        )
        for _ in range(5):
            self.reference()
        return {"runtime_version": version, "cpus": self.cpus, "pid": self.pid}

    def visit(self, request: dict[str, Any], payload: bytes) -> dict[str, Any]:
        """Materialise the variant, load it, measure it, forget it."""
        if self.materialiser is None or self.runtime is None:
            raise RequestError("visit came before prepare")
        began = self.clock.monotonic_s()
        model = self.materialiser.materialise(request["widths"])
        materialised = self.clock.monotonic_s()
        run = self.runtime.load(model, self.materialiser.make_inputs())
        loaded = self.clock.monotonic_s()
        result = visit.measure(
            run,
            self.reference,
            request["protocol"],
            visit.Stopwatch(self.clock, self.cpus),
            self.is_cancelled,
        )
        result.update(
            materialise_s=materialised - began,
            load_s=loaded - materialised,
            model_bytes=len(model),
            machine={
                **self.machine_state(),
                "suspended_s": result.pop("suspended_s"),
                "clock_jump_s": result.pop("clock_jump_s"),
            },
            pid=self.pid,
        )
        return result

    # -- what a simulated device replaces ----------------------------------------------------------

    def runtime_module(self, name: str) -> Any:
        """Return what drives a runtime: it has `version` and `Runtime`."""
        return _load_runtime(self.runtimes[name])

    def bind_cpus(self, threads: int) -> list[int]:
        """Bind the process to as many CPUs as threads and return their numbers."""
        return bind_cpus(threads)

    def make_materialiser(self, template: str) -> Any:
        """Return what turns widths into a model's bytes and makes its inputs."""
        return Materialiser(template)

    def machine_state(self) -> dict[str, Any]:
        """Return the readable conditions of the machine (see `host_state.snapshot`)."""
        return host_state.snapshot(self.cpus)


def bind_cpus(threads: int) -> list[int]:
    """Bind the process to as many CPUs as threads, the last ones: the first serve interrupts.

    Returns:
        The CPU numbers; all available ones where the system does not allow binding.
    """
    cpus = fingerprint.available_cpus()
    chosen = cpus[-threads:]
    if len(chosen) == threads and hasattr(os, "sched_setaffinity"):
        try:
            os.sched_setaffinity(0, chosen)
        except OSError:
            return cpus
        return chosen
    return cpus


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


def serve(stdin: BinaryIO, stdout: BinaryIO, runtimes: dict[str, str]) -> None:
    """Answer requests until `close` or the end of the input.

    Args:
        stdin: Binary stream of requests.
        stdout: Binary stream of answers.
        runtimes: Runtime name to the module (in the runtimes folder) that drives it.
    """
    agent = Agent(runtimes, lambda: _host_is_gone(stdin.fileno()))
    while True:
        try:
            request, payload = frames.read_frame(stdin)
        except frames.StreamClosed:
            return
        answer = agent.answer(request, payload)
        stdout.write(frames.encode(answer))
        stdout.flush()
        if request.get("op") == "close":
            return


def main(runtimes: dict[str, str]) -> None:
    """Serve standard input and output; what libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        serve(sys.stdin.buffer, answers, runtimes)
    except (frames.FrameError, BrokenPipeError) as error:
        print(f"agent ends: {error}", file=sys.stderr)
        sys.exit(3)

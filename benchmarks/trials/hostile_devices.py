"""A device answers with honest answers that were changed at random, or with what is no answer."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import random
import struct
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from joulemap import JoulemapError
from joulemap.datasets import CostDataset
from joulemap.datasets.journal import FILE_NAME, read_journal
from joulemap.device_agents import Device
from joulemap.device_agents.errors import TransientDeviceError
from joulemap.device_agents.host.keeper_client import LinkLimits
from joulemap.device_agents.interfaces import Process
from joulemap.device_agents.onboard import frames
from joulemap.device_agents.onboard.keeper import device_lock
from joulemap.device_agents.simulated import VirtualMachine
from joulemap.device_agents.simulated.loopback import LoopbackTransport, write_fixed_time_runtime
from joulemap.device_agents.simulated.transport import SimulatedTransport
from joulemap.profiler import Protocol, networks, profile
from joulemap.profiler.command_line import console
from joulemap.profiler.command_line.console import CampaignProgress
from joulemap.profiler.report import write_report

from . import Outcome, Trial

NUM_TRIES = 20
FAST = Protocol(visits=2, has_revisits=False, max_further_visits=0, start_timeout_s=0.2)
REMOTE = replace(FAST, max_visit_s=0.05, max_warm_up_s=0.02, block_s=0.005, reference_s=0.005)
LIMITS = LinkLimits(
    first_wait_s=0.01,
    longest_wait_s=0.05,
    give_up_s=2.0,
    connect_s=10.0,
    beat_s=0.5,
    silence_s=3.0,
    deliver_s=0.2,
    idle_limit_s=5.0,
)
ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 1e308, -1e308, 5e-324, 1e-320, 1e200, 1e-200, -0.0, 2**31, 2**63, 2**64),
    *(10**30, 10**400, -(10**400), 10**5000, 3.7e15, 86_400.0, 1e6, float("nan"), float("inf")),
    *("", "x", "NaN", "\x1b]0;owned\x07", "\x1b[2J\x9b31m", "\u202egnp\u2066", "\u200b\ufeff"),
    *("<script>alert(1)</script>", "[here](http://evil)", "![](x)", "`a`|b|", "\ud800", "a\nb"),
    *("A" * 50_000, [], {}, [[]], [1] * 1000, {"a": {"b": {"c": [1]}}}, ["x"] * 20_000),
)
ENERGY: dict[str, Any] = {
    "trace": {
        "times_s": [0.0, 1.0, 2.0],
        "values": [1.0, 2.0, 3.0],
        "num_readings": 3,
        "num_failed": 0,
        "spans_s": {"idle_before": [0.0, 0.5], "window": [0.5, 1.5], "idle_after": [1.5, 2.0]},
    },
    "energy": {
        "net_j": 0.1,
        "net_standard_error_j": 0.01,
        "freedom": 10.0,
        "gross_j": 0.2,
        "gross_standard_error_j": 0.01,
        "idle_w": 1.0,
        "idle_standard_error_w": 0.01,
        "window_s": 1.0,
        "updates": 100,
        "missing_share": 0.0,
        "flags": [],
    },
    "kind": "counter",
    "meter": "rapl",
    "channel": "package",
    "calls": 100,
    "refused": None,
    "check": None,
}


def run(number: int) -> Outcome:
    """Run some campaigns against devices that answer with whatever comes to hand."""
    rng = random.Random(number)  # noqa: S311
    os.environ[device_lock.VARIABLE] = f"trust-{os.getpid()}"
    failures: list[str] = []
    ended = {"with a dataset": 0, "with an error": 0}
    for index in range(NUM_TRIES):
        with tempfile.TemporaryDirectory(prefix="joulemap-trust-") as folder:
            problem, way = _try(Path(folder), rng, is_remote=index == NUM_TRIES - 1)
            ended[way] += 1
            if problem:
                failures.append(f"seed {number}, try {index}: {problem[:300]}")
    shares = [(f"share that ended {way}", count / NUM_TRIES) for way, count in ended.items()]
    return Outcome(NUM_TRIES, tuple(failures), tuple(shares))


def _try(root: Path, rng: random.Random, *, is_remote: bool) -> tuple[str | None, str]:
    """Return what did not hold, and how the campaign ended."""
    said = io.StringIO()
    for name in ("ERRORS", "RESULTS"):
        setattr(console, name, Console(file=said, highlight=False, soft_wrap=True))
    out, way = root / "run", "with a dataset"
    share = rng.choice([0.02, 0.1, 0.5, 1.0])
    seen: list[str] = []
    with warnings.catch_warnings():
        warnings.showwarning = console.WarningPrinter()
        warnings.simplefilter("always")
        try:
            _campaign(root, out, Spoiler(rng, share), is_remote=is_remote)
        except JoulemapError as error:
            way = "with an error"
            seen.append(str(error))
            console.print_error(f"joulemap: {error}")
        except Exception as error:  # noqa: BLE001 - whatever else comes is a failure
            return _where(error), way
        try:
            problem = _left_behind(out)
        except Exception as error:  # noqa: BLE001
            return f"afterwards {_where(error)}", way
    texts = [("the terminal", said.getvalue()), *_texts_of(out)]
    for text in seen:
        if len(text) > 400:
            problem = f"an error of {len(text)} characters"
    for place, text in texts:
        # The report itself keeps a number and its unit on one line by the last of these.
        steering = [each for each in text if not (each.isprintable() or each in "\n\xa0")]
        if steering:
            problem = f"{place} holds {steering[0]!r}"
        if place != "the terminal" and any(bad in text for bad in ("<script", "[here](")):
            problem = f"{place} holds what a device wrote as more than text"
    return problem, way


def _campaign(root: Path, out: Path, spoiler: Spoiler, *, is_remote: bool) -> None:
    """Run one campaign against a device that spoils its answers."""
    spec = networks.get("lenet5")
    if is_remote:
        runtime = write_fixed_time_runtime(root / "runtime", 0.001)
        os.environ["XDG_CACHE_HOME"] = str(root / "cache")
        os.environ["PYTHONPATH"] = str(runtime)
        link: Any = HostileLink(spoiler)
        device = Device("loopback:", transport=link, limits=LIMITS)
    else:
        machine = VirtualMachine(
            lambda widths: 0.004 + 1e-5 * sum(widths),
            seed=spoiler.seed,
            energy=(lambda widths: 1e-3 * sum(widths)) if spoiler.is_metered else None,
        )
        link = HostileMachine(machine, spoiler)
        device = Device("sim:", transport=link, agent_visits=50)
    protocol = REMOTE if is_remote else FAST
    with CampaignProgress() as progress:
        profile(device, spec, samples=5, out=out, protocol=protocol, observer=progress)


def _left_behind(out: Path) -> str | None:
    """Return what of a campaign's folder cannot be used, None if all can."""
    if not (out / FILE_NAME).exists():
        return None
    content = read_journal(out / FILE_NAME)
    if not any(visit.timing for visit in content.visits):
        return None
    dataset = CostDataset.load(out)
    if not (out / "measurements.parquet").exists():
        return "visits were measured and nothing was exported"
    if len(CostDataset.load(out / "measurements.parquet")) != len(dataset):
        return "the file holds other rows than the journal"
    latency_s = dataset.latency_s
    if (latency_s > 0).sum() >= 4:
        from joulemap.models import ParametersPredictor

        with contextlib.suppress(JoulemapError):
            predictor = ParametersPredictor().fit_dataset(dataset, "latency_s")
            write_report(out, predictor, out.parent / "report.html")
    return None


def _texts_of(out: Path) -> Iterator[tuple[str, str]]:
    for path in (out / "README.md", out.parent / "report.html"):
        if path.exists():
            yield path.name, path.read_text(encoding="utf-8")


def _where(error: Exception) -> str:
    trace, place = error.__traceback__, ""
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if "joulemap" in name:
            place = f"{Path(name).name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return f"{type(error).__name__}: {str(error)[:150]} at {place}"


class Spoiler:
    """Changes a share of answers at random.

    Args:
        rng: What is drawn from.
        share: Of the answers.
    """

    def __init__(self, rng: random.Random, share: float) -> None:
        self.rng, self.share = rng, share
        self.seed = rng.randrange(1000)
        self.is_metered = rng.random() < 0.5
        # What is spoiled before the first visit seldom lets one be made.
        self.spares_start = rng.random() < 0.7

    def frame(self, header: dict[str, Any], payload: bytes) -> bytes:
        """Return a frame's bytes, perhaps spoiled, perhaps no frame at all."""
        result = header.get("result")
        is_visit = isinstance(result, dict) and "blocks" in result
        is_bare = is_visit and isinstance(result, dict) and "energy" not in result
        if is_bare and isinstance(result, dict) and self.is_metered and self.rng.random() < 0.5:
            result = {**result, "energy": copy.deepcopy(ENERGY)}
            result.pop("simulated_energy_j", None)
            header = {**header, "result": result}
        if self.rng.random() >= self.share or (self.spares_start and not is_visit):
            return _written(header, payload)
        if self.rng.random() < 0.7 and isinstance(result, dict):
            return _written({**header, "result": self.changed(result)}, payload)
        if self.rng.random() < 0.5:
            return _written(self.changed(header), payload)
        return self.garbled(_written(header, payload))

    def changed(self, value: dict[str, Any]) -> dict[str, Any]:
        """Return a copy of JSON with one to three places changed."""
        value = copy.deepcopy(value)
        for _ in range(self.rng.choice([1, 1, 2, 3])):
            places = [place for place in _places(value) if place]
            if places:
                self._change(value, self.rng.choice(places))
        return value

    def _change(self, value: Any, place: tuple[Any, ...]) -> None:
        rng, holder, key = self.rng, value, place[-1]
        for step in place[:-1]:
            holder = holder[step]
        old, way = holder[key], rng.randrange(9)
        is_number = isinstance(old, (int, float)) and not isinstance(old, bool)
        if way == 0 and isinstance(holder, dict):
            del holder[key]
        elif way == 1 and isinstance(holder, dict):
            holder[rng.choice(["zz", "\x1b[2J", "x" * 5000])] = rng.choice(ODD)
        elif way == 2 and isinstance(holder, list):
            holder[key:key] = [old] * rng.choice([1, 100, 5000])
        elif way in (3, 4) and is_number and abs(old) < 1e300:
            holder[key] = float(old) * rng.choice([-1, 10, 1e6, 1e300, 1e-300, 0, 1.001])
        elif way == 5 and isinstance(old, list) and old and isinstance(old[0], (int, float)):
            holder[key] = [rng.choice(ODD[:23])] * len(old)
        elif way == 6:
            deep: Any = old
            for _ in range(rng.choice([3, 35, 120])):
                deep = [deep]
            holder[key] = deep
        else:
            holder[key] = copy.deepcopy(rng.choice(ODD))

    def garbled(self, data: bytes) -> bytes:
        """Return bytes of a frame with some changed, lost, doubled or added."""
        rng, made = self.rng, bytearray(data)
        way, at = rng.randrange(7), rng.randrange(len(made))
        if way == 0:
            made[at] ^= 1 << rng.randrange(8)
        elif way == 1:
            del made[at:]
        elif way == 2:
            made[at:at] = rng.randbytes(rng.choice([1, 10, 100]))
        elif way == 3:
            made[4:8] = struct.pack(">I", rng.choice([0, 1, 2**31, 2**32 - 1, 8 << 20]))
        elif way == 4:
            made[8:12] = struct.pack(">I", rng.choice([1, 64 << 20, 2**32 - 1]))
        elif way == 5:
            made = made * 2
        else:
            text = rng.choice([b'{"id":1,"id":2}', b"[" * 90_000, b"[]", b'{"a":NaN}', b"\xff"])
            made = bytearray(frames.PREFIX.pack(frames.MAGIC, len(text), 0) + text)
        return bytes(made)


def _written(header: dict[str, Any], payload: bytes) -> bytes:
    """Return a frame whose header may hold what no honest side would write."""
    text = _json(header).encode("utf-8", "surrogatepass")
    return frames.PREFIX.pack(frames.MAGIC, len(text), len(payload)) + text + payload


def _json(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(k)}:{_json(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_json, value)) + "]"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 10**4000:
        return "-" * (value < 0) + "9" * 5000  # Python writes no longer ones.
    return json.dumps(value)


def _places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield place
    if len(place) > 8:
        return
    if isinstance(value, dict):
        for key in value:
            yield from _places(value[key], (*place, key))
    elif isinstance(value, list):
        for index in range(min(len(value), 5)):
            yield from _places(value[index], (*place, index))


class HostileProcess:
    """A program whose frames are spoiled on their way here.

    Args:
        process: The honest one.
        spoiler: Changes its answers.
    """

    def __init__(self, process: Process, spoiler: Spoiler) -> None:
        self._process, self._spoiler = process, spoiler
        self._ready = bytearray()

    def write(self, data: bytes, timeout_s: float) -> None:
        """Pass the request on."""
        self._process.write(data, timeout_s)

    def read(self, length: int, timeout_s: float) -> bytes:
        """Return bytes of spoiled frames."""
        while len(self._ready) < length:
            prefix = self._process.read(frames.PREFIX.size, timeout_s)
            sizes = frames.decode_prefix(prefix)
            header, payload = (self._process.read(size, timeout_s) for size in sizes)
            self._ready += self._spoiler.frame(json.loads(header), payload)
            if len(self._ready) < length and self._spoiler.rng.random() < 0.5:
                raise TransientDeviceError("the agent gave no answer in time")
        data = bytes(self._ready[:length])
        del self._ready[:length]
        return data

    def stderr_tail(self) -> str:
        """Return what such a device prints."""
        return "\x1b]0;owned\x07 \u202e"

    def is_alive(self) -> bool:
        """Return whether it runs."""
        return self._process.is_alive()

    def kill(self) -> None:
        """End it."""
        self._process.kill()


class HostileMachine(SimulatedTransport):
    """A virtual machine whose agents are hostile."""

    def __init__(self, machine: VirtualMachine, spoiler: Spoiler) -> None:
        super().__init__(machine)
        self._spoiler = spoiler

    def start(self, command: Sequence[str]) -> Any:
        """Start an agent, whose answers are spoiled."""
        return HostileProcess(super().start(command), self._spoiler)


class HostileLink(LoopbackTransport):
    """This machine as a remote one, whose keeper is hostile."""

    def __init__(self, spoiler: Spoiler) -> None:
        super().__init__()
        self._spoiler = spoiler

    def start(self, command: Sequence[str]) -> Any:
        """Start a program, whose answers are spoiled."""
        return HostileProcess(super().start(command), self._spoiler)


TRIALS = (
    Trial(
        name="hostile-devices",
        promise="whatever a device answers, a campaign ends in words and what it measured loads",
        rounds=40,
        run=run,
    ),
)

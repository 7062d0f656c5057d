"""A place that can run variants: a transport and the agent that it reaches."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from joulemap import InputError, interruption
from joulemap.showable_text import showable

from .errors import DeviceError, StableDeviceError, TransientDeviceError
from .host.agent_archive import agent_archive
from .host.agent_client import AgentClient
from .host.clock_offset import compare_clocks
from .host.keeper_client import KeeperClient, LinkLimits
from .host.turn import acquire, unkept, wait_here, when_free
from .interfaces import Session, Transport, VisitRequest
from .onboard.answer_error import AnswerError
from .onboard.energy.meter import remembered
from .onboard.layers_answer import LayersAnswer
from .onboard.meters_answer import MetersAnswer
from .onboard.preparation_answer import (
    Affinity,
    Exclusivity,
    FrequencyHold,
    MetersInUse,
    PreparationAnswer,
)
from .onboard.probe_answer import ProbeAnswer
from .onboard.ready_answer import ReadyAnswer
from .onboard.visit_answer import VisitAnswer
from .onboard.visit_settings import VisitSettings
from .registry import open_transport, plain_url, runtime_entry

T = TypeVar("T")
PROBE_TIMEOUT_S = 60.0
PREPARE_TIMEOUT_S = 120.0
# Beyond the time that a visit means to take: load, three slow blocks, two references.
VISIT_GRACE_S = 60.0
LAYERS_TIMEOUT_S = 120.0
LAYERS_WARM_UP_S = 0.3
# How much work a remote device is given at a time: it hands answers over when it has done it.
SENT_AHEAD_S = 10.0
MAX_SENT_AHEAD = 16
CLEAN_TIMEOUT_S = 60.0
# Beyond the time that the start gate means to take.
READY_GRACE_S = 30.0
# Of a text that an agent tells.
MAX_WORDS = 500
_CLEANED = ("removed", "kept")


@dataclass(frozen=True)
class Preparation:
    """What an agent needs before its first visit.

    Args:
        template: The network's template, JSON.
        reference_widths: The reference variant's widths in channels.
        runtime: What executes variants.
        threads: Threads inside one operator.
        lock_frequency: Whether to hold the CPUs' frequency while the agent lives, where permitted.
        meter: What is read: `auto`, `none` or `NAME[:CHANNEL][?OPTIONS][,NAME[:CHANNEL]]`.
        protocol: How visits are made; a mapping is read by `VisitSettings.of`.
    """

    template: bytes
    reference_widths: tuple[int, ...]
    runtime: str = "onnxruntime"
    threads: int = 1
    lock_frequency: bool = False
    meter: str = "none"
    protocol: VisitSettings | Mapping[str, Any] = field(default_factory=VisitSettings)


@dataclass(frozen=True)
class StartGate:
    """When a device counts as idle and cool enough to be measured on.

    Args:
        max_busy_share: Share of CPU time, 0 to 1, that other programs may use.
        max_temperature_c: Limit of the hottest thermal zone, None for no limit.
        timeout_s: How long to wait for it.
        interval_s: How long each look watches the CPUs, and so the time between looks.

    Raises:
        InputError: A value makes no sense.
    """

    max_busy_share: float = 0.1
    max_temperature_c: float | None = None
    timeout_s: float = 300.0
    interval_s: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.max_busy_share <= 1:
            raise InputError(f"max_busy_share {self.max_busy_share} is not between 0 and 1")
        if self.max_temperature_c is not None and not 0 < self.max_temperature_c <= 150:
            raise InputError(f"max_temperature_c {self.max_temperature_c} is not in 0 to 150 deg C")
        if not 0 <= self.timeout_s <= 86400:
            raise InputError(f"timeout_s {self.timeout_s} is not between 0 and 86400 s")
        if not 0.05 <= self.interval_s <= 60:
            raise InputError(f"interval_s {self.interval_s} is not between 0.05 and 60 s")


def visit_limit_s(settings: VisitSettings) -> float:
    """Return how long a visit may take at most in seconds, cooling down included."""
    is_cooled = settings.max_temperature_c is not None
    cooling_s = settings.start_timeout_s if is_cooled else 0.0
    return settings.max_visit_s * 2 + VISIT_GRACE_S + cooling_s


class Device:
    """Runs variants on one device through one agent at a time.

    The agent is started when first needed and again after a failure, or after `agent_visits`
    visits, so that what a runtime leaks cannot reach later measurements. On a remote device a keeper
    does that, which stays there when the link goes (see `onboard.keeper`).

    Args:
        url: Such as `local:`; what it tells of meters is kept (see `onboard.meter_options`).
        transport: How the device is reached; what the URL says when None.
        agent_visits: Visits after which a fresh agent takes over.
        limits: How long what may take on links that break.

    Attributes:
        token: Names the keeper; who comes with the same one continues what it does.
        on_message: Is told what the user should know of the link.

    Raises:
        InputError: The URL has no known form.
    """

    def __init__(
        self,
        url: str,
        *,
        transport: Transport | None = None,
        agent_visits: int = 50,
        limits: LinkLimits | None = None,
    ) -> None:
        self.url = url
        self.token = secrets.token_hex(16)
        self.on_message: Callable[[str], None] = lambda text: None
        self.agent_visits = agent_visits
        plain, self._meter_options = plain_url(url)
        self._transport = transport or open_transport(plain)
        self._limits = limits or LinkLimits()
        self._session: Session | None = None
        self._visits = 0
        self._order = interruption.ordered()
        self._preparation: Preparation | None = None
        self.runtime_version: str | None = None
        self.cpus: tuple[int, ...] = ()
        # As the agent answered to the last `prepare`.
        self.affinity = Affinity()
        self.frequency_lock = FrequencyHold()
        self.device_lock = Exclusivity()
        # Likewise which thermal zone's temperature is recorded, in words.
        self.temperature_zone: str | None = None
        # Likewise which meters visits read.
        self.meters = MetersInUse()
        # What the first agent chose, so that the next ones read the same.
        self._meters_before: list[dict[str, Any]] | None = None

    def probe(self) -> ProbeAnswer:
        """Return what the device says of itself.

        Raises:
            DeviceError: The device cannot be reached or has no usable Python.
        """
        answer = self._agent().ask("probe", timeout_s=PROBE_TIMEOUT_S)
        try:
            return ProbeAnswer.from_dict(answer)
        except AnswerError as error:
            raise StableDeviceError(
                f"the device's answer to what it is makes no sense: {error}"
            ) from error

    @property
    def is_remote(self) -> bool:
        """Whether the link can drop while the device goes on."""
        return self._transport.is_remote

    @property
    def is_simulated(self) -> bool:
        """Whether its energies are computed from a known model and measured on nothing."""
        return bool(getattr(self._transport, "is_simulated", False))

    @property
    def runs_networks(self) -> bool:
        """Whether it runs networks; others compute costs from widths and see none."""
        return bool(getattr(self._transport, "runs_networks", True))

    def clocks(self) -> dict[str, Any]:
        """Return how the device's clocks stand to this machine's (see `clock_offset`).

        Raises:
            DeviceError: The device cannot be reached.
        """
        session = self._agent()
        return compare_clocks(lambda: session.ask("clock", timeout_s=PROBE_TIMEOUT_S)).to_dict()

    def find_meters(self) -> MetersAnswer:
        """Return which meters the device has.

        Raises:
            DeviceError: The device cannot be reached or has no usable Python.
        """
        request = {"meter_options": self._meter_options}
        answer = self._agent().ask("meters", request, timeout_s=PROBE_TIMEOUT_S)
        return MetersAnswer.from_dict(answer)

    def prepare(self, preparation: Preparation) -> None:
        """Set what the following visits measure; start the agent with it.

        From here until `close_agent` the device is this campaign's. Another one that measures there
        is waited for as long as the protocol's `start_timeout_s` says.

        Raises:
            InputError: The runtime is not known.
            DeviceInUseError: Another campaign measures on the device, and goes on.
            DeviceError: The agent cannot be started or cannot load the reference.
        """
        runtime_entry(preparation.runtime)
        self._preparation = preparation
        self._meters_before = None
        self._stop_agent()
        self._prepared_agent()

    def wait_until_ready(self, gate: StartGate) -> ReadyAnswer:
        """Wait on the device until it is idle and cool enough (see `onboard.readiness`).

        Raises:
            DeviceError: The device cannot be reached.
        """
        limit_s = gate.timeout_s + gate.interval_s + READY_GRACE_S
        return ReadyAnswer.from_dict(self._agent().ask("ready", asdict(gate), timeout_s=limit_s))

    def visit(
        self,
        widths: Sequence[int],
        protocol: VisitSettings | Mapping[str, Any],
        key: str | None = None,
    ) -> VisitAnswer:
        """Return the raw times of one visit of a variant, and what meters say, both unchecked.

        Args:
            widths: Channels, in the spec's order.
            protocol: How it is made; a mapping is read by `VisitSettings.of`.
            key: Names the visit: a remote device measures the same one once, and keeps its answer
                until `acknowledge`. None for a visit that is always made.

        Raises:
            DeviceError: The visit failed; the next call starts with a fresh agent if it must.
            LinkLostError: A remote device was not reached for too long.
        """
        session = self._prepared_agent()
        # A keeper counts its agents' visits itself.
        self._visits += not self.is_remote
        settings = VisitSettings.of(protocol)
        visit = self._visit_request(key or secrets.token_hex(16), widths, settings)
        if not session.is_known(visit.key):
            session.send([visit])
        answer = session.collect(visit.key)
        if key is None:
            session.acknowledge(visit.key)
        try:
            return VisitAnswer.from_dict(answer)
        except AnswerError as error:
            raise TransientDeviceError(f"the device's answer makes no sense: {error}") from error

    def num_ahead(self, visit_s: float) -> int:
        """Return how many visits `send_ahead` wants to know of; none where no link can drop.

        Args:
            visit_s: What one takes, roughly.
        """
        return 2 * _chunk(visit_s) if self.is_remote else 0

    def send_ahead(
        self,
        visits: Sequence[tuple[str, Sequence[int]]],
        protocol: VisitSettings | Mapping[str, Any],
        visit_s: float,
    ) -> None:
        """Let a remote device work on visits that will be asked for, unless it still has work.

        Args:
            visits: Keys and widths, in the order in which they will be asked for.
            protocol: How they are made; a mapping is read by `VisitSettings.of`.
            visit_s: What one takes, roughly.

        Raises:
            LinkLostError: The device was not reached for too long.
        """
        session = self._prepared_agent() if visits else None
        if session is not None and not session.num_outstanding:
            new = [(key, widths) for key, widths in visits if not session.is_known(key)]
            settings = VisitSettings.of(protocol)
            session.send(
                [
                    self._visit_request(key, widths, settings)
                    for key, widths in new[: _chunk(visit_s)]
                ]
            )

    def acknowledge(self, key: str) -> None:
        """Let a remote device forget the answer to a visit, which is safe here now."""
        if self._session is not None:
            self._session.acknowledge(key)

    def layer_times(self, widths: Sequence[int], num_runs: int) -> LayersAnswer:
        """Return what each node of a variant took in each of so many runs.

        Args:
            widths: Channels, in the spec's order.
            num_runs: Runs that are kept.

        Raises:
            DeviceError: The device's runtime has no profiler, it failed, or its times make no
                sense.
        """
        session = self._prepared_agent()
        self._visits += 1
        answer = session.ask(
            "layers",
            {"widths": list(widths), "num_runs": num_runs, "max_warm_up_s": LAYERS_WARM_UP_S},
            timeout_s=LAYERS_TIMEOUT_S,
        )
        try:
            return LayersAnswer.from_dict(answer, num_runs)
        except AnswerError as error:
            raise StableDeviceError(f"the device {error}") from error

    def clean(self) -> dict[str, Any]:
        """Remove what joulemap left on the device: agents and campaigns' folders.

        Returns:
            Names that were `removed`, and tokens that were `kept` because a campaign runs there.

        Raises:
            DeviceError: The device cannot be reached or has no usable Python.
        """
        self.close_agent()
        name, content = agent_archive()
        path = self._transport.push(content, name)
        command = [self._transport.python(), "-B", path, "clean"]
        done = self._transport.run(command, CLEAN_TIMEOUT_S)
        try:
            answer = json.loads(done.stdout)
            return {name: [showable(item, 300) for item in answer[name]] for name in _CLEANED}
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            lines = done.stderr.decode(errors="replace").strip().splitlines()
            said = lines[-1][:300] if lines else "its answer makes no sense"
            raise StableDeviceError(f"the device could not be cleaned: {said}") from error

    def close_agent(self, *, keep: bool = False) -> None:
        """End the agent, on a remote device with its keeper.

        Args:
            keep: Whether answers that were not acknowledged stay on the device for who continues.
        """
        self._stop_agent()
        if self._session is not None:
            self._session.close(keep=keep)
        self._session = None
        if self._transport.device_lock is not None:
            self._transport.device_lock.release()

    def close(self, *, keep: bool = False) -> None:
        """End the agent and let go of the device; `keep` as in `close_agent`."""
        self.close_agent(keep=keep)
        self._transport.close()

    def __enter__(self) -> Self:
        self._order.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            with interruption.finishing():
                # Who was interrupted may continue.
                self.close(keep=error is not None)
        finally:
            self._order.__exit__(kind, error, traceback)

    def _prepared_agent(self) -> Session:
        if self._preparation is None:
            raise StableDeviceError("visit came before prepare")
        if self._visits >= self.agent_visits:
            self._stop_agent()
        session = self._session
        if self.runtime_version and session is not None and session.is_usable:
            return session
        wanted = self._preparation
        request = {
            "runtime": wanted.runtime,
            "threads": wanted.threads,
            "reference_widths": list(wanted.reference_widths),
            "lock_frequency": wanted.lock_frequency,
            "meter": wanted.meter,
            "meter_options": self._meter_options,
            "protocol": VisitSettings.of(wanted.protocol).to_dict(),
            "meters_before": self._meters_before,
        }
        self._hold()
        session = self._agent()
        try:
            answer = self._when_free(
                partial(session.prepare, request, wanted.template, PREPARE_TIMEOUT_S),
                partial(_wait_there, session),
            )
            said = _preparation(answer)
        except DeviceError:
            self._stop_agent()
            raise
        self._note(said)
        if self._meters_before is None:
            self._meters_before = remembered(answer.get("meters"))
        return session

    def _note(self, answer: PreparationAnswer) -> None:
        """Keep what the device answered to a preparation."""
        self.cpus = tuple(answer.cpus)
        self.affinity, self.frequency_lock = answer.affinity, answer.frequency_lock
        zone = answer.temperature_zone
        self.temperature_zone = None if zone is None else showable(zone, MAX_WORDS)
        self.meters = answer.meters
        self._note_lock(answer)
        self.runtime_version = answer.runtime_version

    def _hold(self) -> None:
        """Take this machine's lock, if that is the device; agents inherit it."""
        lock = self._transport.device_lock
        if lock is None or lock.is_held:
            return
        # It would measure without the lock.
        self._stop_agent()
        self._when_free(partial(acquire, lock), wait_here)

    def _note_lock(self, answer: PreparationAnswer) -> None:
        """Keep, and say once, whether other campaigns are kept off the device."""
        ours, before = self._transport.device_lock, unkept(self.device_lock)
        self.device_lock = (answer.device_lock or Exclusivity()) if ours is None else ours.state()
        warning = unkept(self.device_lock)
        if warning is not None and warning != before:
            self.on_message(warning)

    def _when_free(self, attempt: Callable[[], T], wait: Callable[[float], object]) -> T:
        told = self._preparation.protocol if self._preparation else VisitSettings()
        limit_s = VisitSettings.of(told).start_timeout_s
        return when_free(attempt, wait, limit_s, self.on_message)

    def _visit_limit_s(self, settings: VisitSettings) -> float:
        """Return how long a visit may take, idle times and window of a meter included, in seconds."""
        is_metered = bool(self.meters.chosen)
        metering_s = 3.0 * settings.max_energy_window_s if is_metered else 0.0
        return visit_limit_s(settings) + metering_s

    def _agent(self) -> Session:
        """Return the session, begun anew where there is none that can be used."""
        if self._session is None or not self._session.is_usable:
            self._stop_agent()
            self._session = self._begun()
        return self._session

    def _begun(self) -> Session:
        if not self.is_remote:
            return AgentClient(self._transport.start(self._agent_command()))
        return KeeperClient(
            self._transport,
            lambda: [*self._agent_command(), "attach", self.token],
            agent_visits=self.agent_visits,
            limits=self._limits,
            on_message=lambda text: self.on_message(text),
        )

    def _agent_command(self) -> list[str]:
        name, content = agent_archive()
        path = self._transport.push(content, name)
        return [self._transport.python(), "-B", path]

    def _visit_request(
        self, key: str, widths: Sequence[int], settings: VisitSettings
    ) -> VisitRequest:
        request = {"widths": list(widths), "protocol": settings.to_dict()}
        return VisitRequest(key, request, self._visit_limit_s(settings))

    def _stop_agent(self) -> None:
        if self._session is not None:
            self._session.end_agent()
        self._visits = 0
        self.runtime_version = None


def _wait_there(session: Session, timeout_s: float) -> None:
    session.ask("free", {"timeout_s": timeout_s}, timeout_s=timeout_s + READY_GRACE_S)


def _chunk(visit_s: float) -> int:
    return max(1, min(MAX_SENT_AHEAD, round(SENT_AHEAD_S / max(visit_s, 1e-3))))


def _preparation(answer: Mapping[str, Any]) -> PreparationAnswer:
    """Return what a device answered to a preparation.

    Raises:
        StableDeviceError: What it says of its meters is no description.
    """
    try:
        return PreparationAnswer.from_dict(answer)
    except AnswerError as error:
        raise StableDeviceError(
            f"the device's description of its meters makes no sense: {error}"
        ) from error

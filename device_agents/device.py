"""A place that can run variants: a transport and the agent that it reaches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from joulemap import InputError

from .agent_archive import agent_archive
from .agent_client import AgentClient
from .errors import DeviceError, StableDeviceError
from .interfaces import Transport
from .registry import open_transport, runtime_entry

PROBE_TIMEOUT_S = 60.0
PREPARE_TIMEOUT_S = 120.0
# Beyond the time that a visit means to take: load, three slow blocks, two references.
VISIT_GRACE_S = 60.0
LAYERS_TIMEOUT_S = 120.0
LAYERS_WARM_UP_S = 0.3
# Beyond the time that the start gate means to take.
READY_GRACE_S = 30.0


@dataclass(frozen=True)
class Preparation:
    """What an agent needs before its first visit.

    Args:
        template: The network's template, JSON.
        reference_widths: The reference variant's widths in channels.
        runtime: What executes variants.
        threads: Threads inside one operator.
        lock_frequency: Whether to hold the CPUs' frequency while the agent lives, where permitted.
        meter: What is read: `auto`, `none` or `NAME[:CHANNEL][,NAME[:CHANNEL]]`.
        protocol: The protocol's on-device settings; needed with a meter.
    """

    template: bytes
    reference_widths: tuple[int, ...]
    runtime: str = "onnxruntime"
    threads: int = 1
    lock_frequency: bool = False
    meter: str = "none"
    protocol: Mapping[str, Any] = field(default_factory=dict)


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


class Device:
    """Runs variants on one device through one agent at a time.

    The agent is started when first needed and again after a failure, or after `agent_visits`
    visits, so that what a runtime leaks cannot reach later measurements.

    Args:
        url: Such as `local:`.
        transport: How the device is reached; what the URL says when None.
        agent_visits: Visits after which a fresh agent takes over.

    Raises:
        InputError: The URL has no known form.
    """

    def __init__(
        self, url: str, *, transport: Transport | None = None, agent_visits: int = 50
    ) -> None:
        self.url = url
        self.agent_visits = agent_visits
        self._transport = transport or open_transport(url)
        self._client: AgentClient | None = None
        self._visits = 0
        self._preparation: Preparation | None = None
        self.runtime_version: str | None = None
        self.cpus: tuple[int, ...] = ()
        # As the agent answered to the last `prepare`: `is_bound`, `is_locked`, each with `reason`.
        self.affinity: Mapping[str, Any] = {}
        self.frequency_lock: Mapping[str, Any] = {}
        # Likewise `chosen`, a description of each meter in use, `why`, and `warnings`.
        self.meters: Mapping[str, Any] = {}
        self._meter_states: list[Any] = []

    def probe(self) -> dict[str, Any]:
        """Return the device's fingerprint (see `onboard.fingerprint`).

        Raises:
            DeviceError: The device cannot be reached or has no usable Python.
        """
        return self._agent().ask("probe", timeout_s=PROBE_TIMEOUT_S)

    def find_meters(self) -> dict[str, Any]:
        """Return `available` and `missing` meters (see `onboard.meter_choice`).

        Raises:
            DeviceError: The device cannot be reached or has no usable Python.
        """
        return self._agent().ask("meters", timeout_s=PROBE_TIMEOUT_S)

    def prepare(self, preparation: Preparation) -> None:
        """Set what the following visits measure; start the agent with it.

        Raises:
            InputError: The runtime is not known.
            DeviceError: The agent cannot be started or cannot load the reference.
        """
        runtime_entry(preparation.runtime)
        self._preparation = preparation
        self._meter_states = []
        self._stop_agent()
        self._prepared_agent()

    def wait_until_ready(self, gate: StartGate) -> dict[str, Any]:
        """Wait on the device until it is idle and cool enough (see `onboard.readiness`).

        Returns:
            `is_ready`, `waited_s`, `busy_share`, `temperature_c` and `reason`.

        Raises:
            DeviceError: The device cannot be reached.
        """
        return self._agent().ask(
            "ready", asdict(gate), timeout_s=gate.timeout_s + gate.interval_s + READY_GRACE_S
        )

    def visit(self, widths: Sequence[int], protocol: Mapping[str, Any]) -> dict[str, Any]:
        """Return the raw times of one visit of a variant (see `onboard.visit`).

        Args:
            widths: Channels, in the spec's order.
            protocol: The protocol's on-device settings.

        Raises:
            DeviceError: The visit failed; the next call starts with a fresh agent if it must.
        """
        client = self._prepared_agent()
        self._visits += 1
        return client.ask(
            "visit",
            {"widths": list(widths), "protocol": dict(protocol)},
            timeout_s=float(protocol["max_visit_s"]) * 2
            + self._metering_s(protocol)
            + VISIT_GRACE_S,
        )

    def layer_times(self, widths: Sequence[int], num_runs: int) -> dict[str, Any]:
        """Return what each node of a variant took in each of so many runs.

        Args:
            widths: Channels, in the spec's order.
            num_runs: Runs that are kept.

        Returns:
            `nodes` of the graph as the runtime ran it (name, op, inputs, outputs, `times_s`),
            `runs_s` of the same runs as wholes, and `unprofiled_s`, runs before and after without
            the profiler.

        Raises:
            DeviceError: The device's runtime has no profiler, or it failed.
        """
        client = self._prepared_agent()
        self._visits += 1
        return client.ask(
            "layers",
            {"widths": list(widths), "num_runs": num_runs, "max_warm_up_s": LAYERS_WARM_UP_S},
            timeout_s=LAYERS_TIMEOUT_S,
        )

    def close(self) -> None:
        """End the agent and let go of the device."""
        self._stop_agent()
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _prepared_agent(self) -> AgentClient:
        if self._preparation is None:
            raise StableDeviceError("visit came before prepare")
        if self._visits >= self.agent_visits:
            self._stop_agent()
        if self._client is not None and self._client.is_usable and self.runtime_version:
            return self._client
        wanted = self._preparation
        client = self._agent()
        try:
            answer = client.ask(
                "prepare",
                {
                    "runtime": wanted.runtime,
                    "threads": wanted.threads,
                    "reference_widths": list(wanted.reference_widths),
                    "lock_frequency": wanted.lock_frequency,
                    "meter": wanted.meter,
                    "protocol": dict(wanted.protocol),
                    "meter_states": self._meter_states,
                },
                payload=wanted.template,
                timeout_s=PREPARE_TIMEOUT_S,
            )
        except DeviceError:
            self._stop_agent()
            raise
        self.runtime_version = str(answer.get("runtime_version"))
        self.cpus = tuple(int(cpu) for cpu in answer.get("cpus", ()))
        self.affinity = dict(answer.get("affinity") or {})
        self.frequency_lock = dict(answer.get("frequency_lock") or {})
        meters = answer.get("meters")
        self.meters = dict(meters) if isinstance(meters, Mapping) else {}
        chosen = self.meters.get("chosen")
        if not self._meter_states and isinstance(chosen, list):
            self._meter_states = [
                item.get("state") or {} for item in chosen if isinstance(item, Mapping)
            ]
        return client

    def _metering_s(self, protocol: Mapping[str, Any]) -> float:
        """Return how long idle times and window may take, in seconds; 0 without a meter."""
        if not self.meters.get("chosen"):
            return 0.0
        return 3.0 * float(protocol["max_energy_window_s"])

    def _agent(self) -> AgentClient:
        if self._client is None or not self._client.is_usable:
            self._stop_agent()
            name, content = agent_archive()
            path = self._transport.push(content, name)
            process = self._transport.start([self._transport.python(), "-B", path])
            self._client = AgentClient(process)
        return self._client

    def _stop_agent(self) -> None:
        if self._client is not None:
            self._client.close()
        self._client = None
        self._visits = 0
        self.runtime_version = None

"""Reaches a virtual machine: real frames to a real agent, in this process and in virtual time."""

from __future__ import annotations

import gc
import io
from collections.abc import Mapping, Sequence
from typing import Any

from ..device import Device
from ..errors import StableDeviceError, TransientDeviceError
from ..interfaces import Completed
from ..onboard import frames
from .agent import SimulatedAgent
from .disturbances import Disturbances
from .virtual_machine import Cost, VirtualMachine

# What the host does between two visits: journal, statistics, the next request.
TURNAROUND_S = 0.02


class SimulatedTransport:
    """A way to a virtual machine.

    Args:
        machine: What is reached.
        idle_s: Idle time before every visit, besides the host's own work.
    """

    is_remote = False
    is_simulated = True
    runs_networks = False
    device_lock = None

    def __init__(self, machine: VirtualMachine, idle_s: float = 0.0) -> None:
        self.machine = machine
        self.idle_s = idle_s
        self._num_agents = 0

    def push(self, content: bytes, name: str) -> str:
        """Return the name; nothing needs to be stored."""
        return name

    def pull(self, path: str, max_bytes: int) -> bytes:
        """Refuse: a simulated device has no files."""
        raise StableDeviceError(f"{path}: a simulated device has no files")

    def run(self, command: Sequence[str], timeout_s: float, max_bytes: int = 1 << 20) -> Completed:
        """Refuse: a simulated device has no programs."""
        raise StableDeviceError(f"{command[0]}: a simulated device has no programs")

    def start(self, command: Sequence[str]) -> SimulatedProcess:
        """Start an agent, whatever the command."""
        agent = SimulatedAgent(self.machine, self._num_agents)
        self._num_agents += 1
        return SimulatedProcess(agent, TURNAROUND_S + self.idle_s)

    def python(self) -> str:
        """Return a name; no interpreter is started."""
        return "python"

    def is_alive(self, timeout_s: float = 10.0) -> bool:
        """Return that it answers."""
        return True

    def reconnect(self, timeout_s: float) -> None:
        """There is no link that could be lost."""

    def close(self) -> None:
        """Nothing is held open."""


class SimulatedProcess:
    """An agent that answers a frame as soon as it is written.

    Time limits are those of the host's clock and never pass in virtual time.

    Args:
        agent: Answers the requests.
        pause_s: Idle virtual time before every visit.
    """

    def __init__(self, agent: SimulatedAgent, pause_s: float) -> None:
        self._agent = agent
        self._pause_s = pause_s
        self._requests = bytearray()
        self._answers = bytearray()
        self._is_alive = True
        # A visit collects garbage, which in a process full of libraries takes longer than all else.
        gc.freeze()

    def write(self, data: bytes, timeout_s: float) -> None:
        """Answer the frames that are complete with these bytes."""
        if not self._is_alive:
            raise TransientDeviceError("the agent has ended")
        self._requests += data
        while (length := self._frame_length()) and len(self._requests) >= length:
            request, payload = frames.read_frame(io.BytesIO(self._requests[:length]))
            del self._requests[:length]
            if request.get("op") == "visit":
                self._agent.machine.idle(self._pause_s)
            self._answers += frames.encode(self._agent.answer(request, payload))

    def read(self, length: int, timeout_s: float) -> bytes:
        """Return exactly `length` bytes of the answers."""
        if len(self._answers) < length:
            raise TransientDeviceError(f"the agent gave no answer within {timeout_s:.0f} s")
        data = bytes(self._answers[:length])
        del self._answers[:length]
        return data

    def stderr_tail(self) -> str:
        """Return nothing: what the agent prints appears on this process's standard error."""
        return ""

    def is_alive(self) -> bool:
        """Return whether it has not been ended."""
        return self._is_alive

    def kill(self) -> None:
        """End it."""
        if self._is_alive:
            gc.unfreeze()
        self._is_alive = False

    def _frame_length(self) -> int:
        size = frames.PREFIX.size
        if len(self._requests) < size:
            return 0
        return size + sum(frames.decode_prefix(bytes(self._requests[:size])))


def simulated_device(
    cost: Cost,
    disturbances: Disturbances | None = None,
    seed: int = 0,
    *,
    energy: Cost | None = None,
    name: str = "",
    details: Mapping[str, Any] | None = None,
    url: str = "sim:",
    idle_s: float = 0.0,
    agent_visits: int = 50,
) -> tuple[Device, VirtualMachine]:
    """Return a device in virtual time, and the machine behind it, which knows the truth.

    Args:
        cost: Widths in channels to the true seconds per call.
        disturbances: What disturbs it; nothing when None.
        seed: Of everything random.
        energy: Widths in channels to the true joules per call; None for a device without a meter.
        name: What the processor is called.
        details: What else its fingerprint says, JSON values.
        url: The device's URL.
        idle_s: Idle virtual time before every visit, besides the host's own work.
        agent_visits: Visits after which a fresh agent takes over.
    """
    machine = VirtualMachine(cost, disturbances, seed, energy=energy, name=name, details=details)
    transport = SimulatedTransport(machine, idle_s)
    return Device(url, transport=transport, agent_visits=agent_visits), machine

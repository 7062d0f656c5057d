"""A device behind a link that fails on demand: real keeper, agent and bytes on this machine."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from joulemap.datasets import Timing
from joulemap.device_agents.device import Device, Preparation
from joulemap.device_agents.host.keeper_client import KeeperClient, LinkLimits
from joulemap.device_agents.onboard.visit_answer import VisitAnswer
from joulemap.device_agents.testing import LoopbackTransport, write_fixed_time_runtime
from joulemap.profiler import Protocol, networks
from joulemap.profiler.campaign.protocol import reference_widths
from joulemap.profiler.templates.export import cached_template

from .processes import end, process_state, send_signal

QUICK = Protocol(
    visits=1,
    max_visit_s=0.02,
    max_warm_up_s=0.02,
    block_s=0.003,
    min_run_s=1e-4,
    reference_s=0.002,
    has_revisits=False,
    max_further_visits=0,
    start_timeout_s=0.01,
)
LIMITS = LinkLimits(
    first_wait_s=0.02,
    longest_wait_s=0.2,
    give_up_s=30.0,
    connect_s=10.0,
    beat_s=0.5,
    silence_s=10.0,
    deliver_s=1.0,
    idle_limit_s=60.0,
)
# Of LeNet-5.
WIDTHS = [(6, 16, 120, 84), (2, 4, 30, 21), (1, 4, 30, 21), (3, 8, 60, 42)]


class Remote:
    """This machine as a remote device, in a folder of its own.

    Args:
        folder: Of the device's files.
        preparation: What is measured there.
    """

    def __init__(self, folder: Path, preparation: Preparation) -> None:
        self.cache = folder / "cache" / "joulemap"
        self.link = LoopbackTransport()
        self.preparation = preparation
        self.protocol = QUICK.to_dict()
        self.said: list[str] = []
        self.devices: list[Device] = []

    def device(self, limits: LinkLimits = LIMITS, **options: Any) -> Device:
        device = Device("loopback:", transport=self.link, limits=limits, **options)
        device.on_message = self.said.append
        self.devices.append(device)
        return device

    def limit(self, device: Device, limits: LinkLimits) -> None:
        """Let other limits hold from here on, on this side of the link.

        What is to fail in time has to begin first, however slow this machine is just now.
        """
        device._limits = limits
        assert isinstance(device._session, KeeperClient)
        device._session._limits = limits

    def keepers(self) -> list[int]:
        """Process ids of the keepers that live."""
        return [pid for pid, command in self._processes() if "keep" in command]

    def agents(self) -> list[int]:
        """Process ids of the agents that live."""
        return [pid for pid, command in self._processes() if command[-1].endswith(".pyz")]

    def links(self) -> list[int]:
        """Process ids of the device's ends of links."""
        return [pid for pid, command in self._processes() if "attach" in command]

    def everything(self) -> list[int]:
        """Process ids of all that runs on the device."""
        return [pid for pid, _ in self._processes()]

    def kill(self, pids: list[int], number: int = signal.SIGKILL) -> None:
        send_signal(pids, number)

    def reboot(self) -> None:
        """End every process of the device and the link to it at once; its files stay."""
        if self.link.processes:
            self.link.cut()
        end(self.everything)

    def close(self) -> None:
        """End everything; nothing of it holds the device when this returns."""
        for device in self.devices:
            # Asking a keeper to end would start one where there is none.
            if isinstance(device._session, KeeperClient):
                device._session._kill()
        end(self.everything)

    def wait_for_a_word(self) -> None:
        """Wait until the keeper says something over the newest link, if only that it works."""
        output = self.link.processes[-1]._stdout
        self.wait_until(lambda: select.select([output], [], [], 0)[0], "the keeper says nothing")

    def folders(self) -> list[Path]:
        return sorted((self.cache / "campaigns").glob("*"))

    def wait_until(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline, what
            time.sleep(0.01)

    def _processes(self) -> list[tuple[int, list[str]]]:
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                command = (path / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
                is_ours = any(word.startswith(str(self.cache)) for word in command)
                if is_ours and process_state(int(path.name)) not in "ZX":
                    found.append((int(path.name), command))
        return found


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a host's exported templates."""
    folder = tmp_path_factory.mktemp("templates")
    cached_template(networks.get("lenet5"), folder=folder)
    return folder


@pytest.fixture(scope="session")
def lenet(templates: Path) -> Preparation:
    spec = networks.get("lenet5")
    template = cached_template(spec, folder=templates)
    return Preparation(template.to_json().encode(), reference_widths(spec))


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lenet: Preparation) -> Iterator[Remote]:
    """A device whose calls all take the same time; its processes end with the test."""
    runtime = write_fixed_time_runtime(tmp_path / "runtime", 0.0005)
    monkeypatch.setenv("PYTHONPATH", f"{runtime}:{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    remote = Remote(tmp_path, lenet)
    yield remote
    remote.close()


def visits(number: int) -> list[tuple[str, tuple[int, ...]]]:
    return [(f"visit/{index}", WIDTHS[index % len(WIDTHS)]) for index in range(number)]


def collect(device: Device, remote: Remote, number: int, first: int = 0) -> list[VisitAnswer]:
    """Return the answers of visits as a campaign would ask for them, each checked."""
    answers = []
    asked = visits(number)
    for place in range(first, number):
        device.send_ahead(asked[place : place + 6], remote.protocol, 3.0)
        key, widths = asked[place]
        answer = device.visit(widths, remote.protocol, key)
        Timing.from_dict(answer.timing())
        device.acknowledge(key)
        answers.append(answer)
    return answers

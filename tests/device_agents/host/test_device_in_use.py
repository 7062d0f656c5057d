"""Two campaigns on one device: the second waits for the first, or says why it cannot begin."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from joulemap.datasets import LayerProfiles, Timing, Visit
from joulemap.datasets.journal import read_journal
from joulemap.device_agents import DeviceInUseError, StableDeviceError
from joulemap.device_agents.device import Device, Preparation
from joulemap.device_agents.onboard.keeper import device_lock
from joulemap.device_agents.testing import LoopbackTransport, write_fixed_time_runtime
from joulemap.profiler import profile, profile_layers
from joulemap.profiler.campaign import layers
from joulemap.profiler.campaign.observer import Silent
from joulemap.profiler.templates import export as template_module

from ...calm_judgement import CALM
from ..conftest import LIMITS, QUICK, Remote
from ..sshd import SshClientHome, running_sshd

WIDTHS = (6, 16, 120, 84)
PATIENT = replace(QUICK, start_timeout_s=200.0, max_busy_share=1.0)
IMPATIENT = replace(PATIENT, start_timeout_s=0.3)

# A campaign on this machine, in a process of its own: after three visits it says so and waits for a
# line before it goes on.
CAMPAIGN = """
import sys
from joulemap.datasets import JudgementSettings
from joulemap.profiler import Protocol, profile
from joulemap.profiler.campaign.observer import Silent
from joulemap.profiler.templates import export as templates
templates.cache_folder = lambda kind: templates.Path(sys.argv[2])
calm = JudgementSettings(max_change=99.0, min_state_gap=99.0, outlier_change=99.0,
                         max_steal_share=99.0)
class Observer(Silent):
    def visited(self, visit, done, noise):
        if done == 3:
            print(visit.timing.pid, flush=True)
            sys.stdin.readline()
profile("local:", "lenet5", samples=5, out=sys.argv[1], protocol=Protocol(**{protocol!r}),
                 judgement=calm, observer=Observer())
"""


@pytest.fixture(autouse=True)
def _known_templates(monkeypatch: pytest.MonkeyPatch, templates: Path) -> None:
    monkeypatch.setattr(template_module, "cache_folder", lambda kind: templates)


class OtherCampaign:
    """A campaign of another process that is in the middle of its work."""

    def __init__(self, out: Path, templates: Path) -> None:
        self.out = out
        code = CAMPAIGN.replace("{protocol!r}", repr(PATIENT.to_dict()))
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", code, str(out), str(templates)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.agent = int(self.process.stdout.readline())

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()

    def visits(self) -> tuple[Visit, ...]:
        return read_journal(self.out / "journal.jsonl").visits


@pytest.fixture
def other(remote: Remote, tmp_path: Path, templates: Path) -> Iterator[OtherCampaign]:
    other = OtherCampaign(tmp_path / "other", templates)
    yield other
    other.close()


class Listener(Silent):
    """Does something when it is told to wait, the first time."""

    def __init__(self, react: Callable[[], object]) -> None:
        self.react = react
        self.said: list[str] = []

    def message(self, text: str) -> None:
        if "waiting up to" in text:
            self.said.append(text)
            if len(self.said) == 1:
                self.react()


def run(out: Path, observer: Silent, protocol: Any = PATIENT) -> tuple[Visit, ...]:
    profile(
        "local:", "lenet5", samples=3, out=out, protocol=protocol, judgement=CALM, observer=observer
    )
    return read_journal(out / "journal.jsonl").visits


def test_a_second_campaign_waits_and_says_for_whom(other: OtherCampaign, tmp_path: Path) -> None:
    listener = Listener(other.go_on)
    visits = run(tmp_path / "second", listener)
    assert other.process.wait(60) == 0
    assert len(visits) == 3
    assert len(other.visits()) == 5
    assert max(v.started_at for v in other.visits()) < min(v.started_at for v in visits)
    (said,) = listener.said
    assert f"another campaign measures on the device: process {other.process.pid} ('" in said
    assert re.search(
        rf"', in {Path.cwd()}, running since .*\); waiting up to \d+ s for it to end", said
    )


def test_a_second_campaign_fails_in_time_and_says_what_to_do(
    other: OtherCampaign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Profiles of layers have no protocol that says how long.
    impatient = partial(Preparation, protocol={"start_timeout_s": 0.2})
    monkeypatch.setattr(layers, "Preparation", impatient)
    message = (
        rf"another campaign measures on the device after \d+ s of waiting: process "
        rf"{other.process.pid} .*let it end, or end it there, then repeat the same command"
    )
    with pytest.raises(DeviceInUseError, match=message):
        run(tmp_path / "second", Silent(), IMPATIENT)
    assert not (tmp_path / "second" / "journal.jsonl").exists()
    with pytest.raises(DeviceInUseError), Device("local:") as device:
        profile_layers(device, "lenet5", samples=1)
    # What does not measure does not wait.
    with Device("local:") as device:
        assert device.probe().device_id
        assert device.find_meters()
        assert device.clean()["kept"] == []
    other.go_on()
    assert other.process.wait(60) == 0
    assert len(other.visits()) == 5
    assert all(visit.error is None for visit in other.visits())
    assert len(run(tmp_path / "second", Silent(), IMPATIENT)) == 3


def test_a_campaign_that_is_killed_leaves_the_device(other: OtherCampaign, tmp_path: Path) -> None:
    listener = Listener(other.process.kill)
    assert len(run(tmp_path / "second", listener)) == 3
    assert len(listener.said) == 1


def test_the_agent_of_a_killed_campaign_is_waited_for(other: OtherCampaign, tmp_path: Path) -> None:
    os.kill(other.agent, signal.SIGSTOP)
    other.process.kill()
    other.process.wait()
    # However little time the start may take: it ends by itself as soon as it can.
    threading.Timer(1.0, os.kill, (other.agent, signal.SIGCONT)).start()
    listener = Listener(lambda: None)
    assert len(run(tmp_path / "second", listener, IMPATIENT)) == 3
    assert not listener.said


def prepared(preparation: Preparation, start_timeout_s: float) -> Preparation:
    return replace(preparation, protocol={"start_timeout_s": start_timeout_s})


@pytest.mark.parametrize("is_remote", [False, True])
def test_nobody_comes_between_two_agents_of_a_campaign(remote: Remote, is_remote: bool) -> None:
    def device() -> Device:
        return remote.device(agent_visits=1) if is_remote else Device("local:", agent_visits=1)

    order: list[str] = []
    is_waiting = threading.Event()

    def measure_second() -> None:
        with device() as second:
            second.on_message = lambda text: is_waiting.set()
            second.prepare(prepared(remote.preparation, 200.0))
            order.append("second")
            second.visit(WIDTHS, remote.protocol)

    with device() as first:
        first.prepare(remote.preparation)
        thread = threading.Thread(target=measure_second)
        thread.start()
        assert is_waiting.wait(60)
        pids = [first.visit(WIDTHS, remote.protocol).pid for _ in range(4)]
        assert len(set(pids)) == 4
        os.kill(pids[-1], signal.SIGKILL)
        assert first.visit(WIDTHS, remote.protocol).pid not in pids
        order.append("first ends")
    thread.join(60)
    assert order == ["first ends", "second"]


@pytest.mark.parametrize("is_remote", [False, True])
def test_nobody_comes_between_a_campaign_and_its_layers(
    tmp_path: Path, lenet: Preparation, monkeypatch: pytest.MonkeyPatch, is_remote: bool
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def device() -> Device:
        link = LoopbackTransport() if is_remote else None
        return Device("loopback:" if is_remote else "local:", transport=link, limits=LIMITS)

    out = tmp_path / "run"
    had_layers: list[bool] = []
    is_waiting = threading.Event()

    def measure_second() -> None:
        with device() as second:
            second.on_message = lambda text: is_waiting.set()
            second.prepare(prepared(lenet, 200.0))
            had_layers.append((out / "layers.parquet").exists())

    thread = threading.Thread(target=measure_second)

    class Followed(Silent):
        def visited(self, visit: Visit, done: int, noise: float | None) -> None:
            if not thread.ident:
                thread.start()
                assert is_waiting.wait(60)

    profile(
        device(),
        "lenet5",
        samples=3,
        out=out,
        protocol=PATIENT,
        judgement=CALM,
        observer=Followed(),
        layers=2,
    )
    thread.join(60)
    assert had_layers == [True]
    assert len(LayerProfiles.load(out)) == 2


def test_a_host_that_comes_back_is_not_kept_out_by_its_own_keeper(remote: Remote) -> None:
    first = remote.device()
    first.prepare(remote.preparation)
    first.send_ahead([("one", WIDTHS), ("two", WIDTHS)], remote.protocol, 3.0)
    remote.link.cut()
    with remote.device() as stranger, pytest.raises(DeviceInUseError) as refused:
        stranger.prepare(prepared(remote.preparation, 0.2))
    assert first.token in refused.value.full_text
    # Its keeper works on for nobody, and is found again.
    again = remote.device()
    again.token = first.token
    again.prepare(remote.preparation)
    Timing.from_dict(again.visit(WIDTHS, remote.protocol, "one").timing())
    # Another preparation is the same campaign's still.
    again.prepare(replace(remote.preparation, reference_widths=(1, 4, 30, 21)))
    Timing.from_dict(again.visit(WIDTHS, remote.protocol, "three").timing())
    again.close()
    with remote.device() as stranger:
        stranger.prepare(prepared(remote.preparation, 0.2))


def test_the_agent_of_a_killed_keeper_is_waited_for(remote: Remote) -> None:
    device = remote.device()
    device.prepare(remote.preparation)
    (agent,) = remote.agents()
    remote.kill([agent], signal.SIGSTOP)
    remote.kill(remote.keepers())

    def let_end(text: str) -> None:
        remote.said.append(text)
        if "the agent of a campaign that was killed" in text:
            remote.kill([agent], signal.SIGCONT)

    device.on_message = let_end
    answer = device.visit(WIDTHS, remote.protocol, "one")
    assert answer.pid != agent
    assert any("the agent of a campaign that was killed" in text for text in remote.said)
    device.close()


# The clock of keepers is a minute ahead as soon as a file is there.
AHEAD = """
import os, sys, time
if "keep" in getattr(sys, "orig_argv", []):
    now = time.monotonic
    time.monotonic = lambda: now() + 61 * os.path.exists({file!r})
"""


def test_a_keeper_without_host_and_work_leaves_the_device(remote: Remote, tmp_path: Path) -> None:
    minute = tmp_path / "a minute has passed"
    patch = AHEAD.format(file=str(minute))
    (tmp_path / "runtime" / "sitecustomize.py").write_text(patch)
    limits = replace(LIMITS, idle_limit_s=100_000.0)
    first = remote.device(limits)
    first.prepare(remote.preparation)
    (keeper,) = remote.keepers()
    minute.touch()
    remote.link.cut()
    with remote.device(limits) as second:
        # It has heard nothing for longer than a minute, and its agent ends.
        second.prepare(prepared(remote.preparation, 100.0))
        assert keeper in remote.keepers()
        with remote.device(limits) as again:
            again.token = first.token
            with pytest.raises(DeviceInUseError):
                again.prepare(prepared(remote.preparation, 0.2))
        # The one whose link broke tries again, as with any other trouble.
        said: list[str] = []

        def end_second(text: str) -> None:
            said.append(text)
            if "another campaign measures on the device" in text:
                second.close()

        first.on_message = end_second
        Timing.from_dict(first.visit(WIDTHS, remote.protocol, "one").timing())
        assert any("another campaign measures on the device" in text for text in said)
    first.close()


# A device whose policy refuses abstract names of sockets, as a sandbox may.
REFUSING = """
import socket
class Refusing(socket.socket):
    def bind(self, address):
        if address[:1] in (b"\\0", "\\0"):
            raise PermissionError(13, "Permission denied")
        super().bind(address)
socket.socket = Refusing
"""


def test_a_device_that_refuses_the_lock_is_measured_with_a_warning_that_stays_in_the_dataset(
    remote: Remote, tmp_path: Path
) -> None:
    class Told(Silent):
        def __init__(self) -> None:
            self.warnings: list[str] = []

        def message(self, text: str) -> None:
            self.warnings += [text] if "not kept apart" in text else []

    told = Told()
    (tmp_path / "runtime" / "sitecustomize.py").write_text(REFUSING)
    out = tmp_path / "run"
    device = remote.device(agent_visits=1)
    profile(device, "lenet5", samples=3, out=out, protocol=PATIENT, judgement=CALM, observer=told)
    reason = "an abstract name of a socket is refused (Permission denied)"
    (warning,) = told.warnings
    assert warning.startswith(
        f"warning: campaigns on this device are not kept apart, since {reason}: see to it that no "
        "other one measures there"
    )
    campaign = read_journal(out / "journal.jsonl").campaign
    assert campaign.device["device_lock"] == {"is_exclusive": False, "reason": reason}
    assert f"- device_lock: is_exclusive no, reason {reason}" in (out / "README.md").read_text()


@pytest.mark.parametrize("is_remote", [False, True])
def test_a_dataset_says_that_its_campaign_was_alone_on_the_device(
    remote: Remote, tmp_path: Path, is_remote: bool
) -> None:
    device = remote.device() if is_remote else Device("local:")
    profile(device, "lenet5", samples=1, out=tmp_path / "run", protocol=PATIENT, judgement=CALM)
    campaign = read_journal(tmp_path / "run" / "journal.jsonl").campaign
    assert campaign.device["device_lock"] == {"is_exclusive": True, "reason": None}


def test_this_machine_says_likewise_that_nothing_keeps_campaigns_apart(
    remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_lock, "sys", SimpleNamespace(platform="darwin"))
    said: list[str] = []
    with Device("local:") as device:
        device.on_message = said.append
        device.prepare(remote.preparation)
        device.prepare(remote.preparation)
        assert device.device_lock.is_exclusive is False
    (warning,) = said
    assert "not kept apart, since darwin has no abstract names of sockets: see to it" in warning


def test_a_device_without_unix_sockets_is_refused_with_what_to_do(
    remote: Remote, tmp_path: Path
) -> None:
    code = """
import errno, socket
class Refusing(socket.socket):
    def __init__(self, family=-1, *arguments, **options):
        if family == socket.AF_UNIX:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        super().__init__(family, *arguments, **options)
socket.socket = Refusing
"""
    (tmp_path / "runtime" / "sitecustomize.py").write_text(code)
    with (
        remote.device() as device,
        pytest.raises(StableDeviceError, match=r"needs Unix sockets.*allow them there"),
    ):
        device.probe()


def test_two_hosts_measure_one_after_the_other_over_ssh(
    tmp_path: Path, lenet: Preparation, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = write_fixed_time_runtime(tmp_path / "runtime", 0.0005)
    monkeypatch.setenv("HOME", str(tmp_path / "client"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    protocol = QUICK.to_dict()
    with running_sshd(tmp_path / "server", environment={"PYTHONPATH": str(runtime)}) as server:
        SshClientHome(tmp_path / "client", server)
        url = f"ssh:{server.address}"
        with Device(url, limits=LIMITS) as first, Device(url, limits=LIMITS) as second:
            said: list[str] = []
            first.prepare(lenet)
            with pytest.raises(DeviceInUseError, match="of waiting: ") as refused:
                second.prepare(prepared(lenet, 0.2))
            assert f"keep {first.token}" in refused.value.full_text
            assert second.probe().device_id
            Timing.from_dict(first.visit(WIDTHS, protocol).timing())

            def end_first(text: str) -> None:
                said.append(text)
                first.close()

            second.on_message = end_first
            second.prepare(prepared(lenet, 200.0))
            assert len(said) == 1
            assert re.search(rf"process \d+ \('.*keep {first.token}', in .*waiting up to", said[0])
            Timing.from_dict(second.visit(WIDTHS, protocol).timing())
            # The campaign on the device itself is one more.
            local = replace(lenet, protocol={"start_timeout_s": 0.2})
            with Device("local:") as here, pytest.raises(DeviceInUseError) as refused:
                here.prepare(local)
            assert second.token in refused.value.full_text
            # Its keeper is killed: its agent ends, and with it the lock.
            server.end_agents()
            with Device("local:") as here:
                here.prepare(local)

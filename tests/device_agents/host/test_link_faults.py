"""Whole campaigns on a device behind a link, while links, agents, keepers and hosts are ended."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from joulemap.datasets import CostDataset
from joulemap.datasets.journal import read_journal

from ..conftest import Remote

# A process that has imported everything and forks a campaign per line of its input: a seed, from
# which it draws how many bytes every second link carries until it is cut.
HOSTS = """
import os, random, sys, time
from joulemap.datasets import JudgementSettings
from joulemap.device_agents import device as devices
from joulemap.device_agents.host.keeper_client import LinkLimits
from joulemap.device_agents.simulated.loopback import LoopbackTransport
from joulemap.profiler import networks, profile, Protocol
from joulemap.profiler.campaign.observer import Silent
from joulemap.profiler.templates import export as templates
templates.cache_folder = lambda kind: templates.Path(sys.argv[4])
allowed = templates.Path(sys.argv[5])
# Visits of milliseconds are noisy; here it counts how many there are, not how good.
calm = JudgementSettings(max_change=99.0, min_state_gap=99.0, outlier_change=99.0,
                         max_steal_share=99.0)
devices.VISIT_GRACE_S = 1.0
devices.PREPARE_TIMEOUT_S = 20.0
networks.get("lenet5")
out, acknowledged, samples = sys.argv[1], sys.argv[2], int(sys.argv[3])
protocol = Protocol(visits=1, max_visit_s=0.02, max_warm_up_s=0.02, block_s=0.003, min_run_s=2e-4,
                    reference_s=0.002, max_attempts=100, has_revisits=False, start_timeout_s=0.01,
                    max_further_visits=0)
limits = LinkLimits(first_wait_s=0.02, longest_wait_s=0.3, give_up_s=60.0, connect_s=10.0,
                    beat_s=0.3, silence_s=1.5, deliver_s=0.3, idle_limit_s=30.0)

class Acknowledge(Silent):
    def message(self, text):
        if "broke" in text:
            os.write(self.file, b"broke\\n")
    def visited(self, visit, done, noise):
        name = f"visit {visit.variant_id} {visit.visit_index} {visit.attempt}\\n"
        os.write(self.file, name.encode())
        # Not to the end before all that goes wrong has gone wrong.
        while done >= int(allowed.read_text()):
            time.sleep(0.01)

class Link(LoopbackTransport):
    def start(self, command):
        process = super().start(command)
        if self.rng.random() < 0.5:
            self.bytes_to_cut = self.rng.randrange(60000)
        return process

for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        observer, link = Acknowledge(), Link()
        link.rng = random.Random(int(line))
        observer.file = os.open(acknowledged, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        device = devices.Device("loopback:", transport=link, limits=limits)
        try:
            profile(device, "lenet5", samples=samples, out=out, protocol=protocol,
                             judgement=calm, observer=observer)
        except BaseException as error:
            print(f"campaign: {error!r}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class Hosts:
    """Runs one campaign, begun again whenever its host was killed."""

    def __init__(self, folder: Path, samples: int, templates: Path) -> None:
        self.run = folder / "run"
        self.journal = self.run / "journal.jsonl"
        self.log = folder / "acknowledged"
        self.allowed = folder / "allowed"
        self.allow(1)
        paths = [str(self.run), str(self.log)]
        arguments = [*paths, str(samples), str(templates), str(self.allowed)]
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", HOSTS, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid: int | None = None
        self.num_started = 0

    def start(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{self.num_started}\n")
        self.process.stdin.flush()
        self.num_started += 1
        self.pid = int(self.line())

    def allow(self, number: int) -> None:
        """Let it make so many visits."""
        new = self.allowed.with_suffix(".new")
        new.write_text(str(number))
        new.replace(self.allowed)

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def kill(self) -> None:
        """Kill it with -9, check what it left, start another."""
        assert self.pid is not None
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        assert self.ended() == -signal.SIGKILL
        self.check()
        self.start()

    def ended(self) -> int:
        """Wait for its end; return how it ended."""
        code = int(self.line())
        self.pid = None
        return code

    def acknowledged(self) -> list[str]:
        if not self.log.exists():
            return []
        return [line for line in self.log.read_text().splitlines() if line.startswith("visit")]

    def num_broken(self) -> int:
        return self.log.read_text().count("broke")

    def check(self) -> list[str]:
        """Return the journal's visits, none of them twice, all that were acknowledged there."""
        if not self.journal.exists():
            assert not self.acknowledged()
            return []
        visits = read_journal(self.journal).visits
        names = [f"visit {v.variant_id} {v.visit_index} {v.attempt}" for v in visits]
        assert len(names) == len(set(names)), "a visit is there twice"
        assert set(self.acknowledged()) <= set(names), "an acknowledged visit is lost"
        return names

    def close(self) -> None:
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()
        self.process.wait()


def inflict(remote: Remote, hosts: Hosts, fault: str, rng: random.Random) -> None:
    """Let one thing go wrong."""
    if fault == "link cut":
        remote.kill(remote.links())
    elif fault == "link stalls":
        remote.kill(remote.links(), signal.SIGSTOP)
    elif fault == "agent killed":
        remote.kill(remote.agents())
    elif fault == "agent hangs":
        remote.kill(remote.agents(), signal.SIGSTOP)
    elif fault == "keeper killed":
        remote.kill(remote.keepers())
    elif fault == "host killed":
        hosts.kill()
    elif fault == "device pauses":
        remote.kill(remote.everything(), signal.SIGSTOP)
        time.sleep(rng.uniform(0.1, 2.0))
        remote.kill(remote.everything(), signal.SIGCONT)
    else:
        assert fault == "device reboots"
        remote.reboot()
        for folder in remote.folders():
            with contextlib.suppress(FileNotFoundError), (folder / "spool").open("r+b") as spool:
                spool.seek(0, 2)
                spool.write(rng.randbytes(rng.randrange(60)))


FAULTS = (
    "link cut",
    "link cut",
    "link stalls",
    "agent killed",
    "agent hangs",
    "keeper killed",
    "host killed",
    "device pauses",
    "device reboots",
)


def survive(
    remote: Remote, folder: Path, templates: Path, faults: list[str], samples: int, seed: int
) -> tuple[int, float]:
    """Run one campaign through the faults to its end; return broken links and seconds."""
    rng = random.Random(seed)
    hosts = Hosts(folder, samples, templates)
    began = time.monotonic()
    try:
        hosts.start()
        for number, fault in enumerate(faults, start=1):
            before = len(hosts.acknowledged())
            hosts.allow(samples * number // (len(faults) + 1))
            deadline = time.monotonic() + 60
            while len(hosts.acknowledged()) == before:
                assert time.monotonic() < deadline, f"nothing is measured any more before {fault}"
                assert hosts.process.poll() is None
                time.sleep(0.005)
            time.sleep(rng.uniform(0, 0.3))
            inflict(remote, hosts, fault, rng)
        made = len(hosts.acknowledged())
        assert made < samples, "the campaign ended before the faults did"
        hosts.allow(2 * samples)
        assert hosts.ended() == 0
        names = hosts.check()
    finally:
        if hosts.pid is not None:
            remote.kill([hosts.pid])
        hosts.close()
    visits = read_journal(hosts.journal).visits
    measured = Counter(visit.variant_id for visit in visits if visit.timing is not None)
    assert len(measured) == samples
    assert set(measured.values()) == {1}, "a variant was measured twice"
    assert len(names) - samples == sum(visit.error is not None for visit in visits)
    assert len(CostDataset.load(hosts.run)) == samples
    remote.wait_until(lambda: not remote.everything(), "something still runs on the device")
    assert not remote.folders(), "something was left on the device"
    return hosts.num_broken(), time.monotonic() - began


def test_a_killed_host_continues_after_cuts_and_a_reboot(
    remote: Remote, tmp_path: Path, templates: Path
) -> None:
    survive(
        remote, tmp_path, templates, ["host killed", "device reboots", "host killed"], 70, seed=0
    )


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_campaign_survives_two_hundred_random_faults(
    remote: Remote, tmp_path: Path, templates: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faults = random.Random(1).choices(FAULTS, k=200)
    broken, seconds = survive(remote, tmp_path, templates, faults, samples=2500, seed=1)
    assert broken > 100
    with capsys.disabled():
        counts = ", ".join(f"{number} x {name}" for name, number in Counter(faults).most_common())
        print(f"\n200 faults ({counts}) and links cut at random bytes, {broken} broken links")
        print(f"2500 of 2500 variants measured once, none lost, none twice, in {seconds:.0f} s")

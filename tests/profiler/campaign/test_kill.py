"""kill -9 of host and agent at any moment, a hundred times: nothing lost, nothing doubled."""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from joulemap.datasets import CostDataset
from joulemap.datasets.journal import read_journal

HOST_KILLS = 60
AGENT_KILLS = 40

# A hundred starts of agents take long where the machine is slow.
pytestmark = pytest.mark.timeout(900)

# A process that has imported everything and forks a campaign per line of its input, so that a
# hundred campaigns do not spend their time on imports. The campaigns are processes of their own.
FORKS = """
import contextlib, os, random, signal, sys, threading, time
from joulemap.datasets import JudgementSettings
from joulemap.profiler import networks, profile, Protocol
from joulemap.profiler.campaign.observer import Silent
# Visits of milliseconds are noisy; here it counts how many there are, not how good.
calm = JudgementSettings(max_change=99.0, min_state_gap=99.0, outlier_change=99.0,
                         max_steal_share=99.0)
networks.get("lenet5")
out, acknowledged = sys.argv[1:3]
samples, agent_kills = map(int, sys.argv[3:])
protocol = Protocol(visits=3, max_visit_s=0.02, block_s=0.003, min_run_s=2e-4,
                    reference_s=0.002, max_attempts=100, has_revisits=False, start_timeout_s=0.01,
                    max_further_visits=0)

class Acknowledge(Silent):
    # Also kills so many agents: each some time after its first visit, before its fourth.
    def __init__(self):
        self.file = os.open(acknowledged, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self.random, self.kills, self.pid = random.Random(1), agent_kills, None
    def visited(self, visit, done, noise):
        pid = visit.timing.pid if visit.timing else 0
        os.write(self.file, f"{visit.variant_id} {visit.visit_index} {visit.attempt} "
                            f"{pid}\\n".encode())
        if pid and pid != self.pid and self.kills:
            self.pid, self.visits, self.kills = pid, 0, self.kills - 1
            wait_s = self.random.uniform(0, 0.08)
            self.thread = threading.Thread(target=self.kill, args=(pid, wait_s))
            self.thread.start()
        if pid and pid == self.pid:
            self.visits += 1
            if self.visits == 3:
                self.thread.join()
    def kill(self, pid, wait_s):
        time.sleep(wait_s)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        try:
            profile("local:", "lenet5", samples=samples, out=out, protocol=protocol,
                             judgement=calm, observer=Acknowledge())
        except BaseException as error:
            print(f"campaign: {error!r}", file=sys.stderr)
            os._exit(1)
        os._exit(0)
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class Host:
    """Runs campaigns of one folder, one after another."""

    def __init__(self, folder: Path, samples: int, agent_kills: int = 0) -> None:
        self.journal = folder / "run" / "journal.jsonl"
        self.acknowledged = folder / "acknowledged"
        arguments = (folder / "run", self.acknowledged, samples, agent_kills)
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", FORKS, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )

    def start(self) -> int:
        assert self.process.stdin is not None
        self.process.stdin.write(b"run\n")
        return self.number()

    def number(self) -> int:
        """Return what the process prints next: the campaign's process id, then how it ended."""
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())

    def wait_for_visit(self) -> None:
        """Return when the campaign that runs has made a visit."""
        assert self.process.stdout is not None
        before = len(self.acknowledgements())
        while len(self.acknowledgements()) == before:
            has_ended, _, _ = select.select([self.process.stdout], [], [], 0.01)
            assert not has_ended, f"the campaign ended with code {self.number()}"

    def acknowledgements(self) -> list[list[str]]:
        if not self.acknowledged.exists():
            return []
        return [line.split() for line in self.acknowledged.read_text().splitlines()]

    def close(self) -> None:
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()
        self.process.wait()


@pytest.fixture
def start_host() -> Iterator[Callable[..., Host]]:
    with contextlib.ExitStack() as stack:
        yield lambda *args, **kwargs: stack.enter_context(contextlib.closing(Host(*args, **kwargs)))


def check(host: Host, kills: int) -> int:
    """Compare the journal with what was acknowledged; return its number of visits."""
    if not host.journal.exists():
        assert not host.acknowledgements()
        return 0
    keys = [visit.key for visit in read_journal(host.journal).visits]
    assert len(keys) == len(set(keys)), "a visit is there twice"
    acknowledged = {(name, int(i), int(a)) for name, i, a, _ in host.acknowledgements()}
    assert acknowledged <= set(keys), "an acknowledged visit is lost"
    # Each kill may hit between the journal's line and its acknowledgement.
    assert len(set(keys) - acknowledged) <= kills
    return len(keys)


def test_killing_the_host_loses_at_most_the_visit_in_flight(
    tmp_path: Path, start_host: Callable[..., Host]
) -> None:
    rng = random.Random(0)
    host = start_host(tmp_path, samples=600)
    num_after_visits = 0
    for kill in range(1, HOST_KILLS + 1):
        pid = host.start()
        if rng.random() < 0.8:
            # Most kills hit while visits are made, the others while the campaign starts.
            host.wait_for_visit()
            num_after_visits += 1
            time.sleep(rng.uniform(0, 0.2))
        else:
            time.sleep(rng.uniform(0, 0.8))
        os.kill(pid, signal.SIGKILL)
        assert host.number() == -signal.SIGKILL
        check(host, kill)
    assert num_after_visits <= check(host, HOST_KILLS) < 600 * 3


def test_killing_the_agent_costs_visits_but_not_the_campaign(
    tmp_path: Path, start_host: Callable[..., Host]
) -> None:
    host = start_host(tmp_path, samples=60, agent_kills=AGENT_KILLS)
    host.start()
    assert host.number() == 0
    check(host, 0)
    visits = read_journal(host.journal).visits
    succeeded = [(visit.variant_id, visit.visit_index) for visit in visits if visit.error is None]
    assert len(succeeded) == len(set(succeeded)) == 60 * 3
    made = Counter(visit.timing.pid for visit in visits if visit.timing)
    assert len(made) > AGENT_KILLS
    assert all(number <= 3 for number in list(made.values())[:AGENT_KILLS])
    errors = [visit.error for visit in visits if visit.error]
    assert errors, "no agent was killed during a visit"
    assert all("killed by signal 9" in error for error in errors)
    assert len(CostDataset.load(tmp_path / "run")) == 60

"""A process that did not have its processor is told by its CPU time, and that is said first."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulemap.datasets import Block, NetworkSpec, Timing, Visit
from joulemap.datasets.journal import CampaignRecord, JournalContent
from joulemap.profiler.campaign.advice import advise, campaign_findings
from joulemap.profiler.campaign.findings import Finding, Severity, in_order
from joulemap.profiler.campaign.starvation import processor_share, starvation

MakeVisits = Callable[..., list[Visit]]

# Blocks of busy work, timed by the agent's own stopwatch.
BUSY = """
import json, sys
from joulemap.device_agents.onboard.machine.clock import MachineClock
from joulemap.device_agents.onboard.visit import Stopwatch

def run():
    for _ in range(20_000):
        pass

print("ready", flush=True)
sys.stdin.readline()
watch = Stopwatch(MachineClock(), [])
print(json.dumps([watch.block(run, 60, 1) for _ in range(5)]))
"""


def with_share(visit: Visit, share: float, steal: float | None = None) -> Visit:
    """The visit whose process had a processor for this share of the time."""
    timing = visit.timing
    assert timing is not None
    blocks = tuple(
        dataclasses.replace(
            block,
            cpu_s=share * block.wall_s,
            steal_s=None if steal is None else steal * block.wall_s,
        )
        for block in timing.blocks
    )
    return dataclasses.replace(visit, timing=dataclasses.replace(timing, blocks=blocks))


@pytest.fixture
def visits(tiny_spec: NetworkSpec, make_visits: MakeVisits) -> list[Visit]:
    return make_visits(tiny_spec, variants=20, visits=3, noise=0.01)


def journal(campaign: CampaignRecord, visits: list[Visit]) -> JournalContent:
    return JournalContent(campaign, tuple(visits), {}, 0)


def test_a_process_with_a_third_of_the_processor_is_the_first_warning(
    campaign: CampaignRecord, visits: list[Visit]
) -> None:
    starved = [with_share(visit, 0.38) for visit in visits]
    first = campaign_findings(journal(campaign, starved))[0]
    assert first.severity is Severity.MAY_BE_WRONG
    assert "only 38 % of the time" in first.text
    assert "2.6 times" in first.text
    # Whatever the load average says.
    assert all(visit.timing and visit.timing.machine["load_1min"] == 0.5 for visit in starved)


@pytest.mark.parametrize("share", [0.97, 1.0, 2.0, 3.9])
def test_honest_visits_of_one_or_several_threads_are_not_warned_of(
    campaign: CampaignRecord, visits: list[Visit], share: float
) -> None:
    said = advise(journal(campaign, [with_share(visit, share) for visit in visits]))
    assert not any("processor for" in sentence for sentence in said)


def test_a_few_starved_visits_are_no_finding_and_all_are_counted(visits: list[Visit]) -> None:
    timings = [with_share(visit, 0.5 if n < 3 else 1.0).timing for n, visit in enumerate(visits)]
    found = starvation([timing for timing in timings if timing])
    assert found is not None
    assert (found.num_visits, found.share) == (3, 3 / 60)
    assert found.processor_share == pytest.approx(0.5)


def test_what_a_hypervisor_withholds_is_not_starvation(visits: list[Visit]) -> None:
    timing = with_share(visits[0], 0.6, steal=0.4).timing
    assert timing is not None
    assert processor_share(timing) == pytest.approx(1.0)


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="no job control here")
def test_a_really_starved_process_shows_it_in_its_blocks(visits: list[Visit]) -> None:
    """The process is stopped two thirds of the time, as a CPU quota does."""
    process = subprocess.Popen(
        [sys.executable, "-c", BUSY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONSAFEPATH": "1"},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        process.stdin.write("\n")
        process.stdin.flush()
        until = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < until:
            process.send_signal(signal.SIGSTOP)
            time.sleep(0.02)
            process.send_signal(signal.SIGCONT)
            time.sleep(0.01)
        blocks = tuple(Block.from_dict(item) for item in json.loads(process.stdout.read()))
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()
    timing = visits[0].timing
    assert timing is not None
    found = starvation([dataclasses.replace(timing, blocks=blocks)])
    assert found is not None
    assert found.processor_share < 0.7


@given(st.lists(st.sampled_from(Severity), max_size=8))
def test_findings_come_in_the_order_of_their_severity(severities: list[Severity]) -> None:
    found = in_order(Finding(str(n), item, "") for n, item in enumerate(severities))
    assert [finding.severity for finding in found] == sorted(severities, reverse=True)
    for one, two in itertools.pairwise(found):
        assert one.severity > two.severity or int(one.subject) < int(two.subject)


def test_two_findings_about_one_subject_are_refused() -> None:
    with pytest.raises(ValueError, match="speed"):
        in_order([Finding("speed", Severity.NOTE, "a"), Finding("speed", Severity.NOTE, "b")])


def test_a_drift_of_the_reference_alone_is_said_once_and_the_same_everywhere(
    campaign: CampaignRecord, visits: list[Visit]
) -> None:
    def drifted(visit: Visit) -> Visit:
        timing: Timing | None = visit.timing
        assert timing is not None
        factor = 1 + 0.2 * visit.sequence / len(visits)

        def slow(block: Block) -> Block:
            return dataclasses.replace(
                block, latencies_s=tuple(factor * run for run in block.latencies_s)
            )

        return dataclasses.replace(
            visit,
            timing=dataclasses.replace(
                timing,
                reference_before=slow(timing.reference_before),
                reference_after=slow(timing.reference_after),
            ),
        )

    said = advise(journal(campaign, [drifted(visit) for visit in visits]))
    about = [sentence for sentence in said if "drift" in sentence]
    assert len(about) == 1
    assert "hardly corrected for" in about[0]
    assert "Visits are corrected" not in about[0]

"""Processes that are stopped for a random share of the time, as CPU quotas and other programs do."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import subprocess
import sys
import time

from joulemap.datasets import Block
from joulemap.profiler.campaign.starvation import MIN_PROCESSOR_SHARE
from trials import Outcome, Trial

TRIES = 3
LIMIT_S = 60.0
PERIOD_S = 0.05
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
print(json.dumps([watch.block(run, 25, 1) for _ in range(4)]))
"""


def starved(seed: int) -> Outcome:
    """Return how often a process that had at most 70 % of its time went unnoticed."""
    rng = random.Random(seed)  # noqa: S311 - reproducible, not secret
    failures, shares = [], []
    for _ in range(TRIES):
        granted = rng.uniform(0.2, 0.7)
        share = _share_of(granted)
        shares.append(share)
        if share >= MIN_PROCESSOR_SHARE:
            failures.append(f"seed {seed}: {granted:.2f} of the time granted, {share:.2f} seen")
    return Outcome(TRIES, tuple(failures), (("processor share", sum(shares) / TRIES),))


def _share_of(granted: float) -> float:
    """Return the CPU time over the duration that a process shows with that share of the time."""
    process = subprocess.Popen(
        [sys.executable, "-c", BUSY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("the process has no pipes")
    try:
        process.stdout.readline()
        process.stdin.write("\n")
        process.stdin.flush()
        until = time.monotonic() + LIMIT_S
        while process.poll() is None and time.monotonic() < until:
            process.send_signal(signal.SIGSTOP)
            time.sleep(PERIOD_S * (1.0 - granted))
            process.send_signal(signal.SIGCONT)
            time.sleep(PERIOD_S * granted)
        blocks = [Block.from_dict(item) for item in json.loads(process.stdout.read())]
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()
    return sum(block.cpu_s for block in blocks) / sum(block.wall_s for block in blocks)


TRIALS = (
    Trial("starved", "a process that lacked its processor is noticed by its CPU time", 10, starved),
)

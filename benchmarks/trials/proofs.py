"""Random budgets at every magnitude: what `allocate` says is compared with every width vector."""

from __future__ import annotations

import sys
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings

from . import Outcome, Trial

NUM_PROBLEMS = 40


def run(number: int) -> Outcome:
    """Solve as many problems as a round has, also by looking at all that could be chosen."""
    # Last, since folders beside it are called as others' packages are.
    sys.path.append(str(Path(__file__).parents[2]))
    from tests.models.allocation_problems import Problem, problems

    failures: list[str] = []
    tries = 0

    @settings(
        max_examples=NUM_PROBLEMS,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @seed(number)
    @given(problems())
    def compare(problem: Problem) -> None:
        nonlocal tries
        tries += 1
        flaw = problem.flaw()
        if flaw is not None:
            failures.append(f"seed {number}: widths {problem.spec.max_widths}: {flaw:.300}")

    compare()
    return Outcome(tries, tuple(failures))


TRIALS = (
    Trial(
        name="proofs",
        promise="widths that are said to be the best within a budget are, and bounds hold",
        rounds=25,
        run=run,
    ),
)

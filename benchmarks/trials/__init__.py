"""What `benchmarks/trust.py` tries: each file attacks one promise of joulemap, many times.

A file defines `TRIALS`, and its name stands in `FILES`. A trial is made in rounds, each in a process
of its own with a time limit, so that a hang is a failure that is counted.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

FILES: tuple[str, ...] = (
    "advice",
    "coverage",
    "hostile_devices",
    "hostile_files",
    "lying_specs",
    "odd_tables",
    "other_users",
    "proofs",
    "sensors",
    "signals",
    "special_files",
    "ssh_configurations",
    "starved",
)


@dataclass(frozen=True)
class Outcome:
    """What one round found.

    Attributes:
        tries: How often the promise was put to the test.
        failures: One line for each time it did not hold: what was done, what came of it.
        figures: Further numbers of the round, by name; their means are printed.
    """

    tries: int
    failures: tuple[str, ...] = ()
    figures: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Trial:
    """One promise and how it is attacked.

    Attributes:
        name: What `--only` takes.
        promise: What must hold, one line of the table.
        rounds: Of a whole run; a share of it makes as many rounds fewer, at least one.
        run: Makes the round of this seed.
        limit_s: A round that takes longer has hung.
        may_fail: Share of the tries that may fail, such as 0.05 for 95 % intervals. It is too many
            where rounds, which are independent of each other, show so beyond chance.
    """

    name: str
    promise: str
    rounds: int
    run: Callable[[int], Outcome]
    limit_s: float = 300.0
    may_fail: float = 0.0


def trials() -> dict[str, Trial]:
    """Return every trial by its name, in the order of `FILES`."""
    found: dict[str, Trial] = {}
    for file in FILES:
        for trial in importlib.import_module(f"{__name__}.{file}").TRIALS:
            if trial.name in found:
                raise ValueError(f"two trials are named {trial.name}")
            found[trial.name] = trial
    return found

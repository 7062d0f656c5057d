"""What was compared and why one was chosen, in plain words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from joulemap import InputError

from .base.intervals import FloatArray


@dataclass(frozen=True)
class Choice:
    """What was compared, and what came of it.

    Attributes:
        names: Names of the candidates, the simplest first.
        table: Their errors and excesses, see `AutoPredictor.table_`.
        reasons: Why candidates were not fitted, by name.
        chosen: Name of the chosen one.
        num_rows: Rows that the choice was made on.
        num_parts: Parts that they were held out in.
        num_samples: Rows that the chosen one was fitted to.
        mean_error: Error on held-out rows, the choice included, a fraction; None without data.
        findings: What the chosen one says.
    """

    names: Sequence[str]
    table: FloatArray
    reasons: Mapping[str, str]
    chosen: str
    num_rows: int
    num_parts: int
    num_samples: int
    mean_error: float | None
    findings: Sequence[str]


def describe(choice: Choice) -> list[str]:
    """Return sentences: which model was chosen and why, the others' errors, what it found."""
    names, table = choice.names, choice.table
    found = {name: row for name, row in zip(names, table, strict=True) if row[0] >= 0}
    chosen, rows = choice.chosen, choice.num_rows
    best = min(found, key=lambda name: float(found[name][0]))
    said = [_why(chosen, best, found)]
    part = "all" if rows == choice.num_samples else f"{rows} of {choice.num_samples}"
    listed = ", ".join(f"{name} {_error(row)}" for name, row in found.items())
    said.append(
        f"Held-out errors, each with its standard error, from {part} measurements in "
        f"{choice.num_parts} "
        f"parts, the simplest model first: {listed}."
    )
    if choice.reasons:
        reasons = "; ".join(f"{name} ({reason})" for name, reason in choice.reasons.items())
        said.append(f"Not fitted: {reasons}.")
    if choice.mean_error is not None:
        said.append(
            f"The choice was made anew without each fifth of the variants; predicted so, that "
            f"fifth is off by {100 * choice.mean_error:.1f} % on average. Intervals "
            "are from these errors."
        )
    return said + [f"{chosen}: {sentence}" for sentence in choice.findings]


def _why(chosen: str, best: str, found: dict[str, FloatArray]) -> str:
    if len(found) == 1:
        return f"{chosen} was taken: no other candidate can be fitted to these data."
    if chosen == best:
        simpler = list(found)[: list(found).index(chosen)]
        reason = " by more than one standard error" if simpler else ", and it is the simplest"
        return (
            f"{chosen} was chosen of {len(found)} models: it predicts held-out variants "
            f"best{reason}."
        )
    excess, uncertainty = 100 * found[chosen][2], 100 * found[chosen][3]
    return (
        f"{chosen} was chosen of {len(found)} models: it is the simplest whose error is within one "
        f"standard error of the smallest, that of {best} (the difference is {excess:.2f} +- "
        f"{uncertainty:.2f} %)."
    )


def _error(row: FloatArray) -> str:
    return f"{100 * row[0]:.1f} +- {100 * row[1]:.1f} %"


def reasons_from_numbers(numbers: FloatArray) -> dict[str, str]:
    """Return texts by name that a file before version 2 holds as the bytes of their JSON.

    Raises:
        InputError: They are no texts by name.
    """
    wrong = InputError("reasons_ are no texts by name")
    if np.ndim(numbers) != 1 or np.any((numbers < 0) | (numbers > 255)):
        raise wrong
    try:
        found = json.loads(numbers.astype(np.uint8).tobytes())
    except (ValueError, RecursionError) as error:
        raise wrong from error
    if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
        raise wrong
    return found

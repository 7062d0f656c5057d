"""What was compared and why one was chosen, in plain words."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from joulemap import InputError

from . import registry
from .base.intervals import FloatArray

if TYPE_CHECKING:
    from .auto import AutoPredictor


def describe(predictor: AutoPredictor) -> list[str]:
    """Return sentences: which model was chosen and why, the others' errors, what it found.

    Args:
        predictor: A fitted predictor.
    """
    names, table = predictor.names, predictor.table_
    found = {name: row for name, row in zip(names, table, strict=True) if row[0] >= 0}
    chosen = registry.name_of(predictor.chosen_[0])
    best = min(found, key=lambda name: float(found[name][0]))
    said = [_why(chosen, best, found)]
    rows, folds = (int(number) for number in predictor.num_compared_)
    part = "all" if rows == predictor.num_samples_ else f"{rows} of {predictor.num_samples_}"
    listed = ", ".join(f"{name} {_error(row)}" for name, row in found.items())
    said.append(
        f"Held-out errors, each with its standard error, from {part} measurements in {folds} "
        f"parts, the simplest model first: {listed}."
    )
    if predictor.reasons:
        reasons = "; ".join(f"{name} ({reason})" for name, reason in predictor.reasons.items())
        said.append(f"Not fitted: {reasons}.")
    if predictor.held_out_ is not None:
        said.append(
            f"The choice was made anew without each fifth of the variants; predicted so, that "
            f"fifth is off by {100 * predictor.held_out_.mean_error:.1f} % on average. Intervals "
            "are from these errors."
        )
    return said + [f"{chosen}: {sentence}" for sentence in predictor.chosen.describe()]


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


def reasons_to(reasons: dict[str, str]) -> FloatArray:
    """Return texts by name as numbers, which files hold: the bytes of their JSON."""
    return np.frombuffer(json.dumps(reasons).encode(), dtype=np.uint8).astype(np.float64)


def reasons_from(numbers: FloatArray) -> dict[str, str]:
    """Return what `reasons_to` wrote.

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

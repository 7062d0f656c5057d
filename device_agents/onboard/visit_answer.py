"""What a device answers to a visit: raw times, the machine's conditions, what meters say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from .answer_error import AnswerError

# What no visit need have.
_OPTIONAL = ("energy", "simulated_energy_j")


@dataclass(frozen=True)
class VisitAnswer:
    """What a device answers to a visit.

    On the device it holds what was measured, on the host what the device says was: there its parts
    are checked where they become a record.

    Args:
        warm_up_s: Seconds per call of each warm-up run.
        is_settled: Whether the warm-up ended before its time was up.
        blocks: The timed blocks: `latencies_s`, `calls_per_run`, `wall_s`, `cpu_s`, `steal_s`.
        reference_before: Such a block of the reference, before.
        reference_after: ... and after.
        measuring_s: First warm-up call to last timed call.
        materialise_s: Building the model.
        load_s: Creating the runtime's session.
        model_bytes: Size of the model.
        machine: Readings of the machine's conditions.
        pid: The agent's process id.
        energy: What the meters say; None without one.
        simulated_energy_j: Joules per call that a simulated device computes; None for all others.
    """

    warm_up_s: Sequence[float]
    is_settled: bool
    blocks: Sequence[Mapping[str, Any]]
    reference_before: Mapping[str, Any]
    reference_after: Mapping[str, Any]
    measuring_s: float
    materialise_s: float
    load_s: float
    model_bytes: int
    machine: Mapping[str, Any]
    pid: int
    energy: Mapping[str, Any] | None = None
    simulated_energy_j: float | None = None

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> VisitAnswer:
        """Return what an answer holds.

        Raises:
            AnswerError: A field is missing, or not known.
        """
        names = [item.name for item in fields(cls)]
        missing = sorted(set(names) - set(_OPTIONAL) - set(content))
        unknown = sorted(set(content) - set(names))
        if missing:
            raise AnswerError(f"a timing lacks '{missing[0]}'")
        if unknown:
            raise AnswerError(f"a timing has an unknown field '{unknown[0]!s:.50}'")
        return cls(**content)

    def to_dict(self) -> dict[str, Any]:
        """Return it as it is sent, JSON; what it need not have is left out where there is none."""
        found = self.timing()
        found.update(
            (name, value)
            for name, value in ((name, getattr(self, name)) for name in _OPTIONAL)
            if value is not None
        )
        return found

    def timing(self) -> dict[str, Any]:
        """Return all but what meters say, as a journal holds it."""
        names = (item.name for item in fields(self) if item.name not in _OPTIONAL)
        return {name: getattr(self, name) for name in names}

"""What a device says of itself when it is probed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .answer_error import AnswerError


@dataclass(frozen=True)
class ProbeAnswer:
    """What a device says of itself.

    What joulemap goes by has a field of its own; of the rest, which people read, nothing is asked.

    Args:
        device_id: Tells it from other devices.
        cpu_model: Name of its processor; None where it does not say, as in all fields that follow.
        num_cpus: How many CPUs it has.
        available_cpus: The numbers of those that joulemap may use; empty where it does not say.
        python: Version of its Python.
        python_path: Where that lies.
        runtimes: Version of each runtime that the agent knows, None where it is not installed.
        details: All that it says, these fields included, as journals and datasets hold it.
    """

    device_id: str
    cpu_model: str | None = None
    num_cpus: int | None = None
    available_cpus: Sequence[int] = ()
    python: str | None = None
    python_path: str | None = None
    runtimes: Mapping[str, str | None] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> ProbeAnswer:
        """Return what an answer says; of what makes no sense, nothing.

        Raises:
            AnswerError: It names no `device_id`.
        """
        device_id, cpus = content.get("device_id"), content.get("available_cpus")
        count, runtimes = content.get("num_cpus"), content.get("runtimes")
        if not isinstance(device_id, str):
            raise AnswerError("it names no device_id")
        return cls(
            device_id=device_id,
            cpu_model=_text(content.get("cpu_model")),
            num_cpus=count if type(count) is int else None,
            available_cpus=tuple(cpu for cpu in cpus if type(cpu) is int)
            if isinstance(cpus, list)
            else (),
            python=_text(content.get("python")),
            python_path=_text(content.get("python_path")),
            runtimes={str(name): _text(version) for name, version in runtimes.items()}
            if isinstance(runtimes, Mapping)
            else {},
            details=dict(content),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it as it is sent and kept in a journal, JSON."""
        return dict(self.details)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None

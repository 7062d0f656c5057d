"""What an agent answers to a preparation: what it could do of what it was asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from .answer_error import AnswerError


@dataclass(frozen=True)
class Affinity:
    """Whether the agent is bound to as many CPUs as it has threads.

    Args:
        is_bound: Whether it is; None where the device does not say.
        reason: Why not, in words.
    """

    is_bound: bool | None = None
    reason: str | None = None

    @classmethod
    def from_dict(cls, content: object) -> Affinity:
        """Return what an answer says of it, nothing where it makes no sense."""
        said = _table(content)
        return cls(_answered(said.get("is_bound")), _text(said.get("reason")))

    def to_dict(self) -> dict[str, Any]:
        """Return it as it is sent and kept in a journal, JSON."""
        return asdict(self)


@dataclass(frozen=True)
class FrequencyHold:
    """Whether the CPUs' clock is held.

    Args:
        is_locked: Whether it is; None where the device does not say.
        reason: Why not, in words; None also where it was not asked for.
    """

    is_locked: bool | None = None
    reason: str | None = None

    @classmethod
    def from_dict(cls, content: object) -> FrequencyHold:
        """Return what an answer says of it, nothing where it makes no sense."""
        said = _table(content)
        return cls(_answered(said.get("is_locked")), _text(said.get("reason")))

    def to_dict(self) -> dict[str, Any]:
        """Return it as it is sent and kept in a journal, JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Exclusivity:
    """Whether other campaigns are kept off the device.

    Args:
        is_exclusive: Whether they are; None where the device does not say.
        reason: Why not, in words.
    """

    is_exclusive: bool | None = None
    reason: str | None = None

    @classmethod
    def from_dict(cls, content: object) -> Exclusivity:
        """Return what an answer says of it, nothing where it makes no sense."""
        said = _table(content)
        return cls(_answered(said.get("is_exclusive")), _text(said.get("reason")))

    def to_dict(self) -> dict[str, Any]:
        """Return it as it is sent and kept in a journal, JSON."""
        return asdict(self)


@dataclass(frozen=True)
class MetersInUse:
    """Which meters visits read.

    Args:
        chosen: A description of each, as a journal holds it: checked where it becomes a record.
        why: Why these, or why none.
        warnings: What the user should know of them.
        is_simulated: Whether a simulator computes joules where no meter is read; None where no
            simulator says it.
    """

    chosen: Sequence[Mapping[str, Any]] = ()
    why: str | None = None
    warnings: Sequence[str] = ()
    is_simulated: bool | None = None

    @classmethod
    def from_dict(cls, content: object) -> MetersInUse:
        """Return what an answer says of meters, no meter where it makes no sense.

        Raises:
            AnswerError: What it calls the chosen meters is no list of descriptions.
        """
        said = _table(content)
        chosen, warnings = said.get("chosen") or [], said.get("warnings")
        if not isinstance(chosen, list) or not all(isinstance(item, Mapping) for item in chosen):
            raise AnswerError("no list of meters")
        return cls(
            chosen=tuple(chosen),
            why=_text(said.get("why")),
            warnings=tuple(map(str, warnings)) if isinstance(warnings, list) else (),
            is_simulated=_answered(said.get("is_simulated")),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it as it is sent, JSON."""
        sent: dict[str, Any] = {
            "chosen": [dict(item) for item in self.chosen],
            "why": self.why,
            "warnings": list(self.warnings),
        }
        return sent if self.is_simulated is None else {**sent, "is_simulated": self.is_simulated}


@dataclass(frozen=True)
class PreparationAnswer:
    """What an agent answers to a preparation.

    Args:
        runtime_version: Of the runtime.
        cpus: Numbers of the CPUs that measure.
        affinity: Whether the agent is bound to them.
        frequency_lock: Whether their clock is held.
        temperature_zone: Which thermal zone's temperature is recorded, in words; None without one.
        meters: Which meters visits read.
        pid: The agent's process id; None where the device does not say.
        device_lock: Whether other campaigns are kept off. The agent itself does not know: who
            started it does.
    """

    runtime_version: str
    cpus: Sequence[int] = ()
    affinity: Affinity = field(default_factory=Affinity)
    frequency_lock: FrequencyHold = field(default_factory=FrequencyHold)
    temperature_zone: str | None = None
    meters: MetersInUse = field(default_factory=MetersInUse)
    pid: int | None = None
    device_lock: Exclusivity | None = None

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> PreparationAnswer:
        """Return what an answer says; of what makes no sense, nothing.

        Raises:
            AnswerError: What it calls the chosen meters is no list of descriptions.
        """
        cpus, lock, pid = content.get("cpus"), content.get("device_lock"), content.get("pid")
        return cls(
            runtime_version=str(content.get("runtime_version")),
            cpus=tuple(cpu for cpu in cpus if type(cpu) is int) if isinstance(cpus, list) else (),
            affinity=Affinity.from_dict(content.get("affinity")),
            frequency_lock=FrequencyHold.from_dict(content.get("frequency_lock")),
            temperature_zone=_text(content.get("temperature_zone")),
            meters=MetersInUse.from_dict(content.get("meters")),
            pid=pid if type(pid) is int else None,
            device_lock=None if lock is None else Exclusivity.from_dict(lock),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it as it is sent, JSON; without what only others than the agent know."""
        sent: dict[str, Any] = {
            "meters": self.meters.to_dict(),
            "runtime_version": self.runtime_version,
            "cpus": list(self.cpus),
            "affinity": self.affinity.to_dict(),
            "frequency_lock": self.frequency_lock.to_dict(),
            "temperature_zone": self.temperature_zone,
            "pid": self.pid,
        }
        return (
            sent
            if self.device_lock is None
            else {**sent, "device_lock": self.device_lock.to_dict()}
        )

    def alone(self) -> PreparationAnswer:
        """Return the same of a device that no other campaign can reach."""
        return replace(self, device_lock=Exclusivity(is_exclusive=True))


def _table(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _answered(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None

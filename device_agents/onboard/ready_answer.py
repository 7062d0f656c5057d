"""What an agent answers when it was asked to wait until the machine is ready."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class ReadyAnswer:
    """Whether the machine is idle and cool enough to be measured on, as it was last seen.

    Args:
        is_ready: Whether it is.
        waited_s: How long that was waited for; None where the device does not say.
        busy_share: Share of CPU time, 0 to 1, that other processes use; None where it is unknown.
        temperature_c: Of the hottest zone; None where it is unknown.
        reason: What was in the way or is unknown, in words; None where there is nothing to say.
    """

    is_ready: bool
    waited_s: float | None = None
    busy_share: float | None = None
    temperature_c: float | None = None
    reason: str | None = None

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> ReadyAnswer:
        """Return what an answer says; a device that does not say that it is ready is not."""
        reason = content.get("reason")
        return cls(
            is_ready=content.get("is_ready") is True,
            waited_s=_number(content.get("waited_s")),
            busy_share=_number(content.get("busy_share")),
            temperature_c=_number(content.get("temperature_c")),
            reason=reason if isinstance(reason, str) else None,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it as it is sent, JSON."""
        return asdict(self)


def _number(value: object) -> float | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if is_number else None  # type: ignore[return-value]

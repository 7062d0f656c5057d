"""What an agent answers when it was asked which meters the device has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class MetersAnswer:
    """Which meters a device has, described for people.

    Args:
        available: Those that can be read, best first: the fields of a `MeterInfo` each.
        missing: Those that cannot: `name`, `channel`, `reason` and `remedy`.
    """

    available: Sequence[Mapping[str, Any]] = ()
    missing: Sequence[Mapping[str, Any]] = ()

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> MetersAnswer:
        """Return what an answer says; what is no description is left out."""
        return cls(_described(content.get("available")), _described(content.get("missing")))

    def to_dict(self) -> dict[str, Any]:
        """Return it as it is sent, JSON."""
        return {
            "available": [dict(meter) for meter in self.available],
            "missing": [dict(meter) for meter in self.missing],
        }


def _described(value: object) -> tuple[Mapping[str, Any], ...]:
    items = value if isinstance(value, list) else ()
    return tuple(item for item in items if isinstance(item, Mapping))

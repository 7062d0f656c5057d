"""How a visit is made, as the device is told: what of a protocol concerns one visit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class VisitSettings:
    """How a visit is made.

    Args:
        max_visit_s: Time for warm-up and blocks.
        max_warm_up_s: When a warm-up that does not settle ends.
        block_s: Duration of a block.
        min_blocks: Blocks, at least.
        min_run_s: Calls shorter than this are timed several at once.
        reference_s: Duration of the reference before and after.
        energy_window_s: Where a meter is read, its window lasts at least so long,
        energy_updates: ... holds at least so many of its updates,
        energy_rel_error: ... and goes on until half its 95 % interval is this share of the energy,
        max_energy_window_s: ... or this much time has passed.
        start_timeout_s: How long the device may cool down, and how long another campaign is waited
            for.
        max_temperature_c: Limit of the temperature at the start; None for no limit.
        temperature_zone: The thermal zone that is meant; None for the processor's.

    Examples:
        >>> settings = VisitSettings.of({"block_s": 0.1})
        >>> settings.block_s, settings.min_blocks, settings.max_temperature_c
        (0.1, 3, None)
        >>> VisitSettings.from_dict(settings.to_dict()) == settings
        True
    """

    max_visit_s: float = 0.6
    max_warm_up_s: float = 2.0
    block_s: float = 0.05
    min_blocks: int = 3
    min_run_s: float = 0.001
    reference_s: float = 0.03
    energy_window_s: float = 1.0
    energy_updates: int = 50
    energy_rel_error: float = 0.03
    max_energy_window_s: float = 120.0
    start_timeout_s: float = 20.0
    max_temperature_c: float | None = None
    temperature_zone: str | None = None

    @classmethod
    def of(cls, given: VisitSettings | Mapping[str, Any]) -> VisitSettings:
        """Return the settings, also those of a mapping: what that leaves out is as ever.

        Args:
            given: Settings, or some of them by name, beside whatever else a protocol says.
        """
        if isinstance(given, VisitSettings):
            return given
        return cls.from_dict({**cls().to_dict(), **given})

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> VisitSettings:
        """Return the settings that a request holds; what else a protocol says is passed over.

        Raises:
            KeyError: One is missing.
            TypeError, ValueError: One is no number.
        """
        limit_c, zone = content.get("max_temperature_c"), content.get("temperature_zone")
        return cls(
            max_visit_s=float(content["max_visit_s"]),
            max_warm_up_s=float(content["max_warm_up_s"]),
            block_s=float(content["block_s"]),
            min_blocks=int(content["min_blocks"]),
            min_run_s=float(content["min_run_s"]),
            reference_s=float(content["reference_s"]),
            energy_window_s=float(content["energy_window_s"]),
            energy_updates=int(content["energy_updates"]),
            energy_rel_error=float(content["energy_rel_error"]),
            max_energy_window_s=float(content["max_energy_window_s"]),
            start_timeout_s=float(content.get("start_timeout_s") or 0.0),
            max_temperature_c=None if limit_c is None else float(limit_c),
            temperature_zone=None if zone is None else str(zone),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return them as a request holds them, JSON."""
        return asdict(self)

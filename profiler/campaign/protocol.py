"""How a variant is measured: visits, warm-up, blocks, reference."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

from joulemap import InputError

from ...datasets import NetworkSpec
from ...device_agents.onboard.visit_settings import VisitSettings

# About a sixteenth of the arithmetic of the full network: short, yet made of the same operators.
REFERENCE_SHARE = 4
REFERENCE_MULTIPLE = 8
MAX_ZONE_NAME = 100


@dataclass(frozen=True)
class Protocol:
    """How a variant is measured.

    Args:
        visits: Visits per variant, spread over the campaign.
        max_visit_s: Time for warm-up and blocks of one visit; exceeded by slow variants to complete
            `min_blocks`, and by long warm-ups, which leave half of it for the blocks.
        max_warm_up_s: When a warm-up that does not settle ends.
        block_s: Duration of a block.
        min_blocks: Blocks of a visit, at least.
        min_run_s: Calls shorter than this are timed several at once.
        reference_s: Duration of the reference before and after a visit.
        max_attempts: Tries at a visit that fails or is rejected.
        max_further_visits: Visits beyond `visits` for a variant whose interval is too wide.
        rel_error: Half the 95 % interval over the latency that is aimed at.
        time_cap_s: Time on the device after which no further visit begins; None is without end.
        has_revisits: Whether max(40, 10 %) of the variants are measured twice for the noise floor.
        max_busy_share: The campaign starts when other work takes at most this share of the machine,
        max_temperature_c: ... and the device is at most this hot (None: as it is),
        temperature_zone: ... by its thermal zone of this name (None: the processor's),
        start_timeout_s: ... or after this time, with a warning.
        agent_visits: Visits after which a fresh agent takes over.
        energy_window_s: Where a meter is read, its window lasts at least so long (gauges that
            average or are slow: 5 s),
        energy_updates: ... holds at least so many of its updates,
        energy_rel_error: ... and goes on until half its 95 % interval is this share of the energy,
        max_energy_window_s: ... or this much time has passed.

    Raises:
        InputError: A value is not positive, a share is above 1, or the zone's name is none.
    """

    visits: int = 3
    max_visit_s: float = 0.6
    max_warm_up_s: float = 2.0
    block_s: float = 0.05
    min_blocks: int = 3
    min_run_s: float = 0.001
    reference_s: float = 0.03
    max_attempts: int = 3
    max_further_visits: int = 5
    rel_error: float = 0.03
    time_cap_s: float | None = None
    has_revisits: bool = True
    max_busy_share: float = 0.2
    max_temperature_c: float | None = None
    temperature_zone: str | None = None
    start_timeout_s: float = 20.0
    agent_visits: int = 50
    energy_window_s: float = 1.0
    energy_updates: int = 50
    energy_rel_error: float = 0.03
    max_energy_window_s: float = 120.0

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if value is None or isinstance(value, bool):
                continue
            if item.name == "temperature_zone":
                _check_zone(value)
                continue
            if item.name == "max_further_visits" and value == 0:
                continue
            if not (math.isfinite(value) and value > 0) or (item.type == "int" and value < 1):
                raise InputError(f"protocol {item.name} is {value}; it must be above 0")
        if self.max_busy_share > 1:
            raise InputError(f"protocol max_busy_share is {self.max_busy_share}; at most 1")

    def to_dict(self) -> dict[str, Any]:
        """Return the protocol as a dictionary for JSON."""
        return asdict(self)

    @property
    def visit_settings(self) -> VisitSettings:
        """What of it concerns one visit, which the device is told."""
        return VisitSettings(
            max_visit_s=self.max_visit_s,
            max_warm_up_s=self.max_warm_up_s,
            block_s=self.block_s,
            min_blocks=self.min_blocks,
            min_run_s=self.min_run_s,
            reference_s=self.reference_s,
            energy_window_s=self.energy_window_s,
            energy_updates=self.energy_updates,
            energy_rel_error=self.energy_rel_error,
            max_energy_window_s=self.max_energy_window_s,
            start_timeout_s=self.start_timeout_s,
            max_temperature_c=self.max_temperature_c,
            temperature_zone=self.temperature_zone,
        )

    @property
    def visit_duration_s(self) -> float:
        """What a visit takes altogether, roughly, in seconds: window, two references, loading."""
        return self.max_visit_s + 2 * self.reference_s + 0.05


def _check_zone(name: object) -> None:
    is_text = isinstance(name, str) and 0 < len(name) <= MAX_ZONE_NAME and name.isprintable()
    if not is_text:
        raise InputError(
            f"protocol temperature_zone is {str(name)[:60]!r}, no name of a thermal zone; joulemap "
            "probe lists the device's"
        )


def reference_widths(spec: NetworkSpec) -> tuple[int, ...]:
    """Return the reference variant's widths: a quarter of each, on multiples of 8 where possible."""
    widths = []
    for width in spec.widths:
        step = math.lcm(width.multiple, REFERENCE_MULTIPLE)
        value = round(width.max / REFERENCE_SHARE / step) * step
        if not width.min <= value <= width.max:
            value = max(width.min, width.max // REFERENCE_SHARE // width.multiple * width.multiple)
        widths.append(value)
    return tuple(widths)

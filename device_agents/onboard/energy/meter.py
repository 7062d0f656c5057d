"""What a meter is: a counter of joules, or a gauge of watts, with all that its reader must know.

A module in `meters/` has one function::

    find(files: Files) -> list[Meter | Missing]

It looks once, opens nothing that must be closed unless it returns it, and never raises for what is
absent: a machine without the hardware gives an empty list, hardware that cannot be read gives
`Missing` with the file and the remedy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

COUNTER = "counter"
SAMPLER = "sampler"
ESTIMATE = "estimate"


class MeterError(Exception):
    """A reading failed or makes no sense: the message says what, where and what to do."""


class MeterGone(MeterError):
    """The meter is no longer there: unplugged, driver removed, suspended."""


@dataclass(frozen=True)
class MeterInfo:
    """What is known about a meter before it is read.

    Args:
        name: Its backend, as written after `--meter`: `rapl`, `nvml`, ...
        channel: Which of the backend's sources: `package-0`, `VDD_IN`, `gpu0`, ...
        kind: `counter` (joules since some start), `sampler` (watts) or `estimate` (joules that a
            model computes; never taken for a measurement).
        domain: What its joules are the energy of, in words.
        unmeasured: What the device uses besides, in words; empty if nothing is known.
        rail: Name of the supply that is measured, equal for two meters that read the same one.
        resolution: Smallest step, in J for counters and W for samplers; None if unknown.
        range_j: Where a counter starts again at 0; None if it does not within a lifetime.
        update_period_s: Time between two of its updates as stated; None to be observed.
        averaging_s: Length of time over which a sampler averages by itself; 0 for none.
        max_power_w: More than this is not believed.
        read_s: Least time between two readings that does not disturb the meter or the device.
        is_partial: Whether part of what a variant uses on the processor is not in it: one rail of
            several, a graphics card. `auto` passes it over.
        notes: What else its user must know, sentences.
    """

    name: str
    channel: str
    kind: str
    domain: str
    unmeasured: str = ""
    rail: str = ""
    resolution: float | None = None
    range_j: float | None = None
    update_period_s: float | None = None
    averaging_s: float = 0.0
    max_power_w: float = 10_000.0
    read_s: float = 0.0
    is_partial: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Missing:
    """A meter that is there and cannot be used, or could be had.

    Args:
        name: Its backend.
        channel: Which of the backend's sources; empty for all.
        reason: What is in the way, with the file.
        remedy: What to do about it, one line.
    """

    name: str
    channel: str
    reason: str
    remedy: str


class Meter(Protocol):
    """A source of energy. Readings are made by one thread at a time.

    A meter may have more methods, which are used where they are there: `state() -> dict` with what
    may not change during a campaign, such as a charging cable; `calibrate(burn, wait, *, clock)`,
    which learns what its values mean from a step of the load; `with_setting(text) -> Meter` for
    what follows its name and a colon; `reserve() -> (amount, joules_each) | None`, what is left by a
    coarse counter of its own, against which its watts are checked over several visits.

    Attributes:
        info: What is known about it.
    """

    info: MeterInfo

    def read(self) -> float:
        """Return joules (counters and estimates, modulo `range_j`) or watts (samplers).

        Watts are positive for what the device uses. No reading is kept from an earlier call.

        Raises:
            MeterGone: It is no longer there.
            MeterError: This reading failed: a refusal, no number, beyond what is plausible.
        """

    def close(self) -> None:
        """Let go of files and libraries."""


def remembered(meters: Any) -> list[dict[str, Any]] | None:
    """Return what a fresh agent is told of a campaign's meters: those that the first agent chose.

    Args:
        meters: What the first agent said of them.

    Returns:
        `name`, `channel` and `state` of each, none where it chose none; None before it chose.
    """
    chosen = meters.get("chosen") if isinstance(meters, Mapping) else None
    if not isinstance(chosen, list):
        return None
    return [
        {name: meter.get(name) for name in ("name", "channel", "state")}
        for meter in chosen
        if isinstance(meter, Mapping)
    ]

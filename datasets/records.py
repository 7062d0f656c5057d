"""Immutable records: what one visit measured.

Raw times are kept; every statistic is computed from them. Missing is None, never 0. Times come
from the device's monotonic clock; wall-clock time is a label only.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np

from joulemap import InputError

RECORD_VERSION = 1
# 1: first version (2026-11).

MAX_RUNS = 1_000_000
ENERGY_SOURCES = ("counter", "sampled", "simulated")


@dataclass(frozen=True)
class Conditions:
    """What a variant's cost depends on besides its widths.

    Args:
        batch: Samples per call.
        resolution: Height and width of the input as in the spec, `224x224`.
        precision: Number format: `fp32`, `int8`, ...
        runtime: What executes the variant.
        threads: Threads inside one operator.
    """

    batch: int
    resolution: str
    precision: str
    runtime: str
    threads: int


CONDITION_NAMES: tuple[str, ...] = tuple(f.name for f in fields(Conditions))


@dataclass(frozen=True)
class Block:
    """A handful of consecutive runs.

    Args:
        latencies_s: Seconds per call, one value per run.
        calls_per_run: Calls that one run holds (several when a call is very short).
        wall_s: Duration of the whole block.
        cpu_s: CPU time that the agent's process used meanwhile.
        steal_s: Time that the hypervisor withheld from its CPUs, None if unknown.
    """

    latencies_s: tuple[float, ...]
    calls_per_run: int
    wall_s: float
    cpu_s: float
    steal_s: float | None

    @classmethod
    def from_dict(cls, content: Any) -> Block:
        """Return the block, checked: times are finite and positive.

        Raises:
            InputError: Anything else.
        """
        values = _fields_of(cls, content)
        latencies = values["latencies_s"]
        if not isinstance(latencies, list | tuple) or not 1 <= len(latencies) <= MAX_RUNS:
            raise InputError("latencies_s of a block is not a list of run times")
        steal = values["steal_s"]
        return cls(
            latencies_s=tuple(_positive("latencies_s", value) for value in latencies),
            calls_per_run=_count("calls_per_run", values["calls_per_run"]),
            wall_s=_positive("wall_s", values["wall_s"]),
            cpu_s=_not_negative("cpu_s", values["cpu_s"]),
            steal_s=None if steal is None else _not_negative("steal_s", steal),
        )

    @cached_property
    def median_s(self) -> float:
        """Median seconds per call."""
        return float(np.median(self.latencies_s))


@dataclass(frozen=True)
class Timing:
    """What the device answered to one visit: raw times and how they came about.

    Args:
        warm_up_s: Seconds per call of each warm-up run, kept though not used.
        is_settled: Whether the change-point test passed before the warm-up's time was up.
        blocks: The timed blocks.
        reference_before: The reference variant just before.
        reference_after: The reference variant just after.
        measuring_s: First warm-up call to last timed call.
        materialise_s: Building the model on the device.
        load_s: Creating the runtime's session.
        model_bytes: Size of the model.
        machine: Load, frequency, temperature, memory; None where not readable.
        pid: The agent's process id: visits of one agent share it.
    """

    warm_up_s: tuple[float, ...]
    is_settled: bool
    blocks: tuple[Block, ...]
    reference_before: Block
    reference_after: Block
    measuring_s: float
    materialise_s: float
    load_s: float
    model_bytes: int
    machine: Mapping[str, float | None]
    pid: int

    @classmethod
    def from_dict(cls, content: Any) -> Timing:
        """Return the device's answer, checked field by field: a device is not to be believed.

        Raises:
            InputError: A field is missing, unknown, of the wrong type, not finite or not positive.
        """
        values = _fields_of(cls, content)
        blocks, warm_up, machine = values["blocks"], values["warm_up_s"], values["machine"]
        if not isinstance(blocks, list | tuple) or not blocks:
            raise InputError("a visit has no blocks")
        if not isinstance(warm_up, list | tuple) or len(warm_up) > MAX_RUNS:
            raise InputError("warm_up_s of a visit is not a list of run times")
        if not isinstance(machine, Mapping) or len(machine) > 100:
            raise InputError("machine of a visit is not a table of readings")
        return cls(
            warm_up_s=tuple(_positive("warm_up_s", value) for value in warm_up),
            is_settled=bool(values["is_settled"]),
            blocks=tuple(Block.from_dict(block) for block in blocks),
            reference_before=Block.from_dict(values["reference_before"]),
            reference_after=Block.from_dict(values["reference_after"]),
            measuring_s=_positive("measuring_s", values["measuring_s"]),
            materialise_s=_not_negative("materialise_s", values["materialise_s"]),
            load_s=_not_negative("load_s", values["load_s"]),
            model_bytes=_count("model_bytes", values["model_bytes"]),
            machine={
                str(name)[:100]: None if value is None else _finite(str(name), value)
                for name, value in machine.items()
            },
            pid=_count("pid", values["pid"]),
        )

    @property
    def latency_s(self) -> float:
        """Median over the blocks of the block medians, in seconds per call."""
        return float(np.median([block.median_s for block in self.blocks]))


@dataclass(frozen=True)
class EnergyReading:
    """What a meter says about one visit, per call of the batch.

    Args:
        energy_j: Joules, net of idle.
        energy_gross_j: Joules with idle; None where idle was not read.
        energy_source: `counter`, `sampled` or `simulated`.
    """

    energy_j: float
    energy_gross_j: float | None
    energy_source: str

    @classmethod
    def from_dict(cls, content: Any) -> EnergyReading:
        """Return the reading, checked: a device is not to be believed.

        Raises:
            InputError: A field is missing or unknown, an energy is not above 0, or the source is
                none of the known ones.
        """
        values = _fields_of(cls, content)
        gross = values["energy_gross_j"]
        if values["energy_source"] not in ENERGY_SOURCES:
            raise InputError(
                f"energy_source is {str(values['energy_source'])[:50]!r}; known: "
                f"{', '.join(ENERGY_SOURCES)}"
            )
        return cls(
            energy_j=_positive("energy_j", values["energy_j"]),
            energy_gross_j=None if gross is None else _positive("energy_gross_j", gross),
            energy_source=values["energy_source"],
        )


@dataclass(frozen=True)
class Visit:
    """One stretch of repeated runs of one variant, or the reason why it failed.

    Args:
        spec_id: Fingerprint of the network spec.
        widths: Channels in the spec's order.
        conditions: Everything else that the cost depends on.
        visit_index: 0, 1, 2, ... for the visits of one variant.
        attempt: 0, 1, ... for the tries at this visit.
        sequence: The visit's place in the campaign.
        started_at: Wall-clock time, ISO 8601; a label.
        timing: What was measured; None when it failed.
        error: Why it failed; None when it did not.
        is_revisit: Whether it belongs to the second, independent measurement of a variant that the
            noise floor is computed from.
        energy_j: Net joules per call; None without a meter.
        energy_gross_j: Joules per call with idle; None without a meter.
        energy_source: `counter`, `sampled` or `simulated`; None without a meter.
    """

    spec_id: str
    widths: tuple[int, ...]
    conditions: Conditions
    visit_index: int
    attempt: int
    sequence: int
    started_at: str
    timing: Timing | None = None
    error: str | None = None
    is_revisit: bool = False
    energy_j: float | None = None
    energy_gross_j: float | None = None
    energy_source: str | None = None

    @cached_property
    def variant_id(self) -> str:
        """A short hash of spec, widths and conditions."""
        return variant_id(self.spec_id, self.widths, self.conditions)

    @property
    def key(self) -> tuple[str, int, int]:
        """Variant, visit and attempt: unique within a campaign."""
        return (self.variant_id, self.visit_index, self.attempt)

    def to_dict(self) -> dict[str, Any]:
        """Return the visit as a dictionary for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Any) -> Visit:
        """Return the visit that `to_dict` wrote.

        Raises:
            InputError: It is not one.
        """
        values = _fields_of(cls, content)
        try:
            conditions = Conditions(**values["conditions"])
            widths = tuple(_count("widths", width) for width in values["widths"])
        except TypeError as error:
            raise InputError(f"a visit cannot be read: {error}") from error
        timing = values["timing"]
        reading = {name: values[name] for name in EnergyReading.__dataclass_fields__}
        if any(value is not None for value in reading.values()):
            EnergyReading.from_dict(reading)
        if (timing is None) == (values["error"] is None):
            raise InputError("a visit has either times or an error")
        values.update(
            widths=widths,
            conditions=conditions,
            timing=None if timing is None else Timing.from_dict(timing),
            is_revisit=bool(values["is_revisit"]),
            **{key: _index(key, values[key]) for key in ("visit_index", "attempt", "sequence")},
        )
        return cls(**values)


def variant_id(spec_id: str, widths: Sequence[int], conditions: Conditions) -> str:
    """Return a short hash that names a variant: a network at one width vector, one set of conditions."""
    text = json.dumps([spec_id, list(widths), asdict(conditions)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _fields_of(cls: Any, content: Any) -> dict[str, Any]:
    if not isinstance(content, Mapping):
        raise InputError(f"a {cls.__name__.lower()} is not an object")
    names = {f.name for f in fields(cls)}
    missing, unknown = sorted(names - set(content)), sorted(set(content) - names)
    if missing or unknown:
        problem = (
            f"lacks '{missing[0]}'" if missing else f"has an unknown field '{unknown[0]!s:.50}'"
        )
        raise InputError(f"a {cls.__name__.lower()} {problem}")
    return dict(content)


def _finite(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"{name} is {str(value)[:50]!r}, not a finite number")
    return float(value)


def _positive(name: str, value: Any) -> float:
    number = _finite(name, value)
    if number <= 0:
        raise InputError(f"{name} is {number}, not above 0")
    return number


def _not_negative(name: str, value: Any) -> float:
    number = _finite(name, value)
    if number < 0:
        raise InputError(f"{name} is {number}, below 0")
    return number


def _index(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InputError(f"{name} is {str(value)[:50]!r}, not an int >= 0")
    return value


def _count(name: str, value: Any) -> int:
    if _index(name, value) < 1:
        raise InputError(f"{name} is 0, not at least 1")
    return int(value)

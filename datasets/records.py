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
from joulemap.showable_text import showable

from .answer_bounds import MAX_RUNS, MAX_VISIT_S, checked
from .energy_records import EnergyEstimateReading, EnergyReading, PowerTrace
from .field_checks import count, fields_of, finite, index, not_negative, positive

RECORD_VERSION = 3
# 1: first version (2026-11).
# 2: what meters say is a record of its own, with its uncertainty and its raw readings (2026-11).
# 3: each line of a journal holds the checksum of the line before it (2026-11).

MAX_BLOCKS = 10_000


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
        values = fields_of(cls, content)
        checked("visit", content)
        latencies = values["latencies_s"]
        if not isinstance(latencies, list | tuple) or not 1 <= len(latencies) <= MAX_RUNS:
            raise InputError("latencies_s of a block is not a list of run times")
        steal = values["steal_s"]
        made = cls(
            latencies_s=tuple(positive("latencies_s", value) for value in latencies),
            calls_per_run=count("calls_per_run", values["calls_per_run"]),
            wall_s=positive("wall_s", values["wall_s"]),
            cpu_s=not_negative("cpu_s", values["cpu_s"]),
            steal_s=None if steal is None else not_negative("steal_s", steal),
        )
        if made.running_s > MAX_VISIT_S:
            raise InputError(f"a block's calls took {made.running_s:.3g} s, more than a week")
        return made

    @property
    def running_s(self) -> float:
        """Seconds that all its calls took together."""
        return math.fsum(self.latencies_s) * self.calls_per_run

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
        values = fields_of(cls, content)
        checked("visit", {**values, "blocks": None, "reference_before": None})
        blocks, warm_up, machine = values["blocks"], values["warm_up_s"], values["machine"]
        if not isinstance(blocks, list | tuple) or not 1 <= len(blocks) <= MAX_BLOCKS:
            raise InputError(f"a visit has no list of 1 to {MAX_BLOCKS} blocks")
        if not isinstance(warm_up, list | tuple) or len(warm_up) > MAX_RUNS:
            raise InputError("warm_up_s of a visit is not a list of run times")
        if not isinstance(machine, Mapping) or len(machine) > 100:
            raise InputError("machine of a visit is not a table of readings")
        made = cls(
            warm_up_s=tuple(positive("warm_up_s", value) for value in warm_up),
            is_settled=bool(values["is_settled"]),
            blocks=tuple(Block.from_dict(block) for block in blocks),
            reference_before=Block.from_dict(values["reference_before"]),
            reference_after=Block.from_dict(values["reference_after"]),
            measuring_s=positive("measuring_s", values["measuring_s"]),
            materialise_s=not_negative("materialise_s", values["materialise_s"]),
            load_s=not_negative("load_s", values["load_s"]),
            model_bytes=count("model_bytes", values["model_bytes"]),
            machine={
                showable(name, 100): None if value is None else finite(str(name), value)
                for name, value in machine.items()
            },
            pid=count("pid", values["pid"]),
        )
        if sum(len(block.latencies_s) for block in made.blocks) > MAX_RUNS:
            raise InputError(f"a visit has more than {MAX_RUNS} runs")
        if sum(block.running_s for block in made.blocks) > MAX_VISIT_S:
            raise InputError("a visit's calls took more than a week")
        return made

    @property
    def latency_s(self) -> float:
        """Median over the blocks of the block medians, in seconds per call."""
        return float(np.median([block.median_s for block in self.blocks]))


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
        energy: What a meter says; None without one, or where its readings were refused.
        energy_estimate: What a model of the device's power says; None unless it was asked for.
        energy_refused: Why the meter's readings make no energy; None where they do.
        power_trace: The meter's raw readings; None without a meter.
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
    energy: EnergyReading | None = None
    energy_estimate: EnergyEstimateReading | None = None
    energy_refused: str | None = None
    power_trace: PowerTrace | None = None

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
        values = fields_of(cls, _of_version_1(content))
        try:
            conditions = Conditions(**values["conditions"])
            widths = tuple(count("widths", width) for width in values["widths"])
        except TypeError as error:
            raise InputError(f"a visit cannot be read: {error}") from error
        timing = values["timing"]
        refused = values["energy_refused"]
        if refused is not None and not isinstance(refused, str):
            raise InputError("energy_refused of a visit is no text")
        if (timing is None) == (values["error"] is None):
            raise InputError("a visit has either times or an error")
        values.update(
            widths=widths,
            conditions=conditions,
            timing=None if timing is None else Timing.from_dict(timing),
            is_revisit=bool(values["is_revisit"]),
            energy=_record(EnergyReading, values["energy"]),
            energy_estimate=_record(EnergyEstimateReading, values["energy_estimate"]),
            power_trace=_record(PowerTrace, values["power_trace"]),
            **{key: index(key, values[key]) for key in ("visit_index", "attempt", "sequence")},
        )
        return cls(**values)

    @classmethod
    def read(cls, content: Any) -> tuple[Visit, str | None]:
        """Return the visit that `to_dict` wrote, and what in it cannot be used, None for nothing.

        A visit whose times or energies make no sense is one that failed for that reason: no other
        visit is lost for it.

        Raises:
            InputError: It is no visit, or does not say which.
        """
        try:
            return cls.from_dict(content), None
        except InputError as error:
            if not isinstance(content, Mapping) or content.get("timing") is None:
                raise
            problem = f"what the device answered cannot be used: {error}"
            bare = dict(_of_version_1({**content, **dict.fromkeys(_ANSWERED)}))
            return cls.from_dict({**bare, "error": f"transient: {problem}"}), problem


# What of a visit the device said.
_ANSWERED = (
    "timing",
    "energy",
    "energy_estimate",
    "energy_refused",
    "power_trace",
)


def variant_id(spec_id: str, widths: Sequence[int], conditions: Conditions) -> str:
    """Return a short hash that names a variant: a network at one width vector, one set of conditions."""
    text = json.dumps([spec_id, list(widths), asdict(conditions)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _record(cls: Any, content: Any) -> Any:
    return None if content is None else cls.from_dict(content)


def _of_version_1(content: Any) -> Any:
    """Return a visit of the first version as one of this version; others as they are."""
    if not isinstance(content, Mapping) or "energy_source" not in content:
        return content
    made = dict(content)
    flat = {name: made.pop(name, None) for name in ("energy_j", "energy_gross_j", "energy_source")}
    energy = None
    if any(value is not None for value in flat.values()):
        energy = EnergyReading.simple(**flat).to_dict()
    return (
        made
        | dict.fromkeys(("energy_estimate", "energy_refused", "power_trace"))
        | {"energy": energy}
    )

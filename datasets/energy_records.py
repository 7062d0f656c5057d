"""Immutable records of what meters said about one visit; missing is None, never 0."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from scipy import stats

from joulemap import InputError

from .answer_bounds import MAX_POWER_W, MAX_READINGS, checked
from .field_checks import count, fields_of, finite, index, not_negative, positive

ENERGY_SOURCES = ("counter", "sampled", "simulated")
MAX_WORDS = 100


@dataclass(frozen=True)
class MeterCheck:
    """What a second meter says about the same calls.

    Args:
        meter: Its name.
        channel: Its channel.
        kind: `counter` or `sampler`.
        is_same_rail: Whether both read the same supply.
        net_j: Joules per call, net of idle; None where its readings were refused.
        net_standard_error_j: Of the net energy.
        gross_j: Joules per call with idle.
        disagreement: Its net energy against the first meter's, relative; None without either.
        is_disagreement: Whether that is more than uncertainty and 10 % explain.
        refused: Why its readings make no energy; None where they do.
    """

    meter: str
    channel: str
    kind: str
    is_same_rail: bool
    net_j: float | None
    net_standard_error_j: float | None
    gross_j: float | None
    disagreement: float | None
    is_disagreement: bool
    refused: str | None

    @classmethod
    def from_dict(cls, content: Any) -> MeterCheck:
        """Return the check, field by field: a device is not to be believed.

        Raises:
            InputError: A field is missing, unknown or of the wrong type.
        """
        values = fields_of(cls, content)
        checked("visit", content)
        return cls(
            meter=_word("meter", values["meter"]),
            channel=_word("channel", values["channel"]),
            kind=_word("kind", values["kind"]),
            net_j=_number("net_j", values["net_j"]),
            net_standard_error_j=_number(
                "net_standard_error_j", values["net_standard_error_j"], least=0.0
            ),
            gross_j=_number("gross_j", values["gross_j"]),
            disagreement=_number("disagreement", values["disagreement"]),
            is_same_rail=bool(values["is_same_rail"]),
            is_disagreement=bool(values["is_disagreement"]),
            refused=_text("refused", values["refused"]),
        )


@dataclass(frozen=True)
class EnergyReading:
    """What a meter says about one visit, per call of the batch.

    Args:
        energy_j: Joules, net of idle. Not above 0 only with a standard error that explains it.
        standard_error_j: Of the net energy; None where the meter states none.
        freedom: Degrees of freedom of that standard error; None where it is known exactly.
        gross_j: Joules with idle; None where idle was not read.
        gross_standard_error_j: Of the gross energy.
        idle_w: Idle power in the window, from before and after it.
        idle_standard_error_w: Of the idle power.
        source: `counter`, `sampled` or `simulated`.
        meter: The meter's name; empty for a simulator's own energies.
        channel: The meter's channel.
        window_s: Duration of the window.
        calls: Calls in the window.
        updates: Updates of the meter in the window.
        missing_share: Share of the window without readings.
        flags: What else must be known: `not_above_idle`, `load_ratio`, ...
        check: What a second meter says; None without one.
    """

    energy_j: float
    standard_error_j: float | None
    freedom: float | None
    gross_j: float | None
    gross_standard_error_j: float | None
    idle_w: float | None
    idle_standard_error_w: float | None
    source: str
    meter: str
    channel: str
    window_s: float | None
    calls: int | None
    updates: int | None
    missing_share: float | None
    flags: tuple[str, ...]
    check: MeterCheck | None

    @classmethod
    def simple(
        cls, energy_j: Any, energy_gross_j: Any = None, energy_source: Any = "simulated"
    ) -> EnergyReading:
        """Return a reading of which no more is known than the energy of a call in joules.

        Raises:
            InputError: An energy is not above 0, or the source is none of the known ones.
        """
        names = cls.__dataclass_fields__
        content = dict.fromkeys(names) | {"meter": "", "channel": "", "flags": ()}
        return cls.from_dict(
            content | {"energy_j": energy_j, "gross_j": energy_gross_j, "source": energy_source}
        )

    @classmethod
    def from_dict(cls, content: Any) -> EnergyReading:
        """Return the reading, checked: a device is not to be believed.

        Raises:
            InputError: A field is missing or unknown, a number makes no sense, or the source is
                none of the known ones.
        """
        values = fields_of(cls, content)
        checked("visit", content)
        if values["source"] not in ENERGY_SOURCES:
            raise InputError(
                f"energy source is {str(values['source'])[:50]!r}; known: "
                f"{', '.join(ENERGY_SOURCES)}"
            )
        errors = ("standard_error_j", "gross_standard_error_j", "idle_standard_error_w")
        found = {name: _number(name, values[name], least=0.0) for name in errors}
        energy_j = finite("energy_j", values["energy_j"])
        if energy_j <= 0 and not found["standard_error_j"]:
            raise InputError(f"energy_j is {energy_j}, not above 0, and nothing explains it")
        gross = values["gross_j"]
        made = cls(
            energy_j=energy_j,
            freedom=_number("freedom", values["freedom"], least=0.0),
            gross_j=None if gross is None else positive("gross_j", gross),
            idle_w=_number("idle_w", values["idle_w"]),
            source=values["source"],
            meter=_word("meter", values["meter"]),
            channel=_word("channel", values["channel"]),
            window_s=_number("window_s", values["window_s"], least=0.0),
            calls=None if values["calls"] is None else count("calls", values["calls"]),
            updates=None if values["updates"] is None else index("updates", values["updates"]),
            missing_share=_number("missing_share", values["missing_share"], least=0.0),
            flags=_words("flags", values["flags"]),
            check=None if values["check"] is None else MeterCheck.from_dict(values["check"]),
            **found,
        )
        if made.calls is not None and made.window_s:
            power_w = max(abs(energy_j), made.gross_j or 0.0) * made.calls / made.window_s
            if power_w > MAX_POWER_W:
                raise InputError(f"energy_j makes {power_w:.3g} W, more than {MAX_POWER_W:.0g} W")
        return made

    def to_dict(self) -> dict[str, Any]:
        """Return the reading as a dictionary for JSON."""
        return asdict(self)

    @property
    def interval_j(self) -> tuple[float, float] | None:
        """The 95 % interval of this visit's net energy; None where no error is stated."""
        if self.standard_error_j is None:
            return None
        t = stats.norm if self.freedom is None else stats.t(max(1.0, self.freedom))
        half = float(t.ppf(0.975)) * self.standard_error_j
        return self.energy_j - half, self.energy_j + half


@dataclass(frozen=True)
class EnergyEstimateReading:
    """What a model of a device's power says about one visit: an estimate, never a measurement.

    Args:
        energy_estimate_j: Joules per call, net of idle.
        meter: Name of what estimates.
        channel: Its channel.
        notes: What it is computed from, words.
    """

    energy_estimate_j: float
    meter: str
    channel: str
    notes: tuple[str, ...] = ()

    @classmethod
    def from_dict(cls, content: Any) -> EnergyEstimateReading:
        """Return the estimate, checked.

        Raises:
            InputError: A field is missing, unknown, of the wrong type or not above 0.
        """
        values = fields_of(cls, content)
        checked("visit", content)
        return cls(
            positive("energy_estimate_j", values["energy_estimate_j"]),
            _word("meter", values["meter"]),
            _word("channel", values["channel"]),
            _words("notes", values["notes"], 500),
        )


@dataclass(frozen=True)
class PowerTrace:
    """A meter's raw readings during one visit; repeats within a row of equal ones are left out.

    Args:
        times_s: Moments since the first reading.
        values: J (counters, as shown, with their wraps) or W (gauges).
        num_readings: Readings that succeeded, repeats included.
        num_failed: Readings that failed.
        spans_s: Start and end of `idle_before`, `window`, `busy` and `idle_after`.
    """

    times_s: tuple[float, ...]
    values: tuple[float, ...]
    num_readings: int
    num_failed: int
    spans_s: Mapping[str, tuple[float, float]]

    @property
    def idle_s(self) -> float:
        """Idle time that was spent for the meter, in seconds."""
        return sum(
            max(0.0, span[1] - span[0])
            for name, span in self.spans_s.items()
            if name.startswith("idle")
        )

    @classmethod
    def from_dict(cls, content: Any) -> PowerTrace:
        """Return the trace, checked.

        Raises:
            InputError: A field is missing, unknown or of the wrong type; moments go backwards.
        """
        values = fields_of(cls, content)
        checked("visit", content)
        lists = []
        for name in ("times_s", "values"):
            items = values[name]
            if not isinstance(items, list | tuple) or len(items) > MAX_READINGS:
                raise InputError(f"{name} of a power trace is not a list of readings")
            lists.append(tuple(finite(name, item) for item in items))
        times, readings = lists
        if len(times) != len(readings):
            raise InputError("a power trace has not one moment for each reading")
        if any(b < a for a, b in pairwise(times)):
            raise InputError("the moments of a power trace go backwards")
        spans = values["spans_s"]
        if not isinstance(spans, Mapping) or len(spans) > 10:
            raise InputError("spans_s of a power trace is not a table")
        return cls(
            times,
            readings,
            index("num_readings", values["num_readings"]),
            index("num_failed", values["num_failed"]),
            {_word("spans_s", name): _span(span) for name, span in spans.items()},
        )


def _span(span: Any) -> tuple[float, float]:
    if not isinstance(span, list | tuple) or len(span) != 2:
        raise InputError("a span of a power trace is not a start and an end")
    return finite("spans_s", span[0]), finite("spans_s", span[1])


def _number(name: str, value: Any, least: float | None = None) -> float | None:
    if value is None:
        return None
    return finite(name, value) if least is None else not_negative(name, value)


def _word(name: str, value: Any) -> str:
    if not isinstance(value, str) or len(value) > 200:
        raise InputError(f"{name} is {str(value)[:50]!r}, no short text")
    return value


def _text(name: str, value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise InputError(f"{name} is {str(value)[:50]!r}, no text")
    return value[:2000]


def _words(name: str, value: Any, longest: int = 200) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or len(value) > MAX_WORDS:
        raise InputError(f"{name} is {str(value)[:50]!r}, no list of words")
    return tuple(_word(name, item)[:longest] for item in value)

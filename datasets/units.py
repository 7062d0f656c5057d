"""Units of cost columns: every column carries its SI unit in its name, anything else is converted."""

from __future__ import annotations

from dataclasses import dataclass

from joulemap import InputError


@dataclass(frozen=True)
class Unit:
    """A unit that a table may come in.

    Args:
        si: The SI unit that it is converted to.
        suffix: Ending of a column's name in that SI unit.
        factor: What to multiply with.
    """

    si: str
    suffix: str
    factor: float


UNITS: dict[str, Unit] = {
    "J": Unit("J", "_j", 1.0),
    "kJ": Unit("J", "_j", 1e3),
    "mJ": Unit("J", "_j", 1e-3),
    "uJ": Unit("J", "_j", 1e-6),
    "nJ": Unit("J", "_j", 1e-9),
    "Wh": Unit("J", "_j", 3600.0),
    "mac": Unit("mac", "_mac", 1.0),
    "s": Unit("s", "_s", 1.0),
    "ms": Unit("s", "_s", 1e-3),
    "us": Unit("s", "_s", 1e-6),
    "ns": Unit("s", "_s", 1e-9),
    "min": Unit("s", "_s", 60.0),
    "byte": Unit("byte", "_bytes", 1.0),
    "W": Unit("W", "_w", 1.0),
    "mW": Unit("W", "_w", 1e-3),
}
_ALIASES = {"µs": "us", "μs": "us", "µJ": "uJ", "μJ": "uJ", "B": "byte", "bytes": "byte"}
# Column endings as they are written and in lower case (never the other way: MJ is not mJ).
_SUFFIXES = {
    f"_{spelling}": unit
    for name, unit in UNITS.items()
    for spelling in ((name, name.lower()) if name != "byte" else ("bytes",))
}


def unit_named(name: str) -> Unit:
    """Return the unit of that name.

    Raises:
        InputError: It is not known.
    """
    try:
        return UNITS[_ALIASES.get(name, name)]
    except KeyError:
        raise InputError(f"unknown unit '{name}'; known: {', '.join(sorted(UNITS))}") from None


def unit_of_column(column: str) -> Unit | None:
    """Return the unit that a column's name ends in (`latency_ms`), None if it names none."""
    for suffix in sorted(_SUFFIXES, key=len, reverse=True):
        if column.endswith(suffix) and len(column) > len(suffix):
            return _SUFFIXES[suffix]
    return None


def si_column(column: str, unit: Unit) -> str:
    """Return the column's name in SI: `latency_ms` or `latency` become `latency_s`."""
    for suffix in sorted(_SUFFIXES, key=len, reverse=True):
        if column.endswith(suffix) and len(column) > len(suffix):
            return column[: -len(suffix)] + unit.suffix
    return column + unit.suffix

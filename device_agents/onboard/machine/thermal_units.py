"""In which unit a thermal zone counts: the kernel says thousandths of a degree, and not all keep to it.

Kernels of phones and boards also write tenths and whole degrees, some zone by zone. What decides is
evidence, the strongest first::

    trip points      a chip is shut down between 40 and 150 degrees: that fits one unit only
    relatives        zones of one name but for its numbers come from one driver
    the reading      45300, 453 and 45 are a temperature in one unit each

What fits none is no temperature: sensors that are switched off answer 0, -274000, 127 or 255.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

MILLI, TENTH, WHOLE = 1e-3, 1e-1, 1.0
UNITS = (MILLI, TENTH, WHOLE)
# A running chip is warmer than freezing, and no longer works where sensors end at 125, 127, 150.
TEMPERATURES_C = (0.4, 125.0)
_SHUT_DOWN_C = (40.0, 150.0)
# Readings that are a temperature in this unit and in no other one.
_CLEAR = {MILLI: (2000.0, 125_000.0), TENTH: (150.0, 1250.0), WHOLE: (5.0, 125.0)}
# All bits of a byte set: in tenths it would be 25.5 degrees.
_NO_READING = 255.0


def evident_unit(
    raw: float | None, trips: Sequence[float], relatives: Sequence[float]
) -> float | None:
    """Return the degrees Celsius that one step of a zone is worth; None where its readings must tell.

    Args:
        raw: Its reading, None where it has none.
        trips: Its trip points, in its own unit.
        relatives: Readings of all zones of its name, its own among them.
    """
    by_trips = _of_trips(trips)
    # Some kernels mend the one and not the other.
    if by_trips is not None and (raw is None or in_celsius(raw, by_trips) is not None):
        return by_trips
    return _of_relatives(relatives)


def unit_of(raw: float | None) -> float | None:
    """Return the unit that a reading itself tells, None where it fits none."""
    return None if raw is None or raw == _NO_READING else _clear_unit(raw)


def in_celsius(raw: float | None, unit: float | None) -> float | None:
    """Return a reading in degrees Celsius, None where it is no temperature of a running chip."""
    if raw is None or unit is None:
        return None
    # Divided by 10 or 1000, so that 453 is 45.3 to the last digit.
    value_c = raw / (1 / unit)
    return value_c if TEMPERATURES_C[0] <= value_c < TEMPERATURES_C[1] else None


def _of_trips(trips: Sequence[float]) -> float | None:
    fitting = {
        unit
        for unit in UNITS
        for trip in trips
        if _SHUT_DOWN_C[0] <= trip * unit <= _SHUT_DOWN_C[1]
    }
    return fitting.pop() if len(fitting) == 1 else None


def _of_relatives(relatives: Sequence[float]) -> float | None:
    """Return the unit that most of at least two relatives are clear about."""
    units = Counter(unit for unit in map(unit_of, relatives) if unit is not None)
    (first, count), *others = [*units.most_common(2), (None, 0)]
    return first if count > 1 and count > others[0][1] else None


def _clear_unit(raw: float) -> float | None:
    return next((unit for unit, (low, high) in _CLEAR.items() if low <= raw < high), None)

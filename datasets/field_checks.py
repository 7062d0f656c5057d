"""Checks of single fields of records: what a device or a file says is not to be believed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from joulemap import InputError


def fields_of(cls: Any, content: Any) -> dict[str, Any]:
    """Return the fields of a record, neither missing nor unknown ones.

    Raises:
        InputError: It is something else.
    """
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


def finite(name: str, value: Any) -> float:
    """Return a finite number.

    Raises:
        InputError: It is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"{name} is {str(value)[:50]!r}, not a finite number")
    return float(value)


def positive(name: str, value: Any) -> float:
    """Return a number above 0.

    Raises:
        InputError: It is something else.
    """
    number = finite(name, value)
    if number <= 0:
        raise InputError(f"{name} is {number}, not above 0")
    return number


def not_negative(name: str, value: Any) -> float:
    """Return a number of 0 or more.

    Raises:
        InputError: It is something else.
    """
    number = finite(name, value)
    if number < 0:
        raise InputError(f"{name} is {number}, below 0")
    return number


def index(name: str, value: Any) -> int:
    """Return an int of 0 or more.

    Raises:
        InputError: It is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InputError(f"{name} is {str(value)[:50]!r}, not an int >= 0")
    return value


def count(name: str, value: Any) -> int:
    """Return an int of 1 or more.

    Raises:
        InputError: It is something else.
    """
    if index(name, value) < 1:
        raise InputError(f"{name} is 0, not at least 1")
    return int(value)

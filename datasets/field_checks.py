"""Checks of single fields of records: what a device or a file says is not to be believed."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from joulemap import InputError
from joulemap.showable_text import is_name, showable

from .answer_bounds import number_text

MAX_FLOAT = sys.float_info.max
MAX_INT = 2**63 - 1


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


def name_of(what: str, value: Any, longest: int = 200) -> str:
    """Return a name, all of whose characters can be seen and steer nothing.

    Args:
        what: What it names.
        value: The name.
        longest: How many characters it may have.

    Raises:
        InputError: It is empty, too long, no text, or holds what a terminal would obey.
    """
    if not is_name(value, longest):
        raise InputError(
            f"{what} is '{showable(repr(value)[1:-1], 60)}': a name has 1 to {longest} characters, all of which "
            "can be seen; write another one"
        )
    return str(value)


def finite(name: str, value: Any) -> float:
    """Return a finite number.

    Raises:
        InputError: It is something else.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    # An integer may be too long to be one of the finite floats.
    if not is_number or not -MAX_FLOAT <= value <= MAX_FLOAT:
        raise InputError(f"{name} is {number_text(value)}, not a finite number")
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
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_INT:
        raise InputError(f"{name} is {number_text(value)}, not an int from 0 to 2^63 - 1")
    return value


def count(name: str, value: Any) -> int:
    """Return an int of 1 or more.

    Raises:
        InputError: It is something else.
    """
    if index(name, value) < 1:
        raise InputError(f"{name} is 0, not at least 1")
    return int(value)

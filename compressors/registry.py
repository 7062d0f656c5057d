"""Which compressors there are, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any

from joulemap import InputError
from joulemap.plug_ins import PlugIns

# A line for each method, sorted by name: its module in this folder and what it is called there.
# Imported when asked for, since torch is slow to import. None is part of joulemap yet.
COMPRESSORS: Mapping[str, str] = MappingProxyType({})

OUTSIDE = PlugIns("compressors", "compressor", COMPRESSORS)


def register(name: str, compressor: Callable[..., Any]) -> None:
    """Make a compressor of your own known by a name, in this process.

    A package says the same for good by an entry point of the group `joulemap.compressors`.

    Args:
        name: Letters, digits, `_` and `-`.
        compressor: A class or a function; one registered before by this name gives way.

    Raises:
        InputError: The name is taken, or cannot be one.

    Example:
        >>> register("half_of_all", lambda widths: [width // 2 for width in widths])
        >>> get("half_of_all")([64, 10])
        [32, 5]
    """
    OUTSIDE.register(name, compressor)


def names() -> tuple[str, ...]:
    """Return the names of all compressors, sorted; none is imported."""
    return tuple(sorted({*COMPRESSORS, *OUTSIDE.names()}))


def get(name: str) -> Callable[..., Any]:
    """Return the compressor of that name: a class or a function, imported if it was not yet.

    Args:
        name: One of `names()`.

    Raises:
        InputError: There is none, or a package's cannot be loaded or is no class or function.
    """
    if isinstance(name, str) and name in COMPRESSORS:
        module, _, attribute = COMPRESSORS[name].partition(":")
        own: Callable[..., Any] = getattr(import_module(f"{__package__}.{module}"), attribute)
        return own
    plug_in = OUTSIDE.find(name)
    if plug_in is None:
        known = (
            ", ".join(names()) or "none; a package may bring some, or joulemap.compressors.register"
        )
        raise InputError(f"there is no compressor {name!r}; known: {known}")
    found = OUTSIDE.load(plug_in)
    if not callable(found):
        raise OUTSIDE.unusable(plug_in, "a class or a function")
    return found

"""Whether what answers at a device's address is still the device that answered before.

An address in a network may pass on to another phone or board, also one that lets the same host in.
"""

from __future__ import annotations

from collections.abc import Mapping

# What is built in decides where both tell it: a machine's id may be made anew at every start.
_BUILT_IN = ("serial number", "board's serial number")
_OTHERS = ("machine id", "board", "model")


def differences(before: object, now: object) -> list[str]:
    """Return what shows that another device answers now; nothing where it may be the same.

    Args:
        before: What the device said of itself (see `onboard.identity`), None if nothing yet.
        now: What is said now.
    """
    if not isinstance(before, Mapping) or not isinstance(now, Mapping):
        return []
    shared = [part for part in (*_BUILT_IN, *_OTHERS) if part in before and part in now]
    built_in = [part for part in shared if part in _BUILT_IN]
    return [part for part in built_in or shared if before[part] != now[part]]


def refusal(parts: list[str]) -> str:
    """Return why a device is not gone on with, as a sentence.

    Args:
        parts: What differs, at least one thing.
    """
    return (
        f"another device answers there now than the one that this campaign began with (its "
        f"{' and '.join(parts)} differ{'s' if len(parts) == 1 else ''}): the address has passed on "
        "to it. Nothing of it was taken; let the first one be reached again, under this address or its "
        "new one"
    )

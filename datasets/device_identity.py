"""Whether two descriptions are of one device, also where its id was made in another way at one time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MAX_IDS = 1000


def ids_of(device: Mapping[str, Any]) -> frozenset[str]:
    """Return the ids under which a device is known: its own, and former ones; none without a device."""
    former = device.get("former_ids")
    ids = [device.get("device_id"), *(former[:MAX_IDS] if isinstance(former, list) else ())]
    return frozenset(each for each in ids if isinstance(each, str))


def is_same_device(first: Mapping[str, Any] | None, second: Mapping[str, Any] | None) -> bool:
    """Return whether two descriptions are of one device.

    They are where they have an id in common, whatever it was made of, unless what is built in differs: of a disk
    that was copied both machines have the id.

    Args:
        first: A device's fingerprint; None or empty for an imported table, which is of no device.
        second: Another one.
    """
    first, second = first or {}, second or {}
    ours, theirs = first.get("device_id"), second.get("device_id")
    if ours is None or theirs is None:
        return ours is theirs
    is_known = bool(ids_of(first) & ids_of(second))
    return is_known and not _differs(first.get("identity"), second.get("identity"))


def device_of(measured: Any) -> Mapping[str, Any]:
    """Return the description of the device that measurements are of, its id alone where no more is known.

    Args:
        measured: Has `device_id`, and `device` if it knows more.
    """
    device = getattr(measured, "device", None)
    return device if isinstance(device, Mapping) and device else {"device_id": measured.device_id}


def _differs(first: Any, second: Any) -> bool:
    """Return whether numbers, all network cards, or the machine ids of one run differ."""
    if not isinstance(first, Mapping) or not isinstance(second, Mapping):
        return False
    for name in ("serial", "uuid"):
        numbers = [each[name] for each in (first, second) if isinstance(each.get(name), str)]
        if len(numbers) == 2:
            return bool(numbers[0] != numbers[1])
    cards = [each["network"] for each in (first, second) if isinstance(each.get("network"), list)]
    if len(cards) == 2 and all(cards):
        return not _texts(cards[0]) & _texts(cards[1])
    # A machine id that is made at each start differs after a restart, but not in one run.
    runs = [(each.get("boot"), each.get("run")) for each in (first, second)]
    return isinstance(runs[0][0], str) and runs[0][0] == runs[1][0] and runs[0][1] != runs[1][1]


def _texts(values: list[Any]) -> set[str]:
    return {each for each in values[:MAX_IDS] if isinstance(each, str)}

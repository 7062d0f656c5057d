"""What a user tells of a meter that it cannot find out by itself.

It follows the meter's name, or stands in the device's URL, where it is of whatever battery is read::

    --meter "battery?current_unit=mA&sign=-"
    ssh://u0_a123@phone:8022?current_unit=mA&sign=-
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import unquote

_UNITS = {"na": "nA", "ua": "uA", "\u00b5a": "uA", "\u03bca": "uA", "ma": "mA", "a": "A"}
# A plus sign in a URL may have become a blank on its way here.
_SIGNS = {"+": "+", " ": "+", "": "+", "plus": "+", "-": "-", "minus": "-"}
_NAME = re.compile(r"[A-Za-z0-9_.:+-]{1,64}\Z")


@dataclass(frozen=True)
class _Option:
    """What an option may be."""

    read: Callable[[str], object]
    form: str


OPTIONS: Mapping[str, Mapping[str, _Option]] = {
    "battery": {
        "current_unit": _Option(lambda text: _UNITS.get(text.lower()), "uA, mA, nA or A"),
        "sign": _Option(
            lambda text: _SIGNS.get(text.lower()),
            "+ or -, that of the current while the battery gives",
        ),
        "ignore_charger": _Option(
            lambda text: text if _NAME.match(text) else None,
            "a name in /sys/class/power_supply",
        ),
    }
}
# Those that a device's URL may hold, and whose they are.
IN_URL = dict.fromkeys(OPTIONS["battery"], "battery")


class MeterOptionError(Exception):
    """An option is unknown, told twice, or not what it may be: the message says what to write."""


def split_wanted(wanted: str) -> tuple[str, dict[str, dict[str, str]]]:
    """Return a choice of meters without options, and the options of each backend.

    Args:
        wanted: `auto`, `none` or `NAME[:CHANNEL][?OPTION=VALUE[&...]][,...]`.

    Raises:
        MeterOptionError: See there.
    """
    plain, told = [], {}
    for part in wanted.split(","):
        name, mark, query = part.partition("?")
        plain.append(name)
        if not mark:
            continue
        backend = name.partition(":")[0]
        if backend not in OPTIONS:
            raise MeterOptionError(
                f"meter '{part[:80]}': {backend or 'no meter'} takes no options; those that do: "
                f"{', '.join(OPTIONS)}"
            )
        pairs = [pair.partition("=") for pair in query.split("&")]
        told[backend] = _read(backend, [(key, value) for key, _, value in pairs], part)
    return ",".join(plain), told


def split_url(url: str) -> tuple[str, dict[str, dict[str, str]]]:
    """Return a device's URL without options of meters, and the options of each backend.

    Raises:
        MeterOptionError: See there.
    """
    address, mark, query = url.partition("?")
    kept, pairs = [], []
    for pair in query.split("&"):
        key, _, value = pair.partition("=")
        if mark and key in IN_URL:
            pairs.append((key, value))
        else:
            kept.append(pair)
    if not pairs:
        return url, {}
    plain = f"{address}?{'&'.join(kept)}" if any(kept) else address
    return plain, {"battery": _read("battery", pairs, url)}


def in_words(told: Mapping[str, str]) -> str:
    """Return what was told, as it is written: `current_unit=mA&sign=-`."""
    return "&".join(f"{name}={told[name]}" for name in sorted(told))


def _read(backend: str, pairs: list[tuple[str, str]], where: str) -> dict[str, str]:
    told: dict[str, str] = {}
    for key, value in pairs:
        option = OPTIONS[backend].get(key)
        if option is None:
            raise MeterOptionError(
                f"'{where[:80]}': a {backend} has no option {key[:30]!r}; known: "
                f"{', '.join(OPTIONS[backend])}"
            )
        if key in told:
            raise MeterOptionError(f"'{where[:80]}': {key} is told twice")
        read = option.read(unquote(value))
        if read is None:
            raise MeterOptionError(
                f"'{where[:80]}': {key} is {value[:30]!r}; write {option.form}, such as "
                "battery?current_unit=mA&sign=-"
            )
        told[key] = str(read)
    return told

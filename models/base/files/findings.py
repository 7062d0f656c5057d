"""What a fit found that is no array: choices, counts, texts. A file's are read as a stranger's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeVar

from joulemap import InputError
from joulemap.showable_text import showable

Known = TypeVar("Known", int, str)

# Of lists and objects; above the largest table of candidates, below what costs seconds to check.
MAX_ENTRIES = 10_000
# A count beyond this is no count, and beyond it floats no longer hold every whole number.
MAX_COUNT = 1 << 53


class Findings:
    """An object of findings, taken out name by name, each of the type that is asked for.

    Args:
        values: What a file holds.
        where: What it is called in messages.

    Raises:
        InputError: It is no object, or an absurdly large one.

    Example:
        >>> read = Findings({"divisor": 8, "kind": "memory"})
        >>> read.count("divisor"), read.choice("kind", ("compute", "memory"))
        (8, 'memory')
        >>> read.end()
    """

    def __init__(self, values: object, where: str = "findings") -> None:
        if not isinstance(values, dict) or len(values) > MAX_ENTRIES:
            raise InputError(f"its {where} are no object of at most {MAX_ENTRIES} values")
        self._left: dict[str, Any] = dict(values)
        self._where = where

    def choice(self, name: str, known: Sequence[Known]) -> Known:
        """Return one of the values that are known."""
        value = self._take(name)
        for each in known:
            if type(value) is type(each) and value == each:
                return each
        raise self._wrong(name, value, f"one of {', '.join(map(str, known))}")

    def flag(self, name: str) -> bool:
        """Return true or false."""
        value = self._take(name)
        if not isinstance(value, bool):
            raise self._wrong(name, value, "true or false")
        return value

    def count(self, name: str, least: int = 0) -> int:
        """Return a whole number of at least `least`."""
        value = self._take(name)
        if type(value) is not int or not least <= value <= MAX_COUNT:
            raise self._wrong(name, value, f"a whole number of at least {least}")
        return value

    def number(self, name: str) -> float:
        """Return a finite number."""
        value = self._take(name)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value) or abs(value) > 1e300:
            raise self._wrong(name, value, "a finite number")
        return float(value)

    def texts(self, name: str) -> dict[str, str]:
        """Return texts by name, made fit to be shown."""
        values = self._take(name)
        if (
            not isinstance(values, dict)
            or len(values) > MAX_ENTRIES
            or not all(isinstance(text, str) for text in values.values())
        ):
            raise self._wrong(name, values, "texts by name")
        return {showable(key): showable(text) for key, text in values.items()}

    def part(self, name: str) -> Findings:
        """Return an object inside this one."""
        return Findings(self._take(name), f"{self._where}.{name}")

    def optional_part(self, name: str) -> Findings | None:
        """Return an object inside this one; None where null stands there."""
        value = self._take(name)
        return None if value is None else Findings(value, f"{self._where}.{name}")

    def parts(self, name: str) -> list[Findings]:
        """Return the objects of a list."""
        values = self._take(name)
        if not isinstance(values, list) or len(values) > MAX_ENTRIES:
            raise self._wrong(name, values, f"a list of at most {MAX_ENTRIES} objects")
        where = f"{self._where}.{name}"
        return [Findings(value, f"{where}[{place}]") for place, value in enumerate(values)]

    def end(self) -> None:
        """Check that nothing is left that nobody has asked for.

        Raises:
            InputError: Something is.
        """
        if self._left:
            name = showable(min(self._left), 60)
            raise InputError(f"its {self._where} hold '{name}', which is not known")

    def _take(self, name: str) -> Any:
        if name not in self._left:
            raise InputError(f"its {self._where} do not hold '{name}'")
        return self._left.pop(name)

    def _wrong(self, name: str, value: object, wanted: str) -> InputError:
        return InputError(f"its {self._where}.{name} is {showable(value, 60)}, not {wanted}")

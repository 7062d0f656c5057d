"""Which structure an aligned model has, and which others it was compared with."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from joulemap import InputError

from ..base.files.findings import Findings
from ..base.intervals import FloatArray
from .terms import COMPLEXITIES

DIVISORS = (1, 2, 4, 8, 16, 32)
BILINEAR = "bilinear"
# ECC's form with squared relative errors and with squared absolute ones; the numbers are what
# files before version 2 hold.
BILINEAR_FORMS = {-1: "bilinear, relative errors", -2: "bilinear, absolute errors"}
NAMES = (*COMPLEXITIES, *BILINEAR_FORMS.values())


def check_channels(name: str, value: object) -> None:
    """Check a hyperparameter that is one of `DIVISORS`, or None for a choice.

    Raises:
        InputError: It is neither.
    """
    if value is not None and (isinstance(value, bool) or value not in DIVISORS):
        known = ", ".join(map(str, DIVISORS))
        raise InputError(f"{name} is {value!r}; write None or one of {known}")


@dataclass(frozen=True)
class Structure:
    """The divisor that separates regimes, the block that channels are padded to, and the terms.

    Attributes:
        divisor: d, in channels; 1 where there are no regimes.
        block: b, in channels; 1 for no padding.
        is_staircase: Whether inputs count as whole blocks too.
        terms: Which terms take part, one of `NAMES`.

    Example:
        >>> Structure(8, 16, False, "memory").pair
        (8, 16)
        >>> Structure(1, 4, True, "memory").pair
        (1, -4)
    """

    divisor: int = 1
    block: int = 1
    is_staircase: bool = False
    terms: str = COMPLEXITIES[0]

    @property
    def pair(self) -> tuple[int, int]:
        """d, and b as `functions_of` takes it: negative for a staircase."""
        return self.divisor, -self.block if self.is_staircase else self.block

    @property
    def complexity(self) -> str:
        """Which terms take part, as the hyperparameter of that name."""
        return self.terms if self.terms in COMPLEXITIES else BILINEAR

    @classmethod
    def of(cls, divisor: int, block: int, complexity: int) -> Structure:
        """Return the structure of the numbers that a search works with.

        Args:
            divisor: d.
            block: b, negative for a staircase.
            complexity: Index in `COMPLEXITIES`, or negative: a key of `BILINEAR_FORMS`.
        """
        terms = COMPLEXITIES[complexity] if complexity >= 0 else BILINEAR_FORMS[complexity]
        return cls(divisor, abs(block), block < 0, terms)

    @classmethod
    def from_numbers(cls, numbers: FloatArray, what: str) -> Structure:
        """Return the structure that a file before version 2 holds as three numbers.

        Raises:
            InputError: They are none.
        """
        values = np.asarray(numbers, dtype=np.float64)
        known = (DIVISORS, (*DIVISORS, *(-step for step in DIVISORS[1:])), range(-2, 3))
        if values.shape != (3,) or not all(
            value in allowed for value, allowed in zip(values, known, strict=True)
        ):
            raise InputError(f"{what} is {values}, not a divisor, a block and a complexity")
        return cls.of(*(int(value) for value in values))

    @classmethod
    def from_findings(cls, read: Findings) -> Structure:
        """Return the structure that a file holds."""
        return cls(
            read.choice("divisor", DIVISORS),
            read.choice("block", DIVISORS),
            read.flag("is_staircase"),
            read.choice("terms", NAMES),
        )

    def to_findings(self) -> dict[str, Any]:
        """Return what files hold of it."""
        return asdict(self)


@dataclass(frozen=True)
class Compared:
    """A structure that was compared with others.

    Attributes:
        structure: The structure.
        error: Its mean relative error on held-out rows, a fraction.
    """

    structure: Structure
    error: float


def compared_findings(compared: tuple[Compared, ...]) -> list[dict[str, Any]]:
    """Return what files hold of the structures that were compared."""
    return [{**each.structure.to_findings(), "error": each.error} for each in compared]


def compared_from_findings(several: list[Findings]) -> tuple[Compared, ...]:
    """Return the structures that were compared, as a file holds them."""
    found = []
    for read in several:
        found.append(Compared(Structure.from_findings(read), read.number("error")))
        read.end()
    return tuple(found)


def findings_of_numbers(structure: FloatArray, candidates: FloatArray) -> dict[str, Any]:
    """Return the findings that files before version 2 hold as numbers.

    Args:
        structure: d, b (negative: a staircase), index of the complexity, and what divides all
            widths of the data, shape (4,).
        candidates: The first three of all that were compared, and their error, shape (m, 4).

    Raises:
        InputError: They have other shapes or values.
    """
    if np.shape(structure) != (4,) or structure[3] not in DIVISORS:
        raise InputError(f"structure_ is {structure}, not a divisor, a block and a complexity")
    if np.ndim(candidates) != 2 or np.shape(candidates)[1:] != (4,):
        raise InputError("candidates_ is not a table of four columns")
    compared = tuple(
        Compared(Structure.from_numbers(row[:3], "a candidate"), float(row[3]))
        for row in candidates
    )
    return {
        "structure": Structure.from_numbers(structure[:3], "structure_").to_findings(),
        "candidates": compared_findings(compared),
        "sampled_multiple": int(structure[3]),
    }

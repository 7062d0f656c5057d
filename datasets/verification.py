"""Whether something vouches for the content of a file that a dataset was read from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

NO_DIGEST = "an older joulemap wrote it, without a digest of its content"
NO_CHAIN = "an older joulemap began its journal, whose lines do not vouch for each other"


class UnverifiedWarning(UserWarning):
    """What was read is known to be damaged or incomplete."""


@dataclass(frozen=True)
class Verification:
    """What is known of the file that a dataset comes from.

    Attributes:
        is_verified: Whether a digest, or a journal's chain of checksums, was checked; False where there
            is none or it does not match; None for what comes from no file.
        notes: What is to be known of the file, one sentence each.
    """

    is_verified: bool | None = None
    notes: tuple[str, ...] = ()

    def describe(self) -> list[str]:
        """Return it as sentences."""
        if self.is_verified is None:
            return ["It was not read from a file of joulemap's.", *self.notes]
        if self.is_verified:
            return ["Its content is verified: its file vouches for every value.", *self.notes]
        return ["Its content is not verified.", *self.notes]


def joined(parts: Iterable[Verification]) -> Verification:
    """Return what is known of several datasets as one: verified if each of them is."""
    several = list(parts)
    marks = {part.is_verified for part in several}
    is_verified = False if False in marks else (True if marks == {True} else None)
    notes = dict.fromkeys(note for part in several for note in part.notes)
    return Verification(is_verified, tuple(notes))

"""Who is told how a campaign goes."""

from __future__ import annotations

from typing import Protocol as TypingProtocol

from ...datasets import Visit


class Observer(TypingProtocol):
    """Is told how a campaign goes."""

    def message(self, text: str) -> None:
        """Take one sentence for the user."""

    def started(self, total: int, done: int, visit_s: float) -> None:
        """Learn how many visits there are, how many were made before, and how long one takes."""

    def visited(self, visit: Visit, done: int, noise: float | None) -> None:
        """Learn of one more visit, how many count by now, and the noise of a single one so far."""


class Silent:
    """Tells nobody."""

    def message(self, text: str) -> None:
        """Ignore the sentence."""

    def started(self, total: int, done: int, visit_s: float) -> None:
        """Ignore the start."""

    def visited(self, visit: Visit, done: int, noise: float | None) -> None:
        """Ignore the visit."""

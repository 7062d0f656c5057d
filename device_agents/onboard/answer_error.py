"""What is wrong with an answer that cannot be read."""

from __future__ import annotations


class AnswerError(ValueError):
    """An answer lacks a field, or holds something else than it should there."""

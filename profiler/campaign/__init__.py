"""A campaign: what to measure, the loop, what is said about it."""

from __future__ import annotations

from typing import Any

from joulemap import moved_modules


def __getattr__(name: str) -> Any:
    return moved_modules.former_name(__name__, "run", name)

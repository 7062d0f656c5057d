"""The analytic model of a systolic array."""

from __future__ import annotations

from typing import Any

from joulemap import moved_modules


def __getattr__(name: str) -> Any:
    return moved_modules.former_name(__name__, "predictor", name)

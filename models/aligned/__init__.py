"""The aligned model: rates by kinds of layers, regimes by the divisibility of channel counts."""

from __future__ import annotations

from typing import Any

from joulemap import moved_modules


def __getattr__(name: str) -> Any:
    return moved_modules.former_name(__name__, "predictor", name)

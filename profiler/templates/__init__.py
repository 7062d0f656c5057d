"""A network as one graph whose every size is a polynomial in the widths."""

from __future__ import annotations

from typing import Any

from joulemap import moved_modules


def __getattr__(name: str) -> Any:
    return moved_modules.former_name(__name__, "export", name)

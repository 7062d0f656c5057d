"""Folders laid out like a machine's /sys, for the tests of meters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

Plant = Callable[[Path, Mapping[str, object]], None]


@pytest.fixture(scope="session")
def plant() -> Plant:
    """Returns a function (folder, path -> content) that writes files, with a newline like /sys."""

    def write(folder: Path, contents: Mapping[str, object]) -> None:
        for name, content in contents.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{content}\n")

    return write

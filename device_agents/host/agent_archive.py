"""The agent as one file: a zip archive that Python runs."""

from __future__ import annotations

import hashlib
import importlib.resources
import io
import zipfile
from collections.abc import Iterator
from functools import cache
from importlib.resources.abc import Traversable

from ..registry import METERS, RUNTIMES

PACKAGE = "joulemap_agent"
_FOLDERS = ("onboard", "runtimes", "meters")
# Fixed, so that the same code gives the same bytes and the same name.
_DATE = (2026, 1, 1, 0, 0, 0)


@cache
def agent_archive() -> tuple[str, bytes]:
    """Return the archive's file name, which holds a hash of its content, and its bytes.

    It mirrors the folders `onboard`, `runtimes` and `meters` of this package below
    `joulemap_agent` and starts `onboard.launch.main` with the tables of runtimes and meters.
    """
    runtimes = {name: entry.module for name, entry in sorted(RUNTIMES.items())}
    meters = {name: entry.module for name, entry in METERS.items()}
    files = {
        "__main__.py": (
            f"from {PACKAGE}.onboard.launch import main\n\nmain({runtimes!r}, {meters!r})\n"
        ).encode(),
        f"{PACKAGE}/__init__.py": b"",
    }
    package = importlib.resources.files(__package__.rpartition(".")[0])
    for folder in _FOLDERS:
        files.update(_modules(package / folder, f"{PACKAGE}/{folder}"))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(name, _DATE), content, zipfile.ZIP_DEFLATED)
    content = buffer.getvalue()
    return f"agent-{hashlib.sha256(content).hexdigest()[:16]}.pyz", content


def _modules(folder: Traversable, name: str) -> Iterator[tuple[str, bytes]]:
    """Yield the Python files of a folder and of those in it, each with its name in the archive."""
    for item in folder.iterdir():
        if item.is_dir():
            yield from _modules(item, f"{name}/{item.name}")
        elif item.name.endswith(".py"):
            yield f"{name}/{item.name}", item.read_bytes()

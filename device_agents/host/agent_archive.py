"""The agent as one file: a zip archive that Python runs."""

from __future__ import annotations

import hashlib
import importlib.resources
import io
import zipfile
from collections.abc import Iterator
from functools import cache
from importlib.resources.abc import Traversable

from .. import registry
from ..outside_modules import AGENT as PACKAGE

_FOLDERS = ("onboard", "runtimes", "meters")
# Fixed, so that the same code gives the same bytes and the same name.
_DATE = (2026, 1, 1, 0, 0, 0)

_Pairs = tuple[tuple[str, str], ...]


def agent_archive() -> tuple[str, bytes]:
    """Return the archive's file name, which holds a hash of its content, and its bytes.

    It mirrors the folders `onboard`, `runtimes` and `meters` of this package below
    `joulemap_agent`, with the runtimes and meters of other packages, and starts
    `onboard.launch.main` with the tables of both.
    """
    outside = {
        f"{PACKAGE}/{folder}/{each.file}.py": each.source
        for folder, several in (
            ("runtimes", registry.OUTSIDE_RUNTIMES.modules()),
            ("meters", registry.OUTSIDE_METERS.modules()),
        )
        for each in several
    }
    runtimes = {name: entry.module for name, entry in sorted(registry.runtimes().items())}
    meters = {name: entry.module for name, entry in registry.meters().items()}
    return _built(tuple(runtimes.items()), tuple(meters.items()), tuple(outside.items()))


@cache
def _built(runtimes: _Pairs, meters: _Pairs, outside: _Pairs) -> tuple[str, bytes]:
    start = f"main({dict(runtimes)!r}, {dict(meters)!r})"
    files = {
        "__main__.py": f"from {PACKAGE}.onboard.launch import main\n\n{start}\n".encode(),
        f"{PACKAGE}/__init__.py": b"",
    }
    package = importlib.resources.files(__package__.rpartition(".")[0])
    for folder in _FOLDERS:
        files.update(_modules(package / folder, f"{PACKAGE}/{folder}"))
    files.update((name, source.encode()) for name, source in outside)
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

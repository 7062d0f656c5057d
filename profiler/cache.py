"""Files that are kept to save time: what was exported once need not be exported again.

A cache that cannot be used costs time, not results; what others could have written there is not read.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from joulemap import InputError

from ..device_agents.onboard.private_folder import UnsafeError, open_file, open_folder

# Of one file in the cache.
MAX_BYTES = 256 << 20


def cache_folder(name: str) -> Path:
    """Return the folder of one kind of files in the user's cache.

    Args:
        name: Of the kind, such as `templates`.
    """
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "joulemap" / name


def read_kept(folder: Path, name: str) -> bytes | None:
    """Return what was kept under a name; None if there is nothing that can be trusted."""
    with contextlib.suppress(OSError, InputError, UnsafeError):
        opened = open_folder(str(folder), make=False)
        try:
            with os.fdopen(open_file(name, os.O_RDONLY, opened), "rb") as file:
                content = file.read(MAX_BYTES + 1)
                return content if len(content) <= MAX_BYTES else None
        finally:
            os.close(opened)
    return None


def keep(folder: Path, name: str, content: bytes) -> None:
    """Keep a content under a name, whole or not at all; nothing happens where that is impossible."""
    with contextlib.suppress(OSError, UnsafeError):
        _write_atomically(str(folder), name, content)


def _write_atomically(cache: str, name: str, content: bytes) -> None:
    folder = open_folder(cache)
    part = f"{name}.{secrets.token_hex(4)}.part"
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with os.fdopen(open_file(part, flags, folder), "wb") as file:
            file.write(content)
        os.rename(part, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(part, dir_fd=folder)
        raise
    finally:
        os.close(folder)

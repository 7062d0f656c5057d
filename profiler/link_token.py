"""How a campaign finds its own work again on a remote device."""

from __future__ import annotations

import re
import secrets
from pathlib import Path

from joulemap import InputError

from ..datasets import Visit
from ..datasets.journal import FILE_NAME as JOURNAL
from ..datasets.store import DEVICE_LINK, write_atomically

_TOKEN = re.compile(r"[0-9a-f]{32}\Z")


def link_token(folder: Path) -> str:
    """Return the token under which a remote device keeps the work of the campaign in a folder.

    It is drawn when a campaign begins and never used by another.

    Raises:
        InputError: It cannot be read or written.
    """
    path = folder / DEVICE_LINK
    try:
        if path.exists() and (folder / JOURNAL).exists():
            token = path.read_text(encoding="ascii").strip()
            if _TOKEN.match(token):
                return token
        token = secrets.token_hex(16)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be used: {error}; choose another folder") from error
    write_atomically(path, lambda file: _write(file, token))
    return token


def _write(file: Path, token: str) -> None:
    file.write_text(f"{token}\n", encoding="ascii")


def name_of(visit: Visit) -> str:
    """Return what a visit is called on the device: the same in every run of the campaign."""
    return "/".join(map(str, visit.key))

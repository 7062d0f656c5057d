"""How a campaign finds its own work again on a remote device."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

from joulemap import InputError
from joulemap.regular_files import read_text

from ....datasets import Visit
from ....datasets.journal import FILE_NAME as JOURNAL
from ....datasets.store import DEVICE_LINK, write_atomically

MAX_BYTES = 1 << 10
_TOKEN = re.compile(r"[0-9a-f]{32}\Z")


def link_token(folder: Path) -> str:
    """Return the token under which a remote device keeps the work of the campaign in a folder.

    It is drawn when a campaign begins and never used by another.

    Raises:
        InputError: It cannot be read or written.
    """
    path = folder / DEVICE_LINK
    try:
        # Whatever is there in the journal's place, a link to nowhere too, is refused later, and the
        # token is not to be lost before.
        if path.exists() and os.path.lexists(folder / JOURNAL):
            token = read_text(path, MAX_BYTES).strip()
            if _TOKEN.match(token):
                return token
        token = secrets.token_hex(16)
    except OSError as error:
        raise InputError(
            f"{path} cannot be used: {error.strerror}; choose another folder"
        ) from error
    write_atomically(path, f"{token}\n")
    return token


def name_of(visit: Visit) -> str:
    """Return what a visit is called on the device: the same in every run of the campaign."""
    return "/".join(map(str, visit.key))

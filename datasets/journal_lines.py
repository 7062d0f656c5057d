"""The lines of a journal: JSON objects whose checksums are chained.

A line ends in the CRC-32 of what precedes it in the line, and holds the checksum of the line before
it (`previous`, 0 in the first). So a line that was changed does not check, and neither does the one
behind a line that was taken out, moved or doubled. Journals whose first line has no `previous` are
older: each of their lines checks alone.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from joulemap import InputError
from joulemap.regular_files import open_regular

FIRST_PREVIOUS = 0
MAX_LINE = 64 * 1024 * 1024


@dataclass(frozen=True)
class Line:
    """A line of a journal as it stands there, complete.

    Attributes:
        text: Its bytes without the newline.
    """

    text: bytes

    def first(self) -> tuple[dict[str, Any], int, bool]:
        """Return the record of a journal's first line, its checksum, and whether lines are chained.

        Raises:
            InputError: As `decode`.
        """
        record, check = self.decode(previous=None)
        is_chained = record.pop("previous", None) == FIRST_PREVIOUS
        return record, check, is_chained

    def decode(self, *, previous: int | None) -> tuple[dict[str, Any], int]:
        """Return the record and the line's checksum.

        Args:
            previous: Checksum of the line before it; None where lines are not chained.

        Raises:
            InputError: The line does not check, or does not follow the one before.
        """
        if len(self.text) > MAX_LINE:
            raise InputError(f"it is longer than {MAX_LINE} bytes")
        text, separator, check = self.text.rpartition(b',"crc32":')
        found = zlib.crc32(text + b"}")
        if not separator or check != b"%d}" % found:
            raise InputError("its checksum does not match")
        try:
            record = json.loads(text + b"}")
        except (ValueError, RecursionError) as error:
            raise InputError(f"it is not JSON ({error})") from error
        if not isinstance(record, dict):
            raise InputError("it is not a JSON object")
        if previous is not None and record.pop("previous", None) != previous:
            raise InputError(
                "it does not follow the line before it: lines were taken out, moved or doubled there"
            )
        return record, found


def encode(record: Mapping[str, Any], *, previous: int | None) -> tuple[bytes, int]:
    """Return a record as a line with its newline, and the line's checksum.

    Args:
        record: What the line holds.
        previous: Checksum of the line before it; None where lines are not chained.

    Raises:
        ValueError: It holds a number that is not finite.
    """
    chained = dict(record) if previous is None else {**record, "previous": previous}
    text = json.dumps(chained, separators=(",", ":"), allow_nan=False).encode()
    check = zlib.crc32(text)
    return text[:-1] + b',"crc32":%d}\n' % check, check


def read_lines(path: Path) -> Iterator[Line | int]:
    """Yield the complete lines of a journal and, last, how many bytes a torn line behind them has.

    Raises:
        InputError: It cannot be read, or is no regular file.
    """
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            while True:
                text = file.readline(MAX_LINE + 1)
                if text.endswith(b"\n"):
                    yield Line(text[:-1])
                    continue
                # A line of which that much is read is refused when it is decoded.
                yield Line(text) if len(text) > MAX_LINE else len(text)
                return
    except OSError as error:
        raise InputError(f"the journal {path} cannot be read: {error.strerror}") from error

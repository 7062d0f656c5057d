"""The content of CSV files: regular ones or standard input, plain or gzip, of bounded size."""

from __future__ import annotations

import gzip
import io
import zlib
from os import PathLike
from pathlib import Path

from joulemap import InputError
from joulemap.regular_files import read_table

MAX_BYTES = 256 << 20
_GZIP = b"\x1f\x8b"


def csv_content(path: str | PathLike[str]) -> io.BytesIO:
    """Return what a CSV file holds, that of standard input where the name is `-`.

    Args:
        path: The file. One that begins as gzip does is unpacked, whatever its name.

    Raises:
        FileNotFoundError: There is no such file.
        InputError: It cannot be read, is no regular file, or holds more than `MAX_BYTES`.
    """
    try:
        content = read_table(path, MAX_BYTES)
        if content.startswith(_GZIP):
            with gzip.GzipFile(fileobj=io.BytesIO(content)) as packed:
                content = packed.read(MAX_BYTES + 1)
            if len(content) > MAX_BYTES:
                raise InputError(f"cannot read {path}: unpacked it has more than {MAX_BYTES} bytes")
    except FileNotFoundError:
        raise
    except (OSError, EOFError, zlib.error) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise InputError(f"cannot read {Path(path)}: {why}") from error
    return io.BytesIO(content)

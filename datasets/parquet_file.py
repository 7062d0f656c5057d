"""Parquet files of joulemap's: a document about the table in the metadata, and a digest of both.

Two things are checked when a file is read: the checksum of each of its pages, where there is one, and
`sha256` in the document, the digest of the values and of the rest of the document
(`content_digest`). The digest is kept by whoever writes the same values again with the same metadata.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from joulemap import InputError
from joulemap.regular_files import read_bytes, write_whole

from .content_digest import content_digest

MAX_BYTES = 1 << 30
MAX_UNPACKED_BYTES = 1 << 31
MAX_VALUES = 50_000_000
_ROWS_AT_ONCE = 1 << 16
DIGEST = "sha256"


@dataclass(frozen=True)
class ParquetContent:
    """What a Parquet file of joulemap's holds.

    Attributes:
        table: The values.
        about: The document about them, without the digest.
        is_verified: Whether the file's digest is that of its content; False where it has none, or
            another one.
        has_digest: Whether it has one.
    """

    table: pa.Table
    about: dict[str, Any]
    is_verified: bool
    has_digest: bool


def write_parquet(path: Path, table: pa.Table, key: str, about: Mapping[str, Any]) -> None:
    """Write a table with a document about it and the digest of both; complete or not at all.

    Args:
        path: The file; a regular one is replaced.
        table: The values.
        key: What the document is called in the file's metadata.
        about: The document, which JSON can hold.

    Raises:
        InputError: It cannot be written, or a column holds what no dataset holds.
    """
    document = {**about, DIGEST: content_digest(table, about)}
    table = table.replace_schema_metadata({key.encode(): json.dumps(document).encode()})
    content = io.BytesIO()
    pq.write_table(table, content, write_page_checksum=True)
    try:
        write_whole(path, lambda file: file.write(content.getbuffer()))
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error


def read_parquet(
    path: Path, key: str, versions: Sequence[int], *, allow_damaged: bool = False
) -> ParquetContent:
    """Return what a Parquet file holds.

    Args:
        path: A regular file.
        key: What the document is called in the file's metadata.
        versions: Those of the format that are read; files of the first have no digest.
        allow_damaged: Whether a file whose digest is not that of its content is read all the same.

    Raises:
        FileNotFoundError: There is none.
        InputError: It cannot be read, is none of joulemap's, is damaged or too large.
    """
    try:
        data = read_bytes(path, MAX_BYTES)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    try:
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=not allow_damaged)
        table = _table_of(file)
        about = json.loads((table.schema.metadata or {})[key.encode()])
    except KeyError as error:
        raise InputError(
            f"{path} is a Parquet file, but not one of joulemap's ({error})"
        ) from error
    except (
        pa.ArrowException,
        OSError,
        ValueError,
        TypeError,
        RecursionError,
        MemoryError,
    ) as error:
        raise InputError(
            f"{path} is damaged or no Parquet file of joulemap's: {str(error)[:200]}"
        ) from error
    if not isinstance(about, dict):
        raise InputError(f"{path} is a Parquet file, but not one of joulemap's")
    if len(set(table.column_names)) < len(table.column_names):
        raise InputError(f"{path} is damaged: two of its columns have the same name")
    try:
        # Before the digest: another version may compute it otherwise.
        _check_version(about, versions)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    digest = about.pop(DIGEST, None)
    is_verified = digest is not None and digest == _digest_of(path, table, about)
    if digest is not None and not is_verified and not allow_damaged:
        raise InputError(
            f"{path} is damaged or was changed: its digest does not match its content. Restore it from "
            "a copy; a campaign's is written again from its journal by the same `joulemap profile` "
            "command, and CostDataset.load(..., allow_damaged=True) reads it as it is"
        )
    return ParquetContent(table, about, is_verified, digest is not None)


def _check_version(about: Mapping[str, Any], versions: Sequence[int]) -> None:
    """Refuse a document of another version than those known; the first of them has no digest."""
    version = about.get("format_version")
    if version not in versions or isinstance(version, bool):
        raise InputError(
            f"it has format version {str(version)[:50]}; this joulemap reads versions "
            f"{', '.join(map(str, versions))}"
        )
    if version != versions[0] and DIGEST not in about:
        raise InputError("it is damaged: the digest of its content is missing")


def _digest_of(path: Path, table: pa.Table, about: Mapping[str, Any]) -> str:
    try:
        return content_digest(table, about)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (pa.ArrowException, ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{path} is damaged: {str(error)[:200]}") from error


def _table_of(file: pq.ParquetFile) -> pa.Table:
    """Return what a file holds, and stop where a small one unpacks to a giant.

    What its metadata say of row groups and columns is not asked for: where they are damaged, arrow
    ends the process.

    Raises:
        ValueError: It is a giant.
    """
    batches = []
    num_values = unpacked = 0
    for batch in file.iter_batches(_ROWS_AT_ONCE):
        num_values += batch.num_rows * batch.num_columns
        unpacked += batch.nbytes
        if num_values > MAX_VALUES or unpacked > MAX_UNPACKED_BYTES:
            raise ValueError(
                f"it holds more than {MAX_VALUES} values, or {MAX_UNPACKED_BYTES} bytes of them"
            )
        batches.append(batch)
    return pa.Table.from_batches(batches, file.schema_arrow)

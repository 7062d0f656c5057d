"""A digest of what a table says: of its values, and not of the bytes that a file keeps them in.

Rewriting the same values gives the same digest, whatever the order of the columns, the compression,
the row groups and the types: 1 and 1.0 are equal, so are a null and a NaN, and a column without any
value is of no type. The order of the rows counts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from joulemap import InputError

# Whole numbers beyond it are not exact as floating-point ones.
_MAX_EXACT = 1 << 53


def content_digest(table: pa.Table, about: Mapping[str, Any]) -> str:
    """Return the SHA-256 (hexadecimal) of a table's values and of what is said about it.

    Args:
        table: Columns of numbers, texts, truth values, and lists of those, each of another name.
        about: What JSON can hold.

    Raises:
        InputError: A column holds something else.

    Example:
        >>> one = pa.table({"a": [1, 2], "b": [None, "x"]})
        >>> other = pa.table({"b": [None, "x"], "a": [1.0, 2.0]})
        >>> content_digest(one, {}) == content_digest(other, {})
        True
        >>> content_digest(one, {}) == content_digest(one.slice(1), {})
        False
    """
    # As it comes back from a file: keys are texts there.
    said = json.dumps(json.loads(json.dumps(about)), sort_keys=True)
    digest = hashlib.sha256(said.encode())
    for name in sorted(table.column_names):
        column = table.column(name).combine_chunks()
        digest.update(json.dumps([name, len(column)]).encode())
        for part in _parts(name, column):
            digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def _parts(name: str, column: Any) -> list[bytes]:
    """Return a column's values as bytes that are equal where the values are."""
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks) if column.chunks else pa.array([], column.type)
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if column.null_count == len(column):
        return [b"missing"]
    kind = column.type
    if (
        pa.types.is_integer(kind)
        and pc.max(pc.abs(column.cast(pa.float64(), safe=False))).as_py() > _MAX_EXACT
    ):
        column = column.cast(pa.string())
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        values = column.cast(pa.float64()).to_numpy(zero_copy_only=False).astype("<f8")
        # One NaN of the many that there are.
        values[np.isnan(values)] = np.nan
        tag = b"truth values" if pa.types.is_boolean(kind) else b"numbers"
        return [b"missing"] if np.isnan(values).all() else [tag, values.tobytes()]
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return [b"texts", json.dumps(column.to_pylist()).encode()]
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        lengths = json.dumps(pc.list_value_length(column).to_pylist()).encode()
        return [b"lists", lengths, *_parts(name, column.flatten())]
    raise InputError(
        f"the column '{name}' holds values of the type {str(kind)[:60]}; a dataset's hold numbers, "
        "texts or lists of them"
    )

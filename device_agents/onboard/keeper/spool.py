"""Finished answers on the device's disk, until the host has them safe.

An entry is its length and CRC-32, 4 bytes each and big-endian, and then JSON: the visit's key and its
answer. Only what checks counts: a device that loses power while writing leaves a torn last entry,
which is cut off, and that visit is made again.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .. import private_folder

ENTRY = struct.Struct(">II")
MAX_ENTRY = 16 * 1024 * 1024
# The file is written anew without what was acknowledged once that is so many bytes and half of it.
MIN_COMPACTED = 4 * 1024 * 1024


class Spool:
    """Answers by key, each on disk before `append` returns.

    Args:
        path: The file; made if it is not there.

    Raises:
        OSError: It cannot be read or written.
        UnsafeError: Something else than a plain file of this user's has its name.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = private_folder.open_file(str(path), os.O_RDWR | os.O_CREAT)
        self._places: dict[str, tuple[int, int]] = {}
        self._end = 0
        self._read()

    def __contains__(self, key: object) -> bool:
        return key in self._places

    def __len__(self) -> int:
        return len(self._places)

    def append(self, key: str, answer: dict[str, Any]) -> None:
        """Store an answer durably.

        Raises:
            OSError: The disk is full or fails; the file is as before.
        """
        body = json.dumps({"key": key, "answer": answer}, separators=(",", ":")).encode()
        entry = memoryview(ENTRY.pack(len(body), zlib.crc32(body)) + body)
        try:
            at = self._end
            while entry:
                written = os.pwrite(self._fd, entry, at)
                at, entry = at + written, entry[written:]
            os.fsync(self._fd)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._end)
            raise
        self._places[key] = (self._end, at - self._end)
        self._end = at

    def get(self, key: str) -> dict[str, Any] | None:
        """Return the answer of a key, None if there is none."""
        place = self._places.get(key)
        entry = None if place is None else self._entry(place[0])
        return None if entry is None else entry[2]

    def acknowledge(self, keys: Iterable[str]) -> None:
        """Forget answers that the host has safe."""
        for key in keys:
            self._places.pop(key, None)
        alive = sum(length for _, length in self._places.values())
        # A file that cannot be made smaller is no harm.
        with contextlib.suppress(OSError):
            if not self._places:
                os.ftruncate(self._fd, 0)
                self._end = 0
            elif self._end - alive > max(MIN_COMPACTED, alive):
                self._compact()

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._fd)

    def _read(self) -> None:
        while True:
            entry = self._entry(self._end)
            if entry is None:
                break
            length, key, _ = entry
            self._places[key] = (self._end, length)
            self._end += length
        if os.fstat(self._fd).st_size > self._end:
            os.ftruncate(self._fd, self._end)

    def _entry(self, at: int) -> tuple[int, str, dict[str, Any]] | None:
        """Return (length, key, answer) of the entry that begins here, None if it does not check."""
        head = os.pread(self._fd, ENTRY.size, at)
        if len(head) < ENTRY.size:
            return None
        length, check = ENTRY.unpack(head)
        if not 0 < length <= MAX_ENTRY:
            return None
        body = os.pread(self._fd, length, at + ENTRY.size)
        if len(body) < length or zlib.crc32(body) != check:
            return None
        try:
            content = json.loads(body)
            key, answer = content["key"], content["answer"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return None
        if not isinstance(key, str) or not isinstance(answer, dict):
            return None
        return ENTRY.size + length, key, answer

    def _compact(self) -> None:
        path = self._path.with_suffix(".new")
        fd = private_folder.open_file(str(path), os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        places, end = {}, 0
        try:
            for key, (at, length) in self._places.items():
                entry = os.pread(self._fd, length, at)
                if os.pwrite(fd, entry, end) < length:
                    raise OSError("the disk is full")
                places[key] = (end, length)
                end += length
            os.fsync(fd)
            path.replace(self._path)
        except OSError:
            os.close(fd)
            path.unlink()
            raise
        os.close(self._fd)
        self._fd, self._places, self._end = fd, places, end

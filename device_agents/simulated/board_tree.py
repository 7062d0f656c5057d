"""The kernel's files of a simulated board, with live values, and what can go wrong with them."""

from __future__ import annotations

import errno
import fnmatch
import functools
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from ..onboard.files import Files, OpenFile
from .board_equipment import equipment_files
from .board_gauges import Charger
from .board_model import Board
from .board_options import BoardOptions

Content = Callable[[], bytes]


@dataclass(frozen=True)
class Fault:
    """What is wrong with a file.

    Args:
        kind: One of `KINDS`.
        value: Its number.
    """

    kind: str
    value: float = 0.0


# What a fault does, and what its value is.
KINDS: Mapping[str, str] = {
    "eacces": "opening is not permitted",
    "eio": "reading fails with an input/output error",
    "enodev": "reading fails since the device is gone; opening as well",
    "vanish": "the file is not there; who has it open reads an error",
    "stick": "the value no longer changes",
    "backwards": "the number falls by so much, once",
    "nan": "the text is no number",
    "scale": "the number is so many times as large, 1000 unless told",
    "sign": "the number has the other sign",
    "delay": "reading takes so many seconds longer",
}
_ERRORS = {"eacces": errno.EACCES, "eio": errno.EIO, "enodev": errno.ENODEV}


class BoardTree:
    """The files of a simulated board.

    Args:
        board: Its power.
        options: What it has.
        clock: The time in seconds, of the charger.
    """

    def __init__(
        self, board: Board, options: BoardOptions, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.board = board
        self.options = options
        self.charger = Charger(clock)
        self._files = equipment_files(board, options, self.charger)
        self._folders = _folders(self._files)
        self._faults: dict[str, list[Fault]] = {}
        self._stuck: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def files(self) -> Mapping[str, Content]:
        """Return path (such as `sys/class/hwmon/hwmon0/name`) to what reads it, faults included."""
        return {path: functools.partial(self.read, path) for path in self._files}

    def read(self, path: str) -> bytes:
        """Return a file's content now.

        Raises:
            OSError: There is no such file, or a fault says so.
        """
        content = self._files.get(path)
        if content is None:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        text = content() if path not in self._stuck else self._stuck[path]
        for fault in self._faults.get(path, ()):
            if fault.kind in ("eio", "enodev", "vanish"):
                code = errno.EIO if fault.kind == "eio" else errno.ENODEV
                raise OSError(code, os.strerror(code), path)
            if fault.kind == "delay":
                time.sleep(fault.value)
            elif fault.kind == "nan":
                text = b"nan\n"
            elif fault.kind in ("scale", "sign", "backwards"):
                text = _altered(text, fault)
        return text

    def check_open(self, path: str) -> None:
        """Return if a file can be opened.

        Raises:
            OSError: There is no such file, or a fault says so.
        """
        if not self.is_file(path):
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        for fault in self._faults.get(path, ()):
            if fault.kind in ("eacces", "enodev"):
                code = _ERRORS[fault.kind]
                raise OSError(code, os.strerror(code), path)

    def is_file(self, path: str) -> bool:
        """Return whether there is such a file."""
        return path in self._files and not self._has_vanished(path)

    def is_folder(self, path: str) -> bool:
        """Return whether there is such a folder; one whose files all vanished is gone as well."""
        return not path or any(self._names(path))

    def names(self, folder: str) -> list[str]:
        """Return the names in a folder, sorted."""
        return sorted(set(self._names(folder)))

    def set_fault(self, pattern: str, kind: str, value: float | None = None) -> int:
        """Make something go wrong with every file whose path fits; return how many these are.

        Args:
            pattern: A path, `*` and `?` stand for anything.
            kind: One of `KINDS`.
            value: Its number.

        Raises:
            ValueError: No such kind.
        """
        if kind not in KINDS:
            raise ValueError(f"unknown fault '{kind}'; known: {', '.join(KINDS)}")
        paths = fnmatch.filter(self._files, pattern)
        with self._lock:
            for path in paths:
                number = value if value is not None else (1000.0 if kind == "scale" else 0.0)
                self._faults[path] = [*self._faults.get(path, ()), Fault(kind, number)]
                if kind == "stick":
                    self._stuck[path] = self._files[path]()
        return len(paths)

    def clear_faults(self, pattern: str = "*") -> None:
        """Put right again what is wrong with the files whose path fits."""
        with self._lock:
            for path in fnmatch.filter(list(self._faults), pattern):
                del self._faults[path]
                self._stuck.pop(path, None)

    @property
    def faults(self) -> Mapping[str, list[Fault]]:
        """What is wrong: path to faults."""
        return dict(self._faults)

    def _has_vanished(self, path: str) -> bool:
        return any(fault.kind == "vanish" for fault in self._faults.get(path, ()))

    def _names(self, folder: str) -> Iterable[str]:
        for name in self._folders.get(folder, ()):
            path = f"{folder}/{name}" if folder else name
            if self.is_file(path) or (path in self._folders and self.is_folder(path)):
                yield name


class BoardFiles(Files):
    """A board's files for meters in this process: the interface of `Files` without a file system.

    Args:
        tree: The board's files.
    """

    def __init__(self, tree: BoardTree) -> None:
        super().__init__("/")
        self.tree = tree

    def open(self, path: str) -> OpenFile:
        """Return a file that stays open.

        Raises:
            OSError: It cannot be opened.
        """
        path = path.strip("/")
        self.tree.check_open(path)
        return _OpenBoardFile(self.tree, path)

    def list(self, path: str) -> list[str]:
        """Return the names in a folder, sorted; none if it cannot be read."""
        return self.tree.names(path.strip("/"))

    def resolve(self, path: str) -> str:
        """Return the path: a board's files have no links."""
        return path.strip("/")


class _OpenBoardFile(OpenFile):
    def __init__(self, tree: BoardTree, path: str) -> None:
        self.path = path
        self._fd = -1
        self._tree = tree

    def read(self) -> str:
        return self._tree.read(self.path).decode("utf-8", "replace").strip()


def _folders(paths: Iterable[str]) -> dict[str, set[str]]:
    folders: dict[str, set[str]] = {"": set()}
    for path in paths:
        parts = path.split("/")
        for depth in range(len(parts)):
            folders.setdefault("/".join(parts[:depth]), set()).add(parts[depth])
    return folders


def _altered(text: bytes, fault: Fault) -> bytes:
    try:
        number = int(text)
    except ValueError:
        return text
    if fault.kind == "scale":
        return b"%d\n" % round(number * fault.value)
    if fault.kind == "sign":
        return b"%d\n" % -number
    return b"%d\n" % max(0, round(number - fault.value))

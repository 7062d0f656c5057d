"""Serves a simulated board's /sys as a file system (FUSE).

    python -m joulemap.device_agents.simulated.board_files FOLDER --meter rapl,ina219 --pid 1234

The folder then holds what /sys holds on a board: values are live, also for those who keep a file
open. The board works as much as the processes given by `--pid` (and their children) use CPUs. Ctrl-C
or `fusermount3 -u FOLDER` end it. It needs Debian's package fuse3 and Python's mfusepy.

Besides there is a folder `.board`:

======================  ============================================================================
control                 read: the state, JSON. Write one command a line:
                        `watch PID`; `fault PATTERN KIND [VALUE]` (see `board_tree.KINDS`; such as
                        `fault class/hwmon/*/power1_input eio`); `clear [PATTERN]`;
                        `charger on|off`; a command that cannot be read is an invalid argument
truth/START,END         read: the joules between two times of the monotonic clock, JSON: `energy_j`,
                        `idle_j` and `net_j`; an interval that is not in the past, or too long
                        ago, is out of range
======================  ============================================================================
"""

from __future__ import annotations

import argparse
import errno
import itertools
import json
import os
import re
import signal
import stat
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import mfusepy  # type: ignore[import-untyped]

from joulemap import InputError

from .board_activity import ProcessActivity
from .board_model import Board
from .board_options import EQUIPMENT, BoardOptions
from .board_tree import BoardTree

# How often the power is looked at besides when somebody reads.
LOOK_S = 0.005
OWN = ".board"
CONTROL = f"{OWN}/control"
TRUTH = f"{OWN}/truth"
SIZE = 4096
_INTERVAL = re.compile(re.escape(TRUTH) + r"/([0-9.]{1,30}),([0-9.]{1,30})\Z")


class BoardSystem(mfusepy.Operations):  # type: ignore[misc]
    """The file system's operations.

    Args:
        tree: The board's files.
        activity: What makes it work.
    """

    use_ns = True

    def __init__(self, tree: BoardTree, activity: ProcessActivity) -> None:
        self._tree = tree
        self._activity = activity
        self._numbers = itertools.count(1)
        # As in the kernel, a file's text is made when its start is read and kept for the rest.
        self._texts: dict[int, bytes] = {}

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        """Return a file's or folder's properties."""
        name = path.strip("/")
        now = time.time_ns()
        times = {"st_mtime": now, "st_ctime": now, "st_atime": now}
        owner = {"st_uid": os.getuid(), "st_gid": os.getgid()}
        if name in (OWN, TRUTH) or self._tree.is_folder(_below(name)):
            return {"st_mode": stat.S_IFDIR | 0o755, "st_nlink": 2, **times, **owner}
        if name == CONTROL or _INTERVAL.match(name) or self._tree.is_file(_below(name)):
            mode = 0o600 if name == CONTROL else 0o444
            return {
                "st_mode": stat.S_IFREG | mode,
                "st_size": SIZE,
                "st_nlink": 1,
                **times,
                **owner,
            }
        raise mfusepy.FuseOSError(errno.ENOENT)

    def readdir(self, path: str, fh: int) -> list[str]:
        """Return the names in a folder."""
        name = path.strip("/")
        names = {"": [*self._tree.names("sys"), OWN], OWN: ["control", "truth"], TRUTH: []}
        return [".", "..", *(names[name] if name in names else self._tree.names(_below(name)))]

    def open(self, path: str, flags: int) -> int:
        """Return a number for an open file."""
        name = path.strip("/")
        if name != CONTROL and not _INTERVAL.match(name):
            if flags & os.O_ACCMODE != os.O_RDONLY:
                raise mfusepy.FuseOSError(errno.EACCES)
            _answer(lambda: self._tree.check_open(_below(name)))
        return next(self._numbers)

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        """Return a part of a file's text."""
        if offset == 0 or fh not in self._texts:
            self._texts[fh] = _answer(lambda: self._content(path.strip("/")))
        return self._texts[fh][offset : offset + size]

    def release(self, path: str, fh: int) -> int:
        """Forget an open file."""
        self._texts.pop(fh, None)
        return 0

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        """Accept what opening for writing does first."""
        if path.strip("/") != CONTROL:
            raise mfusepy.FuseOSError(errno.EACCES)
        return 0

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        """Obey commands."""
        try:
            for line in data.decode().splitlines():
                self._obey(line.split())
        except (ValueError, ProcessLookupError):
            raise mfusepy.FuseOSError(errno.EINVAL) from None
        return len(data)

    def _content(self, name: str) -> bytes:
        if name == CONTROL:
            return (json.dumps(self._state()) + "\n").encode()
        interval = _INTERVAL.match(name)
        if interval is None:
            return self._tree.read(_below(name))
        try:
            start_s, end_s = float(interval[1]), float(interval[2])
            board = self._tree.board
            truth = {
                "energy_j": board.true_energy_j(start_s, end_s),
                "idle_j": board.true_idle_j(start_s, end_s),
                "net_j": board.true_net_j(start_s, end_s),
            }
        except ValueError as error:
            raise OSError(errno.ERANGE, str(error)) from error
        return (json.dumps(truth) + "\n").encode()

    def _state(self) -> dict[str, Any]:
        return {
            "options": dict(self._tree.options.texts()),
            "pids": self._activity.pids,
            "is_charging": self._tree.charger.is_plugged,
            "temperature_c": self._tree.board.temperature_c,
            "faults": {
                path.removeprefix("sys/"): [[fault.kind, fault.value] for fault in faults]
                for path, faults in self._tree.faults.items()
            },
        }

    def _obey(self, words: Sequence[str]) -> None:
        match words:
            case []:
                pass
            case ["watch", pid]:
                self._activity.watch(int(pid))
            case ["fault", pattern, kind]:
                self._set_fault(pattern, kind, None)
            case ["fault", pattern, kind, value]:
                self._set_fault(pattern, kind, float(value))
            case ["clear"]:
                self._tree.clear_faults()
            case ["clear", pattern]:
                self._tree.clear_faults(_below(pattern))
            case ["charger", ("on" | "off") as state]:
                self._tree.charger.plug(is_plugged=state == "on")
            case _:
                raise ValueError(f"cannot read {' '.join(words)}")

    def _set_fault(self, pattern: str, kind: str, value: float | None) -> None:
        if not self._tree.set_fault(_below(pattern), kind, value):
            raise ValueError(f"no file fits {pattern}")


def _below(name: str) -> str:
    return f"sys/{name}" if name else "sys"


def _answer(operation: Any) -> Any:
    try:
        return operation()
    except mfusepy.FuseOSError:
        raise
    except OSError as error:
        raise mfusepy.FuseOSError(error.errno or errno.EIO) from error


def _look_forever(board: Board) -> None:
    while True:
        board.advance()
        time.sleep(LOOK_S)


def _end_with_stdin() -> None:
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="board_files",
        description="Serve a simulated board's /sys as a file system.",
        epilog="meters: " + "; ".join(f"{name}: {text}" for name, text in EQUIPMENT.items()),
    )
    parser.add_argument("folder", type=Path, help="an empty folder, where it will appear")
    parser.add_argument("--pid", type=int, action="append", default=[], help="what is its work")
    parser.add_argument(
        "--until-stdin-closes", action="store_true", help="end with the program that started it"
    )
    for field in fields(BoardOptions):
        parser.add_argument(f"--{field.name.replace('_', '-')}", metavar="VALUE")
    given = vars(parser.parse_args(arguments))
    activity = ProcessActivity()
    try:
        options = BoardOptions.parse(
            {
                field.name: given[field.name]
                for field in fields(BoardOptions)
                if given[field.name] is not None
            }
        )
        for pid in given["pid"]:
            activity.watch(pid)
    except (InputError, ProcessLookupError) as error:
        print(f"board_files: {error}", file=sys.stderr)
        return 2
    board = Board(time.perf_counter, activity.busy_s, options.power_model, seed=options.seed)
    system = BoardSystem(BoardTree(board, options), activity)
    threading.Thread(target=_look_forever, args=(board,), daemon=True).start()
    if given["until_stdin_closes"]:
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    try:
        # direct_io: readers that keep a file open see new values.
        mfusepy.FUSE(
            system,
            str(given["folder"]),
            foreground=True,
            nothreads=False,
            direct_io=True,
            auto_unmount=True,
            attr_timeout=0,
            entry_timeout=0,
            negative_timeout=0,
            fsname="joulemap-board",
        )
    except RuntimeError as error:
        print(f"board_files: cannot serve at {given['folder']}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Starts and ends the program that serves a simulated board's /sys, and talks to it."""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from joulemap import interruption

from ..errors import StableDeviceError, TransientDeviceError
from .board_options import BoardOptions

PREFIX = "joulemap-board-"
MODULE = f"{__package__}.board_files"
START_S = 30.0
END_S = 5.0
# An empty folder of this age has no board and will get none.
OLD_S = 120.0


class Truth(NamedTuple):
    """Joules that a board used between two times.

    Args:
        energy_j: All of it.
        idle_j: What it would have used without work.
        net_j: The rest.
    """

    energy_j: float
    idle_j: float
    net_j: float


class BoardServer:
    """A running simulated board: a folder that stands in for /sys.

    Args:
        options: What it has and does.
        folder: Where it appears, an empty folder; a new one when None.

    Raises:
        StableDeviceError: A program or package is missing, or the folder cannot be used.
        TransientDeviceError: It did not start in time.
    """

    def __init__(self, options: BoardOptions | None = None, folder: Path | None = None) -> None:
        check_requirements()
        self.options = options or BoardOptions()
        remove_stale_mounts()
        self._is_own_folder = folder is None
        self.folder = Path(tempfile.mkdtemp(prefix=PREFIX)) if folder is None else folder
        _unmount_if_stale(self.folder)
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the program
        command = [sys.executable, "-m", MODULE, str(self.folder), "--until-stdin-closes"]
        for name, text in self.options.texts():
            command += [f"--{name.replace('_', '-')}", text]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._stderr,
            start_new_session=True,
        )
        interruption.add_child(self._process.pid)
        try:
            self._wait_for_files()
        except BaseException:
            self.close()
            raise

    def watch(self, pid: int) -> None:
        """Make a process's and its children's work the board's."""
        self._command(f"watch {pid}")

    def watch_self(self) -> None:
        """Make the work of this process and its children the board's; the server's is not."""
        self.watch(os.getpid())

    def set_fault(self, pattern: str, kind: str, value: float | None = None) -> None:
        """Make something go wrong with the files below /sys that fit (see `board_tree.KINDS`)."""
        self._command(f"fault {pattern} {kind}" + ("" if value is None else f" {value!r}"))

    def clear_faults(self, pattern: str = "") -> None:
        """Put right what is wrong with the files that fit, with all of them by default."""
        self._command(f"clear {pattern}")

    def plug_charger(self, *, is_plugged: bool) -> None:
        """Plug the charger in or out."""
        self._command(f"charger {'on' if is_plugged else 'off'}")

    def state(self) -> dict[str, Any]:
        """Return options, watched processes, faults and temperature."""
        state: dict[str, Any] = json.loads((self.folder / ".board" / "control").read_text())
        return state

    def truth(self, start_s: float, end_s: float) -> Truth:
        """Return the true joules between two times of the monotonic clock (`perf_counter`).

        Raises:
            OSError: The interval is not in the past, or too long ago.
        """
        name = f"{start_s:.9f},{end_s:.9f}"
        return Truth(**json.loads((self.folder / ".board" / "truth" / name).read_text()))

    def close(self) -> None:
        """End it; its folder is as before, or gone if it was made for it."""
        interruption.remove_child(self._process.pid)
        if self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(END_S)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._stderr.close()
        if _is_stale(self.folder) or self.folder.is_mount():
            unmount(self.folder)
        if self._is_own_folder:
            with contextlib.suppress(OSError):
                self.folder.rmdir()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _command(self, line: str) -> None:
        with (self.folder / ".board" / "control").open("w") as file:
            file.write(line + "\n")

    def _wait_for_files(self) -> None:
        deadline = time.monotonic() + START_S
        while not (self.folder / ".board" / "control").exists():
            if self._process.poll() is not None:
                self._stderr.seek(0)
                said = self._stderr.read().decode(errors="replace").strip().splitlines()
                raise StableDeviceError(
                    f"the simulated board cannot be served at {self.folder}"
                    + (f": {said[-1][:300]}" if said else "")
                )
            if time.monotonic() > deadline:
                raise TransientDeviceError(
                    f"the simulated board's files did not appear within {START_S:.0f} s"
                )
            interruption.sleep(0.02)


def check_requirements() -> None:
    """Return if a simulated board can be served here.

    Raises:
        StableDeviceError: Something is missing; the message says how to get it.
    """
    if shutil.which("fusermount3") is None:
        raise StableDeviceError(
            "a simulated board needs fusermount3: apt-get install -y --no-install-recommends fuse3"
        )
    if importlib.util.find_spec("mfusepy") is None:
        raise StableDeviceError("a simulated board needs mfusepy: pip install 'mfusepy>=3'")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        raise StableDeviceError(
            "a simulated board needs /dev/fuse, which this user cannot open; in a container, add "
            "`--device /dev/fuse --cap-add SYS_ADMIN`; elsewhere: chmod a+rw /dev/fuse"
        )


def remove_stale_mounts() -> None:
    """Remove what boards left behind whose programs, and those that started them, were killed."""
    for folder in Path(tempfile.gettempdir()).glob(PREFIX + "*"):
        with contextlib.suppress(OSError):
            if _unmount_if_stale(folder) or time.time() - folder.stat().st_mtime > OLD_S:
                # Fails where a board still is.
                folder.rmdir()


def unmount(folder: Path) -> None:
    """Unmount a board's folder, also while files are open; harmless when it is not mounted."""
    program = shutil.which("fusermount3")
    if program is None:
        return
    subprocess.run(
        [program, "-u", "-z", str(folder)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
        timeout=START_S,
        start_new_session=True,
    )


def _unmount_if_stale(folder: Path) -> bool:
    is_stale = _is_stale(folder)
    if is_stale:
        unmount(folder)
    return is_stale


def _is_stale(folder: Path) -> bool:
    """Return whether a file system is mounted there whose program is gone."""
    try:
        folder.stat()
    except OSError as error:
        return error.errno == errno.ENOTCONN
    return False

"""This machine: the agent is a child process."""

from __future__ import annotations

import contextlib
import os
import secrets
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from joulemap import InputError, interruption
from joulemap.regular_files import read_bytes

from ..errors import StableDeviceError, TransientDeviceError
from ..interfaces import Completed
from ..onboard import private_folder
from ..onboard.keeper.campaign_folder import AGENTS
from ..onboard.keeper.device_lock import DeviceLock

STDERR_TAIL = 2000


class LocalTransport:
    """Runs programs on this machine.

    Args:
        address: What follows `local:` in the URL: nothing.

    Raises:
        InputError: An address was given.
    """

    is_remote = False

    def __init__(self, address: str = "") -> None:
        if address.strip("/"):
            raise InputError(f"device 'local:{address}': this machine is written 'local:'")
        self.device_lock: DeviceLock | None = DeviceLock()

    def push(self, content: bytes, name: str) -> str:
        """Store bytes in the cache folder and return their path."""
        cache = cache_folder()
        path = cache / AGENTS / name
        try:
            folder = private_folder.open_folder(str(cache), (AGENTS,))
            try:
                _store(folder, name, content)
            finally:
                os.close(folder)
        except private_folder.UnsafeError as error:
            raise StableDeviceError(
                f"the agent cannot be stored: {error}; set XDG_CACHE_HOME to a folder of your own"
            ) from error
        except OSError as error:
            raise StableDeviceError(
                f"the agent cannot be stored in {path.parent}: {error.strerror}; set XDG_CACHE_HOME "
                "to a folder that can be written"
            ) from error
        return str(path)

    def pull(self, path: str, max_bytes: int) -> bytes:
        """Return the content of a file of this machine."""
        try:
            return read_bytes(path, max_bytes)
        except OSError as error:
            raise StableDeviceError(f"cannot read {path}: {error.strerror}") from error

    def run(self, command: Sequence[str], timeout_s: float, max_bytes: int = 1 << 20) -> Completed:
        """Return what a short program printed and how it ended."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            try:
                done = subprocess.run(
                    list(command),
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    timeout=timeout_s,
                    check=False,
                    start_new_session=True,
                )
            except OSError as error:
                raise StableDeviceError(f"cannot start {command[0]}: {error.strerror}") from error
            except subprocess.TimeoutExpired as error:
                raise TransientDeviceError(
                    f"{command[0]} gave no answer within {timeout_s:.0f} s"
                ) from error
            texts = []
            for file in (out, err):
                if file.tell() > max_bytes:
                    raise StableDeviceError(f"{command[0]} printed more than {max_bytes} bytes")
                file.seek(0)
                texts.append(file.read())
        return Completed(done.returncode, *texts)

    def start(self, command: Sequence[str]) -> LocalProcess:
        """Start a program as a child process."""
        lock = self.device_lock
        return LocalProcess(command, () if lock is None else lock.descriptors)

    def python(self) -> str:
        """Return the interpreter that runs this code."""
        return sys.executable

    def is_alive(self, timeout_s: float = 10.0) -> bool:
        """Return that this machine answers."""
        return True

    def reconnect(self, timeout_s: float) -> None:
        """There is no link that could be lost."""

    def close(self) -> None:
        """Nothing is held open."""


def cache_folder() -> Path:
    """Return joulemap's folder for what can be made again (`$XDG_CACHE_HOME/joulemap`)."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "joulemap"


def _store(folder: int, name: str, content: bytes) -> None:
    """Let a file of this content lie in a folder; never half written under its own name."""
    with (
        contextlib.suppress(FileNotFoundError, private_folder.UnsafeError),
        os.fdopen(private_folder.open_file(name, os.O_RDONLY, folder), "rb") as file,
    ):
        if file.read(len(content) + 1) == content:
            return
    part = f"{name}.{secrets.token_hex(4)}.part"
    try:
        with os.fdopen(
            private_folder.open_file(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, folder), "wb"
        ) as file:
            file.write(content)
        os.rename(part, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(part, dir_fd=folder)
        raise


class LocalProcess:
    """A child process with pipes; every read and write has a time limit.

    Args:
        command: Program and arguments; no shell is involved.
        inherited: Open files of this process that the program has as well.

    Raises:
        StableDeviceError: The program cannot be started.
    """

    def __init__(self, command: Sequence[str], inherited: Sequence[int] = ()) -> None:
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        try:
            # A session of its own: Ctrl-C reaches the campaign, which then closes the agent.
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                bufsize=0,
                pass_fds=inherited,
                start_new_session=True,
            )
        except OSError as error:
            self._stderr.close()
            raise StableDeviceError(f"cannot start {command[0]}: {error.strerror}") from error
        assert self._process.stdin is not None  # noqa: S101 - by the arguments above
        assert self._process.stdout is not None  # noqa: S101
        self._stdin = self._process.stdin
        self._stdout = self._process.stdout
        interruption.add_child(self._process.pid)
        for stream in (self._stdin, self._stdout):
            os.set_blocking(stream.fileno(), False)

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    def write(self, data: bytes, timeout_s: float) -> None:
        """Send bytes to the child's standard input within the time limit."""
        deadline = time.monotonic() + timeout_s
        view = memoryview(data)
        while view:
            self._wait(self._stdin.fileno(), selectors.EVENT_WRITE, deadline, timeout_s)
            try:
                written = os.write(self._stdin.fileno(), view)
            except BlockingIOError:
                continue
            except OSError as error:
                raise TransientDeviceError(self._ended()) from error
            view = view[written:]

    def read(self, length: int, timeout_s: float) -> bytes:
        """Return exactly `length` bytes of the child's standard output within the time limit."""
        deadline = time.monotonic() + timeout_s
        parts: list[bytes] = []
        missing = length
        while missing:
            self._wait(self._stdout.fileno(), selectors.EVENT_READ, deadline, timeout_s)
            try:
                part = os.read(self._stdout.fileno(), min(missing, 1 << 20))
            except BlockingIOError:
                continue
            if not part:
                raise TransientDeviceError(self._ended())
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def stderr_tail(self) -> str:
        """Return the end of what the child printed on standard error."""
        try:
            size = os.fstat(self._stderr.fileno()).st_size
            # pread: the child shares this file's position.
            tail = os.pread(self._stderr.fileno(), STDERR_TAIL, max(0, size - STDERR_TAIL))
        except (OSError, ValueError):
            return ""
        return tail.decode(errors="replace").strip()

    def is_alive(self) -> bool:
        """Return whether the child still runs."""
        return self._process.poll() is None

    def kill(self) -> None:
        """End the child at once and reap it."""
        interruption.remove_child(self._process.pid)
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for stream in (self._stdin, self._stdout, self._stderr):
            stream.close()

    def _wait(self, fd: int, event: int, deadline: float, timeout_s: float) -> None:
        if not interruption.is_ready(fd, event, deadline - time.monotonic()):
            raise TransientDeviceError(f"the agent gave no answer within {timeout_s:.0f} s")

    def _ended(self) -> str:
        try:
            code: int | None = self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            code = None
        how = "closed its output" if code is None else f"ended with code {code}"
        if code is not None and code < 0:
            how = f"was killed by signal {-code}"
        said = self.stderr_tail().splitlines()
        return f"the agent {how}" + (f": {said[-1][:300]}" if said else "")

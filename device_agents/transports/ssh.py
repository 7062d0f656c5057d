"""A board or server over SSH: the agent is a remote command with live standard streams."""

from __future__ import annotations

import secrets
import shlex
import time
from collections.abc import Sequence

from ..errors import DeviceError, StableDeviceError, TransientDeviceError
from ..interfaces import Completed, ConnectOptions
from . import remote_files
from .remote_python import find_python
from .ssh_connection import ConnectLimits, SshConnection
from .ssh_process import SilentShellError, SshProcess
from .ssh_settings import SshUrl, resolve

CONNECT_TIMEOUT_S = 60.0
START_TIMEOUT_S = 30.0
FILE_TIMEOUT_S = 120.0
ANSWER_TIMEOUT_S = 3.0


class SshTransport:
    """Runs programs on a host over SSH. Connects when it is first needed.

    Args:
        address: What follows `ssh:` in the URL, such as `//pi@rpi4`.
        options: What the user permits.
        limits: Time limits of the steps of connecting.

    Raises:
        InputError: The address cannot be read.
    """

    is_remote = True
    device_lock = None

    def __init__(
        self,
        address: str,
        options: ConnectOptions | None = None,
        limits: ConnectLimits | None = None,
    ) -> None:
        self.url = SshUrl.parse(address)
        self._options = options or ConnectOptions()
        self._limits = limits
        self._connection: SshConnection | None = None
        self._python: str | None = None
        self._has_started = False

    @property
    def device(self) -> str | None:
        """What of the machine runs variants, such as `cuda:1`; None where the URL is silent."""
        return self.url.device

    def push(self, content: bytes, name: str) -> str:
        """Store bytes in the cache folder of the device and return their path there."""
        return remote_files.push(self, content, name, [self.url.cache or ""], FILE_TIMEOUT_S)

    def pull(self, path: str, max_bytes: int) -> bytes:
        """Return the content of a file on the device."""
        return remote_files.pull(self, path, max_bytes, FILE_TIMEOUT_S)

    def run(self, command: Sequence[str], timeout_s: float, max_bytes: int = 1 << 20) -> Completed:
        """Return what a short program printed and how it ended."""
        began = time.monotonic()
        connection = self._connection or self._connect(CONNECT_TIMEOUT_S)
        was_given_up = connection.is_given_up
        process: SshProcess | None = None
        try:
            process = self._start(command, min(timeout_s, START_TIMEOUT_S), max_stderr=max_bytes)
            process.end_input()
            return process.wait(max(0.0, began + timeout_s - time.monotonic()), max_bytes)
        except TransientDeviceError as error:
            # A connection that was closed from this side, at the limit, was not lost.
            is_late = connection.is_given_up and not was_given_up
            if not is_late and "no answer within" not in str(error):
                raise
            raise TransientDeviceError(
                f"{command[0]} gave no answer within {time.monotonic() - began:.1f} s"
            ) from error
        finally:
            if process is not None:
                process.kill()

    def start(self, command: Sequence[str]) -> SshProcess:
        """Start a program on the device."""
        return self._start(command, START_TIMEOUT_S)

    def python(self) -> str:
        """Return the path of the device's Python interpreter, 3.9 or newer.

        Raises:
            StableDeviceError: There is none; the message says how to install one there.
        """
        if self._python is None:
            self._python = find_python(self, self.url.python, self.url.host)
        return self._python

    def is_alive(self, timeout_s: float = 10.0) -> bool:
        """Return whether the device answers within the time limit."""
        deadline = time.monotonic() + timeout_s
        try:
            if self._connection is None:
                self._connect(timeout_s)
            self.run(["true"], max(0.0, deadline - time.monotonic()))
        except (TransientDeviceError, StableDeviceError):
            return False
        return True

    def reconnect(self, timeout_s: float) -> None:
        """Reach the device anew, once; what was started over the old link may be gone."""
        self.close()
        self._connect(timeout_s)

    def close(self) -> None:
        """Let go of the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connect(self, timeout_s: float) -> SshConnection:
        self._connection = SshConnection(
            resolve(self.url),
            accept_new_host_key=self._options.accept_new_host_key,
            timeout_s=timeout_s,
            limits=self._limits,
        )
        return self._connection

    def _start(
        self, command: Sequence[str], timeout_s: float, max_stderr: int | None = None
    ) -> SshProcess:
        connection = self._connection or self._connect(CONNECT_TIMEOUT_S)
        mark = f"joulemap-{secrets.token_hex(8)}"
        deadline = time.monotonic() + timeout_s
        line = remote_command(command, mark)
        try:
            process = SshProcess(connection, line, mark, timeout_s, max_stderr)
        except SilentShellError as error:
            raise self._silent(error, timeout_s) from error
        try:
            process.wait_until_started(command[0], max(0.0, deadline - time.monotonic()))
        except SilentShellError as error:
            process.kill()
            raise self._silent(error, timeout_s) from error
        except BaseException:
            process.kill()
            raise
        self._has_started = True
        return process

    def _silent(self, error: SilentShellError, timeout_s: float) -> DeviceError:
        """Return what a login shell means that starts no program in time.

        One that did before may do so again, and so may one that had little time.
        """
        connection = self._connection
        is_first = not self._has_started and timeout_s >= START_TIMEOUT_S
        # Where the server itself hangs it is not the shell.
        if not is_first or connection is None or not connection.answers(ANSWER_TIMEOUT_S):
            return TransientDeviceError(f"no answer within {timeout_s:.1f} s: {error}")
        return StableDeviceError(str(error))


def remote_command(command: Sequence[str], mark: str) -> str:
    """Return the text that runs a program through any login shell.

    A shell script for `sh` first prints a mark and its process number, which the program then
    keeps, on both outputs: what the login shell's own start-up files print comes before it. The
    script is quoted for `sh`, then written so that sh, bash, dash, zsh, csh and fish, whichever is
    the login shell, read the same from it.

    Args:
        command: Program and arguments, passed on as they are.
        mark: Letters, digits and hyphens.
    """
    program = shlex.quote(command[0])
    script = (
        f"command -v {program} >/dev/null 2>&1 || {{ printf '\\n{mark} none\\n'; exit 127; }}; "
        f"printf '\\n{mark} %d\\n' $$ >&2; printf '\\n{mark} %d\\n' $$; "
        f"exec {shlex.join(command)}"
    )
    return f"exec /bin/sh -c 'eval \"$(printf %b \"$0\")\"' '{_for_any_shell(script)}'"


def _for_any_shell(text: str) -> str:
    """Return the text with all that quotes do not protect everywhere as octal escapes."""
    safe = {byte for byte in range(32, 127) if chr(byte) not in "'\\!"}
    return "".join(chr(byte) if byte in safe else f"\\0{byte:03o}" for byte in text.encode())

"""A program that an SSH server runs, with live standard streams and a time limit on every call."""

from __future__ import annotations

import re
import threading
import time

import paramiko

from joulemap import interruption
from joulemap.showable_text import showable

from ..errors import StableDeviceError, TransientDeviceError
from ..interfaces import Completed
from .ssh_connection import SshConnection

STDERR_TAIL = 2000
# How often a wait asks whether somebody wants it to stop.
LOOK_S = 0.5
_MAX_WORDS = 60
KILL_TIMEOUT_S = 5.0
# Between the end of a program's output and the server's word on how it ended.
EXIT_TIMEOUT_S = 10.0
# More than this before a program's first output is not the greeting of a login shell.
_MAX_GREETING = 1 << 20
_END_S = 5.0


class SilentShellError(TransientDeviceError):
    """The login shell was asked to start a program and did not within the time limit."""


class SshProcess:
    """A command on the far side; whatever it and the link do, calls end at their time limits.

    Args:
        connection: To the device.
        command: Text for the login shell; prints the mark and the process number, then the output.
        mark: What that line begins with.
        timeout_s: Limit until the server has taken the command.
        max_stderr: How much of standard error is kept, None for its end only.

    Raises:
        TransientDeviceError: The link failed.
    """

    def __init__(
        self,
        connection: SshConnection,
        command: str,
        mark: str,
        timeout_s: float,
        max_stderr: int | None = None,
    ) -> None:
        self._connection = connection
        self._mark = re.compile(rb"(?:^|\n)" + mark.encode() + rb" (none|[0-9]{1,10})\n")
        self._output = bytearray()
        self._pid: int | None = None
        self._is_killed = False
        self._channel = connection.open_channel(timeout_s)
        self._stderr = _Collector(self._channel, self._mark, max_stderr)
        try:
            with connection.limit(timeout_s):
                self._channel.exec_command(command)
        except (paramiko.SSHException, OSError, EOFError) as error:
            self._channel.close()
            if connection.is_given_up:
                raise SilentShellError(self._silent(timeout_s)) from error
            raise TransientDeviceError(
                f"the connection to {connection.name} broke while a program was started"
            ) from error
        self._stderr.start()

    def wait_until_started(self, program: str, timeout_s: float) -> None:
        """Return when the program runs; what came before on its output is thrown away.

        Args:
            program: Its name, for messages.
            timeout_s: Limit.

        Raises:
            StableDeviceError: There is no such program, or the login shell runs none.
            SilentShellError: The time limit passed.
            TransientDeviceError: The link failed or the time limit passed.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            found = self._mark.search(self._output)
            if found:
                break
            if len(self._output) > _MAX_GREETING:
                raise StableDeviceError(
                    f"{self._connection.name}: the login shell prints without end before any "
                    "program starts: mend its start-up files (.bashrc, .profile)"
                )
            try:
                has_more = self._receive(deadline, timeout_s, program)
            except TransientDeviceError as error:
                if time.monotonic() < deadline:
                    raise
                raise SilentShellError(self._silent(timeout_s)) from error
            if not has_more:
                raise self._not_started(program)
        if found[1] == b"none":
            raise StableDeviceError(
                f"cannot start {program} on {self._connection.name}: there is no such program"
            )
        self._pid = int(found[1])
        del self._output[: found.end()]

    def write(self, data: bytes, timeout_s: float) -> None:
        """Send bytes to the program's standard input within the time limit."""
        deadline = time.monotonic() + timeout_s
        was_given_up = self._connection.is_given_up
        view = memoryview(data)
        # paramiko waits without end where the link takes no more bytes.
        with self._connection.limit(timeout_s + 1):
            while view:
                if self._channel.closed or self._channel.exit_status_ready():
                    raise TransientDeviceError(self._stopped(was_given_up, timeout_s))
                interruption.check()
                left_s = deadline - time.monotonic()
                self._channel.settimeout(max(0.001, min(left_s, LOOK_S)))
                try:
                    # A copy: paramiko takes no views on all its ways.
                    sent = self._channel.send(bytes(view[: 1 << 18]))
                except TimeoutError as error:
                    if left_s > LOOK_S:
                        continue
                    raise TransientDeviceError(
                        f"the agent gave no answer within {timeout_s:.0f} s"
                    ) from error
                except (OSError, EOFError, paramiko.SSHException) as error:
                    raise TransientDeviceError(self._stopped(was_given_up, timeout_s)) from error
                view = view[sent:]

    def read(self, length: int, timeout_s: float) -> bytes:
        """Return exactly `length` bytes of the program's output within the time limit."""
        deadline = time.monotonic() + timeout_s
        while len(self._output) < length:
            if not self._receive(deadline, timeout_s, "the agent"):
                raise TransientDeviceError(self._ended())
        data = bytes(self._output[:length])
        del self._output[:length]
        return data

    def end_input(self) -> None:
        """Let the program see the end of its input.

        Raises:
            TransientDeviceError: The link failed.
        """
        try:
            with self._connection.limit(KILL_TIMEOUT_S):
                self._channel.shutdown_write()
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise TransientDeviceError(self._ended()) from error

    def wait(self, timeout_s: float, max_bytes: int) -> Completed:
        """Return all that the program printed, when it has ended.

        Args:
            timeout_s: Limit.
            max_bytes: Of each output; more is refused.

        Raises:
            StableDeviceError: It printed more.
            TransientDeviceError: The link failed or the time limit passed.
        """
        deadline = time.monotonic() + timeout_s
        has_more = True
        while has_more:
            # Some of it, or all, may have come with the first word that it runs.
            self._check_length(max_bytes)
            has_more = self._receive(deadline, timeout_s, "the program")
        self._stderr.join(max(0.0, deadline - time.monotonic()))
        self._check_length(max_bytes)
        code = self._exit_code(max(EXIT_TIMEOUT_S, deadline - time.monotonic()))
        if code is None:
            raise TransientDeviceError(self._ended())
        return Completed(code, bytes(self._output), self._stderr.content())

    def stderr_tail(self) -> str:
        """Return the end of what the program printed on standard error."""
        if not self.is_alive():
            # Its end may still be on the way through the reading thread.
            self._stderr.join(_END_S)
        return self._stderr.content()[-STDERR_TAIL:].decode(errors="replace").strip()

    def is_alive(self) -> bool:
        """Return whether the program still runs as far as the link tells."""
        return not (
            self._is_killed
            or self._channel.closed
            or self._channel.exit_status_ready()
            or not self._connection.is_active
        )

    def kill(self) -> None:
        """End the program and what it started; harmless when it has ended or the link is down."""
        if self._is_killed:
            return
        if self.is_alive() and self._pid is not None:
            self._kill_there(self._pid)
        self._is_killed = True
        self._channel.close()

    def _check_length(self, max_bytes: int) -> None:
        if len(self._output) > max_bytes or self._stderr.is_over:
            raise StableDeviceError(f"the program printed more than {max_bytes} bytes")

    def _kill_there(self, pid: int) -> None:
        """Ask the device to end the program's process group: the server gives each one its own."""
        try:
            channel = self._connection.open_channel(KILL_TIMEOUT_S)
            channel.settimeout(KILL_TIMEOUT_S)
            with self._connection.limit(KILL_TIMEOUT_S * 2):
                channel.exec_command(f"/bin/sh -c 'kill -9 -{pid} || kill -9 {pid}' >/dev/null")
                while channel.recv(4096):
                    pass
                channel.close()
        except (TransientDeviceError, paramiko.SSHException, OSError, EOFError):
            # The server ends what reads from a connection that is gone.
            return

    def _receive(self, deadline: float, timeout_s: float, who: str) -> bool:
        """Take in some output; return whether there was any before the end."""
        while True:
            interruption.check()
            left_s = deadline - time.monotonic()
            self._channel.settimeout(max(0.001, min(left_s, LOOK_S)))
            try:
                part = self._channel.recv(1 << 18)
            except TimeoutError as error:
                if left_s > LOOK_S:
                    continue
                raise TransientDeviceError(
                    f"{who} gave no answer within {timeout_s:.1f} s"
                ) from error
            except (OSError, EOFError, paramiko.SSHException) as error:
                raise TransientDeviceError(self._ended()) from error
            self._output += part
            return bool(part)

    def _exit_code(self, timeout_s: float) -> int | None:
        """Return how the program ended, -1 for any signal, None if the link does not tell."""
        if not self._channel.status_event.wait(timeout_s):
            return None
        code = self._channel.exit_status
        return None if code == -1 and self._is_cut else code

    @property
    def _is_cut(self) -> bool:
        """Whether the link went under the program."""
        # A lost connection closes its channels first and says only then that it is lost; a program
        # that ends closes its output before its channel.
        was_cut = self._channel.closed and not self._channel.eof_received and not self._is_killed
        return was_cut or not self._connection.is_active

    def _stopped(self, was_given_up: bool, timeout_s: float) -> str:
        """Return why no more can be written."""
        if self._connection.is_given_up and not was_given_up:
            # It was closed from this side, at the limit.
            return f"the agent gave no answer within {timeout_s:.0f} s"
        return self._ended()

    def _not_started(self, program: str) -> StableDeviceError | TransientDeviceError:
        code = self._exit_code(EXIT_TIMEOUT_S)
        if code is None:
            return TransientDeviceError(f"the connection to {self._connection.name} is lost")
        self._stderr.join(_END_S)
        said = [
            *self.stderr_tail().splitlines(),
            *self._output.decode(errors="replace").split("\n"),
        ]
        words = next((line.strip() for line in said if line.strip()), "")
        return StableDeviceError(
            f"the login shell of {self._connection.name} ended with code {code} instead of "
            f"starting {program}"
            + (f": {showable(words, 100).rstrip('.')}" if words else "")
            + ". Give the user a shell there (chsh -s /bin/sh), and look for what starts something "
            "else instead: ForceCommand in sshd_config, command= in ~/.ssh/authorized_keys, exec or "
            "exit in .bashrc"
        )

    def _silent(self, timeout_s: float) -> str:
        said = [*self._output.decode(errors="replace").split("\n"), self._stderr.text()]
        words = next((line.strip() for line in said if line.strip()), "")
        how = f"prints '{showable(words, _MAX_WORDS)}' and waits" if words else "says nothing"
        name = self._connection.name[:60]
        return (
            f"the login shell of {name} starts no program within {timeout_s:.0f} s; it {how}. Does "
            "its .bashrc or .profile wait (read, a menu, tmux), does ForceCommand or command= in "
            "authorized_keys start something else, does its home lie on a disk that hangs? It has "
            f"to answer at once to: ssh {name} true"
        )

    def _ended(self) -> str:
        code = self._exit_code(EXIT_TIMEOUT_S)
        if code is None:
            if self._is_cut:
                return f"the connection to {self._connection.name} is lost"
            return "the agent closed its output"
        how = f"ended with code {code}"
        if code < 0:
            how = "was killed by a signal (on small boards mostly for want of memory; see dmesg)"
        said = self.stderr_tail().splitlines()
        return f"the agent {how}" + (f": {said[-1][:300]}" if said else "")


class _Collector(threading.Thread):
    """Reads standard error, so that a program never waits for somebody to read it."""

    def __init__(
        self, channel: paramiko.Channel, mark: re.Pattern[bytes], max_bytes: int | None
    ) -> None:
        super().__init__(daemon=True, name="joulemap-stderr")
        self._channel = channel
        self._mark = mark
        self._max_bytes = max_bytes
        self._content = bytearray()
        self._has_started = False
        self.is_over = False

    def run(self) -> None:
        """Read to the end, keep what is asked for."""
        while True:
            try:
                part = self._channel.recv_stderr(1 << 16)
            except TimeoutError:
                # The channel has one time limit for all its streams.
                continue
            except (OSError, EOFError, paramiko.SSHException):
                return
            if not part:
                return
            self._take(part)

    def content(self) -> bytes:
        """Return what the program itself printed, or the end of it."""
        return bytes(self._content)

    def text(self) -> str:
        """Return the first line of it that is not empty."""
        lines = self.content().decode(errors="replace").splitlines()
        return next((line for line in lines if line.strip()), "")

    def _take(self, part: bytes) -> None:
        content = self._content + part
        if not self._has_started:
            found = self._mark.search(content)
            if found:
                self._has_started = True
                del content[: found.end()]
        if self._max_bytes is None:
            del content[: max(0, len(content) - 2 * STDERR_TAIL)]
        elif len(content) > self._max_bytes + _MAX_GREETING:
            self.is_over = True
            del content[: -self._max_bytes]
        self.is_over = self.is_over or (
            self._max_bytes is not None and self._has_started and len(content) > self._max_bytes
        )
        self._content = content

"""A program on a device behind adb, as packets of the daemon's shell protocol over one socket."""

from __future__ import annotations

import contextlib
import re
import selectors
import socket
import struct
import time
from collections.abc import Callable

from joulemap import interruption

from ..errors import DeviceError, TransientDeviceError
from .adb_server import SilentError

STDERR_TAIL = 2000
_CLOSE_TIMEOUT_S = 30.0
# What is taken in while nobody reads: bytes of output, and portions of anything.
_MAX_WAITING = 1 << 20
_MAX_LOOKS = 64
_CHUNK = 1 << 15
# A packet: one byte says which stream, four how many bytes follow.
_PREFIX = struct.Struct("<BI")
_STDIN, _STDOUT, _STDERR, _EXIT, _CLOSE_STDIN = range(5)


class AdbProcess:
    """A program on the device, as packets over one socket of the adb server.

    Args:
        link: The socket, at the start of the packets.
        end: Ends a program of that number over another link.
        max_stderr: Bytes of standard error that are kept; more are counted only.
    """

    def __init__(
        self, link: socket.socket, end: Callable[[int], None], max_stderr: int = STDERR_TAIL
    ) -> None:
        link.setblocking(False)
        self._link = link
        self._end = end
        self._pid: int | None = None
        self._raw = bytearray()
        self._packet = 0
        self._packet_left = 0
        self._stdout = bytearray()
        self._stderr = bytearray()
        self._max_stderr = max_stderr
        self._exit = bytearray()
        self._is_closed = False
        self._problem = "the link to the device broke"
        self.stderr_bytes = 0

    def write(self, data: bytes, timeout_s: float) -> None:
        """Send bytes to the program's standard input within the time limit."""
        deadline = time.monotonic() + timeout_s
        for begin in range(0, len(data), _CHUNK):
            chunk = data[begin : begin + _CHUNK]
            self._send(_PREFIX.pack(_STDIN, len(chunk)) + chunk, deadline, timeout_s)

    def close_stdin(self) -> None:
        """Let the program see the end of its standard input."""
        with contextlib.suppress(TransientDeviceError):
            deadline = time.monotonic() + _CLOSE_TIMEOUT_S
            self._send(_PREFIX.pack(_CLOSE_STDIN, 0), deadline, _CLOSE_TIMEOUT_S)

    def read(self, length: int, timeout_s: float) -> bytes:
        """Return exactly `length` bytes of the program's standard output within the time limit."""
        part = self._take(length, timeout_s)
        if len(part) < length:
            raise TransientDeviceError(self._ended())
        return part

    def read_up_to(self, length: int, timeout_s: float) -> bytes:
        """Return `length` bytes of standard output, or what there was when it ended."""
        part = self._take(length, timeout_s)
        if len(part) < length and self.exit_code is None:
            raise TransientDeviceError(self._ended())
        return part

    def wait(self, timeout_s: float) -> int:
        """Return the exit code; output that comes until then is dropped."""
        deadline = time.monotonic() + timeout_s
        while self.exit_code is None and not self._is_closed:
            self._wait(selectors.EVENT_READ, deadline, timeout_s)
            self._pump()
            self._stdout.clear()
        if self.exit_code is None:
            raise TransientDeviceError(self._ended())
        return self.exit_code

    def take_pid(self, timeout_s: float) -> None:
        """Read the line that the device's shell prints before it becomes the program."""
        line = bytearray()
        while len(line) < 12 and not line.endswith(b"\n"):
            line += self.read(1, timeout_s)
        if not re.fullmatch(rb"\d{1,10}\n", line):
            raise TransientDeviceError(f"the device's shell said {bytes(line)!r}, not its number")
        self._pid = int(line)

    @property
    def exit_code(self) -> int | None:
        """What the program returned; None while unknown."""
        return self._exit[0] if self._exit else None

    def stderr(self) -> bytes:
        """Return what is kept of standard error."""
        return bytes(self._stderr)

    def stderr_tail(self) -> str:
        """Return the end of what the program printed on standard error."""
        self._look()
        return bytes(self._stderr[-STDERR_TAIL:]).decode(errors="replace").strip()

    def last_words(self) -> str:
        """Return the last line of standard error, for messages."""
        said = self.stderr_tail().splitlines()
        return said[-1][:300] if said else "it says nothing"

    def is_alive(self) -> bool:
        """Return whether the program still runs, as far as is known here."""
        self._look()
        return self.exit_code is None and not self._is_closed

    def kill(self) -> None:
        """End the program at once."""
        was_alive = self.is_alive()
        self.close()
        if was_alive and self._pid is not None:
            # Closing the link hangs up; a program may ignore that.
            with contextlib.suppress(DeviceError):
                self._end(self._pid)

    def close(self) -> None:
        """Let go of the link, which hangs up on a program that still runs."""
        self._link.close()
        self._is_closed = True

    # -- packets -----------------------------------------------------------------------------------

    def _take(self, length: int, timeout_s: float) -> bytes:
        deadline = time.monotonic() + timeout_s
        while len(self._stdout) < length and self.exit_code is None and not self._is_closed:
            self._pump()
            if len(self._stdout) < length and self.exit_code is None and not self._is_closed:
                self._wait(selectors.EVENT_READ, deadline, timeout_s)
        part = bytes(self._stdout[:length])
        del self._stdout[:length]
        return part

    def _send(self, data: bytes, deadline: float, timeout_s: float) -> None:
        view = memoryview(data)
        while view:
            # What the program says meanwhile must not stop it from reading.
            self._look()
            if self.exit_code is not None or self._is_closed:
                raise TransientDeviceError(self._ended())
            try:
                view = view[self._link.send(view) :]
            except BlockingIOError:
                may_read = selectors.EVENT_READ if len(self._stdout) < _MAX_WAITING else 0
                self._wait(selectors.EVENT_WRITE | may_read, deadline, timeout_s)
            except OSError as error:
                self.close()
                raise TransientDeviceError(self._ended()) from error

    def _wait(self, events: int, deadline: float, timeout_s: float) -> None:
        left_s = deadline - time.monotonic()
        if not interruption.is_ready(self._link.fileno(), events, left_s):
            raise SilentError(f"the agent gave no answer within {timeout_s:.0f} s")

    def _look(self) -> None:
        """Take in what has arrived, up to a limit."""
        for _ in range(_MAX_LOOKS):
            if self._is_closed or len(self._stdout) >= _MAX_WAITING or not self._pump():
                break

    def _pump(self) -> bool:
        """Take in one portion of what has arrived; return whether there was any."""
        if self._is_closed:
            return False
        try:
            data = self._link.recv(1 << 18)
        except BlockingIOError:
            return False
        except OSError as error:
            self._problem = f"the link to the device broke: {error.strerror}"
            self.close()
            return False
        if not data:
            self.close()
            return False
        self._raw += data
        self._sort()
        if self._is_closed or self.exit_code is not None:
            self.close()
        return True

    def _sort(self) -> None:
        """Move what the packets hold to the streams that they name."""
        raw = self._raw
        at = 0
        while True:
            if self._packet_left:
                part = raw[at : at + self._packet_left]
                if not part:
                    break
                at += len(part)
                self._packet_left -= len(part)
                self._store(part)
            elif len(raw) - at >= _PREFIX.size:
                self._packet, self._packet_left = _PREFIX.unpack_from(raw, at)
                at += _PREFIX.size
                if self._packet not in (_STDOUT, _STDERR, _EXIT):
                    self._problem = f"the device sent garbage (packet {self._packet})"
                    self._is_closed = True
                    break
            else:
                break
        del raw[:at]

    def _store(self, part: bytearray) -> None:
        if self._packet == _STDOUT:
            self._stdout += part
        elif self._packet == _EXIT:
            self._exit += part[: 1 - len(self._exit)]
        else:
            self.stderr_bytes += len(part)
            self._stderr += part
            del self._stderr[: -self._max_stderr]

    def _ended(self) -> str:
        self._look()
        code = self.exit_code
        if code is None:
            with contextlib.suppress(TransientDeviceError):
                code = self.wait(2.0) if not self._is_closed else None
        if code is None:
            how = f"is out of reach: {self._problem}"
        elif 128 < code < 160:
            how = f"was killed by signal {code - 128}"
        else:
            how = f"ended with code {code}"
        said = self.stderr_tail().splitlines()
        return f"the agent {how}" + (f": {said[-1][:300]}" if said else "")

"""The agent as the keeper's child: frames over a socket, its last words, its end."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Sequence
from typing import Any

from . import frames

CLOSE_TIMEOUT_S = 5.0
# Between the end of a dying agent's output and its own, on a busy device.
DYING_S = 2.0
TAIL = 2000


class Stream:
    """Frames over a socket that never blocks.

    Args:
        connection: The socket.
    """

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._connection = connection
        self._unsent = bytearray()
        self._received = frames.FrameBuffer()

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._connection.fileno()

    @property
    def has_unsent(self) -> bool:
        """Whether bytes wait to be sent."""
        return bool(self._unsent)

    def send(self, header: dict[str, Any], payload: bytes = b"") -> None:
        """Take a frame; `flush` sends what the other side takes."""
        self._unsent += frames.encode(header, payload)

    def flush(self) -> None:
        """Send as much as the other side takes now.

        Raises:
            OSError: It is gone.
        """
        while self._unsent:
            try:
                sent = self._connection.send(bytes(self._unsent[: 1 << 18]))
            except BlockingIOError:
                return
            del self._unsent[:sent]

    def receive(self) -> list[tuple[dict[str, Any], bytes]]:
        """Return the frames that are complete by now.

        Raises:
            StreamClosed: The other side is gone.
            FrameError: It sent garbage.
        """
        try:
            data = self._connection.recv(1 << 18)
        except BlockingIOError:
            return []
        except OSError as error:
            raise frames.StreamClosed from error
        if not data:
            raise frames.StreamClosed
        self._received.feed(data)
        found: list[tuple[dict[str, Any], bytes]] = []
        while True:
            frame = self._received.pop()
            if frame is None:
                return found
            found.append(frame)

    def close(self) -> None:
        """Let go of the socket."""
        self._connection.close()


class AgentChild:
    """A running agent.

    Args:
        command: How it is started.
        inherited: Open files of this process that the agent has as well.

    Raises:
        OSError: It cannot be started.

    Attributes:
        stream: Its requests and answers.
        num_visits: Visits that it was given.
        is_prepared: Whether it holds the template and the reference.
        inherited: As given.
    """

    def __init__(self, command: Sequence[str], inherited: tuple[int, ...] = ()) -> None:
        self.inherited = inherited
        ours, theirs = socket.socketpair()
        try:
            self._process = subprocess.Popen(
                list(command),
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=subprocess.PIPE,
                bufsize=0,
                pass_fds=inherited,
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        assert self._process.stderr is not None  # noqa: S101 - by the arguments above
        self._errors = self._process.stderr
        os.set_blocking(self._errors.fileno(), False)
        self.stream = Stream(ours)
        self.num_visits = 0
        self.is_prepared = False
        self._tail = b""

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def errors(self) -> int | None:
        """The descriptor of its standard error, None once that has ended."""
        return None if self._errors.closed else self._errors.fileno()

    def read_errors(self) -> bytes:
        """Return what it printed on standard error since."""
        try:
            data = os.read(self._errors.fileno(), 1 << 16)
        except BlockingIOError:
            return b""
        if not data:
            self._errors.close()
        self._tail = (self._tail + data)[-TAIL:]
        return data

    def has_ended(self) -> bool:
        """Return whether it has ended by itself."""
        return self._process.poll() is not None

    def kill(self, patience_s: float = 0.0) -> str:
        """End it at once; return how it ended, in words.

        Args:
            patience_s: How long it may still take to end by itself.
        """
        try:
            code: int | None = self._process.wait(patience_s)
        except subprocess.TimeoutExpired:
            code = None
        if code is None:
            self._process.kill()
            self._process.wait()
            how = "closed its output"
        else:
            how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        if not self._errors.closed:
            self.read_errors()
        self._release()
        lines = self._tail.decode(errors="replace").strip().splitlines()
        return how + (f": {lines[-1][:300]}" if lines else "")

    def close(self) -> None:
        """End it politely, which puts back what it changed on the machine."""
        self.stream.send({"id": 0, "op": "close"})
        try:
            self.stream.flush()
            self._process.wait(CLOSE_TIMEOUT_S)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        self._release()

    def _release(self) -> None:
        self.stream.close()
        if not self._errors.closed:
            self._errors.close()

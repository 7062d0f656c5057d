"""This machine as if it were a remote device: a link that is cut, stalls, delays and is counted.

Agent and keeper are real processes, and what they exchange with the host are real bytes. What the
link does to them is on demand, which no cable does.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import TransientDeviceError
from ..transports.local import LocalProcess, LocalTransport, cache_folder

# Stands in for onnxruntime on a device: a call takes the same time whatever the network.
FIXED_TIME_RUNTIME = '''"""A runtime whose calls take a fixed time."""
import os
import time

__version__ = "fixed-time"


class ExecutionMode:
    ORT_SEQUENTIAL = 0


class SessionOptions:
    pass


class _Output:
    name = "output"


class InferenceSession:
    def __init__(self, model, sess_options=None, providers=None):
        self.first = self.last = None

    def get_outputs(self):
        return [_Output()]

    def run(self, outputs, inputs):
        self.first = self.first or time.monotonic()
        time.sleep({call_s!r})
        self.last = time.monotonic()

    def __del__(self):
        if self.first and {windows!r}:
            with open({windows!r}, "a") as file:
                file.write(f"{{self.first!r}} {{self.last!r}}\\n")
'''

# Starts a program and passes its input and output on, each byte so many seconds late.
_RELAY = """
import os, queue, subprocess, sys, threading, time
delay_s = float(sys.argv[1])
process = subprocess.Popen(sys.argv[2:], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
def pump(source, target):
    late = queue.Queue()
    def read():
        while data := os.read(source, 65536):
            late.put((time.monotonic() + delay_s, data))
        late.put((time.monotonic() + delay_s, b""))
    threading.Thread(target=read, daemon=True).start()
    while True:
        due, data = late.get()
        time.sleep(max(0.0, due - time.monotonic()))
        if not data:
            break
        while data:
            data = data[os.write(target, data):]
    os.close(target)
threading.Thread(target=pump, args=(0, process.stdin.fileno()), daemon=True).start()
pump(process.stdout.fileno(), 1)
os._exit(process.wait())
"""


def write_fixed_time_runtime(folder: Path, call_s: float, windows: Path | None = None) -> Path:
    """Write a module `onnxruntime` whose calls sleep; return the folder to put on PYTHONPATH.

    Args:
        folder: Where to write it.
        call_s: Seconds of a call.
        windows: A file that gets a line for each session when it is forgotten: the monotonic times
            of its first call's beginning and its last one's end.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = FIXED_TIME_RUNTIME.format(call_s=call_s, windows=str(windows or ""))
    (folder / "onnxruntime.py").write_text(text)
    return folder


class LoopbackTransport(LocalTransport):
    """This machine over a link.

    Args:
        delay_s: How long bytes take, each way.

    Attributes:
        bytes_to_cut: How many more bytes pass, both ways together, until the link is cut; None for
            a link that holds. A new link holds.
        stalls: Whether the link takes bytes and gives none, without an end.
        is_down: Whether no new link can be had.
        sent, received: Bytes that passed, files included.
        on_traffic: Called with `sent` or `received`, a count of bytes and the monotonic time.
        processes: The links so far.
    """

    is_remote = True

    def __init__(self, delay_s: float = 0.0) -> None:
        super().__init__()
        self.device_lock = None
        self.delay_s = delay_s
        self.bytes_to_cut: int | None = None
        self.stalls = self.is_down = False
        self.sent = self.received = 0
        self.on_traffic: Callable[[str, int, float], None] = lambda way, count, at: None
        self.processes: list[LoopbackProcess] = []

    def push(self, content: bytes, name: str) -> str:
        """Store bytes in the cache folder and return their path; counted when it is not there."""
        self._check()
        before = self._stamp(name)
        path = super().push(content, name)
        if self._stamp(name) != before:
            self.count("sent", len(content))
        return path

    def start(self, command: Sequence[str]) -> LoopbackProcess:
        """Start a program whose input and output go over the link."""
        self._check()
        self.bytes_to_cut, self.stalls = None, False
        if self.delay_s:
            command = [sys.executable, "-c", _RELAY, str(self.delay_s), *command]
        process = LoopbackProcess(self, command)
        self.processes.append(process)
        return process

    def is_alive(self, timeout_s: float = 10.0) -> bool:
        """Return whether a new link can be had."""
        return not self.is_down

    def reconnect(self, timeout_s: float) -> None:
        """Have a new link."""
        self._check()

    def count(self, way: str, number: int) -> None:
        """Note bytes that pass."""
        setattr(self, way, getattr(self, way) + number)
        self.on_traffic(way, number, time.monotonic())

    def cut(self) -> None:
        """Cut the link now."""
        self.bytes_to_cut = 0
        self.processes[-1].end()

    def _check(self) -> None:
        if self.is_down:
            raise TransientDeviceError("the link is down")

    def _stamp(self, name: str) -> tuple[int, int] | None:
        path = cache_folder() / "agents" / name
        if not path.exists():
            return None
        status = path.stat()
        return status.st_mtime_ns, status.st_ino


class LoopbackProcess(LocalProcess):
    """A program at the other end of the link.

    Args:
        link: What the bytes pass.
        command: Program and arguments.
    """

    def __init__(self, link: LoopbackTransport, command: Sequence[str]) -> None:
        super().__init__(command)
        self._link = link

    def write(self, data: bytes, timeout_s: float) -> None:
        """Send bytes over the link."""
        if self._link.stalls:
            return
        passing = self._passing(len(data))
        super().write(data[:passing], timeout_s)
        self._link.count("sent", passing)
        self._end_if_cut(passing < len(data))

    def read(self, length: int, timeout_s: float) -> bytes:
        """Return bytes that came over the link."""
        if self._link.stalls:
            time.sleep(timeout_s)
            raise TransientDeviceError(f"the agent gave no answer within {timeout_s:.0f} s")
        passing = self._passing(length)
        data = super().read(passing, timeout_s) if passing else b""
        self._link.count("received", passing)
        self._end_if_cut(passing < length)
        return data

    def end(self) -> None:
        """End the program; who reads or writes finds out."""
        self._process.kill()

    def _passing(self, length: int) -> int:
        remaining = self._link.bytes_to_cut
        if remaining is None:
            return length
        passing = min(length, remaining)
        self._link.bytes_to_cut = remaining - passing
        return passing

    def _end_if_cut(self, is_cut: bool) -> None:
        if is_cut:
            self.kill()
            raise TransientDeviceError("the link was cut")

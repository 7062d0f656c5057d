"""Ctrl-C, SIGTERM and SIGHUP: a stop at a safe point, never an exception in the middle of something.

::

    first signal     outside of `ordered` and `finishing`: the process ends at once
                     inside: the next safe point (`check`, `sleep`, `is_ready`) raises `Interrupted`
    second signal,   children are ended, and so is the process
    or no safe point within two seconds
    third signal     the process is killed

The command line takes the signals with `take`. A thread counts them, so that they count also while
the main thread waits for a lock, a program or a computation. In a program of a user's nothing is
taken but Ctrl-C, and that only inside of `ordered`: Python's own handler is back at its end, where
`KeyboardInterrupt` is raised as ever; a second Ctrl-C raises it at once.

This module is imported before anything heavy is, and needs nothing that is.
"""

from __future__ import annotations

import _thread
import atexit
import contextlib
import errno
import os
import select
import selectors
import signal
import termios
import time
from collections.abc import Iterator
from types import FrameType, TracebackType

__all__ = [
    "Interrupted",
    "add_child",
    "check",
    "end",
    "exit_code",
    "finishing",
    "is_asked",
    "is_ready",
    "ordered",
    "remove_child",
    "say_at_end",
    "sleep",
    "take",
]

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# From the first signal to a safe point, before the process ends all the same.
SAFE_POINT_S = 2.0
# For what comes after it: the agent's end, a last line, the dataset.
FINISHING_S = 30.0
# What ends a terminal sends SIGHUP several times: that is one signal.
SAME_SIGNAL_S = 0.1
# For children to put back what they changed.
CHILDREN_S = 1.0
CHILDREN_LOOK_S = 0.02
SHOW_CURSOR = b"\x1b[?25h"


class Interrupted(BaseException):
    """Somebody asked to stop; raised at safe points only, and by nothing but this module."""


class _State:
    """What was asked, and where the main thread is. One of a process."""

    def __init__(self) -> None:
        self.is_taken = False  # by the command line
        self.asked: int | None = None
        self.num_signals = 0
        self.is_reached = False
        self.is_ending = False  # by the thread that watches
        self.num_ordered = self.num_finishing = 0
        self.deadline: float | None = None
        self.children: set[int] = set()
        self.last_words = "joulemap: interrupted"
        # Readable once somebody asks to stop, so that no wait has to look now and then.
        self.pipe: tuple[int, int] | None = None
        self._pid = os.getpid()

    @property
    def may_raise(self) -> bool:
        return not self.is_reached and not self.num_finishing and _is_main()

    def ask(self, number: int) -> None:
        """Note that the process is to stop; wake up who waits."""
        limit_s = FINISHING_S if self.num_finishing else SAFE_POINT_S
        self.deadline = time.monotonic() + limit_s
        self.asked = number
        if self.pipe is not None:
            os.write(self.pipe[1], b"!")

    def reach(self) -> None:
        """Note that the main thread is at a safe point and finishes."""
        self.is_reached = True
        self.deadline = time.monotonic() + FINISHING_S

    def forget(self) -> None:
        """Be as if nobody had asked."""
        self.asked, self.num_signals, self.deadline, self.is_reached = None, 0, None, False
        if self.pipe is not None and select.select([self.pipe[0]], [], [], 0)[0]:
            os.read(self.pipe[0], 64)

    def open_pipe(self) -> None:
        if self.pipe is None or self._pid != os.getpid():
            # A process that was forked does not share it.
            self.pipe, self._pid = os.pipe(), os.getpid()


_state = _State()


# -- safe points ---------------------------------------------------------------------------------


def check() -> None:
    """Return if nobody asked to stop.

    Raises:
        Interrupted: Somebody did; once, so that what it passes may go on waiting while it tidies.
    """
    if _state.asked is not None and _state.may_raise:
        _state.reach()
        raise Interrupted


def sleep(seconds: float) -> None:
    """Return after so many seconds.

    Raises:
        Interrupted: Somebody asked to stop meanwhile.
    """
    pipe = _state.pipe
    if pipe is not None and _state.may_raise:
        select.select([pipe[0]], [], [], max(0.0, seconds))
    else:
        time.sleep(max(0.0, seconds))
    check()


def is_ready(fileno: int, events: int, timeout_s: float) -> bool:
    """Return whether an open file can be read or written within so many seconds.

    Args:
        fileno: Of the file.
        events: Of `selectors`.
        timeout_s: How long to wait for it.

    Raises:
        Interrupted: Somebody asked to stop meanwhile.
    """
    with selectors.DefaultSelector() as selector:
        selector.register(fileno, events)
        if _state.pipe is not None and _state.may_raise:
            selector.register(_state.pipe[0], selectors.EVENT_READ)
        found = selector.select(max(0.0, timeout_s))
    check()
    return any(key.fd == fileno for key, _ in found)


def is_asked() -> bool:
    """Return whether somebody asked to stop, and what is done now is what comes last."""
    return _state.asked is not None


class ordered:
    """A context for what is left in order: a signal inside stops it at a safe point.

    Nested ones are one. At the end of the outermost, who asked to stop gets it.

    Raises:
        Interrupted: Somebody asked to stop, in a process of the command line.
        KeyboardInterrupt: Likewise in a program of a user's.
    """

    def __init__(self) -> None:
        self._is_handler = False

    def __enter__(self) -> None:
        _state.num_ordered += 1
        is_free = not _state.is_taken and _is_main()
        if is_free and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            _state.open_pipe()
            signal.signal(signal.SIGINT, _pressed)
            self._is_handler = True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _state.num_ordered -= 1
        is_free = error is None or isinstance(error, Interrupted)
        if self._is_handler:
            if signal.getsignal(signal.SIGINT) is _pressed:
                signal.signal(signal.SIGINT, signal.default_int_handler)
            was_asked = _state.asked is not None
            _state.forget()
            if was_asked and is_free:
                raise KeyboardInterrupt from None
        elif not _state.num_ordered and error is None:
            check()


@contextlib.contextmanager
def finishing() -> Iterator[None]:
    """A context without safe points, for what is short and should not be left half done."""
    _state.num_finishing += 1
    if _state.asked is not None:
        _state.deadline = time.monotonic() + FINISHING_S
    try:
        yield
    finally:
        _state.num_finishing -= 1
        if _state.asked is not None and not _state.is_reached and not _state.num_finishing:
            _state.deadline = time.monotonic() + SAFE_POINT_S
    if not _state.num_ordered:
        check()


def _pressed(number: int, frame: FrameType | None) -> None:
    """Take Ctrl-C in a program of a user's."""
    if _state.asked is not None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        raise KeyboardInterrupt
    _state.ask(number)


def _is_main() -> bool:
    return _thread.get_ident() == _MAIN


_MAIN = _thread.get_ident()


# -- the command line ----------------------------------------------------------------------------


def take() -> None:
    """Take the signals of this process, which is the command line's; those ignored stay so."""
    if _state.is_taken or not _is_main():
        return
    _state.open_pipe()
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    for number in SIGNALS:
        # `nohup`, or the background of a shell.
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _noted)
    _state.is_taken = True
    atexit.register(_leave_to_the_watch)
    _thread.start_new_thread(_watch, (read,))
    # What started this process may have held them back until here.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def exit_code() -> int | None:
    """Return 128 and the signal that asked the command to stop, None if none did."""
    return 128 + _state.asked if _state.is_taken and _state.asked is not None else None


def say_at_end(text: str) -> None:
    """Have a sentence said by whatever ends the process when it is asked to stop."""
    _state.last_words = text


def add_child(pid: int) -> None:
    """Note a process that leads a group of its own and is to end with this one."""
    _state.children.add(pid)


def remove_child(pid: int) -> None:
    """Forget a process that is ended; harmless where it was not noted."""
    _state.children.discard(pid)


def end() -> None:
    """End this process, which somebody asked to stop: without what Python does at its end."""
    _say(_state.last_words)
    os._exit(exit_code() or 1)


def _noted(number: int, frame: FrameType | None) -> None:
    """Leave a signal to the thread that watches."""


def _leave_to_the_watch() -> None:
    """Wait at Python's end for who ends the process: a child's end may let the main thread go on."""
    while _state.is_ending:
        time.sleep(SAFE_POINT_S)


def _watch(signals: int) -> None:
    """Count signals, and see to it that the process ends, whatever happens here."""
    try:
        _count(signals)
    finally:
        end()


def _count(signals: int) -> None:
    last_s = 0.0
    while True:
        deadline = _state.deadline
        wait_s = None if deadline is None else max(0.0, deadline - time.monotonic())
        if not select.select([signals], [], [], wait_s)[0]:
            if _state.deadline == deadline:
                _force(signals)
            continue
        numbers = [number for number in os.read(signals, 64) if number in SIGNALS]
        now_s = time.monotonic()
        if not numbers or (_state.num_signals and now_s - last_s < SAME_SIGNAL_S):
            continue
        last_s = now_s
        _state.num_signals += 1
        if _state.num_signals > 1:
            _force(signals)
        if numbers[0] == signal.SIGHUP:
            _leave_terminal()
        # Before the main thread goes on.
        is_kept = bool(_state.num_ordered or _state.num_finishing)
        if is_kept:
            _say("joulemap: stopping, what was measured is kept (once more ends it at once)")
        _state.ask(numbers[0])
        if not is_kept:
            _state.is_ending = True
            _end_children(signal.SIGTERM)
            end()


def _force(signals: int) -> None:
    """End children and this process; another signal meanwhile kills them."""
    _state.is_ending = True
    _end_children(signal.SIGTERM)
    deadline = time.monotonic() + CHILDREN_S
    while _has_children() and time.monotonic() < deadline:
        if select.select([signals], [], [], CHILDREN_LOOK_S)[0] and os.read(signals, 64):
            _end_children(signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)
    _end_children(signal.SIGKILL)
    end()


def _end_children(number: int) -> None:
    for pid in list(_state.children):
        with contextlib.suppress(OSError):
            os.killpg(pid, number)


def _has_children() -> bool:
    """Return whether a child still runs; those that do not are forgotten."""
    for pid in list(_state.children):
        try:
            has_ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except OSError:
            has_ended = True
        if has_ended:
            _state.children.discard(pid)
    return bool(_state.children)


def _say(text: str) -> None:
    """Write a line on standard error; not by its stream, which the main thread may hold."""
    with contextlib.suppress(OSError, ValueError):
        line = text.encode(errors="replace") + b"\n"
        # One that nobody reads from, or a terminal that was halted, must not hold it up.
        if select.select([], [2], [], 0)[1]:
            os.write(2, SHOW_CURSOR + b"\r\n" + line if os.isatty(2) else line)


def _leave_terminal() -> None:
    """Let nobody fail who writes to a terminal that is gone."""
    for fd in (0, 1, 2):
        try:
            termios.tcgetattr(fd)
        except termios.error as error:
            if error.args[:1] == (errno.EIO,):
                nothing = os.open(os.devnull, os.O_RDWR)
                os.dup2(nothing, fd)
                os.close(nothing)

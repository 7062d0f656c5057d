"""Ctrl-C, SIGTERM and SIGHUP: where they stop a process, and how it ends."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from joulemap.interruption import SAME_SIGNAL_S

LIMIT_S = 60.0
BEGIN = """
import contextlib, os, signal, subprocess, sys, threading, time
# What runs in the background of a shell, or under nohup, inherits that it ignores them.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
from joulemap import interruption
from joulemap.interruption import Interrupted, finishing, ordered
def ready(): print("ready", flush=True)
"""
TAKEN = BEGIN + "interruption.take()\n"
END = "\ninterruption.end()"
# Ignores SIGTERM, and says when it does.
STUBBORN = """
child = subprocess.Popen(
    [sys.executable, "-S", "-c", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
     "print(1, flush=True); time.sleep(600)"],
    stdout=subprocess.PIPE, start_new_session=True)
child.stdout.readline()
interruption.add_child(child.pid)
print(child.pid, flush=True)
"""


@contextlib.contextmanager
def running(code: str) -> Iterator[subprocess.Popen[str]]:
    """A program that has said that it is ready."""
    with subprocess.Popen(
        [sys.executable, "-P", "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_until_ready(process: subprocess.Popen[str]) -> list[str]:
    """Return the lines before the one that says so."""
    assert process.stdout is not None
    lines = iter(process.stdout.readline, "ready\n")
    return [line.strip() for line in lines if line or pytest.fail(process.communicate()[1])]


def end_of(process: subprocess.Popen[str]) -> tuple[int, list[str], str]:
    out, said = process.communicate(timeout=LIMIT_S)
    assert "Traceback" not in said
    return process.returncode, out.split(), said


def stopped(code: str, number: int = signal.SIGINT) -> tuple[int, list[str], str]:
    """Return how a program ends that gets a signal when it is ready."""
    with running(code) as process:
        wait_until_ready(process)
        process.send_signal(number)
        return end_of(process)


WAITS = {
    "lock": "lock = threading.Lock(); lock.acquire(); ready(); lock.acquire()",
    "sleep": "ready(); time.sleep(600)",
    "computation": "ready()\nwhile True: pass",
    "process": "child = subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
    "interruption.add_child(child.pid); ready(); child.wait()",
    "read": "ready(); os.read(os.pipe()[0], 1)",
    "import": "ready()\nwhile True:\n    sys.modules.pop('decimal', None); import decimal",
}


@pytest.mark.parametrize("wait", WAITS)
def test_outside_of_what_is_left_in_order_a_signal_ends_the_process_at_once(wait: str) -> None:
    code, _, said = stopped(TAKEN + WAITS[wait])
    assert (code, said) == (130, "joulemap: interrupted\n")


@pytest.mark.parametrize("wait", ["lock", "computation", "process"])
def test_without_a_safe_point_it_ends_as_well(wait: str) -> None:
    code, _, said = stopped(TAKEN + "ordered().__enter__()\n" + WAITS[wait] + END, signal.SIGTERM)
    assert code == 143
    assert said.splitlines()[-1] == "joulemap: interrupted"


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_safe_point_is_where_it_stops(number: int, code: int) -> None:
    tidied = """
try:
    with ordered():
        ready()
        try:
            WAIT
        finally:
            interruption.sleep(0.01)  # Who tidies may wait.
            print("tidied", flush=True)
except Interrupted:
    interruption.say_at_end("the end")
    interruption.end()
"""
    for wait in ("interruption.sleep(600)", "interruption.is_ready(os.pipe()[0], 1, 600)"):
        ended, out, said = stopped(TAKEN + tidied.replace("WAIT", wait), number)
        assert (ended, out) == (code, ["tidied"])
        assert said.splitlines()[-1] == "the end"


def test_what_is_being_finished_is_finished_first() -> None:
    code, out, _ = stopped(
        TAKEN
        + """
read, write = os.pipe()
signal.signal(signal.SIGINT, lambda *_: os.write(write, b"!"))
try:
    with ordered():
        with finishing():
            ready()
            os.read(read, 1)
            interruption.sleep(0.1)
            interruption.check()
            print("finished", flush=True)
        interruption.check()
        print("went on", flush=True)
finally:
    interruption.end()
"""
    )
    assert (code, out) == (130, ["finished"])


def test_a_second_signal_ends_the_children_and_a_third_kills() -> None:
    with running(TAKEN + STUBBORN + "ordered().__enter__(); ready(); time.sleep(600)") as process:
        (pid,) = map(int, wait_until_ready(process))
        assert process.stderr is not None
        process.send_signal(signal.SIGINT)
        assert "once more" in process.stderr.readline()
        # By then the next one is a second one.
        time.sleep(2 * SAME_SIGNAL_S)
        process.send_signal(signal.SIGINT)
        code, _, said = end_of(process)
    assert (code, said) == (130, "joulemap: interrupted\n")
    assert has_ended(pid)
    with running(TAKEN + STUBBORN + "ordered().__enter__(); ready(); time.sleep(600)") as process:
        (pid,) = map(int, wait_until_ready(process))
        while process.poll() is None:
            process.send_signal(signal.SIGINT)
            time.sleep(1.5 * SAME_SIGNAL_S)
        code, _, _ = end_of(process)
    assert code == -signal.SIGKILL
    assert has_ended(pid)


def has_ended(pid: int) -> bool:
    """Return whether a process is gone, or only waits to be reaped by who inherited it."""
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
            return file.read().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def test_several_signals_of_a_terminal_that_ends_are_one() -> None:
    code = (
        TAKEN
        + "with contextlib.suppress(Interrupted), ordered():\n    ready(); interruption.sleep(600)\n"
        + "time.sleep(0.3); interruption.end()"
    )
    with running(code) as process:
        wait_until_ready(process)
        for _ in range(3):
            process.send_signal(signal.SIGHUP)
        ended, _, said = end_of(process)
    assert ended == 129
    assert "stopping" in said


def test_a_terminal_that_is_gone_fails_nobody() -> None:
    ours, theirs = pty.openpty()
    code = (
        TAKEN
        + """
os.setsid() if os.getpid() != os.getsid(0) else None
import fcntl, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
done = os.open(sys.argv[1], os.O_WRONLY)
with contextlib.suppress(Interrupted), ordered():
    print("ready", flush=True)
    interruption.sleep(600)
print("a last word", flush=True)
os.write(done, b"done")
interruption.end()
"""
    )
    read, write = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-P", "-c", code, f"/dev/fd/{write}"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        pass_fds=[write],
        start_new_session=True,
    ) as process:
        os.close(theirs)
        os.close(write)
        # The whole line: a write that the terminal's end cuts short would fail in the process.
        said = b""
        while not said.endswith(b"ready\r\n"):
            said += os.read(ours, 100)
        os.close(ours)
        assert process.wait(LIMIT_S) == 129
    assert os.read(read, 10) == b"done"
    os.close(read)


def test_what_is_ignored_stays_so() -> None:
    ignoring = BEGIN + "signal.signal(signal.SIGHUP, signal.SIG_IGN); interruption.take()\n"
    code = "ready(); os.kill(os.getpid(), signal.SIGHUP); time.sleep(0.2); print('goes on')"
    with running(ignoring + code) as process:
        wait_until_ready(process)
        assert end_of(process)[:2] == (0, ["goes", "on"])


def test_signals_that_were_held_back_at_the_start_count() -> None:
    held = (
        "import os, signal\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
    )
    with running(held + TAKEN + "time.sleep(600)") as process:
        assert end_of(process) == (130, [], "joulemap: interrupted\n")


# -- programs of a user's --------------------------------------------------------------------------


def test_in_a_users_program_ctrl_c_is_raised_at_the_end_of_what_is_left_in_order() -> None:
    code, out, _ = stopped(
        BEGIN
        + """
try:
    with ordered(), ordered():
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        ready()
        try:
            interruption.sleep(600)
        finally:
            print("tidied", flush=True)
except KeyboardInterrupt:
    print("raised", flush=True)
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
# And so it is the next time.
try:
    with ordered():
        os.kill(os.getpid(), signal.SIGINT)
        print("went on", flush=True)
except KeyboardInterrupt:
    print("raised again", flush=True)
with ordered():
    interruption.sleep(0.01)
    interruption.check()
print("done", flush=True)
"""
    )
    assert code == 0
    assert " ".join(out) == "tidied raised went on raised again done"


def test_in_a_users_program_a_second_ctrl_c_is_raised_where_it_is() -> None:
    code, out, _ = stopped(
        BEGIN
        + """
try:
    with ordered():
        try:
            ready()
            interruption.sleep(600)
        except Interrupted:
            try:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(600)
            except KeyboardInterrupt:
                print("second", flush=True)
                raise
except KeyboardInterrupt:
    print("raised", flush=True)
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
"""
    )
    assert (code, out) == (0, ["second", "raised"])


def test_in_a_users_program_other_handlers_and_other_threads_are_left_alone() -> None:
    code, out, _ = stopped(
        BEGIN
        + """
def own(*_): print("own", flush=True); os._exit(5)
def other():
    with ordered():
        interruption.sleep(0.01)
thread = threading.Thread(target=other); thread.start(); thread.join()
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
signal.signal(signal.SIGINT, own)
with ordered():
    ready()
    interruption.sleep(600)
"""
    )
    assert (code, out) == (5, ["own"])

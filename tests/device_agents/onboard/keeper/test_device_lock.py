"""The lock of a device: real processes that take it, inherit it, let go of it and are killed."""

from __future__ import annotations

import errno
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from joulemap.device_agents.onboard.keeper import device_lock
from joulemap.device_agents.onboard.keeper.device_lock import DeviceLock
from joulemap.device_agents.onboard.preparation_answer import Exclusivity

# Commands come as lines; what each leads to goes back as one.
PROGRAM = """
import os, signal, subprocess, sys
from joulemap.device_agents.onboard.keeper import device_lock
lock = device_lock.DeviceLock()
for line in sys.stdin:
    word = line.strip()
    if word == "acquire":
        print(lock.acquire(), flush=True)
    elif word == "release":
        print(lock.release(), flush=True)
    elif word == "fork":
        end, begin = os.pipe()
        child = os.fork()
        if not child:
            os.write(begin, b".")
            signal.pause()
        os.read(end, 1)
        print(child, flush=True)
    elif word == "start agent":
        program = "import sys; print(1, flush=True); sys.stdin.read()"
        agent = subprocess.Popen([sys.executable, "-c", program], pass_fds=lock.descriptors,
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        agent.stdout.readline()
        print(agent.pid, flush=True)
    elif word == "start what a library starts":
        device_lock.keep_from_children()
        print(subprocess.Popen(["sleep", "600"], close_fds=False).pid, flush=True)
    elif word == "become nobody":
        print(os.setuid(65534), flush=True)
"""


class Program:
    """Another program on the device."""

    def __init__(self, folder: Path, inherited: tuple[int, ...] = ()) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", PROGRAM, "a campaign"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
            pass_fds=inherited,
        )

    def do(self, word: str) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        self.kill()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()


Start = Callable[..., Program]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    programs: list[Program] = []

    def run(inherited: tuple[int, ...] = ()) -> Program:
        programs.append(Program(tmp_path, inherited))
        return programs[-1]

    yield run
    for program in programs:
        program.close()


@pytest.fixture
def lock() -> Iterator[DeviceLock]:
    lock = DeviceLock()
    yield lock
    lock.release()


def test_one_program_holds_it_and_says_who_it_is(
    lock: DeviceLock, start: Start, tmp_path: Path
) -> None:
    program = start()
    assert program.do("acquire") == "True"
    assert program.do("acquire") == "True"
    assert not lock.acquire()
    assert not lock.is_held
    holder = device_lock.holder()
    assert holder.pid == program.process.pid
    assert not holder.is_ending
    assert f"process {holder.pid} ('{sys.executable} -P -c" in holder.text
    assert f"in {tmp_path}" in holder.text
    assert re.search(r"running since 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d\)$", holder.text)
    assert program.do("release") == "None"
    assert lock.acquire()
    assert program.do("acquire") == "False"
    lock.release()
    assert program.do("acquire") == "True"


def test_whoever_waits_is_woken_by_the_kernel(lock: DeviceLock, start: Start) -> None:
    program = start()
    assert program.do("acquire") == "True"
    began = time.monotonic()
    device_lock.wait(0.2)
    assert time.monotonic() - began >= 0.2
    assert not lock.acquire()
    program.process.kill()
    device_lock.wait(60)
    assert lock.acquire()
    assert time.monotonic() - began < 60
    device_lock.wait(0.0)


def test_who_lets_go_while_it_is_looked_at_does_not_have_it(
    lock: DeviceLock, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = start()
    assert program.do("acquire") == "True"
    other = device_lock.taken_by(lock)
    assert other is not None
    assert other.pid == program.process.pid
    look = device_lock.holder

    def late() -> device_lock.Holder:
        program.do("release")
        return look()

    monkeypatch.setattr(device_lock, "holder", late)
    assert device_lock.taken_by(lock) is None
    assert lock.is_held


def test_a_wait_can_be_cancelled(start: Start) -> None:
    program = start()
    assert program.do("acquire") == "True"
    device_lock.wait(600, lambda: True)


def test_an_agent_whose_campaign_was_killed_holds_it_until_it_ends(
    lock: DeviceLock, start: Start
) -> None:
    program = start()
    assert program.do("acquire") == "True"
    # The pipe of this process keeps it from reading the end of its input.
    agent = int(program.do("start agent"))
    os.kill(agent, signal.SIGSTOP)
    program.process.kill()
    # Also as long as nobody has collected what is left of it.
    deadline = time.monotonic() + 30
    while not device_lock.holder().is_ending:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    program.process.wait()
    holder = device_lock.holder()
    assert (holder.pid, holder.is_ending) == (program.process.pid, True)
    assert f"what process {holder.pid}, which has ended, had started" in holder.text
    assert not lock.acquire()
    os.kill(agent, signal.SIGKILL)
    device_lock.wait(60)
    assert lock.acquire()


def test_what_forks_copied_and_libraries_start_does_not_hold_it(
    lock: DeviceLock, start: Start
) -> None:
    program = start()
    assert program.do("acquire") == "True"
    child = int(program.do("fork"))
    try:
        assert program.do("release") == "None"
        assert lock.acquire(), "a fork holds it"
        os.kill(child, 0)
    finally:
        os.kill(child, signal.SIGKILL)
    agent = start(lock.descriptors)
    other = int(agent.do("start what a library starts"))
    try:
        lock.release()
        assert not lock.acquire(), "the agent does not hold it"
        agent.kill()
        # The child closes what it copied on its way into its program.
        device_lock.wait(60)
        assert lock.acquire(), "the agent's child holds it"
        os.kill(other, 0)
    finally:
        os.kill(other, signal.SIGKILL)


def test_it_is_one_for_all_users_and_needs_no_folder(lock: DeviceLock, start: Start) -> None:
    program = start()
    assert program.do("become nobody") == "None"
    assert lock.acquire()
    assert program.do("acquire") == "False"
    lock.release()
    assert program.do("acquire") == "True"
    assert not lock.acquire()
    assert device_lock.holder().pid == program.process.pid


def test_devices_that_share_a_network_are_told_apart_by_name(
    lock: DeviceLock, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lock.acquire()
    monkeypatch.setenv(device_lock.VARIABLE, os.environ[device_lock.VARIABLE] + "/other" * 50)
    other = start()
    assert other.do("acquire") == "True"
    assert device_lock.holder().pid == other.process.pid


def test_who_cannot_be_seen_is_said(tmp_path: Path) -> None:
    assert "cannot be seen" in device_lock.holder().text, "nobody holds it"
    text = device_lock.describe(os.getpid(), str(tmp_path)).text
    assert text == f"process {os.getpid()}"
    folder = tmp_path / str(os.getpid())
    folder.mkdir()
    (folder / "cmdline").write_text("joulemap\0profile\0\x1b[2J\n" + "x" * 5000)
    text = device_lock.describe(os.getpid(), str(tmp_path)).text
    assert "joulemap profile" in text
    assert text.isprintable()
    assert len(text) < 400


@pytest.mark.parametrize("step", ["__init__", "bind"])
def test_a_system_that_refuses_such_names_says_why_there_is_no_lock(
    lock: DeviceLock, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    with monkeypatch.context() as patch:
        refusing = type("Refusing", (socket.socket,), {step: refuse})
        patch.setattr(socket, "socket", refusing)
        assert lock.acquire()
    reason = "an abstract name of a socket is refused (Operation not permitted)"
    assert lock.state() == Exclusivity(is_exclusive=False, reason=reason)
    lock.release()
    assert lock.acquire()
    assert lock.state() == Exclusivity(is_exclusive=True)


def test_a_long_name_in_any_script_is_cut(
    lock: DeviceLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(device_lock.VARIABLE, os.environ[device_lock.VARIABLE] + "\u6e2c" * 99)
    assert lock.acquire()
    assert lock.state().is_exclusive


def test_systems_without_such_names_are_not_kept_from_measuring(
    lock: DeviceLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert lock.acquire()
    assert lock.descriptors == ()
    assert "darwin" in str(lock.reason)
    assert not lock.state().is_exclusive

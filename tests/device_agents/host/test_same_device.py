"""An address that passes on to another device: noticed at once, nothing of the other one is taken."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from joulemap.datasets import Timing
from joulemap.device_agents.device import Device, Preparation
from joulemap.device_agents.errors import LinkLostError
from joulemap.device_agents.host.same_device import differences
from joulemap.device_agents.onboard.machine.identity import identity
from joulemap.device_agents.testing import write_fixed_time_runtime

from ..conftest import LIMITS, QUICK, WIDTHS, Remote
from ..sshd import SshClientHome, Sshd


class Phones:
    """Which phone answers at the link's other end: each has its files and its serial number."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, remote: Remote) -> None:
        self.folder, self.monkeypatch, self.remote = folder, monkeypatch, remote
        self.path = os.environ["PATH"]
        monkeypatch.setenv("ANDROID_ROOT", "/system")

    def connect(self, serial: str) -> None:
        program = self.folder / serial / "getprop"
        program.parent.mkdir(exist_ok=True)
        answer = f"case $1 in ro.serialno) echo {serial};; ro.product.model) echo Pixel;; esac"
        program.write_text(f"#!/bin/sh\n{answer}\n")
        program.chmod(0o755)
        self.monkeypatch.setenv("PATH", f"{program.parent}:{self.path}")
        self.monkeypatch.setenv("XDG_CACHE_HOME", str(program.parent))
        # What is asked of the device's processes and folders is asked of this one's.
        self.remote.cache = program.parent / "joulemap"


def test_a_link_that_comes_to_another_phone_is_refused_at_once(
    remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    phones = Phones(tmp_path, monkeypatch, remote)
    phones.connect("0001")
    device = remote.device(replace(LIMITS, give_up_s=1000.0))
    device.prepare(remote.preparation)
    before = device.visit(WIDTHS[0], remote.protocol, "one")
    phones.connect("0002")
    remote.link.cut()
    message = (
        r"^another device answers there now .*\(its serial number differs\): the address has "
        r"passed on.*\. What was measured is safe, .*the same command continues$"
    )
    with pytest.raises(LinkLostError, match=message):
        device.visit(WIDTHS[1], remote.protocol, "two")
    assert sum("broke" in text for text in remote.said) == 1
    # It is left as it was, but for the agent's file.
    remote.wait_until(lambda: not remote.everything(), "something runs on the other phone")
    assert not remote.folders()
    # The first one went on, and is taken again.
    phones.connect("0001")
    assert device.visit(WIDTHS[1], remote.protocol, "two").pid == before.pid
    device.close()
    remote.wait_until(lambda: not remote.everything(), "something runs on the first phone")


def test_closing_asks_another_phone_once_and_leaves_it(
    remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    phones = Phones(tmp_path, monkeypatch, remote)
    phones.connect("0001")
    device = remote.device()
    device.prepare(remote.preparation)
    device.visit(WIDTHS[0], remote.protocol, "one")
    phones.connect("0002")
    remote.link.cut()
    num_links = len(remote.link.processes)
    device.close()
    assert len(remote.link.processes) == num_links + 1
    assert "could not be told to end (another device answers there now" in remote.said[-1]
    remote.wait_until(lambda: not remote.everything(), "something runs on the other phone")
    # The first one, whose keeper is ended with the test.
    phones.connect("0001")


def test_a_host_with_the_same_key_and_another_machine_id_is_refused(
    tmp_path: Path, lenet: Preparation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy of a virtual machine has its original's host key."""
    monkeypatch.setenv("HOME", str(tmp_path / "client"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    runtime = write_fixed_time_runtime(tmp_path / "runtime", 0.0005)
    server = Sshd(tmp_path / "server", environment={"PYTHONPATH": str(runtime)})
    SshClientHome(tmp_path / "client", server)

    def start(machine_id: str, mounts: str = "") -> None:
        etc = tmp_path / machine_id
        named = (
            f"mkdir -p {etc} && cp -a /etc/. {etc} && rm -f {etc}/machine-id && "
            f"echo {machine_id} >{etc}/machine-id && mount --bind {etc} /etc && {mounts} exec "
        )
        server.start(prefix=("unshare", "--mount", "--propagation", "private", "sh", "-c", named))

    protocol = QUICK.to_dict()
    original, copy = "0123456789abcdef" * 2, "fedcba9876543210" * 2
    try:
        start(original)
        with Device(f"ssh:{server.address}", limits=LIMITS) as device:
            device.prepare(lenet)
            before = device.visit(WIDTHS[0], protocol, "one")
            running = set(server.agents())
            server.stop()
            start(copy, f"mount -t tmpfs tmpfs {server.home} &&")
            with pytest.raises(LinkLostError, match=r"another device .*its machine id differs"):
                device.visit(WIDTHS[1], protocol, "two")
            server.stop()
            deadline = time.monotonic() + 20
            while set(server.agents()) - running:
                assert time.monotonic() < deadline, "something runs on the copy"
                time.sleep(0.01)
            start(original)
            after = device.visit(WIDTHS[1], protocol, "two")
            Timing.from_dict(after.timing())
            assert after.pid == before.pid
    finally:
        server.stop()
        server.end_agents()


def test_a_device_is_named_by_what_it_tells_and_nobody_learns_a_number(tmp_path: Path) -> None:
    def write(path: str, text: str) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)

    assert identity(str(tmp_path)) == {}
    write("etc/machine-id", "uninitialized\n")
    write("proc/device-tree/serial-number", "0000000000000000\0")
    assert identity(str(tmp_path)) == {}
    write("etc/machine-id", "0123456789abcdef0123456789abcdef\n")
    write("proc/device-tree/serial-number", "10000000abcdef01\0")
    write("proc/device-tree/model", "Raspberry Pi 4\0")
    found = identity(str(tmp_path))
    assert set(found) == {"machine id", "board", "board's serial number"}
    assert not any(text in str(found) for text in ("0123456789", "abcdef01", "Raspberry"))
    assert found == identity(str(tmp_path))


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        ({"machine id": "a"}, {"machine id": "a"}, []),
        ({"machine id": "a"}, {"machine id": "b"}, ["machine id"]),
        ({"machine id": "a", "board": "x"}, {"machine id": "b", "board": "y"}, ["machine id", "board"]),
        # Its number is the board's own, while some systems make their id anew at every start.
        (
            {"machine id": "a", "board's serial number": "1"},
            {"machine id": "b", "board's serial number": "1"},
            [],
        ),
        (
            {"machine id": "a", "board's serial number": "1"},
            {"machine id": "a", "board's serial number": "2"},
            ["board's serial number"],
        ),
        # Who could not read it the one time is not another.
        ({"machine id": "a", "serial number": "1"}, {"machine id": "a"}, []),
        ({}, {"machine id": "a"}, []),
        # What agents of other versions, or no agents at all, may say.
        (None, {"machine id": "a"}, []),
        ({"machine id": "a"}, None, []),
        ({"machine id": "a"}, ["machine id"], []),
        ({"machine id": "a"}, {"machine id": ["a"]}, ["machine id"]),
    ],
)  # fmt: skip
def test_another_device_is_told_by_what_both_tell(
    before: object, now: object, expected: list[str]
) -> None:
    assert differences(before, now) == expected

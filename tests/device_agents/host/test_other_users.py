"""Other users of a device: whatever they plant or listen on, nothing of theirs is run or believed."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from joulemap.device_agents import Device, Preparation, StableDeviceError
from joulemap.device_agents.onboard.keeper import campaign_folder

from ..adb_phone import own_adb_server, phone_root, running_phone
from ..conftest import Remote, collect
from ..sshd import SshClientHome, Sshd, running_sshd

NOBODY = 65534
TOKEN = "0123456789abcdef"  # noqa: S105


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with running_sshd(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Sshd) -> Path:
    """A folder of the device in which all its users may make something."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    SshClientHome(tmp_path, server)
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o1777)
    return folder


def plant(path: Path, mode: int = 0o777) -> None:
    path.mkdir()
    os.chown(path, NOBODY, NOBODY)
    path.chmod(mode)


@pytest.mark.parametrize("name", ["agents", "campaigns"])
def test_a_folder_that_another_user_made_is_named_and_not_used(
    server: Sshd, shared: Path, name: str
) -> None:
    plant(shared / name)
    with (
        Device(f"ssh:{server.address}?cache={shared}") as device,
        pytest.raises(StableDeviceError, match=f"{name} .*belongs to another user .*cache="),
    ):
        device.probe()
    assert not list((shared / name).iterdir())


def test_two_users_of_a_folder_are_not_in_each_others_way(server: Sshd, shared: Path) -> None:
    with Device(f"ssh:{server.address}?cache={shared}") as device:
        assert device.probe().device_id
        assert {path.stat().st_mode & 0o777 for path in shared.iterdir()} == {0o700}
        assert device.clean()["kept"] == []


@pytest.mark.parametrize("name", ["lock", "spool", "spool.new", "log", "socket"])
def test_a_planted_link_changes_no_other_file(remote: Remote, tmp_path: Path, name: str) -> None:
    """They got there while an umask had left the folder open to all."""
    victim = tmp_path / "victim"
    victim.write_text("secret")
    device = remote.device()
    folder = remote.cache / "campaigns" / device.token
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    (folder / name).symlink_to(victim)
    os.lchown(folder / name, NOBODY, NOBODY)
    with contextlib.suppress(StableDeviceError):
        device.prepare(remote.preparation)
        collect(device, remote, 2)
    device.close()
    assert victim.read_text() == "secret"
    assert not folder.exists() or folder.stat().st_mode & 0o777 == 0o700


# Binds as root in a folder of root's and listens as nobody: whoever asks the kernel is told so.
LISTENER = """
import os, socket, sys
os.chdir(sys.argv[1])
listener = socket.socket(socket.AF_UNIX)
listener.bind("socket")
os.setgid(65534); os.setuid(65534)
listener.listen(8)
print("listens", flush=True)
connection, _ = listener.accept()
print(connection.recv(1 << 16), flush=True)
"""


def test_no_other_users_socket_is_asked_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = campaign_folder.enter(str(tmp_path / "agents/agent-0.pyz"), TOKEN)
    command = [sys.executable, "-c", LISTENER, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as listener:
        assert listener.stdout is not None
        assert listener.stdout.readline() == b"listens\n"
        with pytest.raises(campaign_folder.FolderError, match=r"another user.*\?cache="):
            campaign_folder.connect()
        assert listener.stdout.readline() == b"b''\n"


# Connects as nobody and asks what the keeper holds.
STRANGER = """
import os, socket, sys
from joulemap.device_agents.onboard import frames
os.chdir(sys.argv[1])
connection = socket.socket(socket.AF_UNIX)
os.setgid(65534); os.setuid(65534)
connection.connect("socket")
hello = {"agent_visits": 1, "idle_limit_s": 1, "beat_s": 1, "deliver_s": 1}
try:
    connection.sendall(frames.encode({"id": 1, "op": "hello", **hello}))
    print(connection.recv(1 << 16))
except OSError as error:
    print(type(error).__name__)
"""


def test_a_keeper_answers_no_other_user_and_keeps_its_host(remote: Remote, tmp_path: Path) -> None:
    device = remote.device()
    device.prepare(remote.preparation)
    collect(device, remote, 1)
    (folder,) = remote.folders()
    assert {path.stat().st_mode & 0o077 for path in [folder, *folder.iterdir()]} == {0}
    # As if its own folder did not keep others off.
    for path in (*folder.parents, folder):
        path.chmod(path.stat().st_mode | 0o011)
    (folder / "socket").chmod(0o777)
    said = subprocess.run(
        [sys.executable, "-c", STRANGER, str(folder)], capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() in ("b''", "BrokenPipeError", "ConnectionResetError")
    collect(device, remote, 2, first=1)
    assert not remote.said
    device.close()


def test_the_kernel_says_whose_the_other_end_is() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert campaign_folder.is_own(ours)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert not campaign_folder.is_own(listener)


def test_an_androids_folders_pass(
    tmp_path_factory: pytest.TempPathFactory, lenet: Preparation
) -> None:
    """Its system owns /data, its shell /data/local/tmp; the daemon is the shell's."""
    root = phone_root()
    with (
        own_adb_server(tmp_path_factory.mktemp("home")),
        running_phone(root, has_users=True) as phone,
    ):
        phone.do("be-android")
        with Device(f"adb:{phone.address}") as device:
            owners = device._transport.run(["stat", "-c", "%U %a", "/data/local/tmp"], 30).stdout
            assert owners.split()[1:] == [b"771"]
            assert device._transport.run(["id", "-u"], 30).stdout == b"2000\n"
            assert device.probe().device_id
            device.prepare(lenet)
        listed = device._transport.run(["find", "/data/local/tmp", "-printf", "%m %U %p\n"], 30)
        assert b"700 2000 /data/local/tmp/joulemap\n" in listed.stdout
        assert b"/campaigns/" not in listed.stdout

"""The Python of a device: found, too old or missing, and what to do then."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from joulemap.device_agents import StableDeviceError
from joulemap.device_agents.host.install_advice import MANAGERS
from joulemap.device_agents.interfaces import ConnectOptions
from joulemap.device_agents.transports.remote_python import is_new_enough
from joulemap.device_agents.transports.ssh import SshTransport

from ..sshd import SshClientHome, Sshd, running_sshd

Make = Callable[[dict[str, str], str], SshTransport]
TOOLS = ("sh", "id", "uname", "tr", "head", "sed")


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Return a function (programs on the device, URL options) that connects to it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in TOOLS:
        (folder / tool).symlink_to(shutil.which(tool) or f"/bin/{tool}")
    opened = []
    with running_sshd(tmp_path / "board", environment={"PATH": str(folder)}) as server:
        SshClientHome(tmp_path, server)

        def connect(programs: dict[str, str], options: str = "") -> SshTransport:
            for name, text in programs.items():
                (folder / name).write_text(f"#!/bin/sh\n{text}\n")
                (folder / name).chmod(0o755)
            opened.append(SshTransport(server.address + options, ConnectOptions()))
            return opened[-1]

        yield connect
        for transport in opened:
            transport.close()


OLD = "echo 3.7.3"
REAL = f'exec {sys.executable} "$@"'


def test_no_python_is_named_with_the_line_that_installs_it(make: Make) -> None:
    with pytest.raises(StableDeviceError, match=r"127.0.0.1 has no Python in the path") as caught:
        make({}, "").python()
    assert "install it with: " in str(caught.value)
    # Tests run as root on some distribution whose line needs no sudo.
    assert os.getuid() != 0 or "sudo" not in str(caught.value)


def test_a_system_without_packages_is_told_how_python_gets_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a Buildroot board: no apt, no other one."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in TOOLS:
        (folder / tool).symlink_to(shutil.which(tool) or f"/bin/{tool}")
    (tmp_path / "release").write_text(
        'NAME=Buildroot\nID=buildroot\nPRETTY_NAME="Buildroot 2025.02"\n'
    )
    (tmp_path / "nothing").write_text("")
    hidden = [path for name in MANAGERS if (path := shutil.which(name)) is not None]
    release = str(Path("/etc/os-release").resolve())
    mounts = [(str(tmp_path / "nothing"), path) for path in hidden]
    mounts.append((str(tmp_path / "release"), release))
    script = "".join(f"mount --bind {source} {target} && " for source, target in mounts)
    server = Sshd(tmp_path / "board", environment={"PATH": str(folder)})
    try:
        server.start(prefix=("unshare", "--mount", "sh", "-c", f"{script}exec "))
        SshClientHome(tmp_path, server)
        with pytest.raises(
            StableDeviceError, match=r"Buildroot 2025.02 has no package manager: .*PYTHON3=y"
        ) as caught:
            SshTransport(server.address).python()
        assert len(str(caught.value)) < 400
    finally:
        server.stop()


def test_an_old_python_is_named_with_its_version(make: Make) -> None:
    with pytest.raises(
        StableDeviceError, match=r"too old \(/.*/python3 is 3\.7\.3; 3\.9 is needed"
    ):
        make({"python3": OLD}, "").python()


def test_a_newer_one_beside_an_old_one_is_taken(make: Make) -> None:
    transport = make({"python3": OLD, "python3.11": REAL}, "")
    found = transport.python()
    assert transport.run([found, "-c", "print(1)"], 30).stdout == b"1\n"


def test_a_wrapper_is_followed_to_the_interpreter(make: Make) -> None:
    assert make({"python3": REAL}, "").python() == sys.executable


def test_one_that_does_not_run_is_named(make: Make) -> None:
    with pytest.raises(StableDeviceError, match=r"does not run \(/.*/python3"):
        make({"python3": "exit 1"}, "").python()


def test_the_urls_python_is_taken_and_no_other(make: Make) -> None:
    assert make({}, f"?python={sys.executable}").python() == sys.executable
    with pytest.raises(StableDeviceError, match=r"no Python at /opt/v/bin/python.*-m venv /opt/v,"):
        make({"python3": REAL}, "?python=/opt/v/bin/python").python()
    # No environment has its Python there, so none is made there.
    with pytest.raises(StableDeviceError, match=r"no Python at /opt/python3, .*correct \?python="):
        make({"python3": REAL}, "?python=/opt/python3").python()


def test_a_venv_in_the_home_folder_is_found(make: Make, tmp_path: Path) -> None:
    (tmp_path / "board/home/venv").mkdir()
    (tmp_path / "board/home/venv/python").symlink_to(sys.executable)
    found = make({}, "?python=~/venv/python").python()
    assert found == str(tmp_path / "board/home/venv/python")


@pytest.mark.parametrize(
    ("version", "is_enough"),
    [("3.9.0", True), ("3.14.1", True), ("3.8.20", False), ("2.7.18", False), ("4.0.0", False)]
    + [(text, False) for text in ("", "3.9", "Python 3.9.1", "3.9.x", "unusable")],
)
def test_versions_are_compared_by_their_numbers(version: str, is_enough: bool) -> None:
    assert is_new_enough(version) is is_enough

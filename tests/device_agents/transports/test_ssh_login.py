"""Logging in over SSH, with real OpenSSH servers and agents on this machine."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from joulemap.device_agents import StableDeviceError, TransientDeviceError
from joulemap.device_agents.transports.ssh import SshTransport
from joulemap.device_agents.transports.ssh_connection import ConnectLimits

from ..sshd import SshClientHome, Sshd

pytestmark = pytest.mark.usefixtures("client", "nothing_is_printed")


def test_a_key_that_is_not_let_in_is_named(server: Sshd, client: SshClientHome) -> None:
    client.use_key(server.folder / "stranger_key")
    with pytest.raises(
        StableDeviceError, match=r"not let root in \(tried .*id_ed25519\).*ssh-copy"
    ):
        SshTransport(server.address).run(["true"], 30)


def test_without_any_key_it_says_so(server: Sshd, client: SshClientHome) -> None:
    (client.ssh / "id_ed25519").unlink()
    with pytest.raises(
        StableDeviceError, match=r"no private key was found.*: ssh-keygen -t.*ssh-copy-id"
    ):
        SshTransport(server.address).run(["true"], 30)


def test_a_locked_or_damaged_key_is_named(server: Sshd, client: SshClientHome) -> None:
    key = client.ssh / "id_ed25519"
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", "secret", "-f", str(key)], check=True)  # noqa: S607
    (client.ssh / "id_rsa").write_text("no key")
    with pytest.raises(StableDeviceError, match=r"locked by a passphrase.*id_rsa cannot be read"):
        SshTransport(server.address).run(["true"], 30)


def _configure(server: Sshd, client: SshClientHome, *extra: str) -> None:
    """Start a server anew with further lines of configuration; its host key is known."""
    server.stop()
    server.extra = extra
    server.start()
    client.known_hosts.write_text(server.known_hosts_line)


@contextlib.contextmanager
def _running_agent(path: Path, *keys: Path) -> Iterator[None]:
    """Run an SSH agent that holds keys, in this order."""
    with subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=-3) as agent:  # noqa: S607
        environment = {**os.environ, "SSH_AUTH_SOCK": str(path)}
        try:
            deadline = time.monotonic() + 30
            for key in keys:
                command = ["ssh-add", "-q", str(key)]
                while subprocess.run(command, stderr=-3, env=environment).returncode:  # noqa: PLW1510
                    assert time.monotonic() < deadline, "the SSH agent takes no keys"
                    time.sleep(0.02)
            yield
        finally:
            agent.terminate()


def test_a_key_of_the_agent_is_used(
    server: Sshd, client: SshClientHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
    with _running_agent(tmp_path / "agent", client.ssh / "id_ed25519"):
        (client.ssh / "id_ed25519").unlink()
        transport = SshTransport(server.address)
        assert transport.run(["echo", "in"], 30).stdout == b"in\n"
        transport.close()


@pytest.mark.parametrize("what", ["locked", "public"])
def test_a_named_key_is_asked_of_the_agent_and_no_other(
    own_server: Sshd, client: SshClientHome, tmp_path: Path, what: str
) -> None:
    key, public = client.ssh / "board", client.ssh / "board.pub"
    key.write_bytes(own_server.user_key.read_bytes())
    key.chmod(0o600)
    public.write_bytes(own_server.user_key.with_name("user_key.pub").read_bytes())
    stranger = own_server.folder / "stranger_key"
    with _running_agent(tmp_path / "agent", stranger, key):
        subprocess.run(["ssh-keygen", "-q", "-p", "-N", "secret", "-f", str(key)], check=True)  # noqa: S607
        # The first other key that is tried ends the connection.
        _configure(own_server, client, "MaxAuthTries 1")
        named = key if what == "locked" else public
        client.config.write_text(f"IdentityFile {named}\nIdentityAgent {tmp_path}/agent\n")
        transport = SshTransport(own_server.address)
        assert transport.run(["echo", "in"], 30).stdout == b"in\n"
        transport.close()
        client.config.write_text(
            f"IdentityFile {stranger}\nIdentitiesOnly yes\nIdentityAgent {tmp_path}/agent\n"
        )
        _configure(own_server, client)
        with pytest.raises(StableDeviceError, match=r"tried \S*/stranger_key\)"):
            SshTransport(own_server.address).run(["true"], 30)


def test_an_agent_that_says_nothing_does_not_hold_everything_up(
    server: Sshd, client: SshClientHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
    (client.ssh / "id_ed25519").unlink()
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "agent"))
        silent.listen()
        transport = SshTransport(server.address, limits=ConnectLimits(auth_s=0.3))
        with pytest.raises(StableDeviceError, match="the SSH agent gives no answer within 0 s"):
            transport.run(["true"], 30)


def test_a_server_that_breaks_off_the_login_may_do_better_later(
    own_server: Sshd, client: SshClientHome
) -> None:
    _configure(own_server, client, "MaxAuthTries 1")
    client.use_key(own_server.folder / "stranger_key")
    with pytest.raises(TransientDeviceError, match=r"ended the connection.*IdentitiesOnly"):
        SshTransport(own_server.address).run(["true"], 30)


def test_a_server_that_wants_more_than_a_key_is_named(
    own_server: Sshd, client: SshClientHome
) -> None:
    methods = "AuthenticationMethods publickey,password"
    _configure(own_server, client, "PasswordAuthentication yes", methods)
    client.use_key(own_server.user_key)
    with pytest.raises(StableDeviceError, match="wants password besides"):
        SshTransport(own_server.address).run(["true"], 30)


@pytest.mark.parametrize("host", ["rpi..local", "a" * 64 + ".local"])
def test_a_host_that_is_no_name_is_said(client: SshClientHome, host: str) -> None:
    with pytest.raises(TransientDeviceError, match=r"is not found.*written right"):
        SshTransport(f"//root@{host}").run(["true"], 30)

"""Logging in over SSH, with real OpenSSH servers and agents on this machine."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import paramiko
import pytest

from joulemap import InputError
from joulemap.device_agents import Device, StableDeviceError, TransientDeviceError
from joulemap.device_agents.transports import ssh
from joulemap.device_agents.transports.ssh import SshTransport
from joulemap.device_agents.transports.ssh_algorithms import chosen_by
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


# -- a login that starts no program ----------------------------------------------------------------

SILENT = r"starts no program within 1 s.*ForceCommand or command= in authorized_keys.*: ssh 127"


@pytest.mark.parametrize(
    ("shell", "said"),
    [
        # What waits in start-up files, starts something else, or greets and asks.
        ("sleep 60", "says nothing"),
        ("read answer", "says nothing"),
        ("exec cat", "says nothing"),
        ("echo 'Choose: 1 shell, 2 reboot'; read answer; exit", "prints 'Choose: 1 shell"),
        ("echo 'Agree?' >&2; read answer", "prints 'Agree\\?' and waits"),
        ("printf 'no end of line'; sleep 60", "prints 'no end of line'"),
        ("while :; do sleep 0.2; echo tick; done", "prints 'tick'"),
        ("printf '\\033[2J'; sleep 60", r"prints '\\x1b\[2J'"),
    ],
)
def test_a_login_shell_that_never_gives_a_shell_is_named_in_time(
    own_server: Sshd,
    client: SshClientHome,
    monkeypatch: pytest.MonkeyPatch,
    shell: str,
    said: str,
) -> None:
    _configure(own_server, client, f"ForceCommand {shell}")
    client.use_key(own_server.user_key)
    monkeypatch.setattr(ssh, "START_TIMEOUT_S", 1.0)
    transport = SshTransport(own_server.address)
    with pytest.raises(StableDeviceError, match=SILENT) as caught:
        transport.python()
    assert re.search(said, str(caught.value))
    assert len(str(caught.value)) < 400
    transport.close()


def test_what_never_gives_a_shell_ends_a_command_within_forty_seconds(
    own_server: Sshd, client: SshClientHome
) -> None:
    _configure(own_server, client, "ForceCommand sleep 600")
    client.use_key(own_server.user_key)
    began = time.monotonic()
    with (
        Device(f"ssh:{own_server.address}") as device,
        pytest.raises(StableDeviceError, match="starts no program within 30 s"),
    ):
        device.probe()
    assert time.monotonic() - began < 40


def test_a_shell_that_hung_once_may_do_better_later(
    own_server: Sshd, client: SshClientHome, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    script = tmp_path / "shell"
    script.write_text(
        f'#!/bin/sh\nif [ -e {gate} ]; then sleep 60; fi\nsh -c "$SSH_ORIGINAL_COMMAND"\n'
    )
    script.chmod(0o755)
    _configure(own_server, client, f"ForceCommand {script}")
    client.use_key(own_server.user_key)
    monkeypatch.setattr(ssh, "START_TIMEOUT_S", 1.0)
    transport = SshTransport(own_server.address)
    assert transport.run(["echo", "in"], 30).stdout == b"in\n"
    gate.touch()
    with pytest.raises(TransientDeviceError, match="no answer within"):
        transport.run(["echo", "in"], 30)
    gate.unlink()
    assert transport.run(["echo", "in"], 30).stdout == b"in\n"
    transport.close()


@pytest.mark.parametrize(
    ("shell", "said"),
    [
        ("/usr/sbin/nologin", "code 1 .*: This account is currently not available. Give the user"),
        ("/bin/false", r"code 1 instead of starting /bin/sh\. Give the user a shell"),
        ("echo maintenance; exit 3", "code 3 .*: maintenance. .*ForceCommand"),
    ],
)
def test_a_login_that_ends_at_once_is_named_with_its_words(
    own_server: Sshd, client: SshClientHome, shell: str, said: str
) -> None:
    _configure(own_server, client, f"ForceCommand {shell}")
    client.use_key(own_server.user_key)
    transport = SshTransport(own_server.address)
    with pytest.raises(StableDeviceError, match=said) as caught:
        transport.python()
    assert len(str(caught.value)) < 400
    transport.close()


# -- what both sides have to agree on --------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (
            ["KexAlgorithms diffie-hellman-group14-sha1"],
            (
                r"no key exchange in common: it offers diffie-hellman-group14-sha1, joulemap has "
                r"mlkem.*permit one there, in sshd_config: KexAlgorithms \+diffie-hellman-group14-sha256"
            ),
        ),
        (
            ["Ciphers chacha20-poly1305@openssh.com"],
            (
                r"no cipher in common: it offers chacha20-poly1305@openssh.com, joulemap has aes.*: "
                r"Ciphers \+aes256-gcm@openssh.com"
            ),
        ),
        (
            ["MACs umac-64@openssh.com", "Ciphers aes128-ctr"],
            r"no MAC in common: it offers umac-64@openssh.com, joulemap has hmac-sha2-256.*: MACs \+",
        ),
        (
            ["HostKeyAlgorithms ssh-rsa"],
            (
                r"no type of host key in common: it offers ssh-rsa, joulemap has ssh-ed25519, .*: "
                r"HostKeyAlgorithms \+rsa-sha2-256"
            ),
        ),
    ],
)
def test_algorithms_that_are_not_shared_are_named_with_what_permits_one(
    own_server: Sshd, client: SshClientHome, lines: list[str], said: str
) -> None:
    if "HostKeyAlgorithms ssh-rsa" in lines:
        _make_key(own_server.folder / "rsa_key", "rsa")
        lines = [*lines, f"HostKey {own_server.folder / 'rsa_key'}"]
    _configure(own_server, client, *lines)
    client.use_key(own_server.user_key)
    with pytest.raises(StableDeviceError, match=said) as caught:
        SshTransport(own_server.address).run(["true"], 30)
    assert len(str(caught.value)) < 400


def test_what_the_configuration_permits_is_used_and_what_it_forbids_is_not(
    own_server: Sshd, client: SshClientHome
) -> None:
    _configure(own_server, client, "Ciphers aes256-ctr,aes128-cbc", "MACs hmac-sha2-512")
    client.use_key(own_server.user_key)
    client.config.write_text("Ciphers aes128-cbc,unknown-cipher\nKexAlgorithms curve25519-sha256\n")
    transport = SshTransport(own_server.address)
    transport.run(["true"], 30)
    assert transport._connection is not None
    session = transport._connection._transports[-1]
    assert (session.local_cipher, session.local_mac) == ("aes128-cbc", "hmac-sha2-512")
    transport.close()
    client.config.write_text("Ciphers -aes*-ctr,aes*-cbc\n")
    with pytest.raises(StableDeviceError, match="or widen Ciphers in your SSH configuration"):
        SshTransport(own_server.address).run(["true"], 30)
    client.config.write_text("Ciphers chacha20-poly1305@openssh.com\n")
    with pytest.raises(InputError, match="names nothing that joulemap has"):
        SshTransport(own_server.address).run(["true"], 30)


def test_lists_of_algorithms_are_read_as_openssh_reads_them() -> None:
    usual, known = ("a1", "a2", "b"), ("a1", "a2", "b", "c", "curve25519-sha256@libssh.org")
    for spec, chosen in (
        ("b,x,a1", ("b", "a1")),
        ("+c,x,b", ("a1", "a2", "b", "c")),
        ("^b,c", ("b", "c", "a1", "a2")),
        ("-a*,x", ("b",)),
        ("curve25519-sha256", ("curve25519-sha256@libssh.org",)),
    ):
        assert chosen_by(spec, usual, known) == chosen


@pytest.mark.parametrize("line", ["AllowTcpForwarding no", "PermitOpen 127.0.0.1:1", "key"])
def test_a_jump_host_that_forbids_to_go_on_is_named(
    own_server: Sshd, server: Sshd, client: SshClientHome, line: str
) -> None:
    _configure(own_server, client, *([] if line == "key" else [line]))
    public = own_server.user_key.with_name("user_key.pub").read_text()
    keys = own_server.folder / "authorized_keys"
    keys.write_text(f"no-port-forwarding {public}" if line == "key" else public)
    client.known_hosts.write_text(own_server.known_hosts_line + server.known_hosts_line)
    client.use_key(own_server.user_key)
    client.config.write_text(
        f"Host far\n HostName 127.0.0.1\n Port {server.port}\n ProxyJump gate\n"
    )
    with client.config.open("a") as file:
        file.write(f"Host gate\n HostName 127.0.0.1\n Port {own_server.port}\nHost *\n User root\n")
    with pytest.raises(
        StableDeviceError,
        match=r"the jump host gate forbids to go on to far .*AllowTcpForwarding yes.*authorized_keys",
    ) as caught:
        SshTransport("//far").run(["true"], 30)
    assert len(str(caught.value)) < 400


# -- keys that are there and not taken -------------------------------------------------------------


def _make_key(path: Path, kind: str) -> None:
    program = shutil.which("ssh-keygen")
    assert program is not None
    subprocess.run([program, "-q", "-t", kind, "-N", "", "-f", str(path)], check=True)


class Particular(paramiko.Transport):
    """Says that it takes one type of key only."""

    @property
    def preferred_pubkeys(self) -> tuple[str, ...]:
        """What it says, and what it then reads before it refuses."""
        is_talking = self.auth_handler is None
        return ("ecdsa-sha2-nistp256",) if is_talking else ("ssh-ed25519",)


class Gate(paramiko.ServerInterface):
    """Lets nobody in."""

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return 2  # AUTH_FAILED


def test_a_type_of_key_that_a_server_says_not_to_take_is_named(
    own_server: Sshd, client: SshClientHome
) -> None:
    client.use_key(own_server.user_key)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        client.known_hosts.write_text(
            own_server.known_hosts_line.replace(f":{own_server.port}", f":{port}")
        )

        def serve() -> None:
            stream, _ = listener.accept()
            session = Particular(stream)
            session.add_server_key(
                paramiko.Ed25519Key(filename=str(own_server.folder / "host_key"))
            )
            session.start_server(server=Gate())
            session.join(30)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(
            StableDeviceError,
            match=r"no keys of the type ssh-ed25519, only ecdsa-.*; or permit the type there",
        ) as caught:
            SshTransport(f"//root@127.0.0.1:{port}").run(["true"], 30)
        thread.join()
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "line",
    [
        "PermitRootLogin no",
        "DenyUsers root",
        "StrictModes yes",
        "PubkeyAcceptedAlgorithms ecdsa-sha2-nistp256",
    ],
)
def test_a_key_that_is_there_and_not_taken_says_what_to_look_at(
    own_server: Sshd, client: SshClientHome, line: str
) -> None:
    own_server.folder.chmod(0o777)
    _configure(own_server, client, line)
    client.use_key(own_server.user_key)
    with pytest.raises(
        StableDeviceError,
        match=r"tried ~/.ssh/id_ed25519\).*authorized_keys.*chmod go-w.*PermitRootLogin, AllowUsers; "
        r"PubkeyAcceptedAlgorithms without ssh-ed25519\).*ssh-copy-id -p",
    ) as caught:
        SshTransport(own_server.address).run(["true"], 30)
    assert len(str(caught.value)) < 400


def test_a_key_that_is_locked_without_an_agent_says_how_to_unlock_it(
    server: Sshd, client: SshClientHome
) -> None:
    key = client.ssh / "id_ed25519"
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", "secret", "-f", str(key)], check=True)  # noqa: S607
    with pytest.raises(
        StableDeviceError,
        match=r'~/.ssh/id_ed25519 is locked .*run eval "\$\(ssh-agent\)"; ssh-add',
    ):
        SshTransport(server.address).run(["true"], 30)


def test_no_usual_key_is_tried_where_the_configuration_says_none(
    server: Sshd, client: SshClientHome
) -> None:
    client.config.write_text("IdentityFile none\n")
    with pytest.raises(StableDeviceError, match="no private key was found"):
        SshTransport(server.address).run(["true"], 30)


@pytest.mark.parametrize("named", [True, False])
def test_a_users_certificate_is_shown(own_server: Sshd, client: SshClientHome, named: bool) -> None:
    authority = own_server.folder / "user_ca"
    _make_key(authority, "ed25519")
    client.use_key(own_server.folder / "stranger_key")
    key = client.ssh / "id_ed25519"
    key.with_suffix(".pub").write_bytes((own_server.folder / "stranger_key.pub").read_bytes())
    program = shutil.which("ssh-keygen")
    assert program is not None
    sign = [program, "-q", "-s", str(authority), "-I", "me", "-n", "root", f"{key}.pub"]
    subprocess.run(sign, check=True)
    if named:
        key.with_name("id_ed25519-cert.pub").rename(client.ssh / "shown.pub")
        client.config.write_text(f"CertificateFile {key}.pub\nCertificateFile ~/.ssh/shown.pub\n")
    _configure(own_server, client, f"TrustedUserCAKeys {authority}.pub")
    transport = SshTransport(own_server.address)
    assert transport.run(["echo", "in"], 30).stdout == b"in\n"
    transport.close()


@pytest.mark.parametrize("line", ["AddressFamily inet6", "BindAddress 203.0.113.7"])
def test_the_way_that_the_configuration_names_is_taken(
    server: Sshd, client: SshClientHome, line: str
) -> None:
    client.config.write_text(f"{line}\n")
    with pytest.raises(TransientDeviceError, match=r"is not found|is not reached"):
        SshTransport(server.address).run(["true"], 30)
    client.config.write_text("AddressFamily inet\nBindAddress 127.0.0.2\nConnectTimeout 20\n")
    transport = SshTransport(server.address)
    said = transport.run(["sh", "-c", "echo $SSH_CLIENT"], 30).stdout
    assert said.startswith(b"127.0.0.2 ")
    transport.close()

"""A device over SSH, reached through real OpenSSH servers on this machine."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from joulemap.device_agents import StableDeviceError, TransientDeviceError
from joulemap.device_agents.interfaces import ConnectOptions
from joulemap.device_agents.testing import Start, TransportContract
from joulemap.device_agents.transports import ssh_settings
from joulemap.device_agents.transports.ssh import SshTransport
from joulemap.device_agents.transports.ssh_connection import ConnectLimits

from ..processes import process_state, send_signal, wait_for_states
from ..sshd import SshClientHome, Sshd, running_sshd

ACCEPT = ConnectOptions(accept_new_host_key=True)
SHORT = ConnectLimits(connect_s=1.0, banner_s=1.0, auth_s=1.0)
TRICKY = [
    "a b",
    "",
    "it's",
    '"',
    "$HOME",
    "`id`",
    "; exit 3",
    "!x",
    "\\",
    "\\\\'",
    "a\nb",
    "ä",
    "%s",
]


pytestmark = pytest.mark.usefixtures("client", "nothing_is_printed")


class TestSshTransport(TransportContract):
    @pytest.fixture(autouse=True)
    def _server(self, server: Sshd) -> None:
        self.server = server

    def make(self) -> SshTransport:
        return SshTransport(self.server.address)

    def test_pushed_files_lie_in_the_cache_there(self, transport: SshTransport) -> None:
        path = transport.push(b"content", "name.bin")
        assert path == str(self.server.home / ".cache/joulemap/agents/name.bin")
        # Nothing half-written stays beside it.
        assert not [each for each in Path(path).parent.iterdir() if each.name.startswith("tmp")]

    def test_a_signal_is_told_from_a_code(self, transport: SshTransport) -> None:
        command = [transport.python(), "-c", "import os; os.kill(os.getpid(), 9)"]
        assert transport.run(command, self.timeout_s).exit_code < 0
        with pytest.raises(TransientDeviceError, match="killed by a signal"):
            transport.start(command).read(1, self.timeout_s)

    def test_what_a_killed_program_started_ends_with_it(self, start: Start) -> None:
        code = (
            "import subprocess, sys, time\n"
            "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
            "print('%9d' % child.pid, flush=True); time.sleep(60)"
        )
        process = start(code)
        pid = int(process.read(10, self.timeout_s))
        process.kill()
        wait_for_states([pid], "ZX")


def _runs_tricky_arguments(transport: SshTransport) -> None:
    code = "import json, sys; print(json.dumps(sys.argv[1:]))"
    done = transport.run([sys.executable, "-c", code, *TRICKY], 30)
    assert json.loads(done.stdout) == TRICKY
    assert done.exit_code == 0


@pytest.mark.parametrize("shell", ["sh", "bash", "dash"])
def test_any_login_shell_passes_arguments_on(
    tmp_path: Path, client: SshClientHome, shell: str
) -> None:
    with running_sshd(tmp_path / "shell", login_shell=shutil.which(shell)) as server:
        transport = SshTransport(server.address, ACCEPT)
        client.use_key(server.user_key)
        _runs_tricky_arguments(transport)
        transport.close()


def test_what_start_up_files_print_is_thrown_away(
    tmp_path: Path, client: SshClientHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    extra = ("Banner " + str(tmp_path / "banner"),)
    (tmp_path / "banner").write_text("Authorised use only!\n" * 20)
    with running_sshd(tmp_path / "noisy", extra=extra) as server:
        (server.home / ".bashrc").write_text(
            "echo welcome; echo no newline >&2; printf 'joulemap-0 12\\n'; printf garbage\n"
        )
        transport = SshTransport(server.address, ACCEPT)
        client.use_key(server.user_key)
        done = transport.run(["sh", "-c", "echo out; echo err >&2; exit 3"], 30)
        assert (done.exit_code, done.stdout, done.stderr) == (3, b"out\n", b"err\n")
        path = transport.push(b"content", "noisy.bin")
        assert transport.pull(path, 100) == b"content"
        transport.close()


def test_a_login_shell_that_runs_nothing_is_named(tmp_path: Path, client: SshClientHome) -> None:
    with running_sshd(tmp_path / "closed", login_shell="/usr/sbin/nologin") as server:
        client.use_key(server.user_key)
        transport = SshTransport(server.address, ACCEPT)
        with pytest.raises(
            StableDeviceError, match="code 1 instead of starting true: This account"
        ):
            transport.run(["true"], 30)
        transport.close()


# -- host keys ---------------------------------------------------------------------------------------


def test_an_unknown_host_is_refused_until_the_user_says_so(
    server: Sshd, client: SshClientHome
) -> None:
    client.known_hosts.write_text("# without an end")
    with pytest.raises(StableDeviceError, match=r"unknown: ssh-ed25519 SHA256:.*--accept-new-host"):
        SshTransport(server.address).run(["true"], 30)
    assert client.known_hosts.read_text() == "# without an end"
    first = SshTransport(server.address, ACCEPT)
    first.run(["true"], 30)
    first.close()
    stored = client.known_hosts.read_text()
    assert stored.split("\n")[1].split() == server.known_hosts_line.split()[:3]
    second = SshTransport(server.address)
    second.run(["true"], 30)
    second.close()
    assert client.known_hosts.read_text() == stored


@pytest.mark.parametrize("options", [ConnectOptions(), ACCEPT])
def test_a_changed_host_key_is_refused_whatever_the_user_says(
    own_server: Sshd, client: SshClientHome, options: ConnectOptions
) -> None:
    client.known_hosts.write_text(own_server.known_hosts_line)
    own_server.stop()
    own_server.start(host_key="other_host_key")
    with pytest.raises(StableDeviceError, match=r"CHANGED.*ssh-keygen -R '\[127.0.0.1\]"):
        SshTransport(own_server.address, options).run(["true"], 30)
    assert client.known_hosts.read_text() == own_server.known_hosts_line


# -- the way -----------------------------------------------------------------------------------------


def test_an_alias_leads_through_several_servers(
    server: Sshd, client: SshClientHome, tmp_path: Path
) -> None:
    with (
        running_sshd(tmp_path / "first") as first,
        running_sshd(tmp_path / "second") as second,
    ):
        client.known_hosts.write_text(
            server.known_hosts_line + first.known_hosts_line + second.known_hosts_line
        )
        client.config.write_text(
            f"Host board\n HostName 127.0.0.1\n Port {server.port}\n User root\n"
            f" ProxyJump root@127.0.0.1:{first.port},hop\n IdentityFile {server.user_key}\n"
            f"Host hop\n HostName 127.0.0.1\n User root\n Port {second.port}\n"
            f" IdentityFile {second.user_key}\n"
        )
        client.use_key(first.user_key)
        transport = SshTransport("//board")
        done = transport.run(["sh", "-c", "echo $HOME $SSH_CONNECTION"], 30)
        assert done.stdout.split()[0] == str(server.home).encode()
        transport.close()
        second.stop()
        with pytest.raises(TransientDeviceError, match="jump host does not reach hop"):
            transport.reconnect(20)


def test_a_proxy_command_is_started_without_a_shell(server: Sshd, client: SshClientHome) -> None:
    code = (
        "import socket, sys, threading\n"
        "far = socket.create_connection((sys.argv[1], int(sys.argv[2])))\n"
        "near = socket.socket(fileno=0)\n"
        "def copy(a, b):\n"
        "    while data := a.recv(65536): b.sendall(data)\n"
        "    b.shutdown(1)\n"
        "threading.Thread(target=copy, args=(far, near), daemon=True).start()\n"
        "copy(near, far)\n"
    )
    script, helper = client.ssh / "through.py", client.ssh / "helper"
    helps = "import os, subprocess, sys\nhelper = subprocess.Popen(['sleep', '300'])\n"
    script.write_text(f"{helps}open({str(helper)!r}, 'w').write(str(helper.pid))\n{code}")
    client.config.write_text(
        f"Host board\n User root\n HostName 127.0.0.1\n Port {server.port}\n"
        f" ProxyCommand {sys.executable} {script} %h %p\n"
    )
    transport = SshTransport("//board")
    assert transport.run(["echo", "through"], 30).stdout == b"through\n"
    pid = int(helper.read_text())
    # At rest or in the middle of passing something on, but alive.
    assert process_state(pid) in list("SRD")
    transport.close()
    # What it started ends with it.
    wait_for_states([pid], "ZX")


def test_refused_and_unknown_addresses_are_named(client: SshClientHome, own_server: Sshd) -> None:
    own_server.stop()
    with pytest.raises(TransientDeviceError, match=r"refuses connections on port.*SSH server"):
        SshTransport(own_server.address).run(["true"], 30)
    with pytest.raises(TransientDeviceError, match=r"no-such-host.invalid is not found"):
        SshTransport("//no-such-host.invalid").run(["true"], 30)


# -- a device that goes away -------------------------------------------------------------------------


def test_a_server_that_dies_under_a_program_is_a_lost_connection(
    own_server: Sshd, client: SshClientHome
) -> None:
    client.use_key(own_server.user_key)
    client.known_hosts.write_text(own_server.known_hosts_line)
    transport = SshTransport(own_server.address)
    process = transport.start(["cat"])
    process.write(b"one", 30)
    assert process.read(3, 30) == b"one"
    own_server.stop()
    with pytest.raises(TransientDeviceError, match=r"connection to 127.0.0.1 is lost"):
        process.read(1, 30)
    assert not process.is_alive()
    process.kill()
    assert not transport.is_alive(5)
    with pytest.raises(TransientDeviceError, match="is lost"):
        transport.start(["cat"])
    with pytest.raises(TransientDeviceError, match="refuses connections"):
        transport.reconnect(5)
    own_server.start()
    transport.reconnect(30)
    assert transport.run(["echo", "again"], 30).stdout == b"again\n"
    transport.close()


def test_a_session_that_is_ended_leaves_the_server_usable(
    own_server: Sshd, client: SshClientHome
) -> None:
    client.use_key(own_server.user_key)
    client.known_hosts.write_text(own_server.known_hosts_line)
    transport = SshTransport(own_server.address)
    process = transport.start(["sleep", "60"])
    send_signal(own_server.descendants(), signal.SIGKILL)
    with pytest.raises(TransientDeviceError, match=r"is lost|killed by a signal"):
        process.read(1, 30)
    transport.reconnect(30)
    assert transport.is_alive(30)
    transport.close()


def test_a_frozen_server_ends_every_call_at_its_limit(
    own_server: Sshd, client: SshClientHome, tmp_path: Path
) -> None:
    client.use_key(own_server.user_key)
    client.known_hosts.write_text(own_server.known_hosts_line)
    transport = SshTransport(own_server.address)
    process = transport.start(["cat"])
    own_server.freeze()
    transport._limits = SHORT
    try:
        with pytest.raises(TransientDeviceError, match="no answer within"):
            process.read(1, 0.2)
        with pytest.raises(TransientDeviceError, match=r"no answer within|is lost"):
            process.write(bytes(64 << 20), 0.2)
        assert not transport.is_alive(0.3)
        with pytest.raises(TransientDeviceError, match="no SSH session begins"):
            transport.reconnect(1.0)
        process.kill()
    finally:
        own_server.thaw()
    transport._limits = None
    transport.reconnect(30)
    assert transport.is_alive(30)
    transport.close()


# -- where nothing can be stored ---------------------------------------------------------------------


def test_a_home_that_cannot_be_written_is_named(server: Sshd, client: SshClientHome) -> None:
    # Root may write everywhere, so the place is one that nobody can write.
    transport = SshTransport(server.address + "?cache=/proc/joulemap")
    with pytest.raises(StableDeviceError, match=r"/proc/joulemap/agents on the device.*\?cache="):
        transport.push(b"content", "name.bin")
    transport.close()


def test_a_read_only_and_a_full_home_are_named(tmp_path: Path, client: SshClientHome) -> None:
    """The server runs where its home is a file system of its own, gone with its processes."""
    inside = Sshd(tmp_path / "small")
    mounted = f"mount -t tmpfs -o size=64k none {inside.home} && exec "
    inside.start(prefix=("unshare", "--mount", "--propagation", "private", "sh", "-c", mounted))
    try:
        client.use_key(inside.user_key)
        transport = SshTransport(inside.address, ACCEPT)
        with pytest.raises(StableDeviceError, match=r"No space left on device.*make room"):
            transport.push(os.urandom(1 << 18), "large.bin")
        # Nothing half-written takes the little room there is.
        listed = transport.run(["ls", str(inside.home / ".cache/joulemap/agents")], 30)
        assert listed.stdout == b""
        path = transport.push(b"content", "small.bin")
        assert path.endswith("small.bin")
        remounted = transport.run(["mount", "-o", "remount,ro", str(inside.home)], 30)
        assert remounted.exit_code == 0
        assert transport.push(b"content", "small.bin") == path
        with pytest.raises(StableDeviceError, match="Read-only file system"):
            transport.push(b"other", "other.bin")
        transport.close()
    finally:
        inside.stop()


def test_paramiko_has_a_silent_place_to_log_to() -> None:
    assert logging.getLogger("paramiko").handlers


def test_settings_are_read_when_it_connects(client: SshClientHome, server: Sshd) -> None:
    hops = ssh_settings.resolve(ssh_settings.SshUrl.parse(server.address))
    assert [hop.port for hop in hops] == [server.port]


def test_a_host_that_an_authority_vouches_for_is_known(
    own_server: Sshd, client: SshClientHome
) -> None:
    folder = own_server.folder
    keygen = shutil.which("ssh-keygen")
    assert keygen is not None
    subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "ca")], check=True)
    public = folder / "host_key.pub"
    authority = (folder / "ca.pub").read_text()

    def certify(names: str) -> None:
        sign = [keygen, "-q", "-s", str(folder / "ca"), "-I", "x", "-h", "-n", names, str(public)]
        subprocess.run(sign, check=True)
        own_server.stop()
        own_server.extra = (f"HostCertificate {folder / 'host_key-cert.pub'}",)
        own_server.start()

    certify("127.0.0.1")
    client.use_key(own_server.user_key)
    client.known_hosts.write_text(f"@cert-authority 127.0.0.* {authority}")
    transport = SshTransport(own_server.address)
    assert transport.run(["echo", "in"], 30).stdout == b"in\n"
    transport.close()
    certify("another")
    with pytest.raises(StableDeviceError, match=r"its certificate is for other names \(another\)"):
        SshTransport(own_server.address).run(["true"], 30)
    # Its key by itself is as good as ever.
    client.known_hosts.write_text(f"@cert-authority * {authority}{own_server.known_hosts_line}")
    transport = SshTransport(own_server.address)
    assert transport.run(["echo", "in"], 30).stdout == b"in\n"
    transport.close()

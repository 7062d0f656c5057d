"""A real OpenSSH server on 127.0.0.1 with throw-away keys, for tests; whoever starts it ends it."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from joulemap.device_agents.onboard.keeper import device_lock

from .processes import ReservedPort, end, halt, send_signal, wait_for_states

SSHD = "/usr/sbin/sshd"
APT_LINE = "apt-get install -y --no-install-recommends openssh-server"


class Sshd:
    """An SSH server and a home folder for who logs in.

    Args:
        folder: For keys, configuration and the far side's home.
        login_shell: Login shell there; the account's own when None.
        environment: What the far side's programs see besides HOME.
        extra: Further lines of sshd_config, which hold before the others.
    """

    def __init__(
        self,
        folder: Path,
        *,
        login_shell: str | None = None,
        environment: dict[str, str] | None = None,
        extra: tuple[str, ...] = (),
    ) -> None:
        if not Path(SSHD).exists() or shutil.which("ssh-keygen") is None:
            pytest.fail(f"{SSHD} is missing; install it with:\n{APT_LINE}", pytrace=False)
        self.folder = folder
        self.home = folder / "home"
        self.login_shell = login_shell
        self.environment = environment or {}
        self.extra = extra
        self._reserved = ReservedPort()
        self.port = self._reserved.number
        self._process: subprocess.Popen[bytes] | None = None
        self.home.mkdir(parents=True, exist_ok=True)
        for name in ("host_key", "other_host_key", "user_key", "stranger_key"):
            self._make_key(name)
        (folder / "authorized_keys").write_bytes((folder / "user_key.pub").read_bytes())

    @property
    def user_key(self) -> Path:
        """The private key that is let in."""
        return self.folder / "user_key"

    @property
    def address(self) -> str:
        """What follows `ssh:` in the server's URL."""
        return f"//root@127.0.0.1:{self.port}"

    @property
    def known_hosts_line(self) -> str:
        """The line of known_hosts that fits."""
        return f"[127.0.0.1]:{self.port} {(self.folder / 'host_key.pub').read_text()}"

    def start(self, host_key: str = "host_key", prefix: tuple[str, ...] = ()) -> None:
        """Start it and return when it takes connections.

        Args:
            host_key: Which of its keys it shows.
            prefix: Command that starts it; a last word that ends in `exec ` is a shell's text.
        """
        # Not made where no systemd is.
        Path("/run/sshd").mkdir(exist_ok=True)
        config = self.folder / "sshd_config"
        variables = " ".join(f'"{name}={text}"' for name, text in self._environment().items())
        lines = [f"SetEnv {variables}"]
        if self.login_shell is not None:
            # Instead of the account's shell, which sees the command only as this variable.
            far_side = self.folder / "far_side"
            far_side.write_text(f'#!/bin/sh\nexec {self.login_shell} -c "$SSH_ORIGINAL_COMMAND"\n')
            far_side.chmod(0o700)
            lines.append(f"ForceCommand {far_side}")
        config.write_text(
            "\n".join(
                [
                    *self.extra,
                    f"Port {self.port}",
                    "ListenAddress 127.0.0.1",
                    f"HostKey {self.folder / host_key}",
                    f"AuthorizedKeysFile {self.folder / 'authorized_keys'}",
                    "StrictModes no",
                    "PasswordAuthentication no",
                    "KbdInteractiveAuthentication no",
                    "UsePAM no",
                    "PermitRootLogin prohibit-password",
                    "PidFile none",
                    "MaxStartups 100",
                    "UseDNS no",
                    "PrintMotd no",
                    *lines,
                    "",
                ]
            )
        )
        with (self.folder / "sshd.log").open("ab") as log:
            command = [SSHD, "-D", "-e", "-f", str(config)]
            if prefix and prefix[-1].endswith("exec "):
                prefix, command = prefix[:-1], [prefix[-1] + shlex.join(command)]
            self._process = subprocess.Popen(
                [*prefix, *command], stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            if time.monotonic() > deadline or self._process.poll() is not None:
                pytest.fail(f"sshd does not start: {(self.folder / 'sshd.log').read_text()}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End the server, its sessions and what they run, at once; keepers go on, as on a device.

        Returns when all of them are gone: a session that the server forks meanwhile still holds the
        socket on which it listens.
        """
        if self._process is None:
            return
        pids = halt(self._all)
        send_signal(pids, signal.SIGKILL)
        self._process.wait()
        self._process = None
        wait_for_states(pids, "ZX")

    def end_agents(self) -> None:
        """End agents and keepers that outlived their sessions; return when all are gone."""
        end(self.agents)

    def freeze(self) -> None:
        """Stop the server and its sessions where they are."""
        halt(self._all)

    def thaw(self) -> None:
        """Let them go on."""
        send_signal(self._all(), signal.SIGCONT)

    def release_port(self) -> None:
        """Let others have the port, when it is not started again."""
        self._reserved.release()

    def descendants(self) -> list[int]:
        """Return the process ids of all sessions and what they run."""
        assert self._process is not None
        children: dict[int, list[int]] = {}
        for folder in Path("/proc").iterdir():
            if folder.name.isdecimal():
                with contextlib.suppress(OSError):
                    fields = (folder / "stat").read_text().rpartition(")")[2].split()
                    children.setdefault(int(fields[1]), []).append(int(folder.name))
        found, open_ids = [], [self._process.pid]
        while open_ids:
            below = children.get(open_ids.pop(), [])
            found += below
            open_ids += below
        return found

    def agents(self) -> list[int]:
        """Return the process ids of agents stored in the far side's home and of their keepers.

        They outlive the sessions that started them, so they are found by their file.
        """
        found = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdecimal():
                with contextlib.suppress(OSError):
                    command = (folder / "cmdline").read_bytes()
                    # A login shell's command line quotes the agent's.
                    is_agent = f"{self.home}/".encode() in command and b".pyz" in command
                    if is_agent and b"/bin/sh" not in command:
                        found.append(int(folder.name))
        return found

    def _all(self) -> list[int]:
        assert self._process is not None
        return [self._process.pid, *self.descendants()]

    def _environment(self) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
        lock = {device_lock.VARIABLE: os.environ[device_lock.VARIABLE]}
        return {"HOME": str(self.home), "PATH": path, **lock, **self.environment}

    def _make_key(self, name: str) -> None:
        path = self.folder / name
        if not path.exists():
            keygen = shutil.which("ssh-keygen") or "ssh-keygen"
            subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)


class SshClientHome:
    """The home folder of who connects: SSH configuration, key and known hosts.

    Args:
        home: The folder, which HOME must name.
        servers: Whose host keys are known, and whose key is the user's (the first's).
    """

    def __init__(self, home: Path, *servers: Sshd) -> None:
        self.ssh = home / ".ssh"
        self.ssh.mkdir(parents=True, exist_ok=True)
        self.known_hosts = self.ssh / "known_hosts"
        self.known_hosts.write_text("".join(server.known_hosts_line for server in servers))
        self.config = self.ssh / "config"
        if servers:
            self.use_key(servers[0].user_key)

    def use_key(self, file: Path) -> None:
        """Make a private key the user's."""
        key = self.ssh / "id_ed25519"
        key.write_bytes(file.read_bytes())
        key.chmod(0o600)


@contextlib.contextmanager
def running_sshd(folder: Path, **settings: object) -> Iterator[Sshd]:
    """Run a server while the block runs."""
    server = Sshd(folder, **settings)  # type: ignore[arg-type]
    server.start()
    try:
        yield server
    finally:
        server.stop()
        server.end_agents()
        server.release_port()

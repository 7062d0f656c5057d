"""An emulated Cortex-A72 board with sshd and adbd, booted once for the tests of this folder."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BOOT_TIMEOUT_S = 240
DISK_BYTES = 256 * 1024 * 1024


class Board:
    """The virtual machine, and what is asked of its monitor.

    Args:
        root: What `make test-roots` made.
        folder: Keeps the board's state over restarts: keys and the home folder.
    """

    def __init__(self, root: Path, folder: Path) -> None:
        self._root = root
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.ssh_port, self.adb_port = free_port(), free_port()
        self.key = folder / "id"
        state = folder / "state"
        (state / "keys").mkdir(parents=True)
        for path in (self.key, state / "keys/host"):
            program("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path))
        shutil.copy(f"{self.key}.pub", state / "authorized_keys")
        # A disk of its own: what the board wrote is there after its plug was pulled.
        with (folder / "disk").open("wb") as disk:
            disk.truncate(DISK_BYTES)
        program("mke2fs", "-q", "-t", "ext4", "-d", str(state), str(folder / "disk"))
        host_key = (state / "keys/host.pub").read_text().split()[:2]
        self.known_hosts = folder / "known_hosts"
        self.known_hosts.write_text(f"[127.0.0.1]:{self.ssh_port} {' '.join(host_key)}\n")

    @property
    def log(self) -> str:
        """What the board's console said last."""
        return (self._folder / "console").read_text(errors="replace")[-2000:]

    def start(self) -> None:
        """Switch it on and wait until both daemons answer."""
        forwards = (
            f"hostfwd=tcp:127.0.0.1:{self.ssh_port}-:22,hostfwd=tcp:127.0.0.1:{self.adb_port}-:5555"
        )
        share = "security_model=none,multidevs=remap"
        with (self._folder / "console").open("ab") as console:
            self._process = subprocess.Popen(
                [
                    *(which("nice"), "-n", "10", which("qemu-system-aarch64")),
                    *("-M", "virt", "-accel", "tcg,thread=multi", "-cpu", "cortex-a72"),
                    *("-smp", "2", "-m", "1024", "-display", "none", "-serial", "stdio"),
                    *("-monitor", "none", "-no-reboot"),
                    *("-kernel", str(self._root / "vmlinuz")),
                    *("-initrd", str(self._root / "initrd.gz")),
                    *("-append", "console=ttyAMA0 quiet panic=1"),
                    *("-netdev", f"user,id=net,restrict=on,{forwards}"),
                    *("-device", "virtio-net-pci,netdev=net,romfile="),
                    *("-virtfs", f"local,path={self._root / 'root'},mount_tag=root,{share}"),
                    *("-drive", f"file={self._folder / 'disk'},format=raw,if=virtio"),
                    *("-qmp", f"unix:{self._folder / 'monitor'},server=on,wait=off"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
            )
        self._wait_for_daemon()

    def ask(self, command: str, **arguments: Any) -> Any:
        """Return the monitor's answer to a command, such as `stop` or `set_link`."""
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(30)
            link.connect(str(self._folder / "monitor"))
            with link.makefile("rw", encoding="utf-8") as lines:
                lines.readline()
                answer: dict[str, Any] = {}
                for name, values in (("qmp_capabilities", {}), (command, arguments)):
                    lines.write(json.dumps({"execute": name, "arguments": values}) + "\n")
                    lines.flush()
                    answer = {}
                    while not answer.keys() & {"return", "error"}:
                        answer = json.loads(lines.readline())
                    assert "error" not in answer, answer
                return answer["return"]

    def cut(self, is_cut: bool) -> None:
        """Draw the network cable, or plug it in again."""
        self.ask("set_link", name="net", up=not is_cut)

    def pull_the_plug(self) -> None:
        """Switch it off without a warning."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _wait_for_daemon(self) -> None:
        deadline = time.monotonic() + BOOT_TIMEOUT_S
        while True:
            assert self._process is not None
            assert self._process.poll() is None, f"the board does not start:\n{self.log}"
            # The emulator itself accepts at once; a greeting comes from the daemon.
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", self.ssh_port), timeout=5) as link,
            ):
                if link.recv(4) == b"SSH-":
                    return
            assert time.monotonic() < deadline, f"the board does not answer:\n{self.log}"
            time.sleep(0.5)


def free_port() -> int:
    """Return a port outside of those where adb looks for emulators."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


def which(name: str) -> str:
    """Return a program's path."""
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    assert found is not None, f"{name} is missing; run: make system-packages"
    return found


def program(name: str, *arguments: str) -> None:
    """Run a program to its end."""
    subprocess.run([which(name), *arguments], check=True, capture_output=True)


@pytest.fixture(scope="session")
def home(roots: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Use a home folder and an adb server of the tests' own."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANDROID_ADB_SERVER_PORT", str(free_port()))
        patch.setenv("HOME", str(folder))
        patch.delenv("XDG_CACHE_HOME", raising=False)
        patch.delenv("ADB_SERVER_SOCKET", raising=False)
        patch.delenv("SSH_AUTH_SOCK", raising=False)
        yield folder
        program("adb", "kill-server")


def root_of(name: str) -> Path:
    """Return a folder that roots.py made; asked before HOME is another."""
    found = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("roots.py")), "path", name],
        capture_output=True,
        text=True,
        check=False,
    )
    if found.returncode:
        pytest.fail(found.stderr.strip(), pytrace=False)
    return Path(found.stdout.strip())


@pytest.fixture(scope="session")
def roots() -> dict[str, Path]:
    """Return the folders of the virtual machines by name."""
    return {name: root_of(name) for name in ("board", "sensors")}


@pytest.fixture(scope="session")
def board(
    roots: dict[str, Path], home: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Board]:
    """Return a running board; the ssh settings in the home folder know it."""
    made = Board(roots["board"], tmp_path_factory.mktemp("board"))
    (home / ".ssh").mkdir(mode=0o700)
    shutil.copy(made.known_hosts, home / ".ssh/known_hosts")
    (home / ".ssh/config").write_text(
        f"Host board\n  HostName 127.0.0.1\n  Port {made.ssh_port}\n  User root\n"
        f"  IdentityFile {made.key}\n"
    )
    try:
        made.start()
        yield made
    finally:
        made.pull_the_plug()

"""A phone's debug daemon in a box: started by the tests as a program of its own.

    unshare -r --net --mount --pid --fork --kill-child python phone.py ROOT LISTENER SOCKETS

Debian's adbd runs in ROOT with a network, processes and mounts of its own, so that it is reached
by nobody else and can spoil nothing. LISTENER is the number of an inherited socket that listens
on this machine: what connects there is passed on to the daemon, as by a cable. Commands come on
standard input, one a line, each answered by its own text: `cut` and `mend` the cable (nothing
passes, nothing closes), `reset` all connections, `kill`, `freeze`, `thaw` and `start` the daemon,
`be-one` and `be-another` phone with nothing on it, as if the address had passed on to it, and
`be-android`: its folders belong to those whom Android gives them to, its daemon is the shell's.
That needs users besides root in the box.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import platform
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

PORT = 5555
STORAGE_BYTES = 48 * 1024 * 1024
AF_VSOCK = 40
SOCKET_CALLS = {"x86_64": 41, "aarch64": 198}
MOUNT = shutil.which("mount") or "mount"
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")


class Cable:
    """Passes bytes between this machine and the daemon, unless it is cut."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._is_whole = threading.Event()
        self._is_whole.set()
        self._links: set[socket.socket] = set()

    def run(self) -> None:
        """Take connections for ever."""
        while True:
            near, _ = self._listener.accept()
            self._is_whole.wait()
            try:
                far = socket.create_connection(("127.0.0.1", PORT))
            except OSError:
                near.close()
                continue
            self._links |= {near, far}
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def cut(self) -> None:
        """Let nothing pass any more."""
        self._is_whole.clear()

    def mend(self) -> None:
        """Let all pass that waits."""
        self._is_whole.set()

    def reset(self) -> None:
        """Break all connections, as a plug that is drawn."""
        for link in list(self._links):
            try:
                link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                link.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(1 << 16):
                self._is_whole.wait()
                sink.sendall(data)
        except OSError:
            pass
        self._is_whole.wait()
        for link in (source, sink):
            self._links.discard(link)
            try:
                link.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue


class Daemon:
    """adbd in its root."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._process: subprocess.Popen[bytes] | None = None
        self.user = 0
        self.environment: dict[str, str] = {}

    def start(self) -> None:
        """Start it and wait until it listens."""
        self._process = subprocess.Popen(
            ["/usr/sbin/adbd"],
            env={
                "ADBD_PORT": str(PORT),
                "HOME": "/root",
                "PATH": "/usr/local/bin:/usr/sbin:/usr/bin",
                **self.environment,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # No thread runs yet, or none that holds a lock which this needs.
            preexec_fn=self._enter,  # noqa: PLW1509
        )
        for _ in range(600):
            try:
                socket.create_connection(("127.0.0.1", PORT)).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        sys.exit("adbd does not listen")

    def kill(self) -> None:
        """End it and all that it started, as a power cut does."""
        # Again, for what was forked meanwhile, and until each of them has let go of everything.
        while others := [pid for pid in _processes() if pid not in (1, os.getpid())]:
            for pid in others:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.002)
        if self._process is not None:
            self._process.wait()

    def signal(self, number: int) -> None:
        """Send it a signal."""
        if self._process is not None:
            self._process.send_signal(number)

    def _enter(self) -> None:
        os.chroot(self._root)
        os.chdir("/")
        forbid_vsock()
        if self.user:
            os.setgroups([])
            os.setgid(self.user)
            os.setuid(self.user)


def _processes() -> list[int]:
    """Return the process ids of all that have not ended, in the order of their beginning."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if (entry / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX":
                    found.append(int(entry.name))
    return sorted(found)


def forbid_vsock() -> None:
    """Let this process open no socket to the hypervisor: no network name space holds those."""

    def line(code: int, when_true: int, when_false: int, value: int) -> bytes:
        return struct.pack("HBBI", code, when_true, when_false, value)

    load, equal, give = 0x20, 0x15, 0x06
    program = b"".join(
        [
            line(load, 0, 0, 0),
            line(equal, 0, 3, SOCKET_CALLS[platform.machine()]),
            line(load, 0, 0, 16),
            line(equal, 0, 1, AF_VSOCK),
            line(give, 0, 0, 0x00050000 | errno.EAFNOSUPPORT),
            line(give, 0, 0, 0x7FFF0000),
        ]
    )
    code = ctypes.create_string_buffer(program)
    header = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.create_string_buffer(header)):
        raise OSError(ctypes.get_errno(), "no seccomp filter")


def mount(*arguments: str) -> None:
    """Mount something, or leave."""
    subprocess.run([MOUNT, *arguments], check=True)


def set_up(root: Path) -> None:
    """Give the root its own devices, processes and memory; nothing of it is written to disk."""
    mount("--rbind", str(root), str(root))
    for folder in ("dev", "run", "tmp", "root"):
        mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", str(root / folder))
    mount("-t", "tmpfs", "-o", f"size={STORAGE_BYTES}", "tmpfs", str(root / "data/local/tmp"))
    mount("-t", "proc", "proc", str(root / "proc"))
    mount("--rbind", "/sys", str(root / "sys"))
    for name in DEVICES:
        (root / "dev" / name).touch()
        mount("--bind", f"/dev/{name}", str(root / "dev" / name))
    (root / "dev/shm").mkdir()
    # The loop back interface is down in a new network.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sH14x", b"lo", 1)
        fcntl.ioctl(control, 0x8914, request)


def become(root: Path, name: str) -> None:
    """Give the root the identity of a phone, and an empty storage."""
    etc = root / "run" / f"etc-{name}"
    if not etc.exists():
        shutil.copytree(root / "etc", etc, symlinks=True)
        (etc / "machine-id").write_text(f"{name:0<32}\n")
    mount("--bind", str(etc), str(root / "etc"))
    mount("-t", "tmpfs", "-o", f"size={STORAGE_BYTES}", "tmpfs", str(root / "data/local/tmp"))


def lay_out_as_android(root: Path) -> None:
    """Give /data an Android's owners and modes; nothing of it is written to disk."""
    mount("-t", "tmpfs", "-o", "mode=0771,uid=1000,gid=1000", "tmpfs", str(root / "data"))
    for name, mode, owner in (("local", 0o751, 0), ("local/tmp", 0o771, 2000)):
        (root / "data" / name).mkdir()
        (root / "data" / name).chmod(mode)
        os.chown(root / "data" / name, owner, owner)


def main() -> None:
    """Serve until standard input ends."""
    root = Path(sys.argv[1])
    listener = socket.socket(fileno=int(sys.argv[2]))
    set_up(root)
    mount("-t", "proc", "proc", "/proc")
    daemon = Daemon(root)
    daemon.start()
    cable = Cable(listener)
    threading.Thread(target=cable.run, daemon=True).start()

    def be(name: str) -> None:
        daemon.kill()
        become(root, name)
        daemon.start()

    def be_android() -> None:
        daemon.kill()
        lay_out_as_android(root)
        daemon.user, daemon.environment = 2000, {"ANDROID_ROOT": "/system", "HOME": "/"}
        daemon.start()

    commands: dict[str, Callable[[], None]] = {
        "be-one": lambda: be("one"),
        "be-another": lambda: be("another"),
        "be-android": be_android,
        "cut": cable.cut,
        "mend": cable.mend,
        "reset": cable.reset,
        "kill": daemon.kill,
        "start": daemon.start,
        "freeze": lambda: daemon.signal(signal.SIGSTOP),
        "thaw": lambda: daemon.signal(signal.SIGCONT),
        "without-python": lambda: mount(
            "--bind", "/dev/null", str(next((root / "usr/bin").glob("python3.*")))
        ),
    }
    print("ready", flush=True)
    buffered = b""
    while select.select([0], [], []) and (data := os.read(0, 4096)):
        *lines, buffered = (buffered + data).split(b"\n")
        for text in lines:
            commands[text.decode()]()
            print(text.decode(), flush=True)
    daemon.kill()


if __name__ == "__main__":
    main()

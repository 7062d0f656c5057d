"""Phones in boxes and an adb server of the tests' own; whoever starts them ends them."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from joulemap.device_agents import DeviceError
from joulemap.device_agents.transports import adb_server

from .processes import ReservedPort

ROOTS = Path(__file__).parents[1] / "board/roots.py"


# Starts a program as root of a name space that knows the other users as well.
WITH_USERS = """
import ctypes, os, sys
(told, tell), (done, do) = os.pipe(), os.pipe()
child = os.fork()
if child:
    os.read(told, 1)
    for name in ("uid_map", "gid_map"):
        with open(f"/proc/{child}/{name}", "w") as file:
            file.write("0 0 65536")
    os.write(do, b".")
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
libc = ctypes.CDLL(None)
assert libc.prctl(1, 9) == libc.unshare(0x10000000) == 0
os.write(tell, b".")
os.read(done, 1)
os.execvp(sys.argv[1], sys.argv[1:])
"""


class Phone:
    """A daemon in a box, and the cable to it (see phone.py).

    Args:
        root: Its root folder.
        has_users: Whether there are others than root in it; needs root here.
        prefix: Command that starts all of it.
    """

    def __init__(self, root: str, *, has_users: bool = False, prefix: tuple[str, ...] = ()) -> None:
        users = [sys.executable, "-c", WITH_USERS, "unshare"] if has_users else ["unshare", "-r"]
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port: int = listener.getsockname()[1]
            self._process = subprocess.Popen(
                [
                    *prefix,
                    *users,
                    *("--net", "--mount", "--pid", "--fork", "--kill-child"),
                    *(sys.executable, str(Path(__file__).with_name("phone.py"))),
                    *(root, str(listener.fileno())),
                ],
                pass_fds=[listener.fileno()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        self._expect("ready")
        self.address = f"127.0.0.1:{self.port}"

    def do(self, command: str) -> None:
        """Let it do something; return when it is done."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n".encode())
        self._process.stdin.flush()
        self._expect(command)

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()

    def _expect(self, text: str) -> None:
        assert self._process.stdout is not None
        answer = self._process.stdout.readline().decode().strip()
        assert answer == text, "the phone in its box does not start"


def adb(*arguments: str) -> None:
    program = shutil.which("adb")
    assert program is not None
    subprocess.run([program, *arguments], check=True, capture_output=True)


def phone_root() -> str:
    """Return the folder that `make test-roots` made; asked before HOME is another."""
    found = subprocess.run(
        [sys.executable, str(ROOTS), "path", "phone"], capture_output=True, text=True, check=False
    )
    if found.returncode:
        pytest.fail(found.stderr.strip(), pytrace=False)
    return f"{found.stdout.strip()}/root"


@contextlib.contextmanager
def own_adb_server(home: Path) -> Iterator[None]:
    """Use an adb server of the tests' own, with a home folder of its own."""
    port = ReservedPort()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANDROID_ADB_SERVER_PORT", str(port.number))
        patch.setenv("HOME", str(home))
        patch.delenv("ADB_SERVER_SOCKET", raising=False)
        patch.delenv("ANDROID_SERIAL", raising=False)
        yield
        adb("kill-server")
    port.release()


@contextlib.contextmanager
def running_phone(
    root: str, *, has_users: bool = False, prefix: tuple[str, ...] = ()
) -> Iterator[Phone]:
    """Run a phone; adb forgets it afterwards."""
    phone = Phone(root, has_users=has_users, prefix=prefix)
    try:
        yield phone
    finally:
        phone.close()
        with contextlib.suppress(DeviceError):  # A test may have let adb forget it already.
            adb_server.query(f"host:disconnect:{phone.address}", 10)

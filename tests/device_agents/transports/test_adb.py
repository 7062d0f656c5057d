"""Phones over adb: Debian's real daemon in a box, and this machine's adb server."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from joulemap import InputError
from joulemap.device_agents import DeviceError, StableDeviceError, TransientDeviceError
from joulemap.device_agents.registry import open_transport
from joulemap.device_agents.testing import Start, TransportContract
from joulemap.device_agents.transports import adb_server, adb_shell
from joulemap.device_agents.transports.adb import AdbTransport, list_adb_devices

from ..adb_phone import Phone, adb, own_adb_server, phone_root, running_phone
from ..processes import ReservedPort

COUNT = """
import time
for number in range(20):
    print("%8d" % number, end="", flush=True)
    time.sleep(0.05)
"""


@pytest.fixture(scope="module")
def root() -> str:
    return phone_root()


@pytest.fixture(scope="module", autouse=True)
def _server(tmp_path_factory: pytest.TempPathFactory, root: str) -> Iterator[None]:
    with own_adb_server(tmp_path_factory.mktemp("home")):
        yield


@pytest.fixture(scope="module")
def shared_phone(root: str) -> Iterator[Phone]:
    with running_phone(root) as phone:
        yield phone


@pytest.fixture
def phone(root: str) -> Iterator[Phone]:
    """Return a phone that the test may break."""
    with running_phone(root) as own:
        yield own


@pytest.fixture
def alone() -> Iterator[None]:
    """Let the adb server know no device."""
    adb("disconnect")
    yield
    adb("disconnect")


class TestAdbTransport(TransportContract):
    @pytest.fixture(autouse=True)
    def _phone(self, shared_phone: Phone) -> None:
        self.address = shared_phone.address

    def make(self) -> AdbTransport:
        return AdbTransport(self.address)

    def test_it_is_remote(self, transport: AdbTransport) -> None:
        assert transport.is_remote

    def test_a_signal_is_named(self, start: Start) -> None:
        process = start("import os; os.kill(os.getpid(), 9)")
        with pytest.raises(TransientDeviceError, match="killed by signal 9"):
            process.read(1, self.timeout_s)

    def test_what_was_pushed_is_nobody_elses(self, transport: AdbTransport) -> None:
        path = transport.push(b"content", "modes.bin")
        folder = path.rpartition("/")[0]
        done = transport.run(["stat", "-c", "%a", path, folder], self.timeout_s)
        assert done.stdout.split() == [b"600", b"700"]
        # Nothing half-written stays beside it.
        listed = transport.run(["ls", folder], self.timeout_s).stdout
        assert b".part" not in listed

    def test_what_does_not_fit_is_refused_and_removed(self, transport: AdbTransport) -> None:
        content = np.random.default_rng(0).bytes(64 * 1024 * 1024)
        with pytest.raises(StableDeviceError, match=r"cannot be written .* No space left"):
            transport.push(content, "large.bin")
        listed = transport.run(["ls", "/data/local/tmp/joulemap/agents"], self.timeout_s).stdout
        assert b"large.bin" not in listed
        assert transport.push(content[: 16 * 1024 * 1024], "large.bin").endswith("large.bin")
        transport.run(["rm", "/data/local/tmp/joulemap/agents/large.bin"], self.timeout_s)

    def test_names_stay_in_the_folder(self, transport: AdbTransport) -> None:
        for name in ("../up", "a/b", "", ".hidden", "a b"):
            with pytest.raises(StableDeviceError, match="cannot be the name"):
                transport.push(b"content", name)

    def test_a_program_that_ignores_the_hang_up_is_killed(
        self, transport: AdbTransport, start: Start
    ) -> None:
        process = start(
            "import os, signal, time; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
            "print('%9d' % os.getpid(), flush=True); time.sleep(60)"
        )
        pid = int(process.read(10, self.timeout_s))
        process.kill()
        deadline = time.monotonic() + self.timeout_s
        # It is there until the daemon has learnt how it ended.
        while transport.run(["kill", "-0", str(pid)], self.timeout_s).exit_code == 0:
            assert time.monotonic() < deadline, "the program outlives kill()"

    def test_it_is_listed(self, transport: AdbTransport) -> None:
        assert transport.is_alive()
        listed = {device.serial: device.state for device in list_adb_devices()}
        assert listed[self.address] == "device"


# -- faults ----------------------------------------------------------------------------------------


def test_a_device_that_dies_during_a_command_is_no_success(phone: Phone) -> None:
    transport = AdbTransport(phone.address)
    process = transport.start([transport.python(), "-u", "-c", "print(1); input()"])
    assert process.read(2, 30) == b"1\n"
    short: list[Exception] = []

    def run() -> None:
        try:
            transport.run(["sleep", "60"], 50)
        except DeviceError as error:
            short.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    phone.do("kill")
    thread.join()
    assert [type(error) for error in short] == [TransientDeviceError]
    with pytest.raises(TransientDeviceError, match="out of reach"):
        process.read(1, 30)
    assert not process.is_alive()
    assert not transport.is_alive(1)


def test_a_device_that_was_started_again_is_reached_anew(phone: Phone) -> None:
    transport = AdbTransport(phone.address)
    assert transport.is_alive()
    phone.do("kill")
    with pytest.raises(TransientDeviceError, match=r"offline|connect|no answer"):
        transport.reconnect(2)
    assert not AdbTransport(phone.address).is_alive(1)
    phone.do("start")
    transport.reconnect(30)
    assert transport.is_alive()


def test_a_cable_that_is_cut_for_a_while_loses_nothing(phone: Phone) -> None:
    transport = AdbTransport(phone.address)
    process = transport.start([transport.python(), "-c", COUNT])
    assert process.read(8, 30) == b"%8d" % 0
    phone.do("cut")
    assert not transport.is_alive(0.5)
    time.sleep(1)
    phone.do("mend")
    assert process.read(19 * 8, 30) == b"".join(b"%8d" % number for number in range(1, 20))
    with pytest.raises(TransientDeviceError, match="code 0"):
        process.read(1, 30)


def test_nothing_hangs_while_the_device_is_silent(phone: Phone) -> None:
    transport = AdbTransport(phone.address)
    process = transport.start(["cat"])
    phone.do("cut")
    calls: list[Callable[[], object]] = [
        lambda: process.read(1, 0.3),
        lambda: process.write(bytes(32 << 20), 0.3),
        lambda: transport.run(["true"], 0.3),
        lambda: transport.reconnect(2),
    ]
    began = time.monotonic()
    for call in calls:
        with pytest.raises(TransientDeviceError):
            call()
    process.kill()
    assert time.monotonic() - began < 60
    phone.do("mend")
    transport.reconnect(30)
    assert transport.is_alive()


def test_a_plug_that_is_drawn_ends_what_runs(phone: Phone) -> None:
    transport = AdbTransport(phone.address)
    process = transport.start(["cat"])
    phone.do("reset")
    with pytest.raises(TransientDeviceError, match="out of reach"):
        process.read(1, 30)
    transport.reconnect(30)
    assert transport.is_alive()


def test_a_wedged_daemon_is_no_answer(phone: Phone) -> None:
    transport = AdbTransport(phone.address)
    assert transport.is_alive()
    phone.do("freeze")
    assert not transport.is_alive(0.5)
    phone.do("thaw")
    transport.reconnect(30)
    assert transport.is_alive()


def test_a_phone_without_python_says_what_to_do(phone: Phone) -> None:
    phone.do("without-python")
    with pytest.raises(StableDeviceError, match=r"no Python 3.9 or newer .* Termux, .* ssh://"):
        AdbTransport(phone.address).python()


def test_an_old_python_is_named_with_its_version(phone: Phone) -> None:
    transport = AdbTransport(phone.address)
    old = transport.push(b"#!/bin/sh\necho '3.8 /usr/bin/python3.8'\n", "python3.8")
    transport.run(["chmod", "700", old], 10)
    with pytest.raises(StableDeviceError, match=rf"no Python 3.9 or newer .*{old} is 3\.8\)"):
        AdbTransport(f"{phone.address}?python={old}").python()


def test_the_url_may_name_the_python(phone: Phone) -> None:
    assert AdbTransport(f"{phone.address}?python=/usr/bin/python3.13").python()
    with pytest.raises(StableDeviceError, match="looked for /opt/none"):
        AdbTransport(f"{phone.address}?python=/opt/none").python()


# -- which device ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("alone")
def test_the_only_device_needs_no_name(phone: Phone) -> None:
    with pytest.raises(StableDeviceError, match="adb knows no device: switch on USB debugging"):
        AdbTransport().run(["true"], 10)
    assert AdbTransport(phone.address).is_alive()
    assert AdbTransport().run(["echo", "here"], 10).stdout == b"here\n"
    # A second way to the same one is a second device to adb.
    assert AdbTransport(f"localhost:{phone.port}").is_alive()
    names = f"adb:127.0.0.1:{phone.port} .device., adb:localhost:{phone.port} .device."
    with pytest.raises(StableDeviceError, match=f"adb knows 2 devices; name one: {names}"):
        AdbTransport().run(["true"], 10)


@pytest.mark.usefixtures("alone")
def test_the_only_device_stays_the_one_whatever_is_plugged_in_later(phone: Phone) -> None:
    assert AdbTransport(phone.address).is_alive()
    transport = AdbTransport()
    assert transport.is_alive()
    # To adb this is another device, which takes the first one's place.
    other = f"localhost:{phone.port}"
    assert AdbTransport(other).is_alive()
    adb_server.query(f"host:disconnect:{phone.address}", 10)
    assert [device.serial for device in list_adb_devices()] == [other]
    transport.reconnect(20)
    assert transport.is_alive()
    assert {device.serial for device in list_adb_devices()} == {phone.address, other}


@pytest.mark.parametrize("port", ["99999", "²", "adb"])
def test_a_servers_port_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch, port: str) -> None:
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", port)
    with pytest.raises(StableDeviceError, match="is no port"):
        list_adb_devices()


def test_a_serial_that_adb_does_not_know_is_named() -> None:
    with pytest.raises(TransientDeviceError, match="no device 'R58M123'"):
        AdbTransport("R58M123").run(["true"], 10)


def test_an_address_where_nothing_listens_is_named() -> None:
    port = ReservedPort()
    address = f"127.0.0.1:{port.number}"
    with pytest.raises(TransientDeviceError, match=f"cannot connect to {address}"):
        AdbTransport(address).run(["true"], 10)


@pytest.mark.parametrize(
    "address",
    ["a b", "//serial", "-s", "a\nb", "x" * 300, "s?device=gpu", "s?python=", "s?python=$(id)"],
)
def test_what_cannot_be_a_serial_is_refused(address: str) -> None:
    with pytest.raises(InputError, match="write adb:SERIAL"):
        open_transport(f"adb:{address}")


# -- devices that cannot be used: a stub that speaks the first bytes of the daemon's protocol ------


@contextlib.contextmanager
def stub_daemon(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """Listen as a daemon; yield the address."""
    links: list[socket.socket] = []

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                link, _ = listener.accept()
                links.append(link)
                take_message(link)
                answer(link)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        try:
            yield address
        finally:
            adb_server.query(f"host:disconnect:{address}", 10)
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for link in links:
                link.close()


def take_message(link: socket.socket) -> tuple[bytes, int]:
    """Return the command and the first argument of a message; its data are dropped."""
    with link.makefile("rb", buffering=0) as file:
        head = b""
        while len(head) < 24:
            head += file.read(24 - len(head)) or head[:0]
            if not head:
                return b"", 0
        command, first, _, size = struct.unpack("<4I", head[:16])
        while size and (part := file.read(size)):
            size -= len(part)
    return int(command).to_bytes(4, "little"), first


def message(command: bytes, first: int, second: int, data: bytes) -> bytes:
    number = int.from_bytes(command, "little")
    return struct.pack(
        "<6I", number, first, second, len(data), sum(data), number ^ 0xFFFFFFFF
    ) + bytes(data)


def test_a_phone_that_does_not_trust_this_computer_says_what_to_do() -> None:
    def ask(link: socket.socket) -> None:
        # Every signature is refused: the question on the screen stays unanswered.
        link.sendall(message(b"AUTH", 1, 0, os.urandom(20)))
        while take_message(link) == (b"AUTH", 2):
            link.sendall(message(b"AUTH", 1, 0, os.urandom(20)))

    with stub_daemon(ask) as address, pytest.raises(StableDeviceError, match="accept the question"):
        AdbTransport(address).run(["true"], 10)


def test_a_device_older_than_android_7_is_refused() -> None:
    def greet(link: socket.socket) -> None:
        banner = b"device::ro.product.model=Old;features=cmd"
        link.sendall(message(b"CNXN", 0x01000000, 4096, banner))

    with stub_daemon(greet) as address:
        with pytest.raises(StableDeviceError, match="older than Android 7"):
            AdbTransport(address).run(["true"], 10)
        (listed,) = [item for item in list_adb_devices() if item.serial == address]
        assert listed.model == "Old"


# -- an adb server that is missing, or is none -----------------------------------------------------


def test_a_missing_adb_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    port = ReservedPort()
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(port.number))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "adbutils", None)
    with pytest.raises(StableDeviceError, match="there is no program 'adb'; install it"):
        list_adb_devices()


def test_an_adb_that_fails_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    port = ReservedPort()
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(port.number))
    program = tmp_path / "adb"
    program.write_text("#!/bin/sh\necho 'cannot bind: taken' >&2; exit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(StableDeviceError, match="start-server' failed: cannot bind: taken"):
        list_adb_devices()


@contextlib.contextmanager
def stub_server(patch: pytest.MonkeyPatch, answers: bytes) -> Iterator[None]:
    """Listen as an adb server that says these bytes to everybody, then nothing."""
    links: list[socket.socket] = []

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                link, _ = listener.accept()
                links.append(link)
                link.sendall(answers)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        patch.setenv("ADB_SERVER_SOCKET", f"tcp:127.0.0.1:{listener.getsockname()[1]}")
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for link in links:
                link.close()


LISTED = b"""ABC                    no permissions (user in plugdev group; are your udev rules wrong?); see [http://x] usb:1-1 transport_id:1
DEF                    bootloader usb:1-2 transport_id:2
GHI:1                  device product:p model:Pixel_6 device:d transport_id:3
JKL                    offline usb:1-3 transport_id:4
"""


def test_states_are_read_from_the_servers_list(monkeypatch: pytest.MonkeyPatch) -> None:
    with stub_server(monkeypatch, b"OKAY%04x%s" % (len(LISTED), LISTED)):
        assert list_adb_devices() == [
            ("ABC", "no permissions", ""),
            ("DEF", "bootloader", ""),
            ("GHI:1", "device", "Pixel 6"),
            ("JKL", "offline", ""),
        ]
        with pytest.raises(StableDeviceError, match="udev rules"):
            AdbTransport("ABC").run(["true"], 10)
        with pytest.raises(StableDeviceError, match="start its system"):
            AdbTransport("DEF").run(["true"], 10)
        with pytest.raises(TransientDeviceError, match=r"'offline': .* or run: adb reconnect"):
            AdbTransport("JKL").run(["true"], 10)


SILENT = "no answer within"
# For what never comes, and for what comes as soon as this machine goes on.
LITTLE_S, ENOUGH_S = 0.3, 30.0


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n", "which is no adb"),
        (b"OKAYzzzz", "which is no adb"),
        (b"FAIL000cunauthorized", "adb: unauthorized"),
        (b"OKAY", "no answer within"),
        (b"OKAY0100few", "no answer within"),
    ],
)
def test_a_server_that_is_none_is_an_error(
    monkeypatch: pytest.MonkeyPatch, answer: bytes, problem: str
) -> None:
    with stub_server(monkeypatch, answer), pytest.raises(DeviceError, match=problem):
        list_adb_devices(LITTLE_S if problem == SILENT else ENOUGH_S)


@pytest.mark.parametrize(
    ("packets", "problem"),
    [
        (b"\x09\xff\xff\xff\xff", "garbage .packet 9"),
        (b"\x01\xff\xff\xff\xffshort", "no answer within"),
        (b"\x02\x05\0\0\0wrong\x03\x01\0\0\0\x07", "code 7: wrong"),
        (b"\x03\0\0\0\0\x03\x04\0\0\0\x07\x08\x09\x0a", "code 7"),
    ],
)
def test_hostile_packets_are_an_error(
    monkeypatch: pytest.MonkeyPatch, packets: bytes, problem: str
) -> None:
    with (
        stub_server(monkeypatch, packets),
        socket.create_connection(
            ("127.0.0.1", int(os.environ["ADB_SERVER_SOCKET"].rpartition(":")[2]))
        ) as link,
    ):
        process = adb_shell.AdbProcess(link, lambda pid: None)
        with pytest.raises(TransientDeviceError, match=problem):
            process.read(100, LITTLE_S if problem == SILENT else ENOUGH_S)

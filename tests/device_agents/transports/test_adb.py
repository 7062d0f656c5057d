"""Phones over adb: Debian's real daemon in a box, and this machine's adb server."""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
import socketserver
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
        with pytest.raises(StableDeviceError, match=r"cannot be stored in .* No space left"):
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
    [
        *(" a", "a ", "a%20", "//serial", "-s", "%2ds", "a\nb", "a%0ab", "x" * 300),
        *("s?device=gpu", "s?python=", "s?python=$(id)", "s?cache=here", "s?python=a&python=b"),
    ],
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
        assert [tuple(device) for device in list_adb_devices()] == [
            ("ABC", "no permissions", "", "usb:1-1", "1"),
            ("DEF", "bootloader", "", "usb:1-2", "2"),
            ("GHI:1", "device", "Pixel 6", "", "3"),
            ("JKL", "offline", "", "usb:1-3", "4"),
        ]
        with pytest.raises(StableDeviceError, match="udev rules"):
            AdbTransport("ABC").run(["true"], 10)
        with pytest.raises(StableDeviceError, match="start its system"):
            AdbTransport("DEF").run(["true"], 10)
        with pytest.raises(TransientDeviceError, match=r"'offline': .* or run: adb reconnect"):
            AdbTransport("JKL").run(["true"], 10)


WIRELESS = "adb-4c75aaaa-lL2hBB (2)._adb-tls-connect._tcp"
TWINS = """\
0123456789ABCDEF       device usb:3-3 product:p model:board_x device:d transport_id:1
0123456789ABCDEF       offline usb:3-4 product:p model:board_x device:d transport_id:2
0123456789ABCDEF       device transport_id:7
(no serial number)     no permissions (missing udev rules?); see [http://x] usb:3-5 transport_id:8
"""


def test_a_serial_may_hold_spaces_and_states_several_words(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        f"{WIRELESS} device product:PJE110 model:PJE110 device:OP5D2BL1 transport_id:3\n"
        f"a b                    no permissions (user in plugdev group); see [http://x] usb:1-1\n"
        "device                 device\n"
        "x (1)                  newstate transport_id:9\n"
        "\x1b[2Jevil            device\n\n   \n"
    ).encode()
    with stub_server(monkeypatch, b"OKAY%04x%s" % (len(text), text)):
        found = list_adb_devices()
    assert [(device.serial, device.state) for device in found] == [
        (WIRELESS, "device"),
        ("a b", "no permissions"),
        ("device", "device"),
        ("x (1)", "newstate"),
        ("[2Jevil", "device"),
    ]


SERIALS = st.text(
    st.characters(codec="utf-8", categories=["L", "N", "P", "S"]), min_size=1, max_size=30
).filter(lambda text: ":" not in text and text.isprintable())


@given(
    st.lists(
        st.tuples(
            st.lists(SERIALS, min_size=1, max_size=3).map(" ".join),
            st.sampled_from(["device", "offline", "unauthorized", "recovery", "authorizing"]),
            st.sampled_from(["", "usb:1-2", "usb:3-1.4.2", "usb:337641472X"]),
            st.sampled_from(["", "Pixel_6", "SM-G973F"]),
            st.integers(0, 10**6),
        ),
        max_size=5,
    )
)
def test_what_adb_lists_is_read_as_it_was(
    devices: list[tuple[str, str, str, str, int]],
) -> None:
    lines = [
        # As adb's append_transport writes it.
        f"{serial:<22} {state}{path and ' ' + path}{model and f' product:p model:{model} device:d'}"
        f" transport_id:{number}"
        for serial, state, path, model, number in devices
    ]
    found = [adb_server._device_of(line) for line in lines]
    assert [tuple(device) for device in found if device is not None] == [
        (serial, state, model.replace("_", " "), path, str(number))
        for serial, state, path, model, number in devices
    ]
    names = adb_server.names_of([device for device in found if device is not None])
    unlike = {name for name in names if names.count(name) == 1}
    for name in unlike:
        # A shell takes the URL as it is, and it names the device.
        url = adb_server.url_of(name)
        assert shlex.split(url) == [url]
        if not name.startswith("-") and "/" not in name:
            assert AdbTransport(url.removeprefix("adb:"))._address == name


class AnsweringServer(socketserver.ThreadingTCPServer):
    """An adb server with a list of its own; whatever is started on a device ends with code 0."""

    daemon_threads = True
    listed = b""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            link: socket.socket = self.request
            server = self.server
            assert isinstance(server, AnsweringServer)
            while head := link.recv(4):
                asked = link.recv(int(head, 16)).decode()
                server.asked.append(asked)
                if asked == "host:devices-l":
                    link.sendall(b"OKAY%04x%s" % (len(server.listed), server.listed))
                elif asked.endswith(":features"):
                    link.sendall(b"OKAY0008shell_v2")
                elif asked.startswith("shell,"):
                    said = b"\x01\x06\0\0\0alive\n" if "echo alive" in asked else b""
                    link.sendall(b"OKAY" + said + b"\x03\x01\0\0\0\0")
                else:
                    link.sendall(b"OKAY")

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), self.Handler)
        self.asked: list[str] = []


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Iterator[AnsweringServer]:
    with AnsweringServer() as server:
        monkeypatch.setenv("ADB_SERVER_SOCKET", f"tcp:127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("address", "way"),
    [
        ("usb:3-3", "transport:usb:3-3"),
        ("transport:7", "transport-id:7"),
        ("transport_id:1", "transport-id:1"),
    ],
)
def test_devices_of_one_serial_are_told_apart(
    answering: AnsweringServer, address: str, way: str
) -> None:
    answering.listed = TWINS.encode()
    transport = AdbTransport(address)
    assert transport.run(["true"], 10).exit_code == 0
    by_id = address.replace("_id", "").split(":")
    features = (
        f"host-transport-id:{by_id[1]}" if by_id[0] == "transport" else f"host-serial:{address}"
    )
    assert answering.asked == [
        "host:devices-l",
        f"{features}:features",
        f"host:{way}",
        "shell,v2,raw:exec true",
    ]
    transport.reconnect(5)
    assert transport.is_alive()


def test_a_serial_of_several_devices_is_refused_with_urls_that_work(
    answering: AnsweringServer,
) -> None:
    answering.listed = TWINS.encode()
    with pytest.raises(
        StableDeviceError,
        match=r"3 devices of the serial '0123456789ABCDEF'.*: adb:usb:3-3 \(device\), adb:usb:3-4 "
        r"\(offline\), adb:transport:7 \(device\)",
    ):
        AdbTransport("0123456789ABCDEF").python()
    with pytest.raises(StableDeviceError, match=r"name one: adb:usb:3-3 .*, adb:usb:3-5"):
        AdbTransport().run(["true"], 10)
    with pytest.raises(StableDeviceError, match="udev rules"):
        AdbTransport("usb:3-5").run(["true"], 10)
    with pytest.raises(TransientDeviceError, match="no device 'usb:9-9'"):
        AdbTransport("usb:9-9").run(["true"], 10)


@pytest.mark.parametrize(
    "written", [WIRELESS, "adb-4c75aaaa-lL2hBB%20%282%29._adb-tls-connect._tcp"]
)
def test_a_wireless_name_is_asked_for_as_it_is(answering: AnsweringServer, written: str) -> None:
    answering.listed = f"{WIRELESS} device transport_id:3\n".encode()
    assert AdbTransport(written).run(["true"], 10).exit_code == 0
    assert f"host:transport:{WIRELESS}" in answering.asked
    only = AdbTransport()
    assert only.is_alive()
    assert only._address == WIRELESS


def test_a_real_server_takes_its_number_for_a_device(phone: Phone) -> None:
    assert AdbTransport(phone.address).is_alive()
    (number,) = [d.transport_id for d in list_adb_devices() if d.serial == phone.address]
    assert AdbTransport(f"transport:{number}").run(["echo", "in"], 10).stdout == b"in\n"


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

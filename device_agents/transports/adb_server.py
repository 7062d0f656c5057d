"""The platform's adb server: a program on this machine that holds the links to all phones.

It is spoken to in its own protocol, over a socket per request. That needs nothing but the server:
no program per command, time limits that hold at every byte, and the device's own report of how a
command ended, which `adb shell` turns into a success when the device dies in between.
"""

from __future__ import annotations

import importlib
import os
import re
import shutil
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import quote

from ..errors import StableDeviceError, TransientDeviceError

START_TIMEOUT_S = 20.0
_MAX_TEXT = 1 << 20
_GET_ADB = (
    "install it (Debian: apt install adb; or: pip install 'joulemap[adb]', which brings one) "
    "or put it on PATH"
)
# What adb calls a device's state -> whether it may pass by itself, and what to do.
_STATES = {
    "unauthorized": (
        False,
        (
            "it has not allowed this computer to debug it; unlock its screen, accept the question "
            "'Allow USB debugging?' and run the same command again"
        ),
    ),
    "authorizing": (True, "it is just being asked whether it allows this computer; try again"),
    "connecting": (True, "it is just being connected; try again"),
    "offline": (
        True,
        (
            "the adb server sees it but it does not answer; wait until it has started, plug it in "
            "again, or run: adb reconnect"
        ),
    ),
    "no permissions": (
        False,
        (
            "this user may not open its USB port; install the udev rules (Debian: apt install "
            "android-sdk-platform-tools-common) and plug it in again"
        ),
    ),
    "bootloader": (False, "it is in its boot loader; start its system"),
    "recovery": (False, "it is in recovery mode; start its system"),
    "rescue": (False, "it is in rescue mode; start its system"),
    "sideload": (False, "it is in sideload mode; start its system"),
    "host": (False, "it is a host, not a device"),
}
# The serial is what stands before a state: a known one, else one word.
_WITH_STATE = re.compile(
    r"(?P<serial>\S.*?)\s+(?P<state>no permissions\b.*|device|"
    + "|".join(sorted(set(_STATES) - {"no permissions"}))
    + r"|\S+)\Z"
)


class SilentError(TransientDeviceError):
    """A time limit passed; whatever was asked may still happen."""


class AdbDevice(NamedTuple):
    """A device that the adb server knows.

    Attributes:
        serial: Its name for adb: a USB serial, HOST:PORT, or the name of a wireless debugging
            service, which may hold spaces.
        state: `device` when it can be used; else such as `offline`, `unauthorized`.
        model: Its model, empty while unknown.
        usb_path: Where it is plugged in, such as `usb:1-2`; empty when it is not known.
        transport_id: The server's number for this connection; empty when it is not known.
    """

    serial: str
    state: str
    model: str
    usb_path: str = ""
    transport_id: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """All that it may be called, the one that lasts longest first."""
        by_id = [f"transport:{self.transport_id}"] if self.transport_id else []
        serial = [] if self.serial == _NO_SERIAL else [self.serial]
        return (*serial, *([self.usb_path] if self.usb_path else []), *by_id)


# A line of the server's list from its end on: what is known of a device after its state.
_DETAILS = re.compile(
    r"(?: +(?P<path>usb:\S+|\d+-\d\S*))?(?: +product:(?P<product>\S*))?"
    r"(?: +model:(?P<model>\S*))?(?: +device:(?P<device>\S*))?"
    r"(?: +transport_id:(?P<id>\d{1,20}))?\Z"
)
_NO_SERIAL = "(no serial number)"


def list_adb_devices(timeout_s: float = 10.0) -> list[AdbDevice]:
    """Return the devices that the adb server knows, in its order; starts the server if need be.

    Raises:
        StableDeviceError: There is no adb on this machine.
        TransientDeviceError: The server does not answer within the time limit.
    """
    lines = query("host:devices-l", timeout_s).splitlines()
    return [device for line in lines if (device := _device_of(line)) is not None]


def names_of(devices: Sequence[AdbDevice]) -> list[str]:
    """Return what each device is called so that no other one is meant.

    That is its serial; of several with one serial the place where each is plugged in, or else the
    server's number, which lasts as long as the connection.
    """
    counts = Counter(name for device in devices for name in device.names)
    return [
        next((name for name in device.names if counts[name] == 1), device.serial)
        for device in devices
    ]


def url_of(name: str) -> str:
    """Return the URL of a device of that name, which a shell takes without quotes."""
    return f"adb:{quote(name, safe=':@,+=')}"


def _device_of(line: str) -> AdbDevice | None:
    """Return the device of a line of the server's list, None if it lists none.

    The serial may hold spaces, and so may the state; what stands between and after them is known.
    """
    # To be read and not to be shown: a serial stays what it is.
    text = "".join(each if each.isprintable() else " " for each in line).strip()
    details = _DETAILS.search(text)
    if not text or details is None:
        return None
    head = text[: details.start()].rstrip()
    found = _WITH_STATE.match(head)
    if found is None:
        return None
    state = "no permissions" if found["state"].startswith("no permissions") else found["state"]
    model = (details["model"] or "").replace("_", " ")
    path = details["path"] or ""
    return AdbDevice(found["serial"].rstrip(), state, model, path, details["id"] or "")


def check_state(device: AdbDevice) -> None:
    """Do nothing when a device can be used.

    Raises:
        StableDeviceError: Somebody has to do something at the device; the message says what.
        TransientDeviceError: It may become usable by itself.
    """
    if device.state == "device":
        return
    may_pass, what = _STATES.get(
        device.state, (True, "joulemap does not know this state; look at: adb devices")
    )
    kind = TransientDeviceError if may_pass else StableDeviceError
    raise kind(f"adb device '{device.serial}' is in state '{device.state}': {what}")


def query(request: str, timeout_s: float) -> str:
    """Return the server's answer to a request that has one.

    Raises:
        StableDeviceError: There is no adb on this machine, or the server refuses.
        TransientDeviceError: The server does not answer within the time limit.
    """
    deadline = time.monotonic() + timeout_s
    with connect(timeout_s) as link:
        send_request(link, request, deadline, timeout_s)
        length = _hexadecimal(receive(link, 4, deadline, timeout_s))
        return receive(link, length, deadline, timeout_s).decode(errors="replace")


def query_device(name: str, request: str, timeout_s: float) -> str:
    """Return the server's answer to a request about a device, such as `features`.

    Raises:
        StableDeviceError: The server refuses.
        TransientDeviceError: The device is gone, or the server is silent for too long.
    """
    kind, _, number = name.partition(":")
    prefix = f"host-transport-id:{number}" if kind == "transport" else f"host-serial:{name}"
    return query(f"{prefix}:{request}", timeout_s)


def open_service(name: str, service: str, timeout_s: float) -> socket.socket:
    """Return a socket to a service of a device, such as `shell,v2,raw:COMMAND`.

    Args:
        name: The device's, one of `AdbDevice.names`.
        service: What is wanted.
        timeout_s: Limit.

    Raises:
        StableDeviceError: The device refuses it.
        TransientDeviceError: The device is gone, or silent for too long.
    """
    deadline = time.monotonic() + timeout_s
    link = connect(timeout_s)
    try:
        kind, _, number = name.partition(":")
        way = f"transport-id:{number}" if kind == "transport" else f"transport:{name}"
        send_request(link, f"host:{way}", deadline, timeout_s)
        send_request(link, service, deadline, timeout_s)
    except BaseException:
        link.close()
        raise
    return link


def connect(timeout_s: float) -> socket.socket:
    """Return a socket to the adb server, which is started when nothing listens there."""
    try:
        return _connect_once(timeout_s)
    except (ConnectionRefusedError, FileNotFoundError):
        _start_server()
    except OSError as error:
        raise TransientDeviceError(f"the adb server cannot be reached: {error}") from error
    try:
        return _connect_once(timeout_s)
    except OSError as error:
        raise TransientDeviceError(
            f"the adb server was started but cannot be reached: {error}"
        ) from error


def send_request(link: socket.socket, request: str, deadline: float, timeout_s: float) -> None:
    """Send one request and take the server's OKAY.

    Raises:
        StableDeviceError: The server says that it cannot.
        TransientDeviceError: The device is gone, or the time limit passed.
    """
    content = request.encode()
    if len(content) > 0xFFFF:
        raise StableDeviceError(f"a command of {len(content)} bytes is too long for adb")
    send(link, f"{len(content):04x}".encode() + content, deadline, timeout_s)
    status = receive(link, 4, deadline, timeout_s)
    if status == b"OKAY":
        return
    if status != b"FAIL":
        raise TransientDeviceError(f"the adb server answered {status!r}, which is no adb")
    length = _hexadecimal(receive(link, 4, deadline, timeout_s))
    reason = receive(link, length, deadline, timeout_s).decode(errors="replace").strip()
    first = reason.splitlines()[0] if reason else "no reason given"
    # The link to the device breaks and comes back; everything else needs somebody.
    may_pass = re.search(r"offline|not found|closed|still|connecting|no devices", first)
    raise (TransientDeviceError if may_pass else StableDeviceError)(f"adb: {first[:300]}")


def send(link: socket.socket, data: bytes, deadline: float, timeout_s: float) -> None:
    """Send all bytes before the deadline."""
    try:
        link.settimeout(_remaining(deadline))
        link.sendall(data)
    except TimeoutError as error:
        raise SilentError(f"adb gave no answer within {timeout_s:.1f} s") from error
    except OSError as error:
        raise TransientDeviceError(f"the link to the adb server broke: {error}") from error


def receive(link: socket.socket, length: int, deadline: float, timeout_s: float) -> bytes:
    """Return exactly so many bytes before the deadline."""
    if length > _MAX_TEXT:
        raise TransientDeviceError(f"the adb server announced {length} bytes, which is no adb")
    parts: list[bytes] = []
    while length:
        try:
            link.settimeout(_remaining(deadline))
            part = link.recv(length)
        except TimeoutError as error:
            raise SilentError(f"adb gave no answer within {timeout_s:.1f} s") from error
        except OSError as error:
            raise TransientDeviceError(f"the link to the adb server broke: {error}") from error
        if not part:
            raise TransientDeviceError("adb closed the connection: the device is gone")
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


def _connect_once(timeout_s: float) -> socket.socket:
    where = os.environ.get("ADB_SERVER_SOCKET", "")
    if where.startswith("localfilesystem:"):
        link = socket.socket(socket.AF_UNIX)
        try:
            link.settimeout(timeout_s)
            link.connect(where.partition(":")[2])
        except OSError:
            link.close()
            raise
        return link
    host = os.environ.get("ANDROID_ADB_SERVER_ADDRESS", "127.0.0.1")
    port = os.environ.get("ANDROID_ADB_SERVER_PORT", "5037")
    if where.startswith("tcp:"):
        named, _, port = where.partition(":")[2].rpartition(":")
        host = named or host
    if not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65535:
        raise StableDeviceError(f"the adb server's port '{port}' in the environment is no port")
    return socket.create_connection((host, int(port)), timeout=timeout_s)


def _start_server() -> None:
    program = _adb_program()
    try:
        done = subprocess.run(
            [program, "start-server"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=START_TIMEOUT_S,
            check=False,
            # The server stays; Ctrl-C in this terminal is not meant for it.
            start_new_session=True,
        )
    except OSError as error:
        raise StableDeviceError(f"{program} cannot be started: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise TransientDeviceError(
            f"'{program} start-server' did not end within {START_TIMEOUT_S:.0f} s"
        ) from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise StableDeviceError(
            f"'{program} start-server' failed: {said[-1][:300] if said else 'it says nothing'}"
        )


def _adb_program() -> str:
    """Return the path of adb: the one on PATH, else the one that adbutils brings."""
    found = shutil.which("adb")
    if found is None:
        try:
            found = str(importlib.import_module("adbutils").adb_path())
        except (ImportError, OSError, RuntimeError):
            found = None
    if found is None:
        raise StableDeviceError(f"no adb server runs and there is no program 'adb'; {_GET_ADB}")
    return found


def _remaining(deadline: float) -> float:
    # Zero would mean "do not wait" and raise another error.
    return max(1e-3, deadline - time.monotonic())


def _hexadecimal(text: bytes) -> int:
    try:
        return int(text, 16)
    except ValueError:
        raise TransientDeviceError(f"the adb server answered {text!r}, which is no adb") from None

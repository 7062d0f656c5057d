"""Phones and boards that run Android's debug daemon, by USB or by network.

A command's output, its errors and its exit code arrive as packets of the daemon's shell protocol
(Android 7 and newer). A stream that ends without the exit code is a device that died.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import time
from collections.abc import Sequence
from urllib.parse import unquote

from joulemap import InputError, interruption

from ..errors import DeviceError, StableDeviceError, TransientDeviceError
from ..interfaces import Completed
from . import adb_server, remote_files
from .adb_server import AdbDevice, SilentError, list_adb_devices
from .adb_shell import STDERR_TAIL, AdbProcess

__all__ = ["AdbDevice", "AdbProcess", "AdbTransport", "list_adb_devices"]

OPEN_TIMEOUT_S = 15.0
COMMAND_TIMEOUT_S = 30.0
# How long a device that adb has just connected to may look as if it were away, or say who it is.
SETTLE_S, GREET_S = 3.0, 10.0
_GREETING = ("connecting", "authorizing")
# A push may take this much longer per byte: a slow USB 2 hub.
PUSH_BYTES_PER_S = 500_000

TERMUX_PYTHON = "/data/data/com.termux/files/usr/bin/python3"
_PYTHONS = ("python3", "python", "/usr/bin/python3", "/usr/local/bin/python3", TERMUX_PYTHON)
# Folders that may hold joulemap's own: Termux's home where it can be written, else what every
# Android lets its shell write, else a Linux board's cache.
_CACHES = ("/data/data/com.termux/files/home/.cache/joulemap", "/data/local/tmp/joulemap", "")
_OPTIONS = {
    "python": re.compile(r"[\w./~+-]{1,1024}\Z"),
    "cache": re.compile(r"/[^\x00-\x1f\x7f]{0,1023}\Z"),
}


class AdbTransport:
    """Reaches a device through the platform's adb server.

    Nothing is sent before the first use.

    Args:
        address: What follows `adb:` in the URL: a serial, HOST:PORT, nothing for the only device,
            or for one of several with the same serial `usb:1-2`, where it is plugged in, or
            `transport:5`, the adb server's number. What a URL cannot hold may be written as `%20`.
            `?python=PATH` after it names the device's Python, `?cache=PATH` a folder for
            joulemap's files there.

    Raises:
        InputError: The address cannot be one.
    """

    is_remote = True
    device_lock = None

    def __init__(self, address: str = "") -> None:
        text, mark, query = address.partition("?")
        serial = unquote(text)
        options = _options(query) if mark else {}
        if (
            re.search(r"\A[\s-]|/|\s\Z", serial)
            or not serial.isprintable()
            or len(serial) > 256
            or options is None
        ):
            raise InputError(
                f"device 'adb:{address[:80]}': write adb:SERIAL, adb:HOST:PORT, adb:usb:1-2 (where "
                "it is plugged in), or adb: for the only one; the device's Python may follow, as in "
                "adb:SERIAL?python=/opt/venv/bin/python"
            )
        wanted = options.get("python")
        self._pythons = _PYTHONS if wanted is None else (wanted,)
        self._caches = [options["cache"]] if "cache" in options else _CACHES
        self._address = re.sub(r"\Atransport_id:", "transport:", serial)
        self._serial: str | None = None
        self._python: str | None = None

    def push(self, content: bytes, name: str) -> str:
        """Store bytes in the cache folder on the device and return their path there."""
        if not re.fullmatch(r"[\w.-]+", name) or name.startswith("."):
            raise StableDeviceError(f"'{name}' cannot be the name of a file on the device")
        timeout_s = COMMAND_TIMEOUT_S + len(content) / PUSH_BYTES_PER_S
        return remote_files.push(self, content, name, self._caches, timeout_s)

    def pull(self, path: str, max_bytes: int) -> bytes:
        """Return the content of a file on the device."""
        with contextlib.closing(self._shell(["cat", "--", path])) as process:
            process.close_stdin()
            content = process.read_up_to(max_bytes + 1, COMMAND_TIMEOUT_S)
            if len(content) > max_bytes:
                raise StableDeviceError(f"{path} is larger than {max_bytes} bytes")
            if process.wait(COMMAND_TIMEOUT_S):
                raise StableDeviceError(f"cannot read {path}: {process.last_words()}")
        return content

    def run(self, command: Sequence[str], timeout_s: float, max_bytes: int = 1 << 20) -> Completed:
        """Return what a short program printed and how it ended."""
        deadline = time.monotonic() + timeout_s
        try:
            with contextlib.closing(
                self._shell(command, max_stderr=max_bytes, timeout_s=timeout_s)
            ) as process:
                process.close_stdin()
                out = process.read_up_to(max_bytes + 1, timeout_s)
                if len(out) > max_bytes or process.stderr_bytes > max_bytes:
                    raise StableDeviceError(f"{command[0]} printed more than {max_bytes} bytes")
                code = process.wait(max(0.0, deadline - time.monotonic()))
                errors = process.stderr()
        except SilentError as error:
            raise TransientDeviceError(
                f"{command[0]} gave no answer within {timeout_s:.1f} s"
            ) from error
        if code in (126, 127) and not out:
            raise StableDeviceError(
                f"cannot start {command[0]} on {self._name()}: {process.last_words()}"
            )
        return Completed(-(code - 128) if 128 < code < 160 else code, out, errors)

    def start(self, command: Sequence[str]) -> AdbProcess:
        """Start a program on the device."""
        return self._shell(command, announces_pid=True)

    def python(self) -> str:
        """Return the command of the device's Python interpreter."""
        if self._python is None:
            self._python = self._find_python()
        return self._python

    def is_alive(self, timeout_s: float = 10.0) -> bool:
        """Return whether the device answers within the time limit."""
        try:
            return self.run(["echo", "alive"], timeout_s).stdout == b"alive\n"
        except DeviceError:
            return False

    def reconnect(self, timeout_s: float) -> None:
        """Reach the device anew, once."""
        # It may be another one by now, or have lost its files.
        self._python = None
        deadline = time.monotonic() + timeout_s
        serial, self._serial = self._serial, None
        if serial is None:
            self._open(timeout_s)
        elif self._host_and_port:
            # An entry whose other end is gone may look alive for as long as TCP retries.
            with contextlib.suppress(DeviceError):
                adb_server.query(f"host:disconnect:{self._address}", timeout_s)
        elif not self._answers(serial, timeout_s / 3):
            with contextlib.suppress(DeviceError):
                adb_server.query_device(serial, "reconnect", timeout_s / 3)
        while True:
            remaining_s = deadline - time.monotonic()
            try:
                self._open(max(0.5, remaining_s))
                if self.is_alive(max(0.5, deadline - time.monotonic())):
                    return
                raise TransientDeviceError(f"{self._name()} does not answer")
            except TransientDeviceError:
                if deadline - time.monotonic() < 1:
                    raise
            self._serial = None
            interruption.sleep(0.5)

    def close(self) -> None:
        """Nothing is held open; the adb server goes on as it does for everybody."""

    # -- the device --------------------------------------------------------------------------------

    @property
    def _host_and_port(self) -> bool:
        return re.fullmatch(r"(?!transport:|usb:).+:\d{1,5}", self._address) is not None

    def _name(self) -> str:
        return adb_server.url_of(self._serial or self._address)

    def _open(self, timeout_s: float = OPEN_TIMEOUT_S) -> str:
        """Return what adb calls the device once it is known to be usable."""
        if self._serial is None:
            name, device = self._find(timeout_s)
            adb_server.check_state(device)
            features = adb_server.query_device(name, "features", timeout_s)
            if "shell_v2" not in features.split(","):
                raise StableDeviceError(
                    f"adb device '{device.serial}' is older than Android 7: it does not say how "
                    "commands end, so nothing can be measured there reliably"
                )
            # The only one stays the one that is meant, whatever is plugged in later.
            self._serial = self._address = name
        return self._serial

    def _find(self, timeout_s: float) -> tuple[str, AdbDevice]:
        """Return what the device is called, and what the server knows of it."""
        devices = list_adb_devices(timeout_s)
        names = adb_server.names_of(devices)
        listed = [
            f"{adb_server.url_of(name)} ({device.state})"
            for name, device in zip(names, devices, strict=True)
        ]
        if not self._address:
            if len(devices) == 1:
                return names[0], devices[0]
            if not devices:
                raise StableDeviceError(
                    "adb knows no device: switch on USB debugging in the phone's developer options "
                    "and plug it in, or write adb:HOST:PORT for one in the network"
                )
            raise StableDeviceError(
                f"adb knows {len(devices)} devices; name one: {', '.join(listed)[:300]}"
            )
        meant = [at for at, device in enumerate(devices) if self._address in device.names]
        if len(meant) > 1:
            which = ", ".join(listed[at] for at in meant)
            raise StableDeviceError(
                f"adb knows {len(meant)} devices of the serial '{self._address}'; name one by "
                f"where it is plugged in: {which[:250]}"
            )
        if meant:
            device = devices[meant[0]]
            if not (self._host_and_port and device.state in ("offline", *_GREETING)):
                return self._address, device
        if self._host_and_port:
            return self._address, self._connect(timeout_s)
        others = f"only {', '.join(listed)[:250]}" if listed else "no other either"
        raise TransientDeviceError(
            f"adb knows no device '{self._address}' ({others}); plug it in and look at: adb devices"
        )

    def _connect(self, timeout_s: float) -> AdbDevice:
        answer = adb_server.query(f"host:connect:{self._address}", timeout_s)
        # The server answers "connected" before it knows the device's state.
        is_there = re.match(r"(already )?connected", answer)
        began = time.monotonic()
        deadline = latest = began
        if is_there:
            deadline, latest = began + min(SETTLE_S, timeout_s), began + min(GREET_S, timeout_s)
        while True:
            known = {device.serial: device for device in list_adb_devices(timeout_s)}
            device = known.get(self._address)
            if device is not None and device.state in ("device", "unauthorized"):
                return device
            # One that is just being asked who it is says so soon; on a busy machine, later.
            is_greeting = device is not None and device.state in _GREETING
            if time.monotonic() > (latest if is_greeting else deadline):
                if device is not None:
                    return device
                raise TransientDeviceError(
                    f"adb cannot connect to {self._address}: {answer.strip()[:300]}; is the device "
                    "on, in this network, and debugging over TCP (adb tcpip 5555)?"
                )
            interruption.sleep(0.1)

    def _answers(self, serial: str, timeout_s: float) -> bool:
        try:
            adb_server.open_service(serial, "shell,v2,raw:true", timeout_s).close()
        except DeviceError:
            return False
        return True

    def _shell(
        self,
        command: Sequence[str],
        *,
        announces_pid: bool = False,
        max_stderr: int = STDERR_TAIL,
        timeout_s: float = OPEN_TIMEOUT_S,
    ) -> AdbProcess:
        """Start a command; the device's shell replaces itself by the program."""
        line = "exec " + " ".join(shlex.quote(part) for part in command)
        if announces_pid:
            line = f"echo $$; {line}"
        timeout_s = min(timeout_s, OPEN_TIMEOUT_S)
        serial = self._open(timeout_s)
        try:
            link = adb_server.open_service(serial, f"shell,v2,raw:{line}", timeout_s)
        except SilentError:
            raise
        except DeviceError:
            # Its state may say more than the refusal.
            self._serial = None
            self._open(timeout_s)
            raise
        process = AdbProcess(link, self._end, max_stderr)
        if announces_pid:
            try:
                process.take_pid(timeout_s)
            except BaseException:
                process.close()
                raise
        return process

    def _end(self, pid: int) -> None:
        self.run(["kill", "-9", str(pid)], 5.0)

    # -- folders and programs on it ----------------------------------------------------------------

    def _find_python(self) -> str:
        code = "import sys; print('%d.%d %s' % (*sys.version_info[:2], sys.executable))"
        old = []
        # A device that cannot be used is no device without Python.
        self._open()
        for program in self._pythons:
            try:
                done = self.run([program, "-c", code], COMMAND_TIMEOUT_S)
            except StableDeviceError:
                continue
            found = re.fullmatch(rb"(\d{1,4})\.(\d{1,4}) (/[^\x00-\x1f]+)\n", done.stdout)
            if done.exit_code or found is None:
                continue
            if (int(found[1]), int(found[2])) >= (3, 9):
                return found[3].decode(errors="replace")
            old.append(f"{program} is {int(found[1])}.{int(found[2])}")
        what = ", ".join(old) if old else f"looked for {', '.join(self._pythons)}"
        raise StableDeviceError(
            f"no Python 3.9 or newer on {self._name()} ({what}). On a phone install Termux, in it "
            "run 'pkg install python python-numpy python-onnxruntime openssh' and 'sshd', here "
            "'adb forward tcp:8022 tcp:8022', and name the device ssh://127.0.0.1:8022; on a Linux "
            "board install python3. An agent that needs no Python does not exist yet"
        )


def _options(query: str) -> dict[str, str] | None:
    """Return the options of a URL, None if they cannot be read."""
    options: dict[str, str] = {}
    for pair in query.split("&"):
        name, _, value = pair.partition("=")
        value = unquote(value)
        if name not in _OPTIONS or name in options or not _OPTIONS[name].match(value):
            return None
        options[name] = value
    return options

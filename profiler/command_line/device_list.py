"""What can be profiled from here, told without asking any host over the network."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import quote

from joulemap import InputError

from ...device_agents.errors import DeviceError
from ...device_agents.registry import TRANSPORTS
from ...models.systolic.hardware import PRESETS


@dataclass(frozen=True)
class ListedDevice:
    """A device that a URL names.

    Args:
        url: What the commands take.
        kind: `local`, `ssh`, `adb` or `simulated`.
        description: What is known of it without asking it.
        advice: What to do before it can be used; None where nothing is in the way.
    """

    url: str
    kind: str
    description: str
    advice: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it as a dictionary for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class DeviceList:
    """What can be profiled from here.

    Args:
        devices: This machine, hosts of the SSH configuration, phones, simulators.
        notes: Why something could not be listed, and what to do.
    """

    devices: tuple[ListedDevice, ...]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return it as a dictionary for JSON."""
        return {"devices": [each.to_dict() for each in self.devices], "notes": list(self.notes)}


def list_devices() -> DeviceList:
    """Return what can be profiled from here.

    Raises:
        InputError: The SSH configuration cannot be read.
    """
    phones, notes = _phones()
    devices = [
        ListedDevice("local:", "local", "this machine"),
        *_ssh_hosts(),
        *phones,
        *(
            ListedDevice(f"sim:{name}", "simulated", f"{array.rows}x{array.columns} systolic array")
            for name, array in sorted(PRESETS.items())
        ),
        ListedDevice("sim:board", "simulated", "this machine with a simulated board's meters"),
    ]
    return DeviceList(tuple(devices), tuple(notes))


def _ssh_hosts() -> list[ListedDevice]:
    from ...device_agents.transports.ssh_config import UndecidedError
    from ...device_agents.transports.ssh_config_files import named_hosts
    from ...device_agents.transports.ssh_settings import DEFAULT_PORT, SshUrl, resolve

    devices = []
    for name in named_hosts():
        # What a shell or a URL would read as something else is written as a URL has it.
        written = quote(name, safe="/:+,@=")
        url = f"ssh://[{name}]" if ":" in name else f"ssh://{written}"
        try:
            # Nothing is run and no name server asked for a list.
            *jumps, hop = resolve(SshUrl(name), may_ask=False)
        except UndecidedError as undecided:
            devices.append(ListedDevice(url, "ssh", f"SSH configuration, {undecided}"))
            continue
        except InputError as error:
            devices.append(ListedDevice(url, "ssh", "SSH configuration", str(error)))
            continue
        port = f", port {hop.port}" if hop.port != DEFAULT_PORT else ""
        way = "".join(f", through {jump.alias}" for jump in jumps)
        devices.append(ListedDevice(url, "ssh", f"{hop.user}@{hop.host}{port}{way}"))
    return devices


def _phones() -> tuple[list[ListedDevice], list[str]]:
    if "adb" not in TRANSPORTS:
        return [], []
    from ...device_agents.transports import adb_server as adb

    try:
        known = adb.list_adb_devices()
    except DeviceError as error:
        return [], [f"phones are not listed: {error}"]
    devices = []
    for called, phone in zip(adb.names_of(known), known, strict=True):
        advice = None
        try:
            adb.check_state(phone)
        except DeviceError as error:
            advice = str(error).removeprefix("adb device ")
        name = phone.model or "not named"
        devices.append(ListedDevice(adb.url_of(called), "adb", name, advice))
    return devices, []

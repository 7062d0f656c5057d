"""What feeds a device beside its battery: which flags of chargers are to be believed.

The kernel lists chargers, ports and batteries side by side, and their flags contradict each other. A
battery's power is the device's only while nothing else feeds it, so what counts is::

    status Charging, Full         it is fed, whatever the chargers say
    a charger's online            it is fed, unless that charger is none (below)
    none of these                 the battery gives all

No charger is: a battery of its own such as a mouse's (scope Device), a UPS (its power is measured
nowhere), a port that gives power itself (OTG), one whose own voltage is nothing, and a Type-C port
that claims one while the mains is off and the battery says that it discharges.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ..onboard.files import Files
from .readings import channel_name, known_number

CLASS = "sys/class/power_supply"
_TYPEC = "sys/class/typec"
_IDLE = ("Not charging", "Full", "Idle")
_DISCHARGING = ("Discharging", "Unknown", "")
# Of a port's driver, which keeps what was agreed with a charger that has gone.
_PORT = re.compile(r"type-?c|source-psy|ucsi|tcpm|tps6598|usbc|usb-c|-pd\b|usb_pd", re.IGNORECASE)
_OTG = re.compile(r"(^|[^a-z])otg", re.IGNORECASE)
# Below this a supply gives nothing.
_LEAST_V = 2.0
# Devices on HID's buses: USB and Bluetooth.
_PERIPHERAL = re.compile(r"/000[35]:[0-9A-Fa-f]{4}:")
UNPLUG = (
    "unplug it (adb over Wi-Fi instead of USB); on a rooted Qualcomm phone: "
    "echo 1 > /sys/class/power_supply/battery/input_suspend"
)
IGNORE = "; if nothing is plugged in there: --meter 'battery?ignore_charger={}'"


class Supply:
    """A battery's folder, and what may charge it.

    Args:
        files: The machine's files.
        name: Such as `battery` or `BAT0`.
        others: Names of the device's other batteries.
        ignored: Name of a supply that is no charger, as the user says.
    """

    def __init__(
        self, files: Files, name: str, others: Sequence[str] = (), ignored: str | None = None
    ) -> None:
        self.files = files
        self.folder = f"{CLASS}/{name}"
        self.name = channel_name(name, "battery")
        self.others = tuple(channel_name(other, "another battery") for other in others)
        self._other_folders = tuple(f"{CLASS}/{other}" for other in others)
        self._ignored = ignored
        self._chargers = [each for each in files.list(CLASS) if self._may_charge(each)]

    @property
    def unmeasured(self) -> str:
        """What the battery's power leaves out, in words."""
        if self.others:
            return f"what {', '.join(self.others)} and a charger supply"
        return "what a charger supplies; nothing else, as long as none is plugged in"

    def state(self) -> dict[str, str]:
        """Return `status` and `plugged` (names of the supplies that are, or `none`).

        Nothing is in it that changes by itself: another state is another thing that is measured.
        `gives` names ports by which the device feeds others, which the battery's power then holds.
        """
        state = {
            "status": channel_name(self.files.text(f"{self.folder}/status"), "unknown"),
            "plugged": ",".join(channel_name(name, "?") for name in self._plugged()) or "none",
        }
        giving = [name for name in self.files.list(CLASS) if self._gives(name)]
        if giving:
            state["gives"] = ",".join(channel_name(name, "?") for name in giving)
        if self._ignored is not None:
            state["ignored"] = channel_name(self._ignored, "?")
        return state

    def charging(self) -> str:
        """Return what feeds the battery or the device from outside, in words; empty if nothing."""
        status = self._status()
        plugged = self._plugged()
        is_cut_off = self.files.text(f"{self.folder}/input_suspend") == "1"
        if plugged and not is_cut_off:
            return f"/{CLASS}/{plugged[0]}/online is 1: a charger is plugged in"
        # Of two batteries one rests while the other one gives.
        is_resting = status in _IDLE and any(
            self.files.text(f"{folder}/status") == "Discharging" for folder in self._other_folders
        )
        if status not in _DISCHARGING and not is_resting:
            return f"/{self.folder}/status is '{status[:20]}'"
        return ""

    def remedy(self) -> str:
        """Return what to do about a charger."""
        plugged = self._plugged()
        return UNPLUG + (IGNORE.format(plugged[0]) if plugged else "")

    def _status(self) -> str:
        return self.files.text(f"{self.folder}/status") or ""

    def _plugged(self) -> list[str]:
        """Return the chargers that are plugged in, as far as their flags are to be believed."""
        online = {
            name: known_number(self.files, f"{CLASS}/{name}/online") for name in self._chargers
        }
        # 1 is plugged in at a fixed voltage, 2 at one that is programmed.
        claiming = [name for name, number in online.items() if (number or 0) > 0]
        if self._status() != "Discharging":
            return claiming
        mains = [online[name] for name in self._chargers if self._type(name) == "Mains"]
        is_off = bool(mains) and all(number == 0 for number in mains)
        return [
            name
            for name in claiming
            if not self._has_no_voltage(name) and not (is_off and self._is_stale_port(name))
        ]

    def _may_charge(self, name: str) -> bool:
        return (
            self._type(name) not in ("Battery", "UPS")
            and self.files.text(f"{CLASS}/{name}/scope") != "Device"
            and name != self._ignored
            and not self._is_otg(name)
        )

    def _type(self, name: str) -> str:
        return self.files.text(f"{CLASS}/{name}/type") or ""

    def _is_otg(self, name: str) -> bool:
        return bool(_OTG.search(name)) or self._type(name).upper() == "OTG"

    def _gives(self, name: str) -> bool:
        """Return whether the device feeds others by a port."""
        if self._type(name) in ("Battery", "UPS"):
            return False
        is_on = (known_number(self.files, f"{CLASS}/{name}/online") or 0) > 0
        return is_on and (self._is_otg(name) or self._is_source(name))

    def _is_source(self, name: str) -> bool:
        """Return whether a port gives power: what is attached to it takes some."""
        mode = (self.files.text(f"{CLASS}/{name}/typec_mode") or "").lower()
        if "sink" in mode and "source" not in mode:
            return True
        if not self._is_port(name):
            return False
        roles = [
            self.files.text(f"{_TYPEC}/{port}/power_role") or ""
            for port in self.files.list(_TYPEC)
            if re.match(r"port[0-9]+\Z", port)
        ]
        return bool(roles) and all("[source]" in role for role in roles)

    def _is_port(self, name: str) -> bool:
        return bool(_PORT.search(name))

    def _has_no_voltage(self, name: str) -> bool:
        """Return whether a supply's own voltage is nothing, or it is fed by the device."""
        if self._is_source(name):
            return True
        raw = known_number(self.files, f"{CLASS}/{name}/voltage_now")
        # In uV, or in mV as some drivers write it.
        return raw is not None and raw * (1e-6 if raw > 1e5 else 1e-3) < _LEAST_V

    def _is_stale_port(self, name: str) -> bool:
        """Return whether a port that claims a charger shows no current of one."""
        current = known_number(self.files, f"{CLASS}/{name}/current_now")
        return self._is_port(name) and not current


def batteries(files: Files) -> list[str]:
    """Return the names of the batteries that feed the device.

    Mice and keyboards have batteries of their own, and so has a UPS.
    """
    return [
        name
        for name in files.list(CLASS)
        if files.text(f"{CLASS}/{name}/type") == "Battery"
        and files.text(f"{CLASS}/{name}/scope") != "Device"
        and files.text(f"{CLASS}/{name}/present") != "0"
        and not _PERIPHERAL.search(f"/{files.resolve(f'{CLASS}/{name}')}")
    ]


def supplies(files: Files, told: Mapping[str, str]) -> list[Supply]:
    """Return the device's batteries, each with what may charge it.

    Args:
        files: The machine's files.
        told: What the user says of them (see `meter_options`).
    """
    names = batteries(files)
    return [
        # On phones the one of this name is the device's; beside it may stand single gauge chips.
        Supply(
            files,
            name,
            [] if name == "battery" else [other for other in names if other != name],
            told.get("ignore_charger"),
        )
        for name in names
    ]

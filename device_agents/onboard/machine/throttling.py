"""What holds the CPUs back: cooling devices, the processor's own counts, a Raspberry Pi's firmware.

The Pi's firmware tells in one word of bits what holds at this moment and, 16 bits higher, what has
occurred since the start::

    0  the supply's voltage is too low     1  the frequency is capped
    2  throttled                           3  near its limit of temperature

The word stands in a file of the firmware's driver, whose name differs between boards; where a kernel
has none, `vcgencmd` asks the firmware.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from ..files import Files, read_numbers, read_text
from . import firmware

_THERMAL = "sys/class/thermal"
_CPUS = "sys/devices/system/cpu"
_HWMON = "sys/class/hwmon"
_PLATFORM = "sys/devices/platform"
_SOC = re.compile(r"(soc|scb)[@:0-9a-z]*\Z")
_FIRMWARE = re.compile(r"[a-z0-9@:]*firmware[@:0-9a-z]*\Z")
_FLAGS = "get_throttled"
# Lower frequencies, cores that are switched off, idle time that is put in.
_HOLDS_CPUS = re.compile(
    r"^(Processor|intel_powerclamp)$|cpufreq|cpu-isolate|cpu-hotplug|pause-cpu|thermal-(pause|idle)"
)
_HEXADECIMAL = re.compile(r"(?:throttled=)?(?:0x)?([0-9a-fA-F]{1,8})\Z")
# Of NVIDIA's Jetson Orin and later: how often the supply's limit of current was met.
_OVERCURRENT = re.compile(r"oc[0-9]_event_cnt\Z")
_OCCURRED = 16
# Of the firmware's bits those that take speed; a low voltage alone only tells.
_HOLDS = 0b1110
MEANINGS = (
    "the supply's voltage is too low",
    "the frequency is capped",
    "throttled",
    "near its limit of temperature",
)


class Throttling:
    """Reads what holds a machine's CPUs back.

    Args:
        root: Where `sys` is; another folder than `/` for tests.
    """

    def __init__(self, root: str = "/") -> None:
        self.root = root
        self._coolers: list[str] | None = None
        self._counters: list[str] | None = None
        self._flags_file: str | None = None
        self._program: str | None = None
        self._is_sought = False

    def firmware_flags(self) -> int | None:
        """Return the bits of a Raspberry Pi's firmware, None where there are none to be read."""
        if not self._is_sought:
            self._is_sought = True
            self._flags_file = _flags_file(self.root)
            if self._flags_file is None:
                self._program = firmware.program(Files(self.root))
        if self._flags_file is not None:
            return parse_flags(read_text(self._flags_file) or "")
        if self._program is None:
            return None
        try:
            return parse_flags(firmware.ask(self._program, _FLAGS).strip())
        except firmware.FirmwareError:
            # Each try starts a program: it is not asked again.
            self._program = None
            return None

    def is_held(self, flags: int | None) -> bool | None:
        """Return whether a cooling device or the firmware holds the CPUs back; None if unknown.

        Args:
            flags: What `firmware_flags` returns.
        """
        if self._coolers is None:
            self._coolers = _cooling_devices(self.root)
        held = [
            state > 0 for state in read_numbers([f"{path}/cur_state" for path in self._coolers])
        ]
        if flags is not None:
            held.append(bool(flags & _HOLDS))
        return any(held) if held else None

    def num_events(self, cpus: Sequence[int]) -> float | None:
        """Return how often these CPUs or their package were throttled since boot, None if unknown.

        Args:
            cpus: CPU numbers; their counts are added, the package's is counted once. So are a
                board's counts of too much current.
        """
        folders = [self._path(f"{_CPUS}/cpu{cpu}/thermal_throttle") for cpu in cpus]
        cores = read_numbers([f"{folder}/core_throttle_count" for folder in folders])
        package = read_numbers([f"{folder}/package_throttle_count" for folder in folders])
        if self._counters is None:
            self._counters = _overcurrent_counters(self.root)
        board = read_numbers(self._counters)
        if not (cores or package or board):
            return None
        return sum(cores) + max(package, default=0.0) + sum(board)

    def _path(self, path: str) -> str:
        return os.path.join(self.root, path)  # noqa: PTH118


def parse_flags(text: str) -> int | None:
    """Return the bits that a text such as `50005`, `0x50005` or `throttled=0x50005` is, or None."""
    match = _HEXADECIMAL.match(text)
    return None if match is None else int(match.group(1), 16)


def in_words(flags: int | None) -> dict[str, list[str]] | None:
    """Return what holds `now` and what has occurred `since_start`, in words; None without flags."""
    if flags is None:
        return None
    return {
        "now": [text for bit, text in enumerate(MEANINGS) if flags >> bit & 1],
        "since_start": [text for bit, text in enumerate(MEANINGS) if flags >> bit + _OCCURRED & 1],
    }


def held_since(before: float | None, after: float | None) -> bool:
    """Return whether flags say that the CPUs were held back, for the first time, between two looks."""
    if before is None or after is None:
        return False
    return bool(int(after) & ~int(before) & _HOLDS << _OCCURRED)


def _flags_file(root: str) -> str | None:
    """Return the file with the flags: `soc/soc:firmware`, on a Pi 5 `soc@107c000000/...`."""
    platform = os.path.join(root, _PLATFORM)  # noqa: PTH118
    folders = [platform, *(f"{platform}/{name}" for name in _names(platform) if _SOC.match(name))]
    for folder in folders:
        for name in filter(_FIRMWARE.match, _names(folder)):
            path = f"{folder}/{name}/{_FLAGS}"
            if parse_flags(read_text(path) or "") is not None:
                return path
    return None


def _cooling_devices(root: str) -> list[str]:
    """Return those that hold the processor back; a fan does not."""
    folder = os.path.join(root, _THERMAL)  # noqa: PTH118
    found = []
    for name in _names(folder):
        kind = read_text(f"{folder}/{name}/type") or ""
        if name.startswith("cooling_device") and _HOLDS_CPUS.search(kind):
            found.append(f"{folder}/{name}")
    return found


def _overcurrent_counters(root: str) -> list[str]:
    folder = os.path.join(root, _HWMON)  # noqa: PTH118
    return [
        f"{folder}/{chip}/{name}"
        for chip in _names(folder)
        for name in _names(f"{folder}/{chip}")
        if _OVERCURRENT.match(name)
    ]


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208
    except OSError:
        return []

"""Intel's and AMD's energy counters (RAPL) by the kernel's powercap files.

A machine has top-level zones (one per package or die, and `psys` for the whole platform) and below a
package its parts. What contains what decides what may be added::

    psys                     the whole platform, where its maker wired it; contains the packages
    package-0[-die-1]        cores, caches, integrated graphics
      core, uncore           are in the package: never added to it
      dram                   memory; beside the package, not in it

The channel `cpu` is the sum of the packages and their memory. Zones of `intel-rapl-mmio` are a
second view of the same package and are left out where the first one is there; so are two zones of
one name, and dies whose counters are one and the same, also where a copy is some updates behind (some
kernels show an AMD package once per die).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..onboard.energy.meter import COUNTER, Meter, MeterError, MeterInfo, Missing
from ..onboard.files import Files
from .mirrored_counters import is_mirror
from .readings import NumberFile, channel_name, known_number
from .refusals import read_at_first, remedy_of

_CLASS = "sys/class/powercap"
_CPUS = "sys/devices/system/cpu"
_ZONE = re.compile(r"intel-rapl(-mmio)?(:[0-9]+)+\Z")
_PACKAGE = re.compile(r"package-[0-9]+")
# The counters have 32 bits, whatever a step is worth.
_NUM_STEPS = 2**32
_UPDATE_S = 1e-3
# Short peaks go beyond the limits that the files state.
_PEAK_FACTOR = 2.0
_MMIO = "intel-rapl-mmio"
_MAX_POWER_W = 10_000.0
_MAX_DRAM_POWER_W = 500.0
_DOMAINS = {
    "core": "CPU cores of the package",
    "uncore": "graphics and caches beside the cores of the package",
    "dram": "memory attached to the package",
    "psys": "the whole platform as its maker wired it",
}
_REMEDY = (
    "as root: chmod a+r /sys/class/powercap/intel-rapl*/energy_uj (until the next start); for good, a "
    'udev rule: SUBSYSTEM=="powercap", ACTION=="add", RUN+="/bin/chmod a+r /sys%p/energy_uj"; other '
    "users can then see what runs here by its power, which is why it is closed"
)

_HIDDEN = (
    f"/{_CLASS} lists zones whose files are not there (/sys/devices/virtual/powercap): a container "
    "hides them (CVE-2020-8694)"
)
_SHOW = (
    "run it outside, or start the container with --security-opt systempaths=unconfined (Docker) or "
    "--security-opt unmask=/sys/devices/virtual/powercap (Podman)"
)


@dataclass(frozen=True)
class _Zone:
    """A powercap zone.

    Args:
        folder: Where it is.
        top: Its number without its parts': the package's, also for a part of one.
        name: Its own, such as `package-0` or `dram`.
        package: The name of the package that it is or that it is part of; empty for `psys`.
        range_uj: Where it starts again at 0.
        max_power_w: More is not believed.
    """

    folder: str
    top: str
    name: str
    package: str
    range_uj: float
    max_power_w: float

    @property
    def energy(self) -> str:
        return f"{self.folder}/energy_uj"


class RaplMeter:
    """One zone or the sum of several.

    Args:
        info: What is known about it.
        counters: Their files.
        ranges_uj: Where each starts again at 0.

    Counters of one range are added modulo that range, which needs no memory. Of several ranges the
    sum has no wrap of its own; each is then followed from reading to reading.
    """

    def __init__(
        self, info: MeterInfo, counters: Sequence[NumberFile], ranges_uj: Sequence[float]
    ) -> None:
        self.info = info
        self._counters = tuple(counters)
        self._ranges_uj = tuple(ranges_uj)
        self._last_uj: list[float] = []
        self._sum_uj = 0.0

    def read(self) -> float:
        """Return joules."""
        now_uj = [counter.read() for counter in self._counters]
        for value, limit, counter in zip(now_uj, self._ranges_uj, self._counters):
            if not 0 <= value <= limit:
                raise MeterError(
                    f"{counter.path} holds {value:.0f}, beyond its range of {limit:.0f}"
                )
        if self.info.range_j is not None:
            return sum(now_uj) % self._ranges_uj[0] * 1e-6
        if not self._last_uj:
            self._sum_uj = sum(now_uj)
        else:
            self._sum_uj += sum(
                (now - last) % limit
                for now, last, limit in zip(now_uj, self._last_uj, self._ranges_uj)
            )
        self._last_uj = now_uj
        return self._sum_uj * 1e-6

    def close(self) -> None:
        """Close the files."""
        for counter in self._counters:
            counter.close()


def find(files: Files) -> list[Meter | Missing]:
    """Return `cpu` first, then every zone by itself; `Missing` where a counter cannot be read."""
    zones = _zones(files)
    if not zones and any(_ZONE.match(name) for name in files.list(_CLASS)):
        return [Missing("rapl", "", _HIDDEN, _SHOW)]
    readable, missing = [], []
    for zone in zones:
        reason = _refusal(files, zone)
        if reason is None:
            readable.append(zone)
        else:
            missing.append(Missing("rapl", _channel(zone), *reason))
    if missing and not readable:
        return [replace(missing[0], channel="")]
    open_names = {_channel(zone) for zone in readable}
    closed = {zone.name for zone in zones if _is_package(zone)} - open_names
    # What one view denies another one may show.
    missing = [item for item in missing if item.channel not in open_names]
    readable = _without_copies(files, readable)
    total = [zone for zone in readable if _is_package(zone) or zone.name == "dram"]
    meters: list[Meter | Missing] = []
    # Without one of the packages it would not be the processor's energy.
    if not closed and any(_is_package(zone) for zone in total):
        meters.append(_open(files, "cpu", total, _domain(total), _unmeasured(total)))
    parts = [_open(files, _channel(zone), [zone], _domain([zone]), "") for zone in readable]
    return [*meters, *parts, *missing]


def _zones(files: Files) -> list[_Zone]:
    """Return the zones of the package counters, parents first."""
    folders: dict[str, str] = {}
    for name in files.list(_CLASS):
        if not _ZONE.match(name):
            continue
        folders.setdefault(name, f"{_CLASS}/{name}")
        # Parts are listed in the class as a rule; some trees have them below their parent alone.
        for part in files.list(f"{_CLASS}/{name}"):
            if _ZONE.match(part):
                folders.setdefault(part, f"{_CLASS}/{name}/{part}")
    names = {key: files.text(f"{folder}/name") or "" for key, folder in folders.items()}
    zones = []
    # What is shown in two ways is taken in the first one that can be read.
    for key in sorted(
        folders, key=lambda key: (key.startswith(_MMIO), [int(n) for n in key.split(":")[1:]])
    ):
        if not names[key]:
            continue
        top = ":".join(key.split(":")[:2])
        package = names.get(top, "")
        range_uj = known_number(files, f"{folders[key]}/max_energy_range_uj")
        if range_uj is None or range_uj <= 0:
            range_uj = float(_NUM_STEPS)
        zones.append(
            _Zone(
                folders[key],
                top,
                channel_name(names[key], key),
                channel_name(package, "") if _PACKAGE.match(package) else "",
                range_uj,
                _max_power_w(files, folders[key], names[key]),
            )
        )
    return zones


def _max_power_w(files: Files, folder: str, name: str) -> float:
    limits = [
        known_number(files, f"{folder}/{file}")
        for file in files.list(folder)
        if re.match(r"constraint_[0-9]+_(max_power|power_limit)_uw\Z", file)
    ]
    largest_w = max((limit for limit in limits if limit is not None), default=0.0) * 1e-6
    if largest_w <= 0:
        return _MAX_DRAM_POWER_W if name == "dram" else _MAX_POWER_W
    return min(_MAX_POWER_W, largest_w * _PEAK_FACTOR)


def _refusal(files: Files, zone: _Zone) -> tuple[str, str] | None:
    """Return why a counter cannot be read and what to do, None if it can."""
    try:
        read_at_first(files, zone.energy)
    except PermissionError:
        reason = (
            f"/{zone.energy} may be read by root only, as in all kernels since November 2020 "
            "(CVE-2020-8694)"
        )
        return reason, _REMEDY
    except OSError as error:
        return f"/{zone.energy} cannot be read ({error.strerror})", remedy_of(error, _REMEDY)
    return None


def _without_copies(files: Files, zones: Sequence[_Zone]) -> list[_Zone]:
    """Return the zones without those that show a counter that another one shows already."""
    kept: list[_Zone] = []
    packages: list[_Zone] = []
    is_single = _has_one_package(files)
    for zone in zones:
        if _is_package(zone):
            if any(
                zone.name == other.name or _is_copy(files, zone, other, is_single=is_single)
                for other in packages
            ):
                continue
            packages.append(zone)
        elif zone.package and zone.top not in {package.top for package in packages}:
            continue
        kept.append(zone)
    return kept


def _is_copy(files: Files, zone: _Zone, other: _Zone, *, is_single: bool) -> bool:
    """Return whether two zones of packages or dies show one counter."""
    ours, theirs = _PACKAGE.match(zone.name), _PACKAGE.match(other.name)
    if ours is None or theirs is None or zone.range_uj != other.range_uj:
        return False
    return is_mirror(
        files,
        other.energy,
        zone.energy,
        zone.range_uj,
        is_one_package=is_single or ours.group() == theirs.group(),
    )


def _has_one_package(files: Files) -> bool:
    """Return whether all CPUs are of one processor package."""
    ids = {
        files.text(f"{_CPUS}/{name}/topology/physical_package_id")
        for name in files.list(_CPUS)
        if re.match(r"cpu[0-9]+\Z", name)
    }
    return len(ids - {None}) == 1


def _is_package(zone: _Zone) -> bool:
    return bool(zone.package) and zone.name == zone.package


def _channel(zone: _Zone) -> str:
    return zone.name if _is_package(zone) or not zone.package else f"{zone.package}.{zone.name}"


def _domain(zones: Sequence[_Zone]) -> str:
    if len(zones) > 1:
        return "processor: " + " + ".join(_channel(zone) for zone in zones)
    zone = zones[0]
    if _is_package(zone):
        return "processor package: cores, caches, integrated graphics"
    return _DOMAINS.get(zone.name, f"zone '{zone.name}'")


def _unmeasured(zones: Sequence[_Zone]) -> str:
    memory = "" if any(zone.name == "dram" for zone in zones) else "memory, "
    return f"{memory}graphics cards, disks, fans, losses of the supply"


def _open(
    files: Files, channel: str, zones: Sequence[_Zone], domain: str, unmeasured: str
) -> RaplMeter | Missing:
    counters: list[NumberFile] = []
    try:
        for zone in zones:
            counters.append(NumberFile(files, zone.energy))  # noqa: PERF401
    except OSError as error:
        for counter in counters:
            counter.close()
        reason = f"{error.filename}: {error.strerror}"
        return Missing("rapl", channel, reason, remedy_of(error, _REMEDY))
    ranges = [zone.range_uj for zone in zones]
    power_w = sum(zone.max_power_w for zone in zones)
    notes = []
    if len(zones) > 1 and len(set(ranges)) > 1:
        notes.append(
            "Its counters have different ranges: read it at least every "
            f"{min(ranges) * 1e-6 / power_w / 2:.0f} s."
        )
    if any(zone.name == "psys" for zone in zones):
        notes.append("What it covers is the board maker's choice; compare it with another meter.")
    info = MeterInfo(
        name="rapl",
        channel=channel,
        kind=COUNTER,
        domain=domain,
        unmeasured=unmeasured,
        rail="+".join(files.resolve(zone.folder) for zone in zones),
        resolution=max(ranges) / _NUM_STEPS * 1e-6,
        range_j=ranges[0] * 1e-6 if len(set(ranges)) == 1 else None,
        update_period_s=_UPDATE_S,
        max_power_w=power_w,
        read_s=_UPDATE_S,
        is_partial=channel != "cpu",
        notes=tuple(notes),
    )
    return RaplMeter(info, counters, ranges)

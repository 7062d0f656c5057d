"""What can be read about the machine while it measures: steal, load, frequency, temperature.

Every reading is None where the file is missing, cannot be read or holds no plausible value:
sensors that are switched off answer -274 degrees or 0, and what a kernel offers differs.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence

from ..files import parse_number, read_numbers, read_text
from .thermal_zones import ThermalZones
from .throttling import Throttling, held_since

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_FREQUENCIES_HZ = (1e6, 2e10)
_CPUS = "sys/devices/system/cpu"


class HostState:
    """Reads a machine's state from its files.

    Args:
        root: Where `proc` and `sys` are; another folder than `/` for tests.
        temperature_zone: Name of the thermal zone to read, None for what tells of the processor.

    Attributes:
        zones: The thermal zones.
        throttling: What holds the CPUs back.
    """

    def __init__(self, root: str = "/", temperature_zone: str | None = None) -> None:
        self.root = root
        self.zones = ThermalZones(root, temperature_zone)
        self.throttling = Throttling(root)

    def snapshot(self, cpus: Sequence[int]) -> dict[str, float | None]:
        """Return the conditions at this moment; what cannot be read is None.

        Args:
            cpus: The CPUs that measure.

        Returns:
            `load_1min`; `num_runnable`, the threads that run or wait for a CPU, the caller's
            included; `frequency_hz`, the lowest of the CPUs; `temperature_c`, the hottest zone
            that counts; `num_throttle_events` since boot; `is_throttled`, 1 or 0;
            `throttling_flags` of a Raspberry Pi's firmware; `memory_pressure_share` and
            `cpu_pressure_share`, the share of the last 10 s in which some process waited for
            memory or for a CPU; `available_memory_bytes`.
        """
        load, runnable = self._load()
        flags = self.throttling.firmware_flags()
        held = self.throttling.is_held(flags)
        return {
            "load_1min": load,
            "num_runnable": runnable,
            "frequency_hz": self.lowest_frequency_hz(cpus),
            "temperature_c": self.hottest_c(),
            "num_throttle_events": self.throttling.num_events(cpus),
            "is_throttled": None if held is None else float(held),
            "throttling_flags": None if flags is None else float(flags),
            "memory_pressure_share": self.pressure_share("memory"),
            "cpu_pressure_share": self.pressure_share("cpu"),
            "available_memory_bytes": self.memory_bytes("MemAvailable"),
        }

    def steal_s(self, cpus: Sequence[int]) -> float | None:
        """Return the seconds that the hypervisor withheld since boot, None if unknown.

        Args:
            cpus: CPU numbers; their counters are added.
        """
        ticks = self._cpu_ticks([f"cpu{cpu}" for cpu in cpus])
        return sum(values[7] for values in ticks.values()) / _TICKS_PER_SECOND if ticks else None

    def busy_share(
        self,
        interval_s: float,
        cpus: Sequence[int] = (),
        sleep: Callable[[float], None] = time.sleep,
    ) -> float | None:
        """Return the share of CPU time, 0 to 1, that others than this process use, None if unknown.

        Time that a hypervisor withholds counts as used.

        Args:
            interval_s: How long to watch; below about 0.2 s the counters' steps of 10 ms show.
            cpus: The CPUs that measure. The answer is the greater of their share and the whole
                machine's, since neighbours disturb through caches, memory and heat.
            sleep: Waits.
        """
        measuring = [f"cpu{cpu}" for cpu in cpus]
        before, own = self._cpu_ticks(["cpu", *measuring]), _own_ticks()
        sleep(interval_s)
        after, own = self._cpu_ticks(["cpu", *measuring]), _own_ticks() - own
        shares = [_busy_share(before, after, own, names) for names in (["cpu"], measuring)]
        known = [share for share in shares if share is not None]
        return max(known) if known else None

    def lowest_frequency_hz(self, cpus: Sequence[int]) -> float | None:
        """Return the lowest current frequency of these CPUs, None if unknown."""
        files = [self._path(f"{_CPUS}/cpu{cpu}/cpufreq/scaling_cur_freq") for cpu in cpus]
        return min(
            _within([khz * 1e3 for khz in read_numbers(files)], _FREQUENCIES_HZ), default=None
        )

    def hottest_c(self) -> float | None:
        """Return the temperature of the hottest zone that counts in degrees Celsius, None if unknown."""
        return self.zones.hottest_c()

    def thermal_zones(self) -> list[dict[str, object]]:
        """Return what is known of each thermal zone (see `ThermalZones.listed`)."""
        return self.zones.listed()

    def is_throttled(self) -> float | None:
        """Return 1 if a cooling device or the firmware holds the CPUs back, 0 if not.

        None where neither can be read.
        """
        held = self.throttling.is_held(self.throttling.firmware_flags())
        return None if held is None else float(held)

    def pressure_share(self, resource: str) -> float | None:
        """Return the share of the last 10 s, 0 to 1, in which some process waited; None if unknown.

        Args:
            resource: `cpu`, `memory` or `io`.
        """
        for line in (read_text(self._path(f"proc/pressure/{resource}")) or "").splitlines():
            if line.startswith("some avg10="):
                percent = parse_number(line[len("some avg10=") :].partition(" ")[0])
                return percent / 100 if percent is not None and percent <= 100 else None
        return None

    def memory_bytes(self, field: str) -> int | None:
        """Return a field of /proc/meminfo in bytes, None if it is not there."""
        for line in (read_text(self._path("proc/meminfo")) or "").splitlines():
            name, _, rest = line.partition(":")
            if name == field:
                size = parse_number(rest.strip().partition(" ")[0])
                return None if size is None else int(size) * 1024
        return None

    def _load(self) -> tuple[float | None, float | None]:
        parts = (read_text(self._path("proc/loadavg")) or "").split()
        if len(parts) < 4:
            return None, None
        return parse_number(parts[0]), parse_number(parts[3].partition("/")[0])

    def _cpu_ticks(self, names: Sequence[str]) -> dict[str, list[float]]:
        """Return eight counters for each of these lines of /proc/stat that can be read."""
        ticks = {}
        wanted = set(names)
        for line in (read_text(self._path("proc/stat")) or "").splitlines():
            if not line.startswith("cpu"):
                break
            name, *parts = line.split()
            if name not in wanted:
                continue
            values = [parse_number(part) for part in parts[:8]]
            known = [value for value in values if value is not None]
            if len(known) == 8:
                ticks[name] = known
        return ticks

    def _path(self, path: str) -> str:
        return os.path.join(self.root, path)  # noqa: PTH118


def over_visit(
    before: Mapping[str, float | None], after: Mapping[str, float | None]
) -> dict[str, float | None]:
    """Return a visit's conditions from the snapshots around it.

    The snapshot after it stands, since before it the CPUs idle at a low frequency. Of temperature
    and throttling the worse counts, of memory the lesser, and of throttle events the increase.
    """
    result = dict(after)
    for name, worse in (
        ("temperature_c", max),
        ("is_throttled", max),
        ("available_memory_bytes", min),
    ):
        known = [value for value in (before.get(name), after.get(name)) if value is not None]
        result[name] = worse(known) if known else None
    first, last = before.get("num_throttle_events"), after.get("num_throttle_events")
    result["num_throttle_events"] = (
        None if first is None or last is None else max(0.0, last - first)
    )
    if held_since(before.get("throttling_flags"), after.get("throttling_flags")):
        result["is_throttled"] = 1.0
    return result


def _within(values: Sequence[float], bounds: tuple[float, float]) -> list[float]:
    return [value for value in values if bounds[0] <= value <= bounds[1]]


def _own_ticks() -> float:
    return time.process_time() * _TICKS_PER_SECOND


def _busy_share(
    before: Mapping[str, Sequence[float]],
    after: Mapping[str, Sequence[float]],
    own_ticks: float,
    names: Sequence[str],
) -> float | None:
    """Return the share that others use of the CPUs with these names in /proc/stat."""
    both = [name for name in names if name in before and name in after]
    total = sum(sum(after[name]) - sum(before[name]) for name in both)
    # Columns 3 and 4 are idle time and idle time with input or output pending.
    idle = sum(sum(after[name][3:5]) - sum(before[name][3:5]) for name in both)
    if total <= 0:
        return None
    return min(1.0, max(0.0, (total - idle - own_ticks) / total))


MACHINE = HostState()

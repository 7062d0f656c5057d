"""What can be read about the machine while it measures: steal, load, frequency, temperature."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


def read_text(path: str) -> str | None:
    """Return a small file's stripped text, None if it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            return file.read(65536).strip()
    except OSError:
        return None


def read_number(path: str) -> float | None:
    """Return the number a sysfs file holds, None if there is none."""
    text = read_text(path)
    try:
        return float(text) if text else None
    except ValueError:
        return None


def steal_s(cpus: Sequence[int]) -> float | None:
    """Return the seconds that the hypervisor withheld from these CPUs since boot, None if unknown.

    Args:
        cpus: CPU numbers; their counters are added.
    """
    text = read_text("/proc/stat")
    if text is None:
        return None
    wanted = {f"cpu{cpu}" for cpu in cpus}
    total: float | None = None
    for line in text.splitlines():
        parts = line.split()
        if parts and parts[0] in wanted and len(parts) > 8:
            total = (total or 0.0) + int(parts[8]) / _TICKS_PER_SECOND
    return total


def snapshot(cpus: Sequence[int]) -> dict[str, Any]:
    """Return the readable conditions of the machine; what cannot be read is None.

    Returns:
        `load_1min`, `frequency_hz` (lowest of the CPUs), `temperature_c` (hottest zone),
        `available_memory_bytes`.
    """
    load = read_text("/proc/loadavg")
    frequencies = [
        read_number(f"/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_cur_freq") for cpu in cpus
    ]
    known = [value * 1e3 for value in frequencies if value is not None]
    return {
        "load_1min": float(load.split()[0]) if load else None,
        "frequency_hz": min(known) if known else None,
        "temperature_c": hottest_c(),
        "available_memory_bytes": memory_bytes("MemAvailable"),
    }


def memory_bytes(field: str) -> int | None:
    """Return a field of /proc/meminfo in bytes, None if it is not there."""
    for line in (read_text("/proc/meminfo") or "").splitlines():
        name, _, rest = line.partition(":")
        if name == field and rest.split():
            return int(rest.split()[0]) * 1024
    return None


def hottest_c() -> float | None:
    """Return the temperature of the hottest thermal zone in degrees Celsius, None if unknown."""
    folder = "/sys/class/thermal"
    try:
        zones = [name for name in os.listdir(folder) if name.startswith("thermal_zone")]  # noqa: PTH208
    except OSError:
        return None
    readings = [read_number(os.path.join(folder, zone, "temp")) for zone in zones]  # noqa: PTH118
    known = [value / 1e3 for value in readings if value is not None]
    return max(known) if known else None

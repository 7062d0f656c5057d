"""Who the device is: processor, memory, system, Python, runtimes."""

from __future__ import annotations

import hashlib
import os
import platform
from typing import Any

from .host_state import MACHINE, read_number, read_text


def fingerprint(runtimes: dict[str, str | None]) -> dict[str, Any]:
    """Return the device's description; what cannot be read is None.

    Args:
        runtimes: Runtime name to its version, or None where it is not installed.

    Returns:
        A JSON-able dictionary. `device_id` is stable across restarts and software updates: a hash
        of the machine's identity, processor and memory.
    """
    cpu = cpu_model()
    cpus = available_cpus()
    memory = MACHINE.memory_bytes("MemTotal")
    machine = read_text("/etc/machine-id") or read_text("/var/lib/dbus/machine-id") or ""
    board = read_text("/proc/device-tree/model")
    # Rounded: the kernel's reserved share of the memory changes between its versions.
    size_gib = round(memory / 2**30) if memory else None
    identity = "|".join(str(part) for part in (machine, board, cpu, os.cpu_count(), size_gib))
    return {
        "device_id": hashlib.sha256(identity.encode()).hexdigest()[:16],
        "cpu_model": cpu,
        "board": board.strip("\0") if board else None,
        "num_cpus": os.cpu_count(),
        "available_cpus": cpus,
        "memory_bytes": memory,
        "architecture": platform.machine(),
        "system": platform.system(),
        "kernel": platform.release(),
        "os": os_name(),
        "python": platform.python_version(),
        "runtimes": runtimes,
        "governor": read_text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "max_frequency_hz": _scaled(
            read_number("/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq"), 1e3
        ),
        "temperature_c": MACHINE.hottest_c(),
        "is_virtual": is_virtual(),
    }


def available_cpus() -> list[int]:
    """Return the numbers of the CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def cpu_model() -> str | None:
    """Return the processor's name, None if the system does not say."""
    for line in (read_text("/proc/cpuinfo") or "").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Hardware", "Model") and value.strip():
            return value.strip()
    return platform.processor() or None


def os_name() -> str | None:
    """Return the distribution's name and version, None if the system does not say."""
    for line in (read_text("/etc/os-release") or "").splitlines():
        name, _, value = line.partition("=")
        if name == "PRETTY_NAME":
            return value.strip().strip('"')
    return None


def is_virtual() -> bool | None:
    """Return whether a hypervisor runs this machine, None if the processor does not say."""
    text = read_text("/proc/cpuinfo")
    return None if text is None else " hypervisor" in text


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor

"""Who the device is: processor, memory, system, Python, runtimes."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from collections import Counter
from typing import Any

from . import packages, throttling
from .files import Files
from .host_state import HostState
from .identity import ANDROID_SERIAL, android_properties
from .permissions import permissions
from .processor import clusters, core_names, gpus

_ANDROID = (
    ("model", "ro.product.model"),
    ("manufacturer", "ro.product.manufacturer"),
    ("soc", "ro.soc.model"),
    ("release", "ro.build.version.release"),
    ("build", "ro.build.fingerprint"),
)


def fingerprint(runtimes: dict[str, str | None], root: str = "/") -> dict[str, Any]:
    """Return the device's description; what cannot be read is None.

    Args:
        runtimes: Runtime name to its version, or None where it is not installed.
        root: Where the machine's files are; another folder than `/` for tests.

    Returns:
        A JSON-able dictionary. `device_id` is stable across restarts and software updates: a hash
        of the machine's identity, processor and memory.
    """
    files, state = Files(root), HostState(root)
    groups = clusters(files)
    cpu = cpu_model(files)
    cpus = available_cpus()
    memory = state.memory_bytes("MemTotal")
    machine = files.text("etc/machine-id") or files.text("var/lib/dbus/machine-id") or ""
    # Copies of one memory card share the machine's id, but not the board's number.
    serial = files.text("proc/device-tree/serial-number") or ""
    board = files.text("proc/device-tree/model")
    properties = android_properties([*(key for _, key in _ANDROID), ANDROID_SERIAL])
    android = android_build(properties)
    # Rounded: the kernel's reserved share of the memory changes between its versions.
    size_gib = round(memory / 2**30) if memory else None
    identity = "|".join(str(part) for part in (machine, board, cpu, os.cpu_count(), size_gib))
    # Not Android's build, which an update changes. Two phones of one model differ in their number.
    extra = [serial.strip("\0"), *((android or {}).get(name, "") for name in ("model", "soc"))]
    extra += filter(None, [properties.get(ANDROID_SERIAL)])
    if any(extra):
        identity += "|" + "|".join(extra)
    return {
        "device_id": hashlib.sha256(identity.encode()).hexdigest()[:16],
        "cpu_model": cpu,
        "board": board.strip("\0") if board else None,
        "num_cpus": os.cpu_count(),
        "available_cpus": cpus,
        "clusters": groups,
        "gpus": gpus(files),
        "memory_bytes": memory,
        "architecture": platform.machine(),
        "system": platform.system(),
        "kernel": platform.release(),
        "os": os_name(files),
        "os_release": {
            name: value
            for name, value in os_release(files).items()
            if name in ("ID", "ID_LIKE", "VERSION_ID", "PRETTY_NAME")
        },
        "android": android,
        "termux": os.environ.get("TERMUX_VERSION"),
        "is_root": hasattr(os, "getuid") and os.getuid() == 0,
        "python": platform.python_version(),
        "python_path": sys.executable,
        "runtimes": runtimes,
        "packages": packages.versions(),
        "execution_providers": packages.execution_providers(),
        "governor": files.text("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "max_frequency_hz": groups[0]["max_frequency_hz"] if groups else None,
        "temperature_c": state.hottest_c(),
        "temperature_zone": state.zones.in_words(),
        "thermal_zones": state.thermal_zones(),
        "firmware_throttling": throttling.in_words(state.throttling.firmware_flags()),
        "control": permissions(cpus, root),
        "is_virtual": is_virtual(files),
    }


def available_cpus() -> list[int]:
    """Return the numbers of the CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def cpu_model(files: Files) -> str | None:
    """Return the processor's name, None if the system does not say."""
    for line in (files.text("proc/cpuinfo") or "").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Hardware", "Model") and value.strip():
            return value.strip()
    if platform.processor():
        return platform.processor()
    # Arm servers and virtual machines name no model, but their cores.
    counted = Counter(core_names(files).values())
    return " + ".join(f"{count}x {name}" for name, count in counted.items()) or None


def os_release(files: Files) -> dict[str, str]:
    """Return the fields of /etc/os-release; none if the system has no such file."""
    fields = {}
    for line in (files.text("etc/os-release") or "").splitlines():
        name, equals, value = line.partition("=")
        if equals:
            fields[name] = value.strip().strip("\"'")
    return fields


def os_name(files: Files) -> str | None:
    """Return the distribution's name and version, None if the system does not say."""
    return os_release(files).get("PRETTY_NAME")


def android_build(properties: dict[str, str]) -> dict[str, str] | None:
    """Return an Android device's `model`, `soc`, `release` and `build`; None on other systems."""
    return {name: properties[key][:200] for name, key in _ANDROID if key in properties} or None


def is_virtual(files: Files) -> bool | None:
    """Return whether a hypervisor runs this machine, None if the processor does not say."""
    text = files.text("proc/cpuinfo")
    return None if text is None else " hypervisor" in text

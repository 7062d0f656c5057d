"""Who the device is: processor, memory, system, Python, runtimes."""

from __future__ import annotations

import os
import platform
import sys
from collections import Counter
from typing import Any

from ..files import Files
from . import device_ids, packages, throttling
from .host_state import HostState
from .identity import ANDROID_SERIAL, android_properties
from .permissions import permissions
from .processor import clusters, core_names, gpus
from .virtualisation import is_virtual

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
        A JSON-able dictionary. `device_id` is stable across restarts, power modes and software
        updates (see `device_ids`); `former_ids` are other ids of the same device, and `identity`
        holds hashes of what two devices of one id differ in.
    """
    files, state = Files(root), HostState(root)
    groups = clusters(files)
    cpu = cpu_model(files)
    cpus = available_cpus()
    memory = state.memory_bytes("MemTotal")
    board = files.text("proc/device-tree/model")
    properties = android_properties([*(key for _, key in _ANDROID), ANDROID_SERIAL])
    android = android_build(properties)
    # Not Android's build, which an update changes.
    model, soc = ((android or {}).get(name, "") for name in ("model", "soc"))
    # On a phone it is told by its model; a processor's name may count the cores that run.
    kind = (model, soc) if android else (None if _is_counted(files) else cpu, board)
    known = device_ids.evidence(
        files, properties.get(ANDROID_SERIAL), (*kind, device_ids.memory_words(memory))
    )
    serial = (files.text("proc/device-tree/serial-number") or "").strip("\0")
    former = device_ids.former_ids(
        files,
        _models_by_count(files),
        memory,
        [serial, model, soc, *filter(None, [properties.get(ANDROID_SERIAL)])],
    )
    device_id, *others = known.ids()
    return {
        "device_id": device_id,
        "former_ids": [*others, *former],
        "identity": known.parts(),
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


def cpu_model(files: Files, *, is_former: bool = False) -> str | None:
    """Return the processor's name, None if the system does not say.

    Args:
        files: The machine's files.
        is_former: See `processor.core_names`.
    """
    for line in (files.text("proc/cpuinfo") or "").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Hardware", "Model") and value.strip():
            return value.strip()
    if platform.processor():
        return platform.processor()
    # Arm servers and virtual machines name no model, but their cores.
    counted = Counter(core_names(files, is_former=is_former).values())
    return " + ".join(f"{count}x {name}" for name, count in counted.items()) or None


def _is_counted(files: Files) -> bool:
    """Return whether the processor's name is made of the cores that run."""
    texts = (files.text("proc/cpuinfo") or "").splitlines()
    names = {line.partition(":")[0].strip() for line in texts}
    return not (names & {"model name", "Hardware", "Model"} or platform.processor())


def _models_by_count(files: Files) -> dict[int | None, str | None]:
    """Return the processor's name with other numbers of cores running, and under None as it is."""
    models: dict[int | None, str | None] = {None: cpu_model(files, is_former=True)}
    kinds = list(set(core_names(files, is_former=True).values()))
    if _is_counted(files) and len(kinds) == 1:
        models.update((count, f"{count}x {kinds[0]}") for count in range(1, 257))
    return models


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

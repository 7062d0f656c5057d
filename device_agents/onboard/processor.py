"""The processor's clusters, their frequencies, and graphics processors, as the kernel shows them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from .files import Files, parse_number

_CPUS = "sys/devices/system/cpu"
_MAX_CPUS = 4096
# Parts of implementer 0x41 in /proc/cpuinfo, which names no core in words.
_ARM_CORES = {
    0xD03: "Cortex-A53",
    0xD04: "Cortex-A35",
    0xD05: "Cortex-A55",
    0xD07: "Cortex-A57",
    0xD08: "Cortex-A72",
    0xD09: "Cortex-A73",
    0xD0A: "Cortex-A75",
    0xD0B: "Cortex-A76",
    0xD0C: "Neoverse-N1",
    0xD0D: "Cortex-A77",
    0xD41: "Cortex-A78",
    0xD42: "Cortex-A78AE",
    0xD44: "Cortex-X1",
    0xD46: "Cortex-A510",
    0xD47: "Cortex-A710",
    0xD48: "Cortex-X2",
    0xD4D: "Cortex-A715",
    0xD4E: "Cortex-X3",
    0xD80: "Cortex-A520",
    0xD81: "Cortex-A720",
    0xD82: "Cortex-X4",
}


def clusters(files: Files) -> list[dict[str, Any]]:
    """Return the groups of equal CPUs that share a frequency, the first CPUs first.

    Args:
        files: The machine's files.

    Returns:
        For each group `cpus`, their numbers; `core`, its name; `capacity`, the kernel's measure of
        speed of which the fastest has 1024; `governor` and the `governors` on offer;
        `min_frequency_hz` and `max_frequency_hz` of the hardware, `frequency_hz` now. What the
        kernel does not say is None. A machine that says nothing has one group.
    """
    cores = core_names(files)
    groups: dict[tuple[Any, ...], list[int]] = {}
    for cpu in _online(files, cores):
        folder = f"{_CPUS}/cpu{cpu}"
        policy = files.resolve(f"{folder}/cpufreq")
        is_there = files.text(f"{policy}/scaling_governor") is not None
        key = (
            policy if is_there else None,
            cores.get(cpu),
            _number(files, f"{folder}/cpu_capacity"),
        )
        groups.setdefault(key, []).append(cpu)
    found = []
    for (policy, core, capacity), cpus in sorted(groups.items(), key=lambda item: item[1]):
        found.append(
            {"cpus": cpus, "core": core, "capacity": capacity, **_frequencies(files, policy)}
        )
    return found


def core_names(files: Files) -> dict[int, str]:
    """Return what kind of core each CPU is, where /proc/cpuinfo tells."""
    names = {}
    fields: dict[str, str] = {}
    for line in [*(files.text("proc/cpuinfo") or "").splitlines(), "processor: end"]:
        key, _, value = line.partition(":")
        key, value = key.strip(), value.strip()
        if key == "processor":
            name = _core_name(fields)
            if name and fields.get("processor", "").isdecimal():
                names[int(fields["processor"])] = name
            fields = {}
        fields[key] = value
    return names


def gpus(files: Files) -> list[dict[str, str]]:
    """Return NVIDIA's graphics processors that the driver lists: `model` and `bus`."""
    folder = "proc/driver/nvidia/gpus"
    found = []
    for bus in files.list(folder):
        for line in (files.text(f"{folder}/{bus}/information") or "").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "Model" and value.strip():
                found.append({"model": value.strip(), "bus": bus})
    return found


def _frequencies(files: Files, policy: str | None) -> dict[str, Any]:
    if policy is None:
        names = ("governor", "governors", "min_frequency_hz", "max_frequency_hz", "frequency_hz")
        return dict.fromkeys(names)
    offered = files.text(f"{policy}/scaling_available_governors")
    return {
        "governor": files.text(f"{policy}/scaling_governor"),
        "governors": offered.split() if offered else None,
        "min_frequency_hz": _number(files, f"{policy}/cpuinfo_min_freq", 1e3),
        "max_frequency_hz": _number(files, f"{policy}/cpuinfo_max_freq", 1e3),
        "frequency_hz": _number(files, f"{policy}/scaling_cur_freq", 1e3),
    }


def _core_name(fields: dict[str, str]) -> str | None:
    if fields.get("model name"):
        return fields["model name"]
    try:
        implementer = int(fields.get("CPU implementer", ""), 16)
        part = int(fields.get("CPU part", ""), 16)
    except ValueError:
        return None
    if implementer == 0x41 and part in _ARM_CORES:
        return _ARM_CORES[part]
    return f"part 0x{part:03x} of implementer 0x{implementer:02x}"


def _online(files: Files, cores: dict[int, str]) -> Sequence[int]:
    """Return the CPUs that run: the kernel writes them as 0-3,6."""
    cpus = []
    for span in (files.text(f"{_CPUS}/online") or "").split(","):
        ends = re.match(r"([0-9]{1,4})(?:-([0-9]{1,4}))?\Z", span)
        if ends:
            last = min(int(ends[2] or ends[1]), _MAX_CPUS)
            cpus += list(range(int(ends[1]), last + 1))
    return cpus or sorted(cores)


def _number(files: Files, path: str, factor: float = 1.0) -> float | None:
    value = parse_number(files.text(path) or "")
    return None if value is None else value * factor

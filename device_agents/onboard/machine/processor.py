"""The processor's clusters, their frequencies, and graphics processors, as the kernel shows them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..files import Files, parse_number
from .core_kinds import GAP, INTEL_GAP, named_kinds, parse_cpus, parts_by_gap

_CPUS = "sys/devices/system/cpu"
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
# Named since ids of devices no longer hold these names.
_LATER_ARM_CORES = {
    0xC07: "Cortex-A7",
    0xC08: "Cortex-A8",
    0xC09: "Cortex-A9",
    0xC0E: "Cortex-A17",
    0xC0F: "Cortex-A15",
    0xD06: "Cortex-A65",
    0xD0E: "Cortex-A76AE",
    0xD40: "Neoverse-V1",
    0xD49: "Neoverse-N2",
    0xD4B: "Cortex-A78C",
    0xD4C: "Cortex-X1C",
    0xD4F: "Neoverse-V2",
    0xD84: "Neoverse-V3",
    0xD85: "Cortex-X925",
    0xD87: "Cortex-A725",
    0xD8E: "Neoverse-N3",
}


_ALL_ARM_CORES = {**_ARM_CORES, **_LATER_ARM_CORES}


def clusters(files: Files) -> list[dict[str, Any]]:
    """Return the groups of equal CPUs, the first CPUs first.

    Arm's CPUs of one group share a frequency as well, unless each has one of its own. Elsewhere CPUs
    of one kind are one group (see `core_kinds`).

    Args:
        files: The machine's files.

    Returns:
        For each group `cpus`, their numbers; `core`, its name; `capacity`, the kernel's measure of
        speed of which the fastest has 1024; `governor` and the `governors` on offer;
        `min_frequency_hz` and `max_frequency_hz` of the hardware, `frequency_hz` now. What the
        kernel does not say is None. A machine that says nothing has one group.
    """
    texts = files.text("proc/cpuinfo") or ""
    cores = _core_names(texts)
    cpus = [_cpu(files, number, cores.get(number)) for number in _online(files, cores)]
    key = _arm_keys(files, cpus) if "CPU implementer" in texts else _kind_keys(files, texts, cpus)
    groups: dict[Any, list[_Cpu]] = {}
    for cpu in cpus:
        groups.setdefault(key[cpu.number], []).append(cpu)
    return [_group(files, members, key[members[0].number]) for members in groups.values()]


@dataclass(frozen=True)
class _Cpu:
    """What the kernel says of a CPU.

    Args:
        number: Its own.
        core: What kind of core it is, None where that is not told.
        capacity: Its speed of 1024; None if unknown.
        policy: Folder of its frequency, None without one.
        governor: Its governor; CPUs with another one do not behave alike.
        max_khz: Its highest frequency; None if unknown.
        min_khz: Its lowest one.
    """

    number: int
    core: str | None
    capacity: float | None
    policy: str | None
    governor: str | None
    max_khz: float | None
    min_khz: float | None


def _cpu(files: Files, number: int, core: str | None) -> _Cpu:
    folder = f"{_CPUS}/cpu{number}"
    policy = files.resolve(f"{folder}/cpufreq")
    governor = files.text(f"{policy}/scaling_governor")
    is_there = governor is not None
    return _Cpu(
        number,
        core,
        _number(files, f"{folder}/cpu_capacity"),
        policy if is_there else None,
        governor,
        _number(files, f"{policy}/cpuinfo_max_freq") if is_there else None,
        _number(files, f"{policy}/cpuinfo_min_freq") if is_there else None,
    )


def _arm_keys(files: Files, cpus: Sequence[_Cpu]) -> dict[int, tuple[Any, ...]]:
    """Return CPU -> what tells its group: core, capacity, and the frequency that it shares."""
    shared = Counter(cpu.policy for cpu in cpus)
    keys = {}
    for cpu in cpus:
        related = (files.text(f"{cpu.policy}/related_cpus") or "").split()
        # Servers give each core a frequency of its own: that parts none from its equals.
        is_shared = len(related) > 1 if related else shared[cpu.policy] > 1
        frequency = cpu.policy if is_shared else (cpu.governor, cpu.min_khz, cpu.max_khz)
        keys[cpu.number] = (cpu.core, cpu.capacity, frequency)
    return keys


def _kind_keys(files: Files, texts: str, cpus: Sequence[_Cpu]) -> dict[int, tuple[Any, ...]]:
    """Return CPU -> what tells its group: name, kind, governor, and the part by its speed."""
    named = named_kinds(files)
    gap = INTEL_GAP if "Intel" in texts and not named else GAP
    parts = {}
    for kind in {named.get(cpu.number) for cpu in cpus}:
        alike = [cpu for cpu in cpus if named.get(cpu.number) == kind]
        by_frequency = parts_by_gap({cpu.number: cpu.max_khz for cpu in alike}, gap)
        by_capacity = parts_by_gap({cpu.number: cpu.capacity for cpu in alike}, GAP)
        for cpu in alike:
            parts[cpu.number] = (by_frequency[cpu.number], by_capacity[cpu.number])
    return {
        cpu.number: (cpu.core, named.get(cpu.number), cpu.governor, *parts[cpu.number])
        for cpu in cpus
    }


def _group(files: Files, members: Sequence[_Cpu], key: tuple[Any, ...]) -> dict[str, Any]:
    kind = key[1] if isinstance(key[1], str) else None
    name = members[0].core
    capacities = [cpu.capacity for cpu in members if cpu.capacity is not None]
    policies = list(dict.fromkeys(cpu.policy for cpu in members if cpu.policy is not None))
    return {
        "cpus": [cpu.number for cpu in members],
        "core": f"{name or 'not named'} ({kind})" if kind else name,
        "capacity": max(capacities, default=None),
        **_frequencies(files, policies, members),
    }


def core_names(files: Files, *, is_former: bool = False) -> dict[int, str]:
    """Return what kind of core each CPU is, where /proc/cpuinfo tells.

    Args:
        files: The machine's files.
        is_former: Whether to name only those that have always been named, as former ids hold them.
    """
    return _core_names(files.text("proc/cpuinfo") or "", is_former=is_former)


def _core_names(text: str, *, is_former: bool = False) -> dict[int, str]:
    names = {}
    fields: dict[str, str] = {}
    for line in [*text.splitlines(), "processor: end"]:
        key, _, value = line.partition(":")
        key, value = key.strip(), value.strip()
        if key == "processor":
            name = _core_name(fields, _ARM_CORES if is_former else _ALL_ARM_CORES)
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


def _frequencies(files: Files, policies: Sequence[str], members: Sequence[_Cpu]) -> dict[str, Any]:
    """Return a group's governor and frequencies: the widest range, and the first CPU's frequency."""
    offers = [files.text(f"{each}/scaling_available_governors") or "" for each in policies]
    # What all have, in the first one's order.
    offered = [
        name
        for name in " ".join(offers[:1]).split()
        if all(name in each.split() for each in offers)
    ]
    highest = [cpu.max_khz for cpu in members if cpu.max_khz is not None]
    lowest = [cpu.min_khz for cpu in members if cpu.min_khz is not None]
    return {
        "governor": members[0].governor,
        "governors": offered or None,
        "min_frequency_hz": min(lowest) * 1e3 if lowest else None,
        "max_frequency_hz": max(highest) * 1e3 if highest else None,
        "frequency_hz": _number(files, f"{policies[0]}/scaling_cur_freq", 1e3)
        if policies
        else None,
    }


def _core_name(fields: dict[str, str], known: dict[int, str]) -> str | None:
    try:
        implementer = int(fields.get("CPU implementer", ""), 16)
        part = int(fields.get("CPU part", ""), 16)
    except ValueError:
        # Beside these two Arm's kernels name all cores alike, or none.
        return fields.get("model name") or None
    if implementer == 0x41 and part in known:
        return known[part]
    return f"part 0x{part:03x} of implementer 0x{implementer:02x}"


def _online(files: Files, cores: dict[int, str]) -> Sequence[int]:
    """Return the CPUs that run."""
    return parse_cpus(files.text(f"{_CPUS}/online") or "") or sorted(cores)


def _number(files: Files, path: str, factor: float = 1.0) -> float | None:
    value = parse_number(files.text(path) or "")
    return None if value is None else value * factor

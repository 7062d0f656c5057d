"""A device's description in words, for 80 columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from joulemap.showable_text import showable_answer

from ...datasets.answer_bounds import cleaned
from ...device_agents import registry
from ..campaign.requirements import install_line
from ..report.fingerprint_rows import fingerprint_rows
from . import console

MAX_TEXT = 500
MAX_REAL = 1e18
_IDENTITY = ("device_id", "board", "cpu_model", "num_cpus", "available_cpus", "architecture")
_SYSTEM = ("os", "kernel", "python", "python_path", "termux", "is_virtual")


def print_probe(
    url: str,
    fingerprint: Mapping[str, Any],
    meters: Mapping[str, Any],
    meterless: str,
    *,
    runs_networks: bool = True,
) -> None:
    """Print what a probe found: tables no wider than 80 columns.

    Args:
        url: The device.
        fingerprint: The probe's answer, with `clocks` where they were compared.
        meters: Its meters, `available` and `missing`.
        meterless: What to say where none can be read.
        runs_networks: Whether it runs any; a device that does not has no runtimes, and gets no
            meters.
    """
    fingerprint, meters = (
        cleaned(kind, showable_answer(each, MAX_TEXT))[0]
        for kind, each in (("probe", fingerprint), ("meters", meters))
    )
    console.print_table(
        f"Device {url}", ("property", "value"), identity_rows(fingerprint), has_numbers=False
    )
    runtimes = runtime_rows(fingerprint) if runs_networks else []
    for title, columns, rows in (
        ("Processor clusters", _CLUSTER_COLUMNS, cluster_rows(fingerprint)),
        ("Thermal zones", ("zone", "temperature", "counts"), zone_rows(fingerprint)),
        ("Control", ("what", "permitted", "in the way"), control_rows(fingerprint)),
        ("Runtimes", ("runtime", "version", "computes on"), runtimes),
        ("Clocks", _CLOCK_COLUMNS, clock_rows(fingerprint)),
        ("Meters", _METER_COLUMNS, meter_rows(meters)),
    ):
        if rows:
            console.RESULTS.print()
            console.print_table(title, columns, rows, has_numbers=False)
    missing = missing_runtimes(fingerprint) if runs_networks else []
    advice = [*throttling_sentences(fingerprint), *missing]
    if advice:
        console.RESULTS.print()
        console.print_list(advice)
    measuring = [m for m in _mappings(meters.get("available")) if m.get("kind") != "estimate"]
    if not measuring:
        console.RESULTS.print()
        console.RESULTS.print(meterless)
    if not measuring and runs_networks:
        console.RESULTS.print("Meters that are known need:")
        console.print_list([f"{name}: {entry.needs}" for name, entry in registry.meters().items()])
    sentences = meter_sentences(meters)
    if sentences:
        console.RESULTS.print()
        console.print_list(sentences)


def meter_rows(meters: Mapping[str, Any]) -> list[list[str]]:
    """Return the meters that can be read as rows of a table."""
    rows = []
    for meter in _mappings(meters.get("available")):
        period_s, step = _real(meter.get("update_period_s")), _real(meter.get("resolution"))
        unit = "W" if meter.get("kind") == "sampler" else "J"
        rows.append(
            [
                _meter_name(meter),
                str(meter.get("kind")),
                str(meter.get("domain")),
                f"{1 / period_s:.4g} Hz" if period_s else "to be observed",
                f"{step:.3g} {unit}" if step else "unknown",
            ]
        )
    return rows


def meter_sentences(meters: Mapping[str, Any]) -> list[str]:
    """Return what meters cannot see, and what to do about those that cannot be read."""
    found = []
    for meter in _mappings(meters.get("available")):
        unseen = [f"does not see {meter['unmeasured']}"] if meter.get("unmeasured") else []
        if meter.get("is_partial"):
            unseen.append("Taken by name only, never by --meter auto")
        notes = meter.get("notes")
        said = [*unseen, *(map(str, notes) if isinstance(notes, list) else ())]
        if said:
            found.append(f"{_meter_name(meter)}: {'. '.join(each.rstrip('.') for each in said)}.")
    for meter in _mappings(meters.get("missing")):
        said = [str(meter.get("reason") or "no reason given"), str(meter.get("remedy") or "")]
        found.append(f"{_meter_name(meter)} cannot be read: {'. '.join(filter(None, said))}")
    return found


def _meter_name(meter: Mapping[str, Any]) -> str:
    return f"{meter.get('name')}:{meter.get('channel') or ''}".rstrip(":")


def identity_rows(fingerprint: Mapping[str, Any]) -> list[list[str]]:
    """Return what the device is: names and values."""
    rows = []
    for key in (*_IDENTITY, "memory_bytes", *_SYSTEM):
        value = fingerprint.get(key)
        if key in fingerprint and (value is not None or key not in ("board", "termux")):
            rows += fingerprint_rows({key: value})
    android = fingerprint.get("android")
    if isinstance(android, Mapping):
        rows += [[f"android {key}", str(value)] for key, value in android.items()]
    for gpu in _mappings(fingerprint.get("gpus")):
        rows.append(["gpu", f"{gpu.get('model')} ({gpu.get('bus')})"])
    return rows


_CLUSTER_COLUMNS = ("CPUs", "core", "governor", "range", "now")


def cluster_rows(fingerprint: Mapping[str, Any]) -> list[list[str]]:
    """Return the groups of equal CPUs, each with its governor and frequencies."""
    rows = []
    for group in _mappings(fingerprint.get("clusters")):
        low, high, now = (
            _real(group.get(name))
            for name in ("min_frequency_hz", "max_frequency_hz", "frequency_hz")
        )
        span = "not readable" if high is None else f"{_ghz(low)} to {_ghz(high)} GHz"
        capacity = _real(group.get("capacity"))
        core = str(group.get("core") or "not named")
        rows.append(
            [
                _spans([cpu for cpu in _items(group.get("cpus")) if isinstance(cpu, int)]),
                core + (f", capacity {capacity:.0f}" if capacity is not None else ""),
                str(group.get("governor") or "not readable"),
                span,
                "" if now is None else f"{_ghz(now)} GHz",
            ]
        )
    return rows


def zone_rows(fingerprint: Mapping[str, Any]) -> list[list[str]]:
    """Return the thermal zones with their temperatures, and why one does not count."""
    return [
        [
            str(zone.get("type") or "not named"),
            _celsius(_real(zone.get("temperature_c"))),
            "yes" if zone.get("is_used") else f"no: {zone.get('note') or 'not told'}",
        ]
        for zone in _mappings(fingerprint.get("thermal_zones"))
    ]


def throttling_sentences(fingerprint: Mapping[str, Any]) -> list[str]:
    """Return what a Raspberry Pi's firmware says of its supply and its heat, as sentences."""
    said = _mapping(fingerprint.get("firmware_throttling"))
    sentences = []
    for key, when in (("now", "now"), ("since_start", "since the start at some time")):
        texts = [str(text) for text in _items(said.get(key))]
        if texts:
            sentences.append(f"The firmware says, {when}: {', '.join(texts)}.")
    return sentences


def control_rows(fingerprint: Mapping[str, Any]) -> list[list[str]]:
    """Return what may be held still while measuring, and what is in the way."""
    control = fingerprint.get("control")
    return [
        [
            name.replace("_", " "),
            "yes" if answer.get("is_permitted") else "no",
            str(answer.get("reason") or ""),
        ]
        for name, answer in (control.items() if isinstance(control, Mapping) else ())
        if isinstance(answer, Mapping)
    ]


def runtime_rows(fingerprint: Mapping[str, Any]) -> list[list[str]]:
    """Return each runtime's version and what it computes on."""
    versions = _mapping(fingerprint.get("runtimes"))
    providers = _mapping(fingerprint.get("execution_providers"))
    return [
        [
            name,
            str(versions.get(name) or "missing"),
            ", ".join(
                str(each).removesuffix("ExecutionProvider") for each in _items(providers.get(name))
            ),
        ]
        for name in registry.runtimes()
    ]


def missing_runtimes(fingerprint: Mapping[str, Any]) -> list[str]:
    """Return for each runtime that is missing how to get it on this device."""
    return [
        f"Get {name} with: {install_line(fingerprint, name)}"
        for name, version, _ in runtime_rows(fingerprint)
        if version == "missing"
    ]


_METER_COLUMNS = ("meter", "kind", "measures", "rate", "step")
_CLOCK_COLUMNS = ("clock", "ahead of this machine's", "gains per second")


def clock_rows(fingerprint: Mapping[str, Any]) -> list[list[str]]:
    """Return how the device's clocks stand to this machine's."""
    clocks = _mapping(_mapping(fingerprint.get("clocks")).get("clocks"))
    rows = []
    for name, clock in clocks.items():
        unsure = 1e3 * clock["offset_uncertainty_s"]
        rows.append(
            [
                name.removesuffix("_s"),
                f"{clock['offset_s']:.4f} s +- {unsure:.2f} ms",
                f"{1e6 * clock['skew']:.0f} +- {1e6 * clock['skew_uncertainty']:.0f} us",
            ]
        )
    return rows


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _mappings(value: object) -> list[Mapping[str, Any]]:
    return [item for item in _items(value) if isinstance(item, Mapping)]


def _items(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _real(value: object) -> float | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    # A longer integer is no float.
    return float(value) if is_number and abs(value) < MAX_REAL else None  # type: ignore[arg-type]


def _ghz(hertz: float | None) -> str:
    return "?" if hertz is None else f"{hertz / 1e9:.2f}"


def _celsius(value: float | None) -> str:
    return "not readable" if value is None else f"{value:.1f} deg C"


def _spans(cpus: Sequence[int]) -> str:
    """Return CPU numbers as 0-3, 6."""
    parts: list[list[int]] = []
    for cpu in cpus:
        if parts and cpu == parts[-1][1] + 1:
            parts[-1][1] = cpu
        else:
            parts.append([cpu, cpu])
    return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in parts)

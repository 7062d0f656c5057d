"""What is known by name: ways to reach a device, runtimes, meters. Nothing is imported until used."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import cast

from joulemap import InputError

from ..datasets.field_checks import name_of
from .interfaces import ConnectOptions, Transport
from .onboard.energy.meter_options import MeterOptionError, split_url, split_wanted


@dataclass(frozen=True)
class TransportEntry:
    """Where a transport lives, how its URLs look, and whether it is given `ConnectOptions`."""

    module: str
    class_name: str
    url_form: str
    takes_options: bool = False


@dataclass(frozen=True)
class RuntimeEntry:
    """Which module in `runtimes/` drives a runtime, and how to get the runtime on a device."""

    module: str
    install: str


@dataclass(frozen=True)
class MeterEntry:
    """Which module in `meters/` finds meters of one kind, and what they need in one line."""

    module: str
    needs: str


TRANSPORTS: Mapping[str, TransportEntry] = MappingProxyType(
    {
        "local": TransportEntry("local", "LocalTransport", "local:"),
        "ssh": TransportEntry("ssh", "SshTransport", "ssh://user@host", takes_options=True),
        "adb": TransportEntry("adb", "AdbTransport", "adb:SERIAL"),
    }
)

# Simulated devices are reached by no transport (see `profiler.devices`).
SIMULATED_FORM = "sim:NAME"

RUNTIMES: Mapping[str, RuntimeEntry] = MappingProxyType(
    {
        "onnxruntime": RuntimeEntry("onnx_runtime", "pip install onnxruntime"),
    }
)


# In the order in which `--meter auto` prefers them: counters, then fast samplers, then gauges.
METERS: Mapping[str, MeterEntry] = MappingProxyType(
    {
        "rapl": MeterEntry("rapl", "an Intel or AMD processor, /sys/class/powercap readable"),
        "nvml": MeterEntry("nvml", "an NVIDIA card and its driver; pip install nvidia-ml-py"),
        "android_odpm": MeterEntry("android_odpm", "a Pixel 6 or later, adb root"),
        "jetson": MeterEntry("jetson", "an NVIDIA Jetson board with INA3221 sensors"),
        "amdgpu": MeterEntry("amdgpu", "an AMD card with the driver amdgpu"),
        "hwmon": MeterEntry(
            "hwmon", "a power sensor with a driver of hwmon or IIO, such as INA219"
        ),
        "pi5": MeterEntry("pi5", "a Raspberry Pi 5 and vcgencmd"),
        "battery": MeterEntry("battery", "a battery, unplugged; calibrated by a step of the load"),
        "estimated": MeterEntry("estimated", "nothing; taken only when asked for by name"),
    }
)


def open_transport(url: str, options: ConnectOptions | None = None) -> Transport:
    """Return an open transport for a device's URL.

    Args:
        url: Such as `local:`; the part before the colon names the transport.
        options: What the user permits when a device is reached over a network.

    Raises:
        InputError: No such transport, or a URL that it cannot read.
    """
    scheme, colon, rest = url.partition(":")
    entry = TRANSPORTS.get(scheme) if colon else None
    if entry is None:
        forms = ", ".join([*(entry.url_form for entry in TRANSPORTS.values()), SIMULATED_FORM])
        raise InputError(f"device '{url}' has no known form; write one of: {forms}")
    module = importlib.import_module(f"{__package__}.transports.{entry.module}")
    make = getattr(module, entry.class_name)
    opened = make(rest, options or ConnectOptions()) if entry.takes_options else make(rest)
    return cast(Transport, opened)


def check_meters(wanted: str) -> None:
    """Do nothing if a choice of meters names known ones; whether a device has them is its matter.

    Args:
        wanted: `auto`, `none` or `NAME[:CHANNEL][?OPTIONS][,NAME[:CHANNEL][?OPTIONS]]`.

    Raises:
        InputError: There is no meter of such a name, or no such option of it.
    """
    try:
        plain, _ = split_wanted(wanted)
    except MeterOptionError as error:
        raise InputError(str(error)) from error
    if plain in ("auto", "none"):
        return
    for name in plain.split(","):
        if name.partition(":")[0] not in METERS:
            raise InputError(
                f"unknown meter '{name}'; write auto, none, or one of: {', '.join(METERS)}"
            )


def plain_url(url: str) -> tuple[str, dict[str, dict[str, str]]]:
    """Return a device's URL without what it tells of meters, and that.

    Raises:
        InputError: It tells what cannot be, or holds what a terminal would obey.
    """
    if url:  # without one, the kinds of addresses are listed
        name_of("the device", url, 4096)
    try:
        return split_url(url)
    except MeterOptionError as error:
        raise InputError(f"device {error}") from error


def runtime_entry(name: str) -> RuntimeEntry:
    """Return the registry's line for a runtime.

    Raises:
        InputError: No runtime of that name.
    """
    try:
        return RUNTIMES[name]
    except KeyError:
        raise InputError(f"unknown runtime '{name}'; known: {', '.join(RUNTIMES)}") from None

"""What is known by name: ways to reach a device, runtimes, meters. Nothing is imported until used."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType, ModuleType
from typing import cast

from joulemap import InputError
from joulemap.plug_ins import PlugIns

from ..datasets.field_checks import name_of
from .interfaces import ConnectOptions, Transport
from .onboard.energy.meter_options import MeterOptionError, split_url, split_wanted
from .outside_modules import OutsideModule, OutsideModules


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

OUTSIDE_TRANSPORTS = PlugIns("transports", "transport", {*TRANSPORTS, "sim"})
OUTSIDE_RUNTIMES = OutsideModules("runtimes", "runtime", RUNTIMES, ("version", "Runtime"))
OUTSIDE_METERS = OutsideModules("meters", "meter", {*METERS, "auto", "none"}, ("find",))
# Outside meters come before these: whoever installs one does not want a battery's gauge.
_LAST_METERS = ("battery", "estimated")


def register_transport(name: str, cls: type[Transport]) -> None:
    """Make a way to reach devices known by the part of their URL before the colon.

    A package says the same for good by an entry point of the group `joulemap.transports`.

    Args:
        name: Letters, digits, `_` and `-`: URLs are `NAME:REST`.
        cls: Called with what follows the colon, and with `ConnectOptions` besides if it has
            `takes_options = True`.

    Raises:
        InputError: The name is taken, or cannot be one.
    """
    OUTSIDE_TRANSPORTS.register(name, cls)


def register_runtime(name: str, module: ModuleType | str) -> None:
    """Make a runtime known by a name, in this process; its module travels to the device.

    A package says the same for good by an entry point of the group `joulemap.runtimes`.

    Args:
        name: Of a-z, digits and `_`.
        module: The module, or its name; its `INSTALL` says how to get the runtime.

    Raises:
        InputError: The name is taken, or cannot be one.
    """
    OUTSIDE_RUNTIMES.register(name, module)


def register_meter(name: str, module: ModuleType | str) -> None:
    """Make meters known by a name, in this process; their module travels to the device.

    A package says the same for good by an entry point of the group `joulemap.meters`.

    Args:
        name: Of a-z, digits and `_`; its meters have it in their `MeterInfo`.
        module: The module, or its name; its `NEEDS` says in one line what they need.

    Raises:
        InputError: The name is taken, or cannot be one.
    """
    OUTSIDE_METERS.register(name, module)


def runtimes() -> dict[str, RuntimeEntry]:
    """Return all runtimes by name, those of other packages last."""
    outside = {each.name: _runtime_of(each) for each in OUTSIDE_RUNTIMES.modules()}
    return {**RUNTIMES, **outside}


def meters() -> dict[str, MeterEntry]:
    """Return all meters by name, in the order in which `--meter auto` prefers them."""
    first = {name: entry for name, entry in METERS.items() if name not in _LAST_METERS}
    outside = {
        each.name: MeterEntry(each.file, each.said("NEEDS") or "see its package")
        for each in OUTSIDE_METERS.modules()
    }
    return {**first, **outside, **{name: METERS[name] for name in _LAST_METERS}}


def runtime_module(name: str) -> ModuleType:
    """Return the module that drives a runtime, imported here.

    Raises:
        InputError: No runtime of that name.
    """
    outside = OUTSIDE_RUNTIMES.module_named(name)
    if outside is not None:
        return outside.module
    return importlib.import_module(f"{__package__}.runtimes.{runtime_entry(name).module}")


def _runtime_of(outside: OutsideModule) -> RuntimeEntry:
    return RuntimeEntry(outside.file, outside.said("INSTALL") or "see its package")


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
        if colon and (outside := _outside_transport(scheme, rest, options)) is not None:
            return outside
        own = [*(entry.url_form for entry in TRANSPORTS.values()), SIMULATED_FORM]
        forms = ", ".join([*own, *(f"{name}:..." for name in OUTSIDE_TRANSPORTS.names())])
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
        backend = name.partition(":")[0]
        if backend not in METERS and OUTSIDE_METERS.module_named(backend) is None:
            known = ", ".join((*METERS, *OUTSIDE_METERS.names()))
            raise InputError(f"unknown meter '{name}'; write auto, none, or one of: {known}")


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
        InputError: No runtime of that name, or a package's cannot be used.
    """
    if name in RUNTIMES:
        return RUNTIMES[name]
    outside = OUTSIDE_RUNTIMES.module_named(name)
    if outside is None:
        known = ", ".join((*RUNTIMES, *OUTSIDE_RUNTIMES.names()))
        raise InputError(f"unknown runtime '{name}'; known: {known}")
    return _runtime_of(outside)


def _outside_transport(scheme: str, rest: str, options: ConnectOptions | None) -> Transport | None:
    """Return an open transport that another package brings; None if none has this scheme.

    Raises:
        InputError: It cannot be loaded, or cannot read the URL.
    """
    plug_in = OUTSIDE_TRANSPORTS.find(scheme)
    if plug_in is None:
        return None
    make = OUTSIDE_TRANSPORTS.load(plug_in)
    if not callable(make):
        raise OUTSIDE_TRANSPORTS.unusable(plug_in, "a class of transports")
    arguments = (options or ConnectOptions(),) if getattr(make, "takes_options", False) else ()
    return cast(Transport, make(rest, *arguments))

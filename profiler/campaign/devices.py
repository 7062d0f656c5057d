"""Devices by URL, simulated ones included: those compute their costs with a model of hardware."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from urllib.parse import parse_qsl

from joulemap import InputError

from ...datasets import NetworkSpec
from ...device_agents.device import Device
from ...device_agents.interfaces import ConnectOptions
from ...device_agents.registry import open_transport, plain_url
from ...device_agents.simulated import PRESETS, simulated_device
from ...device_agents.simulated.board_options import BoardOptions
from ...device_agents.simulated.board_transport import BoardDevice
from ...models.systolic.hardware import PRESETS as ARRAYS
from ...models.systolic.hardware import SystolicHardware, hardware_named

SCHEME = "sim:"
# The part after it of devices that run the real agent with simulated meters.
BOARD = "board"
# What a simulated device takes a unit of energy to be where its hardware leaves it open: an
# assumption in the range of published figures, not a measurement.
ASSUMED_JOULE_PER_MAC = 1e-12
_OPTIONS = ("disturbances", "seed")


@dataclass(frozen=True)
class SimulatedUrl:
    """A simulated device's URL: `sim:NAME?disturbances=PRESET&seed=N`.

    Attributes:
        hardware: A preset of the systolic-array model, or a TOML file.
        disturbances: A preset of `device_agents.simulated`; None for a device without noise.
        seed: Of everything random.
    """

    hardware: str
    disturbances: str | None = None
    seed: int = 0

    @classmethod
    def parse(cls, url: str) -> SimulatedUrl:
        """Return the parts of a URL.

        Raises:
            InputError: It is not of that form.
        """
        name, mark, query = url.removeprefix(SCHEME).partition("?")
        form = "sim:NAME?disturbances=PRESET&seed=N"
        try:
            pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(mark))
        except ValueError as error:
            raise InputError(f"device '{url}' cannot be read; write {form}") from error
        options = dict(pairs)
        unknown = sorted(set(options) - set(_OPTIONS))
        if unknown or len(options) < len(pairs) or not name:
            problem = f"has an unknown option '{unknown[0]}'" if unknown else "cannot be read"
            raise InputError(f"device '{url}' {problem}; write {form}")
        disturbances, seed = options.get("disturbances"), options.get("seed", "0")
        if disturbances is not None and disturbances not in PRESETS:
            raise InputError(
                f"device '{url}' has unknown disturbances '{disturbances}'; known: "
                f"{', '.join(PRESETS)}"
            )
        if not seed.isdecimal() or len(seed) > 18:
            raise InputError(f"device '{url}' has seed '{seed}', not a number of 0 or more")
        return cls(name, disturbances, int(seed))


def is_simulated(url: str) -> bool:
    """Return whether a device's URL names a simulated one."""
    return url.startswith(SCHEME)


def is_board(url: str) -> bool:
    """Return whether a device's URL names a simulated board: real runs, simulated meters."""
    return is_simulated(url) and url.removeprefix(SCHEME).partition("?")[0] == BOARD


def runs_networks(url: str | Device) -> bool:
    """Return whether a device, open or not yet, runs networks (see `Device.runs_networks`)."""
    if isinstance(url, Device):
        return url.runs_networks
    return not is_simulated(url) or is_board(url)


def board_options(url: str) -> BoardOptions:
    """Return the options in a simulated board's URL, `sim:board?meter=rapl,ina219&idle_w=2&...`.

    Raises:
        InputError: An option is unknown, given twice or makes no sense.
    """
    query = url.partition("?")[2]
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing="?" in url)
    except ValueError as error:
        raise InputError(
            f"device '{url}' cannot be read; write sim:board?meter=rapl&seed=N"
        ) from error
    options = dict(pairs)
    if len(options) < len(pairs):
        raise InputError(f"device '{url}' has an option twice")
    try:
        return BoardOptions.parse(options)
    except InputError as error:
        raise InputError(f"device '{url}': {error}") from error


def open_device(
    url: str,
    spec: NetworkSpec | None = None,
    *,
    batch: int = 1,
    agent_visits: int = 50,
    connect: ConnectOptions | None = None,
) -> Device:
    """Return the device that a URL names.

    Args:
        url: Such as `local:`, `sim:eyeriss` or `sim:board?meter=rapl`.
        spec: The network that it will run; a simulated device needs it before its first visit.
        batch: Samples per call; a simulated device works on one after the other.
        agent_visits: Visits after which a fresh agent takes over.
        connect: What the user permits when the device is reached over a network.

    Raises:
        InputError: The URL has no known form, or the hardware cannot run the network.
    """
    plain, _ = plain_url(url)
    if not is_simulated(url):
        transport = open_transport(plain, connect)
        return Device(url, transport=transport, agent_visits=agent_visits)
    if is_board(url):
        return BoardDevice(url, board_options(plain), agent_visits=agent_visits)
    parts = SimulatedUrl.parse(plain)
    array = _array(parts.hardware)
    latency, energy = _costs(array, spec, batch)
    device, _ = simulated_device(
        latency,
        PRESETS[parts.disturbances]() if parts.disturbances else None,
        parts.seed,
        energy=energy,
        name=f"{array.name} ({array.rows}x{array.columns} systolic array)",
        details={"simulated_hardware": asdict(array)},
        url=url,
        agent_visits=agent_visits,
    )
    return device


def clean_device(url: str, connect: ConnectOptions | None = None) -> list[str]:
    """Remove what joulemap left on a device; return what could not be removed, as sentences.

    Args:
        url: The device; nothing is left on a simulated one.
        connect: What the user permits when the device is reached over a network.

    Raises:
        DeviceError: The device cannot be reached.
    """
    if is_simulated(url):
        return []
    with open_device(url, connect=connect) as device:
        kept = device.clean()["kept"]
    if not kept:
        return []
    text = f"the device still runs {len(kept)} other campaign(s), so joulemap's agent stays there"
    return [f"{text}; --clean removes it after the last"]


_Cost = Callable[[tuple[int, ...]], float]


def _array(hardware: str) -> SystolicHardware:
    """Return the hardware with all that a device needs."""
    if hardware not in ARRAYS and not hardware.endswith(".toml"):
        known = ", ".join(f"{SCHEME}{name}" for name in (*sorted(ARRAYS), BOARD))
        raise InputError(
            f"there is no simulated device '{SCHEME}{hardware}'; known: {known}, or write a file of "
            f"hardware, {SCHEME}FILE.toml"
        )
    array = hardware_named(hardware)
    if array.clock_hz is None:
        raise InputError(
            f"hardware '{array.name}' has no clock_hz, which a simulated device needs; add it to "
            f"{hardware}"
        )
    if array.joule_per_mac is None:
        array = replace(array, joule_per_mac=ASSUMED_JOULE_PER_MAC)
    return array


def _costs(array: SystolicHardware, spec: NetworkSpec | None, batch: int) -> tuple[_Cost, _Cost]:
    """Return seconds and joules of a call by widths."""
    from ...models.systolic.predictor import SystolicArrayModel

    if spec is None:

        def unknown(widths: tuple[int, ...]) -> float:
            raise InputError("a simulated device runs variants of the network it was opened for")

        return unknown, unknown
    latency = SystolicArrayModel(spec, array, quantity="latency")
    energy = SystolicArrayModel(spec, array)
    # A layer that does not fit says so now, not at the thousandth variant.
    latency.predict([spec.max_widths])

    def seconds(widths: tuple[int, ...]) -> float:
        return batch * float(latency.predict([widths])[0])

    def joules(widths: tuple[int, ...]) -> float:
        return batch * float(energy.predict([widths])[0])

    return seconds, joules

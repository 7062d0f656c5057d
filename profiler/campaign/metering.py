"""What a campaign does with meters: their descriptions, their readings, the time they take."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from joulemap import InputError

from ...datasets.energy_records import EnergyEstimateReading, EnergyReading, PowerTrace
from ...datasets.field_checks import finite, not_negative
from ...device_agents.device import Device
from ...device_agents.errors import StableDeviceError, TransientDeviceError
from ...device_agents.onboard.energy.meter import COUNTER, ESTIMATE, SAMPLER, MeterInfo
from ...device_agents.onboard.energy.visit import FALL_S, MIN_IDLE_S, SETTLE_S, least_window_s
from ...device_agents.onboard.visit_answer import VisitAnswer
from .protocol import Protocol

SOURCES = {COUNTER: "counter", SAMPLER: "sampled"}
# What a campaign's record says of joules that the simulator computes without any meter.
SIMULATOR: Mapping[str, Any] = MappingProxyType(
    {"name": "simulator", "channel": "all", "kind": "model", "domain": "the simulated hardware"}
)
# A device's description of a meter is kept up to this size.
MAX_DESCRIPTION = 20_000


def meters_of(device: Device) -> tuple[Mapping[str, Any], ...]:
    """Return the descriptions of the meters in use, checked; none without.

    Raises:
        StableDeviceError: The device describes something else.
    """
    chosen = device.meters.chosen
    try:
        if len(json.dumps(chosen)) > MAX_DESCRIPTION:
            raise ValueError("it is too long")
        for meter in chosen:
            for name in ("name", "channel", "kind", "domain"):
                if not isinstance(meter[name], str):
                    raise TypeError(f"its {name} is no text")
            if meter["kind"] not in (COUNTER, SAMPLER, ESTIMATE):
                raise ValueError(f"a meter of kind {meter['kind'][:50]!r}")
            if not 0 < finite("its period", meter["observed_update_period_s"]) < 3600:
                raise ValueError("a meter without an update period")
            not_negative("its averaging time", meter.get("averaging_s", 0.0))
            if not isinstance(meter.get("state", {}), dict):
                raise TypeError("its state is no table")
    except (InputError, KeyError, TypeError, ValueError) as error:
        raise StableDeviceError(
            f"the device's description of its meters makes no sense: {error}"
        ) from error
    return tuple(chosen)


def recorded_meters(
    device: Device, meters: tuple[Mapping[str, Any], ...]
) -> tuple[Mapping[str, Any], ...]:
    """Return what a campaign's record says of meters: those in use, or that joules are computed.

    Args:
        device: A device that was prepared.
        meters: What `meters_of` returns for it.
    """
    # No other than a simulated one computes joules.
    if not meters and device.is_simulated and device.meters.is_simulated:
        return (SIMULATOR,)
    return meters


def meter_text(meter: Mapping[str, Any]) -> str:
    """Return a sentence about a meter in use."""
    text = (
        f"meter: {meter['name']}:{meter['channel']}, a {meter['kind']} of {meter['domain']}, updated "
        f"every {1000 * meter['observed_update_period_s']:.3g} ms ({meter.get('why')})"
    )
    return f"{text}; not measured: {meter['unmeasured']}" if meter.get("unmeasured") else text


def metered_visit_s(meters: Sequence[Mapping[str, Any]], protocol: Protocol) -> float:
    """Return how much longer a visit takes for its meters, in seconds; 0 without.

    Args:
        meters: Their descriptions.
        protocol: How a variant is measured.
    """
    if not meters:
        return 0.0
    settings = protocol.visit_settings
    window_s, memory_s = 0.0, 0.0
    for meter in meters:
        known = {name: meter[name] for name in MeterInfo.__dataclass_fields__ if name in meter}
        info = MeterInfo(**known)
        least_s = least_window_s(info, meter["observed_update_period_s"], settings)
        window_s = max(window_s, least_s)
        memory_s = max(memory_s, info.averaging_s)
    idle_s = 2 * max(MIN_IDLE_S, window_s / 2)
    settling_s = SETTLE_S + FALL_S + 2 * memory_s
    return window_s + idle_s + settling_s


def energy_fields(answer: VisitAnswer, *, is_simulated: bool) -> dict[str, Any]:
    """Return a visit's fields about energy: what its meters say, checked.

    Args:
        answer: The device's answer.
        is_simulated: Whether the device is a simulated one.

    Raises:
        TransientDeviceError: It makes no sense.
    """
    said, simulated_j = answer.energy, answer.simulated_energy_j
    try:
        if simulated_j is not None:
            if not is_simulated:
                raise InputError("a real device claims a simulated energy")
            return {"energy": EnergyReading.simple(simulated_j)}
        return {} if said is None else _fields(said, is_simulated=is_simulated)
    except (InputError, KeyError, TypeError, AttributeError) as error:
        raise TransientDeviceError(f"the device's meter makes no sense: {error}") from error


def _fields(said: Mapping[str, Any], *, is_simulated: bool) -> dict[str, Any]:
    trace = said["trace"]
    made: dict[str, Any] = {
        "power_trace": None if trace is None else PowerTrace.from_dict(trace),
        "energy_refused": None,
    }
    energy, kind, flags = said["energy"], said["kind"], []
    if energy is None:
        made["energy_refused"] = str(said["refused"] or "the meter says nothing")[:2000]
        return made
    if kind == ESTIMATE:
        if energy["net_j"] <= 0:
            made["energy_refused"] = "the estimate is not above zero"
            return made
        content = {
            "energy_estimate_j": energy["net_j"],
            "meter": said["meter"],
            "channel": said["channel"],
            "notes": (),
        }
        made["energy_estimate"] = EnergyEstimateReading.from_dict(content)
        return made
    if kind not in SOURCES:
        raise InputError(f"a meter of kind {str(kind)[:50]!r}")
    flags = list(energy["flags"])
    check = said["check"]
    if check is not None and check.get("is_disagreement"):
        flags.append("disagreement")
    made["energy"] = EnergyReading.from_dict(
        {
            "energy_j": energy["net_j"],
            "standard_error_j": energy["net_standard_error_j"],
            "freedom": energy["freedom"],
            "gross_j": energy["gross_j"],
            "gross_standard_error_j": energy["gross_standard_error_j"],
            "idle_w": energy["idle_w"],
            "idle_standard_error_w": energy["idle_standard_error_w"],
            "source": "simulated" if is_simulated else SOURCES[kind],
            "meter": said["meter"],
            "channel": said["channel"],
            "window_s": energy["window_s"],
            "calls": said["calls"],
            "updates": energy["updates"],
            "missing_share": energy["missing_share"],
            "flags": flags,
            "check": check,
        }
    )
    return made

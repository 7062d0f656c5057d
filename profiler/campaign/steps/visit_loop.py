"""The loop of a campaign: one visit after another, each in the journal before the next begins."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from joulemap import InputError, JoulemapError, interruption
from joulemap.showable_text import showable

from ....datasets import Timing, Visit
from ....device_agents.device import Device
from ....device_agents.errors import DeviceError, StableDeviceError, TransientDeviceError
from ..metering import energy_fields
from ..protocol import Protocol
from .link_token import name_of
from .noise import NoiseTracker
from .preparation import PreparedCampaign

# A device that fails so often in a row will not come back by itself.
MAX_FAILURES_IN_A_ROW = 20
# Nor will one that fails so often before anything succeeds.
MAX_FIRST_FAILURES = 5
# Characters of the last failure's words, and of a URL, in the error that ends a campaign.
MAX_CAUSE = 120
# How a visit's error begins that would come again.
STABLE = "stable"


def measure(campaign: PreparedCampaign) -> None:
    """Make the visits that remain.

    Raises:
        DeviceError: Too many failed one after another.
        JoulemapError: Too many gave no energy one after another.
    """
    device, plan, journal = campaign.device, campaign.plan, campaign.journal
    noise = NoiseTracker(journal.content.visits)
    failures = without_energy = 0
    has_succeeded = False
    settings = plan.protocol.visit_settings
    for visit in plan:
        interruption.check()
        ahead = [(name_of(v), v.widths) for v in plan.ahead(device.num_ahead(campaign.visit_s))]
        device.send_ahead(ahead, settings, campaign.visit_s)
        record = _measure(device, visit, plan.protocol)
        journal.append(record)
        device.acknowledge(name_of(visit))
        plan.note(record)
        noise.add(record)
        campaign.observer.visited(record, plan.num_done, noise.single_visit)
        failures = failures + 1 if record.error else 0
        has_succeeded = has_succeeded or not record.error
        without_energy = without_energy + 1 if record.energy_refused else 0
        if without_energy >= MAX_FAILURES_IN_A_ROW:
            raise JoulemapError(
                f"{without_energy} visits gave no energy one after another, the last one because "
                f"{record.energy_refused}; what was measured is safe: mend it and repeat the same "
                "command, or measure without energy in another folder (--meter none)"
            )
        if failures >= (MAX_FAILURES_IN_A_ROW if has_succeeded else MAX_FIRST_FAILURES):
            raise _gave_up(failures, str(record.error), device.url)


def _gave_up(failures: int, error: str, url: str) -> DeviceError:
    """Return why a campaign ends whose last visits all failed, and what to do about it."""
    kind, _, cause = error.partition(": ")
    text = f"{failures} visits failed one after another, the last one so: {cause[:MAX_CAUSE]}; "
    if kind == STABLE:
        return StableDeviceError(
            f"{text}it will fail again: 'joulemap probe {url[:MAX_CAUSE]}' says what the device has, and "
            "another runtime or network may run there. What was measured is safe"
        )
    return TransientDeviceError(
        f"{text}it may pass: end other programs on the device, or take fewer threads or a smaller "
        "batch in another folder. What was measured is safe, the same command continues"
    )


def _measure(device: Device, visit: Visit, protocol: Protocol) -> Visit:
    """Return the visit with what the device measured, or with the reason why it failed."""
    made = vars(visit) | {"started_at": datetime.now(UTC).isoformat(timespec="milliseconds")}
    made = {name: made[name] for name in Visit.__dataclass_fields__}
    try:
        answer = device.visit(visit.widths, protocol.visit_settings, name_of(visit))
        reading = energy_fields(answer, is_simulated=device.is_simulated)
        return Visit(**made | {"timing": _timing(answer.timing())} | reading)
    except DeviceError as error:
        # It is no failure of the visit's if the agent was ended with the whole.
        interruption.check()
        kind = "transient" if isinstance(error, TransientDeviceError) else STABLE
        return Visit(**made | {"error": f"{kind}: {showable(error.full_text)}"})


def _timing(answer: Mapping[str, object]) -> Timing:
    try:
        return Timing.from_dict(answer)
    except InputError as error:
        raise TransientDeviceError(f"the device's answer makes no sense: {error}") from error

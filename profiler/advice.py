"""What a campaign's visits say about the machine, in plain words: what, why it matters, what to do."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

import numpy as np

from ..datasets.estimation import CampaignEstimate
from ..datasets.journal import JournalContent
from ..datasets.measurement import Measurement, measurements_of
from ..datasets.records import Timing
from .energy_advice import energy_advice

NOTABLE_DRIFT = 0.03
NOTABLE_NOISE = 0.05
NOTABLE_SHARE = 0.1
NOTABLE_STEAL = 0.01
NOTABLE_LOAD = 0.5
HOT_C = 80.0
CLOCK_JUMP_S = 0.1


def advise(journal: JournalContent) -> list[str]:
    """Return what to know and do about a campaign's measurements, most important first.

    An empty list means: nothing stood out.
    """
    measurements = measurements_of(journal.visits, journal.rejections)
    timings = [visit.timing for visit in journal.visits if visit.timing is not None]
    if not timings:
        return ["No visit succeeded: there is nothing to judge."]
    estimate = measurements[0].campaign
    checks: tuple[Callable[[], list[str]], ...] = (
        lambda: _unusable(measurements),
        lambda: _rejections(estimate),
        lambda: _imprecise(measurements, float(journal.campaign.protocol.get("rel_error", 0.03))),
        lambda: energy_advice(
            measurements,
            journal.visits,
            float(journal.campaign.protocol.get("energy_rel_error", 0.03)),
        ),
        lambda: _states(estimate),
        lambda: _drift(estimate),
        lambda: _noise(estimate),
        lambda: _machine(timings, journal),
    )
    return [sentence for check in checks for sentence in check()]


def _unusable(measurements: list[Measurement]) -> list[str]:
    without = sum(measurement.latency is None for measurement in measurements)
    if not without:
        return []
    return [
        (
            f"{without} of {len(measurements)} variants have no usable visit, so their latency is "
            "missing: every try failed or was disturbed. Stop other work on the device and run the "
            "same command in a new folder, or allow more tries."
        )
    ]


def _rejections(estimate: CampaignEstimate) -> list[str]:
    share = len(estimate.rejections) / len(estimate.visits)
    if share <= NOTABLE_SHARE:
        return []
    kinds = Counter(_kind(reason) for reason in estimate.rejections.values())
    kind, count = kinds.most_common(1)[0]
    return [
        (
            f"{100 * share:.0f} % of the visits were rejected, {count} of {len(estimate.rejections)} "
            f"because {kind}. They were made again where tries remained; other programs or virtual "
            "machines compete with the measurement. Stop them, or measure at a quieter time."
        )
    ]


def _kind(reason: str) -> str:
    for mark, kind in (
        ("within the visit", "the reference changed within the visit"),
        ("no lasting state", "the machine was briefly slower"),
        ("withheld", "the hypervisor withheld time"),
        ("suspended", "the device was suspended"),
        ("other visits", "they differed from their variant's other visits"),
    ):
        if mark in reason:
            return kind
    return reason


def _imprecise(measurements: list[Measurement], rel_error: float) -> list[str]:
    wide = [m.latency for m in measurements if m.latency and m.latency.relative_error > rel_error]
    if not wide:
        return []
    worst = max(latency.relative_error for latency in wide)
    return [
        (
            f"{len(wide)} of {len(measurements)} variants miss the aim of +-{100 * rel_error:.0f} % "
            f"(the widest has +-{100 * worst:.0f} %). Give more visits (--visits) or longer ones "
            "(--visit-s), or accept it with --rel-error."
        )
    ]


def _states(estimate: CampaignEstimate) -> list[str]:
    history = estimate.history
    if len(history.level) < 2:
        return []
    slow = history.state > 0
    factor = math.exp(float(history.level[-1]))
    said = [
        (
            f"The machine changed between {len(history.level)} speeds; in {100 * slow.mean():.0f} % of "
            f"the visits it was slower, up to {factor:.2f} times. Those visits were scaled to the "
            f"fastest speed (variants follow the reference by a factor of "
            f"{estimate.state_elasticity:.2f}). A shared host, power saving or heat does this: use a "
            "machine of your own, or lock the frequency."
        )
    ]
    if estimate.state_elasticity < 0.6:
        said.append(
            "Variants hardly follow the reference between these speeds, so the correction is "
            "small and the slow visits may come from something that only touches the reference."
        )
    return said


def _drift(estimate: CampaignEstimate) -> list[str]:
    drift = estimate.history.drift
    size = float(drift.max() - drift.min())
    if size <= NOTABLE_DRIFT:
        return []
    if estimate.drift_elasticity < 0.3:
        return [
            (
                f"The reference variant drifted by {100 * size:.0f} % and the other variants did not: "
                "nothing was corrected for it."
            )
        ]
    tenth = max(1, len(drift) // 10)
    trend = float(np.mean(drift[-tenth:]) - np.mean(drift[:tenth]))
    way = "became slower" if trend > 0 else "became faster"
    if abs(trend) < size / 2:
        way = "went up and down in speed"
    return [
        (
            f"The device {way} by {100 * size:.0f} % over the campaign; every visit was corrected to "
            "the average. Warm the device up before, or cool it, and check for other work on it."
        )
    ]


def _noise(estimate: CampaignEstimate) -> list[str]:
    noise = float(estimate.noise_sd[0])
    if noise <= NOTABLE_NOISE:
        return []
    return [
        (
            f"Single visits of the same variant differ by {100 * noise:.0f} % (standard deviation). "
            "Longer visits (--visit-s) help against short disturbances, more of them (--visits) "
            "against long ones."
        )
    ]


def _machine(timings: list[Timing], journal: JournalContent) -> list[str]:
    said = []
    unsettled = sum(not timing.is_settled for timing in timings) / len(timings)
    if unsettled > NOTABLE_SHARE:
        said.append(
            f"In {100 * unsettled:.0f} % of the visits the warm-up ended before the run times "
            "settled. Longer visits (--visit-s) give it more time."
        )
    blocks = [block for timing in timings for block in timing.blocks]
    stolen = sum(block.steal_s or 0.0 for block in blocks) / sum(block.wall_s for block in blocks)
    if stolen > NOTABLE_STEAL:
        said.append(
            f"The hypervisor withheld {100 * stolen:.1f} % of the time: other virtual machines "
            "use the same processor. Choose a dedicated one if you can."
        )
    threads = journal.campaign.conditions.threads
    load = _median(timings, "load_1min")
    if load is not None and load > threads + NOTABLE_LOAD:
        said.append(
            f"The load was {load:.1f} with {threads} thread(s) measured: something else was "
            "running. Stop it."
        )
    held = sum(timing.machine.get("is_throttled") == 1 for timing in timings)
    if held:
        said.append(
            f"In {held} of {len(timings)} visits a cooling device or the firmware held the processor "
            "back: it was hot, or its supply too weak. Cool it, take a stronger supply, or let it "
            "pause (--max-temperature)."
        )
    zone = journal.campaign.device.get("temperature_zone")
    heat = [timing.machine.get("temperature_c") for timing in timings]
    hottest = max((value for value in heat if value is not None), default=None)
    if hottest is not None and hottest > HOT_C:
        said.append(
            f"The device reached {hottest:.0f} C{f' ({zone})' if zone else ''}, where many throttle. Cool it, or measure with "
            "pauses."
        )
    limit_c = journal.campaign.protocol.get("max_temperature_c")
    starts = [timing.machine.get("is_cool") for timing in timings]
    if limit_c is not None and not all(starts):
        said.append(
            f"{starts.count(0)} of {len(starts)} visits began hotter than the {limit_c:.0f} C asked "
            f"for, {starts.count(None)} at a temperature that cannot be read there. Give it more "
            "time to cool, a fan, or a higher --max-temperature."
        )
    governor = journal.campaign.device.get("governor")
    lock = journal.campaign.device.get("frequency_lock")
    is_locked = isinstance(lock, dict) and bool(lock.get("is_locked"))
    if governor not in (None, "performance") and not is_locked:
        said.append(
            f"The frequency governor is '{governor}': the clock follows the load. For steady times: "
            "sudo cpupower frequency-set -g performance."
        )
    jumps = sum(abs(t.machine.get("clock_jump_s") or 0.0) > CLOCK_JUMP_S for t in timings)
    if jumps:
        said.append(
            f"The wall clock was set during {jumps} visit(s). Times come from the monotonic clock "
            "and are not touched by it; only the visits' labels are."
        )
    return said


def _median(timings: list[Timing], name: str) -> float | None:
    values = [value for t in timings if (value := t.machine.get(name)) is not None]
    return float(np.median(values)) if values else None

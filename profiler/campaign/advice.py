"""What a campaign's visits say about the machine, in plain words: what, why it matters, what to do."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import numpy.typing as npt

from ...datasets.estimation import CampaignEstimate
from ...datasets.journal import JournalContent
from ...datasets.measurement import Measurement, measurements_of
from ...datasets.records import Timing
from .correction_words import FOLLOWS, correction_words, drift_size
from .energy_advice import energy_advice
from .findings import Finding, Severity, in_order
from .starvation import computes_on_processors, starvation

NOTABLE_DRIFT = 0.03
NOTABLE_NOISE = 0.05
NOTABLE_SHARE = 0.1
NOTABLE_STEAL = 0.01
NOTABLE_LOAD = 0.5
# A campaign that is not steady by its noise, and whose common error is above this:
# of simulated campaigns like that (`benchmarks/protocol.py --preset harsh`) the 95 % intervals of
# latency cover the truth so often: 94.4 % (93.6 to 95.3) of 250, by docs/figures.md.
DISTURBED_COMMON_SD = 0.01
DISTURBED_COVERAGE = 0.94
NOTABLE_WARM_UP = 0.03
HOT_C = 80.0
CLOCK_JUMP_S = 0.1


def advise(journal: JournalContent) -> list[str]:
    """Return what to know and do about a campaign's measurements, the gravest first.

    An empty list means: nothing stood out.
    """
    return [finding.text for finding in campaign_findings(journal)]


def campaign_findings(journal: JournalContent) -> list[Finding]:
    """Return what stands out about a campaign's measurements, the gravest first."""
    measurements = measurements_of(journal.visits, journal.rejections, journal.campaign.judgement)
    timings = [visit.timing for visit in journal.visits if visit.timing is not None]
    if not timings:
        text = "No visit succeeded: there is nothing to judge."
        return [Finding("visits", Severity.MAY_BE_WRONG, text)]
    estimate = measurements[0].campaign
    protocol = journal.campaign.protocol
    energy = energy_advice(
        measurements, journal.visits, float(protocol.get("energy_rel_error", 0.03))
    )
    found = [
        *_unusable(measurements),
        *_starved(timings, journal.campaign.conditions.runtime),
        *_disturbed(estimate),
        *_rejections(estimate),
        *_imprecise(measurements, float(protocol.get("rel_error", 0.03))),
        *(
            Finding(f"energy {number}", Severity.LESS_PRECISE, text)
            for number, text in enumerate(energy)
        ),
        *_speed(estimate),
        *_noise(estimate),
        *_warm_up(timings, estimate),
        *_machine(timings, journal),
    ]
    return in_order(found)


def _unusable(measurements: list[Measurement]) -> list[Finding]:
    without = sum(measurement.latency is None for measurement in measurements)
    if not without:
        return []
    return [
        Finding(
            "visits",
            Severity.MAY_BE_WRONG,
            f"{without} of {len(measurements)} variants have no usable visit, so their latency is "
            "missing: every try failed or was disturbed. Stop other work on the device and run the "
            "same command in a new folder, or allow more tries.",
        )
    ]


def _starved(timings: list[Timing], runtime: str) -> list[Finding]:
    found = starvation(timings) if computes_on_processors(runtime) else None
    if found is None or found.share <= NOTABLE_SHARE:
        return []
    return [
        Finding(
            "processor",
            Severity.MAY_BE_WRONG,
            f"In {100 * found.share:.0f} % of the visits the measured process had a processor for "
            f"only {100 * found.processor_share:.0f} % of the time. Latencies are up to "
            f"{1 / max(found.processor_share, 0.01):.1f} times those of a free device, and their "
            "intervals do not show it. Stop other programs, or lift the CPU limit (a container's "
            "quota), and measure in a new folder.",
        )
    ]


def _disturbed(estimate: CampaignEstimate) -> list[Finding]:
    noise = float(np.max(estimate.noise_sd))
    if noise <= estimate.judgement.steady_noise_sd or estimate.common_sd <= DISTURBED_COMMON_SD:
        return []
    return [
        Finding(
            "disturbance",
            Severity.MAY_BE_WRONG,
            f"The machine was badly disturbed: visits repeat to {100 * noise:.0f} %, and the speed "
            f"that all latencies are stated for is known to {100 * estimate.common_sd:.1f} % "
            "(standard deviations). In simulated campaigns like this the 95 % intervals hold the "
            f"truth in {100 * DISTURBED_COVERAGE:.0f} % of cases. Measure on a quieter or cooler "
            "device.",
        )
    ]


def _rejections(estimate: CampaignEstimate) -> list[Finding]:
    share = len(estimate.rejections) / len(estimate.visits)
    if share <= NOTABLE_SHARE:
        return []
    kinds = Counter(_kind(reason) for reason in estimate.rejections.values())
    kind, count = kinds.most_common(1)[0]
    return [
        Finding(
            "rejections",
            Severity.LESS_PRECISE,
            f"{100 * share:.0f} % of the visits were rejected, {count} of {len(estimate.rejections)} "
            f"because {kind}. They were made again where tries remained; other programs or virtual "
            "machines compete with the measurement. Stop them, or measure at a quieter time.",
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


def _imprecise(measurements: list[Measurement], rel_error: float) -> list[Finding]:
    wide = [m.latency for m in measurements if m.latency and m.latency.relative_error > rel_error]
    if not wide:
        return []
    worst = max(latency.relative_error for latency in wide)
    return [
        Finding(
            "precision",
            Severity.LESS_PRECISE,
            f"{len(wide)} of {len(measurements)} variants miss the aim of +-{100 * rel_error:.0f} % "
            f"(the widest has +-{100 * worst:.0f} %). Give more visits (--visits) or longer ones "
            "(--visit-s), or accept it with --rel-error.",
        )
    ]


def _speed(estimate: CampaignEstimate) -> list[Finding]:
    """What changed in the machine's speed and what was done about it: one finding says both."""
    history = estimate.history
    size = drift_size(estimate)
    has_states = len(history.level) > 1
    if not has_states and size <= NOTABLE_DRIFT:
        return []
    said = []
    if has_states:
        slow = history.state > 0
        said.append(
            f"The machine changed between {len(history.level)} speeds; in {100 * slow.mean():.0f} % "
            f"of the visits it was slower, up to {math.exp(float(history.level[-1])):.2f} times."
        )
    is_alone = estimate.drift_elasticity < FOLLOWS
    if size > NOTABLE_DRIFT:
        said.append(
            f"The reference variant drifted by {100 * size:.0f} %."
            if is_alone
            else f"The device {_way(history.drift)} by {100 * size:.0f} % over the campaign."
        )
    said.append(correction_words(estimate))
    if has_states:
        said.append(
            "A shared host, power saving or heat does this: use a machine of your own, or lock the "
            "frequency."
        )
    elif not is_alone:
        said.append("Warm the device up before, or cool it, and check for other work on it.")
    return [Finding("speed", Severity.LESS_PRECISE, " ".join(said))]


def _way(drift: npt.NDArray[np.float64]) -> str:
    tenth = max(1, len(drift) // 10)
    trend = float(np.mean(drift[-tenth:]) - np.mean(drift[:tenth]))
    if abs(trend) < float(drift.max() - drift.min()) / 2:
        return "went up and down in speed"
    return "became slower" if trend > 0 else "became faster"


def _noise(estimate: CampaignEstimate) -> list[Finding]:
    noise = float(estimate.noise_sd[0])
    if noise <= NOTABLE_NOISE:
        return []
    return [
        Finding(
            "noise",
            Severity.LESS_PRECISE,
            f"Single visits of the same variant differ by {100 * noise:.0f} % (standard deviation). "
            "Longer visits (--visit-s) help against short disturbances, more of them (--visits) "
            "against long ones.",
        )
    ]


def _warm_up(timings: list[Timing], estimate: CampaignEstimate) -> list[Finding]:
    unsettled = sum(not timing.is_settled for timing in timings) / len(timings)
    left = [float(np.median(estimate.warm_up.of_blocks(timing))) for timing in timings]
    most = math.expm1(float(np.quantile(left, 0.9)))
    if most > NOTABLE_WARM_UP:
        return [
            Finding(
                "warm-up",
                Severity.LESS_PRECISE,
                "Visits ended before the run times settled: a tenth of them were still "
                f"{100 * most:.0f} % slower or more. That is taken off by how the campaign's "
                "visits warm up. Longer visits (--visit-s) give it more time.",
            )
        ]
    if unsettled <= NOTABLE_SHARE:
        return []
    return [
        Finding(
            "warm-up",
            Severity.LESS_PRECISE,
            f"In {100 * unsettled:.0f} % of the visits the warm-up ended before the run times "
            "settled. Longer visits (--visit-s) give it more time.",
        )
    ]


def _machine(timings: list[Timing], journal: JournalContent) -> list[Finding]:
    said = []
    blocks = [block for timing in timings for block in timing.blocks]
    stolen = sum(block.steal_s or 0.0 for block in blocks) / sum(block.wall_s for block in blocks)
    if stolen > NOTABLE_STEAL:
        said.append(
            Finding(
                "hypervisor",
                Severity.LESS_PRECISE,
                f"The hypervisor withheld {100 * stolen:.1f} % of the time: other virtual machines "
                "use the same processor. Choose a dedicated one if you can.",
            )
        )
    threads = journal.campaign.conditions.threads
    load = _median(timings, "load_1min")
    if load is not None and load > threads + NOTABLE_LOAD:
        said.append(
            Finding(
                "load",
                Severity.LESS_PRECISE,
                f"The load was {load:.1f} with {threads} thread(s) measured: something else was "
                "running. Stop it.",
            )
        )
    held = sum(timing.machine.get("is_throttled") == 1 for timing in timings)
    if held:
        said.append(
            Finding(
                "throttling",
                Severity.LESS_PRECISE,
                f"In {held} of {len(timings)} visits a cooling device or the firmware held the processor "
                "back: it was hot, or its supply too weak. Cool it, take a stronger supply, or let it "
                "pause (--max-temperature).",
            )
        )
    zone = journal.campaign.device.get("temperature_zone")
    heat = [timing.machine.get("temperature_c") for timing in timings]
    hottest = max((value for value in heat if value is not None), default=None)
    if hottest is not None and hottest > HOT_C:
        said.append(
            Finding(
                "temperature",
                Severity.NOTE,
                f"The device reached {hottest:.0f} C{f' ({zone})' if zone else ''}, where many throttle. Cool it, or measure with "
                "pauses.",
            )
        )
    limit_c = journal.campaign.protocol.get("max_temperature_c")
    starts = [timing.machine.get("is_cool") for timing in timings]
    if limit_c is not None and not all(starts):
        said.append(
            Finding(
                "cooling",
                Severity.LESS_PRECISE,
                f"{starts.count(0)} of {len(starts)} visits began hotter than the {limit_c:.0f} C asked "
                f"for, {starts.count(None)} at a temperature that cannot be read there. Give it more "
                "time to cool, a fan, or a higher --max-temperature.",
            )
        )
    governor = journal.campaign.device.get("governor")
    lock = journal.campaign.device.get("frequency_lock")
    is_locked = isinstance(lock, dict) and bool(lock.get("is_locked"))
    if governor not in (None, "performance") and not is_locked:
        said.append(
            Finding(
                "governor",
                Severity.NOTE,
                f"The frequency governor is '{governor}': the clock follows the load. For steady times: "
                "sudo cpupower frequency-set -g performance.",
            )
        )
    jumps = sum(abs(t.machine.get("clock_jump_s") or 0.0) > CLOCK_JUMP_S for t in timings)
    if jumps:
        said.append(
            Finding(
                "clock",
                Severity.NOTE,
                f"The wall clock was set during {jumps} visit(s). Times come from the monotonic clock "
                "and are not touched by it; only the visits' labels are.",
            )
        )
    return said


def _median(timings: list[Timing], name: str) -> float | None:
    values = [value for t in timings if (value := t.machine.get(name)) is not None]
    return float(np.median(values)) if values else None

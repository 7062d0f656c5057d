"""A campaign: measure how a device's cost depends on a network's widths.

::

    spec --sample--> variants --plan--> round 1 | round 2 | round 3 | re-visits | where still imprecise
                                          |                                            (see `plan`)
       widths --> agent on the device: materialise, load, reference, warm up, blocks, reference
                                          |
                         journal: one durable line per visit
                                          |
        end of a round: judge all visits together, reject what was disturbed, make it again
                                          |
         dataset: drift-corrected median over blocks, 95 % interval over visits

Nothing of a campaign lives in memory alone: it is interrupted at any moment and continued by the
same call, which plans the same visits and skips what the journal holds.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from typing import Protocol as TypingProtocol

from joulemap import InputError, JoulemapError, __version__, interruption
from joulemap.showable_text import showable

from ...datasets import Conditions, CostDataset, NetworkSpec, Timing, Visit
from ...datasets.journal import FILE_NAME, CampaignRecord, Journal
from ...datasets.store import export_campaign, held_folder, lost_lines
from ...datasets.verification import UnverifiedWarning
from ...device_agents.device import Device, Preparation, StartGate
from ...device_agents.errors import DeviceError, StableDeviceError, TransientDeviceError
from ...device_agents.interfaces import ConnectOptions
from ...device_agents.registry import check_meters, runtime_entry
from ..networks.choice import chosen_network
from ..templates.export import cached_template
from .devices import open_device, runs_networks
from .layers import check_has_layers, time_layers
from .link_token import link_token, name_of
from .metering import energy_fields, meter_text, metered_visit_s, meters_of, recorded_meters
from .noise import NoiseTracker
from .plan import VisitPlan
from .plan_text import plan_text
from .protocol import Protocol, reference_widths
from .requirements import require_processors, require_runtime
from .sampling import WidthTuple, sample, sampler_named
from .transfer_points import CHOSEN, choose_points, record_of

if TYPE_CHECKING:
    from ...models import Predictor
    from ..networks.factories import Factory

# A device that fails so often in a row will not come back by itself.
MAX_FAILURES_IN_A_ROW = 20
# Nor will one that fails so often before anything succeeds.
MAX_FIRST_FAILURES = 5
# Characters of the last failure's words, and of a URL, in the error that ends a campaign.
MAX_CAUSE = 120
# How a visit's error begins that would come again.
STABLE = "stable"
PRECISIONS = ("fp32",)
# The sampling's name where the caller listed the width vectors.
LISTED = "listed"


class Observer(TypingProtocol):
    """Is told how a campaign goes."""

    def message(self, text: str) -> None:
        """Take one sentence for the user."""

    def started(self, total: int, done: int, visit_s: float) -> None:
        """Learn how many visits there are, how many were made before, and how long one takes."""

    def visited(self, visit: Visit, done: int, noise: float | None) -> None:
        """Learn of one more visit, how many count by now, and the noise of a single one so far."""


class Silent:
    """Tells nobody."""

    def message(self, text: str) -> None:
        """Ignore the sentence."""

    def started(self, total: int, done: int, visit_s: float) -> None:
        """Ignore the start."""

    def visited(self, visit: Visit, done: int, noise: float | None) -> None:
        """Ignore the visit."""


def profile(
    url: str | Device,
    network: str | Factory | NetworkSpec,
    *,
    samples: int | None = None,
    widths: Sequence[Sequence[int]] | None = None,
    out: str | Path,
    sampling: str = "sobol",
    seed: int = 0,
    runtime: str = "onnxruntime",
    batch: int = 1,
    resolution: int | None = None,
    precision: str = "fp32",
    threads: int = 1,
    lock_frequency: bool = False,
    meter: str = "auto",
    protocol: Protocol | None = None,
    observer: Observer | None = None,
    sources: Sequence[Predictor] = (),
    connect: ConnectOptions | None = None,
    layers: int = 0,
    allow_code: bool = False,
) -> CostDataset:
    """Return measured costs (seconds, joules) of variants; start, continue or extend.

    Args:
        url: The device, such as `local:`, or one that is open already; it is closed in the end.
        network: A name of `networks.names()`, `module:function` or `FILE.py:function` of your own,
            such a function itself, or a spec.
        samples: How many width vectors to measure.
        widths: These width vectors in channels instead of a sample; more may be added at the end.
        out: Folder of the campaign; the same call continues what is there.
        sampling: How width vectors are chosen, see `sampling.SAMPLERS`.
        seed: Of the sampler and the visits' order.
        runtime: What executes variants.
        batch: Samples per call.
        resolution: Height and width of the input; the network's own when None.
        precision: Number format.
        threads: Threads inside one operator.
        lock_frequency: Hold the processor's clock while measuring, where permitted; what was there
            before is put back at the end, also after a crash.
        meter: What energy is read from: `auto`, the best that the device has; `none`; or
            `NAME[:CHANNEL]`, after a comma a second one that checks the first; a battery's may be
            followed by what is known of it, `battery?current_unit=mA&sign=-`.
        protocol: How a variant is measured.
        observer: Is told how it goes.
        sources: Predictors of other devices; the samples are then those that tell most about this
            one, chosen from candidates that `sampling` draws.
        connect: What the user permits when the device is reached over a network.
        layers: Of how many variants to time single layers as well, into the folder's
            `layers.parquet` (see `profile_layers`); no other campaign comes in between.
        allow_code: Run the code that a spec names although the spec was read from a file.

    Raises:
        InputError: Something given cannot be used, or the folder holds another campaign.
        DeviceError: The device cannot be used.
        JoulemapError: No variant could be measured.
    """
    protocol, observer = protocol or Protocol(), observer or Silent()
    if batch < 1 or threads < 1:
        raise InputError(f"batch is {batch} and threads {threads}; both are at least 1")
    if layers < 0:
        raise InputError(f"layers is {layers}; it is a number of variants, at least 0")
    if layers:
        check_has_layers(url)
    if precision not in PRECISIONS:
        raise InputError(f"unknown precision '{precision}'; known: {', '.join(PRECISIONS)}")
    is_run = runs_networks(url)
    spec = chosen_network(network, resolution, is_run=is_run, allow_code=allow_code)
    variants, sampling = _variants(spec, samples, widths, sampling, seed, sources)
    size = "x".join(map(str, spec.input_shape[1:]))
    conditions = Conditions(batch, size, precision, runtime, threads)
    runtime_entry(runtime)
    if isinstance(url, str):
        check_meters(meter)

    opened = (
        open_device(url, spec, batch=batch, agent_visits=protocol.agent_visits, connect=connect)
        if isinstance(url, str)
        else url
    )
    with opened as device, held_folder(out) as folder:
        device.token, device.on_message = link_token(folder), observer.message
        fingerprint = device.probe()
        observer.message(f"device: {fingerprint.get('cpu_model')} ({fingerprint['device_id']})")
        require_runtime(fingerprint, runtime, device.url)
        require_processors(fingerprint, threads, device.url)
        # A simulated device computes costs from widths and never sees a network.
        has_template = device.runs_networks
        if has_template:
            metering = (
                "" if meter == "none" else ", and looking for meters (a battery takes a minute)"
            )
            observer.message(f"preparing the network and its reference variant{metering}")
        template = cached_template(spec, batch).to_json().encode() if has_template else b""
        device.prepare(
            Preparation(
                template,
                reference_widths(spec),
                runtime,
                threads,
                lock_frequency,
                meter,
                protocol.to_dict(),
            )
        )
        meters = meters_of(device)
        campaign = CampaignRecord(
            spec=spec,
            conditions=conditions,
            device=fingerprint
            | {
                "affinity": device.affinity,
                "frequency_lock": device.frequency_lock,
                "device_lock": device.device_lock,
                "temperature_zone": device.temperature_zone,
            },
            runtime_version=str(device.runtime_version),
            protocol=protocol.to_dict(),
            sampling=sampling,
            seed=seed,
            reference_widths=reference_widths(spec),
            joulemap_version=__version__,
            meters=recorded_meters(device, meters),
            meter_note=str(device.meters.get("why") or ""),
        )
        _tell_meters(device, meters, meter, observer)
        with open_journal(folder, campaign, variants) as journal:
            if journal.content.torn_bytes:
                observer.message(
                    f"the journal ended in an unfinished line of {journal.content.torn_bytes} "
                    "bytes, which was cut off; that visit is made again"
                )
            if journal.content.unusable:
                observer.message(
                    f"warning: {len(journal.content.unusable)} lines of the journal hold what no "
                    f"device can truthfully say; visits there count as failed and are made again "
                    f"while tries remain; {showable(journal.content.unusable[0], 300)}"
                )
            plan = VisitPlan(
                spec,
                conditions,
                variants,
                protocol,
                seed,
                journal.content.visits,
                journal.content.rejections,
                journal.reject,
            )
            num_open = 0 if plan.is_out_of_time else plan.num_open
            visit_s = protocol.visit_duration_s + metered_visit_s(meters, protocol)
            clock = "" if has_template else " of simulated time"
            observer.message(plan_text(plan, num_open, visit_s, clock))
            if num_open:
                _settle(device, protocol, observer)
            observer.started(plan.num_done + num_open, plan.num_done, visit_s)
            try:
                _measure_all(device, plan, journal, observer, visit_s)
            except BaseException:
                # What ended the campaign is to be told, not what it may do to the export as well.
                with contextlib.suppress(JoulemapError), interruption.finishing():
                    _export(folder, plan)
                raise
            with interruption.finishing():
                _export(folder, plan)
        if layers and plan.num_done:
            observer.message(f"timing single layers of at most {layers} variants")
            vectors = [tuple(row) for row in CostDataset.load(folder).widths[:layers].tolist()]
            time_layers(
                device,
                fingerprint,
                spec,
                vectors,
                batch=batch,
                threads=threads,
                runtime=runtime,
                out=folder,
            )
    if not plan.num_done:
        rejected = f"; the first rejected: {next(iter(plan.rejections.values()), None)}"
        raise JoulemapError(
            f"no visit can be used; the first failed so: {plan.first_error}{rejected}"
        )
    return CostDataset.load(folder)


def _variants(
    spec: NetworkSpec,
    samples: int | None,
    widths: Sequence[Sequence[int]] | None,
    sampling: str,
    seed: int,
    sources: Sequence[Predictor],
) -> tuple[list[WidthTuple], str]:
    """Return the width vectors to measure, and the name of how they were chosen."""
    if (samples is None) == (widths is None):
        raise InputError("write either samples, a number, or widths, a list of width vectors")
    if sources and samples is None:
        raise InputError("sources choose what to measure; write samples, a number, not widths")
    if samples is not None and sources:
        points = choose_points(spec, sources, samples, sampling=sampling, seed=seed)
        return points, record_of(sampling, sources)
    if samples is not None:
        return sample(spec, samples, sampling=sampling, seed=seed), sampling
    listed = list(dict.fromkeys(spec.check_widths(vector) for vector in widths or ()))
    if not listed:
        raise InputError("widths is empty; there is nothing to measure")
    return listed, LISTED


def _tell_meters(
    device: Device,
    meters: Sequence[Mapping[str, Any]],
    wanted: str,
    observer: Observer,
) -> None:
    """Say what energy is read from, or why it is not."""
    for meter in meters:
        observer.message(meter_text(meter))
    warnings = device.meters.get("warnings")
    for text in warnings if isinstance(warnings, list) else ():
        observer.message(f"warning: {str(text)[:500]}")
    if not meters and wanted != "none" and device.runs_networks:
        why = str(device.meters.get("why") or "the device says nothing about meters")
        observer.message(f"no energy is measured: {why[:1000]}")


def _export(folder: Path, plan: VisitPlan) -> None:
    """Write the dataset of what was measured so far, if anything was."""
    if not any(visit.timing for visit in plan.visits):
        return
    try:
        export_campaign(folder)
    except InputError as error:
        raise JoulemapError(
            f"{error}; the measurements themselves are safe, and the same command continues once "
            "the folder can be written"
        ) from error


def _settle(device: Device, protocol: Protocol, observer: Observer) -> None:
    """Wait for an idle, cool machine; say what could not be had."""
    observer.message(f"waiting until the device is idle, at most {protocol.start_timeout_s:.0f} s")
    gate = device.wait_until_ready(
        StartGate(
            max_busy_share=protocol.max_busy_share,
            max_temperature_c=protocol.max_temperature_c,
            timeout_s=protocol.start_timeout_s,
        )
    )
    if not gate.get("is_ready"):
        observer.message(f"warning: measuring all the same: {gate.get('reason')}")
    elif gate.get("reason"):
        observer.message(f"warning: {gate['reason']}")
    for answer in (device.affinity, device.frequency_lock):
        if answer.get("reason"):
            observer.message(f"warning: {answer['reason']}")


def _measure_all(
    device: Device, plan: VisitPlan, journal: Journal, observer: Observer, visit_s: float
) -> None:
    """Make the visits that remain; one takes about so many seconds."""
    noise = NoiseTracker(journal.content.visits)
    failures = without_energy = 0
    has_succeeded = False
    settings = plan.protocol.to_dict()
    for visit in plan:
        interruption.check()
        ahead = [(name_of(v), v.widths) for v in plan.ahead(device.num_ahead(visit_s))]
        device.send_ahead(ahead, settings, visit_s)
        record = _measure(device, visit, plan.protocol)
        journal.append(record)
        device.acknowledge(name_of(visit))
        plan.note(record)
        noise.add(record)
        observer.visited(record, plan.num_done, noise.single_visit)
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
        answer = device.visit(visit.widths, protocol.to_dict(), name_of(visit))
        reading = energy_fields(answer, is_simulated=device.is_simulated)
        return Visit(**made | {"timing": _timing(answer)} | reading)
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


def open_journal(folder: Path, campaign: CampaignRecord, variants: Sequence[WidthTuple]) -> Journal:
    """Return the folder's journal, new or continued.

    Raises:
        InputError: It belongs to another campaign (the differences are named), or the new sample
            does not begin with what was measured.
    """
    path = folder / FILE_NAME
    if not os.path.lexists(path):
        if (folder / "measurements.parquet").exists():
            raise InputError(f"{folder} holds an imported dataset; choose another folder")
        return Journal.create(path, campaign)
    journal = Journal(path)
    if lost := lost_lines(folder, journal.content):
        warnings.warn(f"{lost}: they are measured again", UnverifiedWarning, stacklevel=2)
    try:
        differences = journal.content.campaign.differences(campaign)
        if differences:
            raise InputError(
                f"{folder} holds another campaign ({'; '.join(differences)}); choose another "
                "folder, or repeat that campaign's settings"
            )
        measured = {visit.widths for visit in journal.content.visits}
        if foreign := measured - set(variants):
            raise InputError(
                f"{folder} cannot be continued: {_why_not(campaign, measured, foreign, variants)}"
            )
    except BaseException:
        journal.close()
        raise
    return journal


def _why_not(
    campaign: CampaignRecord,
    measured: Collection[WidthTuple],
    foreign: Collection[WidthTuple],
    variants: Sequence[WidthTuple],
) -> str:
    """Return why a campaign that measured foreign variants is not the one that is asked for."""
    is_listed = campaign.sampling == LISTED or CHOSEN in campaign.sampling
    if not is_listed and not sampler_named(campaign.sampling).is_prefix_stable:
        return f"a {campaign.sampling} sample cannot be extended with another --samples"
    if len(measured) > len(variants):
        return (
            f"it has measured {len(measured)} variants already, more than asked for now; write "
            "--samples at least as large"
        )
    return (
        f"{len(foreign)} of its {len(measured)} variants are not among those that are asked for "
        "now; choose another folder"
    )

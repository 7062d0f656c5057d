"""The first step of a campaign: device, folder, journal and plan are made ready to measure."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from joulemap import __version__
from joulemap.showable_text import showable

from ....datasets.journal import CampaignRecord, Journal
from ....device_agents.device import Device, Preparation, StartGate
from ....device_agents.onboard.probe_answer import ProbeAnswer
from ...templates.export import cached_template
from ..metering import meter_text, metered_visit_s, meters_of, recorded_meters
from ..observer import Observer
from ..plan import VisitPlan
from ..plan_text import plan_text
from ..protocol import Protocol, reference_widths
from ..requirements import require_processors, require_runtime
from ..settings import CampaignSettings
from ..subject import Subject
from .continuation import open_journal
from .link_token import link_token


@dataclass(frozen=True)
class PreparedCampaign:
    """A campaign that can measure.

    Args:
        settings: What is asked for.
        subject: What is measured.
        device: Knows the network and its meters by now.
        folder: Of the campaign, held against others.
        observer: Is told how it goes.
        probed: What the device says of itself.
        journal: What was measured before, and takes what follows.
        plan: Which visits remain.
        visit_s: What one takes, roughly, in seconds.
    """

    settings: CampaignSettings
    subject: Subject
    device: Device
    folder: Path
    observer: Observer
    probed: ProbeAnswer
    journal: Journal
    plan: VisitPlan
    visit_s: float


@contextlib.contextmanager
def prepare(
    settings: CampaignSettings,
    subject: Subject,
    device: Device,
    folder: Path,
    observer: Observer,
) -> Iterator[PreparedCampaign]:
    """Yield the campaign once its device is ready, idle and cool; its journal is open meanwhile.

    Raises:
        InputError: The folder holds another campaign, or the device lacks processors.
        DeviceError: The device cannot be used.
    """
    device.token, device.on_message = link_token(folder), observer.message
    probed = device.probe()
    observer.message(f"device: {probed.cpu_model} ({probed.device_id})")
    require_runtime(probed, settings.runtime, device.url)
    require_processors(probed, settings.threads, device.url)
    _prepare_device(settings, subject, device, observer)
    meters = meters_of(device)
    record = _record(settings, subject, device, probed, meters)
    _tell_meters(device, meters, settings.meter, observer)
    with open_journal(folder, record, subject.variants) as journal:
        _tell_damage(journal, observer)
        # A network's file may have changed although the network has not: its visits are known by
        # the spec that they were made with.
        subject = replace(subject, spec=journal.content.campaign.spec)
        plan = VisitPlan(
            subject.spec,
            subject.conditions,
            subject.variants,
            settings.protocol,
            settings.seed,
            journal.content.visits,
            journal.content.rejections,
            journal.reject,
            settings.judgement,
        )
        num_open = 0 if plan.is_out_of_time else plan.num_open
        visit_s = settings.protocol.visit_duration_s + metered_visit_s(meters, settings.protocol)
        clock = "" if device.runs_networks else " of simulated time"
        observer.message(plan_text(plan, num_open, visit_s, clock))
        if num_open:
            _settle(device, settings.protocol, observer)
        observer.started(plan.num_done + num_open, plan.num_done, visit_s)
        yield PreparedCampaign(
            settings, subject, device, folder, observer, probed, journal, plan, visit_s
        )


def _prepare_device(
    settings: CampaignSettings, subject: Subject, device: Device, observer: Observer
) -> None:
    """Let the device have the network, its reference variant and its meters ready."""
    # A simulated device computes costs from widths and never sees a network.
    has_template = device.runs_networks
    if has_template:
        is_metered = settings.meter != "none"
        metering = ", and looking for meters (a battery takes a minute)" if is_metered else ""
        observer.message(f"preparing the network and its reference variant{metering}")
    template = cached_template(subject.spec, settings.batch).to_json() if has_template else ""
    device.prepare(
        Preparation(
            template.encode(),
            reference_widths(subject.spec),
            settings.runtime,
            settings.threads,
            settings.lock_frequency,
            settings.meter,
            settings.protocol.visit_settings,
        )
    )


def _record(
    settings: CampaignSettings,
    subject: Subject,
    device: Device,
    probed: ProbeAnswer,
    meters: tuple[Mapping[str, Any], ...],
) -> CampaignRecord:
    """Return what the journal's first line says."""
    return CampaignRecord(
        spec=subject.spec,
        conditions=subject.conditions,
        device={
            **probed.to_dict(),
            "affinity": device.affinity.to_dict(),
            "frequency_lock": device.frequency_lock.to_dict(),
            "device_lock": device.device_lock.to_dict(),
            "temperature_zone": device.temperature_zone,
        },
        runtime_version=str(device.runtime_version),
        protocol=settings.protocol.to_dict(),
        sampling=subject.sampling,
        seed=settings.seed,
        reference_widths=reference_widths(subject.spec),
        joulemap_version=__version__,
        meters=recorded_meters(device, meters),
        judgement=settings.judgement,
        meter_note=device.meters.why or "",
        settings=settings.to_dict(),
    )


def _tell_damage(journal: Journal, observer: Observer) -> None:
    """Say what of a journal cannot be used."""
    content = journal.content
    if content.torn_bytes:
        observer.message(
            f"the journal ended in an unfinished line of {content.torn_bytes} bytes, which was cut "
            "off; that visit is made again"
        )
    if content.unusable:
        observer.message(
            f"warning: {len(content.unusable)} lines of the journal hold what no device can "
            "truthfully say; visits there count as failed and are made again while tries remain; "
            f"{showable(content.unusable[0], 300)}"
        )


def _tell_meters(
    device: Device,
    meters: Sequence[Mapping[str, Any]],
    wanted: str,
    observer: Observer,
) -> None:
    """Say what energy is read from, or why it is not."""
    for meter in meters:
        observer.message(meter_text(meter))
    for text in device.meters.warnings:
        observer.message(f"warning: {text[:500]}")
    if not meters and wanted != "none" and device.runs_networks:
        why = device.meters.why or "the device says nothing about meters"
        observer.message(f"no energy is measured: {why[:1000]}")


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
    if not gate.is_ready:
        observer.message(f"warning: measuring all the same: {gate.reason}")
    elif gate.reason:
        observer.message(f"warning: {gate.reason}")
    for answer in (device.affinity, device.frequency_lock):
        if answer.reason:
            observer.message(f"warning: {answer.reason}")

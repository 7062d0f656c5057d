"""A campaign: measure how a device's cost depends on a network's widths.

::

    settings -> subject: spec --sample--> variants                        (needs no device)
    prepare    device, folder, journal, plan: round 1 | round 2 | round 3 | re-visits | where still
                 |                                                    (see `plan`)        imprecise
    measure    widths --> agent on the device: materialise, load, reference, warm up, blocks, reference
                 |
               journal: one durable line per visit; at the end of a round judge all visits together,
                 |      reject what was disturbed, make it again
    export     dataset: drift-corrected median over blocks, 95 % interval over visits

Nothing of a campaign lives in memory alone: it is interrupted at any moment and continued by the
same call, which plans the same visits and skips what the journal holds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from joulemap import InputError, JoulemapError, interruption

from ...datasets import CostDataset, JudgementSettings, NetworkSpec
from ...datasets.store import export_campaign, held_folder
from ...device_agents.device import Device
from ...device_agents.interfaces import ConnectOptions
from ..networks.choice import name_of_network
from .devices import open_device, runs_networks
from .layers import check_has_layers, time_layers
from .observer import Observer, Silent
from .protocol import Protocol
from .settings import CampaignSettings
from .steps.preparation import PreparedCampaign, prepare
from .steps.visit_loop import measure
from .subject import subject_of

if TYPE_CHECKING:
    from ...models import Predictor
    from ..networks.factories import Factory


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
    judgement: JudgementSettings | None = None,
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
        judgement: What its visits are judged by; the journal keeps it, and a campaign continues
            with the same.
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
    settings = CampaignSettings(
        network=name_of_network(network),
        out=out,
        url=url if isinstance(url, str) else None,
        samples=samples,
        widths=None if widths is None else tuple(widths),
        sampling=sampling,
        seed=seed,
        sources=tuple(source.device_id_ or "unknown" for source in sources),
        runtime=runtime,
        batch=batch,
        resolution=resolution,
        precision=precision,
        threads=threads,
        lock_frequency=lock_frequency,
        meter=meter,
        layers=layers,
        protocol=protocol or Protocol(),
        judgement=judgement or JudgementSettings(),
    )
    return run(
        settings,
        url,
        network,
        observer=observer,
        sources=sources,
        connect=connect,
        allow_code=allow_code,
    )


def run(
    settings: CampaignSettings,
    device: str | Device | None = None,
    network: str | Factory | NetworkSpec | None = None,
    *,
    observer: Observer | None = None,
    sources: Sequence[Predictor] = (),
    connect: ConnectOptions | None = None,
    allow_code: bool = False,
) -> CostDataset:
    """Return measured costs (seconds, joules) of what settings say: prepare, measure, export.

    Args:
        settings: What is asked for.
        device: One that is open already, in place of the settings' URL; it is closed in the end.
        network: What the settings' name of it stands for, where that is more than a name.
        observer: Is told how it goes.
        sources: The predictors that the settings' sources are.
        connect: What the user permits when the device is reached over a network.
        allow_code: Run the code that a spec names although the spec was read from a file.

    Raises:
        InputError: Something given cannot be used, or the folder holds another campaign.
        DeviceError: The device cannot be used.
        JoulemapError: No variant could be measured.
    """
    device, observer = device or settings.url, observer or Silent()
    if device is None:
        raise InputError("the device is missing; write its URL, such as local:")
    if settings.layers:
        check_has_layers(device)
    subject = subject_of(
        settings,
        network or settings.network,
        sources=sources,
        is_run=runs_networks(device),
        allow_code=allow_code,
    )
    if isinstance(device, str):
        visits = settings.protocol.agent_visits
        device = open_device(
            device, subject.spec, batch=settings.batch, agent_visits=visits, connect=connect
        )
    with device, held_folder(settings.folder) as folder:
        with prepare(settings, subject, device, folder, observer) as campaign:
            try:
                measure(campaign)
            except BaseException:
                # What ended the campaign is to be told, not what it may do to the export as well.
                with contextlib.suppress(JoulemapError):
                    export(campaign)
                raise
            export(campaign)
        time_single_layers(campaign)
    if not campaign.plan.num_done:
        rejected = f"; the first rejected: {next(iter(campaign.plan.rejections.values()), None)}"
        raise JoulemapError(
            f"no visit can be used; the first failed so: {campaign.plan.first_error}{rejected}"
        )
    return CostDataset.load(folder)


def export(campaign: PreparedCampaign) -> None:
    """Write the dataset of what was measured so far, if anything was.

    Raises:
        JoulemapError: The folder cannot be written.
    """
    if not any(visit.timing for visit in campaign.plan.visits):
        return
    try:
        with interruption.finishing():
            export_campaign(campaign.folder)
    except InputError as error:
        raise JoulemapError(
            f"{error}; the measurements themselves are safe, and the same command continues once "
            "the folder can be written"
        ) from error


def time_single_layers(campaign: PreparedCampaign) -> None:
    """Time the layers of the first variants, as many as the settings ask for."""
    settings = campaign.settings
    if not (settings.layers and campaign.plan.num_done):
        return
    campaign.observer.message(f"timing single layers of at most {settings.layers} variants")
    widths = CostDataset.load(campaign.folder).widths[: settings.layers]
    time_layers(
        campaign.device,
        campaign.probed,
        campaign.subject.spec,
        [tuple(row) for row in widths.tolist()],
        batch=settings.batch,
        threads=settings.threads,
        runtime=settings.runtime,
        out=campaign.folder,
    )

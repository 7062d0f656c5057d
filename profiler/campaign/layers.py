"""Profiles of single layers: what each layer of some variants took, by the runtime's profiler."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from joulemap import InputError

from ...datasets import LayerProfiles, LayerTime, NetworkSpec, VariantProfile
from ...datasets.device_identity import is_same_device
from ...datasets.layer_profiles import FILE_NAME
from ...datasets.store import make_folder
from ...device_agents import Device, Preparation
from ...device_agents.onboard.probe_answer import ProbeAnswer
from ..networks.choice import chosen_network
from ..templates.export import cached_template
from .devices import open_device, runs_networks
from .layer_join import LayerJoin
from .protocol import reference_widths
from .requirements import require_processors
from .sampling import WidthTuple, sample

if TYPE_CHECKING:
    from ..networks.factories import Factory

NUM_RUNS = 20


def profile_layers(
    url: str | Device,
    network: str | Factory | NetworkSpec,
    *,
    samples: int | None = None,
    widths: Sequence[Sequence[int]] | None = None,
    num_runs: int = NUM_RUNS,
    out: str | Path | None = None,
    sampling: str = "aligned",
    seed: int = 0,
    runtime: str = "onnxruntime",
    batch: int = 1,
    resolution: int | None = None,
    threads: int = 1,
    on_variant: Callable[[int, int], None] = lambda done, total: None,
    on_message: Callable[[str], None] = lambda text: None,
    allow_code: bool = False,
) -> LayerProfiles:
    """Return what each layer of some variants took, in seconds, run by run.

    Layers that the runtime fuses are one part; time in nodes that belong to no layer is kept by
    itself. The profiler's clock ticks in microseconds, and it slows runs down a little: each
    variant also holds runs without it.

    Args:
        url: The device, such as `local:`, or one that is open already; it is closed in the end.
        network: A name of `networks.names()`, `module:function` or `FILE.py:function` of your own,
            such a function itself, or a spec.
        samples: How many width vectors to profile.
        widths: These width vectors in channels instead of a sample.
        num_runs: Runs of each variant that are kept.
        out: A folder whose `layers.parquet` to write, or to extend: variants that it holds are not
            profiled again. None writes nothing.
        sampling: How width vectors are chosen.
        seed: Of the sampler.
        runtime: What executes variants.
        batch: Samples per call.
        resolution: Height and width of the input; the network's own when None.
        threads: Threads inside one operator.
        on_variant: Called after each variant with how many are done, and how many there are.
        on_message: Is told what the user should know, such as that another campaign is waited for.
        allow_code: Run the code that a spec names although the spec was read from a file.

    Raises:
        InputError: Something given cannot be used, or the file holds profiles of another network,
            device, or of other conditions.
        DeviceError: The device cannot be used, or its runtime has no profiler.
    """
    if num_runs < 1 or batch < 1 or threads < 1:
        raise InputError(
            f"num_runs is {num_runs}, batch {batch} and threads {threads}; all are at least 1"
        )
    check_has_layers(url)
    spec = chosen_network(network, resolution, is_run=True, allow_code=allow_code)
    variants = _variants(spec, samples, widths, sampling, seed)
    opened = open_device(url, spec, batch=batch, agent_visits=50) if isinstance(url, str) else url
    with opened as device:
        device.on_message = on_message
        probed = device.probe()
        require_processors(probed, threads, device.url)
        return time_layers(
            device,
            probed,
            spec,
            variants,
            batch=batch,
            threads=threads,
            runtime=runtime,
            num_runs=num_runs,
            out=out,
            on_variant=on_variant,
        )


def check_has_layers(url: str | Device) -> None:
    """Do nothing if a device runs networks.

    Raises:
        InputError: It computes costs from widths, and has no layers to time.
    """
    if not runs_networks(url):
        raise InputError(
            f"{url if isinstance(url, str) else url.url} runs no network, so it has no layers to time; "
            "SystolicArrayModel.breakdown says what each costs"
        )


def time_layers(
    device: Device,
    probed: ProbeAnswer,
    spec: NetworkSpec,
    variants: Sequence[WidthTuple],
    *,
    batch: int,
    threads: int,
    runtime: str,
    num_runs: int = NUM_RUNS,
    out: str | Path | None = None,
    on_variant: Callable[[int, int], None] = lambda done, total: None,
) -> LayerProfiles:
    """Return what each layer of some variants took on a device that is open, and stays so.

    Args:
        device: The device.
        probed: What it says of itself.
        spec: The network.
        variants: Width vectors to profile.
        batch: Samples per call.
        threads: Threads inside one operator.
        runtime: What executes variants.
        num_runs: Runs of each variant that are kept.
        out: A folder whose `layers.parquet` to write, or to extend; None writes nothing.
        on_variant: Called after each variant with how many are done, and how many there are.

    Raises:
        InputError, DeviceError: As `profile_layers`.
    """
    conditions: dict[str, Any] = {"batch": batch, "threads": threads, "runtime": runtime}
    template = cached_template(spec, batch)
    device.prepare(
        Preparation(template.to_json().encode(), reference_widths(spec), runtime, threads)
    )
    conditions["runtime_version"] = str(device.runtime_version)
    profiles = list(_known(out, spec, probed.details, conditions))
    known = {profile.widths for profile in profiles}
    join = LayerJoin(template.content)
    missing = [vector for vector in variants if vector not in known]
    for done, vector in enumerate(missing, start=1):
        profiles.append(_profile(device, join, vector, num_runs))
        on_variant(done, len(missing))
    found = LayerProfiles(spec, tuple(profiles), device=probed.details, conditions=conditions)
    if out is not None and missing:
        found.save(make_folder(out) / FILE_NAME)
    return found


def _known(
    out: str | Path | None,
    spec: NetworkSpec,
    fingerprint: Mapping[str, Any],
    conditions: Mapping[str, Any],
) -> tuple[VariantProfile, ...]:
    """Return the profiles that a folder holds already."""
    if out is None or not (Path(out) / FILE_NAME).exists():
        return ()
    before = LayerProfiles.load(out)
    if before.spec.fingerprint != spec.fingerprint:
        raise InputError(f"{out} holds layer profiles of another network, {before.spec.name}")
    is_same = is_same_device(before.device, fingerprint)
    if not is_same or dict(before.conditions) != dict(conditions):
        raise InputError(
            f"{out} holds layer profiles of another device or of other conditions; choose another "
            "folder"
        )
    return before.variants


def _variants(
    spec: NetworkSpec,
    samples: int | None,
    widths: Sequence[Sequence[int]] | None,
    sampling: str,
    seed: int,
) -> list[WidthTuple]:
    if (samples is None) == (widths is None):
        raise InputError("write either samples, a number, or widths, a list of width vectors")
    if samples is not None:
        return sample(spec, samples, sampling=sampling, seed=seed)
    return list(dict.fromkeys(spec.check_widths(vector) for vector in widths or ()))


def _profile(device: Device, join: LayerJoin, widths: WidthTuple, num_runs: int) -> VariantProfile:
    answer = device.layer_times(widths, num_runs)
    times = np.array([node.times_s for node in answer.nodes])
    return VariantProfile(
        widths,
        tuple(
            LayerTime(layers, tuple(times[places].sum(axis=0).tolist()))
            for layers, places in join.units(answer.nodes)
        ),
        tuple(answer.runs_s),
        tuple(answer.unprofiled_s),
    )

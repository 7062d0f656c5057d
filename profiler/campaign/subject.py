"""What a campaign measures: a network, its variants, their conditions; no device is needed for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from joulemap import InputError

from ...datasets import Conditions, NetworkSpec
from ..networks.choice import chosen_network
from ..networks.graph.foreign_spec import Choices
from .sampling import WidthTuple, sample
from .settings import CampaignSettings
from .transfer_points import choose_points, record_of

if TYPE_CHECKING:
    from ...models import Predictor
    from ..networks.factories import Factory

# The sampling's name where the caller listed the width vectors.
LISTED = "listed"


@dataclass(frozen=True)
class Subject:
    """What a campaign measures.

    Args:
        spec: The network.
        conditions: What all variants share.
        variants: Width vectors in channels, in the sample's order.
        sampling: How they were chosen, for the campaign's record.
    """

    spec: NetworkSpec
    conditions: Conditions
    variants: tuple[WidthTuple, ...]
    sampling: str


def subject_of(
    settings: CampaignSettings,
    network: str | Factory | NetworkSpec,
    *,
    sources: Sequence[Predictor] = (),
    is_run: bool,
    allow_code: bool = False,
) -> Subject:
    """Return what settings say to measure.

    Args:
        settings: The campaign's.
        network: What its network's name stands for; the name itself where there is nothing else.
        sources: Predictors of other devices, which choose the samples.
        is_run: Whether the device runs networks.
        allow_code: Run the code that a spec names although the spec was read from a file.

    Raises:
        InputError: There is no such network, or it has no such variants.
    """
    choices = Choices(settings.inputs, settings.freeze, settings.multiples)
    spec = chosen_network(
        network, settings.resolution, is_run=is_run, allow_code=allow_code, choices=choices
    )
    variants, sampling = _variants(settings, spec, sources)
    size = "x".join(map(str, spec.input_shape[1:]))
    conditions = Conditions(
        settings.batch, size, settings.precision, settings.runtime, settings.threads
    )
    return Subject(spec, conditions, tuple(variants), sampling)


def _variants(
    settings: CampaignSettings, spec: NetworkSpec, sources: Sequence[Predictor]
) -> tuple[list[WidthTuple], str]:
    """Return the width vectors to measure, and the name of how they were chosen."""
    sampling, seed = settings.sampling, settings.seed
    if settings.samples is not None:
        if not sources:
            return sample(spec, settings.samples, sampling=sampling, seed=seed), sampling
        points = choose_points(spec, sources, settings.samples, sampling=sampling, seed=seed)
        return points, record_of(sampling, sources)
    listed = list(dict.fromkeys(spec.check_widths(vector) for vector in settings.widths or ()))
    if not listed:
        raise InputError("widths is empty; there is nothing to measure")
    return listed, LISTED

"""What a `joulemap profile --dry-run` prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..campaign.devices import runs_networks
from ..campaign.outline import outline
from ..campaign.settings import CampaignSettings
from ..campaign.subject import subject_of
from . import console

if TYPE_CHECKING:
    from ...models import Predictor


def print_outline(
    settings: CampaignSettings, sources: Sequence[Predictor] = (), *, as_json: bool = False
) -> None:
    """Print what a new campaign would do; neither its device nor its folder is touched.

    Args:
        settings: The campaign's.
        sources: The predictors that the settings' sources are.
        as_json: Whether to print JSON.

    Raises:
        InputError: There is no such network, or it has no such variants.
    """
    is_run = runs_networks(settings.url or "")
    subject = subject_of(settings, settings.network, sources=sources, is_run=is_run)
    found = outline(settings, subject)
    if as_json:
        console.print_json(found.to_dict())
        return
    for line in found.lines():
        console.print_line(line)
    console.print_line("Nothing was touched; what the folder may hold already is not counted.")

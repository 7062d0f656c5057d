"""A campaign's journal, new or continued: what the folder holds must be the same campaign."""

from __future__ import annotations

import os
import warnings
from collections.abc import Collection, Sequence
from pathlib import Path

from joulemap import InputError

from ....datasets.journal import FILE_NAME, CampaignRecord, Journal
from ....datasets.store import lost_lines
from ....datasets.verification import UnverifiedWarning
from ..sampling import WidthTuple, sampler_named
from ..subject import LISTED
from ..transfer_points import CHOSEN


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

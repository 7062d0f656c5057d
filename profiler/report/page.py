"""From a dataset's folder and a predictor to one HTML file that explains itself."""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from joulemap import InputError, __version__

from ...datasets import CostDataset
from ...datasets.estimation import CampaignEstimate
from ...datasets.journal import FILE_NAME, JournalContent
from ...datasets.metrics import NoiseFloor
from ...datasets.store import dataset_of, read_campaign, write_atomically
from ...models import Predictor, load
from . import provenance, sections
from .content import Estimate, ReportContent, gather
from .judgement import judge
from .layout import moment
from .markup import Html, element, joined, raw

_LINKS = {
    "accuracy": "Error",
    "learning": "Samples",
    "widths": "Widths",
    "parts": "What costs most",
    "rounding": "Rounding",
    "drift": "Drift",
    "provenance": "Device and protocol",
    "definitions": "Words",
}


@dataclass(frozen=True)
class Headline:
    """The headline figures of a report.

    Attributes:
        network: Name of the network.
        device_id: The device; None for an imported table.
        target: The cost column.
        unit: Its SI unit.
        num_variants: Measured variants that have it.
        is_held_out: Whether the error is that of predictions made without the variant.
        error: Mean of `abs(y - prediction) / y`, a fraction, with its 95 % interval.
        noise_floor: Of the dataset; None without re-visited variants.
        full_network: Predicted cost of the full network in `unit`, with the 90 % interval of its
            mean; its ends are NaN where it is not known.
        warnings: What to know first, one sentence each.
    """

    network: str
    device_id: str | None
    target: str
    unit: str
    num_variants: int
    is_held_out: bool
    error: Estimate
    noise_floor: NoiseFloor | None
    full_network: Estimate
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as a dictionary for JSON; unknown ends are None."""
        content = asdict(self)
        for name in ("error", "full_network"):
            content[name] = {
                key: None if math.isnan(value) else value for key, value in content[name].items()
            }
        return content


def write_report(
    folder: str | Path,
    predictor: str | Path | Predictor,
    out: str | Path,
    target: str | None = None,
) -> Headline:
    """Write the report of a dataset and a predictor as one HTML file and return its headline figures.

    The file needs no network, no script and no other file. It is complete or not there.

    Args:
        folder: A dataset's folder; with a journal in it the report shows the campaign too.
        predictor: A predictor file, or a fitted predictor, of the same network.
        out: The HTML file; replaced if it exists.
        target: Which cost, if the file has several.

    Raises:
        InputError: An input cannot be used, they do not fit together, or the file cannot be written.
    """
    out = Path(out)
    if not out.parent.is_dir():
        raise InputError(f"cannot write {out}: there is no folder {out.parent}; make it first")
    if out.is_dir():
        raise InputError(f"cannot write {out}: it is a folder; name a file in it")
    fitted = predictor if isinstance(predictor, Predictor) else load(predictor, target=target)
    journal = _journal(Path(folder))
    dataset = CostDataset.load(folder) if journal is None else dataset_of(journal)
    try:
        content = gather(dataset, fitted, journal)
    except InputError as error:
        raise InputError(f"no report of {folder}: {error}") from error
    sentences = [*judge(content), *dataset.verification.notes]
    page = _page(content, sentences)
    write_atomically(out, page)
    return Headline(
        network=content.spec.name,
        device_id=dataset.device_id,
        target=fitted.target_,
        unit=fitted.unit_,
        num_variants=len(content.comparison.measured),
        is_held_out=content.comparison.is_held_out,
        error=content.comparison.error,
        noise_floor=content.noise_floor,
        full_network=content.shares.total,
        warnings=tuple(sentences),
    )


def _journal(folder: Path) -> JournalContent | None:
    path = folder / FILE_NAME
    return read_campaign(folder) if os.path.lexists(path) else None


def _page(content: ReportContent, sentences: list[str]) -> str:
    journal = content.journal
    estimate = None
    if journal is not None:
        judgement = journal.campaign.judgement
        estimate = CampaignEstimate(journal.visits, journal.rejections, judgement)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    style = Path(__file__).with_name("style.css").read_text(encoding="utf-8")
    title = f"{content.spec.name}: {content.predictor.target_}"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        # Whatever a device may have put into its name: the page loads and runs nothing.
        element(
            "meta",
            http_equiv="Content-Security-Policy",
            content="default-src 'none'; style-src 'unsafe-inline'",
        ),
        element("title", f"{title} (joulemap report)"),
        element("style", raw(style)),
    )
    links = [element("a", text, href=f"#{name}") for name, text in _LINKS.items()]
    body = element(
        "body",
        element(
            "main",
            sections.header(content),
            sections.warnings(sentences),
            element("nav", *links, aria_label="Sections"),
            sections.accuracy(content),
            sections.learning(content),
            sections.widths(content),
            sections.parts(content),
            sections.rounding(content),
            sections.drift(content, estimate),
            provenance.provenance(content, now, __version__),
            provenance.definitions(),
            element("footer", f"Made by joulemap {__version__} on {moment(now)}."),
        ),
    )
    document: Html = element("html", head, body, lang="en")
    return joined([raw("<!doctype html>\n"), document, "\n"])

"""What a campaign would do, without its device and its folder: `joulemap profile --dry-run`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ...datasets import Conditions
from ..campaign.devices import runs_networks
from ..campaign.plan import VisitPlan
from ..campaign.plan_text import duration_text, plan_text
from ..campaign.settings import CampaignSettings
from ..campaign.subject import Subject, subject_of
from . import console

if TYPE_CHECKING:
    from ...models import Predictor

# Width vectors that are shown.
NUM_SHOWN = 5


@dataclass(frozen=True)
class CampaignOutline:
    """What a new campaign of some settings would do.

    Args:
        network: The network's name.
        url: The device.
        out: The folder.
        variants: How many are measured.
        first_widths: The first of them, in channels.
        width_names: What the channels belong to.
        sampling: How they are chosen.
        seed: Of that and of the visits' order.
        conditions: What all share.
        visits: How many are planned, re-visits for the noise floor included.
        max_further_visits: How many may follow where an interval is too wide.
        visit_s: What a visit takes, roughly, in seconds, without reading a meter.
        duration_s: What all planned visits take, likewise.
        is_metered: Whether a meter may be read, which takes longer; only the device knows how long.
        is_simulated: Whether seconds are those of a simulated device, which takes none.
        text: The plan as a sentence.
    """

    network: str
    url: str
    out: str
    variants: int
    first_widths: tuple[tuple[int, ...], ...]
    width_names: tuple[str, ...]
    sampling: str
    seed: int
    conditions: Conditions
    visits: int
    max_further_visits: int
    visit_s: float
    duration_s: float
    is_metered: bool
    is_simulated: bool
    text: str

    def to_dict(self) -> dict[str, Any]:
        """Return it as a dictionary for JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Return it as sentences."""
        values = ", ".join(f"{name} {value}" for name, value in vars(self.conditions).items())
        shown = "; ".join(",".join(map(str, vector)) for vector in self.first_widths)
        more = "; ..." if self.variants > len(self.first_widths) else ""
        found = [
            f"{self.variants} variants of {self.network} on {self.url}, into {self.out}",
            f"conditions: {values}",
            f"widths ({', '.join(self.width_names)}), {self.sampling}, seed {self.seed}: {shown}{more}",
            f"visits: {self.text}",
        ]
        if self.is_metered:
            found.append(
                "Where the device has a meter each visit takes longer; --meter none reads none."
            )
        return found


def outline(settings: CampaignSettings, subject: Subject) -> CampaignOutline:
    """Return what a new campaign would do; neither device nor folder is touched.

    Args:
        settings: The campaign's.
        subject: What it measures.
    """
    protocol, url = settings.protocol, settings.url or ""
    plan = VisitPlan(subject.spec, subject.conditions, subject.variants, protocol, settings.seed)
    is_simulated = not runs_networks(url)
    clock = " of simulated time" if is_simulated else ""
    visit_s, visits = protocol.visit_duration_s, plan.num_open
    text = plan_text(plan, visits, visit_s, clock)
    if protocol.time_cap_s is not None and protocol.time_cap_s < visits * visit_s:
        text += f"; the time cap ends it after {duration_text(protocol.time_cap_s)}"
    return CampaignOutline(
        network=subject.spec.name,
        url=url,
        out=str(settings.out),
        variants=len(subject.variants),
        first_widths=subject.variants[:NUM_SHOWN],
        width_names=subject.spec.width_names,
        sampling=subject.sampling,
        seed=settings.seed,
        conditions=subject.conditions,
        visits=visits,
        max_further_visits=protocol.max_further_visits * len(subject.variants),
        visit_s=visit_s,
        duration_s=visits * visit_s,
        is_metered=settings.meter != "none" and not is_simulated,
        is_simulated=is_simulated,
        text=text,
    )


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

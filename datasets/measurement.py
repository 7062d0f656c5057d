"""The result for one variant: its visits, and what they say once corrected for drift."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from .energy import EnergyEstimate
from .estimation import CampaignEstimate, LatencyEstimate, VisitKey
from .judgement_settings import DEFAULT_JUDGEMENT, JudgementSettings
from .records import Timing, Visit


@dataclass(frozen=True)
class Measurement:
    """The result for one variant of a campaign. Every statistic is computed from raw times.

    Args:
        visits: All visits of the variant, failed and rejected ones included, in order.
        campaign: What all visits of the campaign say together.
    """

    visits: tuple[Visit, ...] = field(repr=False)
    campaign: CampaignEstimate = field(repr=False)

    @property
    def accepted(self) -> tuple[Visit, ...]:
        """The visits that neither failed nor were rejected."""
        rejected = self.campaign.rejections
        return tuple(
            visit for visit in self.visits if visit.timing is not None and visit.key not in rejected
        )

    @property
    def timings(self) -> tuple[Timing, ...]:
        """The times of the accepted visits."""
        return tuple(visit.timing for visit in self.accepted if visit.timing is not None)

    @property
    def num_rejected(self) -> int:
        """Visits that were measured and rejected."""
        return sum(visit.key in self.campaign.rejections for visit in self.visits)

    @property
    def num_failed(self) -> int:
        """Visits that failed."""
        return sum(visit.timing is None for visit in self.visits)

    @cached_property
    def latency(self) -> LatencyEstimate | None:
        """Latency with its 95 % interval; None when no visit was accepted."""
        return self.campaign.latency(self.visits)

    @cached_property
    def revisit_pair_s(self) -> tuple[float, float] | None:
        """Two independent latencies in seconds: first visits and re-visits.

        In a campaign without re-visits the even and the odd visits take their places; None below two
        visits, and for a variant that was not re-visited where others were.
        """
        first, again = self._halves
        pair = (self.campaign.latency(first), self.campaign.latency(again))
        if pair[0] is None or pair[1] is None:
            return None
        return (pair[0].latency_s, pair[1].latency_s)

    @cached_property
    def energy(self) -> EnergyEstimate | None:
        """Energy with its 95 % interval; None where no meter was read."""
        return self.campaign.energies.energy(self.accepted)

    @cached_property
    def energy_revisit_pair_j(self) -> tuple[float, float] | None:
        """Two independent energies in joules, as `revisit_pair_s`."""
        first, again = (self.campaign.energies.energy(half) for half in self._halves)
        return (first.energy_j, again.energy_j) if first and again else None

    @property
    def energy_estimate_j(self) -> float | None:
        """Joules per call that a model of the device's power says, mean over visits; or None."""
        found = [v.energy_estimate.energy_estimate_j for v in self.accepted if v.energy_estimate]
        return float(np.mean(found)) if found else None

    @property
    def _halves(self) -> tuple[list[Visit], list[Visit]]:
        again = [visit for visit in self.accepted if visit.is_revisit]
        first = [visit for visit in self.accepted if not visit.is_revisit]
        if not any(visit.is_revisit for visit in self.campaign.visits):
            first, again = first[0::2], first[1::2]
        return first, again

    @cached_property
    def latency_mean_s(self) -> float | None:
        """Mean over all timed calls of accepted visits, uncorrected, in seconds; None without."""
        runs = [
            run for timing in self.timings for block in timing.blocks for run in block.latencies_s
        ]
        return float(np.mean(runs)) if runs else None

    @cached_property
    def cpu_time_s(self) -> float | None:
        """CPU seconds per call of the agent's process; None without visits."""
        blocks = [block for timing in self.timings for block in timing.blocks]
        calls = sum(len(block.latencies_s) * block.calls_per_run for block in blocks)
        return sum(block.cpu_s for block in blocks) / calls if calls else None

    @cached_property
    def steal_share(self) -> float | None:
        """Share of the timed blocks that the hypervisor withheld; None if unknown."""
        blocks = [block for timing in self.timings for block in timing.blocks]
        stolen = [block.steal_s for block in blocks if block.steal_s is not None]
        wall = sum(block.wall_s for block in blocks)
        return sum(stolen) / wall if stolen and wall else None


def measurements_of(
    visits: Sequence[Visit],
    rejections: Mapping[VisitKey, str] | None = None,
    judgement: JudgementSettings = DEFAULT_JUDGEMENT,
) -> list[Measurement]:
    """Return one measurement per variant, in the order of their first visits.

    Args:
        visits: All visits of one campaign, in order.
        rejections: Visits that the campaign rejected while it ran, with the reason.
        judgement: What they are judged by, such as the journal's.
    """
    campaign = CampaignEstimate(visits, rejections, judgement)
    grouped: dict[str, list[Visit]] = {}
    for visit in visits:
        grouped.setdefault(visit.variant_id, []).append(visit)
    return [Measurement(tuple(group), campaign) for group in grouped.values()]

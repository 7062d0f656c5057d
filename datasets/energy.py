"""From the energy readings of a campaign's visits to one energy per variant, with its interval.

Readings of a variant's visits differ by a relative spread that is taken to be the same for all
variants, moderated per variant as latencies are (see `estimation`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from .records import Visit

# How many visits the campaign's common spread counts as, for one variant.
PRIOR_FREEDOM = 4.0
# Relative spread that is believed before two visits of a variant have been made.
PRIOR_SD = 0.05


@dataclass(frozen=True)
class EnergyEstimate:
    """Energy of one call of a variant, in joules.

    Attributes:
        energy_j: Net of idle: geometric mean over visits.
        gross_j: With idle, likewise; None where it was not read.
        low_j: Lower end of the net energy's 95 % interval over visits.
        high_j: Upper end.
        standard_error: Of the logarithm, so a relative error.
        source: `counter`, `sampled` or `simulated`.
        num_visits: Visits with a reading.
    """

    energy_j: float
    gross_j: float | None
    low_j: float
    high_j: float
    standard_error: float
    source: str
    num_visits: int


class EnergyStatistics:
    """What all visits of a campaign say about the spread of energy readings.

    Args:
        visits: The accepted visits of all variants.

    Attributes:
        spread: Relative standard deviation of one reading.
    """

    def __init__(self, visits: Sequence[Visit]) -> None:
        groups: dict[str, list[float]] = {}
        for visit in visits:
            if visit.energy_j is not None:
                groups.setdefault(visit.variant_id, []).append(math.log(visit.energy_j))
        squares = sum(len(group) * float(np.var(group)) for group in groups.values())
        freedom = sum(len(group) - 1 for group in groups.values())
        self.spread = math.sqrt(squares / freedom) if freedom else PRIOR_SD

    def energy(self, visits: Sequence[Visit]) -> EnergyEstimate | None:
        """Return the energy that some visits of one variant say; None without a reading.

        Args:
            visits: Accepted visits of one variant.
        """
        read = [visit for visit in visits if visit.energy_j is not None]
        if not read:
            return None
        logs = np.log([visit.energy_j for visit in read if visit.energy_j is not None])
        count = len(logs)
        freedom = PRIOR_FREEDOM + count - 1
        squares = PRIOR_FREEDOM * self.spread**2 + count * float(np.var(logs))
        error = math.sqrt(squares / freedom / count)
        half = float(stats.t.ppf(0.975, freedom)) * error
        center = float(np.mean(logs))
        gross = [visit.energy_gross_j for visit in read if visit.energy_gross_j is not None]
        return EnergyEstimate(
            energy_j=math.exp(center),
            gross_j=math.exp(float(np.mean(np.log(gross)))) if gross else None,
            low_j=math.exp(center - half),
            high_j=math.exp(center + half),
            standard_error=error,
            source=str(read[0].energy_source),
            num_visits=count,
        )

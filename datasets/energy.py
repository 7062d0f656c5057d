"""From the energy readings of a campaign's visits to one energy per variant, with its interval.

A reading differs from the truth by what its meter states (its own standard error) and by what
differs between visits: a spread, relative to the energy, that is taken to be the same for all
variants, moderated per variant as latencies are (see `estimation`)::

    variance of visit i   v_i = se_i^2 + (spread x energy)^2
    energy                sum(y_i / v_i) / sum(1 / v_i)
    its variance          1 / sum(1 / v_i) x (d0 + Q) / (d0 + n - 1)   Q = sum (y_i - energy)^2 / v_i

with d0 = 4 (`energy_freedom`) and Student's t of d0 + n - 1 degrees of freedom. The spread is what is left of the
visits' scatter once their own errors are taken off. Readings without a standard error are combined
as logarithms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from .energy_records import EnergyReading
from .judgement_settings import DEFAULT_JUDGEMENT, JudgementSettings
from .records import Visit


@dataclass(frozen=True)
class EnergyEstimate:
    """Energy of one call of a variant, in joules.

    Attributes:
        energy_j: Net of idle, over visits.
        gross_j: With idle, likewise; None where it was not read.
        idle_w: Idle power, mean over visits; None where it was not read.
        low_j: Lower end of the net energy's 95 % interval over visits.
        high_j: Upper end.
        standard_error: Relative.
        source: `counter`, `sampled` or `simulated`.
        num_visits: Visits with a reading.
    """

    energy_j: float
    gross_j: float | None
    idle_w: float | None
    low_j: float
    high_j: float
    standard_error: float
    source: str
    num_visits: int


class EnergyStatistics:
    """What all visits of a campaign say about the spread of energy readings.

    Args:
        visits: The accepted visits of all variants.
        judgement: What is believed before them.

    Attributes:
        spread: Relative standard deviation of one reading, beyond what its meter states.
    """

    def __init__(
        self, visits: Sequence[Visit], judgement: JudgementSettings = DEFAULT_JUDGEMENT
    ) -> None:
        self._judgement = judgement
        groups: dict[str, list[EnergyReading]] = {}
        for visit in visits:
            if visit.energy is not None:
                groups.setdefault(visit.variant_id, []).append(visit.energy)
        self.has_errors = any(_has_errors(group) for group in groups.values())
        self.spread = self._metered(groups) if self.has_errors else self._plain(groups)

    def _plain(self, groups: dict[str, list[EnergyReading]]) -> float:
        logs = [[math.log(reading.energy_j) for reading in group] for group in groups.values()]
        squares = sum(len(group) * float(np.var(group)) for group in logs)
        freedom = sum(len(group) - 1 for group in logs)
        return math.sqrt(squares / freedom) if freedom else self._judgement.energy_sd

    def _metered(self, groups: dict[str, list[EnergyReading]]) -> float:
        # Groups whose own errors are small tell most: each is weighted by what it can tell.
        prior, pairs = self._judgement.metered_energy_sd, self._judgement.metered_energy_pairs
        top, below = pairs * prior**2, pairs
        for group in groups.values():
            mean = float(np.mean([reading.energy_j for reading in group]))
            freedom = len(group) - 1
            if not freedom or mean <= 0:
                continue
            own = float(np.mean(_variances(group))) / mean**2
            found = float(np.var([r.energy_j for r in group], ddof=1)) / mean**2
            weight = freedom * (prior**2 / (prior**2 + own)) ** 2
            # One variant with a disturbed visit must not speak for all.
            top += weight * min(found - own, 9.0 * (prior**2 + own))
            below += weight
        return math.sqrt(max(0.0, top / below))

    def energy(self, visits: Sequence[Visit]) -> EnergyEstimate | None:
        """Return the energy that some visits of one variant say.

        Args:
            visits: Accepted visits of one variant.

        Returns:
            None without a reading, and where all of them together are not above zero.
        """
        readings = [visit.energy for visit in visits if visit.energy is not None]
        if not readings:
            return None
        count = len(readings)
        freedom = self._judgement.energy_freedom + count - 1
        t = float(stats.t.ppf(0.975, freedom))
        gross = [reading.gross_j for reading in readings if reading.gross_j is not None]
        idle = [reading.idle_w for reading in readings if reading.idle_w is not None]
        if _has_errors(readings):
            center, error = self._weighted(readings, freedom)
            if center <= 0:
                return None
            low, high, error = center - t * error, center + t * error, error / center
        else:
            logs = np.log([reading.energy_j for reading in readings])
            squares = self._judgement.energy_freedom * self.spread**2 + count * float(np.var(logs))
            error = math.sqrt(squares / freedom / count)
            middle = float(np.mean(logs))
            center = math.exp(middle)
            low, high = math.exp(middle - t * error), math.exp(middle + t * error)
        return EnergyEstimate(
            energy_j=center,
            gross_j=math.exp(float(np.mean(np.log(gross)))) if gross else None,
            idle_w=float(np.mean(idle)) if idle else None,
            low_j=low,
            high_j=high,
            standard_error=error,
            source=readings[0].source,
            num_visits=count,
        )

    def _weighted(self, readings: Sequence[EnergyReading], freedom: float) -> tuple[float, float]:
        """Return the weighted mean and its standard error in joules."""
        energies = np.array([reading.energy_j for reading in readings])
        variance = _variances(readings) + (self.spread * float(np.mean(np.abs(energies)))) ** 2
        weights = 1.0 / np.maximum(variance, (1e-9 * np.abs(energies).max()) ** 2)
        center = float(np.sum(weights * energies) / np.sum(weights))
        scatter = float(np.sum(weights * (energies - center) ** 2))
        inflation = (self._judgement.energy_freedom + scatter) / freedom
        return center, math.sqrt(inflation / float(np.sum(weights)))


def _variances(readings: Sequence[EnergyReading]) -> np.ndarray:
    """Return what readings state of their variances in J^2; one that states none is like the others."""
    stated = [r.standard_error_j**2 for r in readings if r.standard_error_j is not None]
    usual = float(np.mean(stated)) if stated else 0.0
    return np.array(
        [usual if r.standard_error_j is None else r.standard_error_j**2 for r in readings]
    )


def _has_errors(readings: Sequence[EnergyReading]) -> bool:
    return any(reading.standard_error_j is not None for reading in readings)

"""What a campaign's visits say about its meters, in plain words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from ...datasets.energy import EnergyStatistics
from ...datasets.energy_records import EnergyReading
from ...datasets.measurement import Measurement
from ...datasets.records import Visit

NOTABLE_SHARE = 0.05
NOTABLE_SPREAD = 0.05
# Fewer words of a reason tell visits with the same cause together.
REASON_WORDS = 60


def energy_advice(
    measurements: Sequence[Measurement], visits: Sequence[Visit], rel_error: float
) -> list[str]:
    """Return what to know and do about a campaign's energies; nothing without a meter.

    Args:
        measurements: One per variant.
        visits: All visits.
        rel_error: Half the 95 % interval over the energy that is aimed at.
    """
    metered = [v for v in visits if v.energy_refused or (v.energy and v.energy.meter)]
    readings = [visit.energy for visit in metered if visit.energy is not None]
    if not metered:
        return []
    return [
        *_refusals(metered),
        *_disagreements(readings),
        *_imprecise(measurements, rel_error),
        *_floor(readings, measurements[0].campaign.energies),
    ]


def _refusals(metered: Sequence[Visit]) -> list[str]:
    reasons = [visit.energy_refused for visit in metered if visit.energy_refused]
    if not reasons:
        return []
    reason, count = Counter(text[:REASON_WORDS] for text in reasons).most_common(1)[0]
    example = next(text for text in reasons if text.startswith(reason))
    return [
        (
            f"{len(reasons)} of {len(metered)} visits have no energy, because their readings were "
            f"refused; {count} of them so: {example}. Their times count; nothing was made up."
        )
    ]


def _disagreements(readings: Sequence[EnergyReading]) -> list[str]:
    checks = [(r, r.check) for r in readings if r.check is not None]
    if not checks:
        return []
    said = []
    apart = [(r, c) for r, c in checks if c.is_disagreement and c.gross_j is not None]
    if apart:
        r, c = apart[len(apart) // 2]
        # A battery's own counter knows nothing of idle times.
        pair = (r.energy_j, c.net_j) if c.net_j is not None else (r.gross_j, c.gross_j)
        what = "J a call" if c.net_j is not None else "J a call with idle"
        shares = [c.disagreement for _, c in apart if c.disagreement is not None]
        supply = "the same supply" if c.is_same_rail else "different supplies, which may explain it"
        said.append(
            f"The meters disagree in {len(apart)} of {len(checks)} visits, by {_apart(shares)}; in "
            f"one of them {r.meter}:{r.channel} says {pair[0]:.4g} {what} and {c.meter}:{c.channel} "
            f"{pair[1]:.4g} J. They read "
            f"{supply}. Energies are those of {r.meter}:{r.channel}: find out which one is right "
            "before they are used."
        )
    silent = [c.refused for _, c in checks if c.gross_j is None]
    if silent:
        said.append(
            f"The second meter could not check {len(silent)} of {len(checks)} visits, the first one "
            f"because {silent[0]}."
        )
    return said


def _apart(shares: Sequence[float]) -> str:
    """Return how far two meters are apart: signs that differ must not cancel each other."""
    signs = set(np.sign(shares))
    if len(signs) > 1:
        return f"{100 * float(np.median(np.abs(shares))):.0f} % in either direction (median)"
    return f"{100 * float(np.median(shares)):+.0f} % (median)"


def _imprecise(measurements: Sequence[Measurement], rel_error: float) -> list[str]:
    energies = [m.energy for m in measurements]
    lost = sum(
        energy is None and any(visit.energy is not None for visit in m.accepted)
        for energy, m in zip(energies, measurements, strict=True)
    )
    said = []
    if lost:
        said.append(
            f"{lost} of {len(measurements)} variants use too little on top of the idle power to tell "
            "it from zero, so their net energy is missing. Measure larger batches (--batch) or "
            "longer windows (--energy-window-s)."
        )
    known = [energy for energy in energies if energy is not None]
    widths = [(energy.high_j - energy.low_j) / 2 / energy.energy_j for energy in known]
    wide = [width for width in widths if width > rel_error]
    if len(wide) > NOTABLE_SHARE * len(measurements):
        said.append(
            f"The energies of {len(wide)} of {len(measurements)} variants miss the aim of "
            f"+-{100 * rel_error:.0f} % (half of them have more than "
            f"+-{100 * float(np.median(wide)):.0f} %). More visits (--visits) and longer windows (--energy-rel-error, "
            "--energy-window-s) help; "
            "a steadier device (no other work, locked frequency) helps more."
        )
    return said


def _floor(readings: Sequence[EnergyReading], statistics: EnergyStatistics) -> list[str]:
    if statistics.spread <= NOTABLE_SPREAD or not readings:
        return []
    return [
        (
            f"Energies of the same variant differ by {100 * statistics.spread:.0f} % from visit to "
            "visit, beyond what the meter's own error explains: frequency, temperature or other work "
            "changes in between."
        )
    ]

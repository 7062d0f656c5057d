"""What was done about a machine's changes of speed, in the words that every page and warning uses."""

from __future__ import annotations

import math

from ...datasets.estimation import CampaignEstimate

# Below this factor variants did not follow the reference.
FOLLOWS = 0.3


def drift_size(estimate: CampaignEstimate) -> float:
    """Return by how much the reference drifted within its states, as a fraction."""
    drift = estimate.history.drift
    return math.expm1(float(drift.max() - drift.min()))


def correction_words(estimate: CampaignEstimate) -> str:
    """Return sentences on how latencies were corrected for states and drift."""
    said = []
    if len(estimate.history.level) > 1:
        said.append(
            "Visits at a slower speed are scaled to the fastest one: variants follow the reference "
            f"there by a factor of {estimate.state_elasticity:.2f}."
        )
    if drift_size(estimate) > 0:
        factor = estimate.drift_elasticity
        said.append(
            "Variants did not follow the reference's drift, so it is hardly corrected for "
            f"(a factor of {factor:.2f})."
            if factor < FOLLOWS
            else "Visits are corrected for the drift, which variants follow by a factor of "
            f"{factor:.2f}."
        )
    return " ".join(said) or "The device's speed did not change, so nothing is corrected for it."

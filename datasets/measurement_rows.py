"""The rows of a dataset: what each variant of a campaign cost, without what makes no cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from .measurement import Measurement
from .network_spec import NetworkSpec

_COSTS = (
    "latency_s",
    "latency_mean_s",
    "cpu_time_s",
    "energy_j",
    "energy_gross_j",
    "energy_estimate_j",
)


def rows_of(
    measurements: Sequence[Measurement], spec: NetworkSpec, rel_error: float
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return a row for each variant with a visit that did not fail, and what was left out, as texts.

    Args:
        measurements: One for each variant.
        spec: The network.
        rel_error: A latency is imprecise whose interval's half is a greater share of it.
    """
    rows, problems = [], []
    for measurement in measurements:
        if measurement.num_failed == len(measurement.visits):
            continue
        try:
            row = _row(measurement, spec, rel_error)
        except (ArithmeticError, ValueError) as error:
            widths = ",".join(map(str, measurement.visits[0].widths))
            problems.append(f"the row of widths {widths} ({error})")
            continue
        problems += _without_bad_costs(row)
        rows.append(row)
    return rows, problems


def _without_bad_costs(row: dict[str, Any]) -> list[str]:
    """Make what is no cost, such as CPU time of 0, missing; return what that was, as texts."""
    problems = []
    for name in _COSTS:
        value = row[name]
        if value is not None and not 0 < value < math.inf:
            row[name] = None
            problems.append(f"{name} {value} of variant {row['variant_id']}, no cost above 0")
    return problems


def _row(measurement: Measurement, spec: NetworkSpec, rel_error: float) -> dict[str, Any]:
    visit, latency = measurement.visits[0], measurement.latency
    pair = measurement.revisit_pair_s
    energy, energies = measurement.energy, measurement.energy_revisit_pair_j
    return {
        "spec_id": visit.spec_id,
        "variant_id": visit.variant_id,
        **dict(zip(spec.width_names, visit.widths, strict=True)),
        **asdict(visit.conditions),
        "latency_s": latency.latency_s if latency else None,
        "latency_standard_error_s": latency.standard_error * latency.latency_s if latency else None,
        "latency_ci_low_s": latency.low_s if latency else None,
        "latency_ci_high_s": latency.high_s if latency else None,
        "latency_revisit_a_s": pair[0] if pair else None,
        "latency_revisit_b_s": pair[1] if pair else None,
        "latency_mean_s": measurement.latency_mean_s,
        "cpu_time_s": measurement.cpu_time_s,
        "steal_share": measurement.steal_share,
        "energy_j": energy.energy_j if energy else None,
        "energy_standard_error_j": energy.standard_error * energy.energy_j if energy else None,
        "energy_ci_low_j": energy.low_j if energy else None,
        "energy_ci_high_j": energy.high_j if energy else None,
        "energy_revisit_a_j": energies[0] if energies else None,
        "energy_revisit_b_j": energies[1] if energies else None,
        "energy_gross_j": energy.gross_j if energy else None,
        "energy_idle_w": energy.idle_w if energy else None,
        "energy_source": energy.source if energy else None,
        "energy_estimate_j": measurement.energy_estimate_j,
        "num_visits": latency.num_visits if latency else 0,
        "num_failed_visits": measurement.num_failed,
        "num_rejected_visits": measurement.num_rejected,
        "is_imprecise": latency is None or latency.relative_error > rel_error,
    }

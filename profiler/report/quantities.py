"""Costs as people read them."""

from __future__ import annotations


def quantity(value: float, unit: str) -> str:
    """Return a cost with a readable prefix: `3.42 ms`, `12.1 mJ`."""
    if unit in ("s", "J") and value > 0:
        for factor, prefix in ((1.0, ""), (1e-3, "m"), (1e-6, "u"), (1e-9, "n")):
            if value >= factor:
                return f"{value / factor:.3g} {prefix}{unit}"
    return f"{value:.4g} {unit}"

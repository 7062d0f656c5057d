"""Judgement that rejects no visit for what else the machine did.

Visits of milliseconds are noisy; that they are rejected for it is tested elsewhere.
"""

from __future__ import annotations

from pathlib import Path

from joulemap.datasets import JudgementSettings

CALM = JudgementSettings(
    max_change=99.0, min_state_gap=99.0, outlier_change=99.0, max_steal_share=99.0
)


def calm_file(folder: Path) -> Path:
    """Return a campaign's TOML file that holds this judgement and nothing else."""
    lines = [f"{name} = {value}" for name, value in CALM.differing().items()]
    file = folder / "calm.toml"
    file.write_text("\n".join(["[judgement]", *lines, ""]))
    return file

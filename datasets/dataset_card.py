"""The dataset card: a README that says what a dataset holds and how good it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from joulemap.showable_text import in_markdown

from .judgement_settings import JudgementSettings
from .metrics import NoiseFloor
from .network_spec import NetworkSpec
from .verification import Verification

DIGEST_TEXT = (
    "measurements.parquet holds a digest of its content, which is checked whenever it is read."
)


class OfOneNetwork(Protocol):
    """The rows of one network."""

    @property
    def spec(self) -> NetworkSpec:
        """The network."""

    @property
    def widths(self) -> npt.NDArray[np.int64]:
        """Widths in channels, `n x k`."""


class Describable(OfOneNetwork, Protocol):
    """What a card describes and files hold; a `CostDataset` has it, see there."""

    specs: dict[str, NetworkSpec]
    device: dict[str, Any]
    protocol: dict[str, Any]
    source: str
    verification: Verification
    judgement: JudgementSettings | None

    def __len__(self) -> int:
        """Return the number of rows."""

    @property
    def is_verified(self) -> bool | None:
        """Whether something vouches for the file that it was read from."""

    @property
    def conditions(self) -> pd.DataFrame:
        """The conditions of every row."""

    @property
    def fixed_conditions(self) -> dict[str, Any]:
        """The conditions that are the same in every row."""

    @property
    def cost_names(self) -> tuple[str, ...]:
        """The cost columns."""

    def cost(self, target: str) -> npt.NDArray[np.float64]:
        """Return a cost column in its SI unit; NaN where missing."""

    def unit(self, target: str) -> str:
        """Return the SI unit of a cost column."""

    def noise_floor(self, target: str = "latency_s") -> NoiseFloor | None:
        """Return how far two measurements of the same variant differ."""

    def by_spec(self) -> Mapping[str, OfOneNetwork]:
        """Return the rows of each network."""

    def to_pandas(self) -> pd.DataFrame:
        """Return all columns."""


def _about_file(dataset: Describable) -> list[str]:
    """Return whether something vouches for what the file says."""
    if dataset.is_verified is False:
        return dataset.verification.describe()
    return [DIGEST_TEXT, *dataset.verification.notes]


def dataset_card(dataset: Describable) -> str:
    """Return the card as Markdown."""
    names = ", ".join(in_markdown(spec.name) for spec in dataset.specs.values())
    lines = [
        f"# Cost measurements of {names}",
        "",
        f"{len(dataset)} variants. {in_markdown(dataset.source)}".strip(),
        "",
        " ".join(map(in_markdown, _about_file(dataset))),
        "",
        "## Device",
        "",
    ]
    device = dataset.device
    known = [(key, device[key]) for key in sorted(device) if device[key] not in (None, {}, [])]
    lines += [_item(key, value) for key, value in known] or ["- not stated"]
    lines += ["", "## Conditions", ""]
    fixed = dataset.fixed_conditions
    for name in dataset.conditions.columns:
        values = dataset.conditions[name].unique()
        shown = fixed[name] if name in fixed else ", ".join(map(str, values[:10]))
        lines.append(_item(name, shown))
    lines += ["", "## Costs", "", "| column | unit | rows | smallest | median | largest |"]
    lines.append("|---|---|---|---|---|---|")
    for name in dataset.cost_names:
        values = dataset.cost(name)
        values = values[np.isfinite(values)]
        if len(values):
            row = [f"{value:.4g}" for value in (values.min(), np.median(values), values.max())]
            lines.append(f"| {_cost(dataset, name)} | {len(values)} | {' | '.join(row)} |")
        else:
            lines.append(f"| {_cost(dataset, name)} | 0 | | | |")
    if not np.isfinite(dataset.cost("energy_j")).any() if "energy_j" in dataset.cost_names else 0:
        lines += [
            "",
            "`energy_j` is empty: no meter was read, or none of its readings can be used.",
        ]
    if "simulated" in set(dataset.to_pandas().get("energy_source", ())):
        lines += ["", "Energies are simulated: no meter of a real device was read."]
    lines += ["", "## Noise floor", ""]
    floor = dataset.noise_floor(dataset.cost_names[0])
    if floor is None:
        lines.append("Unknown: no variant was measured twice.")
    else:
        lines.append(
            f"{100 * floor.value:.1f} % ({100 * floor.low:.1f} to {100 * floor.high:.1f} %, 95 %, "
            f"{floor.num_pairs} variants) of {in_markdown(dataset.cost_names[0])}: the mean relative difference "
            "of two measurements of the same variant over the square root of 2. No predictor can be "
            "shown to be better than this."
        )
    if dataset.protocol:
        lines += ["", "## Protocol", ""]
        lines += [_item(key, value) for key, value in sorted(dataset.protocol.items())]
    lines += _judgement(dataset.judgement)
    lines += ["", "## Widths", "", "| width | smallest | largest | in the network |"]
    lines.append("|---|---|---|---|")
    for spec_id, part in dataset.by_spec().items():
        del spec_id
        for index, width in enumerate(part.spec.widths):
            column = part.widths[:, index]
            name = in_markdown(width.name)
            lines.append(f"| {name} | {column.min()} | {column.max()} | {width.max} |")
    return "\n".join(lines)


def _judgement(judgement: JudgementSettings | None) -> list[str]:
    """Return the section on what visits were judged by; none where that is not known."""
    if judgement is None:
        return []
    differing = judgement.differing()
    others = [_item(name, value) for name, value in differing.items()]
    settings = (
        "these settings, otherwise by joulemap's own" if others else "joulemap's own settings"
    )
    said = f"Visits were judged by {settings}; measurements.parquet holds the value of each."
    return ["", "## Judgement", "", said, *(["", *others] if others else [])]


def _item(name: object, value: object) -> str:
    """Return a line of a list; nothing that a device wrote into it makes a link or a tag."""
    return f"- {in_markdown(name)}: {in_markdown(_words(value))}"


def _cost(dataset: Describable, name: str) -> str:
    return f"{in_markdown(name)} | {in_markdown(dataset.unit(name))}"


def _words(value: object) -> str:
    """Return a value of a device's or protocol's description for people."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        parts = {key: _words(item) for key, item in value.items() if item is not None}
        return ", ".join(f"{key} {text}" for key, text in parts.items())
    if isinstance(value, (list, tuple)):
        mark = "; " if any(isinstance(item, (Mapping, str)) for item in value) else ", "
        return mark.join(map(_words, value))
    return str(value)

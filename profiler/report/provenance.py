"""Where the numbers come from: device, conditions, protocol, predictor, and what the words mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...models import Predictor
from .content import INTERVAL, ReportContent
from .fingerprint_rows import fingerprint_rows
from .layout import count, moment, section, table
from .markup import Html, element


def provenance(content: ReportContent, made_at: str, version: str) -> Html:
    """Return device, conditions, protocol and predictor as tables."""
    dataset, predictor, journal = content.dataset, content.predictor, content.journal
    device = fingerprint_rows(dataset.device)
    runtimes = dataset.device.get("runtimes")
    conditions = [[name, str(value)] for name, value in dataset.fixed_conditions.items()]
    if journal is not None:
        conditions.append(["runtime version", journal.campaign.runtime_version])
        conditions += [
            ["sampling", f"{journal.campaign.sampling}, seed {journal.campaign.seed}"],
            ["reference widths", ", ".join(map(str, journal.campaign.reference_widths))],
        ]
        if journal.visits:
            conditions.append(["first visit", moment(journal.visits[0].started_at)])
            conditions.append(["last visit", moment(journal.visits[-1].started_at)])
        conditions.append(["measured by", f"joulemap {journal.campaign.joulemap_version}"])
    else:
        versions = runtimes if isinstance(runtimes, dict) else {}
        known = versions.get(dataset.fixed_conditions.get("runtime"))
        conditions += [
            ["runtime version", str(known or "not stated")],
            ["sampling", "not stated"],
            ["date", "not stated"],
            ["source", dataset.source or "not stated"],
        ]
    conditions.append(["report made", f"{moment(made_at)} by joulemap {version}"])
    conditions = [[name, _stated(value)] for name, value in conditions]
    protocol = [[name, _stated(value)] for name, value in sorted(dataset.protocol.items())]
    model = [
        ["model", model_name(predictor)],
        *[[f"  {name}", _stated(value)] for name, value in _hyperparameters(predictor).items()],
        ["target", f"{predictor.target_} [{predictor.unit_ or 'no unit'}]"],
        ["fitted on", count(predictor.num_samples_, "measurement")],
        ["network fingerprint", content.spec.fingerprint],
    ]
    not_stated = element("p", "Not stated: the dataset was imported.", class_="note")
    return section(
        "provenance",
        "How it was measured and fitted",
        element(
            "div",
            element("div", element("h3", "Device"), _texts(device) if device else not_stated),
            element("div", element("h3", "Conditions"), _texts(conditions)),
            element(
                "div",
                element("h3", "Protocol"),
                _texts(protocol) if protocol else not_stated,
            ),
            element("div", element("h3", "Predictor"), _texts(model)),
            class_="pair",
        ),
    )


def definitions() -> Html:
    """Return what the words on the page mean."""
    entries = {
        "Error": "the mean over variants of |measured - predicted| / measured. Held out: by a fit that "
        "has not seen the variant. Its interval is a bootstrap over variants.",
        "Noise floor": "how far two complete measurements of the same variant lie apart: the mean of "
        "|a - b| over their mean, divided by the square root of 2, with a bootstrap interval over "
        "pairs. No model can be shown to be better.",
        "Interval of a measurement": "95 %, over its visits as clusters, with what is not known about "
        "the correction for drift. One visit cannot see that the device was slow for all of it.",
        "Interval of the mean": f"{100 * INTERVAL:.0f} %, from errors on held-out variants, less what "
        "is surely noise.",
        "Latency": "one call of the stated batch: the median over accepted blocks of runs, at the "
        "fastest speed that the device held for a twentieth of the campaign.",
    }
    return section(
        "definitions",
        "What the words mean",
        *[element("p", element("strong", name), f": {text}") for name, text in entries.items()],
    )


def model_name(predictor: Predictor) -> str:
    """Return the name of a predictor's class."""
    return type(predictor).__name__


def _texts(rows: Sequence[Sequence[str]]) -> Html:
    return table(("", ""), rows, kind="texts")


def _hyperparameters(predictor: Predictor) -> dict[str, Any]:
    given = predictor.get_params(deep=False)
    return {name: value for name, value in given.items() if name != "spec"}


def _stated(value: Any) -> str:
    return "not stated" if value is None or value == "None" else str(value)

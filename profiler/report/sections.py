"""What the report shows: each section a function from the numbers to a piece of the page."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from ...datasets import metrics
from ...datasets.estimation import CampaignEstimate
from ...models import registry
from ...models.plots import cost_name
from ..campaign.correction_words import correction_words, drift_size
from . import figures
from .content import Estimate, KnowsAlignment, ReportContent, bootstrap, half
from .layout import (
    cost_text,
    count,
    legend,
    moment,
    percent,
    section,
    sentence,
    share,
    signed,
    table,
)
from .markup import Html, element
from .provenance import model_name


def header(content: ReportContent) -> Html:
    """Return the title and the headline figures, each with its spread."""
    predictor, dataset = content.predictor, content.dataset
    unit, comparison = predictor.unit_, content.comparison
    device = dataset.device.get("cpu_model") or dataset.device_id or "a device that is not stated"
    floor = content.noise_floor
    full = content.shares.total
    kind = "held-out error" if comparison.is_held_out else "error"
    cards = [
        (
            f"Mean {kind}",
            percent(comparison.error.value),
            f"{_ends(comparison.error)}, 95 % over {count(len(comparison.measured), 'variant')}",
        ),
        (
            "Noise floor",
            "unknown" if floor is None else percent(floor.value),
            "no variant was measured twice"
            if floor is None
            else f"{percent(floor.low)} to {percent(floor.high)}, 95 %, {count(floor.num_pairs, 'pair')}",
        ),
        (
            f"Full network, {cost_name(predictor)}",
            cost_text(full.value, unit),
            _cost_ends(full, unit, "90 % interval of the mean"),
        ),
        ("Variants", f"{len(comparison.measured):,}", _spread_of_measurements(content)),
    ]
    return element(
        "header",
        element("h1", f"{content.spec.name} on {device}"),
        element("p", _subtitle(content), class_="lead"),
        element(
            "dl",
            *[
                element(
                    "div",
                    element("dt", name),
                    element("dd", number, class_="number"),
                    element("dd", sentence(spread), class_="spread"),
                    class_="figure",
                )
                for name, number, spread in cards
            ],
            class_="figures",
        ),
    )


def warnings(sentences: Sequence[str]) -> Html:
    """Return what to know first, in plain words."""
    title = "What to know first"
    if not sentences:
        said = "Nothing stood out: neither in the fit nor in the measurements."
        return section("warnings", title, element("p", said))
    items = element("ul", *[element("li", sentence(said)) for said in sentences])
    return section("warnings", title, items, kind="warnings")


def accuracy(content: ReportContent) -> Html:
    """Return predicted against measured, with the figures of the error."""
    c = content.comparison
    whose = (
        "Every point is a variant that the prediction was made without: five fits, each on four fifths "
        "of the variants."
        if c.is_held_out
        else "Every point is a variant of this dataset; the predictor was fitted on other data."
    )
    marks = [("dot", "one variant"), ("reference", "prediction = measurement")]
    if np.isfinite(c.low).any():
        marks.append(("whisker", "95 % interval of the measurement, over its visits"))
    if content.noise_floor is not None:
        marks.append(("noise-area", f"± noise floor ({percent(content.noise_floor.value)})"))
    absolute = np.abs(c.relative)
    rows = [
        _figure("mean error", c.error, percent),
        _figure("median error", bootstrap(absolute, np.median), percent),
        _figure("mean signed error", bootstrap(c.relative), signed),
        _figure("within 5 %", bootstrap((absolute <= 0.05).astype(float)), share),
        _figure("within 10 %", bootstrap((absolute <= 0.10).astype(float)), share),
        ["largest error", percent(float(absolute.max())), ""],
    ]
    if len(c.measured) > 1:
        rows.append(["rank correlation", f"{metrics.spearman(c.measured, c.predicted):.3f}", ""])
    if math.isfinite(c.coverage):
        rows.append(["inside the 90 % interval", share(c.coverage), ""])
    return section(
        "accuracy",
        "Predicted against measured",
        element("p", whose, class_="note"),
        legend(*marks),
        element(
            "div",
            element("figure", figures.compared(content)),
            element("figure", figures.residuals(content)),
            class_="pair",
        ),
        table(("figure", "value", "95 % interval"), rows),
    )


def learning(content: ReportContent) -> Html:
    """Return the error against the number of samples."""
    if not content.curves:
        return section(
            "learning",
            "Error against number of samples",
            element(
                "p",
                f"{count(len(content.comparison.measured), 'variant')} are too few to hold some "
                "out and fit on parts of the rest.",
            ),
        )
    kinds = figures.MODEL_KINDS
    marks = [(kind, c.model) for kind, c in zip(kinds, content.curves, strict=False)]
    if content.noise_floor is not None:
        marks.append(("noise-area", "noise floor with its 95 % interval"))
    rows = [
        [
            str(count),
            *(
                f"{percent(float(c.mean[c.counts.index(count)]))} ± "
                f"{percent(float(c.spread[c.counts.index(count)]))}"
                if count in c.counts
                else "-"
                for c in content.curves
            ),
        ]
        for count in content.curves[0].counts
    ]
    return section(
        "learning",
        "Error against number of samples",
        element(
            "p",
            "The model and simpler ones, fitted on growing parts of four fifths of the variants and "
            "tested on the fifth that is left. Points are means, error bars standard deviations, over "
            "the five ways to leave out a fifth. Both axes are logarithmic.",
            class_="note",
        ),
        legend(*marks),
        element(
            "div",
            element("figure", figures.learning(content)),
            table(("samples", *(c.model for c in content.curves)), rows),
            class_="pair",
        ),
    )


def widths(content: ReportContent) -> Html:
    """Return the cost against each width, small charts with one scale."""
    labels = {r.label: r.is_fast for curve in content.width_curves for r in curve.regimes}
    marks = [("prediction" if fast else "slow", label) for label, fast in labels.items()]
    if content.predictor.held_out_ is not None:
        marks.append(("mean-area", "90 % interval of the mean"))
    marks.append(("rug", "a width that was measured, others anywhere"))
    return section(
        "widths",
        "Cost against each width",
        element(
            "p",
            "One width changes, all others stay at their largest. All charts have the same vertical "
            "scale, so a steep line is a width that pays. The curves are predictions at a corner of "
            "the space of widths, where few variants are measured.",
            class_="note",
        ),
        legend(*marks),
        element(
            "div",
            *[
                element("figure", element("h3", curve.name), figures.width_chart(content, curve))
                for curve in content.width_curves
            ],
            class_="multiples",
        ),
    )


def parts(content: ReportContent) -> Html:
    """Return which layers, or widths, cost most."""
    shares, unit = content.shares, content.predictor.unit_
    known = any(math.isfinite(part.low) for _, part in shares.parts)
    bar = (
        " Error bars run from the smallest to the largest of six fits: this one and five on four "
        "fifths of the data."
        if known
        else " No spread is known: there are too few data to fit parts of them."
    )
    full = (
        f"The full network costs {cost_text(shares.total.value, unit)} "
        f"({_cost_ends(shares.total, unit, '90 % interval of the mean')})."
    )
    if shares.is_by_layer:
        what = (
            f"What the predictor assigns to each layer of the full network. {full} The division among "
            "layers is the model's: layers are not measured one by one, and two that always change "
            "together can be told apart only by their shape."
        )
        title = "Which layers cost most"
    else:
        what = (
            f"How much the cost falls when one width is halved and all others stay at their largest. "
            f"{full} The falls do not add up to it: neighbouring widths multiply."
        )
        title = "Which widths cost most"
    return section("parts", title, element("p", what + bar, class_="note"), figures.parts(content))


def rounding(content: ReportContent) -> Html:
    """Return what to round widths to."""
    predictor, title = content.predictor, "What to round widths to"
    if not isinstance(predictor, KnowsAlignment):
        hint = " `joulemap fit --model aligned` does." if "aligned" in registry.names() else ""
        return section(
            "rounding",
            title,
            element(
                "p",
                sentence(
                    f"This model ({model_name(predictor)}) does not look for multiples of channels at "
                    f"which the device runs faster.{hint}"
                ),
            ),
        )
    sentences = element(
        "ul", *[element("li", sentence(said)) for said in predictor.describe()], class_="findings"
    )
    if content.rounding is None:
        return section("rounding", title, sentences)
    change, low, high = np.quantile(content.rounding, [0.5, 0.1, 0.9])
    spec = content.spec
    halves = [half(width.max, width.multiple, width.min) for width in spec.widths]
    thirds = [max(width.min, width.max // 3) for width in spec.widths]
    columns = [np.array(row, dtype=np.float64) for row in (spec.max_widths, halves, thirds)]
    rounded = [np.asarray(predictor.round_widths(column)) for column in columns]
    rows = [
        [
            name,
            *(
                f"{before[i]:.0f}" if before[i] == after[i] else f"{before[i]:.0f} → {after[i]:.0f}"
                for before, after in zip(columns, rounded, strict=True)
            ),
        ]
        for i, name in enumerate(spec.width_names)
    ]
    return section(
        "rounding",
        title,
        sentences,
        element(
            "p",
            f"Rounding the {len(content.rounding)} measured variants changes their predicted cost by "
            f"{signed(float(change))} in the median ({signed(float(low))} to "
            f"{signed(float(high))} for the middle 80 %).",
        ),
        table(("width", "largest", "half of it", "a third of it"), rows),
    )


def drift(content: ReportContent, estimate: CampaignEstimate | None) -> Html:
    """Return how the device's speed changed over the campaign."""
    title = "Drift and states over the campaign"
    if content.journal is None or estimate is None or not estimate.visits:
        return section(
            "drift",
            title,
            element(
                "p",
                "There is no journal beside this dataset, so nothing is known about single visits: it "
                "was imported from a table, or only its Parquet file was given. Whether the device's "
                "speed changed while it was measured cannot be told.",
            ),
        )
    history = estimate.history
    visits = estimate.visits
    rows = []
    for state, level in enumerate(history.level.tolist()):
        part = float(np.mean(history.state == state))
        rows.append(
            [
                f"{state + 1}" + (" (fastest)" if state == 0 else ""),
                f"{math.exp(level):.2f} times",
                share(part),
                percent(float(estimate.noise_sd[state])),
            ]
        )
    marks = [("dot", "reference, one visit"), ("trend", "estimated speed: state and drift")]
    if estimate.rejections:
        marks.append(("rejected", "rejected visit"))
    marks += [
        (f"state-{min(state, 3)}", f"state {state + 1}")
        for state in range(1, min(len(history.level), 4))
    ]
    if (history.state < 0).any():
        marks.append(("unknown", "no lasting state"))
    size = drift_size(estimate)
    return section(
        "drift",
        title,
        element(
            "p",
            f"{count(len(visits), 'visit')} from {moment(visits[0].started_at)} to "
            f"{moment(visits[-1].started_at)}. "
            "The same small variant, the reference, runs before and after every visit and shows the "
            f"device's speed. Within a state it drifted by {percent(size)}. "
            f"{correction_words(estimate)} "
            f"{count(len(estimate.rejections), 'visit')} rejected. The spread below is the standard "
            "deviation of a visit around its variant.",
            class_="note",
        ),
        legend(*marks),
        element("figure", figures.drift(estimate)),
        table(
            ("state", "slowdown", "visits", "spread"),
            rows,
        ),
    )


def _subtitle(content: ReportContent) -> str:
    fixed = content.dataset.fixed_conditions
    said = [
        f"{cost_name(content.predictor).capitalize()} predicted by {model_name(content.predictor)}"
    ]
    if content.journal is not None:
        said.append(
            f"{content.journal.campaign.conditions.runtime} {content.journal.campaign.runtime_version}"
        )
    said += [
        f"{name} {fixed[name]}"
        for name in ("batch", "resolution", "precision", "threads")
        if fixed.get(name) is not None
    ]
    return " · ".join(said)


def _spread_of_measurements(content: ReportContent) -> str:
    c = content.comparison
    half_widths = (c.high - c.low) / 2 / c.measured
    known = half_widths[np.isfinite(half_widths)]
    if not len(known):
        return "no interval of the single measurements is known"
    return f"median 95 % interval of one: ± {percent(float(np.median(known)))}"


def _cost_ends(estimate: Estimate, unit: str, what: str) -> str:
    if not math.isfinite(estimate.low):
        return "no interval is known"
    low, high = (cost_text(end, unit) for end in (estimate.low, estimate.high))
    return f"{low} to {high}, {what}"


def _figure(name: str, estimate: Estimate, text: Callable[[float], str]) -> list[str]:
    if not math.isfinite(estimate.low):
        return [name, text(estimate.value), ""]
    low = text(estimate.low).removesuffix("%").rstrip()
    return [name, text(estimate.value), f"{low} to {text(estimate.high)}"]


def _ends(estimate: Estimate) -> str:
    if not math.isfinite(estimate.low):
        return "no interval"
    return f"{percent(estimate.low)} to {percent(estimate.high)}"

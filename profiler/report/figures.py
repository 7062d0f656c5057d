"""The report's charts: numbers of `content` in, SVG out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from ...datasets.estimation import CampaignEstimate
from ...models.base.intervals import FloatArray
from ...models.plots import cost_name, display_unit
from .charts import Axis, Bar, Chart, bar_chart, padded, round_values
from .content import Comparison, Estimate, ReportContent, WidthCurve
from .layout import cost_text, moment
from .markup import Html, element, joined

# Beyond this ratio of largest to smallest a linear axis hides the small ones.
_LOG_RATIO = 12.0
# More points than this are drawn without a text on each, to keep the file small.
_MAX_HINTS = 600
_MAX_BARS = 20
_MAX_STATES = 4


def compared(content: ReportContent) -> Html:
    """Return predicted against measured cost, with the measurements' 95 % intervals."""
    c = content.comparison
    name = cost_name(content.predictor)
    factor, unit = display_unit(np.concatenate([c.measured, c.predicted]), content.predictor.unit_)
    both = np.concatenate([c.measured, c.predicted[c.predicted > 0]]) * factor
    is_log = float(both.max() / both.min()) > _LOG_RATIO
    low, high = padded(both, is_log=is_log)
    low = low if is_log else max(low, 0.0)
    label = f"{name} [{unit}]" if unit else name
    marks = round_values(low, high, 8, is_log=is_log)
    chart = Chart(
        f"Predicted against measured {name} of {len(c.measured)} variants",
        Axis(f"measured {label}", low, high, is_log, marks),
        Axis(f"predicted {label}", low, high, is_log, marks),
        400,
        380,
    )
    line = np.geomspace(low, high, 60) if is_log else np.array([low, high])
    if content.noise_floor is not None:
        floor = content.noise_floor.value
        chart.band(line, line * (1 - floor), line * (1 + floor), "noise")
    chart.line(line, line, "reference")
    measured, predicted = c.measured * factor, c.predicted * factor
    chart.whiskers(
        measured, predicted, c.low * factor, c.high * factor, "prediction", horizontal=True
    )
    _scatter(chart, measured, predicted, _hints(content))
    return chart.render()


def residuals(content: ReportContent) -> Html:
    """Return the signed relative error against measured cost, with the noise floor."""
    c = content.comparison
    name = cost_name(content.predictor)
    factor, unit = display_unit(c.measured, content.predictor.unit_)
    measured, relative = c.measured * factor, 100 * c.relative
    is_log = float(measured.max() / measured.min()) > _LOG_RATIO
    low, high = padded(measured, is_log=is_log)
    lowest, highest = padded(np.append(relative, [-1.0, 1.0]))
    chart = Chart(
        f"Signed error of the prediction against measured {name}",
        Axis(f"measured {name} [{unit}]" if unit else f"measured {name}", low, high, is_log),
        Axis("prediction minus measurement [%]", lowest, highest),
        400,
        380,
    )
    ends = np.array([low, high])
    if content.noise_floor is not None:
        floor = np.full(2, 100 * content.noise_floor.value)
        chart.band(ends, -floor, floor, "noise")
    chart.line(ends, np.zeros(2), "reference")
    low_ci, high_ci = (c.predicted / end - 1.0 for end in (c.high, c.low))
    chart.whiskers(measured, relative, 100 * low_ci, 100 * high_ci, "prediction")
    _scatter(chart, measured, relative, _hints(content))
    return chart.render()


def learning(content: ReportContent) -> Html:
    """Return error on held-out variants against number of samples, one line per model."""
    curves = content.curves
    shown = [100 * (curve.mean + sign * curve.spread) for curve in curves for sign in (-1, 0, 1)]
    # A spread as large as the mean would reach down to nothing, which a logarithm has no place for.
    shown = [values[values > 0.3 * 100 * curves[0].mean.min()] for values in shown]
    floor = content.noise_floor
    if floor is not None:
        shown.append(100 * np.array([max(floor.low, 1e-4), max(floor.high, 1e-4)]))
    low, high = padded(np.concatenate(shown), is_log=True)
    counts = [count for curve in curves for count in curve.counts]
    first, last = padded(np.array(counts, dtype=np.float64), is_log=True)
    chart = Chart(
        "Error on held-out variants against the number of samples",
        Axis("samples [variants]", first, last, is_log=True, ticks=_spaced(curves[0].counts)),
        Axis("error on held-out variants [%]", low, high, is_log=True),
        400,
        300,
    )
    if floor is not None:
        ends = np.array([first, last])
        chart.band(ends, np.full(2, 100 * floor.low), np.full(2, 100 * floor.high), "noise")
    for curve, kind in reversed(list(zip(curves, MODEL_KINDS, strict=False))):
        x, mean, spread = np.array(curve.counts, float), 100 * curve.mean, 100 * curve.spread
        chart.whiskers(x, mean, np.maximum(mean - spread, low), mean + spread, kind)
        chart.line(x, mean, kind)
        hints = [
            f"{curve.model}, {count} samples: {value:.1f} % ± {deviation:.1f} %"
            for count, value, deviation in zip(curve.counts, mean, spread, strict=True)
        ]
        chart.points(x, mean, kind, hints)
    return chart.render()


MODEL_KINDS = ("prediction", "second", "third")


def width_chart(content: ReportContent, curve: WidthCurve) -> Html:
    """Return the cost against one width, a line per regime, and where variants were measured."""
    name = cost_name(content.predictor)
    every = np.concatenate([r.cost for c in content.width_curves for r in c.regimes])
    highs = [r.high for c in content.width_curves for r in c.regimes if r.high is not None]
    factor, unit = display_unit(every, content.predictor.unit_)
    high = factor * float(max(every.max(), *(h.max() for h in highs), 0.0))
    low = min(0.0, factor * float(every.min()))
    values = np.concatenate([regime.widths for regime in curve.regimes])
    first, last = float(values.min()), float(values.max())
    last = last if last > first else first + 1
    marks = tuple(value for value in round_values(first, last, 4) if value > first)
    chart = Chart(
        f"{name} against the width {curve.name}, all other widths at their largest",
        Axis(f"{curve.name} [channels]", first, last, ticks=marks),
        Axis(f"{name} [{unit}]" if unit else name, low, 1.04 * high),
        280,
        200,
    )
    for regime in reversed(curve.regimes):
        kind = "prediction" if regime.is_fast else "slow"
        if regime.low is not None and regime.high is not None:
            chart.band(regime.widths, regime.low * factor, regime.high * factor, kind)
    for regime in reversed(curve.regimes):
        kind = "prediction" if regime.is_fast else "slow"
        chart.line(regime.widths, regime.cost * factor, kind)
    chart.rug(curve.measured, "reference")
    return chart.render()


def parts(content: ReportContent) -> Html:
    """Return which layers or widths cost most, as bars, in a wide and a narrow drawing."""
    shares, unit = content.shares, content.predictor.unit_
    items = [*shares.parts]
    if not items:
        return element("p", "The model is a constant: it found nothing that costs more or less.")
    if len(items) > _MAX_BARS:
        rest = sum(part.value for _, part in items[_MAX_BARS - 1 :])
        items = items[: _MAX_BARS - 1]
        items.append((f"{len(shares.parts) - len(items)} others", Estimate(rest)))
    total = abs(shares.total.value) or 1.0
    bars = [
        Bar(
            name,
            part.value,
            part.low,
            part.high,
            f"{cost_text(part.value, unit)} ({100 * part.value / total:.1f} %)",
        )
        for name, part in items
    ]
    what = "Cost of each layer" if shares.is_by_layer else "Fall in cost when a width is halved"
    return joined([bar_chart(what, bars, 1060, "wide"), bar_chart(what, bars, 380, "narrow")])


def drift(estimate: CampaignEstimate) -> Html:
    """Return the reference's slowdown over the visits with states shaded, wide and narrow."""
    return joined([_drift(estimate, 1040, "wide"), _drift(estimate, 400, "narrow")])


def reference_slowdown(estimate: CampaignEstimate) -> FloatArray:
    """Return how much slower the reference ran at each timed visit than in its fastest state, `n`."""
    ends = [
        (visit.timing.reference_before.median_s, visit.timing.reference_after.median_s)
        for visit in estimate.visits
        if visit.timing is not None
    ]
    level = np.log(np.array(ends)).mean(axis=1)
    is_fastest = estimate.history.state == 0
    base = np.median(level[is_fastest]) if is_fastest.any() else np.median(level)
    return np.asarray(np.exp(level - base))


def _drift(estimate: CampaignEstimate, width: float, kind: str) -> Html:
    history = estimate.history
    slowdown = reference_slowdown(estimate)
    place = np.arange(1.0, len(slowdown) + 1)
    # A lone burst must not squash the rest; it is drawn at the edge.
    high = max(1.1, 1.15 * float(np.quantile(slowdown, 0.99)))
    low = min(0.95, 0.97 * float(np.quantile(slowdown, 0.01)))
    chart = Chart(
        f"Slowdown of the reference over {len(slowdown)} visits",
        Axis("visit, in the order made", 1, max(2.0, float(len(place)))),
        Axis("reference time / its time in the fastest state", low, high),
        width,
        260,
        kind,
    )
    for start, end, state in _stretches(history.state.tolist()):
        if state != 0:
            shade = "unknown" if state < 0 else f"state-{min(state, _MAX_STATES - 1)}"
            what = "no lasting state" if state < 0 else f"state {state + 1}"
            chart.shade(start + 0.5, end + 0.5, shade, f"visits {start + 1} to {end}: {what}")
    is_rejected = np.array([visit.key in estimate.rejections for visit in estimate.visits])
    chart.line(place, np.exp(history.state_shift + history.drift), "trend")
    hints = [
        f"visit {number + 1}, {moment(visit.started_at)}: {slowdown[number]:.3f} times"
        for number, visit in enumerate(estimate.visits)
        if not is_rejected[number]
    ]
    _scatter(chart, place[~is_rejected], slowdown[~is_rejected], hints)
    chart.points(
        place[is_rejected],
        slowdown[is_rejected],
        "rejected",
        [
            f"visit {number + 1} rejected: {estimate.rejections[visit.key]}"
            for number, visit in enumerate(estimate.visits)
            if visit.key in estimate.rejections
        ],
    )
    return chart.render()


def _scatter(chart: Chart, x: FloatArray, y: FloatArray, hints: Sequence[str]) -> None:
    if len(x) > _MAX_HINTS:
        chart.dots(x, y, "prediction")
    else:
        chart.points(x, y, "prediction", hints)


def _hints(content: ReportContent) -> list[str]:
    c, unit = content.comparison, content.predictor.unit_
    return [_hint(c, i, unit) for i in range(len(c.measured))]


def _hint(c: Comparison, i: int, unit: str) -> str:
    own = ""
    if math.isfinite(c.low[i]) and math.isfinite(c.high[i]):
        own = f" (95 %: {cost_text(c.low[i], unit)} to {cost_text(c.high[i], unit)})"
    widths = ", ".join(f"{width:.0f}" for width in c.widths[i])
    return (
        f"measured {cost_text(c.measured[i], unit)}{own}, predicted "
        f"{cost_text(c.predicted[i], unit)} ({100 * c.relative[i]:+.1f} %); widths {widths}"
    )


def _spaced(counts: Sequence[int]) -> tuple[float, ...]:
    """Return the counts that have room for a label, the largest among them."""
    kept = [counts[-1]]
    for count in reversed(counts[:-1]):
        if kept[-1] / count > 1.25:
            kept.append(count)
    return tuple(float(count) for count in reversed(kept))


def _stretches(states: Sequence[int]) -> list[tuple[int, int, int]]:
    """Return (first, one past the last, state) of every run of equal states."""
    cuts = [0, *(i for i in range(1, len(states)) if states[i] != states[i - 1]), len(states)]
    return [(start, end, states[start]) for start, end in pairwise(cuts)]

"""What a fit and its data say about how far to trust it, in plain words."""

from __future__ import annotations

import numpy as np

from ...datasets.device_identity import ids_of
from ..campaign.advice import campaign_findings
from ..campaign.findings import Finding, Severity, in_order
from .content import ReportContent

NOTE, LESS, WRONG = Severity.NOTE, Severity.LESS_PRECISE, Severity.MAY_BE_WRONG
# Share of a width's range that the data should span.
_SPAN = 0.8
# Costs beyond this multiple of what was measured are extrapolations.
_BEYOND = 1.25
_FEW_PER_WIDTH = 5
_NOTABLE_SHORTFALL = 0.1


def judge(content: ReportContent) -> list[str]:
    """Return what to know and do, the gravest first, the fit before the measurements where alike.

    An empty list means: all is well.
    """
    warnings = [
        Finding(f"warning {number}", LESS, f"{text[0].upper()}{text[1:]}.")
        for number, text in enumerate(content.warnings)
        if text
    ]
    found = [
        *_error(content),
        *_baselines(content),
        *_samples(content),
        *_ranges(content),
        *_corner(content),
        *_provenance(content),
        *warnings,
        *(campaign_findings(content.journal) if content.journal is not None else ()),
    ]
    return [finding.text for finding in in_order(found)]


def _error(content: ReportContent) -> list[Finding]:
    error, floor = content.comparison.error, content.noise_floor
    if floor is None:
        return [
            Finding(
                "error",
                NOTE,
                "The noise floor is unknown, since no variant was measured twice: nobody can say how "
                "much of the error is the model's. Measure some variants again.",
            )
        ]
    if error.value <= floor.high:
        return [
            Finding(
                "error",
                NOTE,
                f"The error of {_percent(error.value)} is no larger than what two measurements of one "
                f"variant differ by (up to {_percent(floor.high)}): a better model could not be told "
                "from this one with these data.",
            )
        ]
    if error.value > 2 * floor.high:
        # Without disturbances a simulated device has no noise at all.
        share = f"{error.value / floor.value:.0f} times" if floor.value > 1e-6 else "far above"
        return [
            Finding(
                "error",
                LESS,
                f"The error of {_percent(error.value)} is {share} the noise "
                f"floor of {_percent(floor.value)}: most of it is the model's, not the measurement's. "
                "Try another model, or look below for widths where the cost jumps.",
            )
        ]
    return []


def _baselines(content: ReportContent) -> list[Finding]:
    if len(content.curves) < 2:
        return []
    own, *others = content.curves
    best = min(others, key=lambda curve: float(curve.mean[-1]))
    gain = float(best.mean[-1] - own.mean[-1])
    if gain > max(float(own.spread[-1]), 0.0):
        return []
    return [
        Finding(
            "simpler model",
            LESS,
            f"With {own.counts[-1]} samples it is not clearly better than the simpler model "
            f"'{best.model}' ({_percent(float(own.mean[-1]))} and {_percent(float(best.mean[-1]))}).",
        )
    ]


def _samples(content: ReportContent) -> list[Finding]:
    count, widths = len(content.comparison.measured), len(content.spec.widths)
    said = []
    if count < _FEW_PER_WIDTH * widths:
        said.append(
            Finding(
                "variants",
                LESS,
                f"{count} variants are few for {widths} widths: every figure here may change with more. "
                "The same profile command with a larger --samples adds them.",
            )
        )
    if content.curves and len(content.curves[0].counts) > 1:
        own = content.curves[0]
        fall = float(own.mean[-2] - own.mean[-1])
        floor = content.noise_floor
        # At the noise floor nobody can see whether more would help (see `_error`).
        may_fall = floor is None or content.comparison.error.value > floor.high
        if may_fall and fall > max(float(own.spread[-1]), _NOTABLE_SHORTFALL * float(own.mean[-1])):
            said.append(
                Finding(
                    "learning",
                    LESS,
                    f"The error still falls with more samples ({_percent(float(own.mean[-2]))} with "
                    f"{own.counts[-2]}, {_percent(float(own.mean[-1]))} with {own.counts[-1]}): measure "
                    "more to lower it.",
                )
            )
    elif not content.curves:
        said.append(
            Finding(
                "learning",
                NOTE,
                "Too few variants for a learning curve: whether more would help is unknown.",
            )
        )
    coverage = content.comparison.coverage
    if np.isfinite(coverage) and not content.comparison.is_held_out and coverage < 0.8:
        said.append(
            Finding(
                "coverage",
                WRONG,
                f"Only {100 * coverage:.0f} % of these measurements lie in the predictor's 90 % "
                "interval: the device, its software or its speed is not what it was when the predictor "
                "was fitted. Fit it again.",
            )
        )
    return said


def _ranges(content: ReportContent) -> list[Finding]:
    ranges = content.predictor.width_ranges_
    if ranges is None:
        return []
    short = [
        f"{width.name} ({ranges[0, i]:.0f} to {ranges[1, i]:.0f} of {width.min} to {width.max})"
        for i, width in enumerate(content.spec.widths)
        if width.max > width.min and ranges[1, i] - ranges[0, i] < _SPAN * (width.max - width.min)
    ]
    if not short:
        return []
    more = f" and {len(short) - 3} more" if len(short) > 3 else ""
    return [
        Finding(
            "ranges",
            LESS,
            f"The data span only part of some widths: {', '.join(short[:3])}{more}. Outside, the "
            "predictor extrapolates.",
        )
    ]


def _corner(content: ReportContent) -> list[Finding]:
    full, largest = content.shares.total.value, float(content.comparison.measured.max())
    if content.predictor.held_out_ is None or full <= _BEYOND * largest:
        return []
    return [
        Finding(
            "corner",
            LESS,
            f"The full network is predicted to cost {full / largest:.1f} times the dearest variant that "
            "was measured. That is an extrapolation, and its interval, which comes from errors on "
            "measured variants, may be too narrow. The same holds for the curves over single widths. "
            "Measure the full network, or variants near it.",
        )
    ]


def _provenance(content: ReportContent) -> list[Finding]:
    predictor, dataset, said = content.predictor, content.dataset, []
    if predictor.held_out_ is None:
        said.append(
            Finding(
                "training",
                NOTE,
                "The predictor was not fitted on data: it has no intervals, and its error is that on the "
                "measurements of this dataset.",
            )
        )
    elif not content.comparison.is_held_out:
        said.append(
            Finding(
                "training",
                WRONG,
                f"The predictor was fitted to other data ({predictor.num_samples_} measurements) than "
                "this dataset holds now. If the two overlap, the error here is too low; fit again to "
                "get predictions of held-out variants.",
            )
        )
    if None not in (predictor.device_id_, dataset.device_id) and (
        predictor.device_id_ not in ids_of(dataset.device)
    ):
        said.append(
            Finding(
                "device",
                WRONG,
                f"The predictor was fitted on the device {predictor.device_id_}, these measurements are "
                f"of {dataset.device_id}.",
            )
        )
    sources = dataset.to_pandas().get("energy_source")
    if sources is not None and predictor.unit_ == "J" and (sources == "simulated").any():
        board = dataset.device.get("simulated_board")
        assumed = dataset.device.get("simulated_hardware", {}).get("joule_per_mac")
        stated = f", {assumed:g} J per multiply-accumulate" if assumed else ""
        said.append(
            Finding(
                "energy",
                NOTE,
                "The energy is simulated: it is that of a board with a known power model, which the "
                "agent's CPU time drives."
                if board
                else "The energy is simulated: its joules rest on an assumed cost per operation"
                f"{stated}.",
            )
        )
    return said


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"

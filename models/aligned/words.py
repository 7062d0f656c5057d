"""What an aligned model found, in plain words."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from ...datasets import NetworkSpec
from ..base.intervals import FloatArray
from .advice import Advice
from .structure import Compared
from .terms import TermTable

# Families whose share of the cost is smaller are not spoken of.
NOTABLE_SHARE = 0.05
# Regimes whose costs differ by less are called alike.
NOTABLE_RATIO = 1.05


class Aligned(Protocol):
    """What is described: a fitted `AlignedBilinearPredictor`, see there."""

    spec: NetworkSpec | None
    coef_: FloatArray
    candidates_: tuple[Compared, ...]
    width_ranges_: FloatArray | None

    @property
    def alignment_(self) -> int:
        """The divisor that separates the regimes."""

    @property
    def block_(self) -> int:
        """The block of output channels."""

    @property
    def is_staircase_(self) -> bool:
        """Whether inputs cost as whole blocks too."""

    @property
    def divisor_and_block_(self) -> tuple[int, int]:
        """Divisor and block, as `functions_of` takes them."""

    @property
    def sampled_multiple_(self) -> int:
        """What divides all widths of the data."""

    @property
    def complexity_(self) -> str:
        """Which terms take part."""

    @property
    def advice_(self) -> Advice:
        """What to round widths to."""

    def terms(self) -> TermTable:
        """Return the terms that `coef_` are the rates of."""

    def functions(self, X: FloatArray) -> FloatArray:
        """Return the functions of channel counts that the terms are products of."""

    def steps(self) -> tuple[int, ...]:
        """Return the multiple that each width has by its network."""

    def random_widths(self) -> FloatArray:
        """Return the bounds and random widths within them."""

    def round_widths(self, widths: ArrayLike) -> np.ndarray:
        """Return the widths rounded up to what the device likes."""

    def predict_arrays(self, X: FloatArray) -> FloatArray:
        """Return the cost of widths."""


def describe(predictor: Aligned) -> list[str]:
    """Return sentences: which alignment was found, what misalignment costs, what to round to.

    Args:
        predictor: A fitted predictor.
    """
    if predictor.complexity_ == "bilinear":
        return [
            (
                "ECC's bilinear form predicts held-out variants at least as well as rates shared by "
                "kinds of layers do, so that is what was fitted: no alignment, no cost per layer."
            )
        ]
    advice = predictor.advice_
    said = [_alignment(predictor, is_advised=advice.is_advised and not advice.is_free)]
    said += _blocks(predictor)
    if advice.is_advised:
        said += _price(predictor, is_free=advice.is_free)
        if predictor.alignment_ > 1 and not advice.is_free:
            said += _families(predictor)
    said += _advice(predictor)
    said += _limits(predictor)
    return said


def _alignment(predictor: Aligned, *, is_advised: bool) -> str:
    divisor = predictor.alignment_
    searched: dict[int, float] = {}
    for each in predictor.candidates_:
        if each.structure.terms == "memory":
            tried = each.structure.divisor
            searched[tried] = min(each.error, searched.get(tried, 1.0))
    if divisor == 1:
        widths = predictor.width_ranges_
        if widths is None or len(searched) < 2:
            return "No alignment was looked for."
        return (
            "No alignment was found: regimes of channel counts that are multiples of 2 to 32 do not "
            f"clearly predict held-out variants better (error {100 * searched[1]:.1f} % without "
            f"regimes, {100 * min(found for d, found in searched.items() if d > 1):.1f} % with the "
            "best)."
        )
    does = "run on faster kernels" if is_advised else "cost otherwise than others"
    text = f"Channel counts that are multiples of {divisor} {does}"
    if 1 in searched and divisor in searched:
        others = [
            f"{100 * error:.1f} % by {other}" for other, error in searched.items() if other > 1
        ]
        text += (
            f": held-out error {100 * searched[1]:.1f} % without regimes, with regimes of divisibility "
            f"{', '.join(others)}"
        )
    return text + "."


def _blocks(predictor: Aligned) -> list[str]:
    block = predictor.block_
    if block == 1:
        return []
    if predictor.is_staircase_:
        return [
            (
                f"The cost follows channels in blocks of {block}: a block that is not full costs as "
                "much as a full one."
            )
        ]
    aligned = "Aligned layers" if predictor.alignment_ > 1 else "Layers"
    return [
        (
            f"{aligned} work on output channels in blocks of {block}: a block that is not full costs "
            "them as much as a full one, and the layers that read it less."
        )
    ]


def _price(predictor: Aligned, *, is_free: bool) -> list[str]:
    X = predictor.random_widths()[2:]
    rounded = predictor.round_widths(X).astype(np.float64)
    changed = np.any(rounded != X, axis=1)
    if not changed.any():
        return ["All widths are aligned already, whatever their value."]
    ratio = predictor.predict_arrays(X[changed]) / predictor.predict_arrays(rounded[changed])
    low, middle, high = np.quantile(ratio, [0.25, 0.5, 0.75])
    to = _multiples(predictor)
    if is_free:
        more = np.median(rounded[changed].sum(axis=1) / X[changed].sum(axis=1))
        return [
            (
                f"Rounded up to {to}, a random width vector costs the same ({middle:.2f} times) and "
                f"has {100 * (more - 1):.0f} % more channels (median of {changed.sum()} vectors)."
            )
        ]
    return [
        (
            f"A random width vector costs {middle:.2f} times as much as the same rounded up to "
            f"{to} (half of {changed.sum()} vectors between {low:.2f} and {high:.2f})."
        )
    ]


def _families(predictor: Aligned) -> list[str]:
    """Say what misalignment costs by family: random vectors one channel off an aligned one."""
    multiples = np.array(predictor.advice_.multiples)
    aligned = predictor.round_widths(predictor.random_widths()[2:]).astype(np.float64)
    off = np.where((multiples > 1) & (aligned > 1), aligned - 1, aligned)
    if predictor.spec is not None:
        inside = np.all(off >= predictor.spec.min_widths, axis=1)
        off = np.where(np.array(predictor.steps()) > 1, aligned, off)[inside]
        aligned = aligned[inside]
    at_best, at_worst = (_cost_by_family(predictor, X) for X in (aligned, off))
    total = sum(at_worst.values())
    found = []
    for family, cost in sorted(at_worst.items(), key=lambda item: -item[1]):
        best = at_best.get(family, 0.0)
        if cost >= NOTABLE_SHARE * total and best > 0 and cost > NOTABLE_RATIO * best:
            found.append(f"{family} layers {cost / best:.1f} times")
    if not found:
        return []
    return [f"One channel off alignment costs {', '.join(found)} as much."]


def _cost_by_family(predictor: Aligned, X: FloatArray) -> dict[str, float]:
    table = predictor.terms()
    functions = predictor.functions(X)
    costs: dict[str, float] = {}
    for term, rate in zip(table.terms, predictor.coef_, strict=True):
        for piece in term.pieces if rate else ():
            cost = functions[:, piece.left_index] @ functions[:, piece.right_index]
            costs[term.family] = costs.get(term.family, 0.0) + rate * piece.coefficient * cost
    return {family: float(cost) / len(X) for family, cost in costs.items()}


def _advice(predictor: Aligned) -> list[str]:
    if predictor.advice_.is_advised:
        return [f"Round widths up to {_multiples(predictor)}: predictor.round_widths(widths)."]
    if predictor.divisor_and_block_ == (1, 1):
        return ["No width needs rounding."]
    return ["No width needs rounding: that it lowers the cost is not sure by this model."]


def _multiples(predictor: Aligned) -> str:
    found = {
        multiple
        for multiple, step in zip(predictor.advice_.multiples, predictor.steps(), strict=True)
        if multiple != step
    }
    if len(found) == 1 and len(set(predictor.advice_.multiples)) == 1:
        return f"multiples of {max(found)}"
    return (
        "the multiples of predictor.advised_multiples() "
        f"({min(predictor.advice_.multiples)} to {max(predictor.advice_.multiples)})"
    )


def _limits(predictor: Aligned) -> list[str]:
    if predictor.sampled_multiple_ > 1:
        return [
            (
                f"All measured widths are multiples of {predictor.sampled_multiple_}, so what others "
                "cost is not known; measure with --sampling aligned."
            )
        ]
    return []

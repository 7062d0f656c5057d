"""The numbers of a report, each with its spread: what is computed, before anything is drawn."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from joulemap import InputError

from ...datasets import CostDataset, NetworkSpec, Width
from ...datasets.journal import JournalContent
from ...datasets.metrics import NoiseFloor
from ...models import Predictor
from ...models.base.intervals import FloatArray
from ...models.base.measured_under import MeasuredUnder, refuse_unlike
from ...models.learning_curve import LearningCurve, learning_curves

BASELINES = ("bilinear", "flops")
INTERVAL = 0.9
_DRAWS = 2000
# A bootstrap draws at most this many numbers at once.
_MAX_DRAWN = 2_000_000


@runtime_checkable
class PredictsLayers(Protocol):
    """A predictor that divides a cost among the network's layers."""

    def layer_costs(self, widths: FloatArray) -> dict[str, float]:
        """Return the cost of each layer at one width vector (k,), in the predictor's unit."""


@runtime_checkable
class KnowsAlignment(Protocol):
    """A predictor that learned at which multiples a device is fast.

    Attributes:
        alignment_: The multiple, 1 for none.
    """

    alignment_: int

    def describe(self) -> list[str]:
        """Return what was found, what misalignment costs, and what to do, as sentences."""

    def round_widths(self, widths: FloatArray) -> npt.NDArray[Any]:
        """Return the widths, shape (..., k), moved to values where the device is fast."""


@dataclass(frozen=True)
class Estimate:
    """A number with the ends of its interval, NaN where they are not known."""

    value: float
    low: float = math.nan
    high: float = math.nan


@dataclass(frozen=True)
class Comparison:
    """Predictions beside measurements.

    Attributes:
        measured: Measured cost in the target's unit, shape (n,).
        predicted: Prediction for each, shape (n,).
        low: Lower end of the measurement's own 95 % interval, NaN where unknown, shape (n,).
        high: Upper end of it, shape (n,).
        widths: Widths in channels, shape (n, k).
        is_held_out: Whether every prediction comes from a fit without that variant.
        error: Mean of |y - prediction| / y with its 95 % bootstrap interval over variants.
        coverage: Share of the measurements in the 90 % interval; NaN where there is none.
    """

    measured: FloatArray
    predicted: FloatArray
    low: FloatArray
    high: FloatArray
    widths: FloatArray
    is_held_out: bool
    error: Estimate
    coverage: float

    @property
    def relative(self) -> FloatArray:
        """(prediction - measured) / measured, shape (n,), signed fractions."""
        return np.asarray(self.predicted / self.measured - 1.0)


@dataclass(frozen=True)
class Regime:
    """The cost along one width where a regime of the device holds.

    Attributes:
        label: Which values of the width.
        is_fast: Whether these are the values to choose.
        widths: Values in channels, shape (m,).
        cost: Predicted cost, shape (m,).
        low: Lower end of the 90 % interval of its mean; None without intervals.
        high: Upper end of it.
    """

    label: str
    is_fast: bool
    widths: FloatArray
    cost: FloatArray
    low: FloatArray | None
    high: FloatArray | None


@dataclass(frozen=True)
class WidthCurve:
    """The cost against one width, others at their largest.

    Attributes:
        name: The width.
        regimes: One line each.
        measured: Values of the width among the measured variants, shape (n,).
    """

    name: str
    regimes: tuple[Regime, ...]
    measured: FloatArray


@dataclass(frozen=True)
class Shares:
    """What the cost of the full network is made of.

    Attributes:
        is_by_layer: Whether the parts are layers; otherwise widths, each with the fall in cost when
            it is halved.
        total: Predicted cost of the full network, with the 90 % interval of its mean.
        parts: Cost of each part with the smallest and largest among fits on four fifths of the
            data, the largest first.
    """

    is_by_layer: bool
    total: Estimate
    parts: tuple[tuple[str, Estimate], ...]


@dataclass(frozen=True)
class ReportContent:
    """Everything that a report shows.

    Attributes:
        dataset: The measurements.
        predictor: Fitted to them, or to others of the same network.
        journal: The campaign's journal; None for an imported table.
        noise_floor: Of the dataset's target; None without re-visited variants.
        comparison: Predicted against measured.
        curves: Error against number of samples; empty with too few variants.
        width_curves: Cost against each width.
        shares: Which parts cost most.
        rounding: Change in predicted cost, a fraction, when each measured variant is rounded, shape
            (n,); None where the predictor knows no alignment.
        warnings: From the predictions, one sentence each.
    """

    dataset: CostDataset
    predictor: Predictor
    journal: JournalContent | None
    noise_floor: NoiseFloor | None
    comparison: Comparison
    curves: tuple[LearningCurve, ...]
    width_curves: tuple[WidthCurve, ...]
    shares: Shares
    rounding: FloatArray | None
    warnings: tuple[str, ...]

    @property
    def spec(self) -> NetworkSpec:
        """The network."""
        return self.dataset.spec


def gather(
    dataset: CostDataset, predictor: Predictor, journal: JournalContent | None
) -> ReportContent:
    """Return the numbers of a report.

    Raises:
        InputError: The predictor is of another network, other conditions or a target that the
            dataset lacks.
    """
    check_match(dataset, predictor)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        comparison = _compare(dataset, predictor)
        curves, fits = learning_curves(predictor, dataset, BASELINES)
        width_curves = tuple(
            _width_curve(dataset, predictor, index) for index in range(len(dataset.width_names))
        )
        shares = _shares(predictor, fits)
        rounding = _rounding(predictor, comparison.widths)
    return ReportContent(
        dataset=dataset,
        predictor=predictor,
        journal=journal,
        noise_floor=dataset.noise_floor(predictor.target_),
        comparison=comparison,
        curves=tuple(curves),
        width_curves=width_curves,
        shares=shares,
        rounding=rounding,
        warnings=tuple(dict.fromkeys(str(warning.message) for warning in caught)),
    )


def check_match(dataset: CostDataset, predictor: Predictor) -> None:
    """Check that a predictor is about what a dataset measures.

    Raises:
        InputError: Another network, a target that the dataset lacks, or other conditions.
    """
    spec = predictor.spec
    if spec is None or spec.fingerprint != dataset.spec.fingerprint:
        name = spec.name if spec else "no network"
        raise InputError(
            f"the predictor is of {name}, the dataset measures another network "
            f"({dataset.spec.name}, or one of the same name with other layers)"
        )
    if predictor.target_ not in dataset.cost_names:
        raise InputError(
            f"the predictor is of {predictor.target_}, which the dataset does not have; it has: "
            f"{', '.join(dataset.cost_names)}"
        )
    fixed = dataset.fixed_conditions
    for name in predictor.conditions_:
        if name not in fixed and name in dataset.conditions:
            raise InputError(f"{name} varies in the dataset; report on the rows of one {name}")
    theirs = MeasuredUnder.of_dataset(dataset, predictor.target_)
    # Another device is said in the report's own sentences.
    found = MeasuredUnder.of_predictor(predictor).differences(theirs)
    refuse_unlike(
        [each for each in found if each.name != "device"],
        "the predictor and the dataset",
        can_be_allowed=False,
    )


def _compare(dataset: CostDataset, predictor: Predictor) -> Comparison:
    X, y, _ = dataset.xyw(predictor.target_)
    kept = np.isfinite(dataset.cost(predictor.target_))
    low, high = (ends[kept] for ends in dataset.interval(predictor.target_))
    held_out = predictor.held_out_
    # Equal to the last digit: the predictor was fitted to these very rows.
    is_held_out = held_out is not None and np.array_equal(held_out.measured, y)
    predicted = held_out.predicted if held_out is not None and is_held_out else predictor.predict(X)
    if np.any(y <= 0):
        raise InputError(f"a report needs costs above 0; {predictor.target_} has {y.min():g}")
    coverage = math.nan
    if held_out is not None and is_held_out:
        below, above = held_out.distances(INTERVAL, predicted, held_out.spread)
        coverage = float(np.mean((predicted - below <= y) & (y <= predicted + above)))
    elif held_out is not None:
        lower, upper = predictor.predict_interval(X, INTERVAL)
        coverage = float(np.mean((lower <= y) & (y <= upper)))
    return Comparison(
        measured=y,
        predicted=np.asarray(predicted),
        low=low,
        high=high,
        widths=X,
        is_held_out=is_held_out,
        error=bootstrap(np.abs(predicted / y - 1.0)),
        coverage=coverage,
    )


def bootstrap(
    values: FloatArray, statistic: Callable[..., Any] = np.mean, seed: int = 0
) -> Estimate:
    """Return a statistic of values with its 95 % bootstrap interval.

    Args:
        values: At least one, shape (n,).
        statistic: Takes an array and `axis`, such as `np.median`.
        seed: Seed of the draws.
    """
    value = float(statistic(values, axis=0))
    if len(values) < 2:
        return Estimate(value)
    # In bounded pieces: a large dataset times all draws would not fit into memory.
    size = max(1, _MAX_DRAWN // len(values))
    rng = np.random.default_rng(seed)
    drawn = np.concatenate(
        [
            statistic(values[rng.integers(len(values), size=(part, len(values)))], axis=1)
            for part in (min(size, _DRAWS - start) for start in range(0, _DRAWS, size))
        ]
    )
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Estimate(value, float(low), float(high))


def _width_curve(dataset: CostDataset, predictor: Predictor, index: int) -> WidthCurve:
    width = dataset.spec.widths[index]
    values = np.arange(width.min, width.max + 1, width.multiple, dtype=np.float64)
    alignment = _alignment(predictor, width)
    is_fast = values % alignment == 0
    kinds = [(f"multiples of {alignment}", True, is_fast), ("all others", False, ~is_fast)]
    if alignment == 1 or is_fast.sum() < 2 or is_fast.all():
        kinds = [("all values", True, np.ones(len(values), dtype=bool))]
    return WidthCurve(
        name=width.name,
        regimes=tuple(
            _regime(predictor, index, label, fast, values[chosen]) for label, fast, chosen in kinds
        ),
        measured=dataset.widths[:, index].astype(np.float64),
    )


def _alignment(predictor: Predictor, width: Width) -> int:
    """Return at which multiples of a width the device is fast, 1 where none is advised."""
    if not isinstance(predictor, KnowsAlignment):
        return 1
    advise = getattr(predictor, "advised_multiples", None)
    if advise is None:
        return int(predictor.alignment_)
    advised = int(advise()[width.name])
    return math.gcd(int(predictor.alignment_), advised) if advised != width.multiple else 1


def _regime(
    predictor: Predictor, index: int, label: str, is_fast: bool, values: FloatArray
) -> Regime:
    assert predictor.spec is not None  # noqa: S101 - checked by check_match
    widths = np.tile(np.array(predictor.spec.max_widths, dtype=np.float64), (len(values), 1))
    widths[:, index] = values
    low, high = _mean_interval(predictor, widths)
    return Regime(label, is_fast, values, predictor.predict(widths), low, high)


def _mean_interval(
    predictor: Predictor, widths: FloatArray
) -> tuple[FloatArray, FloatArray] | tuple[None, None]:
    if predictor.held_out_ is None:
        return None, None
    return predictor.predict_interval(widths, coverage=INTERVAL, of="mean")


def _shares(predictor: Predictor, fits: Sequence[Predictor]) -> Shares:
    assert predictor.spec is not None  # noqa: S101 - checked by check_match
    full = np.array(predictor.spec.max_widths, dtype=np.float64)
    low, high = _mean_interval(predictor, full[None])
    total = Estimate(
        float(predictor.predict(full[None])[0]),
        math.nan if low is None else float(low[0]),
        math.nan if high is None else float(high[0]),
    )
    is_by_layer = isinstance(predictor, PredictsLayers)
    costs = _parts(predictor)
    others = [_parts(fit) for fit in fits]
    parts = []
    for name, cost in costs.items():
        known = [other[name] for other in others if name in other]
        # All fits' values and the full fit's: the bar then always holds the number beside it.
        spread = (min(*known, cost), max(*known, cost)) if len(known) > 1 else (math.nan, math.nan)
        parts.append((name, Estimate(cost, *spread)))
    parts.sort(key=lambda part: -part[1].value)
    return Shares(is_by_layer, total, tuple(parts))


def _parts(predictor: Predictor) -> dict[str, float]:
    """Return the cost of each layer, or the fall in cost when each width is halved."""
    assert predictor.spec is not None  # noqa: S101 - checked by check_match
    full = np.array(predictor.spec.max_widths, dtype=np.float64)
    if isinstance(predictor, PredictsLayers):
        costs = predictor.layer_costs(full)
        return {name or "the call itself": float(cost) for name, cost in costs.items()}
    halved = np.tile(full, (len(full) + 1, 1))
    for index, width in enumerate(predictor.spec.widths):
        halved[index, index] = half(width.max, width.multiple, width.min)
    cost = predictor.predict_arrays(halved)
    return dict(zip(predictor.spec.width_names, (cost[-1] - cost[:-1]).tolist(), strict=True))


def half(largest: int, multiple: int, smallest: int) -> int:
    """Return half of a width in channels, rounded down to its multiple and not below its minimum."""
    return max(smallest, largest // 2 // multiple * multiple)


def _rounding(predictor: Predictor, widths: FloatArray) -> FloatArray | None:
    if not isinstance(predictor, KnowsAlignment):
        return None
    rounded = np.asarray(predictor.round_widths(widths), dtype=np.float64)
    if np.array_equal(rounded, widths):
        return None
    before, after = predictor.predict(widths), predictor.predict(rounded)
    return np.asarray(after / before - 1.0)

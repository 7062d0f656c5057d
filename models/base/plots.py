"""Figures of a fitted predictor. matplotlib is imported when one is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from joulemap import InputError

from ...datasets import NetworkSpec, metrics
from ...datasets.metrics import NoiseFloor
from .cost_module import CostInfo
from .fittable import FittableDataset
from .intervals import FloatArray, HeldOut
from .measured_under import MeasuredUnder, refuse_unlike

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# One blue for predictions, grey for references, orange for the noise floor.
PREDICTION = "#1f6fb4"
REFERENCE = "#6b7280"
NOISE = "#e08214"

_PREFIXES = ((1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"), (1e-12, "p"))


class Drawable(Protocol):
    """What is drawn: a fitted `Predictor`, see there."""

    spec: NetworkSpec | None
    unit_: str
    target_: str
    noise_floor_: NoiseFloor | None
    width_names_: tuple[str, ...]
    width_ranges_: FloatArray | None
    held_out_: HeldOut | None
    device_id_: str | None

    def ready(self) -> None:
        """Check that there is something to predict with."""

    def cost_info(self) -> CostInfo:
        """Return what its torch module says about itself."""

    def predict(self, X: FloatArray) -> FloatArray:
        """Return the cost."""

    def predict_interval(
        self, X: FloatArray, coverage: float, of: Literal["measurement", "mean"]
    ) -> tuple[FloatArray, FloatArray]:
        """Return the lower and upper ends."""


def plot_error(
    predictor: Drawable, ds: FittableDataset | None, ax: Axes | None, *, allow_different: bool
) -> Axes:
    """Return axes with predicted against measured cost, the error and the noise floor.

    Args:
        predictor: A fitted predictor.
        ds: Measurements to compare with; None for the held-out ones of the fit.
        ax: Where to draw; None makes a new figure.
        allow_different: Whether the measurements may be of unlike conditions.

    Raises:
        InputError: No dataset, and the predictor was not fitted on data; or unlike conditions.
    """
    predictor.ready()
    floor = predictor.noise_floor_
    if ds is not None:
        found = MeasuredUnder.of_predictor(predictor).differences(
            MeasuredUnder.of_dataset(ds, predictor.target_)
        )
        if not allow_different:
            refuse_unlike(found, "the predictor and the dataset")
        X, measured, _ = ds.xyw(predictor.target_)
        predicted, floor = predictor.predict(X), ds.noise_floor(predictor.target_)
        what = "measurements"
    elif predictor.held_out_ is not None:
        measured, predicted = predictor.held_out_.measured, predictor.held_out_.predicted
        what = "held-out measurements"
    else:
        raise InputError("the predictor was not fitted on data; pass a dataset to compare with")
    ax = _axes(ax, (4.6, 4.4))
    factor, unit = display_unit(np.concatenate([measured, predicted]), predictor.unit_)
    measured, predicted = measured * factor, predicted * factor
    low, high = min(measured.min(), predicted.min()), max(measured.max(), predicted.max())
    margin = 0.04 * ((high - low) or 1.0)
    ends = np.array([min(low - margin, 0.0) if low < 0 else max(0.0, low - margin), high + margin])
    if floor is not None:
        ax.fill_between(
            ends,
            ends * (1 - floor.value),
            ends * (1 + floor.value),
            color=NOISE,
            alpha=0.25,
            linewidth=0,
            label=f"noise floor {floor.value:.2%}",
        )
    ax.plot(ends, ends, color=REFERENCE, linewidth=1, zorder=1, label="predicted = measured")
    error = f", error {metrics.mape(measured, predicted):.2%}" if np.all(measured > 0) else ""
    ax.scatter(
        measured,
        predicted,
        s=16,
        color=PREDICTION,
        alpha=0.7,
        linewidths=0,
        label=f"{len(measured)} {what}{error}",
        zorder=2,
    )
    name = _with_unit(cost_name(predictor), unit)
    ax.set(
        xlim=ends,
        ylim=ends,
        aspect="equal",
        xlabel=f"measured {name}",
        ylabel=f"predicted {name}",
    )
    ax.set_title(_title(predictor), loc="left", fontsize="medium")
    ax.legend(frameon=False, fontsize="small", loc="upper left")
    return ax


def plot_width(
    predictor: Drawable,
    name: str,
    ax: Axes | None,
    points: int,
    others: Mapping[str, float] | None,
) -> Axes:
    """Return axes with the cost against one width, and the interval of its mean.

    Args:
        predictor: A fitted predictor.
        name: The width.
        ax: Where to draw; None makes a new figure.
        points: Number of widths to evaluate, at most.
        others: Values of other widths in channels; the largest where not given.

    Raises:
        InputError: Unknown width, or a predictor without a spec and data has no largest widths.
    """
    predictor.ready()
    names = predictor.width_names_
    for width in (name, *(others or {})):
        if width not in names:
            raise InputError(f"there is no width '{width}'; known: {', '.join(names)}")
    if points < 2:
        raise InputError(f"points is {points}, not at least 2")
    low, high = _bounds(predictor)
    index = names.index(name)
    if predictor.spec is not None:
        step = predictor.spec.widths[index].multiple
        grid = np.linspace(low[index] / step, high[index] / step, points).round() * step
        values = np.unique(grid)
    else:
        values = np.linspace(low[index], high[index], points)
    widths = np.tile(high, (len(values), 1))
    for other, value in (others or {}).items():
        widths[:, names.index(other)] = value
    widths[:, index] = values
    ax = _axes(ax, (5.0, 3.4))
    cost = predictor.predict(widths)
    factor, unit = display_unit(cost, predictor.unit_)
    if predictor.held_out_ is not None:
        lower, upper = predictor.predict_interval(widths, coverage=0.9, of="mean")
        ax.fill_between(
            values,
            lower * factor,
            upper * factor,
            color=PREDICTION,
            alpha=0.18,
            linewidth=0,
            label="90% interval of the mean",
        )
    ax.plot(values, cost * factor, color=PREDICTION, linewidth=1.8, label="predicted")
    rest = f"{_listed(others)}, rest" if others else "others"
    ax.set(
        xlabel=f"{name} [channels]; {rest} at their largest",
        ylabel=_with_unit(cost_name(predictor), unit),
    )
    ax.set_xlim(values.min(), values.max())
    ax.set_ylim(bottom=min(0.0, float(cost.min() * factor)))
    ax.set_title(_title(predictor), loc="left", fontsize="medium")
    if predictor.held_out_ is not None:
        ax.legend(frameon=False, fontsize="small", loc="upper left")
    return ax


def _axes(ax: Axes | None, size: tuple[float, float]) -> Axes:
    if ax is None:
        # pyplot only here: a caller's axes need no display.
        from matplotlib import pyplot as plt

        _, ax = plt.subplots(figsize=size, layout="constrained")
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(True, color="#e5e7eb", linewidth=0.6)
    ax.set_axisbelow(True)
    return ax


def _bounds(predictor: Drawable) -> tuple[FloatArray, FloatArray]:
    if predictor.spec is not None:
        low, high = predictor.spec.min_widths, predictor.spec.max_widths
        return np.array(low, dtype=np.float64), np.array(high, dtype=np.float64)
    if predictor.width_ranges_ is None:
        raise InputError("the predictor has neither a spec nor data, so no range of widths")
    return predictor.width_ranges_[0], predictor.width_ranges_[1]


def display_unit(values: FloatArray, unit: str) -> tuple[float, str]:
    """Return what to multiply costs with for a readable axis, and the unit they are in then.

    Args:
        values: Costs in `unit`.
        unit: SI unit, '' where it was not stated.
    """
    if unit in ("J", "s", "W"):
        largest = float(np.max(np.abs(values), initial=0.0))
        for scale, prefix in _PREFIXES:
            if largest >= scale:
                return 1 / scale, f"{prefix}{unit}"
    return 1.0, unit


def cost_name(predictor: Drawable) -> str:
    """Return the name of a predictor's target for readers, without its unit: `cpu time`."""
    target, unit = predictor.target_, predictor.unit_
    ending = f"_{unit.lower()}"
    name = target.removesuffix(ending) if unit else target
    return name.replace("_", " ")


def _with_unit(name: str, unit: str) -> str:
    return f"{name} [{unit}]" if unit else name


def _title(predictor: Drawable) -> str:
    parts: list[Any] = [predictor.spec.name if predictor.spec else None, predictor.device_id_]
    shown = " on ".join(str(part) for part in parts if part)
    kind = type(predictor).__name__.removesuffix("Predictor")
    return f"{shown} ({kind})" if shown else kind


def _listed(values: Mapping[str, float]) -> str:
    shown = ", ".join(f"{name} = {value:g}" for name, value in list(values.items())[:3])
    return shown + (", ..." if len(values) > 3 else "")

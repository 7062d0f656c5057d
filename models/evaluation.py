"""How far a predictor is from the measurements of a dataset."""

from __future__ import annotations

import math
import warnings
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from joulemap import InputError

from ..datasets import metrics
from ..datasets.metrics import NoiseFloor
from .base.fittable import FittableDataset
from .base.measured_under import Difference, MeasuredUnder, refuse_unlike, row_digests
from .base.predictor import Predictor
from .layers.layerwise import LayerwisePredictor

COVERAGE = 0.9


@dataclass(frozen=True)
class Evaluation:
    """How far a predictor is from the measurements of a dataset.

    Attributes:
        target: The cost column.
        unit: Its SI unit.
        num_rows: Variants that have it.
        mape: Mean of `abs(y - prediction)` / y, a fraction.
        share_within_5: Share of predictions within 5 %.
        share_within_10: Share of predictions within 10 %.
        spearman: Rank correlation.
        coverage_90: Share of measurements inside the 90 % interval; NaN where there is none.
        noise_floor: Of the dataset; None without re-visited variants.
        warnings: What to keep in mind, one sentence each.
        num_training_rows: Rows that the predictor was fitted to; None where that is not recorded.
        mape_unseen: `mape` over the other rows; NaN where there are none or it is not known.
        differences: What predictor and dataset were measured under that is not the same.
    """

    target: str
    unit: str
    num_rows: int
    mape: float
    share_within_5: float
    share_within_10: float
    spearman: float
    coverage_90: float
    noise_floor: NoiseFloor | None
    warnings: tuple[str, ...]
    num_training_rows: int | None = None
    mape_unseen: float = math.nan
    differences: tuple[Difference, ...] = ()

    @property
    def training_share(self) -> float | None:
        """Share of the rows that the predictor was fitted to; None where that is not recorded."""
        return None if self.num_training_rows is None else self.num_training_rows / self.num_rows

    @property
    def error_name(self) -> str:
        """What `mape` is: 'training error' where the predictor was fitted to all rows."""
        if self.training_share == 1:
            return "training error"
        return "mean error, partly training error" if self.training_share else "mean error"

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as a dictionary for JSON; what is not known is None."""
        content = asdict(self)
        for name in ("spearman", "coverage_90", "mape_unseen"):
            content[name] = None if math.isnan(content[name]) else content[name]
        content["noise_floor"] = self.noise_floor.to_dict() if self.noise_floor else None
        content["differences"] = [difference.to_dict() for difference in self.differences]
        return content | {"error": self.error_name, "training_share": self.training_share}


def evaluate(
    predictor: Predictor, ds: FittableDataset, *, allow_different: bool = False
) -> Evaluation:
    """Return how far a predictor's costs are from a dataset's measurements of its target.

    Args:
        predictor: Fitted; one of layers may be of other networks.
        ds: The measurements.
        allow_different: Whether to compare under unlike conditions or on another device too; the
            result names the differences then.

    Raises:
        InputError: Another network or target, or unlike conditions that are not allowed.
    """
    predictor, ours = _bound(predictor, ds)
    theirs = MeasuredUnder.of_dataset(ds, predictor.target_)
    differences = ours.differences(theirs)
    if not allow_different:
        refuse_unlike(differences, "the predictor and the dataset")
    X, y, _ = ds.xyw(predictor.target_)
    X = np.asarray(X[:, : len(predictor.width_names_)], dtype=np.float64)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        prediction = predictor.predict(X)
        is_inside = np.full(len(y), math.nan)
        if predictor.held_out_ is not None:
            low, high = predictor.predict_interval(X, coverage=COVERAGE)
            is_inside = (low <= y) & (y <= high)
    trained = predictor.training_rows_
    is_training = np.array([each in (trained or ()) for each in row_digests(X, y)])
    unseen = ~is_training
    return Evaluation(
        target=predictor.target_,
        unit=predictor.unit_,
        num_rows=len(y),
        mape=metrics.mape(y, prediction),
        share_within_5=metrics.share_within(y, prediction, 0.05),
        share_within_10=metrics.share_within(y, prediction, 0.10),
        spearman=metrics.spearman(y, prediction) if len(y) > 1 else math.nan,
        coverage_90=float(np.mean(is_inside)),
        noise_floor=ds.noise_floor(predictor.target_),
        warnings=(
            *_said(differences, ours, theirs, None if trained is None else float(np.mean(~unseen))),
            *dict.fromkeys(str(warning.message) for warning in caught),
        ),
        num_training_rows=None if trained is None else int(is_training.sum()),
        mape_unseen=(
            metrics.mape(y[unseen], prediction[unseen])
            if trained is not None and unseen.any()
            else math.nan
        ),
        differences=differences,
    )


def _bound(predictor: Predictor, ds: FittableDataset) -> tuple[Predictor, MeasuredUnder]:
    """Return the predictor of the dataset's network, and what its costs hold for."""
    predictor.ready()
    if ds.spec is None:
        is_same = predictor.spec is None and predictor.width_names_ == tuple(ds.width_names)
        name = "no network, and other features"
    else:
        is_same = predictor.spec is not None and predictor.spec.fingerprint == ds.spec.fingerprint
        name = ds.spec.name
    if is_same:
        return predictor, MeasuredUnder.of_predictor(predictor)
    if isinstance(predictor, LayerwisePredictor) and predictor.spec and ds.spec:
        bound = predictor.for_network(ds.spec)
        return bound, MeasuredUnder.of_predictor(bound).without("resolution")
    ours = predictor.spec.name if predictor.spec else "no network"
    raise InputError(
        f"the predictor is of {ours}, and the dataset measures another network ({name}, or one of "
        "the same name with other layers); fit one to data of that network"
    )


def _said(
    differences: tuple[Difference, ...],
    ours: MeasuredUnder,
    theirs: MeasuredUnder,
    share: float | None,
) -> list[str]:
    said = [f"compared although unlike: {each}" for each in differences]
    if share is None:
        said.append(
            "the predictor does not record what it was fitted to; these may be its training rows"
        )
    elif share == 1:
        said.append(
            "the predictor was fitted to all of these rows, so this is its training error; it says "
            "little of other widths"
        )
    elif share:
        said.append(f"the predictor was fitted to {share:.1%} of these rows")
    for what, side in (("predictor", ours), ("dataset", theirs)):
        if missing := side.not_recorded():
            said.append(f"not recorded of the {what}, so not compared: {', '.join(missing)}")
    return said

"""Networks of neurons on what the aligned model, or a sum of columns, leaves unexplained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from joulemap import InputError

from ...datasets import NetworkSpec
from ..base.cost_module import CostModule
from ..base.files.findings import Findings
from ..base.intervals import FloatArray, assign_folds
from ..base.kernel import Columns
from ..base.predictor import Predictor
from ..base.repeated_rows import merge_repeated
from ..base.training import Training
from ..linear.bilinear import BilinearPredictor
from ..linear.predictor import relative_weights
from .neural_features import BilinearFeatures, LayerFeatures, knots_of
from .neural_fit import Schedule, train
from .neural_module import WEIGHTS, NeuralModule
from .trend import Trend, TrendForm

ARCHITECTURES = {
    "ecc": Schedule(hidden=64, activation="selu", is_robust=False, learning_rate=1e-2),
    "ensemble": Schedule(hidden=64, activation="silu"),
}
# Members hold out one of so many parts of the rows.
PARTS = 5
# Rows that are evaluated at once: bounds memory, not results.
CHUNK = 1 << 12
_MEDIAN_TO_SD = 1.4826


class NeuralPredictor(Predictor):
    """The cost from an ensemble of small networks of neurons, or from ECC's one.

    The ensemble predicts the logarithm of the cost over a trend: the aligned model where there is
    a spec, else a sum of columns (see `trend`). Its members see the columns, in pieces and as
    blocks of channels, and what every layer's share of the trend is in each regime of alignment.
    Each has 64 neurons (SiLU), begins at the trend, sees four fifths of the rows and
    keeps the weights that are best on the rest; the prediction is their mean, and their spread
    scales the intervals. Where costs are not all positive the mean is added to a constant.

    'ecc' is the alternative in the released code of ECC: one network n -> 64 -> 1 (SELU) on the
    products of neighbouring widths of `BilinearPredictor`, without a trend, trained on squared
    errors of the cost.

    Sources: Lakshminarayanan, Pritzel, Blundell, "Simple and Scalable Predictive Uncertainty
    Estimation using Deep Ensembles", 2017; Yang, Zhu, Liu, "ECC", CVPR 2019; pieces of columns:
    Gorishniy, Rubachev, Babenko, "On Embeddings for Numerical Features in Tabular Deep Learning",
    2022.

    Args:
        spec: The network; None takes the columns of X as they are.
        architecture: 'ensemble' or 'ecc'.
        members: Networks of the ensemble.
        epochs: Steps of full-batch gradient descent, at most.
        seed: Of the first weights and of the parts that members do not see.
    """

    state_names: ClassVar[tuple[str, ...]] = (
        *(f"{name}_" for name in WEIGHTS),
        "scaling_",
        "outcome_",
        "knots_",
        "trend_coef_",
    )

    scaling_: FloatArray
    # Center and scale of what members give, and their error on rows that they did not see.
    outcome_: FloatArray
    is_log_: bool
    columns_: Columns
    knots_: FloatArray
    trend_form_: TrendForm
    trend_coef_: FloatArray

    def __init__(
        self,
        spec: NetworkSpec | None = None,
        *,
        architecture: Literal["ecc", "ensemble"] = "ensemble",
        members: int = 5,
        epochs: int = 1000,
        seed: int = 0,
    ) -> None:
        super().__init__(spec)
        self.architecture = architecture
        self.members = members
        self.epochs = epochs
        self.seed = seed

    def weights_of(self, y: FloatArray, weights: FloatArray) -> FloatArray:
        """Return weights of squared relative errors from those of squared absolute ones."""
        return weights if self._is_ecc() else relative_weights(y, weights)

    def fit_arrays(self, training: Training) -> None:
        """Set the trend, what the members see, and their weights."""
        X, y, weights = training.X, training.y, training.weights
        is_log = bool(np.all(y > 0)) and not self._is_ecc()
        trend = Trend(self.spec, self.width_names_, TrendForm(), np.zeros(0))
        if is_log:
            trend = Trend.fit(self.spec, self.width_names_, X, y, weights)
        self.trend_form_, self.trend_coef_ = trend.form, trend.coef
        points, z, weight = merge_repeated(
            X, np.log(y) - np.log(trend.at(X)) if is_log else y, weights
        )
        self.columns_ = Columns.of(points)
        if self._is_ecc():
            bounds = self.spec.max_widths if self.spec else np.abs(points).max(axis=0)
            self.knots_ = np.where(np.array(bounds) > 0, bounds, 1.0).astype(np.float64)[:, None]
        else:
            self.knots_ = knots_of(points[:, self.columns_.kept])
        with torch.no_grad():
            features = self._features(trend, is_smooth=False)(torch.from_numpy(points)).numpy()
        deviation = features.std(axis=0)
        is_constant = deviation <= 1e-9 * np.maximum(1.0, np.abs(features).max(axis=0))
        self.scaling_ = np.stack([features.mean(axis=0), np.where(is_constant, 1.0, deviation)])
        scaled = np.where(is_constant, 0.0, (features - self.scaling_[0]) / self.scaling_[1])
        schedule = replace(ARCHITECTURES[self.architecture], epochs=self.epochs)
        center, scale = _center_and_scale(z, weight, is_robust=schedule.is_robust)
        folds, _ = assign_folds(points, PARTS, self.seed)
        number = 1 if self._is_ecc() else self.members
        held_out = np.stack([folds == member % (folds.max() + 1) for member in range(number)])
        arrays, typical = train(scaled, (z - center) / scale, weight, held_out, schedule, self.seed)
        for name in WEIGHTS:
            setattr(self, f"{name}_", arrays[name])
        self.outcome_, self.is_log_ = np.array([center, scale, typical]), is_log

    def predict_arrays(self, X: FloatArray) -> FloatArray:
        """Return the cost, shape (n,), of checked columns (n, m)."""
        module = self._module(is_smooth=False)
        with torch.no_grad():
            return _in_chunks(module.cost, X)

    def spread_arrays(self, X: FloatArray) -> FloatArray:
        """Return how far members lie apart, and are off, over the cost, shape (n,), positive."""
        module = self._module(is_smooth=False)
        with torch.no_grad():
            return _in_chunks(module.spread, X)

    def exact_module(self) -> CostModule:
        """Return the mean of the members, interpolated where it steps between whole numbers."""
        return self._module(is_smooth=False)

    def smooth_module(self) -> CostModule:
        """Return the mean of the members in the aligned regime, with blocks as on average.

        Its `max_deviation` is the largest over the bounds and random integer widths. ECC's network
        knows no steps: its module is the exact one.
        """
        if self._is_ecc():
            return self.exact_module()
        module = self._module(is_smooth=True)
        aligned = self._trend().aligned()
        aligned.width_ranges_ = self.width_ranges_
        X = aligned.random_widths()
        with torch.no_grad():
            smooth = _in_chunks(module.cost, X)
        exact = self.predict_arrays(X)
        deviation = np.abs(smooth - exact) / np.maximum(np.abs(exact), np.finfo(float).tiny)
        module.info = replace(module.info, max_deviation=float(deviation.max()))
        return module

    def num_needed(self, num_widths: int) -> int:
        """Return the least number of different rows: two beside the one that is held out."""
        return 3

    def check_parameters(self) -> None:
        """Check the hyperparameters.

        Raises:
            InputError: One of them is not usable.
        """
        if self.architecture not in ARCHITECTURES:
            known = ", ".join(ARCHITECTURES)
            raise InputError(f"architecture is {self.architecture!r}; write one of {known}")
        for name, least in (("members", 1), ("epochs", 1), ("seed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InputError(f"{name} is {value!r}, not a number of at least {least}")

    def findings(self) -> dict[str, Any]:
        """Return how columns are read, which trend there is, and whether logarithms are learned."""
        return {
            "columns": self.columns_.to_findings(),
            "trend": self.trend_form_.to_findings(),
            "is_log": self.is_log_,
        }

    def take_findings(self, found: Findings) -> None:
        """Set how columns are read, which trend there is, and whether logarithms are learned."""
        self.columns_ = Columns.from_findings(found.parts("columns"))
        self.trend_form_ = TrendForm.from_findings(found.part("trend"))
        self.is_log_ = found.flag("is_log")

    def former_findings(self, arrays: dict[str, Any]) -> dict[str, Any]:
        """Return the findings of a file before version 2: three arrays held them."""
        outcome = arrays["outcome_"]
        arrays["outcome_"] = outcome[:-1]
        return {
            "columns": Columns.from_array(arrays.pop("columns_")).to_findings(),
            "trend": TrendForm.from_numbers(arrays.pop("trend_structure_")).to_findings(),
            "is_log": bool(outcome[-1] > 0),
        }

    def check_state(self) -> None:
        """Check the arrays that came from a file.

        Raises:
            InputError: They do not fit together.
        """
        columns = self.columns_
        columns.check(self.n_features_in_)
        self._trend().check()
        knots = self.knots_
        rows = self.n_features_in_ if self._is_ecc() else len(columns.kept)
        if knots.ndim != 2 or len(knots) != rows or np.any(np.diff(knots) < 0):
            raise InputError(f"knots_ is not a table of ascending knots for {rows} columns")
        if self._is_ecc() and (knots.shape[1] != 1 or np.any(knots <= 0)):
            raise InputError("knots_ are not upper bounds of the columns")
        number = 1 if self._is_ecc() else self.members
        hidden = ARCHITECTURES[self.architecture].hidden
        with torch.no_grad():
            one = torch.ones(1, self.n_features_in_, dtype=torch.float64)
            count = self._features(self._trend(), is_smooth=False)(one).shape[1]
        expected = {
            "hidden_weight_": (number, count, hidden),
            "hidden_bias_": (number, hidden),
            "output_weight_": (number, hidden),
            "output_bias_": (number,),
            "scaling_": (2, count),
            "outcome_": (3,),
        }
        for name, shape in expected.items():
            if np.shape(getattr(self, name)) != shape:
                raise InputError(f"{name} has shape {np.shape(getattr(self, name))}, not {shape}")
        if np.any(self.scaling_[1] <= 0) or self.outcome_[1] <= 0:
            raise InputError("scaling_ and outcome_ have scales that are not positive")

    def _is_ecc(self) -> bool:
        return self.architecture == "ecc"

    def _trend(self) -> Trend:
        return Trend(self.spec, self.width_names_, self.trend_form_, self.trend_coef_)

    def _features(self, trend: Trend, *, is_smooth: bool) -> torch.nn.Module:
        if self._is_ecc():
            has_end = BilinearPredictor(self.spec).has_fixed_end()
            return BilinearFeatures(self.knots_[:, 0], has_end=has_end)
        return LayerFeatures(self.columns_, self.knots_, trend, is_smooth=is_smooth)

    def _module(self, *, is_smooth: bool) -> NeuralModule:
        trend = self._trend()
        names = (*WEIGHTS, "scaling", "outcome")
        return NeuralModule(
            self._features(trend, is_smooth=is_smooth),
            trend.module(is_smooth=is_smooth),
            {name: getattr(self, f"{name}_") for name in names},
            self.cost_info(),
            ARCHITECTURES[self.architecture].activation,
            is_log=self.is_log_,
        )


def _center_and_scale(
    z: FloatArray, weights: FloatArray, *, is_robust: bool
) -> tuple[float, float]:
    """Return what is taken off the outcomes (n,), and what they are then divided by, positive."""
    if is_robust:
        center = float(np.median(z))
        scale = _MEDIAN_TO_SD * float(np.median(np.abs(z - center)))
    else:
        center = float(np.average(z, weights=weights))
        scale = float(np.std(z))
    return center, max(scale, 1e-9 * max(1.0, abs(center)))


def _in_chunks(function: Callable[[torch.Tensor], torch.Tensor], X: FloatArray) -> FloatArray:
    parts = [
        function(torch.tensor(X[start : start + CHUNK])).numpy()
        for start in range(0, len(X), CHUNK)
    ]
    return np.concatenate(parts)

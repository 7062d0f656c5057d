"""A new device from a few measurements and from predictors of other devices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from joulemap import InputError

from ...datasets import NetworkSpec
from ..aligned.predictor import AlignedBilinearPredictor
from ..base.cost_module import CostInfo, CostModule
from ..base.fittable import FittableDataset
from ..base.intervals import FloatArray, assign_folds
from ..base.predictor import Predictor
from ..base.training import Training
from ..linear.predictor import fit_ridge, relative_weights
from .source_stacker import (
    SourceStacker,
    denoise,
    design_columns,
    greedy_design,
    weights_by_errors,
)

__all__ = ["SourceStacker", "TransferPredictor", "denoise"]

# From so many different rows on a model of what sources leave unexplained is tried.
LEAST_RESIDUAL_ROWS = 30
# It is kept where it lowers the error of left-out rows by more than this share.
LEAST_GAIN = 0.05
# A model of the measurements alone that counts less is left out.
LEAST_SHARE = 0.05
RESIDUAL_FOLDS = 5
RIDGES = (0.01, 0.1, 1.0)
# Largest logarithm of what the widths add: a quadratic grows without bound outside the data.
LARGEST_RESIDUAL = 1.0
# Standard deviation, over the widths' range, of what no source explains: what makes a design
# also spread over the widths.
WIDTHS_SD = 0.05
# A source's prediction is at least this share of its median over the measured points: sources
# that are linear may fall below 0 outside their data.
FLOOR = 1e-3
# Random width vectors that the smooth module is compared with the exact one at.
NUM_COMPARED = 256


class TransferPredictor(Predictor):
    """The cost on a new device as a combination of other devices' predictors.

    A `SourceStacker` on the sources' predictions; from 30 different rows on times
    exp(r_0 + sum_i r_i w_i + q_i w_i^2) in the widths w, by ridge regression, where that predicts
    left-out rows better. Where a network is known, a model fitted to the measurements alone takes
    part too, with a weight by left-out errors: a simple device needs no sources. 5 to 50
    measurements are what it is made for; `select` says which. Sources may be of any kind and measured under other conditions, but of the same network and in
    the same unit.

    Args:
        spec: The network; None for that of the sources.
        sources: Fitted predictors.

    Attributes:
        mixture_coef_: As in `SourceStacker`.
        log_coef_: As in `SourceStacker`.
        mixture_share_: As in `SourceStacker`.
        floors_: Smallest prediction of each source that counts, shape (m,).
        width_ranges_: Smallest and largest width in the data or in all sources' data.
        residual_coef_: r_0, r_1 .. r_k, q_1 .. q_k, shape (2 k + 1,); zeros where it does not help.
        own_: The model of the measurements alone, a tuple of one or none.
        own_share_: Its weight in the geometric mean, 0 to 1.
    """

    state_names: ClassVar[tuple[str, ...]] = (
        "mixture_coef_",
        "log_coef_",
        "mixture_share_",
        "floors_",
        "residual_coef_",
        "own_share_",
    )
    part_names: ClassVar[tuple[str, ...]] = ("sources", "own_")

    mixture_coef_: FloatArray
    log_coef_: FloatArray
    mixture_share_: float
    floors_: FloatArray
    residual_coef_: FloatArray
    own_: tuple[Predictor, ...]
    own_share_: float

    def __init__(
        self, spec: NetworkSpec | None = None, *, sources: Sequence[Predictor] = ()
    ) -> None:
        super().__init__(spec)
        self.sources = sources

    def __sklearn_clone__(self) -> Self:
        """Return an unfitted copy with the same fitted sources, which a plain clone forgets."""
        return type(self)(**self.get_params(deep=False))

    # -- fitting ---------------------------------------------------------------------------------

    def _fit(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None, **about: Any
    ) -> Self:
        self.check_parameters()
        self._adopt_network()
        super()._fit(X, y, sample_weight, **about)
        # Between the few points it relies on sources: it leaves what is known where they do.
        known = [s.width_ranges_ for s in self.sources if s.width_ranges_ is not None]
        if len(known) == len(self.sources) and self.width_ranges_ is not None:
            low, high = np.max([r[0] for r in known], axis=0), np.min([r[1] for r in known], axis=0)
            self.width_ranges_ = np.stack(
                [
                    np.minimum(self.width_ranges_[0], low),
                    np.maximum(self.width_ranges_[1], high),
                ]
            )
        return self

    def fit_dataset(self, ds: FittableDataset, target: str = "latency_s") -> Self:
        """Fit to one target of a dataset, and return self; see `Predictor.fit_dataset`.

        Raises:
            InputError: As there; or the sources are of another network or in another unit.
        """
        self._check_unit(ds.unit(target), target)
        return super().fit_dataset(ds, target)

    def predict_held_out(self, ds: FittableDataset, target: str, folds: np.ndarray) -> FloatArray:
        """Return a prediction for every row by fits on the other folds; see `Predictor`."""
        self._check_unit(ds.unit(target), target)
        return super().predict_held_out(ds, target, folds)

    def fit_arrays(self, training: Training) -> None:
        """Set the combination of sources, and the residual where it helps."""
        X, y, weights = training.X, training.y, training.weights
        if np.any(y <= 0):
            raise InputError(
                f"y has the cost {float(y.min())}; TransferPredictor compares devices by ratios, "
                "so costs are above 0"
            )
        raw = self._raw_costs(X)
        self.floors_ = FLOOR * np.median(raw, axis=0)
        if np.any(self.floors_ <= 0):
            number = int(np.argmin(self.floors_))
            raise InputError(
                f"source {number} predicts costs of 0 or less for most of the measured widths; "
                "leave it out"
            )
        costs = np.maximum(raw, self.floors_)
        stacker = SourceStacker()
        stacker.fit_rows(costs, y, weights)
        for name in ("mixture_coef_", "log_coef_", "mixture_share_"):
            setattr(self, name, getattr(stacker, name))
        self.residual_coef_ = self._residual(X, costs, y, weights)
        self.own_, self.own_share_ = self._own(X, costs, y, weights)

    def _residual(
        self, X: FloatArray, costs: FloatArray, y: FloatArray, weights: FloatArray
    ) -> FloatArray:
        """Return coefficients (2 k + 1,) of what sources leave unexplained; zeros for nothing."""
        nothing = np.zeros(2 * X.shape[1] + 1)
        folds, distinct = assign_folds(X, RESIDUAL_FOLDS)
        if distinct < LEAST_RESIDUAL_ROWS:
            return nothing
        errors = np.zeros((1 + len(RIDGES), len(y)))
        for fold in range(folds.max() + 1):
            test, rest = folds == fold, folds != fold
            stacker = SourceStacker()
            stacker.fit_rows(costs[rest], y[rest], weights[rest])
            left = np.log(y / stacker.predict_rows(costs))
            errors[0, test] = left[test]
            for row, ridge in enumerate(RIDGES, start=1):
                found = _fit_quadratic(X[rest], left[rest], weights[rest], ridge)
                errors[row, test] = left[test] - _quadratic(found, X[test])
        mean = np.abs(errors) @ weights
        best = int(np.argmin(mean))
        if mean[best] > (1.0 - LEAST_GAIN) * mean[0]:
            return nothing
        left = np.log(y / self._stacker().predict_rows(costs))
        return _fit_quadratic(X, left, weights, RIDGES[best - 1])

    def _own(
        self, X: FloatArray, costs: FloatArray, y: FloatArray, weights: FloatArray
    ) -> tuple[tuple[Predictor, ...], float]:
        """Return the model of the measurements alone, where rows are enough, and its weight."""
        if self.spec is None:
            return (), 0.0
        # Regimes and blocks are what sources tell; few rows do not.
        own = AlignedBilinearPredictor(self.spec, divisor=1, block=1)
        own.bind(self.width_names_, unit=self.unit_, target=self.target_)
        folds, distinct = assign_folds(X, RESIDUAL_FOLDS)
        if distinct - -(-distinct // RESIDUAL_FOLDS) < own.num_needed(X.shape[1]):
            return (), 0.0
        errors = np.zeros((2, len(y)))
        for fold in range(folds.max() + 1):
            test, rest = folds == fold, folds != fold
            stacker = SourceStacker()
            stacker.fit_rows(costs[rest], y[rest], weights[rest])
            together = stacker.predict_rows(costs)
            left = np.log(y[rest] / together[rest])
            if self.residual_coef_.any():
                found = _fit_quadratic(X[rest], left, weights[rest], RIDGES[1])
                together = together * np.exp(_quadratic(found, X))
            own.fit_arrays(Training(X[rest], y[rest], weights[rest]))
            alone = np.maximum(own.predict_arrays(X), FLOOR * together)
            errors[:, test] = np.log(np.stack([together, alone])[:, test] / y[test])
        share = float(weights_by_errors(errors, weights)[1])
        if share < LEAST_SHARE:
            return (), 0.0
        own.fit_arrays(Training(X, y, weights))
        return (own,), share

    # -- choosing what to measure ----------------------------------------------------------------

    def select(self, X_pool: ArrayLike, k: int) -> NDArray[np.int64]:
        """Return the indices (k,) of the width vectors to measure, most telling first.

        Needs no fit; a longer list begins with the shorter one. As `SourceStacker.select`, for a
        model that also has a weak term in every width, so that the points lie apart where few
        sources say little.

        Args:
            X_pool: Candidates in channels: array (n, k) or DataFrame with a column per width.
            k: How many.

        Raises:
            InputError: No sources, wrong columns, or k is not 1 .. n.
        """
        self.check_parameters()
        self._adopt_network()
        X = np.asarray(self._matched(X_pool), dtype=np.float64)
        if X.ndim != 2 or X.shape[1] != self.sources[0].n_features_in_ or not np.isfinite(X).all():
            raise InputError(
                f"X_pool has shape {X.shape}; write finite widths, (n, "
                f"{self.sources[0].n_features_in_})"
            )
        raw = self._raw_costs(X)
        floors = np.maximum(FLOOR * np.median(raw, axis=0), np.finfo(np.float64).tiny)
        columns, sds = design_columns(np.maximum(raw, floors))
        spread = np.std(X, axis=0)
        scaled = (X - X.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
        width_sds = np.full(X.shape[1], WIDTHS_SD / np.sqrt(X.shape[1]))
        return greedy_design(np.hstack([columns, scaled]), np.concatenate([sds, width_sds]), int(k))

    # -- predicting ------------------------------------------------------------------------------

    def predict_arrays(self, X: FloatArray) -> FloatArray:
        """Return the cost, shape (n,), of checked widths (n, k)."""
        # Products of matrices round otherwise in another memory order.
        X = np.ascontiguousarray(X)
        costs = np.maximum(self._raw_costs(X), self.floors_)
        residual = np.exp(_quadratic(self.residual_coef_, X))
        total = np.asarray(self._stacker().predict_rows(costs) * residual)
        for own in self.own_:
            alone = np.maximum(own.predict_arrays(X), FLOOR * total)
            total = total * (alone / total) ** self.own_share_
        return total

    def exact_module(self) -> CostModule:
        """Return the combination of the sources' exact modules."""
        return self._module(is_smooth=False)

    def smooth_module(self) -> CostModule:
        """Return the combination of the sources' smooth modules.

        Its `max_deviation` is the largest over 256 random width vectors within the bounds.
        """
        module = self._module(is_smooth=True)
        spec = self.spec
        if spec is None:
            return module
        rng = np.random.default_rng(0)
        columns = [
            rng.choice(np.arange(width.min, width.max + 1, width.multiple), NUM_COMPARED)
            for width in spec.widths
        ]
        widths = np.column_stack(columns).astype(np.float64)
        with torch.no_grad():
            smooth = module(torch.from_numpy(widths)).numpy()
        deviation = np.abs(smooth / self.predict_arrays(widths) - 1.0)
        module.info = replace(module.info, max_deviation=float(deviation.max()))
        return module

    def _module(self, *, is_smooth: bool) -> CostModule:
        modules = [
            part.smooth_module() if is_smooth else part.exact_module()
            for part in (*self.sources, *self.own_)
        ]
        count = len(self.sources)
        names = ("mixture_coef_", "log_coef_", "floors_", "residual_coef_")
        arrays = {name.removesuffix("_"): getattr(self, name) for name in names}
        shares = (self.mixture_share_, self.own_share_)
        return TransferModule(modules[:count], modules[count:], arrays, shares, self.cost_info())

    def weights_of(self, y: FloatArray, weights: FloatArray) -> FloatArray:
        """Return weights of squared relative errors from those of squared absolute ones."""
        return relative_weights(y, weights)

    def describe(self) -> list[str]:
        """Return how far sources go, and whether a residual was worth it."""
        count = len(self.sources)
        plural = "s" if count > 1 else ""
        alone = f"{self.own_share_:.0%} a model of the measurements alone"
        kept = ", and what the widths add" if self.residual_coef_.any() else ""
        return [f"Combines {count} source{plural}{kept}; {alone}."]

    # -- checking --------------------------------------------------------------------------------

    def check_parameters(self) -> None:
        """Check the sources.

        Raises:
            InputError: None, one that is not fitted, of another network or in another unit.
        """
        sources = self.sources
        if isinstance(sources, str) or not isinstance(sources, Sequence) or not sources:
            raise InputError(
                "sources is empty; TransferPredictor needs predictors fitted on other devices: "
                "sources=[joulemap.models.load(FILE), ...]"
            )
        for number, source in enumerate(sources):
            if not isinstance(source, Predictor):
                raise InputError(f"source {number} is {type(source).__name__}, not a predictor")
            source.ready()
        first = sources[0]
        expected = self.spec if self.spec is not None else first.spec
        for number, source in enumerate(sources):
            if (
                _fingerprint(source.spec) != _fingerprint(expected)
                or source.n_features_in_ != first.n_features_in_
            ):
                raise InputError(
                    f"source {number} predicts {_name(source.spec)}, not {_name(expected)}, or "
                    "one of the same name with other widths or layers; sources are of one network"
                )
            if source.unit_ != first.unit_:
                raise InputError(
                    f"source {number} predicts {source.target_} in {source.unit_ or 'no unit'}, "
                    f"source 0 {first.target_} in {first.unit_ or 'no unit'}; sources have one unit"
                )

    def check_state(self) -> None:
        """Check the arrays that came from a file.

        Raises:
            InputError: They do not fit the sources.
        """
        count = len(self.sources)
        expected = {
            "mixture_coef_": (count + 1,),
            "log_coef_": (count + 1,),
            "floors_": (count,),
            "mixture_share_": (),
            "own_share_": (),
            "residual_coef_": (2 * self.n_features_in_ + 1,),
        }
        for name, shape in expected.items():
            if np.shape(getattr(self, name)) != shape:
                raise InputError(
                    f"{name} has shape {np.shape(getattr(self, name))}, {count} sources need "
                    f"{shape}"
                )
        if (
            np.any(self.mixture_coef_ < 0)
            or not np.any(self.mixture_coef_ > 0)
            or np.any(self.floors_ <= 0)
            or not 0 <= self.mixture_share_ <= 1
            or not 0 <= self.own_share_ <= 1
        ):
            raise InputError("its combination of sources has negative parts")
        if len(self.own_) > 1 or any(
            own.n_features_in_ != self.n_features_in_ for own in self.own_
        ):
            raise InputError("its model of the measurements alone does not fit its widths")

    def _check_unit(self, unit: str, target: str) -> None:
        self.check_parameters()
        source = self.sources[0]
        if source.unit_ and source.unit_ != unit:
            raise InputError(
                f"the sources predict {source.target_} in {source.unit_}, and {target} is in "
                f"{unit or 'no unit'}; give sources that were fitted to the same cost"
            )

    def _adopt(self, ds: FittableDataset) -> None:
        """Take over the network, after checking that sources and dataset have the same."""
        self._adopt_network()
        super()._adopt(ds)
        if ds.spec is not None and self.sources[0].spec is None:
            raise InputError(
                f"the sources were fitted without a network, the dataset measured {ds.spec.name}; "
                "fit the sources with fit_dataset"
            )

    def _adopt_network(self) -> None:
        if self.spec is None:
            self.spec = self.sources[0].spec

    # -- parts -----------------------------------------------------------------------------------

    def _raw_costs(self, X: FloatArray) -> FloatArray:
        return np.column_stack([source.predict_arrays(X) for source in self.sources])

    def _stacker(self) -> SourceStacker:
        stacker = SourceStacker()
        stacker.mixture_coef_, stacker.log_coef_ = self.mixture_coef_, self.log_coef_
        stacker.mixture_share_ = self.mixture_share_
        return stacker


class TransferModule(CostModule):
    """Other devices' cost modules combined: widths (..., k) -> cost (...).

    Args:
        sources: The m sources' modules.
        own: The module of the measurements alone, one or none.
        arrays: `mixture_coef` and `log_coef`, (m + 1,), `floors`, (m,), `residual_coef`,
            (2 k + 1,).
        shares: Weight of the mixture, and of the measurements' own model.
        info: What the module predicts.
    """

    mixture_coef: torch.Tensor
    log_coef: torch.Tensor
    floors: torch.Tensor
    residual_coef: torch.Tensor

    def __init__(
        self,
        sources: Sequence[CostModule],
        own: Sequence[CostModule],
        arrays: dict[str, FloatArray],
        shares: tuple[float, float],
        info: CostInfo,
    ) -> None:
        super().__init__(info)
        self.sources = torch.nn.ModuleList(sources)
        self.own = torch.nn.ModuleList(own)
        self.mixture_share, self.own_share = shares
        for name, values in arrays.items():
            self.register_buffer(name, torch.tensor(values, dtype=torch.float64))

    def cost(self, widths: torch.Tensor) -> torch.Tensor:
        """Return the cost (...) of widths (..., k), both in the buffers' dtype."""
        raw = torch.stack([_cost(module, widths) for module in self.sources], dim=-1)
        costs = torch.maximum(raw, self.floors)
        mixture = (self.mixture_coef[0] + costs @ self.mixture_coef[1:]).log()
        power = self.log_coef[0] + costs.log() @ self.log_coef[1:]
        share, count = self.mixture_share, widths.shape[-1]
        linear, square = self.residual_coef[1 : count + 1], self.residual_coef[count + 1 :]
        residual = self.residual_coef[0] + widths @ linear + widths**2 @ square
        residual = residual.clamp(-LARGEST_RESIDUAL, LARGEST_RESIDUAL)
        total = torch.exp(share * mixture + (1.0 - share) * power + residual)
        for module in self.own:
            alone = torch.maximum(_cost(module, widths), FLOOR * total)
            total = total * (alone / total) ** self.own_share
        return total


def _quadratic(coefficients: FloatArray, X: FloatArray) -> FloatArray:
    values = coefficients[0] + np.hstack([X, X**2]) @ coefficients[1:]
    return np.asarray(np.clip(values, -LARGEST_RESIDUAL, LARGEST_RESIDUAL))


def _fit_quadratic(
    X: FloatArray, left: FloatArray, weights: FloatArray, ridge: float
) -> FloatArray:
    """Return r_0, r_1 .. r_k, q_1 .. q_k of the ridge regression on scaled columns."""
    columns = np.hstack([X, X**2])
    spread = np.std(columns, axis=0)
    scale = np.where(spread > 0, spread, 1.0)
    center = columns.mean(axis=0)
    constant, slopes = fit_ridge((columns - center) / scale, left, weights, ridge)
    slopes = slopes / scale
    return np.concatenate([[constant - center @ slopes], slopes])


def _cost(module: torch.nn.Module, widths: torch.Tensor) -> torch.Tensor:
    result: torch.Tensor = module.cost(widths)  # type: ignore[operator]
    return result


def _fingerprint(spec: NetworkSpec | None) -> Any:
    return spec.fingerprint if spec is not None else None


def _name(spec: NetworkSpec | None) -> str:
    return spec.name if spec is not None else "no network"

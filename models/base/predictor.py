"""What all predictors share: scikit-learn's interface, matching of widths, intervals, files."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_array, check_is_fitted, check_X_y, validate_data

from joulemap import InputError

from ...datasets import LayerProfiles, NetworkSpec
from ...datasets.device_identity import device_of, ids_of
from ...datasets.metrics import NoiseFloor
from .contradictions import check_contradictions
from .cost_module import CostInfo, CostModule
from .extrapolation import warn_outside, widening
from .files.findings import Findings
from .files.writing import write
from .fittable import FittableDataset
from .input_checks import (
    as_input_error,
    checked_weights,
    conditions_of,
    not_finite_at,
    refuse_odd_costs,
    refuse_odd_widths,
    refuse_too_few,
    varying_conditions,
)
from .intervals import FloatArray, HeldOut, hold_out
from .measured_under import row_digests
from .plots import plot_error, plot_width
from .surrogate import warn_far_off
from .training import Training, take_training
from .whole_calls import make_calls_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Predictor(RegressorMixin, BaseEstimator, ABC):  # type: ignore[misc]  # sklearn is untyped
    """The cost of a network as a function of its widths, a scikit-learn regressor.

    A subclass defines `fit_arrays`, `predict_arrays`, `exact_module`, and names its fitted
    arrays and numbers in `state_names`; what else it found (choices, flags, texts) it hands over in
    `findings` and takes from a file in `take_findings`. Constructor arguments are JSON values beside
    the spec. Attributes or arguments that hold tuples of fitted predictors are named in
    `part_names`.

    Args:
        spec: The network; None treats the columns of X as widths without bounds.

    Attributes:
        unit_: Unit of the cost; '' where it was not stated.
        target_: Name of the cost, such as 'energy_j'; 'cost' where it was not stated.
        noise_floor_: Noise floor of the data, or None.
        conditions_: Batch, precision, ... that the data share, as far as known.
        width_names_: Names of the k widths, in order.
        width_ranges_: Smallest and largest width in the data, shape (2, k); None without data.
        num_samples_: Rows with a positive weight.
        held_out_: Measurements beside predictions that were made without them; None without data.
        device_id_: The device that was measured, where known.
        former_ids_: Ids that the device had before.
        training_rows_: Digests of the rows that it was fitted to, with profiled variants; None for
            a predictor of a file that does not record them.
    """

    state_names: ClassVar[tuple[str, ...]] = ()
    # Those that files of earlier versions lack; the class holds what stands for them then.
    optional_state_names: ClassVar[tuple[str, ...]] = ()
    part_names: ClassVar[tuple[str, ...]] = ()

    unit_: str
    target_: str
    noise_floor_: NoiseFloor | None
    conditions_: dict[str, Any]
    width_names_: tuple[str, ...]
    width_ranges_: FloatArray | None
    num_samples_: int
    held_out_: HeldOut | None
    device_id_: str | None
    former_ids_: tuple[str, ...]
    training_rows_: frozenset[str] | None
    n_features_in_: int

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        take_training(cls)
        make_calls_whole(cls)

    def __init__(self, spec: NetworkSpec | None = None) -> None:
        self.spec = spec

    # -- what a subclass defines -----------------------------------------------------------------

    @abstractmethod
    def fit_arrays(self, training: Training) -> None:
        """Set the attributes of `state_names`, as new arrays.

        Args:
            training: Checked rows, and what is known about them. It is not changed.
        """

    @abstractmethod
    def predict_arrays(self, X: FloatArray) -> FloatArray:
        """Return the cost, shape (n,), of widths (n, k), finite."""

    @abstractmethod
    def exact_module(self) -> CostModule:
        """Return the torch module that equals `predict_arrays`, with `cost_info()`."""

    def spread_arrays(self, X: FloatArray) -> FloatArray | None:
        """Return how unsure the model is of each cost, shape (n,), relative to it, positive.

        Intervals are wider where it is larger; only its ratios matter. None where the model does
        not say. `CostModule.spread` is the same in torch.

        Args:
            X: Widths, shape (n, k), finite.
        """
        return None

    def smooth_module(self) -> CostModule:
        """Return the torch module for optimisers; the exact one where that is smooth already."""
        return self.exact_module()

    def num_needed(self, num_widths: int) -> int:
        """Return the least number of different rows that `fit` accepts."""
        return 2

    def ready(self) -> None:
        """Check that there is something to predict with; a model that needs no data sets it up.

        Raises:
            NotFittedError: The predictor was not fitted.
        """
        check_is_fitted(self, "unit_")

    def check_parameters(self) -> None:
        """Check the hyperparameters, and raise InputError where one is not usable."""

    def findings(self) -> dict[str, Any]:
        """Return what the fit found that is no array, as JSON values by name; files hold them."""
        return {}

    def take_findings(self, found: Findings) -> None:
        """Set what `findings` returned, from a file, and raise InputError where it is not that.

        Called before the arrays of the file are set.

        Args:
            found: The file's findings.
        """

    def former_findings(self, arrays: dict[str, Any]) -> dict[str, Any]:
        """Return the findings of a file before version 2, which holds them in its arrays.

        Args:
            arrays: The file's arrays by name, finite. What is returned, or stands otherwise in files
                now, is taken out of them or replaced.
        """
        return {}

    def check_state(self) -> None:
        """Check attributes that came from a file, and raise InputError where they do not fit."""

    # -- fitting ---------------------------------------------------------------------------------

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Fit to measured costs, and return self; where it fails the predictor is as it was.

        Args:
            X: Widths in channels: array (n, k) in the spec's order, or DataFrame with a column
                per width. Of its other columns the conditions must not vary, the rest is ignored.
            y: Cost in an SI unit, shape (n,).
            sample_weight: Weights >= 0, shape (n,); a weight of 2 is the row twice.

        Raises:
            InputError: NaN, wrong columns, too few rows, a condition that varies, or costs of the
                same widths that contradict each other; a cost that is not positive or a width
                that no network has, with its row.
        """
        return self._fit(X, y, sample_weight)

    def _fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None,
        *,
        unit: str = "",
        target: str = "cost",
        has_variances: bool = False,
        profiles: LayerProfiles | None = None,
    ) -> Self:
        """Fit as `fit` does, with what a dataset knows besides; see `Training`."""
        self.check_parameters()
        conditions = self._conditions_of(X)
        X, y = self._checked_training(X, y)
        weights = checked_weights(sample_weight, len(y))
        X, y, weights = X[weights > 0], y[weights > 0], weights[weights > 0]
        self._refuse_too_few(X)
        names = self.spec.width_names if self.spec else self._column_names(X.shape[1])
        check_contradictions(X, y, names, is_network=self.spec is not None, stacklevel=3)
        self.bind(names, unit="", target="cost", conditions=conditions)
        self.training_rows_ = frozenset(row_digests(X, y))
        self.num_samples_ = len(y)
        self.width_ranges_ = np.stack([X.min(axis=0), X.max(axis=0)])
        training = Training(X, y, weights, unit, target, has_variances, profiles)

        def predict_without(test: NDArray[np.bool_]) -> tuple[FloatArray, FloatArray | None]:
            other = self._fitted_to(training.rows(~test))
            return other.predict_arrays(X[test]), other.spread_arrays(X[test])

        self.held_out_ = hold_out(X, y, weights, predict_without)
        self.fit_arrays(training)
        return self

    def fit_dataset(self, ds: FittableDataset, target: str = "latency_s") -> Self:
        """Fit to one target of a dataset with its weights, and return self; as it was where it fails.

        Takes over the dataset's spec, unit, noise floor and conditions.

        Args:
            ds: The measurements.
            target: Column to predict, such as 'energy_j'.

        Raises:
            InputError: As `fit`, or the predictor was made for another network.
        """
        return self._fit_dataset(ds, target)

    def _fit_dataset(
        self, ds: FittableDataset, target: str, profiles: LayerProfiles | None = None
    ) -> Self:
        """Fit as `fit_dataset` does, with profiles of the network's layers where there are any."""
        self._adopt(ds)
        X, y, weights = ds.xyw(target)
        named = X if ds.spec is not None else pd.DataFrame(X, columns=list(ds.width_names))
        self._fit(
            named,
            y,
            self.weights_of(y, weights),
            unit=ds.unit(target),
            target=target,
            has_variances=True,
            profiles=profiles,
        )
        self.unit_, self.target_ = ds.unit(target), target
        self.noise_floor_ = ds.noise_floor(target)
        self.conditions_ = {
            name: value for name, value in ds.fixed_conditions.items() if not pd.isna(value)
        }
        self.bind_device([ds])
        return self

    def predict_held_out(self, ds: FittableDataset, target: str, folds: np.ndarray) -> FloatArray:
        """Return a prediction for every row, shape (n,), by fits on the other folds.

        As `fit_dataset` on each fold's training rows, without what only intervals need. The predictor
        itself stays as it was.

        Args:
            ds: The measurements.
            target: Column to predict.
            folds: Fold of each row, shape (n,), from 0 on.

        Raises:
            InputError: As `fit_dataset`.
        """
        self.check_parameters()
        self._adopt(ds)
        X, y, weights = ds.xyw(target)
        X, y = self._checked_training(X, y)
        weights = self.weights_of(y, weights)
        self.bind(ds.width_names, unit=ds.unit(target), target=target)
        training = Training(X, y, weights, self.unit_, target, has_variances=True)
        predicted = np.empty_like(y)
        for fold in range(int(folds.max()) + 1):
            test = folds == fold
            rest = training.rows(~test)
            self._refuse_too_few(rest.X)
            predicted[test] = self._fitted_to(rest).predict_arrays(X[test])
        return predicted

    def weights_of(self, y: FloatArray, weights: FloatArray) -> FloatArray:
        """Return what `fit` takes as weights of a dataset's rows, from those 1 / variance."""
        return weights

    def bind(
        self,
        width_names: Sequence[str],
        *,
        unit: str,
        target: str,
        conditions: Mapping[str, Any] | None = None,
    ) -> None:
        """Set the fitted attributes that do not come from costs, as for no data at all."""
        self.width_names_ = tuple(width_names)
        self.n_features_in_ = len(self.width_names_)
        if self.spec is not None:
            self.feature_names_in_ = np.array(self.width_names_, dtype=object)
        self.unit_, self.target_ = unit, target
        self.conditions_ = dict(conditions or {})
        self.noise_floor_ = None
        self.width_ranges_ = None
        self.num_samples_ = 0
        self.held_out_ = None
        self.device_id_ = None
        self.former_ids_ = ()
        self.training_rows_ = frozenset()

    def bind_device(self, measured: Sequence[Any]) -> None:
        """Take over the ids of the device that was measured.

        Args:
            measured: Datasets or profiles of one device.
        """
        devices = [device_of(each) for each in measured]
        known = [str(device["device_id"]) for device in devices if ids_of(device)]
        self.device_id_ = known[0] if known else None
        self.former_ids_ = tuple(sorted(set().union(*map(ids_of, devices)) - set(known[:1])))

    # -- predicting ------------------------------------------------------------------------------

    def predict(self, X: ArrayLike) -> FloatArray:
        """Return the cost, float64 of shape (n,), in `unit_`.

        Warns with ExtrapolationWarning where widths lie outside the spec's bounds, or outside the
        measured ones by more than a quarter of their range.

        Args:
            X: Widths in channels: array (n, k), or DataFrame with a column per width.

        Raises:
            InputError: NaN, wrong columns, or conditions other than those of the data.
        """
        return self._predict(X)

    def predict_interval(
        self,
        X: ArrayLike,
        coverage: float = 0.9,
        of: Literal["measurement", "mean"] = "measurement",
    ) -> tuple[FloatArray, FloatArray]:
        """Return the lower and upper ends, each float64 of shape (n,), in `unit_`.

        The prediction and, on each side, a quantile of the errors on held-out data, relative to
        the prediction and to `spread_arrays`; wider outside the measured widths (see `widening`).
        For the mean what is surely noise (the noise floor's lower end) is removed in quadrature.

        Args:
            X: Widths in channels, as for `predict`.
            coverage: Share of variants whose cost lies inside.
            of: 'measurement' for one new measurement, noise included; 'mean' for the true mean.

        Raises:
            InputError: As `predict`; `coverage` or `of` out of range; or the predictor was not
                fitted on data.
        """
        prediction, spread, factor = self._predict_errors(X, of)
        assert self.held_out_ is not None  # noqa: S101 - checked by _predict_errors
        below, above = self.held_out_.distances(coverage, prediction, spread)
        return prediction - factor * below, prediction + factor * above

    def predict_upper(
        self,
        X: ArrayLike,
        coverage: float = 0.9,
        of: Literal["measurement", "mean"] = "mean",
    ) -> FloatArray:
        """Return upper bounds, float64 of shape (n,), in `unit_`, as `CostModule.upper` does.

        Args:
            X: Widths in channels, as for `predict`.
            coverage: Share of variants whose cost lies below.
            of: 'mean' for the true mean; 'measurement' for one new measurement, noise included.

        Raises:
            InputError: As `predict_interval`.
        """
        prediction, spread, factor = self._predict_errors(X, of)
        assert self.held_out_ is not None  # noqa: S101 - checked by _predict_errors
        above = self.held_out_.upper_distance(coverage, prediction, spread)
        return np.asarray(prediction + factor * above)

    def to_torch(self, batch: int = 1, precision: str = "fp32", smooth: bool = False) -> CostModule:
        """Return the cost as a differentiable torch module: widths (..., k) -> cost (...).

        Warns with SurrogateWarning where the smooth module is off by more than the whole cost.

        Args:
            batch: Samples per call that the cost is for.
            precision: Number format that the cost is for.
            smooth: Whether to return the surrogate for optimisers, which has a useful gradient
                everywhere, in place of the exact module.

        Raises:
            InputError: The predictor was fitted at another batch or precision.
        """
        self.ready()
        for name, value in (("batch", batch), ("precision", precision)):
            fitted = self.conditions_.get(name, value)
            if fitted != value:
                raise InputError(
                    f"the predictor was fitted at {name} {fitted}, not {value}; write "
                    f"to_torch({name}={fitted!r}) or fit one on data of {name} {value}"
                )
        if not smooth:
            return self.exact_module()
        module = self.smooth_module()
        warn_far_off(module, stacklevel=2)
        return module

    def cost_info(self) -> CostInfo:
        """Return what the torch module says about itself."""
        return CostInfo(
            width_names=self.width_names_,
            spec=self.spec,
            unit=self.unit_,
            target=self.target_,
            conditions=self.conditions_,
            held_out=self.held_out_,
            noise_floor=self.noise_floor_,
            width_ranges=self.width_ranges_,
            device_ids=(self.device_id_, *self.former_ids_) if self.device_id_ else (),
        )

    # -- files and figures -----------------------------------------------------------------------

    def describe(self) -> list[str]:
        """Return what the fit found, in plain words; nothing where there is nothing to say."""
        return []

    def save(self, path: str | PathLike[str]) -> None:
        """Write the fitted predictor to a safetensors file, which `joulemap.models.load` reads.

        Args:
            path: The file; replaced as a whole.
        """
        write([self], path)

    def plot_error(
        self,
        ds: FittableDataset | None = None,
        ax: Axes | None = None,
        *,
        allow_different: bool = False,
    ) -> Axes:
        """Return matplotlib axes with predicted against measured cost and the error.

        Args:
            ds: Measurements to compare with; None for the held-out ones of the fit.
            ax: Where to draw; None makes a new figure.
            allow_different: Whether the measurements may be of unlike conditions.

        Raises:
            InputError: No dataset, and the predictor was not fitted on data; or unlike conditions.
        """
        return plot_error(self, ds, ax, allow_different=allow_different)

    def plot_width(
        self,
        name: str,
        ax: Axes | None = None,
        points: int = 200,
        others: Mapping[str, float] | None = None,
    ) -> Axes:
        """Return matplotlib axes with the cost against one width.

        Args:
            name: The width.
            ax: Where to draw; None makes a new figure.
            points: Number of widths to evaluate, at most.
            others: Values of other widths in channels; the largest where not given.

        Raises:
            InputError: Unknown width.
        """
        return plot_width(self, name, ax, points, others)

    # -- checking --------------------------------------------------------------------------------

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        # Costs grow with widths; scikit-learn's test data are signed and centred.
        tags.regressor_tags.poor_score = True
        tags.target_tags.positive_only = True
        return tags

    def _predict(self, X: Any) -> FloatArray:
        return self._finite_cost(self._widths_to_predict(X, stacklevel=4))

    def _finite_cost(self, widths: FloatArray) -> FloatArray:
        with np.errstate(over="ignore", invalid="ignore"):
            cost = self.predict_arrays(widths)
        if len(bad := np.flatnonzero(~np.isfinite(cost))):
            raise InputError(
                f"the cost of row {bad[0] + 1} of X is beyond the numbers; it lies too far from the "
                "data that the predictor was fitted to"
            )
        return cost

    def _predict_errors(self, X: Any, of: str) -> tuple[FloatArray, FloatArray | None, FloatArray]:
        """Return predictions, their spread, and the factor that intervals are scaled by, (n,)."""
        self.ready()
        if of not in ("measurement", "mean"):
            raise InputError(f"of is {of!r}; write 'measurement' or 'mean'")
        if self.held_out_ is None:
            raise InputError("the predictor was not fitted on data, so it has no intervals")
        widths = self._widths_to_predict(X, stacklevel=4)
        factor: FloatArray = widening(torch.tensor(widths), self.width_ranges_).numpy()
        if of == "mean":
            factor = factor * self.held_out_.mean_share(self.noise_floor_, self.n_features_in_)
        spread = None if self.held_out_.spread is None else self.spread_arrays(widths)
        return self._finite_cost(widths), spread, factor

    def _widths_to_predict(self, X: Any, stacklevel: int) -> FloatArray:
        self.ready()
        for name, value in self._conditions_of(X).items():
            if self.conditions_.get(name, value) != value:
                raise InputError(
                    f"the predictor was fitted at {name} {self.conditions_[name]}, X has {value}"
                )
        widths = self._checked_widths(X)
        if self.spec is not None:
            warn_outside(widths, self.spec, self.width_ranges_, self.num_samples_, stacklevel)
        return widths

    def _fitted_to(self, training: Training) -> Self:
        other = copy.copy(self)
        other.fit_arrays(training)
        return other

    def _checked_training(self, X: Any, y: Any) -> tuple[FloatArray, FloatArray]:
        try:
            if self.spec is None:
                checked, y = validate_data(self, X, y, dtype=np.float64, order="C", y_numeric=True)
            else:
                checked, y = check_X_y(
                    self._matched(X), y, dtype=np.float64, order="C", y_numeric=True, estimator=self
                )
        except ValueError as error:
            raise as_input_error(error, not_finite_at(X, y)) from error
        self._refuse_wrong_count(checked)
        self._refuse_odd_widths(checked)
        y = np.asarray(y, dtype=np.float64)
        refuse_odd_costs(y)
        return checked, y

    def _checked_widths(self, X: Any) -> FloatArray:
        try:
            if self.spec is None:
                widths: FloatArray = validate_data(
                    self, X, reset=False, dtype=np.float64, order="C"
                )
            else:
                widths = check_array(self._matched(X), dtype=np.float64, order="C", estimator=self)
        except ValueError as error:
            raise as_input_error(error, not_finite_at(X)) from error
        self._refuse_wrong_count(widths)
        self._refuse_odd_widths(widths)
        return widths

    def _conditions_of(self, X: Any) -> dict[str, Any]:
        if self.spec is None:
            return {}
        return conditions_of(X, self.spec.width_names, type(self).__name__)

    def _refuse_too_few(self, X: FloatArray) -> None:
        refuse_too_few(X, self.num_needed(X.shape[1]), type(self).__name__)

    def _refuse_odd_widths(self, X: FloatArray) -> None:
        names = self.spec.width_names if self.spec else self._column_names(X.shape[1])
        refuse_odd_widths(X, names, is_network=self.spec is not None)

    def _matched(self, X: Any) -> Any:
        names = self.spec.width_names if self.spec else ()
        if not hasattr(X, "columns"):
            return X
        if missing := [name for name in names if name not in X.columns]:
            raise InputError(f"X has no column for the widths {', '.join(missing)}")
        return X[list(names)]

    def _adopt(self, ds: FittableDataset) -> None:
        """Take over the dataset's network, after checking that the predictor can be fitted to it."""
        if ds.spec is None:
            if self.spec is not None:
                raise InputError(
                    f"the predictor was made for {self.spec.name} and the table has no network; "
                    "leave out spec"
                )
            return
        if self.spec is not None and self.spec.fingerprint != ds.spec.fingerprint:
            raise InputError(
                f"the predictor was made for {self.spec.name} and the dataset measured "
                f"{ds.spec.name} with other widths or layers; leave out spec or pass the dataset's"
            )
        k = len(ds.spec.width_names)
        if varying := tuple(ds.feature_names)[k:]:
            raise varying_conditions(type(self).__name__, varying)
        self.spec = ds.spec

    def _refuse_wrong_count(self, X: FloatArray) -> None:
        if self.spec is None:
            return
        names = self.spec.width_names
        if X.shape[1] != len(names):
            raise InputError(
                f"X has {X.shape[1]} columns, but {type(self).__name__} expects the "
                f"{len(names)} widths {', '.join(names)}"
            )

    def _column_names(self, count: int) -> tuple[str, ...]:
        names = getattr(self, "feature_names_in_", None)
        if names is not None:
            return tuple(str(name) for name in names)
        return tuple(f"x{i}" for i in range(count))


make_calls_whole(Predictor)

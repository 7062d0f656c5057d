"""The predictor that chooses a predictor, by errors on held-out variants."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from math import ceil
from typing import Any, ClassVar

import numpy as np

from joulemap import InputError

from ..datasets import NetworkSpec
from . import registry
from .aligned.fit import scale_of
from .auto_words import Choice, describe, reasons_from_numbers
from .base.cost_module import CostModule
from .base.files.findings import Findings
from .base.intervals import FOLDS, FloatArray, assign_folds
from .base.predictor import Predictor
from .base.repeated_rows import merge_repeated
from .base.training import Training
from .linear.predictor import relative_weights

# By what has to be believed: a number, one per product of widths, a few per kind of layer, a table
# per layer, a function of everything.
SIMPLEST_FIRST = ("flops", "params", "bilinear", "aligned", "lookup", "trees", "gp", "neural")
WITH_NETWORK = ("flops", "bilinear", "aligned", "lookup", "gp", "neural")
# Without a network FLOPs and layers are those of a chain, which few tables are.
WITHOUT_NETWORK = ("bilinear", "gp", "neural")
# Up to so many different rows the comparison has five parts, then three.
FEW_ROWS = 150
FOLDS_OF_MANY = 3


class AutoPredictor(Predictor):
    """The simplest of several predictors whose error is within one standard error of the best.

    All candidates are fitted to the same parts of the rows and judged on the rest, by the mean
    relative error. Where a candidate's excess over the best is no larger than the standard error
    of that excess, over rows, and it is simpler, it is preferred. The chosen one is fitted to all
    rows. Intervals and the held-out error include the choice: it is made anew without each part
    of the rows that is held out (nested cross-validation).

    Source of the rule: Breiman, Friedman, Olshen, Stone, "Classification and Regression Trees",
    1984, section 3.4.3, here with the standard error of the paired difference.

    Args:
        spec: The network; None takes the columns of X as they are.
        candidates: Names of models; None for flops, bilinear, aligned, lookup, gp and neural, or
            without a spec bilinear, gp and neural. Simpler means earlier in `SIMPLEST_FIRST`;
            others come last, in the order given.
        choosing_rows: Different rows that the choice is made on, at most: a random part of more.

    Attributes:
        chosen_: The chosen predictor, alone in a tuple.
        table_: For each candidate from the simplest on its mean relative error, the standard
            error of that, its excess over the smallest one, and the standard error of the excess,
            shape (c, 4), fractions; -1 where it could not be fitted.
        reasons_: Why candidates were not fitted, by name.
        num_compared_: Rows and folds of the comparison, shape (2,).
    """

    state_names: ClassVar[tuple[str, ...]] = ("table_", "num_compared_")
    part_names: ClassVar[tuple[str, ...]] = ("chosen_",)

    chosen_: tuple[Predictor, ...]
    table_: FloatArray
    reasons_: dict[str, str]
    num_compared_: FloatArray

    def __init__(
        self,
        spec: NetworkSpec | None = None,
        *,
        candidates: Sequence[str] | None = None,
        choosing_rows: int = 300,
    ) -> None:
        super().__init__(spec)
        self.candidates = candidates
        self.choosing_rows = choosing_rows

    # -- what was found --------------------------------------------------------------------------

    @property
    def chosen(self) -> Predictor:
        """The chosen predictor, fitted to all rows; its intervals include the choice."""
        found = copy.copy(self.chosen_[0])
        for name in (
            "unit_",
            "target_",
            "noise_floor_",
            "conditions_",
            "width_ranges_",
            "num_samples_",
            "held_out_",
            "device_id_",
            "former_ids_",
            "training_rows_",
        ):
            setattr(found, name, getattr(self, name))
        return found

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the candidates, the simplest first."""
        default = WITH_NETWORK if self.spec is not None else WITHOUT_NETWORK
        given = list(default if self.candidates is None else self.candidates)
        known = [name for name in SIMPLEST_FIRST if name in given]
        return (*known, *(name for name in given if name not in SIMPLEST_FIRST))

    @property
    def reasons(self) -> dict[str, str]:
        """Why candidates were not fitted, by name."""
        return dict(self.reasons_)

    def describe(self) -> list[str]:
        """Return what was compared and chosen and why, and what the chosen predictor says."""
        rows, parts = (int(number) for number in self.num_compared_)
        return describe(
            Choice(
                names=self.names,
                table=self.table_,
                reasons=self.reasons,
                chosen=registry.name_of(self.chosen_[0]),
                num_rows=rows,
                num_parts=parts,
                num_samples=self.num_samples_,
                mean_error=self.held_out_.mean_error if self.held_out_ is not None else None,
                findings=self.chosen.describe(),
            )
        )

    # -- fitting ---------------------------------------------------------------------------------

    def fit_arrays(self, training: Training) -> None:
        """Compare the candidates on some of the rows, and fit the chosen one to all."""
        rows, folds = self.rows_to_choose_on(training.X)
        shown = training.rows(rows)
        errors: dict[str, FloatArray] = {}
        reasons: dict[str, str] = {}
        for name in self.names:
            try:
                predicted = self._held_out(name, shown, folds)
            except InputError as error:
                reasons[name] = str(error)
                continue
            # Bounded: one absurd label must not decide.
            scale = scale_of(shown.y, shown.weights)
            errors[name] = np.minimum(np.abs(predicted - shown.y) / scale, 1.0)
        if not errors:
            raise InputError(
                "none of the candidates can be fitted: "
                + "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
            )
        shares = shown.weights
        if training.has_variances:
            shares = relative_weights(scale_of(shown.y, shares), shares)
        # Visits of one variant are no evidence of each other.
        variants = {
            name: merge_repeated(shown.X, error, shares)[1:] for name, error in errors.items()
        }
        self.table_ = compared([variants.get(name) for name in self.names])
        self.reasons_ = reasons
        self.num_compared_ = np.array([len(rows), folds.max() + 1], dtype=np.float64)
        name = self.names[choice(self.table_)]
        self.chosen_ = (self._fit_candidate(name, training),)

    def rows_to_choose_on(self, X: FloatArray) -> tuple[np.ndarray, np.ndarray]:
        """Return which rows the choice is made on, all visits of a variant or none, and their folds.

        Args:
            X: Widths of all rows, shape (n, k).
        """
        distinct, inverse = np.unique(X, axis=0, return_inverse=True)
        order = np.random.default_rng(0).permutation(len(distinct))
        rows = np.flatnonzero(np.isin(inverse.reshape(-1), order[: self.choosing_rows]))
        num_folds = FOLDS if len(distinct) <= FEW_ROWS else FOLDS_OF_MANY
        # Other folds than those that intervals hold out.
        folds, _ = assign_folds(X[rows], num_folds, seed=1)
        return rows, folds

    def _held_out(self, name: str, training: Training, folds: np.ndarray) -> FloatArray:
        """Return a candidate's predictions by fits on the other folds, shape (n,)."""
        candidate = self._candidate(name)
        training = _weighted_for(candidate, training)
        predicted = np.empty_like(training.y)
        for fold in range(int(folds.max()) + 1):
            test = folds == fold
            rest = training.rows(~test)
            distinct, needed = len(np.unique(rest.X, axis=0)), candidate.num_needed(rest.X.shape[1])
            if distinct < needed:
                raise InputError(f"needs {needed} variants beside those held out, of {distinct}")
            candidate.fit_arrays(rest)
            predicted[test] = candidate.predict_arrays(training.X[test])
        return predicted

    def _fit_candidate(self, name: str, training: Training) -> Predictor:
        candidate = self._candidate(name)
        candidate.fit_arrays(_weighted_for(candidate, training))
        return candidate

    def _candidate(self, name: str) -> Predictor:
        candidate = registry.predictor_class(name)(self.spec)
        candidate.check_parameters()
        candidate.bind(self.width_names_, unit="", target="cost")
        return candidate

    # -- what the chosen predictor does ----------------------------------------------------------

    def predict_arrays(self, X: FloatArray) -> FloatArray:
        """Return the chosen predictor's cost, shape (n,), of checked widths (n, k)."""
        return self.chosen_[0].predict_arrays(X)

    def spread_arrays(self, X: FloatArray) -> FloatArray | None:
        """Return how unsure the chosen predictor is, shape (n,); None where it does not say."""
        return self.chosen_[0].spread_arrays(X)

    def exact_module(self) -> CostModule:
        """Return the chosen predictor's torch module."""
        return self.chosen.exact_module()

    def smooth_module(self) -> CostModule:
        """Return the chosen predictor's torch module for optimisers."""
        return self.chosen.smooth_module()

    # -- checking --------------------------------------------------------------------------------

    def num_needed(self, num_widths: int) -> int:
        """Return the least number of different rows: so that one candidate can always be judged.

        Parts are held out twice: for the intervals, and of the rest for the choice.
        """
        needed = min(
            registry.predictor_class(name)(self.spec).num_needed(num_widths) for name in self.names
        )
        number = needed
        while _without_one_part(_without_one_part(number)) < needed:
            number += 1
        return number

    def check_parameters(self) -> None:
        """Check the hyperparameters.

        Raises:
            InputError: One of them is not usable.
        """
        given, rows = self.candidates, self.choosing_rows
        if given is not None:
            is_list = isinstance(given, list | tuple) and all(isinstance(n, str) for n in given)
            if not is_list or not given or len(set(given)) < len(given):
                raise InputError(f"candidates is {given!r}; write a list of different models")
            for name in given:
                if issubclass(registry.predictor_class(name), AutoPredictor):
                    raise InputError("candidates has 'auto' itself; leave it out")
        if isinstance(rows, bool) or not isinstance(rows, int) or rows < 2:
            raise InputError(f"choosing_rows is {rows!r}, not a number of at least 2")

    def findings(self) -> dict[str, Any]:
        """Return why candidates were not fitted."""
        return {"reasons": self.reasons_}

    def take_findings(self, found: Findings) -> None:
        """Set why candidates were not fitted."""
        self.reasons_ = found.texts("reasons")

    def former_findings(self, arrays: dict[str, Any]) -> dict[str, Any]:
        """Return the findings of a file before version 2: an array held their bytes."""
        return {"reasons": reasons_from_numbers(arrays.pop("reasons_"))}

    def check_state(self) -> None:
        """Check what came from a file.

        Raises:
            InputError: It does not fit together.
        """
        if self.table_.shape != (len(self.names), 4) or not np.any(self.table_[:, 2] == 0):
            raise InputError(f"table_ is no table of {len(self.names)} candidates and a best one")
        if np.shape(self.num_compared_) != (2,):
            raise InputError("num_compared_ is not a number of rows and one of folds")
        if (
            len(self.chosen_) != 1
            or self.chosen_[0].width_names_ != self.width_names_
            or self.chosen_[0].spec != self.spec
        ):
            raise InputError("chosen_ is not one predictor of the same widths")
        if registry.name_of(self.chosen_[0]) not in self.names:
            raise InputError("chosen_ is none of the candidates")


def _weighted_for(candidate: Predictor, training: Training) -> Training:
    """Return the rows with the weights that a candidate takes for a dataset's variances."""
    if not training.has_variances:
        return training
    return training.with_weights(candidate.weights_of(training.y, training.weights))


def _without_one_part(number: int) -> int:
    return number - ceil(number / max(1, min(FOLDS, number)))


def compared(variants: Sequence[tuple[FloatArray, FloatArray] | None]) -> FloatArray:
    """Return `AutoPredictor.table_`, shape (c, 4).

    Args:
        variants: For each candidate the errors on different variants, (n,), and their weights.
    """
    table = np.full((len(variants), 4), -1.0)
    known = [place for place, found in enumerate(variants) if found is not None]
    errors = {place: found[0] for place, found in enumerate(variants) if found is not None}
    weights = next(found[1] for found in variants if found is not None)
    best = min(known, key=lambda place: float(np.average(errors[place], weights=weights)))
    for place in known:
        table[place] = (
            *_mean_and_error(errors[place], weights),
            *_mean_and_error(errors[place] - errors[best], weights),
        )
    return table


def _mean_and_error(values: FloatArray, weights: FloatArray) -> tuple[float, float]:
    """Return the weighted mean of values (n,) and its standard error."""
    shares = weights / weights.sum()
    mean = float(shares @ values)
    count = len(values)
    variance = float(shares**2 @ (values - mean) ** 2) * count / max(count - 1, 1)
    return mean, float(np.sqrt(variance))


def choice(table: FloatArray) -> int:
    """Return the first candidate whose excess is within its standard error."""
    error, _, excess, uncertainty = table.T
    return int(np.flatnonzero((error >= 0) & (excess <= uncertainty))[0])

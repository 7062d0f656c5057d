"""A table for each layer, as latency tables of network search have: the cost is their sum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np

from joulemap import InputError

from ...datasets import LayerProfiles, NetworkSpec
from ..aligned.fit import scale_of
from ..aligned.structure import DIVISORS, check_channels
from ..aligned.terms import chain_of
from ..base.cost_module import CostModule
from ..base.fittable import FittableDataset
from ..base.intervals import FloatArray
from ..base.predictor import Predictor
from ..base.training import Training
from ..linear.predictor import relative_weights
from .layerwise_fit import Source, fit_rates, select_structure
from .lookup_fit import TableFit
from .lookup_grid import LookupGrid
from .lookup_module import LookupCostModule
from .profiled_dataset import ProfiledDataset, joined

LEAST_ROWS = 6
# Share of the error with one table per layer below which a second one is worth its entries.
_WORTH_TABLES = 0.8
# Of the smallest measured cost: what a call takes at least. Too little to be seen anywhere else.
_LEAST_SHARE = 1e-9


class LookupTablePredictor(Predictor):
    """The cost as a sum of one table per layer over its input and output channels, interpolated.

    cost = constant + sum_layers T_l(in_l, out_l), T_l >= 0 and bilinear between knots. Where a
    divisor of the channel counts matters, a layer has a second table for variants at which it is
    misaligned. The tables start from rates of multiply-accumulates, weights and elements that
    layers of a kind share, and deviate from these smoothly: second differences and deviations are
    penalised, relative to what the layer costs, as much as predicts held-out variants best. So
    they are determined by whole variants alone (`fit_dataset`), and sharper with profiles of
    single layers.

    As the tables of NetAdapt (Yang et al., ECCV 2018) and of once-for-all networks, it does not
    know what layers do to each other.

    Args:
        spec: The network; None for a chain of dense layers whose hidden widths are X's columns.
        knots: Knots of each channel count, evenly spaced over the spec's bounds (the data's,
            without a spec).
        penalty: Weight of the penalty; None chooses by cross-validation.
        divisor: d of {1, 2, 4, 8, 16, 32} that aligned channel counts are multiples of; None
            chooses by cross-validation, 1 has one table per layer.

    Attributes:
        tables_: Entries, shape (tables, regimes, knots, knots), in `unit_`; aligned first.
        constant_: Cost of the call, in `unit_`.
        bounds_: Smallest and largest widths that knots span, shape (2, k).
        penalty_: The penalty, float.
        divisor_: d, float.
    """

    state_names: ClassVar[tuple[str, ...]] = (
        "tables_",
        "constant_",
        "bounds_",
        "penalty_",
        "divisor_",
    )

    tables_: FloatArray
    constant_: float
    bounds_: FloatArray
    penalty_: float
    divisor_: float

    def __init__(
        self,
        spec: NetworkSpec | None = None,
        *,
        knots: int = 5,
        penalty: float | None = None,
        divisor: int | None = None,
    ) -> None:
        super().__init__(spec)
        self.knots = knots
        self.penalty = penalty
        self.divisor = divisor

    # -- fitting ---------------------------------------------------------------------------------

    def fit_dataset(
        self,
        ds: FittableDataset,
        target: str = "latency_s",
        profiles: LayerProfiles | Sequence[LayerProfiles] = (),
    ) -> Self:
        """Fit to one target of a dataset, and to profiles of its layers where given; return self.

        Args:
            ds: The measurements.
            target: Column to predict.
            profiles: What layers of the same network took; of latencies alone.

        Raises:
            InputError: As `Predictor.fit_dataset`; profiles of another network or target.
        """
        profile = joined(profiles)
        if profile is not None:
            ds = ProfiledDataset(ds, profile, target)
        return self._fit_dataset(ds, target, profile)

    def fit_profiles(self, profiles: LayerProfiles | Sequence[LayerProfiles]) -> Self:
        """Fit to what layers took in runs of some variants, and to those runs; return self.

        Args:
            profiles: Of one network.

        Raises:
            InputError: None, or of several networks.
        """
        profile = joined(profiles)
        if profile is None:
            raise InputError("there are no profiles to fit to")
        return self._fit_dataset(ProfiledDataset(None, profile, "latency_s"), "latency_s", profile)

    def weights_of(self, y: FloatArray, weights: FloatArray) -> FloatArray:
        """Return weights of squared relative errors from those of squared absolute ones."""
        return relative_weights(scale_of(y, weights), weights)

    def fit_arrays(self, training: Training) -> None:
        """Choose the penalty and set the tables, from checked arrays."""
        X, y, weights = training.X, training.y, training.weights
        spec = self._network()
        if self.spec is not None:
            self.bounds_ = np.array([spec.min_widths, spec.max_widths], dtype=np.float64)
        else:
            self.bounds_ = np.stack([X.min(axis=0), X.max(axis=0)])
        source = Source(spec, X, y, weights, training.profiles)
        divisor = self._best_divisor(source) if self.divisor is None else self.divisor
        self.divisor_ = float(divisor)
        rates = fit_rates([source.whole(divisor, 1), source.parts(divisor, 1)])
        fitted = TableFit(self._grid(), rates, source)
        self.penalty_ = self.penalty if self.penalty is not None else fitted.best_penalty()
        # Where all entries of a cell are zero, the cost is not.
        self.constant_ = max(fitted.constant, _LEAST_SHARE * float(y.min()))
        self.tables_ = fitted.solve(self.penalty_)

    def predict_arrays(self, X: FloatArray) -> FloatArray:
        """Return the cost, shape (n,), of checked widths (n, k)."""
        products = self._grid().products(X)
        cost: FloatArray = self.constant_ + products.reshape(len(X), -1) @ self.tables_.reshape(-1)
        return cost

    def exact_module(self) -> CostModule:
        """Return the tables with bilinear interpolation; its gradient is that of the cell."""
        return LookupCostModule(self._grid(), self.constant_, self.tables_, self.cost_info())

    def layer_costs(self, widths: Any) -> dict[str, float]:
        """Return the cost of each layer at one width vector, in `unit_`; they add up to the whole.

        The key '' is what belongs to the call and to no layer.

        Args:
            widths: Widths in channels, shape (k,).

        Raises:
            InputError: Not one width vector.
        """
        X = np.atleast_2d(np.asarray(widths, dtype=np.float64))
        if X.shape != (1, len(self.width_names_)):
            raise InputError(f"layer_costs takes one width vector of {len(self.width_names_)}")
        grid = self._grid()
        entries = self.tables_.reshape(len(grid.tables), -1)
        costs = (grid.products(X)[0] * entries).sum(axis=1)
        named = {table.layer: float(cost) for table, cost in zip(grid.tables, costs, strict=True)}
        return {"": self.constant_, **named}

    def num_needed(self, num_widths: int) -> int:
        """Return the least number of different rows; two without a spec."""
        return 2 if self.spec is None else LEAST_ROWS

    def check_parameters(self) -> None:
        """Check the hyperparameters.

        Raises:
            InputError: One of them is not usable.
        """
        if isinstance(self.knots, bool) or not isinstance(self.knots, int) or self.knots < 2:
            raise InputError(f"knots is {self.knots!r}; write an int >= 2")
        if self.penalty is not None and not (
            isinstance(self.penalty, int | float) and np.isfinite(self.penalty) and self.penalty > 0
        ):
            raise InputError(f"penalty is {self.penalty!r}; write None or a number > 0")
        check_channels("divisor", self.divisor)

    def check_state(self) -> None:
        """Check the fitted arrays against the network.

        Raises:
            InputError: Wrong shapes or values.
        """
        num_widths = len(self.width_names_)
        for name in ("constant_", "divisor_", "penalty_"):
            if np.ndim(getattr(self, name)):
                raise InputError(f"{name} is not one number")
        if self.bounds_.shape != (2, num_widths) or np.any(self.bounds_[0] > self.bounds_[1]):
            raise InputError("bounds_ is not two width vectors, the smaller first")
        if self.divisor_ not in DIVISORS:
            raise InputError(f"divisor_ is {self.divisor_}, not one of {DIVISORS}")
        grid = self._grid()
        shape = (len(grid.tables), len(grid.regimes), self.knots, self.knots)
        if self.tables_.shape != shape or np.any(self.tables_ < 0):
            raise InputError(f"tables_ is not {shape[0]} tables of {self.knots}x{self.knots} >= 0")

    @staticmethod
    def _best_divisor(source: Source) -> int:
        """Return the divisor that predicts held-out variants best; 1 unless it is clearly worse."""
        best, compared = select_structure([source], DIVISORS, (1,))
        errors = {each.structure.divisor: each.error for each in compared}
        return best.divisor if errors[best.divisor] < _WORTH_TABLES * errors[1] else 1

    def _grid(self) -> LookupGrid:
        return LookupGrid(
            self._network(), self.bounds_[0], self.bounds_[1], self.knots, int(self.divisor_)
        )

    def _network(self) -> NetworkSpec:
        return chain_of(len(self.width_names_)) if self.spec is None else self.spec

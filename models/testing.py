"""The contract of predictors as a pytest class. A new predictor's tests subclass it."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from joulemap import InputError

from ..datasets import NetworkSpec
from ..datasets.metrics import NoiseFloor
from .base.extrapolation import ExtrapolationWarning
from .base.fittable import FittableDataset
from .base.intervals import FloatArray
from .base.predictor import Predictor
from .base.surrogate import SurrogateWarning
from .serialization import load


class ArrayDataset:
    """A dataset in memory: what `Predictor.fit_dataset` needs, from arrays.

    Args:
        spec: The network.
        widths: Widths in channels, shape (n, k).
        costs: Target name to cost, shape (n,), in SI units; a name ends in its unit, as in
            `energy_j`.
        weights: Shape (n,); ones where not given.
        noise_floor: Noise floor of all targets.
        fixed_conditions: Conditions of all rows.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        widths: FloatArray,
        costs: Mapping[str, FloatArray],
        *,
        weights: FloatArray | None = None,
        noise_floor: NoiseFloor | None = None,
        fixed_conditions: Mapping[str, Any] | None = None,
    ) -> None:
        self.spec = spec
        self.fixed_conditions = dict(fixed_conditions or {"batch": 1, "precision": "fp32"})
        self.device_id: str | None = "array"
        self._widths = np.asarray(widths, dtype=np.float64)
        self._costs = dict(costs)
        self._weights = np.ones(len(widths)) if weights is None else weights
        self._noise_floor = noise_floor

    @property
    def width_names(self) -> tuple[str, ...]:
        """Names of the widths, in order."""
        return self.spec.width_names

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of X's columns: the widths."""
        return self.spec.width_names

    @property
    def conditions(self) -> pd.DataFrame:
        """Conditions of each row."""
        return pd.DataFrame([self.fixed_conditions] * len(self._widths))

    def xyw(self, target: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return widths (n, k), cost (n,) and weights (n,)."""
        if target not in self._costs:
            raise InputError(f"there is no target '{target}'")
        return self._widths, self._costs[target], self._weights

    def unit(self, target: str) -> str:
        """Return the unit that the target's name ends in."""
        return {"j": "J", "s": "s"}.get(target.rsplit("_", 1)[-1], "")

    def noise_floor(self, target: str) -> NoiseFloor | None:
        """Return the noise floor."""
        return self._noise_floor


def draw_widths(spec: NetworkSpec, count: int, seed: int = 0) -> FloatArray:
    """Return random widths within a network's bounds, shape (count, k), in channels."""
    rng = np.random.default_rng(seed)
    columns = [
        width.multiple
        * rng.integers(width.min // width.multiple, width.max // width.multiple + 1, count)
        for width in spec.widths
    ]
    return np.column_stack(columns).astype(np.float64)


def difference(first: Any, second: Any, where: str = "") -> str | None:
    """Return where two values differ, None where they are equal; arrays bit by bit.

    Args:
        first: Attributes of a predictor, or any value of one; what begins with '_' is left out.
        second: What it is compared with.
        where: What the values are, for the answer.
    """
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        for name in sorted(first.keys() | second.keys()):
            if name.startswith("_"):
                continue
            if name not in first or name not in second:
                return f"{where}.{name} is in one only"
            if found := difference(first[name], second[name], f"{where}.{name}"):
                return found
        return None
    if type(first) is not type(second):
        return f"{where} is {first!r}, {second!r}"
    if isinstance(first, list | tuple) and len(first) == len(second):
        pairs = enumerate(zip(first, second, strict=True))
        every = (difference(*pair, f"{where}[{number}]") for number, pair in pairs)
        return next((each for each in every if each), None)
    if isinstance(first, Predictor):
        return difference(vars(first), vars(second), where)
    if isinstance(first, np.ndarray):
        is_equal = first.dtype == second.dtype and first.tobytes() == second.tobytes()
        is_equal = np.array_equal(first, second) if first.dtype == object else is_equal
        return None if is_equal else f"{where} is {first!r}, {second!r}"
    if is_dataclass(first) and not isinstance(first, type):
        # One by one, since arrays have no equality.
        one, other = (
            {item.name: getattr(each, item.name) for item in fields(each)}
            for each in (first, second)
        )
        return difference(one, other, where)
    return None if bool(first == second) else f"{where} is {first!r}, {second!r}"


class EstimatorContract:
    """What every predictor must do, also one without a gradient. Subclasses define `make`.

    A fixture `dataset` of the class, its file or conftest.py has a spec of at least two widths
    and a target `latency_s`.
    """

    target = "latency_s"

    _known: ClassVar[dict[type, tuple[FittableDataset, Predictor]]] = {}

    def make(self, spec: NetworkSpec | None = None) -> Predictor:
        """Return an unfitted predictor."""
        raise NotImplementedError

    @pytest.fixture
    def fitted(self, dataset: FittableDataset) -> Predictor:
        """Return a predictor fitted to the dataset, a copy for each test."""
        data, predictor = self._known.get(type(self), (None, None))
        if predictor is None or data is not dataset:
            predictor = self.make().fit_dataset(dataset, self.target)
            self._known[type(self)] = (dataset, predictor)
        return copy.deepcopy(predictor)

    @pytest.fixture
    def widths(self, dataset: FittableDataset) -> FloatArray:
        """Return integer widths within the bounds, shape (9, k): the full network and others."""
        assert dataset.spec is not None
        return np.vstack([dataset.spec.max_widths, draw_widths(dataset.spec, 8, seed=7)])

    # -- scikit-learn ----------------------------------------------------------------------------

    def test_clone_keeps_the_parameters_and_forgets_the_fit(self, fitted: Predictor) -> None:
        copied = clone(fitted)
        assert copied.get_params()["spec"] == fitted.get_params()["spec"]
        with pytest.raises(NotFittedError):
            copied.predict(np.ones((1, fitted.n_features_in_)))

    def test_fit_gives_float64_of_one_cost_per_row(
        self, dataset: FittableDataset, widths: FloatArray
    ) -> None:
        X, y, weights = dataset.xyw(self.target)
        predictor = self.make(dataset.spec)
        assert predictor.fit(X, y, sample_weight=weights) is predictor
        prediction = predictor.predict(widths)
        assert prediction.shape == (len(widths),)
        assert prediction.dtype == np.float64
        assert np.all(np.isfinite(prediction))

    def test_dataset_gives_spec_unit_and_target(
        self, dataset: FittableDataset, fitted: Predictor
    ) -> None:
        assert fitted.spec == dataset.spec
        assert fitted.unit_ == dataset.unit(self.target)
        assert fitted.target_ == self.target
        assert fitted.noise_floor_ == dataset.noise_floor(self.target)
        assert fitted.conditions_ == dict(dataset.fixed_conditions)

    def test_columns_are_matched_by_name(self, fitted: Predictor, widths: FloatArray) -> None:
        frame = pd.DataFrame(widths, columns=list(fitted.width_names_))
        frame["comment"] = "ignored"
        shuffled = frame[list(reversed(frame.columns))]
        expected = fitted.predict(widths)
        np.testing.assert_array_equal(fitted.predict(frame), expected)
        np.testing.assert_array_equal(fitted.predict(shuffled), expected)

    def test_missing_column_is_named(self, fitted: Predictor, widths: FloatArray) -> None:
        name = fitted.width_names_[-1]
        frame = pd.DataFrame(widths, columns=list(fitted.width_names_)).drop(columns=name)
        with pytest.raises(InputError, match=name):
            fitted.predict(frame)

    def test_wrong_number_of_columns_is_refused(
        self, fitted: Predictor, widths: FloatArray
    ) -> None:
        for X in (widths[:, :-1], np.column_stack([widths, widths[:, :1]])):
            with pytest.raises(InputError, match="columns"):
                fitted.predict(X)

    def test_nan_is_refused(self, dataset: FittableDataset, fitted: Predictor) -> None:
        X, y, _ = dataset.xyw(self.target)
        bad = X.astype(np.float64).copy()
        bad[0, 0] = np.nan
        with pytest.raises(InputError, match="NaN"):
            fitted.predict(bad)
        with pytest.raises(InputError, match="NaN"):
            self.make(dataset.spec).fit(bad, y)
        with pytest.raises(InputError, match="NaN"):
            self.make(dataset.spec).fit(X, np.where(np.arange(len(y)) == 0, np.nan, y))

    @pytest.mark.parametrize("cost", [0.0, -1.0, np.inf, np.nan, 1e300, 1e-300])
    def test_costs_that_nobody_measured_are_refused_with_their_row(
        self, dataset: FittableDataset, cost: float
    ) -> None:
        X, y, _ = dataset.xyw(self.target)
        with pytest.raises(InputError, match="row 3"):
            self.make(dataset.spec).fit(X, np.where(np.arange(len(y)) == 2, cost, y))

    @pytest.mark.parametrize("width", [0.0, -8.0, 7.5, np.nan, 1e12, 1e300])
    def test_widths_that_no_network_has_are_refused_with_their_row(
        self, dataset: FittableDataset, fitted: Predictor, widths: FloatArray, width: float
    ) -> None:
        odd = widths.copy()
        odd[1, 0] = width
        X, y, _ = dataset.xyw(self.target)
        training = X.astype(np.float64).copy()
        training[1, 0] = width
        for call in (
            lambda: fitted.predict(odd),
            lambda: fitted.predict_interval(odd),
            lambda: self.make(dataset.spec).fit(training, y),
        ):
            with pytest.raises(InputError, match="row 2"):
                call()

    def test_too_few_samples_are_refused(self, dataset: FittableDataset) -> None:
        X, y, _ = dataset.xyw(self.target)
        with pytest.raises(InputError, match=r"1 sample .* needs at least"):
            self.make(dataset.spec).fit(X[:1], y[:1])

    def test_outside_the_bounds_warns(self, fitted: Predictor, widths: FloatArray) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error", ExtrapolationWarning)
            fitted.predict(widths)
        with pytest.warns(ExtrapolationWarning, match=fitted.width_names_[0]):
            fitted.predict(widths + np.eye(1, widths.shape[1]) * 1e5)

    # -- state -----------------------------------------------------------------------------------

    def test_a_fit_knows_nothing_of_what_was_done_before(
        self, dataset: FittableDataset, fitted: Predictor, widths: FloatArray, tmp_path: Path
    ) -> None:
        X, y, _ = dataset.xyw(self.target)
        parameters = fitted.get_params()
        fitted.predict_held_out(dataset, self.target, np.arange(len(y)) % 2)
        fitted.predict_interval(widths)
        fitted.save(tmp_path / "predictor.safetensors")
        copied = clone(fitted)
        self.use(fitted)
        fitted.fit(X, y)
        fresh = self.make(dataset.spec).fit(X, y)
        assert difference(vars(fitted), vars(fresh)) is None
        assert (fitted.unit_, fitted.target_, fitted.device_id_) == ("", "cost", None)
        assert (fitted.noise_floor_, fitted.conditions_) == (None, {})
        assert fitted.describe() == fresh.describe()
        np.testing.assert_array_equal(fitted.predict(widths), fresh.predict(widths))
        for other in (fitted, copied, clone(fitted)):
            assert difference(other.get_params(), parameters) is None

    def test_trying_leaves_an_unfitted_predictor_unfitted(self, dataset: FittableDataset) -> None:
        _, y, _ = dataset.xyw(self.target)
        predictor = self.make()
        before = vars(predictor).copy()
        predictor.predict_held_out(dataset, self.target, np.arange(len(y)) % 2)
        assert difference(vars(predictor), before) is None
        with pytest.raises(InputError):
            predictor.fit_dataset(dataset, "no_such_cost_s")
        assert difference(vars(predictor), before) is None

    def test_a_failed_fit_leaves_the_former_one(
        self,
        dataset: FittableDataset,
        fitted: Predictor,
        widths: FloatArray,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        X, y, _ = dataset.xyw(self.target)
        before, expected = copy.deepcopy(vars(fitted)), fitted.predict(widths)
        for rows, costs in ((X[:1], y[:1]), (X, np.full(len(y), np.nan))):
            with pytest.raises(InputError):
                fitted.fit(rows, costs)
            assert difference(vars(fitted), before) is None
        with pytest.raises(InputError):
            fitted.fit_dataset(dataset, "no_such_cost_s")
        assert difference(vars(fitted), before) is None

        def fail(predictor: Predictor, *_: FloatArray) -> None:
            predictor.conditions_ = {"batch": 77}
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(type(fitted), "fit_arrays", fail)
            for call in (
                lambda: fitted.fit(X, y),
                lambda: fitted.fit_dataset(dataset, self.target),
                lambda: fitted.predict_held_out(dataset, self.target, np.arange(len(y)) % 2),
            ):
                with pytest.raises(KeyboardInterrupt):
                    call()
                assert difference(vars(fitted), before) is None
        np.testing.assert_array_equal(fitted.predict(widths), expected)

    def use(self, fitted: Predictor) -> None:
        """Call what else a fitted predictor offers; `PredictorContract` makes its modules."""

    # -- intervals -------------------------------------------------------------------------------

    def test_intervals_hold_the_prediction_and_grow_with_coverage(
        self, fitted: Predictor, widths: FloatArray
    ) -> None:
        prediction = fitted.predict(widths)
        narrow = fitted.predict_interval(widths, coverage=0.5)
        wide = fitted.predict_interval(widths, coverage=0.9)
        mean = fitted.predict_interval(widths, coverage=0.9, of="mean")
        for low, high in (narrow, wide, mean):
            assert low.shape == high.shape == prediction.shape
            assert np.all(low <= prediction)
            assert np.all(prediction <= high)
        assert np.all(wide[0] <= narrow[0])
        assert np.all(narrow[1] <= wide[1])
        assert np.all(wide[0] <= mean[0])
        assert np.all(mean[1] <= wide[1])
        upper = fitted.predict_upper(widths, coverage=0.9)
        assert np.all(prediction <= upper)
        assert np.all(fitted.predict_upper(widths, coverage=0.5) <= upper)
        assert np.all(upper <= fitted.predict_upper(widths, coverage=0.9, of="measurement"))
        spread = fitted.spread_arrays(widths)
        assert spread is None or (spread.shape == prediction.shape and np.all(spread > 0))
        with pytest.raises(InputError, match="coverage"):
            fitted.predict_interval(widths, coverage=1.0)

    # -- files -----------------------------------------------------------------------------------

    def test_file_gives_an_equal_predictor(
        self, fitted: Predictor, widths: FloatArray, tmp_path: Path
    ) -> None:
        path = tmp_path / "predictor.safetensors"
        fitted.save(path)
        loaded = load(path)
        assert type(loaded) is type(fitted)
        # Predictors that it holds have no equality; they are compared by what they predict.
        kept = fitted.get_params().keys() - set(fitted.part_names)
        for name in kept:
            assert loaded.get_params()[name] == fitted.get_params()[name]
        np.testing.assert_array_equal(loaded.predict(widths), fitted.predict(widths))
        np.testing.assert_array_equal(
            loaded.predict_interval(widths), fitted.predict_interval(widths)
        )
        for name in ("unit_", "target_", "noise_floor_", "conditions_", "device_id_"):
            assert getattr(loaded, name) == getattr(fitted, name)
        assert loaded.former_ids_ == fitted.former_ids_
        assert loaded.training_rows_ == fitted.training_rows_
        content = path.read_bytes()
        loaded.save(path)
        assert path.read_bytes() == content


class PredictorContract(EstimatorContract):
    """What every predictor with a torch module must do. Subclasses define `make`."""

    # How far the torch module may lie from predict at integer widths, relative.
    torch_tolerance = 1e-5

    def use(self, fitted: Predictor) -> None:
        """Make the torch modules."""
        fitted.to_torch()
        with warnings.catch_warnings():
            # How far it is off is not what is tested.
            warnings.simplefilter("ignore", SurrogateWarning)
            fitted.to_torch(smooth=True)

    def test_module_equals_predict_at_integer_widths(
        self, fitted: Predictor, widths: FloatArray
    ) -> None:
        module = fitted.to_torch()
        expected = fitted.predict(widths)
        for dtype in (torch.float64, torch.float32):
            cost = module(torch.tensor(widths, dtype=dtype))
            assert cost.dtype == dtype
            np.testing.assert_allclose(cost.numpy(), expected, rtol=self.torch_tolerance)
        reshaped = module(torch.tensor(widths.reshape(3, 3, -1)))
        np.testing.assert_allclose(reshaped.numpy().reshape(-1), expected, rtol=1e-9)
        assert module(torch.tensor(widths[0])).shape == ()
        for buffer in module.buffers():
            assert not buffer.is_floating_point() or buffer.dtype == torch.float64

    def test_module_says_what_it_predicts(self, fitted: Predictor) -> None:
        module = fitted.to_torch()
        assert module.spec == fitted.spec
        assert module.unit == fitted.unit_
        assert module.target == fitted.target_
        assert module.width_names == fitted.width_names_
        assert module.max_deviation == 0.0
        assert fitted.to_torch(smooth=True).max_deviation >= 0.0

    def test_module_refuses_a_wrong_last_dimension(self, fitted: Predictor) -> None:
        module, k = fitted.to_torch(), fitted.n_features_in_
        for shape in ((), (k + 1,), (4, k - 1), (k, 1)):
            with pytest.raises(InputError, match="last dimension"):
                module(torch.ones(shape))

    def test_gradients_match_finite_differences(
        self, fitted: Predictor, widths: FloatArray
    ) -> None:
        # Off the integers, where a piecewise cost has no kink.
        module = fitted.to_torch(smooth=True)
        scale = fitted.predict(widths).mean()
        x = torch.tensor(np.maximum(widths[1:4] - 0.37, 1.11), requires_grad=True)
        assert torch.autograd.gradcheck(lambda value: module(value) / scale, x, eps=1e-3, atol=1e-6)

    def test_module_works_under_vmap(self, fitted: Predictor, widths: FloatArray) -> None:
        module = fitted.to_torch()
        x = torch.tensor(widths)
        torch.testing.assert_close(torch.func.vmap(module)(x), module(x))
        gradients = torch.func.vmap(torch.func.grad(module))(x)
        assert gradients.shape == x.shape

    def test_module_works_under_export(self, fitted: Predictor, widths: FloatArray) -> None:
        module = fitted.to_torch()
        rows = torch.export.Dim("n", min=0)
        x = torch.tensor(widths, dtype=torch.float32)
        program = torch.export.export(module, (x,), dynamic_shapes={"widths": {0: rows}})
        restored = io.BytesIO()
        torch.export.save(program, restored)
        restored.seek(0)
        exported = torch.export.load(restored).module()
        for count in (1, 5):
            torch.testing.assert_close(exported(x[:count]), module(x[:count]))

    def test_module_works_under_compile(self, fitted: Predictor, widths: FloatArray) -> None:
        module = fitted.to_torch()
        torch.compiler.reset()  # its limit of compilations is over all modules
        # Whether it is one graph; what a backend makes of the graph is the backend's matter.
        compiled = torch.compile(module, backend="eager", fullgraph=True)
        x = torch.tensor(widths, requires_grad=True)
        (expected,) = torch.autograd.grad(module(x).sum(), x)
        (gradient,) = torch.autograd.grad(compiled(x).sum(), x)
        torch.testing.assert_close(gradient, expected)
        torch.testing.assert_close(compiled(x), module(x))

    def test_module_refuses_other_conditions(self, fitted: Predictor) -> None:
        for name, value in (("batch", 7), ("precision", "int4")):
            if name in fitted.conditions_:
                conditions: dict[str, Any] = {name: value}
                with pytest.raises(InputError, match=f"fitted at {name}"):
                    fitted.to_torch(**conditions)

    def test_upper_bound_is_above_the_mean(self, fitted: Predictor, widths: FloatArray) -> None:
        module = fitted.to_torch()
        x = torch.tensor(widths)
        assert torch.all(module.upper(x, 0.9) >= module(x))
        assert torch.all(module.upper(x, 0.95) >= module.upper(x, 0.6))
        for coverage in (0.6, 0.95):
            np.testing.assert_allclose(
                module.upper(x, coverage).detach().numpy(),
                fitted.predict_upper(widths, coverage),
                rtol=max(self.torch_tolerance, 1e-9),
            )
        with pytest.raises(InputError, match="coverage"):
            module.upper(x, 0.0)

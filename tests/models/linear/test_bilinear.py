from typing import Any

import numpy as np
import pytest
import torch

from joulemap import InputError
from joulemap.datasets import LayerSpec, NetworkSpec, Width
from joulemap.models import BilinearPredictor
from joulemap.models.base.predictor import Predictor
from joulemap.models.testing import ArrayDataset, PredictorContract, draw_widths


class TestNonnegative(PredictorContract):
    def make(self, spec: NetworkSpec | None = None) -> Predictor:
        return BilinearPredictor(spec)


class TestRidge(PredictorContract):
    def make(self, spec: NetworkSpec | None = None) -> Predictor:
        return BilinearPredictor(spec, method="ridge", ridge=1e-4, loss="relative")


class TestOnAnotherNetwork(PredictorContract):
    """A network with widths in steps, whose last layer has no width of its own."""

    def make(self, spec: NetworkSpec | None = None) -> Predictor:
        return BilinearPredictor(spec)

    @pytest.fixture
    def dataset(self, mixed: NetworkSpec) -> ArrayDataset:
        widths = draw_widths(mixed, 40)
        macs = [mixed.at([int(x) for x in row]).macs for row in widths]
        cost = 1e-3 + 1e-9 * np.array(macs, dtype=np.float64)
        return ArrayDataset(mixed, widths, {"latency_s": cost})


class TestReleasedModel:
    """ECC's AlexNet on a Jetson TX2: coefficients, predictions and gradients."""

    @pytest.fixture
    def predictor(self, alexnet: NetworkSpec, ecc: dict[str, Any]) -> BilinearPredictor:
        return BilinearPredictor.from_coefficients(
            alexnet, ecc["coefficients_a1_to_a8"], ecc["a0_bias"]
        )

    def test_predictions(self, predictor: BilinearPredictor, ecc: dict[str, Any]) -> None:
        widths = [row["widths_full_vector"][1:-1] for row in ecc["predictions"]]
        expected = [row["energy_float64"] for row in ecc["predictions"]]
        np.testing.assert_allclose(predictor.predict(widths), expected, rtol=1e-12)
        module = predictor.to_torch()
        cost = module(torch.tensor(widths, dtype=torch.float32))
        np.testing.assert_allclose(cost.numpy(), expected, rtol=1e-6)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_gradients(
        self, predictor: BilinearPredictor, ecc: dict[str, Any], dtype: torch.dtype
    ) -> None:
        widths = torch.tensor(
            [row["widths_full_vector"][1:-1] for row in ecc["predictions"]],
            dtype=dtype,
            requires_grad=True,
        )
        predictor.to_torch()(widths).sum().backward()
        assert widths.grad is not None
        expected = [row["d_energy_d_width_prunable"] for row in ecc["predictions"]]
        np.testing.assert_allclose(widths.grad.numpy(), expected, rtol=1e-6)

    def test_says_what_it_is(self, predictor: BilinearPredictor) -> None:
        assert (predictor.unit_, predictor.target_) == ("J", "energy_j")
        assert predictor.coef_.shape == (8,)
        assert predictor.n_features_in_ == 7
        with pytest.raises(InputError, match="not fitted on data"):
            predictor.predict_interval(np.ones((1, 7)))
        with pytest.raises(InputError, match="not fitted on data"):
            predictor.to_torch().upper(torch.ones(7))

    def test_wrong_coefficients_are_refused(self, alexnet: NetworkSpec) -> None:
        with pytest.raises(InputError, match="coef_ has shape"):
            BilinearPredictor.from_coefficients(alexnet, np.ones(9), 0.0)
        with pytest.raises(InputError, match="NaN"):
            BilinearPredictor.from_coefficients(alexnet, np.full(8, np.nan), 0.0)
        with pytest.raises(InputError, match="numbers"):
            BilinearPredictor.from_coefficients(alexnet, ["a"], 0.0)

    def test_negative_coefficients_make_it_a_ridge_model(self, alexnet: NetworkSpec) -> None:
        predictor = BilinearPredictor.from_coefficients(alexnet, -np.ones(8), 9.0)
        assert predictor.method == "ridge"

    @pytest.mark.parametrize("method", ["nonnegative", "ridge"])
    @pytest.mark.parametrize("loss", ["absolute", "relative"])
    def test_fit_recovers_the_coefficients(
        self,
        predictor: BilinearPredictor,
        alexnet: NetworkSpec,
        ecc: dict[str, Any],
        method: Any,
        loss: Any,
    ) -> None:
        X = draw_widths(alexnet, 60)
        fitted = BilinearPredictor(alexnet, method=method, loss=loss, ridge=0.0)
        fitted.fit(X, predictor.predict(X))
        np.testing.assert_allclose(fitted.coef_, ecc["coefficients_a1_to_a8"], rtol=1e-6)
        assert fitted.intercept_ == pytest.approx(ecc["a0_bias"], rel=1e-6)


def test_each_prediction_is_the_plain_formula(alexnet: NetworkSpec) -> None:
    coefficients = np.arange(1.0, 9.0)
    predictor = BilinearPredictor.from_coefficients(alexnet, coefficients, 0.5)
    for row in draw_widths(alexnet, 5):
        full = [1.0, *(row / np.array(alexnet.max_widths)), 1.0]
        expected = 0.5 + sum(
            a * left * right for a, left, right in zip(coefficients, full, full[1:], strict=False)
        )
        assert predictor.predict([row])[0] == pytest.approx(expected, rel=1e-12)


def test_without_a_spec_the_columns_are_hidden_widths() -> None:
    rng = np.random.default_rng(0)
    X = rng.integers(1, 50, (60, 3)).astype(np.float64)
    y = 2 + X[:, 0] + 3 * X[:, 0] * X[:, 1] + 4 * X[:, 1] * X[:, 2] + 5 * X[:, 2]
    predictor = BilinearPredictor().fit(X, y)
    np.testing.assert_allclose(predictor.predict(X), y, rtol=1e-9)
    cost = predictor.to_torch()(torch.tensor(X))
    np.testing.assert_allclose(cost.numpy(), y, rtol=1e-9)


def test_a_last_layer_with_a_width_leaves_no_fixed_end() -> None:
    layers = (LayerSpec("first", "conv", 3, "a"), LayerSpec("second", "conv", "a", "b"))
    spec = NetworkSpec("encoder", "zoo:encoder", (3, 8, 8), (Width("a", 8), Width("b", 8)), layers)
    predictor = BilinearPredictor.from_coefficients(spec, [1.0, 2.0], 0.0)
    assert predictor.predict([[4, 8]])[0] == pytest.approx(0.5 + 1.0)


def test_nonnegative_coefficients_and_costs_that_fall() -> None:
    X = np.arange(1.0, 21.0).reshape(-1, 1)
    predictor = BilinearPredictor().fit(X, 100 - X[:, 0])
    assert predictor.intercept_ >= 0
    assert np.all(predictor.coef_ >= 0)
    falling = BilinearPredictor(method="ridge").fit(X, 100 - X[:, 0])
    np.testing.assert_allclose(falling.predict(X), 100 - X[:, 0], rtol=1e-3)


@pytest.mark.parametrize("method", ["nonnegative", "ridge"])
def test_fit_does_not_depend_on_the_unit(dataset: ArrayDataset, method: Any) -> None:
    X, y, _ = dataset.xyw("energy_j")
    joule = BilinearPredictor(dataset.spec, method=method).fit(X, y)
    nano = BilinearPredictor(dataset.spec, method=method).fit(X, y * 1e-9)
    np.testing.assert_allclose(nano.predict(X), joule.predict(X) * 1e-9, rtol=1e-9)


@pytest.mark.parametrize("method", ["nonnegative", "ridge"])
@pytest.mark.parametrize("loss", ["absolute", "relative"])
def test_a_weight_of_two_is_the_row_twice(dataset: ArrayDataset, method: Any, loss: Any) -> None:
    X, y, _ = dataset.xyw("energy_j")
    X, y = X[:60], y[:60]
    counts = np.arange(60) % 3
    weighted = BilinearPredictor(dataset.spec, method=method, loss=loss)
    weighted.fit(X, y, sample_weight=counts)
    repeated = BilinearPredictor(dataset.spec, method=method, loss=loss)
    repeated.fit(np.repeat(X, counts, axis=0), np.repeat(y, counts))
    np.testing.assert_allclose(weighted.predict(X), repeated.predict(X), rtol=1e-8)
    for coverage in (0.5, 0.9):
        np.testing.assert_allclose(
            weighted.predict_interval(X, coverage),
            repeated.predict_interval(X, coverage),
            rtol=1e-7,
        )


def test_a_large_ridge_gives_the_mean(dataset: ArrayDataset) -> None:
    X, y, _ = dataset.xyw("energy_j")
    predictor = BilinearPredictor(dataset.spec, method="ridge", ridge=1e9).fit(X, y)
    np.testing.assert_allclose(predictor.predict(X), y.mean(), rtol=1e-6)


@pytest.mark.parametrize(
    "parameters",
    [{"method": "lasso"}, {"loss": "huber"}, {"ridge": -1.0}, {"ridge": "1"}, {"ridge": np.inf}],
)
def test_wrong_hyperparameters_are_refused(
    dataset: ArrayDataset, parameters: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match=next(iter(parameters))):
        BilinearPredictor(**parameters).fit_dataset(dataset)


def test_relative_loss_needs_positive_costs(dataset: ArrayDataset) -> None:
    X, y, _ = dataset.xyw("energy_j")
    with pytest.raises(InputError, match="positive"):
        BilinearPredictor(dataset.spec, loss="relative").fit(X, y - y.max())


def test_too_few_variants_for_the_coefficients(dataset: ArrayDataset) -> None:
    X, y, _ = dataset.xyw("energy_j")
    with pytest.raises(InputError, match=r"4 samples .* at least 5"):
        BilinearPredictor(dataset.spec).fit(X[:4], y[:4])
    BilinearPredictor(dataset.spec).fit(X[:5], y[:5])

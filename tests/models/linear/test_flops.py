import numpy as np
import pytest
import torch

from joulemap.datasets import NetworkSpec
from joulemap.models import FlopsPredictor, ParametersPredictor
from joulemap.models.base.predictor import Predictor
from joulemap.models.testing import ArrayDataset, PredictorContract, draw_widths


class TestFlops(PredictorContract):
    def make(self, spec: NetworkSpec | None = None) -> Predictor:
        return FlopsPredictor(spec)


class TestFlopsOnAnotherNetwork(PredictorContract):
    """Depthwise and grouped layers, and monomials of the fourth degree."""

    def make(self, spec: NetworkSpec | None = None) -> Predictor:
        return FlopsPredictor(spec, loss="relative")

    @pytest.fixture
    def dataset(self, mixed: NetworkSpec) -> ArrayDataset:
        widths = draw_widths(mixed, 40)
        macs = [mixed.at([int(x) for x in row]).macs for row in widths]
        cost = 1e-3 + 1e-9 * np.array(macs, dtype=np.float64)
        return ArrayDataset(mixed, widths, {"latency_s": cost})


class TestParameters(PredictorContract):
    def make(self, spec: NetworkSpec | None = None) -> Predictor:
        return ParametersPredictor(spec)


@pytest.mark.parametrize(
    ("cls", "quantity"), [(FlopsPredictor, "macs"), (ParametersPredictor, "params")]
)
def test_the_quantity_is_that_of_the_spec(
    mixed: NetworkSpec, cls: type[FlopsPredictor], quantity: str
) -> None:
    X = draw_widths(mixed, 30)
    exact = np.array(
        [getattr(mixed.at([int(x) for x in row]), quantity) for row in X], dtype=np.float64
    )
    predictor = cls(mixed).fit(X, 2e-3 + 3e-9 * exact)
    assert predictor.intercept_ == pytest.approx(2e-3)
    np.testing.assert_allclose(predictor.coef_, [3e-9], rtol=1e-9)
    np.testing.assert_allclose(predictor.predict(X), 2e-3 + 3e-9 * exact, rtol=1e-9)


def test_both_coefficients_stay_nonnegative(alexnet: NetworkSpec) -> None:
    X = draw_widths(alexnet, 20)
    predictor = FlopsPredictor(alexnet).fit(X, 10.0 - X[:, 5] / 4096)
    assert predictor.coef_[0] == 0.0
    assert predictor.intercept_ > 0


def test_without_a_spec_a_chain_of_dense_layers() -> None:
    X = np.random.default_rng(0).integers(1, 30, (20, 3)).astype(np.float64)
    macs = X[:, 0] + X[:, 0] * X[:, 1] + X[:, 1] * X[:, 2] + X[:, 2]
    flops = FlopsPredictor().fit(X, 5 + 2 * macs)
    np.testing.assert_allclose(flops.predict(X), 5 + 2 * macs)
    params = macs + X.sum(axis=1) + 1
    parameters = ParametersPredictor().fit(X, 5 + 2 * params)
    np.testing.assert_allclose(parameters.predict(X), 5 + 2 * params)
    np.testing.assert_allclose(parameters.to_torch()(torch.tensor(X)).numpy(), 5 + 2 * params)

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from joulemap import InputError
from joulemap.datasets import LayerSpec, NetworkSpec, Width
from joulemap.models import AlignedBilinearPredictor, NeuralPredictor, Predictor, load
from joulemap.models.base.training import Training
from joulemap.models.learned.neural_features import LayerShares
from joulemap.models.learned.trend import Trend, TrendForm
from joulemap.models.testing import PredictorContract, draw_widths


class TestEnsemble(PredictorContract):
    def make(self, spec: NetworkSpec | None = None) -> Predictor:
        return NeuralPredictor(spec, members=2, epochs=30)


class TestEcc(PredictorContract):
    def make(self, spec: NetworkSpec | None = None) -> Predictor:
        return NeuralPredictor(spec, architecture="ecc", epochs=200)


@pytest.fixture(scope="module")
def two_layers() -> NetworkSpec:
    layers = (
        LayerSpec("a", "conv", 3, "a", kernel_size=3, in_size=8, out_size=8, padding=1),
        LayerSpec("b", "conv", "a", "b", kernel_size=3, in_size=8, out_size=8, padding=1),
    )
    return NetworkSpec("two", "zoo:two", (3, 8, 8), (Width("a", 64), Width("b", 64)), layers)


def bent(X: np.ndarray) -> np.ndarray:
    """A cost that the aligned model knows but for a bump in one width."""
    a, b = X.T
    return np.asarray((1e-4 + 1e-7 * a * b) * (1 + 0.3 * np.exp(-(((a - 40) / 10) ** 2))))


def straight(X: np.ndarray) -> np.ndarray:
    return np.asarray(1e-4 + 1e-7 * X[:, 0] * X[:, 1])


def noisy(y: np.ndarray, share: float = 0.01) -> np.ndarray:
    return np.asarray(y * np.exp(share * np.random.default_rng(0).standard_normal(len(y))))


def fitted(predictor: Predictor, X: np.ndarray, y: np.ndarray) -> Predictor:
    """Fit without the refits that only intervals need."""
    names = predictor.spec.width_names if predictor.spec else ("x0", "x1")
    predictor.bind(names, unit="", target="cost")
    predictor.width_ranges_ = np.stack([X.min(axis=0), X.max(axis=0)])
    predictor.fit_arrays(Training(X, y, np.ones(len(y))))
    return predictor


def error(predictor: Predictor, X: np.ndarray, y: np.ndarray) -> float:
    return float(np.mean(np.abs(predictor.predict(X) / y - 1)))


def test_what_the_trend_leaves_is_learned(two_layers: NetworkSpec) -> None:
    X, new = draw_widths(two_layers, 150), draw_widths(two_layers, 200, 1)
    y = noisy(bent(X))
    neural = fitted(NeuralPredictor(two_layers, epochs=300), X, y)
    assert error(fitted(AlignedBilinearPredictor(two_layers), X, y), new, bent(new)) > 0.03
    assert error(neural, new, bent(new)) < 0.015


def test_where_nothing_is_left_it_stays_at_the_trend(two_layers: NetworkSpec) -> None:
    X, new = draw_widths(two_layers, 40), draw_widths(two_layers, 200, 1)
    y = noisy(straight(X), 0.05)
    neural = fitted(NeuralPredictor(two_layers, epochs=200), X, y)
    trend = fitted(AlignedBilinearPredictor(two_layers), X, y)
    assert error(neural, new, straight(new)) < error(trend, new, straight(new)) + 0.01


def test_a_table_without_a_network() -> None:
    """A layer whose kernel works in blocks of 64 outputs."""
    rng = np.random.default_rng(0)
    X, new = (8.0 * rng.integers(1, 33, (count, 2)) for count in (250, 200))

    def cost(X: np.ndarray) -> np.ndarray:
        return np.asarray(2e-5 + 3e-9 * X[:, 0] * np.ceil(X[:, 1] / 64) * 64)

    predictor = fitted(NeuralPredictor(epochs=400), X, cost(X))
    assert error(predictor, new, cost(new)) < 0.03


def test_absurd_labels_do_not_move_it(two_layers: NetworkSpec) -> None:
    X, new = draw_widths(two_layers, 100), draw_widths(two_layers, 200, 1)
    y = noisy(straight(X))
    y[::20] *= 30
    neural = fitted(NeuralPredictor(two_layers, epochs=100), X, y)
    assert error(neural, new, straight(new)) < 0.03


def test_seed_decides_and_order_of_rows_does_not(two_layers: NetworkSpec) -> None:
    X = draw_widths(two_layers, 40)
    y = noisy(bent(X))

    def predicted(order: np.ndarray, seed: int) -> np.ndarray:
        predictor = NeuralPredictor(two_layers, members=2, epochs=30, seed=seed)
        return fitted(predictor, X[order], y[order]).predict(X)

    order = np.arange(40)
    np.testing.assert_array_equal(predicted(order, 0), predicted(order, 0))
    np.testing.assert_allclose(predicted(order[::-1], 0), predicted(order, 0), rtol=1e-4)
    assert np.abs(predicted(order, 1) / predicted(order, 0) - 1).max() > 1e-4


def test_ecc_is_its_formula(two_layers: NetworkSpec) -> None:
    X = draw_widths(two_layers, 30)
    ecc = NeuralPredictor(two_layers, architecture="ecc", epochs=50)
    fitted(ecc, X, bent(X))
    matrix, bias = ecc.hidden_weight_[0], ecc.hidden_bias_[0]
    assert matrix.shape == (2, 64)
    center, scale = ecc.outcome_[:2]
    for widths, predicted in zip(X[:5], ecc.predict(X[:5]), strict=True):
        a, b = widths / 64
        features = (np.array([a, a * b]) - ecc.scaling_[0]) / ecc.scaling_[1]
        hidden = features @ matrix + bias
        selu = 1.0507009873554805 * np.where(
            hidden > 0, hidden, 1.6732632423543772 * (np.exp(hidden) - 1)
        )
        output = float(selu @ ecc.output_weight_[0] + ecc.output_bias_[0])
        assert predicted == pytest.approx(center + scale * output, rel=1e-9)


def test_ecc_learns(two_layers: NetworkSpec) -> None:
    X, new = draw_widths(two_layers, 150), draw_widths(two_layers, 200, 1)
    ecc = fitted(NeuralPredictor(two_layers, architecture="ecc"), X, noisy(straight(X)))
    assert error(ecc, new, straight(new)) < 0.02


def test_shares_are_those_of_the_aligned_model(mixed: NetworkSpec) -> None:
    X = draw_widths(mixed, 60)
    aligned = AlignedBilinearPredictor(mixed, divisor=4, block=4, complexity="memory")
    y = 1e-4 + 1e-6 * X.sum(axis=1) * np.where(X[:, 1] % 4 == 0, 1.0, 2.0)
    fitted(aligned, X, y)
    form = TrendForm("aligned", aligned.structure_)
    shares = LayerShares(Trend(mixed, mixed.width_names, form, aligned.coef_))
    found = shares(torch.tensor(X))
    torch.testing.assert_close(found.sum(-1), torch.ones(60, dtype=torch.float64))
    sums = sorted(aligned.layer_costs(X[7]).values())
    by_layer: dict[str, float] = {}
    for (layer, _), share in zip(shares.groups, found[7].tolist(), strict=True):
        by_layer[layer] = by_layer.get(layer, 0.0) + share
    costs = np.array(sorted(by_layer.values())) * aligned.predict(X[7:8])
    np.testing.assert_allclose(costs, sums, rtol=1e-9)


def test_spread_is_larger_where_nothing_was_measured(two_layers: NetworkSpec) -> None:
    X = draw_widths(two_layers, 150)
    inside, outside = X[X[:, 0] <= 32], X[X[:, 0] >= 56]
    predictor = NeuralPredictor(two_layers, epochs=200)
    fitted(predictor, inside, noisy(bent(inside)))
    near, far = predictor.spread_arrays(inside), predictor.spread_arrays(outside)
    assert near.min() > 0
    assert np.median(far) > 1.2 * np.median(near)
    module = predictor.exact_module()
    found = module.spread(torch.tensor(X))
    assert found is not None
    np.testing.assert_allclose(found.numpy(), predictor.spread_arrays(X))


def test_the_smooth_module_has_no_jumps(two_layers: NetworkSpec) -> None:
    X = draw_widths(two_layers, 150)
    y = straight(X) * np.where(X[:, 0] % 8 == 0, 1.0, 2.0)
    predictor = fitted(NeuralPredictor(two_layers, epochs=100), X, y)
    smooth, exact = predictor.to_torch(smooth=True), predictor.to_torch()
    assert smooth.max_deviation > 0.3
    line = torch.stack([torch.linspace(16, 60, 401), torch.full((401,), 40.0)], -1).double()
    for module, largest in ((smooth, 0.05), (exact, np.inf)):
        steps = module(line).log().diff().abs().max()
        assert steps < largest
    assert exact(line).log().diff().abs().max() > 0.05
    aligned = torch.tensor([[32.0, 40.0], [48.0, 24.0]]).double()
    torch.testing.assert_close(smooth(aligned), exact(aligned), rtol=0.1, atol=0.0)


def test_costs_that_are_not_positive() -> None:
    X = np.random.default_rng(0).uniform(1, 9, (80, 2))
    y = X[:, 0] - X[:, 1]
    predictor = fitted(NeuralPredictor(epochs=200), X, y)
    assert np.mean(np.abs(predictor.predict(X) - y)) < 0.2


@pytest.mark.parametrize(
    "wrong",
    [{"architecture": "mlp"}, {"members": 0}, {"members": True}, {"epochs": 1.5}, {"seed": -1}],
)
def test_wrong_parameters_are_refused(two_layers: NetworkSpec, wrong: dict[str, Any]) -> None:
    X = draw_widths(two_layers, 10)
    with pytest.raises(InputError, match=next(iter(wrong))):
        NeuralPredictor(two_layers, **wrong).fit(X, bent(X))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: setattr(p, "hidden_weight_", p.hidden_weight_[:, 1:]), "hidden_weight_ has"),
        (lambda p: setattr(p, "output_bias_", np.zeros(3)), "output_bias_ has"),
        (lambda p: setattr(p, "scaling_", p.scaling_ * 0), "scales that are not positive"),
        (lambda p: setattr(p, "knots_", -p.knots_), "ascending knots"),
        (
            lambda p: setattr(p, "columns_", replace(p.columns_, kept=p.columns_.kept + 9)),
            "columns_ does not describe",
        ),
        (lambda p: setattr(p, "trend_form_", TrendForm("seven")), "trend.kind is seven"),
    ],
)
def test_a_file_that_does_not_fit_together_is_refused(
    two_layers: NetworkSpec,
    tmp_path: Path,
    change: Callable[[NeuralPredictor], None],
    message: str,
) -> None:
    X = draw_widths(two_layers, 12)
    predictor = NeuralPredictor(two_layers, members=1, epochs=1)
    fitted(predictor, X, bent(X))
    change(predictor)
    predictor.save(tmp_path / "neural.safetensors")
    with pytest.raises(InputError, match=message):
        load(tmp_path / "neural.safetensors")

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from joulemap import InputError
from joulemap.datasets import LayerSpec, NetworkSpec, Width, public
from joulemap.models import AlignedBilinearPredictor, GaussianProcessPredictor, Predictor, load
from joulemap.models.base.kernel import Columns, GaussianKernel
from joulemap.models.base.training import Training
from joulemap.models.learned.trend import TrendForm
from joulemap.models.testing import ArrayDataset, PredictorContract, draw_widths


class TestGaussianProcess(PredictorContract):
    def make(self, spec: NetworkSpec | None = None) -> Predictor:
        return GaussianProcessPredictor(spec, learning_rows=30)


def grid_cost(X: np.ndarray) -> np.ndarray:
    """A layer whose kernel works in blocks of 64 outputs and changes at 96 inputs."""
    inputs, outputs = X.T
    blocks = np.ceil(outputs / 64) * 64
    slower = np.where(inputs > 96, 1.3, 1.0)
    return np.asarray(2e-5 + 3e-9 * inputs * blocks * slower + 1e-7 * outputs)


def grid(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return 8.0 * rng.integers(1, 33, (count, 2))


def error(predictor: Predictor, X: np.ndarray, y: np.ndarray) -> float:
    return float(np.mean(np.abs(predictor.predict(X) / y - 1)))


def test_steps_of_a_layer_are_found() -> None:
    X, new = grid(300), grid(200, 1)
    predictor = GaussianProcessPredictor().fit(X, grid_cost(X))
    assert error(predictor, new, grid_cost(new)) < 0.01
    # Differences over 32 channels, which an optimiser lives on.
    new = new[new[:, 1] <= 224]
    further = new + np.array([0, 32])
    rise = grid_cost(further) - grid_cost(new)
    found = predictor.predict(further) - predictor.predict(new)
    assert np.abs(found - rise).sum() / np.abs(rise).sum() < 0.1


def test_choices_and_sizes_together() -> None:
    rng = np.random.default_rng(0)
    size, choice, constant = rng.integers(1, 200, 120), rng.integers(0, 2, 120), np.ones(120)
    X = np.column_stack([size, choice, constant]).astype(np.float64)
    y = (1e-3 + 1e-5 * size) * (1 + 2 * choice)
    predictor = GaussianProcessPredictor().fit(X[:90], y[:90])
    assert error(predictor, X[90:], y[90:]) < 0.01


def test_what_the_aligned_model_leaves_is_learned() -> None:
    layers = [
        LayerSpec("a", "conv", 3, "a", kernel_size=3, in_size=8, out_size=8, padding=1),
        LayerSpec("b", "conv", "a", "b", kernel_size=3, in_size=8, out_size=8, padding=1),
    ]
    spec = NetworkSpec("two", "zoo:two", (3, 8, 8), (Width("a", 64), Width("b", 64)), tuple(layers))
    rng = np.random.default_rng(0)

    def cost(X: np.ndarray) -> np.ndarray:
        a, b = X.T
        bend = 1 + 0.3 * np.exp(-(((a - 40) / 10) ** 2))
        return np.asarray((1e-4 + 1e-7 * a * b) * bend)

    X, new = draw_widths(spec, 150), draw_widths(spec, 100, 1)
    y = cost(X) * np.exp(0.01 * rng.standard_normal(len(X)))
    aligned = AlignedBilinearPredictor(spec).fit(X, y)
    process = GaussianProcessPredictor(spec).fit(X, y)
    assert error(aligned, new, cost(new)) > 0.03
    assert error(process, new, cost(new)) < 0.012
    low, high = process.predict_interval(new, 0.9, of="measurement")
    measured = cost(new) * np.exp(0.01 * rng.standard_normal(len(new)))
    assert 0.8 < np.mean((low <= measured) & (measured <= high)) <= 1.0


def test_the_smooth_module_lies_between_steps() -> None:
    X = grid(200)
    predictor = GaussianProcessPredictor().fit(X, grid_cost(X))
    module = predictor.to_torch(smooth=True)
    assert 0 < module.max_deviation < 0.3
    x = torch.tensor(X[:50] + 0.5, requires_grad=True)
    module(x).sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    assert (x.grad[:, 0] > 0).double().mean() > 0.9


def test_ten_rows_and_nine_columns_do_not_overfit() -> None:
    """A new device from few measurements: columns are latencies of other devices."""
    rng = np.random.default_rng(0)
    latent = np.exp(rng.normal(0, 0.5, 2000))
    X = latent[:, None] * np.exp(rng.normal(0, 0.1, (2000, 9)))
    y = latent**0.9 * np.exp(rng.normal(0, 0.05, 2000))
    predictor = GaussianProcessPredictor().fit(X[:10], y[:10])
    ranks = [np.argsort(np.argsort(values)) for values in (predictor.predict(X[10:]), y[10:])]
    assert np.corrcoef(ranks[0], ranks[1])[0, 1] > 0.95


def test_repeated_rows_count_as_weights() -> None:
    X, y = grid(60), grid_cost(grid(60)) * np.exp(np.random.default_rng(1).normal(0, 0.05, 60))
    twice = GaussianProcessPredictor().fit(np.vstack([X, X[:20]]), np.concatenate([y, y[:20]]))
    weighted = GaussianProcessPredictor().fit(X, y, np.where(np.arange(60) < 20, 2.0, 1.0))
    new = grid(30, 5)
    np.testing.assert_allclose(twice.predict(new), weighted.predict(new), rtol=1e-3)


def test_covariance_is_positive_definite_and_scales_away() -> None:
    X = np.column_stack([grid(40), np.arange(40) % 2, np.full(40, 3.0)])
    kernel = GaussianKernel(Columns.of(X))
    at = kernel.coordinates(torch.tensor(X))
    eigenvalues = torch.linalg.eigvalsh(kernel.covariance(at, at))
    assert eigenvalues.min() > -1e-9
    other = GaussianKernel(Columns.of(X * [1, 1, 7, 1]))
    moved = other.coordinates(torch.tensor(X * [1, 1, 7, 1]))
    torch.testing.assert_close(other.covariance(moved, moved), kernel.covariance(at, at))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: setattr(p, "theta_", p.theta_[:-1]), "theta_ has shape"),
        (lambda p: setattr(p, "points_", p.points_[:-1]), "points_ has shape"),
        (
            lambda p: setattr(p, "columns_", replace(p.columns_, scale=p.columns_.scale * 0)),
            "columns_ does not describe",
        ),
        (lambda p: setattr(p, "mean_form_", TrendForm("seven")), "mean.kind is seven, not one of"),
        (lambda p: setattr(p, "mean_form_", TrendForm("aligned")), "does not fit its kind"),
        (lambda p: setattr(p, "mean_coef_", np.ones(9)), "trend has coefficients"),
    ],
)
def test_a_file_that_does_not_fit_together_is_refused(
    tmp_path: Path, change: Callable[[GaussianProcessPredictor], None], message: str
) -> None:
    X = grid(30)
    predictor = GaussianProcessPredictor().fit(X, grid_cost(X))
    change(predictor)
    predictor.save(tmp_path / "gp.safetensors")
    with pytest.raises(InputError, match=message):
        load(tmp_path / "gp.safetensors")


def test_datasets_with_weights(blocks_spec: NetworkSpec) -> None:
    X = draw_widths(blocks_spec, 40)
    y = 1e-3 + 1e-6 * X.prod(axis=1)
    ds = ArrayDataset(blocks_spec, X, {"latency_s": y}, weights=1 / (0.02 * y) ** 2)
    predictor = GaussianProcessPredictor().fit_dataset(ds)
    assert error(predictor, X, y) < 0.02


@pytest.fixture
def blocks_spec() -> NetworkSpec:
    layers = (LayerSpec("a", "linear", 8, "a"), LayerSpec("b", "linear", "a", "b"))
    return NetworkSpec("n", "zoo:n", (8,), (Width("a", 40), Width("b", 40)), layers)


def test_roughness_is_not_taken_for_noise() -> None:
    # A staircase over both channel counts: the likelihood has a second maximum that calls it noise.
    table = public.load("netadapt")["alexnet.classifier.4"]
    X, y, weights = table.xyw("latency_s")
    order = np.random.default_rng(0).permutation(len(y))
    train, test = order[:800], order[800:1200]
    predictor = GaussianProcessPredictor(learning_rows=200)
    predictor.bind(table.width_names, unit="s", target="latency_s")
    predictor.fit_arrays(Training(X[train], y[train], predictor.weights_of(y, weights)[train]))
    assert np.mean(np.abs(predictor.predict_arrays(X[test]) / y[test] - 1)) < 0.03

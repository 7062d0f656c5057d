"""What the aligned model advises to round to, on devices whose right advice is known."""

from pathlib import Path

import numpy as np
import pytest
import torch

from joulemap.datasets import LayerSpec, NetworkSpec, Width
from joulemap.models import (
    AlignedBilinearPredictor,
    SurrogateWarning,
    SystolicArrayModel,
    load,
)
from joulemap.models.aligned.advice import round_up
from joulemap.models.aligned.paired_choice import PairedErrors
from joulemap.models.base.intervals import FloatArray
from joulemap.models.base.surrogate import warn_far_off
from joulemap.models.base.training import Training
from joulemap.models.testing import draw_widths
from joulemap.profiler import networks


@pytest.fixture(scope="module")
def chain() -> NetworkSpec:
    layers = (
        LayerSpec("stem", "conv", 3, "a", kernel_size=3, in_size=8, out_size=8),
        LayerSpec("one", "conv", "a", "b", in_size=8, out_size=8),
        LayerSpec("two", "conv", "b", "c", in_size=8, out_size=8),
        LayerSpec("classes", "linear", "c", 10),
    )
    widths = (Width("a", 96), Width("b", 128), Width("c", 128))
    return NetworkSpec("chain", "zoo:chain3", (3, 8, 8), widths, layers)


def fitted(spec: NetworkSpec, X: FloatArray, y: FloatArray) -> AlignedBilinearPredictor:
    """Without the refits that intervals need: advice comes from the folds of the choice."""
    noise = np.exp(0.02 * np.random.default_rng(1).standard_normal(len(y)))
    predictor = AlignedBilinearPredictor(spec)
    predictor.bind(spec.width_names, unit="s", target="latency_s")
    predictor.width_ranges_ = np.stack([X.min(axis=0), X.max(axis=0)])
    predictor.fit_arrays(Training(X, y * noise, np.ones(len(y))))
    return predictor


def blocks_of(values: FloatArray, step: int) -> FloatArray:
    return np.asarray(np.ceil(values / step) * step)


@pytest.mark.parametrize(("network", "hardware"), [("lenet5", "eyeriss"), ("lenet5", "tpu")])
@pytest.mark.parametrize("quantity", ["energy", "latency"])
def test_no_rounding_that_costs_is_advised_on_accelerators_without_regimes(
    network: str, hardware: str, quantity: str
) -> None:
    spec = networks.get(network)
    array = SystolicArrayModel(spec, hardware=hardware, quantity=quantity)  # type: ignore[arg-type]
    X = draw_widths(spec, 100, 0)
    predictor = fitted(spec, X, array.predict(X))
    text = " ".join(predictor.describe())
    new = draw_widths(spec, 200, 5)
    rounded = predictor.round_widths(new).astype(float)
    assert np.median(array.predict(rounded) / array.predict(new)) <= 1.0
    assert ("run on faster kernels" in text) == predictor.advice_.is_advised
    assert predictor.to_torch(smooth=True).max_deviation < 1


def test_whole_blocks_are_advised_where_a_block_costs_as_a_full_one(chain: NetworkSpec) -> None:
    X = draw_widths(chain, 120, 0)
    a, b, c = (blocks_of(column, 32) for column in X.T)
    predictor = fitted(chain, X, 1e-4 + 1e-7 * (27 * a + a * b + b * c) + 1e-8 * c)
    assert predictor.is_staircase_
    assert predictor.advised_multiples() == {"a": 32, "b": 32, "c": 32}
    text = " ".join(predictor.describe())
    assert "Round widths up to multiples of 32" in text
    assert "more channels" in text
    exact, smooth = predictor.to_torch(), predictor.to_torch(smooth=True)
    edges = torch.tensor([[32.0, 64.0, 96.0], [96.0, 128.0, 32.0]], dtype=torch.float64)
    torch.testing.assert_close(exact(edges), smooth(edges), rtol=1e-9, atol=0.0)
    np.testing.assert_allclose(exact(torch.tensor(X)), predictor.predict(X), rtol=1e-9)


@pytest.mark.parametrize("step", [4, 16])
def test_true_regimes_are_found_and_each_width_is_judged_by_itself(
    chain: NetworkSpec, step: int
) -> None:
    X = draw_widths(chain, 150, 0)
    X[::3] = np.maximum(X[::3] // step, 1) * step
    a, b, c = X.T
    slow_a, slow_b = (np.where(inputs % step == 0, 1.0, 2.5) for inputs in (a, b))
    predictor = fitted(
        chain, X, 1e-4 + 1e-7 * (27 * a + slow_a * a * b + slow_b * b * c) + 1e-6 * c
    )
    assert predictor.alignment_ == step
    # No layer that reads c has regimes, so rounding it would only add channels.
    assert predictor.advised_multiples() == {"a": step, "b": step, "c": 1}
    assert predictor.describe()[-1].startswith("Round widths up")


def test_files_without_the_rates_of_folds_still_load(chain: NetworkSpec, tmp_path: Path) -> None:
    X = draw_widths(chain, 40, 0)
    predictor = AlignedBilinearPredictor(chain, divisor=4, block=1, complexity="compute")
    predictor.fit(X, 1.0 + X[:, 0] * X[:, 1] + X[:, 2])
    predictor.fold_rates_ = np.empty((0, 0))
    predictor.state_names = tuple(n for n in predictor.state_names if n != "fold_rates_")  # type: ignore[misc]
    predictor.save(tmp_path / "old.safetensors")
    again = load(tmp_path / "old.safetensors")
    assert isinstance(again, AlignedBilinearPredictor)
    assert again.advised_multiples() == predictor.advised_multiples()


def test_a_surrogate_that_is_off_by_more_than_the_cost_warns(chain: NetworkSpec) -> None:
    module = SystolicArrayModel(networks.get("lenet5")).to_torch()
    warn_far_off(module, stacklevel=1)
    object.__setattr__(module.info, "max_deviation", 2.61)
    with pytest.warns(SurrogateWarning, match=r"261% of the exact cost .*to_torch\(\)"):
        warn_far_off(module, stacklevel=1)


def test_rounding_keeps_what_has_no_multiple_within_bounds() -> None:
    widths = np.array([[5.0, 3.0, 30.0]])
    least, last = np.array([1.0, 1.0, 1.0]), np.array([10.0, 3.0, 31.0])
    np.testing.assert_array_equal(round_up(widths, (8, 8, 8), least, last), [[8, 3, 24]])


def test_a_difference_by_chance_is_not_clear_and_visits_count_once() -> None:
    rng = np.random.default_rng(0)
    errors = np.abs(rng.standard_normal(60)) * 0.05
    one = PairedErrors(np.arange(60), np.ones(60))
    worse, like = errors + 0.01, errors + 0.03 * rng.standard_normal(60)
    assert one.first_not_worse([worse, errors], 0.02, 0.95) == 1
    assert one.first_not_worse([like, errors], 0.02, 0.95) == 0
    single, double = np.tile(np.arange(6), 10), PairedErrors(np.tile(np.arange(6), 10), np.ones(60))
    assert len(np.unique(single)) == 6
    assert double.excess(worse, errors)[0] == pytest.approx(0.01)

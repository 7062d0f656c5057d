from math import ceil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from joulemap import InputError
from joulemap.datasets import LayerSpec, NetworkSpec, Width
from joulemap.models import (
    AlignedBilinearPredictor,
    BilinearPredictor,
    cross_validate,
    to_onnx_file,
)
from joulemap.models.aligned.terms import TermTable, columns_of, functions_of
from joulemap.models.base.extrapolation import ExtrapolationWarning
from joulemap.models.base.intervals import FloatArray
from joulemap.models.base.predictor import Predictor
from joulemap.models.testing import ArrayDataset, PredictorContract, draw_widths
from joulemap.profiler import networks

LAYERS = [
    LayerSpec("stem", "conv", 3, "a", kernel_size=3, in_size=16, out_size=16),
    LayerSpec("dw1", "conv", "a", "a", groups="a", kernel_size=3, in_size=16, out_size=16),
    LayerSpec("norm1", "norm", "a", "a", in_size=16, out_size=16),
    LayerSpec("pw1", "conv", "a", "b", in_size=16, out_size=16),
    LayerSpec("dw2", "conv", "b", "b", groups="b", kernel_size=3, in_size=16, out_size=16),
    LayerSpec("pw2", "conv", "b", "c", in_size=16, out_size=16),
    LayerSpec("pool", "pool", "c", "c", kernel_size=16, in_size=16),
    LayerSpec("classes", "linear", "c", 10),
]
WIDTHS = (Width("a", 64), Width("b", 96), Width("c", 128, 8))


@pytest.fixture(scope="module")
def blocks() -> NetworkSpec:
    return NetworkSpec("blocks", "zoo:blocks", (3, 16, 16), WIDTHS, tuple(LAYERS))


def true_latency_s(X: FloatArray, divisor: int = 4, block: int = 16) -> FloatArray:
    """A device with two regimes, written down layer by layer without the model's code."""
    a, b, c = X.T
    cost = np.full(len(X), 30e-6) + 27 * 256 * a * 2e-10
    for channels in (a, b):
        is_aligned = channels % divisor == 0
        cost += 9 * 256 * channels * np.where(is_aligned, 1e-10, 5e-10)
    for inputs, outputs in ((a, b), (b, c)):
        is_aligned = inputs % divisor == 0
        padded = np.array([ceil(value / block) * block for value in outputs])
        aligned, misaligned = 256 * inputs * padded * 2e-11, 256 * inputs * outputs * 4e-11
        cost += np.where(is_aligned, aligned, misaligned)
    return np.asarray(cost)


def aligned_draws(spec: NetworkSpec, count: int, seed: int = 0) -> FloatArray:
    """Random widths, every third vector on multiples of 4 to 32."""
    X = draw_widths(spec, count, seed)
    rng = np.random.default_rng(seed)
    for row in range(0, count, 3):
        step = rng.choice([4, 8, 16, 32])
        X[row] = np.maximum(X[row] // step, 1) * step
    return X


def measured(
    spec: NetworkSpec, X: FloatArray, seed: int = 0, noise: float = 0.02, divisor: int = 4
) -> ArrayDataset:
    factor = np.exp(noise * np.random.default_rng(seed).standard_normal(len(X)))
    return ArrayDataset(spec, X, {"latency_s": true_latency_s(X, divisor) * factor})


@pytest.fixture(scope="module")
def dataset(blocks: NetworkSpec) -> ArrayDataset:
    return measured(blocks, aligned_draws(blocks, 120))


@pytest.fixture(scope="module")
def fitted(dataset: ArrayDataset) -> AlignedBilinearPredictor:
    return AlignedBilinearPredictor().fit_dataset(dataset)


class TestAligned(PredictorContract):
    def make(self, spec: NetworkSpec | None = None) -> Predictor:
        # The structure is fixed: the contract is about everything else, and fits often.
        return AlignedBilinearPredictor(spec, divisor=4, block=16, complexity="memory")


# Its steps are too high for a smooth module to follow.
@pytest.mark.filterwarnings("ignore::joulemap.models.base.surrogate.SurrogateWarning")
class TestAlignedOnProductsAndSteps(PredictorContract):
    """Grouped layers, a concatenation, sizes that are products, widths in steps."""

    def make(self, spec: NetworkSpec | None = None) -> Predictor:
        return AlignedBilinearPredictor(spec, divisor=4, block=8)

    @pytest.fixture
    def dataset(self, mixed: NetworkSpec) -> ArrayDataset:
        widths = draw_widths(mixed, 40)
        macs = [mixed.at([int(x) for x in row]).macs for row in widths]
        factor = np.where(widths[:, 1] % 4 == 0, 1.0, 1.5)
        return ArrayDataset(mixed, widths, {"latency_s": 1e-3 + 1e-7 * factor * np.array(macs)})


class TestAlignedAsBilinear(PredictorContract):
    """Data of ECC's form, on the network of tests/models/conftest.py."""

    def make(self, spec: NetworkSpec | None = None) -> Predictor:
        return AlignedBilinearPredictor(spec, complexity="bilinear")

    @pytest.fixture
    def dataset(self, alexnet: NetworkSpec) -> ArrayDataset:
        X = draw_widths(alexnet, 40)
        return ArrayDataset(alexnet, X, {"latency_s": 1e-3 + 1e-8 * X[:, 0] * X[:, 1]})


@pytest.mark.parametrize("divisor", [1, 2, 4, 8])
def test_divisor_and_truth_are_recovered(blocks: NetworkSpec, divisor: int) -> None:
    X, held_out = aligned_draws(blocks, 150, 1), aligned_draws(blocks, 200, 2)
    predictor = AlignedBilinearPredictor().fit_dataset(measured(blocks, X, divisor=divisor))
    assert predictor.alignment_ == divisor
    if divisor == 1:
        # Elsewhere too few rows are aligned to tell a block of 16 from one of 4.
        assert predictor.block_ == 16
    truth = true_latency_s(held_out, divisor)
    assert np.mean(np.abs(predictor.predict(held_out) / truth - 1)) < 0.02
    held = predictor.held_out_
    assert held is not None
    assert held.mean_error < 0.03


def test_the_whole_range_of_block_and_divisor_can_be_fixed(dataset: ArrayDataset) -> None:
    predictor = AlignedBilinearPredictor(divisor=8, block=32, complexity="overheads")
    predictor.fit_dataset(dataset)
    assert (predictor.alignment_, predictor.block_) == (8, 32)
    assert predictor.complexity_ == "overheads"
    assert len(predictor.candidates_) == 0


def test_error_is_never_above_the_bilinear_one(
    alexnet: NetworkSpec, blocks: NetworkSpec, dataset: ArrayDataset
) -> None:
    X = draw_widths(alexnet, 100)
    truth = BilinearPredictor.from_coefficients(alexnet, np.arange(8) * 1e-3, 1e-3)
    noise = np.exp(0.02 * np.random.default_rng(0).standard_normal(len(X)))
    of_bilinear_form = ArrayDataset(alexnet, X, {"energy_j": truth.predict(X) * noise})
    table = cross_validate(of_bilinear_form, ["aligned", "bilinear"], "energy_j", splits=3)
    assert table["aligned"].mape <= table["bilinear"].mape * 1.001
    chosen = AlignedBilinearPredictor().fit_dataset(of_bilinear_form, "energy_j")
    assert chosen.complexity_ == "bilinear"
    assert chosen.alignment_ == 1
    assert chosen.layer_costs(alexnet.max_widths) == {}
    assert "bilinear form" in chosen.describe()[0]
    table = cross_validate(dataset, ["aligned", "bilinear"], splits=3)
    assert table["aligned"].mape < table["bilinear"].mape / 4


def test_layer_costs_add_up_and_follow_the_truth(
    blocks: NetworkSpec, fitted: AlignedBilinearPredictor
) -> None:
    widths = np.array([32.0, 48.0, 64.0])
    costs = fitted.layer_costs(widths)
    assert sum(costs.values()) == pytest.approx(fitted.predict([widths])[0])
    assert set(costs) <= {"", *(layer.name for layer in LAYERS)}
    assert "norm1" not in costs
    assert costs["pw2"] == pytest.approx(256 * 48 * 64 * 2e-11, rel=0.1)
    misaligned = fitted.layer_costs([33, 48, 64])
    assert misaligned["dw1"] > 3 * costs["dw1"]
    with pytest.raises(InputError, match="one width vector"):
        fitted.layer_costs([widths, widths])


@pytest.mark.parametrize("name", networks.names())
def test_terms_count_the_macs_and_weights_of_every_network_of_the_zoo(name: str) -> None:
    spec = networks.get(name)
    table = TermTable(spec)
    for X in (np.array([spec.max_widths], dtype=np.float64), draw_widths(spec, 3)):
        columns = columns_of(table.terms, functions_of(table, X, 1, 1))
        counted = {
            quantity: sum(
                columns[:, number]
                for number, term in enumerate(table.terms)
                if term.quantity == quantity and term.regime == "all"
            )
            for quantity in ("MACs", "weights")
        }
        resolved = [spec.at([int(x) for x in row]) for row in X]
        np.testing.assert_allclose(counted["MACs"], [found.macs for found in resolved])
        weights = [
            sum(layer.params for layer in found.layers if layer.kind not in ("norm", "embedding"))
            - sum(
                layer.out_channels * (6 if layer.kind == "recurrent" else 1)
                for layer in found.layers
                if layer.bias and layer.kind not in ("norm", "embedding")
            )
            for found in resolved
        ]
        np.testing.assert_allclose(counted["weights"], weights)


def test_words_name_alignment_price_and_advice(fitted: AlignedBilinearPredictor) -> None:
    text = " ".join(fitted.describe())
    assert "multiples of 4 run on faster kernels" in text
    assert "times as much as the same rounded up to multiples of 4" in text
    assert "depthwise convolution layers" in text
    assert "blocks of 16" in text
    assert "Round widths up to multiples of 4" in text


# -- rounding ------------------------------------------------------------------------------------


@given(st.tuples(st.integers(1, 64), st.integers(1, 96), st.integers(8, 128)))
def test_rounding_goes_up_stays_inside_and_is_done_once(
    fitted: AlignedBilinearPredictor, widths: tuple[int, ...]
) -> None:
    rounded = fitted.round_widths(widths)
    assert rounded.dtype == np.int64
    assert np.all(rounded % 4 == 0)
    assert np.all(rounded >= widths)
    assert np.all(rounded - widths < 4)
    assert np.all(rounded <= [width.max for width in WIDTHS])
    np.testing.assert_array_equal(fitted.round_widths(rounded), rounded)


def test_rounding_minds_bounds_steps_and_factors() -> None:
    layers = [
        LayerSpec("one", "conv", 3, "a", in_size=2, out_size=2),
        LayerSpec("two", "linear", "4*a", "b"),
        LayerSpec("three", "linear", "b", "c"),
        LayerSpec("four", "linear", "c", "2*d"),
        LayerSpec("five", "linear", "2*d", 5),
    ]
    widths = (Width("a", 10), Width("b", 3), Width("c", 30, 6, 6), Width("d", 9))
    spec = NetworkSpec("odd", "zoo:odd", (3, 2, 2), widths, tuple(layers))
    X = draw_widths(spec, 60)
    predictor = AlignedBilinearPredictor(spec, divisor=4, complexity="compute")
    a, b, c, d = X.T
    slow = [np.where(count % 4 == 0, 1.0, 20.0) for count in (b, c, 2 * d)]
    predictor.fit(X, 50 + 12 * a + 4 * a * b + slow[0] * b * c + slow[1] * 2 * c * d + slow[2] * d)
    # 4 a is always a multiple of 4; b's bound lies below 4; 12 is the least step of c; 2 d is a
    # multiple of 4 where d is of 2.
    assert predictor.advised_multiples() == {"a": 1, "b": 1, "c": 12, "d": 2}
    np.testing.assert_array_equal(predictor.round_widths([9, 2, 18, 9]), [9, 2, 24, 8])
    with pytest.raises(InputError, match="last dimension must be 4"):
        predictor.round_widths([1, 2, 3])


# -- torch ---------------------------------------------------------------------------------------


def test_exact_module_is_a_line_between_neighbouring_integers(
    fitted: AlignedBilinearPredictor,
) -> None:
    module = fitted.to_torch()
    for start in ([31.0, 48.0, 64.0], [32.0, 48.0, 64.0], [33.0, 47.0, 63.0]):
        ends = torch.tensor([start, [start[0] + 1, *start[1:]]], dtype=torch.float64)
        middle = module(ends.mean(dim=0))
        # Products of two interpolated factors: a parabola, close to its chord.
        torch.testing.assert_close(middle, module(ends).mean(), rtol=0.25, atol=0.0)
        assert module(ends).min() <= middle * (1 + 1e-9)


def test_smooth_module_is_the_aligned_regime(fitted: AlignedBilinearPredictor) -> None:
    smooth = fitted.to_torch(smooth=True)
    on_grid = np.array([[16.0, 32.0, 48.0], [64.0, 96.0, 128.0], [48.0, 16.0, 112.0]])
    np.testing.assert_allclose(
        smooth(torch.tensor(on_grid)).numpy(), fitted.predict(on_grid), rtol=1e-9
    )
    x = torch.tensor([[31.0, 47.0, 63.0], [5.0, 6.0, 9.0]], requires_grad=True)
    smooth(x).sum().backward()
    assert x.grad is not None
    assert torch.all(x.grad > 0)
    X = fitted.random_widths()
    deviation = np.abs(smooth(torch.tensor(X)).numpy() / fitted.predict(X) - 1)
    assert smooth.max_deviation == pytest.approx(deviation.max())
    assert smooth.max_deviation > 0.3


def test_exported_onnx_keeps_both_regimes(fitted: AlignedBilinearPredictor, tmp_path: Path) -> None:
    to_onnx_file(fitted, tmp_path / "cost.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "cost.onnx")
    X = fitted.random_widths().astype(np.float32)
    (cost,) = session.run(None, {"widths": X})
    np.testing.assert_allclose(cost, fitted.predict(X), rtol=1e-5)


# -- data that say little, or lie ----------------------------------------------------------------


def test_one_regime_only_gives_no_alignment_and_says_so(blocks: NetworkSpec) -> None:
    X = np.maximum(draw_widths(blocks, 100) // 8, 1) * 8
    predictor = AlignedBilinearPredictor().fit_dataset(measured(blocks, X))
    assert predictor.alignment_ == 1
    assert "All measured widths are multiples of 8" in " ".join(predictor.describe())
    np.testing.assert_array_equal(predictor.round_widths([5, 6, 9]), [5, 6, 9])
    fixed = AlignedBilinearPredictor(divisor=4).fit_dataset(measured(blocks, X))
    # What was not seen is taken to cost as much as what was.
    off, on = np.array([[31.0, 47.0, 63.0]]), np.array([[32.0, 48.0, 64.0]])
    assert 0.7 < fixed.predict(off)[0] / fixed.predict(on)[0] < 1.1


def test_ten_rows_give_a_sensible_model(blocks: NetworkSpec) -> None:
    predictor = AlignedBilinearPredictor().fit_dataset(measured(blocks, aligned_draws(blocks, 10)))
    X = aligned_draws(blocks, 200, 5)
    errors = np.abs(predictor.predict(X) / true_latency_s(X) - 1)
    assert np.median(errors) < 0.5


def test_five_rows_are_refused(blocks: NetworkSpec) -> None:
    with pytest.raises(InputError, match="needs at least 6"):
        AlignedBilinearPredictor().fit_dataset(measured(blocks, aligned_draws(blocks, 5)))


def test_a_width_that_never_varied(blocks: NetworkSpec) -> None:
    X = aligned_draws(blocks, 120)
    X[:, 1] = 48
    predictor = AlignedBilinearPredictor().fit_dataset(measured(blocks, X))
    held_out = aligned_draws(blocks, 100, 3)
    held_out[:, 1] = 48
    errors = np.abs(predictor.predict(held_out) / true_latency_s(held_out) - 1)
    assert np.mean(errors) < 0.03
    with pytest.warns(ExtrapolationWarning, match=r"b: 48"):
        predictor.predict([[32, 90, 64]])


@pytest.mark.filterwarnings("ignore::joulemap.models.ContradictionWarning")
@pytest.mark.parametrize("factor", [100.0, 0.01])
def test_absurd_labels_do_not_decide(blocks: NetworkSpec, factor: float) -> None:
    X = aligned_draws(blocks, 150)
    y = true_latency_s(X) * np.exp(0.02 * np.random.default_rng(0).standard_normal(len(X)))
    y[::25] *= factor
    predictor = AlignedBilinearPredictor(blocks).fit(X, y)
    assert predictor.alignment_ == 4
    held_out = aligned_draws(blocks, 100, 4)
    assert np.mean(np.abs(predictor.predict(held_out) / true_latency_s(held_out) - 1)) < 0.04


def test_a_low_quantile_sees_through_labels_that_are_too_long(blocks: NetworkSpec) -> None:
    X, rng = aligned_draws(blocks, 150), np.random.default_rng(0)
    y = true_latency_s(X) * np.exp(0.02 * rng.standard_normal(len(X)))
    y[rng.random(len(X)) < 0.55] *= 1.5
    held_out = aligned_draws(blocks, 100, 4)
    errors = {
        quantile: np.mean(
            np.abs(
                AlignedBilinearPredictor(blocks, divisor=4, block=16, quantile=quantile)
                .fit(X, y)
                .predict(held_out)
                / true_latency_s(held_out)
                - 1
            )
        )
        for quantile in (None, 0.25)
    }
    assert errors[0.25] < 0.5 * errors[None]


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("divisor", 3),
        ("divisor", True),
        ("block", "16"),
        ("complexity", "all"),
        ("quantile", 1.0),
        ("quantile", "low"),
    ],
)
def test_parameters_are_checked(dataset: ArrayDataset, parameter: str, value: object) -> None:
    predictor = AlignedBilinearPredictor().set_params(**{parameter: value})
    with pytest.raises(InputError, match=parameter):
        predictor.fit_dataset(dataset)


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("coef_", np.ones(3)),
        ("coef_", np.full(3, -1.0)),
        ("fold_rates_", np.ones((5, 3))),
    ],
)
def test_a_file_that_does_not_fit_is_refused(
    fitted: AlignedBilinearPredictor, attribute: str, value: FloatArray
) -> None:
    before = getattr(fitted, attribute)
    setattr(fitted, attribute, value)
    try:
        with pytest.raises(InputError, match=attribute):
            fitted.check_state()
    finally:
        setattr(fitted, attribute, before)


def test_groups_without_a_kernel_are_refused() -> None:
    layers = [
        LayerSpec("one", "conv", 3, "8*a", in_size=4, out_size=4),
        LayerSpec("two", "conv", "8*a", "8*a", groups="2*a", in_size=4, out_size=4),
    ]
    spec = NetworkSpec("grouped", "zoo:grouped", (3, 4, 4), (Width("a", 8),), tuple(layers))
    X = draw_widths(spec, 20)
    with pytest.raises(InputError, match=r"layer 'two' has 2\*a groups"):
        AlignedBilinearPredictor(spec).fit(X, X[:, 0])

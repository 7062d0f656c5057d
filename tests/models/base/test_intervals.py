import copy
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from joulemap import InputError
from joulemap.datasets import NetworkSpec
from joulemap.datasets.metrics import NoiseFloor, noise_floor
from joulemap.models import (
    BilinearPredictor,
    CostModule,
    ExtrapolationWarning,
    GaussianProcessPredictor,
    load,
)
from joulemap.models.base.error_scale import ErrorScale
from joulemap.models.base.extrapolation import widening
from joulemap.models.base.intervals import FloatArray, HeldOut, assign_folds, hold_out
from joulemap.models.testing import ArrayDataset, draw_widths

NOISE = 0.03
ONE = np.float64(1.0)


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.95])
def test_intervals_cover_new_measurements_and_the_mean(
    alexnet: NetworkSpec, coverage: float
) -> None:
    truth = BilinearPredictor.from_coefficients(alexnet, np.linspace(1, 3, 8) * 1e-3, 1e-3)
    inside, inside_mean, widths = [], [], []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        X, X_new = draw_widths(alexnet, 100, seed), draw_widths(alexnet, 400, seed + 100)
        pairs = truth.predict(X[:30]) * (1 + NOISE * rng.standard_normal((2, 30)))
        dataset = ArrayDataset(
            alexnet,
            X,
            {"energy_j": truth.predict(X) * (1 + NOISE * rng.standard_normal(100))},
            noise_floor=noise_floor(pairs[0], pairs[1]),
        )
        predictor = BilinearPredictor(loss="relative").fit_dataset(dataset, "energy_j")
        mean = truth.predict(X_new)
        new = mean * (1 + NOISE * rng.standard_normal(400))
        low, high = predictor.predict_interval(X_new, coverage)
        inside.append(np.mean((low <= new) & (new <= high)))
        widths.append(np.mean((high - low) / mean))
        low, high = predictor.predict_interval(X_new, coverage, of="mean")
        inside_mean.append(np.mean((low <= mean) & (mean <= high)))
    assert np.mean(inside) == pytest.approx(coverage, abs=0.06)
    assert np.mean(inside_mean) >= coverage - 0.06
    if coverage == 0.95:
        assert np.mean(widths) == pytest.approx(2 * 1.96 * NOISE, rel=0.25)


def test_folds_keep_equal_rows_together_and_ignore_the_order() -> None:
    rng = np.random.default_rng(0)
    X = rng.integers(0, 4, (200, 2)).astype(np.float64)
    folds, distinct = assign_folds(X, 5)
    assert distinct == len(np.unique(X, axis=0))
    assert set(folds) == {0, 1, 2, 3, 4}
    by_row: dict[tuple[float, ...], int] = {}
    for row, fold in zip(X, folds, strict=True):
        assert by_row.setdefault(tuple(row), int(fold)) == fold
    order = rng.permutation(200)
    np.testing.assert_array_equal(assign_folds(X[order], 5)[0], folds[order])


def test_two_rows_are_two_folds() -> None:
    X, y = np.array([[1.0], [2.0]]), np.array([3.0, 5.0])
    folds = hold_out(X, y, np.ones(2), lambda test: (np.full(test.sum(), y[~test].mean()), None))
    np.testing.assert_array_equal(folds.predicted, [5.0, 3.0])
    assert folds.spread is None
    assert folds.num_distinct == 2


def held_out(errors: FloatArray, spread: FloatArray | None = None) -> HeldOut:
    """Return held-out rows whose predictions are all 1."""
    count = len(errors)
    return HeldOut(1 + errors, np.ones(count), np.ones(count), count, spread)


def test_quantiles() -> None:
    errors = np.tile([1, -1], 50) * np.arange(1, 101) / 1000
    even = held_out(errors)
    # 0.9 * 101 / 100 is 0.909: the 91st error of 100.
    below, above = even.distances(0.9, ONE)
    assert below == pytest.approx(0.091, rel=0.02)
    assert above == pytest.approx(0.091, rel=0.02)
    assert even.distances(0.999, ONE)[0] == pytest.approx(0.1, rel=0.02)
    assert even.upper_distance(0.9, 2 * ONE) == pytest.approx(2 * 0.081)
    assert held_out(-np.abs(errors)).upper_distance(0.5, ONE) == 0.0
    for coverage in (0.0, 1.0, -1.0, float("nan")):
        with pytest.raises(InputError, match="coverage"):
            even.distances(coverage, ONE)
        with pytest.raises(InputError, match="coverage"):
            even.upper_distance(coverage, ONE)


@pytest.mark.parametrize("count", [2, 5, 8])
def test_the_interval_of_few_variants_is_the_largest_error(count: int) -> None:
    few = held_out(np.linspace(-0.2, -0.1, count))
    assert few.level(0.9) == 1.0
    assert few.distances(0.9, ONE)[0] == pytest.approx(0.2)


def test_levels_grow_with_coverage_and_approach_it() -> None:
    for count in (2, 10, 100, 10_000):
        levels = [held_out(np.ones(count)).level(c) for c in np.linspace(0.01, 0.9999, 999)]
        assert np.all(np.diff(levels) >= 0)
    assert held_out(np.ones(10_000)).level(0.9) == pytest.approx(0.9, abs=2e-3)


def test_each_side_has_its_own_size() -> None:
    rng = np.random.default_rng(0)
    errors = rng.exponential(0.1, 2000) * np.where(rng.random(2000) < 0.5, 1.0, -0.2)
    below, above = held_out(errors).distances(0.9, ONE)
    assert above / below == pytest.approx(5, rel=0.2)
    assert np.mean((errors < -below) | (errors > above)) == pytest.approx(0.1, abs=0.015)
    few_below, few_above = held_out(errors[:4]).distances(0.9, ONE)
    assert few_above / few_below < 2


def test_intervals_follow_a_spread_that_says_something() -> None:
    rng = np.random.default_rng(0)
    spread = np.exp(rng.uniform(-1.5, 1.5, 1000))
    errors = spread * 0.02 * rng.standard_normal(1000)
    below, above = held_out(errors, spread).distances(0.9, np.ones(1000), spread)
    flat_below, flat_above = held_out(errors).distances(0.9, np.ones(1000))
    inside = (-below <= errors) & (errors <= above)
    assert np.mean(inside) == pytest.approx(0.9, abs=0.01)
    assert np.mean(below + above) < 0.9 * (flat_below + flat_above)[0]
    wide = spread > np.quantile(spread, 0.8)
    flat_inside = (-flat_below <= errors) & (errors <= flat_above)
    assert np.mean(inside[wide]) > np.mean(flat_inside[wide]) + 0.05
    # Only ratios count, and who does not know the spread gets the interval without.
    scaled = held_out(errors, 7 * spread).distances(0.9, np.ones(1000), 7 * spread)
    np.testing.assert_allclose(scaled, (below, above))
    np.testing.assert_array_equal(
        held_out(errors, spread).distances(0.9, np.ones(1000)), (flat_below, flat_above)
    )


def scale_of(errors: FloatArray, cost: FloatArray, spread: FloatArray | None = None) -> ErrorScale:
    return ErrorScale.of(errors, cost, spread, np.ones(len(errors)), len(errors), 1e-9)


def test_a_spread_that_says_nothing_is_left_out() -> None:
    rng = np.random.default_rng(0)
    errors, spread = 0.05 * rng.standard_normal(200), np.exp(rng.uniform(-1, 1, 200))
    assert scale_of(errors, np.ones(200), spread).share == 0.0
    assert scale_of(errors * spread, np.ones(200), spread).share == 1.0
    assert scale_of(0 * errors, np.ones(200), spread).share == 0.0
    below, _ = held_out(errors, spread).distances(0.9, ONE, spread)
    np.testing.assert_allclose(below, held_out(errors).distances(0.9, ONE)[0])


@pytest.mark.parametrize("power", [-0.5, 0.0, 0.5, 1.0])
def test_errors_that_do_not_grow_with_the_cost(power: float) -> None:
    rng = np.random.default_rng(0)
    cost = np.exp(rng.uniform(-2, 2, 400))
    errors = 0.05 * cost ** (1 - power) * rng.standard_normal(400)
    assert scale_of(errors, cost).power == power
    known = HeldOut(cost + errors, cost, np.ones(400), 400)
    below, above = known.distances(0.9, cost)
    inside = (-below <= errors) & (errors <= above)
    for part in np.array_split(inside[np.argsort(cost)], 3):
        assert np.mean(part) == pytest.approx(0.9, abs=0.06)
    in_torch = known.distances(0.9, torch.tensor(cost))
    np.testing.assert_allclose(in_torch[0].numpy(), below)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-0.9, 0.9), min_size=2, max_size=40), st.floats(0.02, 0.98))
def test_bounds_are_ordered(errors: list[float], coverage: float) -> None:
    known = held_out(np.array(errors))
    more = (1 + coverage) / 2
    (below, above), (below_more, above_more) = (known.distances(c, ONE) for c in (coverage, more))
    assert 0 <= below <= below_more
    assert 0 <= above <= above_more
    assert 0 <= known.upper_distance(coverage, ONE) <= known.upper_distance(more, ONE)


@pytest.fixture
def inner(alexnet: NetworkSpec) -> BilinearPredictor:
    """A predictor whose first width was measured in the middle half of its bounds."""
    X = draw_widths(alexnet, 40, 3)
    X[:, 0] = np.linspace(17, 48, 40).round()
    cost = BilinearPredictor.from_coefficients(alexnet, np.linspace(1, 3, 8) * 1e-3, 1e-3)
    y = cost.predict(X) * (1 + NOISE * np.random.default_rng(0).standard_normal(40))
    return BilinearPredictor(alexnet).fit(X, y)


def test_intervals_widen_outside_the_measured_range(
    inner: BilinearPredictor,
) -> None:
    assert inner.width_ranges_ is not None
    low, high = inner.width_ranges_
    rows = np.tile((low + high) / 2, (4, 1)).round()
    rows[:, 0] = [low[0], high[0], high[0] + (high[0] - low[0]), high[0] + 2 * (high[0] - low[0])]
    factors = widening(torch.tensor(rows), inner.width_ranges_).numpy()
    np.testing.assert_allclose(factors, [1, 1, 3, 5])
    with pytest.warns(ExtrapolationWarning):
        prediction = inner.predict(rows)
    with pytest.warns(ExtrapolationWarning):
        ends = inner.predict_interval(rows)
    with pytest.warns(ExtrapolationWarning):
        upper = inner.predict_upper(rows)
    assert inner.held_out_ is not None
    below, above = inner.held_out_.distances(0.9, prediction)
    np.testing.assert_allclose(prediction - ends[0], factors * below)
    np.testing.assert_allclose(ends[1] - prediction, factors * above)
    bound = inner.held_out_.upper_distance(0.9, prediction)
    np.testing.assert_allclose(upper - prediction, factors * bound)
    module = inner.to_torch()
    np.testing.assert_allclose(module.upper(torch.tensor(rows)).numpy(), upper)
    widths = torch.tensor(rows, requires_grad=True)
    (gradient,) = torch.autograd.grad(module.upper(widths).sum(), widths)
    assert torch.isfinite(gradient).all()


class Bound(torch.nn.Module):
    """The upper bound as a module of its own."""

    def __init__(self, cost: CostModule) -> None:
        super().__init__()
        self.cost = cost

    def forward(self, widths: torch.Tensor) -> torch.Tensor:
        return self.cost.upper(widths, 0.8)


def test_upper_bounds_can_be_traced(inner: BilinearPredictor) -> None:
    bound = Bound(inner.to_torch())
    widths = torch.tensor(np.linspace(5, 60, 28).reshape(4, 7))
    program = torch.export.export(bound, (widths,)).module()
    torch.testing.assert_close(program(1.5 * widths), bound(1.5 * widths))
    torch.testing.assert_close(torch.func.vmap(bound)(widths), bound(widths))


def test_a_width_that_never_varied_is_measured_in_itself() -> None:
    measured = np.array([[64.0, 0.0], [64.0, 0.0]])
    widths = torch.tensor([[64.0, 0.0], [128.0, 0.0], [32.0, 0.0], [64.0, 1.0]])
    np.testing.assert_allclose(widening(widths, measured), [1, 3, 2, 3])
    np.testing.assert_array_equal(widening(widths, None), np.ones(4))


@pytest.mark.parametrize("of", ["mean", "measurement"])
def test_the_upper_bound_holds_for_its_share(
    alexnet: NetworkSpec, of: Literal["mean", "measurement"]
) -> None:
    truth = BilinearPredictor.from_coefficients(alexnet, np.linspace(1, 3, 8) * 1e-3, 1e-3)
    below = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        X, X_new = draw_widths(alexnet, 100, seed), draw_widths(alexnet, 300, seed + 100)
        y = truth.predict(X) * (1 + NOISE * rng.standard_normal(100))
        predictor = BilinearPredictor(alexnet, loss="relative").fit(X, y)
        new = truth.predict(X_new) * (1 + NOISE * rng.standard_normal(300))
        below.append(np.mean(new <= predictor.predict_upper(X_new, 0.8, of=of)))
    assert np.mean(below) == pytest.approx(0.8, abs=0.05)


@pytest.fixture(scope="module")
def process() -> GaussianProcessPredictor:
    """A process on two columns, known at 1..4 and 9..10 of the first."""
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.choice([1.0, 2.0, 3.0, 4.0, 9.0, 10.0], 30), rng.integers(1, 9, 30)])
    y = (2 + np.sin(X[:, 0])) * X[:, 1] * (1 + 0.01 * rng.standard_normal(30))
    return GaussianProcessPredictor().fit(X, y)


def test_a_process_is_less_sure_between_its_rows(process: GaussianProcessPredictor) -> None:
    known, gap = np.array([[2.0, 4.0], [9.0, 5.0]]), np.array([[6.0, 4.0], [7.0, 5.0]])
    assert np.all(process.spread_arrays(gap) > 1.5 * process.spread_arrays(known))
    widths = [
        (high - low) / process.predict(X)
        for X in (gap, known)
        for low, high in [process.predict_interval(X)]
    ]
    assert np.all(widths[0] > 1.2 * widths[1])


def test_the_spread_of_a_process_in_torch(process: GaussianProcessPredictor) -> None:
    X, module = process.points_[:6], process.to_torch()
    expected = process.spread_arrays(X)
    spread = module.spread(torch.tensor(X.reshape(2, 3, 2)))
    assert spread is not None
    np.testing.assert_allclose(spread.numpy().reshape(-1), expected)
    upper = torch.func.vmap(lambda widths: module.upper(widths))(torch.tensor(X))
    np.testing.assert_allclose(upper.numpy(), process.predict_upper(X))
    lowered = module.float().upper(torch.tensor(X, dtype=torch.float32))
    np.testing.assert_allclose(lowered.numpy(), upper.numpy(), rtol=1e-4)


def test_a_spread_survives_the_file_and_may_be_missing(
    process: GaussianProcessPredictor, tmp_path: Path
) -> None:
    X = process.points_[:5]
    process.save(tmp_path / "with")
    np.testing.assert_array_equal(
        load(tmp_path / "with").predict_interval(X), process.predict_interval(X)
    )
    assert process.held_out_ is not None
    other = copy.copy(process)
    other.held_out_ = replace(process.held_out_, spread=None)
    other.save(tmp_path / "without")
    loaded = load(tmp_path / "without")
    assert loaded.held_out_ is not None
    assert loaded.held_out_.spread is None
    low, high = loaded.predict_interval(X)
    below, above = other.held_out_.distances(0.9, loaded.predict(X))
    np.testing.assert_allclose(high - low, below + above)
    np.testing.assert_allclose(
        loaded.to_torch().upper(torch.tensor(X)).numpy(), loaded.predict_upper(X)
    )
    other.held_out_ = replace(process.held_out_, spread=-np.ones(30))
    other.save(tmp_path / "bad")
    with pytest.raises(InputError, match="not positive"):
        load(tmp_path / "bad")


def test_noise_is_removed_in_quadrature() -> None:
    known = held_out(np.full(1000, 0.05))
    assert known.mean_share(None, 3) == 1.0
    floor = NoiseFloor(0.04, 0.03, 0.05, 20)
    assert known.mean_share(floor, 3) == pytest.approx(0.8)
    larger = NoiseFloor(0.06, 0.06, 0.06, 20)
    assert known.mean_share(larger, 3) == pytest.approx(np.sqrt(4 / 1000))


def test_exact_predictions_and_costs_of_zero() -> None:
    exact = HeldOut(np.ones(5), np.ones(5), np.ones(5), 5)
    assert exact.distances(0.9, ONE) == (0.0, 0.0)
    assert exact.mean_share(NoiseFloor(0.1, 0.1, 0.1, 1), 1) == 1.0
    zero = HeldOut(np.zeros(5), np.zeros(5), np.ones(5), 5)
    assert zero.distances(0.9, ONE) == (0.0, 0.0)

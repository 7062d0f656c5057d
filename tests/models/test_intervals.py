import numpy as np
import pytest

from joulemap import InputError
from joulemap.datasets import NetworkSpec
from joulemap.datasets.metrics import NoiseFloor, noise_floor
from joulemap.models import BilinearPredictor
from joulemap.models.intervals import HeldOut, assign_folds, hold_out
from joulemap.models.testing import ArrayDataset, draw_widths

NOISE = 0.03


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
    held_out = hold_out(
        X, y, np.ones(2), lambda X, y, w, test: (np.full(len(test), y.mean()), None)
    )
    np.testing.assert_array_equal(held_out.predicted, [5.0, 3.0])
    assert held_out.num_distinct == 2


def test_quantiles() -> None:
    measured = 1 + np.arange(1, 100) / 1000
    held_out = HeldOut(measured, np.ones(99), np.ones(99), 99)
    assert held_out.half_width(0.9) == pytest.approx(0.090)
    assert held_out.half_width(0.999) == pytest.approx(0.099)
    assert held_out.upper(0.5) == pytest.approx(0.050)
    assert HeldOut(2 - measured, np.ones(99), np.ones(99), 99).upper(0.5) == 0.0
    for coverage in (0.0, 1.0, -1.0, float("nan")):
        with pytest.raises(InputError, match="coverage"):
            held_out.half_width(coverage)


def test_noise_is_removed_in_quadrature() -> None:
    held_out = HeldOut(np.full(1000, 1.05), np.ones(1000), np.ones(1000), 1000)
    assert held_out.mean_share(None, 3) == 1.0
    floor = NoiseFloor(0.04, 0.03, 0.05, 20)
    assert held_out.mean_share(floor, 3) == pytest.approx(0.8)
    larger = NoiseFloor(0.06, 0.06, 0.06, 20)
    assert held_out.mean_share(larger, 3) == pytest.approx(np.sqrt(4 / 1000))


def test_exact_predictions_and_costs_of_zero() -> None:
    exact = HeldOut(np.ones(5), np.ones(5), np.ones(5), 5)
    assert exact.half_width(0.9) == 0.0
    assert exact.mean_share(NoiseFloor(0.1, 0.1, 0.1, 1), 1) == 1.0
    zero = HeldOut(np.zeros(5), np.zeros(5), np.ones(5), 5)
    assert zero.half_width(0.9) == 0.0

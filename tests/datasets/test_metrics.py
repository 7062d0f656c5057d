import json

import numpy as np
import pytest

from joulemap import InputError
from joulemap.datasets import metrics
from joulemap.datasets.metrics import NoiseFloor, noise_floor


def test_mape_is_a_fraction_of_the_measured_value() -> None:
    assert metrics.mape([1.0, 2.0], [1.1, 1.8]) == pytest.approx(0.1)


def test_share_within() -> None:
    assert metrics.share_within([1.0, 1.0, 1.0, 1.0], [1.0, 1.04, 0.97, 1.2], 0.05) == 0.75


def test_relative_rmse() -> None:
    assert metrics.relative_rmse([1.0, 2.0], [1.3, 1.2]) == pytest.approx(np.sqrt(0.125))


def test_rank_correlations() -> None:
    y = [1.0, 2.0, 3.0, 4.0]
    assert metrics.spearman(y, [2.0, 1.0, 4.0, 3.0]) == pytest.approx(0.6)
    assert metrics.kendall(y, [2.0, 1.0, 4.0, 3.0]) == pytest.approx(1 / 3)
    assert np.isnan(metrics.spearman(y, np.ones(4)))
    assert np.isnan(metrics.kendall(np.ones(4), y))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("function", [metrics.mape, metrics.relative_rmse, metrics.spearman])
def test_nan_and_infinity_are_refused(function: object, bad: float) -> None:
    assert callable(function)
    with pytest.raises(InputError, match="NaN or infinity"):
        function([1.0, bad], [1.0, 1.0])


def test_wrong_input_is_refused() -> None:
    with pytest.raises(InputError, match="positive"):
        metrics.mape([1.0, 0.0], [1.0, 1.0])
    with pytest.raises(InputError, match="one by one"):
        metrics.mape([1.0, 2.0], [1.0])
    with pytest.raises(InputError, match="shape"):
        metrics.mape([], [])
    with pytest.raises(InputError, match="tolerance"):
        metrics.share_within([1.0], [1.0], 0.0)
    with pytest.raises(InputError, match="not an array of numbers"):
        metrics.mape(["a"], ["b"])
    with pytest.raises(InputError, match="at least 2"):
        metrics.spearman([1.0], [1.0])


class TestNoiseFloor:
    def test_one_pair(self) -> None:
        floor = noise_floor([1.0], [1.1])
        assert floor.value == pytest.approx(0.1 / 1.05 / np.sqrt(2))
        assert floor.low == floor.high == pytest.approx(floor.value)
        assert floor.num_pairs == 1

    def test_normal_noise_is_its_mean_absolute_deviation(self) -> None:
        rng = np.random.default_rng(0)
        a, b = 5e-3 * (1 + 0.02 * rng.standard_normal((2, 4000)))
        floor = noise_floor(a, b)
        assert floor.value == pytest.approx(0.02 * np.sqrt(2 / np.pi), rel=0.05)
        assert floor.low < floor.value < floor.high

    def test_interval_is_reproducible_and_widens_with_coverage(self) -> None:
        rng = np.random.default_rng(1)
        a, b = 1 + 0.1 * rng.random((2, 20))
        assert noise_floor(a, b) == noise_floor(a, b)
        wide, narrow = noise_floor(a, b), noise_floor(a, b, coverage=0.5)
        assert wide.low < narrow.low < narrow.high < wide.high

    def test_does_not_depend_on_the_unit_or_the_order(self) -> None:
        a, b = np.array([1.0, 2.0, 3.0]), np.array([1.1, 1.9, 3.0])
        assert noise_floor(a, b).value == pytest.approx(noise_floor(b * 1e-3, a * 1e-3).value)
        assert noise_floor(a * 1e300, b * 1e300).value == pytest.approx(noise_floor(a, b).value)

    def test_json_round_trip(self) -> None:
        floor = noise_floor([1.0, 2.0], [1.1, 2.0])
        assert NoiseFloor.from_dict(json.loads(json.dumps(floor.to_dict()))) == floor

    def test_says_what_it_is(self) -> None:
        text = NoiseFloor(0.0123, 0.01, 0.015, 20).describe()
        assert text == "1.23% (1.00% to 1.50%, 20 pairs)"

    @pytest.mark.parametrize(
        "content",
        [
            {},
            {"value": 0.1},
            {"value": "a", "low": 0.0, "high": 0.0, "num_pairs": 1},
            {"value": -0.1, "low": 0.0, "high": 0.0, "num_pairs": 1},
            {"value": float("nan"), "low": 0.0, "high": 0.0, "num_pairs": 1},
            {"value": 0.1, "low": 0.0, "high": 0.0, "num_pairs": 0},
            {"value": 0.1, "low": 0.0, "high": 0.0, "num_pairs": 1.5},
            {"value": 0.1, "low": 0.0, "high": 0.0, "num_pairs": 1, "more": 2},
        ],
    )
    def test_wrong_json_is_refused(self, content: dict[str, object]) -> None:
        with pytest.raises(InputError, match="noise floor"):
            NoiseFloor.from_dict(content)

    def test_wrong_input_is_refused(self) -> None:
        with pytest.raises(InputError, match="positive"):
            noise_floor([1.0, 0.0], [1.0, 1.0])
        with pytest.raises(InputError, match="NaN"):
            noise_floor([1.0, np.nan], [1.0, 1.0])
        with pytest.raises(InputError, match="one by one"):
            noise_floor([1.0], [1.0, 1.0])
        with pytest.raises(InputError, match="coverage"):
            noise_floor([1.0], [1.0], coverage=1.0)
        with pytest.raises(InputError, match="resamples"):
            noise_floor([1.0], [1.0], resamples=0)

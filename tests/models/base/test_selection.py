from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joulemap import InputError
from joulemap.models.aligned.design import informative_widths
from joulemap.models.base.intervals import FloatArray
from joulemap.models.base.selection import least_variance
from joulemap.models.testing import draw_widths
from joulemap.profiler import networks

NOISE = 0.003


def mean_variance(features: FloatArray, measured: list[int]) -> float:
    """The mean variance of predictions by the textbook: invert the whole precision matrix."""
    told = features[measured].T @ features[measured] / NOISE
    covariance = np.linalg.inv(np.eye(features.shape[1]) + told)
    return float(np.einsum("ij,jk,ik->i", features, covariance, features).mean())


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), num_measured=st.integers(0, 4), num_models=st.integers(1, 3))
def test_each_point_is_the_best_there_is(seed: int, num_measured: int, num_models: int) -> None:
    rng = np.random.default_rng(seed)
    models = [rng.exponential(size=(20, 2 + index)) for index in range(num_models)]
    measured = list(range(num_measured))
    for chosen in islice(least_variance(models, NOISE, num_measured), 6):
        gains = {
            point: sum(
                1 - mean_variance(m, [*measured, point]) / mean_variance(m, measured)
                for m in models
            )
            for point in range(20)
            if point not in measured
        }
        assert gains[chosen] == pytest.approx(max(gains.values()), rel=1e-4)
        measured.append(chosen)


def test_every_point_comes_once_and_measured_ones_never() -> None:
    features = np.random.default_rng(0).normal(size=(12, 3))
    assert sorted(least_variance([features], NOISE, 5)) == list(range(5, 12))
    # A copy of a model changes nothing, nor does the unit of the cost.
    expected = list(least_variance([features], NOISE, 5))
    assert list(least_variance([features, features], NOISE, 5)) == expected
    assert list(least_variance([1e3 * features], 1e6 * NOISE, 5)) == expected


def test_features_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="same points"):
        next(least_variance([np.ones((3, 1)), np.ones((4, 1))], NOISE))
    with pytest.raises(InputError, match="same points"):
        next(least_variance([], NOISE))
    with pytest.raises(InputError, match="not finite"):
        next(least_variance([np.full((3, 1), np.nan)], NOISE))


def test_informative_widths_begin_with_unlike_regimes() -> None:
    """Of misaligned vectors and one aligned, the aligned one is among the first."""
    spec = networks.get("mobilenet_v1")
    candidates = draw_widths(spec, 200) // 2 * 2 + 1
    candidates[150] = np.array(spec.max_widths) // 2 // 16 * 16
    assert 150 in list(islice(informative_widths(spec, candidates), 5))

import numpy as np
import pytest

from joulemap import InputError
from joulemap.datasets import NetworkSpec
from joulemap.models import BilinearPredictor, ContradictionWarning
from joulemap.models.base.intervals import FloatArray
from joulemap.models.testing import draw_widths


def revisited(spec: NetworkSpec, ratios: list[float]) -> tuple[FloatArray, FloatArray]:
    """Return 40 rows of which the first ones occur again, at this ratio of costs."""
    X = draw_widths(spec, 40, 0)
    y = 1e-3 * X.sum(axis=1)
    again = X[: len(ratios)]
    return np.vstack([X, again]), np.concatenate([y, y[: len(ratios)] * ratios])


def test_rows_that_differ_by_noise_are_no_contradiction(alexnet: NetworkSpec) -> None:
    BilinearPredictor(alexnet).fit(*revisited(alexnet, [1.3, 0.7, 1.9]))


def test_a_contradiction_among_good_repetitions_warns(alexnet: NetworkSpec) -> None:
    X, y = revisited(alexnet, [1.02, 0.98, 3.0])
    with pytest.warns(ContradictionWarning, match=rf"1 of 3 .* {y[2]:.4g} and {3 * y[2]:.4g} at"):
        BilinearPredictor(alexnet).fit(X, y)


def test_data_that_mix_two_devices_are_refused(alexnet: NetworkSpec) -> None:
    X, y = revisited(alexnet, [2.5] * 20)
    name = alexnet.width_names[0]
    with pytest.raises(InputError, match=f"20 of 20 repeated rows .* at {name}="):
        BilinearPredictor(alexnet).fit(X, y)
    with pytest.raises(InputError, match="1 of 1"):
        BilinearPredictor(alexnet).fit(*revisited(alexnet, [0.4]))


def test_features_of_a_table_need_not_determine_the_cost(alexnet: NetworkSpec) -> None:
    X, y = revisited(alexnet, [2.5] * 20)
    with pytest.warns(ContradictionWarning, match=r"20 of 20 .* at x0="):
        BilinearPredictor().fit(X, y)


def test_rows_without_weight_do_not_count(alexnet: NetworkSpec) -> None:
    X, y = revisited(alexnet, [5.0])
    weights = np.ones(len(y))
    weights[-1] = 0
    BilinearPredictor(alexnet).fit(X, y, weights)

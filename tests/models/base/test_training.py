from typing import Any, ClassVar

import numpy as np
import pytest

from joulemap import InputError
from joulemap.datasets import LayerProfiles, LayerTime, VariantProfile
from joulemap.models import AutoPredictor, CostModule, LookupTablePredictor, Predictor
from joulemap.models.base.intervals import FloatArray
from joulemap.models.base.training import Training
from joulemap.models.testing import ArrayDataset, draw_widths
from joulemap.profiler import networks

SPEC = networks.get("lenet5")
PARTS = (LayerTime((), (1e-3,)),)


def profiles_of(X: FloatArray) -> LayerProfiles:
    variants = tuple(
        VariantProfile(tuple(int(width) for width in row), PARTS, (1e-3,), (1e-3,)) for row in X
    )
    return LayerProfiles(SPEC, variants)


def test_rows_that_are_left_out_take_their_profiles_with_them() -> None:
    X = draw_widths(SPEC, 5, seed=1)
    elsewhere = draw_widths(SPEC, 1, seed=2)
    training = Training(
        X, np.arange(5.0) + 1, np.ones(5), profiles=profiles_of(np.vstack([X, elsewhere]))
    )
    fold = training.rows(np.arange(5) != 2)
    assert fold.y.tolist() == [1.0, 2.0, 4.0, 5.0]
    assert fold.profiles is not None
    kept = [variant.widths for variant in fold.profiles.variants]
    assert len(kept) == 5
    assert tuple(X[2].astype(int)) not in kept
    assert tuple(elsewhere[0].astype(int)) in kept
    assert (
        Training(X[:1], np.ones(1), np.ones(1), profiles=profiles_of(X[:1]))
        .rows(np.array([False]))
        .profiles
        is None
    )


class Seen(Predictor):
    """Keeps what it is given."""

    state_names: ClassVar[tuple[str, ...]] = ()
    given: list[Training]

    def fit_arrays(self, training: Training) -> None:
        self.given = [*getattr(self, "given", []), training]

    def predict_arrays(self, X: FloatArray) -> FloatArray:
        return np.ones(len(X))

    def exact_module(self) -> CostModule:
        raise InputError("there is none")


def test_a_fit_says_what_its_rows_are() -> None:
    X = draw_widths(SPEC, 12)
    dataset = ArrayDataset(SPEC, X, {"energy_j": np.linspace(1.0, 2.0, 12)})
    (whole,) = Seen().fit_dataset(dataset, "energy_j").given
    assert (whole.unit, whole.target, whole.has_variances) == ("J", "energy_j", True)
    assert whole.profiles is None
    (plain,) = Seen(SPEC).fit(X, np.linspace(1.0, 2.0, 12)).given
    assert (plain.unit, plain.target, plain.has_variances) == ("", "cost", False)


@pytest.mark.parametrize("cls", [AutoPredictor, LookupTablePredictor])
def test_nothing_of_a_fit_is_left_on_the_way(cls: type[Predictor]) -> None:
    assert not {"_has_variances", "_profiled"} & set(dir(cls))


def test_a_predictor_of_the_former_form_works_and_is_told_of_the_new_one() -> None:
    with pytest.warns(DeprecationWarning, match=r"Old\.fit_arrays takes X, y and weights; write"):

        class Old(Predictor):
            def fit_arrays(  # type: ignore[override]
                self, X: FloatArray, y: FloatArray, weights: FloatArray
            ) -> None:
                self.mean_ = float(np.average(y, weights=weights))

            def predict_arrays(self, X: FloatArray) -> FloatArray:
                return np.full(len(X), self.mean_)

            def exact_module(self) -> CostModule:
                raise InputError("there is none")

    X: Any = draw_widths(SPEC, 12)
    assert Old(SPEC).fit(X, np.full(12, 3.0)).predict(X[:2]).tolist() == [3.0, 3.0]

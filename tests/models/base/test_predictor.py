from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks

from joulemap import InputError
from joulemap.datasets import NetworkSpec
from joulemap.models import BilinearPredictor, FlopsPredictor, ParametersPredictor, registry
from joulemap.models.base.extrapolation import ExtrapolationWarning
from joulemap.models.base.predictor import Predictor
from joulemap.models.testing import ArrayDataset, draw_widths


def every_predictor() -> list[Predictor]:
    # Few rows to learn from: these checks ask for the interface, not for accuracy.
    quick: dict[str, dict[str, Any]] = {
        "auto": {"candidates": ["flops", "bilinear"]},
        "gp": {"learning_rows": 12},
        "layerwise": {"divisor": 1, "block": 1},
        "lookup": {"knots": 2, "penalty": 1.0},
        "neural": {"members": 2, "epochs": 5},
        "trees": {"trees": 5},
    }
    # One of transfer needs predictors of data that these checks make up later.
    names = [name for name in registry.names() if name != "transfer"]
    several = [registry.predictor_class(name)(**quick.get(name, {})) for name in names]
    return [*several, BilinearPredictor(method="ridge")]


def expected_failures(predictor: Predictor) -> dict[str, str]:
    """Check name to the reason why it cannot pass."""
    if registry.name_of(predictor) in ("gp", "neural"):
        reason = "the trend is chosen by cross-validation, and a repeated row may lie in two folds"
        return {"check_sample_weight_equivalence_on_dense_data": reason}
    return {}


@pytest.mark.filterwarnings("ignore:Can't check dok sparse matrix:UserWarning")
@parametrize_with_checks(every_predictor(), expected_failed_checks=expected_failures)  # type: ignore[untyped-decorator]
def test_scikit_learn_contract(
    estimator: Predictor, check: Callable[[Predictor], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    # scipy reads the variable when imported; without it the check of array types is skipped.
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")
    monkeypatch.setattr("scipy._lib._array_api_override.SCIPY_ARRAY_API", True)
    check(estimator)


def test_grid_search_in_two_processes(dataset: ArrayDataset) -> None:
    X, y, weights = dataset.xyw("energy_j")
    search = GridSearchCV(
        BilinearPredictor(dataset.spec, method="ridge"), {"ridge": [1e-6, 1e3]}, cv=3, n_jobs=2
    )
    search.fit(X, y, sample_weight=weights)
    assert search.best_params_ == {"ridge": 1e-6}
    assert search.best_score_ > 0.99


def test_cross_val_score_and_pipeline(dataset: ArrayDataset) -> None:
    X, y, _ = dataset.xyw("latency_s")
    scores = cross_val_score(BilinearPredictor(dataset.spec), X, y, cv=4)
    assert scores.min() > 0.99
    pipeline = make_pipeline(FunctionTransformer(), FlopsPredictor(dataset.spec))
    assert pipeline.fit(X, y).predict(X).shape == y.shape
    assert pipeline.score(X, y) < scores.min()


class TestFrames:
    @pytest.fixture
    def frame(self, dataset: ArrayDataset) -> pd.DataFrame:
        X, y, _ = dataset.xyw("energy_j")
        return pd.DataFrame(X, columns=list(dataset.width_names)).assign(energy_j=y)

    def test_other_columns_are_ignored(self, dataset: ArrayDataset, frame: pd.DataFrame) -> None:
        named = BilinearPredictor(dataset.spec).fit(frame, frame["energy_j"])
        X, y, _ = dataset.xyw("energy_j")
        plain = BilinearPredictor(dataset.spec).fit(X, y)
        np.testing.assert_array_equal(named.coef_, plain.coef_)
        assert list(named.feature_names_in_) == list(dataset.width_names)
        assert named.n_features_in_ == 7

    def test_all_missing_columns_are_named(
        self, dataset: ArrayDataset, frame: pd.DataFrame
    ) -> None:
        with pytest.raises(InputError, match="conv2, fc7"):
            BilinearPredictor(dataset.spec).fit(
                frame.drop(columns=["conv2", "fc7"]), frame["energy_j"]
            )

    def test_a_condition_that_varies_is_refused(
        self, dataset: ArrayDataset, frame: pd.DataFrame
    ) -> None:
        frame["batch"] = np.where(frame.index % 2, 1, 8)
        with pytest.raises(InputError, match=r"batch varies .* fit a predictor for each"):
            BilinearPredictor(dataset.spec).fit(frame, frame["energy_j"])

    def test_a_condition_that_is_fixed_is_remembered(
        self, dataset: ArrayDataset, frame: pd.DataFrame
    ) -> None:
        predictor = BilinearPredictor(dataset.spec)
        predictor.fit(frame.assign(batch=8, precision="int8"), frame["energy_j"])
        assert predictor.conditions_ == {"batch": 8, "precision": "int8"}
        assert type(predictor.conditions_["batch"]) is int
        with pytest.raises(InputError, match="fitted at batch 8, X has 1"):
            predictor.predict(frame.assign(batch=1))
        predictor.predict(frame.assign(batch=8))
        with pytest.raises(InputError, match=r"write to_torch\(batch=8\)"):
            predictor.to_torch()
        with pytest.raises(InputError, match="precision"):
            predictor.to_torch(batch=8)
        predictor.to_torch(batch=8, precision="int8")

    def test_without_a_spec_names_must_agree(self, frame: pd.DataFrame) -> None:
        widths = frame.drop(columns="energy_j")
        predictor = BilinearPredictor().fit(widths, frame["energy_j"])
        assert predictor.width_names_ == tuple(widths.columns)
        with pytest.raises(InputError, match="feature names"):
            predictor.predict(widths[list(reversed(widths.columns))])


class VaryingDataset(ArrayDataset):
    @property
    def feature_names(self) -> tuple[str, ...]:
        return (*self.spec.width_names, "batch", "threads")


def test_a_dataset_whose_conditions_vary_is_refused(alexnet: NetworkSpec) -> None:
    dataset = VaryingDataset(alexnet, np.ones((9, 9)), {"latency_s": np.ones(9)})
    with pytest.raises(InputError, match="batch, threads varies"):
        BilinearPredictor().fit_dataset(dataset)


def test_a_dataset_of_another_network_is_refused(dataset: ArrayDataset, mixed: NetworkSpec) -> None:
    with pytest.raises(InputError, match="made for mixed and the dataset measured alexnet"):
        BilinearPredictor(mixed).fit_dataset(dataset)


def test_unknown_target_is_refused(dataset: ArrayDataset) -> None:
    with pytest.raises(InputError, match="power_w"):
        BilinearPredictor().fit_dataset(dataset, "power_w")


def test_dataset_weights_are_used(alexnet: NetworkSpec) -> None:
    X = draw_widths(alexnet, 40)
    y = np.where(np.arange(40) < 20, 1.0, 3.0)
    weights = np.where(np.arange(40) < 20, 1.0, 1e-12)
    dataset = ArrayDataset(alexnet, X, {"energy_j": y}, weights=weights)
    predictor = FlopsPredictor().fit_dataset(dataset, "energy_j")
    np.testing.assert_allclose(predictor.predict(X), 1.0, rtol=1e-6)


@pytest.mark.parametrize(
    "weights", [-np.ones(150), np.full(150, np.nan), np.ones(3), np.zeros(150), "abc"]
)
def test_wrong_weights_are_refused(dataset: ArrayDataset, weights: Any) -> None:
    X, y, _ = dataset.xyw("energy_j")
    with pytest.raises(InputError):
        BilinearPredictor(dataset.spec).fit(X, y, sample_weight=weights)


def test_fitting_again_forgets_the_dataset(dataset: ArrayDataset) -> None:
    predictor = FlopsPredictor().fit_dataset(dataset, "energy_j")
    X, y, _ = dataset.xyw("energy_j")
    predictor.fit(X, y)
    assert (predictor.unit_, predictor.target_, predictor.noise_floor_) == ("", "cost", None)
    assert predictor.conditions_ == {}


def test_extrapolation_names_the_width(dataset: ArrayDataset) -> None:
    predictor = ParametersPredictor().fit_dataset(dataset)
    widths = np.array([dataset.spec.max_widths, dataset.spec.min_widths], dtype=np.float64)
    widths[1, 3] = 300
    with pytest.warns(ExtrapolationWarning, match=r"1 of 2 rows .* conv4: 1\.\.256") as caught:
        predictor.predict(widths)
    assert caught[0].filename == __file__
    with pytest.warns(ExtrapolationWarning) as caught:
        predictor.predict_interval(widths)
    assert caught[0].filename == __file__


def test_interval_of_something_else_is_refused(dataset: ArrayDataset) -> None:
    predictor = ParametersPredictor().fit_dataset(dataset)
    with pytest.raises(InputError, match="'measurement' or 'mean'"):
        predictor.predict_interval(np.ones((1, 7)), of="median")  # type: ignore[arg-type]


def test_a_predictor_outside_the_table_cannot_be_saved(
    dataset: ArrayDataset, tmp_path: Path
) -> None:
    class Mine(FlopsPredictor):
        pass

    with pytest.raises(InputError, match="table of models"):
        Mine().fit_dataset(dataset).save(tmp_path / "mine.safetensors")

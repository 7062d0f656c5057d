import json

import numpy as np
import pytest

from joulemap import InputError
from joulemap.datasets import NetworkSpec
from joulemap.models import BilinearPredictor, cross_validate, fit
from joulemap.models.testing import ArrayDataset, draw_widths


def test_fit_by_name(dataset: ArrayDataset) -> None:
    predictor = fit(dataset, model="bilinear", target="energy_j", method="ridge")
    assert isinstance(predictor, BilinearPredictor)
    assert predictor.method == "ridge"
    assert predictor.target_ == "energy_j"
    assert fit(dataset).target_ == "latency_s"


def test_unknown_model_and_hyperparameter(dataset: ArrayDataset) -> None:
    with pytest.raises(InputError, match=r"no model named 'cubic'; known: .*bilinear, .*flops"):
        fit(dataset, model="cubic")
    with pytest.raises(InputError, match=r"no hyperparameter 'ridge'; known: loss"):
        fit(dataset, model="flops", ridge=1.0)
    with pytest.raises(InputError, match="no hyperparameter 'spec'"):
        fit(dataset, spec=dataset.spec)


def test_cross_validation_ranks_the_true_model_first(dataset: ArrayDataset) -> None:
    table = cross_validate(dataset, target="energy_j")
    assert table.rows[0].model == "bilinear"
    assert {row.model for row in table.rows} == {"bilinear", "flops", "params"}
    best = table["bilinear"]
    # Errors of a right model are the noise floor and what the fit adds.
    assert table.noise_floor is not None
    assert table.noise_floor.value * 0.8 < best.mape < table.noise_floor.value * 1.4
    assert best.mape < 0.5 * table["params"].mape
    assert best.spearman > 0.99
    assert len(best.fold_mapes) == 5
    assert best.mape == pytest.approx(np.mean(best.fold_mapes))
    with pytest.raises(KeyError):
        table["cubic"]


def test_table_as_text_json_and_frame(dataset: ArrayDataset) -> None:
    table = cross_validate(dataset, target="energy_j", splits=3)
    assert "noise floor 1.60% (1.30% to 1.90%, 30 pairs)" in str(table)
    assert len(str(table).splitlines()) == 5
    content = json.loads(json.dumps(table.to_dict()))
    assert content["models"][0]["model"] == "bilinear"
    assert content["noise_floor"]["num_pairs"] == 30
    frame = table.to_pandas()
    assert list(frame.columns) == ["model", "mape", "mape_std", "spearman", "noise_floor"]
    assert len(frame) == 3


def test_same_seed_same_folds(dataset: ArrayDataset) -> None:
    first = cross_validate(dataset, target="energy_j", seed=3)
    assert first == cross_validate(dataset, target="energy_j", seed=3)
    assert first != cross_validate(dataset, target="energy_j", seed=4)


def test_unfitted_predictors_are_candidates(dataset: ArrayDataset) -> None:
    candidate = BilinearPredictor(method="ridge", ridge=1e3)
    table = cross_validate(dataset, [candidate, "bilinear"], "energy_j")
    assert len(table.rows) == 4
    assert table["bilinear (method='ridge', ridge=1000.0)"].mape > table["bilinear"].mape
    assert not hasattr(candidate, "unit_")


def test_visits_of_one_variant_share_a_fold(alexnet: NetworkSpec) -> None:
    # Costs that say nothing about widths: a model that had seen a variant could still tell.
    widths = draw_widths(alexnet, 30)
    cost = np.random.default_rng(0).uniform(1, 2, 30)
    twice = ArrayDataset(alexnet, np.vstack([widths] * 2), {"latency_s": np.tile(cost, 2)})
    once = ArrayDataset(alexnet, widths, {"latency_s": cost})
    assert cross_validate(twice)["flops"].mape == pytest.approx(cross_validate(once)["flops"].mape)
    assert "noise floor not known" in str(cross_validate(once))


def test_too_few_variants_for_the_folds(alexnet: NetworkSpec) -> None:
    small = ArrayDataset(alexnet, draw_widths(alexnet, 4), {"latency_s": np.ones(4)})
    with pytest.raises(InputError, match="4 different variants"):
        cross_validate(small)
    with pytest.raises(InputError, match="splits is 1"):
        cross_validate(small, splits=1)

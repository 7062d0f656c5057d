from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from joulemap import InputError
from joulemap.datasets import LayerSpec, NetworkSpec, Width
from joulemap.models import (
    AlignedBilinearPredictor,
    AutoPredictor,
    BilinearPredictor,
    Predictor,
    load,
)
from joulemap.models.auto import choice, compared
from joulemap.models.base.contradictions import ContradictionWarning
from joulemap.models.base.intervals import FOLDS, assign_folds
from joulemap.models.base.training import Training
from joulemap.models.testing import ArrayDataset, PredictorContract, draw_widths


class TestAuto(PredictorContract):
    def make(self, spec: NetworkSpec | None = None) -> Predictor:
        return AutoPredictor(spec, candidates=["flops", "bilinear"])


@pytest.fixture(scope="module")
def chain() -> NetworkSpec:
    layers = (
        LayerSpec("a", "linear", 8, "a"),
        LayerSpec("b", "linear", "a", "b"),
        LayerSpec("c", "linear", "b", 10),
    )
    return NetworkSpec("chain", "zoo:chain", (8,), (Width("a", 64), Width("b", 64)), layers)


def line(X: np.ndarray) -> np.ndarray:
    """Follows multiply-accumulates."""
    a, b = X.T
    return np.asarray(1e-4 + 1e-7 * (8 * a + a * b + 10 * b))


def bump(X: np.ndarray) -> np.ndarray:
    return np.asarray(line(X) * (1 + 0.5 * np.exp(-(((X[:, 0] - 40) / 10) ** 2))))


def noisy(y: np.ndarray) -> np.ndarray:
    return np.asarray(y * np.exp(0.02 * np.random.default_rng(0).standard_normal(len(y))))


def test_the_simplest_of_equals_is_chosen(chain: NetworkSpec) -> None:
    X = draw_widths(chain, 60)
    auto = AutoPredictor(chain, candidates=["bilinear", "flops"]).fit(X, noisy(line(X)))
    assert type(auto.chosen).__name__ == "FlopsPredictor"
    assert auto.names == ("flops", "bilinear")
    said = " ".join(auto.describe())
    assert said.startswith("flops was chosen of 2 models: it ")
    assert "flops 1." in said
    assert "bilinear 1." in said


def test_what_predicts_clearly_better_is_chosen_and_acts(
    chain: NetworkSpec, tmp_path: Path
) -> None:
    X, new = draw_widths(chain, 60), draw_widths(chain, 50, 1)
    auto = AutoPredictor(chain, candidates=["flops", "gp"]).fit(X, noisy(bump(X)))
    alone = auto.chosen
    assert type(alone).__name__ == "GaussianProcessPredictor"
    assert "best by more than one standard error" in auto.describe()[0]
    np.testing.assert_array_equal(auto.predict(new), alone.predict(new))
    np.testing.assert_array_equal(auto.predict_interval(new), alone.predict_interval(new))
    widths = torch.tensor(new) - 0.3
    for is_smooth in (False, True):
        module, other = (p.to_torch(smooth=is_smooth) for p in (auto, alone))
        torch.testing.assert_close(module(widths), other(widths))
        assert module.max_deviation == pytest.approx(other.max_deviation)
    spread = auto.spread_arrays(new)
    assert spread is not None
    assert spread.min() > 0
    assert auto.held_out_ is not None
    assert auto.held_out_.mean_error < 0.06
    auto.save(tmp_path / "auto.safetensors")
    loaded = load(tmp_path / "auto.safetensors")
    assert loaded.describe() == auto.describe()


def test_held_out_predictions_include_the_choice(chain: NetworkSpec) -> None:
    X = draw_widths(chain, 40)
    y = noisy(bump(X))
    auto = AutoPredictor(chain, candidates=["flops", "bilinear"]).fit(X, y)
    assert auto.held_out_ is not None
    folds, _ = assign_folds(X, FOLDS)
    for fold in range(FOLDS):
        without = AutoPredictor(chain, candidates=["flops", "bilinear"])
        without.fit(X[folds != fold], y[folds != fold])
        expected = without.predict(X[folds == fold])
        np.testing.assert_allclose(auto.held_out_.predicted[folds == fold], expected, rtol=1e-9)


def test_weights_of_a_dataset_are_what_they_are_to_each_model(chain: NetworkSpec) -> None:
    X = draw_widths(chain, 40)
    y = noisy(bump(X))
    ds = ArrayDataset(chain, X, {"latency_s": y}, weights=1 / (0.02 * y) ** 2)
    for alone in (BilinearPredictor(), AlignedBilinearPredictor()):
        name = "bilinear" if isinstance(alone, BilinearPredictor) else "aligned"
        auto = AutoPredictor(candidates=[name]).fit_dataset(ds)
        alone.fit_dataset(ds)
        np.testing.assert_allclose(auto.predict(X), alone.predict(X), rtol=1e-9)
        assert auto.describe()[0].startswith(f"{name} was taken: no other candidate")


def test_who_cannot_be_fitted_is_named_with_the_reason(chain: NetworkSpec, tmp_path: Path) -> None:
    X = draw_widths(chain, 7)
    auto = AutoPredictor(chain, candidates=["flops", "aligned"]).fit(X, line(X))
    assert auto.reasons == {"aligned": "needs 6 variants beside those held out, of 5"}
    auto.save(tmp_path / "auto.safetensors")
    said = load(tmp_path / "auto.safetensors").describe()
    assert "Not fitted: aligned (needs 6 variants beside those held out, of 5)." in said
    with pytest.raises(InputError, match=r"3 samples .* needs at least 4"):
        AutoPredictor(chain, candidates=["flops"]).fit(X[:3], line(X[:3]))


def test_the_choice_is_made_on_a_part_of_many_rows(chain: NetworkSpec) -> None:
    X = draw_widths(chain, 60)
    X = np.vstack([X, X[:20]])
    auto = AutoPredictor(chain, candidates=["flops", "bilinear"], choosing_rows=30)
    auto.fit(X, noisy(line(X)))
    rows, folds = auto.rows_to_choose_on(X)
    chosen = {tuple(row) for row in X[rows].tolist()}
    assert len(chosen) == 30
    # All visits of a variant take part, and share a fold.
    assert len(rows) == sum(tuple(row) in chosen for row in X.tolist())
    for row in chosen:
        assert len(set(folds[(X[rows] == row).all(axis=1)])) == 1
    assert f"from {len(rows)} of 80 measurements in 5 parts" in " ".join(auto.describe())


def test_default_candidates_without_a_network_need_no_layers() -> None:
    assert AutoPredictor().names == ("bilinear", "gp", "neural")


@given(
    arrays(np.float64, (4, 12), elements=st.floats(0, 1)),
    arrays(np.float64, 12, elements=st.floats(0.1, 3)),
)
def test_the_choice_is_the_first_within_one_standard_error(
    errors: np.ndarray, weights: np.ndarray
) -> None:
    table = compared([(row, weights) for row in errors])
    chosen = choice(table)
    means = errors @ weights / weights.sum()
    np.testing.assert_allclose(table[:, 0], means, atol=1e-12)
    assert table[chosen, 2] <= table[chosen, 3]
    assert np.all(table[:chosen, 2] > table[:chosen, 3])
    assert chosen <= np.argmin(means)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"candidates": []}, "candidates is"),
        ({"candidates": "flops"}, "candidates is"),
        ({"candidates": ["flops", "flops"]}, "candidates is"),
        ({"candidates": ["flop"]}, "no model named 'flop'"),
        ({"candidates": [3]}, "candidates is"),
        ({"candidates": ["auto"]}, "'auto' itself"),
        ({"choosing_rows": 1}, "choosing_rows"),
    ],
)
def test_wrong_parameters_are_refused(
    chain: NetworkSpec, wrong: dict[str, Any], message: str
) -> None:
    X = draw_widths(chain, 10)
    with pytest.raises(InputError, match=message):
        AutoPredictor(chain, **wrong).fit(X, line(X))


def test_costs_that_no_candidate_takes_are_refused(chain: NetworkSpec) -> None:
    X = draw_widths(chain, 4)
    auto = AutoPredictor(chain, candidates=["aligned"])
    auto.bind(chain.width_names, unit="", target="cost")
    with pytest.raises(InputError, match=r"none of the candidates .* aligned: needs 6"):
        auto.fit_arrays(Training(X, line(X), np.ones(4)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: setattr(p, "table_", p.table_[:1]), "table_ is no table"),
        (lambda p: setattr(p, "reasons_", {"flops": 1}), "not texts by name"),
        (lambda p: setattr(p, "num_compared_", np.zeros(3)), "num_compared_"),
        (lambda p: setattr(p, "chosen_", ()), "not one predictor"),
        (lambda p: setattr(p, "candidates", ["params", "aligned"]), "none of the candidates"),
    ],
)
def test_a_file_that_does_not_fit_together_is_refused(
    chain: NetworkSpec, tmp_path: Path, change: Callable[[AutoPredictor], None], message: str
) -> None:
    X = draw_widths(chain, 12)
    auto = AutoPredictor(chain, candidates=["flops", "bilinear"]).fit(X, line(X))
    change(auto)
    auto.save(tmp_path / "auto.safetensors")
    with pytest.raises(InputError, match=message):
        load(tmp_path / "auto.safetensors")


def test_contradictory_visits_and_one_absurd_label(chain: NetworkSpec) -> None:
    X = draw_widths(chain, 40)
    X = np.vstack([X, X])
    y = np.concatenate([line(X[:40]), 1.5 * line(X[:40])])
    y[3] *= 1e6
    with pytest.warns(ContradictionWarning):
        auto = AutoPredictor(chain, candidates=["flops", "bilinear"]).fit(X, y)
    assert np.all(np.isfinite(auto.predict(X)))

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from joulemap import InputError
from joulemap.datasets import NetworkSpec
from joulemap.datasets.metrics import mape, spearman
from joulemap.models import (
    AlignedBilinearPredictor,
    BilinearPredictor,
    FlopsPredictor,
    Predictor,
    TransferPredictor,
    TreesPredictor,
    load,
)
from joulemap.models.testing import ArrayDataset, PredictorContract, draw_widths
from joulemap.models.transfer.predictor import SourceStacker, denoise


def other_devices(spec: NetworkSpec, count: int = 80) -> list[Predictor]:
    """Return predictors of two devices, one bound by products of widths and one by widths."""
    widths = draw_widths(spec, count, seed=5)
    latency = [
        1e-3 + 1e-9 * np.sum(widths[:, 1:] * widths[:, :-1], axis=1),
        2e-3 + 1e-6 * widths.sum(axis=1),
    ]
    return [
        BilinearPredictor(loss="relative").fit_dataset(
            ArrayDataset(spec, widths, {"latency_s": y}), "latency_s"
        )
        for y in latency
    ]


class TestTransfer(PredictorContract):
    _sources: dict[str, list[Predictor]] = {}  # noqa: RUF012 - fitted once for all tests

    def make(self, spec: NetworkSpec | None = None) -> Predictor:
        assert spec is not None or self._sources
        if spec is not None and spec.fingerprint not in self._sources:
            self._sources[spec.fingerprint] = other_devices(spec)
        found = next(iter(self._sources.values()))
        return TransferPredictor(spec, sources=self._sources[spec.fingerprint] if spec else found)

    @pytest.fixture(autouse=True)
    def know_sources(self, dataset: ArrayDataset) -> None:
        self.make(dataset.spec)


# -- arrays ----------------------------------------------------------------------------------------


def devices(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return costs on four devices, (count, 4), and on a fifth, a mixture of two of them."""
    rng = np.random.default_rng(seed)
    parts = np.exp(rng.normal(0, 0.5, (count, 3)))
    sources = parts @ np.array([[3, 1, 0, 1], [0, 1, 2, 1], [0, 0, 1, 1.0]]) * [1e-3, 1, 10, 1e-2]
    return sources, 2e-3 * (1 + parts @ [2, 1, 0.3])


@pytest.mark.parametrize("count", [2, 5, 10, 50])
def test_a_mixture_of_devices_is_found(count: int) -> None:
    sources, y = devices(2000)
    stacker = SourceStacker().fit(sources[:count], y[:count])
    error = mape(y[count:], stacker.predict(sources[count:]))
    assert error < {2: 0.4, 5: 0.12, 10: 0.06, 50: 0.02}[count]


def test_a_source_scaled_or_to_a_power_is_found() -> None:
    sources = devices(300)[0][:, :1]
    for y in (7.0 * sources[:, 0], sources[:, 0] ** 0.7):
        predicted = SourceStacker().fit(sources[:10], y[:10]).predict(sources)
        np.testing.assert_allclose(predicted, y, rtol=0.02)


@given(
    scales=st.lists(st.floats(1e-6, 1e6), min_size=5, max_size=5),
    order=st.permutations(range(12)),
)
@settings(max_examples=20, deadline=None)
def test_units_and_order_do_not_matter(scales: list[float], order: list[int]) -> None:
    sources, y = devices(40)
    expected = SourceStacker().fit(sources[:12], y[:12]).predict(sources)
    scaled = sources * scales[:4]
    stacker = SourceStacker().fit(scaled[:12][order], y[:12][order] * scales[4])
    np.testing.assert_allclose(stacker.predict(scaled), expected * scales[4], rtol=1e-6)


def test_one_false_measurement_does_little_harm() -> None:
    sources, y = devices(1000)
    false = y[:12].copy()
    false[3] *= 1e-3
    error = mape(y, SourceStacker().fit(sources[:12], false).predict(sources))
    assert error < 0.2


def test_contradictory_repeats_meet_in_the_middle() -> None:
    sources, y = devices(400)
    rows = np.repeat(np.arange(10), 2)
    contradicting = y[rows] * np.tile([1.1, 1 / 1.1], 10)
    expected = SourceStacker().fit(sources[:10], y[:10]).predict(sources)
    found = SourceStacker().fit(sources[rows], contradicting).predict(sources)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_constant_sources_are_ignored() -> None:
    sources, y = devices(1000)
    constant = np.column_stack([sources, np.full(1000, 0.3)])
    assert mape(y, SourceStacker().fit(constant[:20], y[:20]).predict(constant)) < 0.06
    assert len(set(SourceStacker().select(constant, 20))) == 20
    nothing = SourceStacker().fit(sources[:5], np.full(5, 0.5)).predict(sources)
    assert np.all(np.isfinite(nothing))


@pytest.mark.parametrize(
    ("sources", "cost", "message"),
    [
        (np.ones((5, 2)), np.ones(5), "only 1 different point"),
        (np.eye(5) + 1, np.ones(4), "write 5 finite costs"),
        (np.eye(5) + 1, -np.ones(5), "costs above 0"),
        (np.eye(5), np.ones(5), r"source 1 has the cost 0.0 in row 0"),
        (np.ones(5), np.ones(5), r"shape \(5,\)"),
    ],
)
def test_bad_arrays_are_refused(sources: Any, cost: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        SourceStacker().fit(sources, cost)


def test_other_sources_at_prediction_are_refused() -> None:
    sources, y = devices(9)
    with pytest.raises(InputError, match="3 columns, it was fitted to 4"):
        SourceStacker().fit(sources, y).predict(sources[:, :3])
    for k in (0, 10):
        with pytest.raises(InputError, match=f"{k} of 9 points"):
            SourceStacker().select(sources, k)


def test_chosen_points_begin_with_fewer_and_teach_more_than_random_ones() -> None:
    sources, y = devices(1500)
    chosen = SourceStacker().select(sources, 20)
    assert len(set(chosen)) == 20
    for k in (1, 5, 19):
        np.testing.assert_array_equal(SourceStacker().select(sources, k), chosen[:k])

    def error(rows: np.ndarray) -> float:
        return mape(y, SourceStacker().fit(sources[rows], y[rows]).predict(sources))

    rng = np.random.default_rng(0)
    random = [error(rng.choice(1500, 6, replace=False)) for _ in range(20)]
    assert error(chosen[:6]) < np.median(random)


def test_denoising_undoes_noise_rounding_and_faults() -> None:
    rng = np.random.default_rng(0)
    features = rng.integers(0, 3, (3000, 5)).astype(np.float64)
    true = 3e-3 * np.exp(
        0.4 * features @ np.array([[1, 0.2], [0.5, 1], [0.2, 0.3], [0, 1], [1, 1]])
    )
    rounded = np.maximum(np.round(true, 3), 1e-3) * np.exp(0.1 * rng.standard_normal(true.shape))
    faulty = rng.choice(3000, 6, replace=False)
    rounded[faulty] = 1e-7
    clean = denoise(features, rounded)
    for source in range(2):
        noise = 1.0 - spearman(true[:, source], rounded[:, source])
        assert 1.0 - spearman(true[:, source], clean[:, source]) < 0.5 * noise
        assert mape(true[faulty, source], clean[faulty, source]) < 0.4
    with pytest.raises(InputError, match="a row for each of 3000"):
        denoise(features[:10], rounded)


# -- predictors ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def truth(alexnet: NetworkSpec) -> Callable[[np.ndarray], np.ndarray]:
    """The new device: in parts as the one, in parts as the other."""
    first, second = other_devices(alexnet)

    def cost(widths: np.ndarray) -> np.ndarray:
        return np.asarray(1e-3 + 0.3 * first.predict(widths) + 0.1 * second.predict(widths) ** 1.1)

    return cost


def test_ten_measurements_beat_a_fit_from_scratch(
    alexnet: NetworkSpec, truth: Callable[[np.ndarray], np.ndarray]
) -> None:
    pool, new = draw_widths(alexnet, 300, seed=1), draw_widths(alexnet, 500, seed=2)
    predictor = TransferPredictor(sources=other_devices(alexnet))
    few = pool[predictor.select(pool, 10)]
    errors = []
    for seed in range(3):
        measured = truth(few) * np.exp(0.05 * np.random.default_rng(seed).standard_normal(10))
        predictor.fit(few, measured)
        scratch = AlignedBilinearPredictor(alexnet).fit(few, measured)
        errors.append([mape(truth(new), fitted.predict(new)) for fitted in (predictor, scratch)])
    transferred, alone = np.mean(errors, axis=0)
    assert transferred < 0.04
    assert transferred < alone
    assert not predictor.residual_coef_.any()


def test_a_residual_is_fitted_where_data_show_one(
    alexnet: NetworkSpec, truth: Callable[[np.ndarray], np.ndarray], tmp_path: Path
) -> None:
    def with_step(widths: np.ndarray) -> np.ndarray:
        return truth(widths) * (1.0 + 0.3 * widths[:, 0] / 64)

    X, new = draw_widths(alexnet, 60, seed=1), draw_widths(alexnet, 300, seed=2)
    sources = other_devices(alexnet)[1:]
    predictor = TransferPredictor(sources=sources).fit(X, with_step(X))
    assert predictor.residual_coef_.any()
    few = TransferPredictor(sources=sources).fit(X[:29], with_step(X[:29]))
    assert not few.residual_coef_.any()
    assert mape(with_step(new), predictor.predict(new)) < 0.85 * mape(
        with_step(new), few.predict(new)
    )
    predictor.save(tmp_path / "transfer.safetensors")
    loaded = load(tmp_path / "transfer.safetensors")
    np.testing.assert_array_equal(loaded.predict(new), predictor.predict(new))
    with torch.no_grad():
        cost = loaded.to_torch()(torch.from_numpy(new)).numpy()
    np.testing.assert_allclose(cost, predictor.predict(new), rtol=1e-9)


def test_a_device_that_sources_do_not_explain_is_learned_from_its_own_measurements(
    alexnet: NetworkSpec, tmp_path: Path
) -> None:
    def foreign(widths: np.ndarray) -> np.ndarray:
        return np.asarray(1e-3 + 1e-8 * widths[:, 0] * widths[:, 1])

    X, new = draw_widths(alexnet, 20, seed=1), draw_widths(alexnet, 300, seed=2)
    predictor = TransferPredictor(sources=other_devices(alexnet)).fit(X, foreign(X))
    assert predictor.own_share_ > 0.9
    assert mape(foreign(new), predictor.predict(new)) < 0.02
    predictor.save(tmp_path / "transfer.safetensors")
    loaded = load(tmp_path / "transfer.safetensors")
    np.testing.assert_array_equal(loaded.predict(new), predictor.predict(new))


def test_sources_survive_clones_and_searches(
    alexnet: NetworkSpec, truth: Callable[[np.ndarray], np.ndarray]
) -> None:
    sources = other_devices(alexnet)
    X = draw_widths(alexnet, 12, seed=1)
    predictor = TransferPredictor(sources=sources)
    assert clone(predictor).sources is sources
    assert np.all(cross_val_score(predictor, X, truth(X), cv=3) > 0.9)
    pipeline = clone(make_pipeline(FunctionTransformer(), predictor)).fit(X, truth(X))
    assert pipeline[-1].sources is sources
    before = sources[0].predict(X)
    TransferPredictor(sources=sources).fit(X[:3], 5.0 * truth(X[:3]))
    np.testing.assert_array_equal(sources[0].predict(X), before)


def test_the_smooth_module_consists_of_smooth_ones(alexnet: NetworkSpec) -> None:
    widths = draw_widths(alexnet, 80, seed=3)
    stairs = np.prod(np.ceil(widths / 16)[:, :2], axis=1) * 1e-5 + 1e-4
    data = ArrayDataset(alexnet, widths, {"latency_s": stairs})
    source = AlignedBilinearPredictor(block=16).fit_dataset(data)
    predictor = TransferPredictor(sources=[source]).fit(widths[:10], 3 * stairs[:10])
    smooth = predictor.to_torch(smooth=True)
    assert smooth.max_deviation > 0
    x = torch.tensor(widths[0] - 0.5, requires_grad=True)
    (gradient,) = torch.autograd.grad(smooth(x), x)
    assert torch.all(gradient[:2] > 0)


def test_trees_are_sources_without_a_gradient(alexnet: NetworkSpec) -> None:
    X = draw_widths(alexnet, 40)
    source = TreesPredictor(alexnet, trees=20).fit(X, X.sum(axis=1))
    predictor = TransferPredictor(sources=[source]).fit(X[:8], X[:8].sum(axis=1))
    assert predictor.predict(X).shape == (40,)
    with pytest.raises(InputError, match="trees"):
        predictor.to_torch()


def test_unfit_sources_are_refused(
    alexnet: NetworkSpec, mixed: NetworkSpec, dataset: ArrayDataset
) -> None:
    latency = other_devices(alexnet)
    energy = BilinearPredictor().fit_dataset(dataset, "energy_j")
    foreign = other_devices(mixed)
    with pytest.raises(InputError, match="sources is empty"):
        TransferPredictor().fit_dataset(dataset)
    with pytest.raises(InputError, match="source 0 is str, not a predictor"):
        TransferPredictor(sources=["a.safetensors"]).fit_dataset(dataset)  # type: ignore[list-item]
    with pytest.raises(InputError, match="source 2 predicts mixed, not alexnet"):
        TransferPredictor(sources=[*latency, foreign[0]]).fit_dataset(dataset)
    with pytest.raises(
        InputError, match="source 1 predicts energy_j in J, source 0 latency_s in s"
    ):
        TransferPredictor(sources=[latency[0], energy]).fit_dataset(dataset)
    with pytest.raises(InputError, match="predict energy_j in J, and latency_s is in s"):
        TransferPredictor(sources=[energy]).fit_dataset(dataset)
    with pytest.raises(InputError, match="made for mixed and the dataset measured alexnet"):
        TransferPredictor(sources=foreign).fit_dataset(dataset)
    X = draw_widths(alexnet, 5)
    with pytest.raises(InputError, match="row 1 of y is a cost of -1"):
        TransferPredictor(sources=latency).fit(X, -np.ones(5))
    falling = FlopsPredictor(alexnet).fit(X, np.ones(5))
    falling.intercept_ = -1e9
    with pytest.raises(InputError, match="source 0 predicts costs of 0 or less"):
        TransferPredictor(sources=[falling]).fit(X, np.ones(5))

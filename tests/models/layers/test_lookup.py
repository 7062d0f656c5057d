"""Tables of layers: found in whole variants and in profiles, interpolated, never negative."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from joulemap import InputError
from joulemap.datasets import (
    CostDataset,
    LayerProfiles,
    LayerSpec,
    LayerTime,
    NetworkSpec,
    VariantProfile,
    Width,
)
from joulemap.models import LookupTablePredictor, Predictor, load
from joulemap.models.layers.lookup_grid import LookupGrid
from joulemap.models.testing import PredictorContract

SPEC = NetworkSpec(
    "three",
    "zoo:three",
    (3, 16, 16),
    (Width("a", 64), Width("b", 64), Width("c", 96, 2, 2)),
    (
        LayerSpec("first", "conv", 3, "a", kernel_size=3, in_size=16, out_size=16),
        LayerSpec("second", "conv", "a", "b", kernel_size=3, in_size=16, out_size=16),
        LayerSpec("third", "linear", "b", "c"),
        LayerSpec("last", "linear", "c", 10),
    ),
)


class TestLookup(PredictorContract):
    def make(self, spec: NetworkSpec | None = None) -> Predictor:
        return LookupTablePredictor(spec, knots=3, penalty=1.0)


def true_layers(widths: np.ndarray) -> dict[str, np.ndarray]:
    """Return seconds of each layer: saturating in channels, as no product of them is."""
    a, b, c = widths.T.astype(np.float64)
    return {
        "first": 1e-5 * np.sqrt(a),
        "second": 2e-6 * np.minimum(a, 32) * np.sqrt(b),
        "third": 1e-7 * b * np.minimum(c, 48),
        "last": 2e-7 * c,
    }


def drawn(count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    c = 2 * rng.integers(1, 49, count)
    return np.column_stack([rng.integers(1, 65, (count, 2)), c])


def true_cost(widths: np.ndarray) -> np.ndarray:
    return np.asarray(5e-6 + sum(true_layers(widths).values()))


def measured(count: int, seed: int = 0) -> CostDataset:
    widths = drawn(count, seed)
    noise = np.exp(0.005 * np.random.default_rng(1).standard_normal(count))
    frame = pd.DataFrame(widths, columns=["a", "b", "c"]).assign(
        latency_s=true_cost(widths) * noise
    )
    return CostDataset.from_frame(frame, SPEC)


def profiled(count: int, seed: int = 0) -> LayerProfiles:
    widths, rng = drawn(count, seed), np.random.default_rng(4)
    layers = true_layers(widths)
    variants = []
    for row, vector in enumerate(widths.tolist()):
        total = float(true_cost(widths[row : row + 1])[0])
        share = total / sum(float(cost[row]) for cost in layers.values())
        parts = tuple(
            LayerTime((name,), tuple(cost[row] * share * (1 + 0.02 * rng.standard_normal(5))))
            for name, cost in layers.items()
        )
        variants.append(VariantProfile(tuple(vector), parts, (total,), (total,)))
    return LayerProfiles(SPEC, tuple(variants))


def error_of(predictor: Predictor) -> float:
    new = drawn(200, 9)
    return float(np.mean(np.abs(predictor.predict(new) / true_cost(new) - 1)))


def test_tables_follow_what_no_product_of_channels_does() -> None:
    predictor = LookupTablePredictor().fit_dataset(measured(300))
    assert error_of(predictor) < 0.03
    assert predictor.held_out_ is not None
    assert predictor.held_out_.mean_error < 0.05


def test_misaligned_layers_have_tables_of_their_own() -> None:
    rng = np.random.default_rng(0)
    a, b = (
        np.where(rng.random(240) < 0.6, 8 * rng.integers(1, 9, 240), rng.integers(1, 65, 240))
        for _ in range(2)
    )
    widths = np.column_stack([a, b, np.full(240, 96)])
    aligned = (a % 8 == 0) & (b % 8 == 0)
    cost = 1e-5 + 1e-8 * a * b * np.where(aligned, 1.0, 3.0)
    frame = pd.DataFrame(widths, columns=["a", "b", "c"]).assign(latency_s=cost)
    train, test = CostDataset.from_frame(frame[:160], SPEC), widths[160:]
    found = LookupTablePredictor().fit_dataset(train)
    single = LookupTablePredictor(divisor=1).fit_dataset(train)

    def missed(predictor: LookupTablePredictor) -> float:
        return float(np.mean(np.abs(predictor.predict(test) / cost[160:] - 1)))

    assert found.divisor_ == 8
    assert missed(found) < 0.05 < missed(single)
    with pytest.raises(InputError, match="divisor is 3"):
        LookupTablePredictor(divisor=3).fit_dataset(train)


def test_profiles_tell_what_each_layer_costs() -> None:
    widths = drawn(40, 9)
    truth = true_layers(widths)["second"]

    def error_of_second(predictor: LookupTablePredictor) -> float:
        found = [predictor.layer_costs(row)["second"] for row in widths]
        return float(np.mean(np.abs(np.array(found) / truth - 1)))

    with_profiles = LookupTablePredictor().fit_dataset(measured(60), profiles=profiled(60))
    alone = LookupTablePredictor().fit_dataset(measured(60))
    assert error_of_second(with_profiles) < 0.12
    assert error_of_second(with_profiles) < error_of_second(alone)
    assert error_of(LookupTablePredictor().fit_profiles([profiled(40), profiled(40, 3)])) < 0.05


def test_layers_add_up_and_no_entry_is_negative(tmp_path: Path) -> None:
    predictor = LookupTablePredictor(knots=6).fit_dataset(measured(40))
    assert np.all(predictor.tables_ >= 0)
    for row in drawn(5, 2):
        costs = predictor.layer_costs(row)
        assert sum(costs.values()) == pytest.approx(predictor.predict(row[None])[0])
    predictor.save(tmp_path / "tables.safetensors")
    restored = load(tmp_path / "tables.safetensors")
    new = drawn(20, 3)
    np.testing.assert_array_equal(restored.predict(new), predictor.predict(new))
    with pytest.raises(InputError, match="one width vector of 3"):
        predictor.layer_costs([1.0, 2.0])


def test_between_knots_a_table_is_bilinear() -> None:
    predictor = LookupTablePredictor(knots=2, penalty=1.0, divisor=1).fit_dataset(measured(60))
    grid = LookupGrid(SPEC, np.array([1.0, 1, 2]), np.array([64.0, 64, 96]), 2)
    second = [table.layer for table in grid.tables].index("second")
    low, high = 1.0, 64.0
    a, b = 20.0, 50.0
    u, v = (a - low) / (high - low), (b - low) / (high - low)
    T = predictor.tables_[second, 0]
    expected = (
        (1 - u) * (1 - v) * T[0, 0]
        + u * (1 - v) * T[1, 0]
        + (1 - u) * v * T[0, 1]
        + u * v * T[1, 1]
    )
    assert predictor.layer_costs([a, b, 10.0])["second"] == pytest.approx(expected)
    # Beyond the last knot the last cell goes on.
    beyond = torch.tensor([[70.0, 64.0, 100.0]], dtype=torch.float64)
    np.testing.assert_allclose(
        predictor.to_torch()(beyond).numpy(), predictor.predict_arrays(beyond.numpy())
    )


def test_numbers_that_a_file_gives_as_arrays_are_refused() -> None:
    predictor = LookupTablePredictor(knots=2, penalty=1.0, divisor=1).fit_dataset(measured(20))
    for name in ("constant_", "divisor_", "penalty_"):
        forged = copy.copy(predictor)
        setattr(forged, name, np.ones(3))
        with pytest.raises(InputError, match=f"{name} is not one number"):
            forged.check_state()


def test_what_does_not_fit_is_refused() -> None:
    data = measured(20)
    fit = LookupTablePredictor().fit_dataset
    other = dataclasses.replace(SPEC, name="other", source="zoo:other")
    foreign = LayerProfiles(other, profiled(3).variants)
    with pytest.raises(InputError, match="profiles are of other, the dataset is not"):
        fit(data, profiles=foreign)
    with pytest.raises(InputError, match="profiles are of three and other"):
        fit(data, profiles=[profiled(3), foreign])
    with pytest.raises(InputError, match="there are no profiles"):
        LookupTablePredictor().fit_profiles([])
    energy = data.to_pandas()[["a", "b", "c"]].assign(energy_j=1.0)
    with pytest.raises(InputError, match="profiles hold seconds, and 'energy_j'"):
        fit(CostDataset.from_frame(energy, SPEC), "energy_j", profiles=profiled(3))
    for knots in (1, 2.5, True, "5"):
        with pytest.raises(InputError, match="knots is"):
            LookupTablePredictor(knots=knots).fit_dataset(data)  # type: ignore[arg-type]
    for penalty in (0.0, -1.0, float("nan"), "1"):
        with pytest.raises(InputError, match="penalty is"):
            LookupTablePredictor(penalty=penalty).fit_dataset(data)  # type: ignore[arg-type]

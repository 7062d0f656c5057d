"""Layers of several networks share rates; a network that was never measured follows from them."""

from __future__ import annotations

import dataclasses
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from joulemap import InputError
from joulemap.datasets import (
    CostDataset,
    CostTable,
    LayerProfiles,
    LayerSpec,
    LayerTime,
    NetworkSpec,
    VariantProfile,
    Width,
)
from joulemap.models import (
    AlignedBilinearPredictor,
    LayerwisePredictor,
    Predictor,
    UnmeasuredLayersWarning,
    load,
)
from joulemap.models.aligned.structure import Structure
from joulemap.models.aligned.terms import columns_of, functions_of
from joulemap.models.layers.layerwise_fit import Source
from joulemap.models.layers.terms import KEYS, PLACES, LayerTermTable
from joulemap.models.testing import PredictorContract
from joulemap.profiler import networks

# What the device of these tests costs, in seconds; blocks of 16 output channels, divisor 4.
TRUE_RATES = {
    ("network", "call", "all"): 2e-5,
    ("first convolution", "MACs", "all"): 2e-11,
    ("convolution", "MACs", "aligned"): 1e-11,
    ("convolution", "MACs", "misaligned"): 4e-11,
    ("convolution", "patches", "misaligned"): 2e-10,
    ("convolution", "output elements", "all"): 3e-10,
    ("pointwise convolution", "MACs", "aligned"): 1.5e-11,
    ("pointwise convolution", "MACs", "misaligned"): 5e-11,
    ("linear", "weights", "all"): 1e-10,
    ("pool", "elements", "all"): 4e-10,
    ("elementwise", "elements", "all"): 1e-9,
}
DIVISOR, BLOCK = 4, 16
NAMES = {"vgg16": 32, "squeezenet": 64, "alexnet": 64}


class TestLayerwise(PredictorContract):
    def make(self, spec: NetworkSpec | None = None) -> Predictor:
        return LayerwisePredictor(spec, divisor=4, block=16)


def drawn(spec: NetworkSpec, count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    widths = []
    for row in range(count):
        step = 4 if row % 2 == 0 else 1
        widths.append(
            [
                min(w.max, max(w.min, int(rng.integers(w.min, w.max + 1)) // step * step))
                for w in spec.widths
            ]
        )
    return np.array(widths)


def true_costs(spec: NetworkSpec, widths: np.ndarray) -> tuple[np.ndarray, list[dict[str, float]]]:
    """Return what variants cost, and what each layer of each costs."""
    table = LayerTermTable(spec)
    functions = functions_of(table, widths.astype(np.float64), DIVISOR, BLOCK)
    rates = [TRUE_RATES.get((t.family, t.quantity, t.regime), 0.0) for t in table.terms]
    layers: list[dict[str, float]] = [{} for _ in widths]
    for term, rate in zip(table.terms, rates, strict=True):
        for piece, layer in zip(term.pieces, term.layers, strict=True):
            products = functions[:, piece.left_index] * functions[:, piece.right_index]
            for row, cost in enumerate(rate * piece.coefficient * products):
                layers[row][layer] = layers[row].get(layer, 0.0) + cost
    return columns_of(table.terms, functions) @ np.array(rates), layers


@cache
def measured(name: str, count: int = 60) -> CostDataset:
    spec = networks.get(name, NAMES[name])
    widths = drawn(spec, count)
    noise = np.exp(0.01 * np.random.default_rng(1).standard_normal(count))
    frame = pd.DataFrame(widths, columns=list(spec.width_names))
    frame["latency_s"] = true_costs(spec, widths)[0] * noise
    return CostDataset.from_frame(frame, spec)


@cache
def profiled(name: str, count: int = 15) -> LayerProfiles:
    spec = networks.get(name, NAMES[name])
    widths = drawn(spec, count, seed=5)
    totals, layers = true_costs(spec, widths)
    rng = np.random.default_rng(2)
    variants = []
    for row, total, costs in zip(widths.tolist(), totals, layers, strict=True):
        # What belongs to no layer is spread over the layers, as runs show it.
        share = total / sum(cost for layer, cost in costs.items() if layer)
        parts = tuple(
            LayerTime((layer,), tuple(cost * share * np.exp(0.05 * rng.standard_normal(5))))
            for layer, cost in costs.items()
            if layer and cost > 0
        )
        variants.append(VariantProfile(tuple(row), parts, (1.1 * total,), (total,)))
    return LayerProfiles(spec, tuple(variants))


def error_on(predictor: LayerwisePredictor, name: str) -> float:
    spec = networks.get(name, NAMES[name])
    widths = drawn(spec, 80, seed=9)
    return float(np.mean(np.abs(predictor.predict(widths) / true_costs(spec, widths)[0] - 1)))


@pytest.mark.parametrize("unseen", ["squeezenet", "vgg16"])
def test_a_network_that_was_not_measured_is_predicted(unseen: str) -> None:
    names = [name for name in NAMES if name != unseen]
    spec = networks.get(unseen, NAMES[unseen])
    predictor = LayerwisePredictor(divisor=4, block=16)
    predictor.fit_dataset([measured(name) for name in names], profiles=[profiled(names[0])])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnmeasuredLayersWarning)
        bound = predictor.for_network(spec)
    assert error_on(bound, unseen) < 0.1
    # Vgg16 and alexnet have no pointwise convolutions: squeezenet's cost as other convolutions.
    lower, upper = bound.predict_interval(drawn(spec, 20))
    assert np.all(upper > lower)
    assert bound.held_out_ is not None
    assert bound.held_out_.num_distinct == 2
    assert any("left out" in sentence for sentence in predictor.describe())


def test_rates_are_found_again_from_profiles_alone() -> None:
    predictor = LayerwisePredictor(divisor=4, block=16)
    predictor.fit_profiles([profiled("vgg16"), profiled("squeezenet")])
    assert predictor.spec == networks.get("vgg16", 32)
    assert error_on(predictor, "vgg16") < 0.03
    alexnet = networks.get("alexnet", 64)
    assert error_on(predictor.for_network(alexnet), "alexnet") < 0.1
    assert predictor.unit_ == "s"
    assert predictor.target_ == "latency_s"


def test_divisor_and_block_are_found_by_leaving_networks_out() -> None:
    predictor = LayerwisePredictor(measured("vgg16").spec)
    predictor.fit_dataset(
        [measured("vgg16"), measured("squeezenet")],
        profiles=[profiled("vgg16"), profiled("squeezenet")],
    )
    assert predictor.alignment_ == DIVISOR
    assert predictor.block_ == BLOCK
    assert len({each.structure.pair for each in predictor.candidates_}) == 16


def test_it_is_no_aligned_model_and_takes_none_of_its_choices(tmp_path: Path) -> None:
    predictor = LayerwisePredictor(divisor=4, block=16).fit_dataset(measured("squeezenet"))
    assert not isinstance(predictor, AlignedBilinearPredictor)
    assert predictor.get_params().keys() == {"spec", "divisor", "block"}
    for structure in (Structure(1, 4, is_staircase=True), Structure.of(1, 1, -1)):
        predictor.structure_ = structure
        predictor.save(tmp_path / "forged.safetensors")
        with pytest.raises(InputError, match="not one of single layers"):
            load(tmp_path / "forged.safetensors")


def test_the_module_of_another_network_equals_its_predictions(tmp_path: Path) -> None:
    predictor = LayerwisePredictor(divisor=4, block=16)
    predictor.fit_dataset([measured("vgg16"), measured("squeezenet")])
    alexnet = networks.get("alexnet", 64)
    bound = predictor.for_network(alexnet)
    widths = drawn(alexnet, 20)
    for module in (predictor.to_torch(alexnet), predictor.to_torch(spec=alexnet)):
        cost = module(torch.tensor(widths, dtype=torch.float64))
        np.testing.assert_allclose(cost.numpy(), bound.predict(widths), rtol=1e-9)
        assert module.spec == alexnet
    bound.save(tmp_path / "alexnet.safetensors")
    restored = load(tmp_path / "alexnet.safetensors")
    np.testing.assert_array_equal(restored.predict(widths), bound.predict(widths))
    assert isinstance(restored, LayerwisePredictor)
    again = restored.for_network(measured("vgg16").spec)
    np.testing.assert_allclose(again.coef_, predictor.coef_)
    assert sum(bound.layer_costs(widths[0]).values()) == pytest.approx(bound.predict(widths)[0])


def test_families_without_measurements_cost_as_related_ones_or_are_refused() -> None:
    predictor = LayerwisePredictor(divisor=4, block=16).fit_dataset(
        [measured("alexnet"), measured("vgg16")]
    )
    spec = networks.get("mobilenet_v1", 64)
    with pytest.warns(UnmeasuredLayersWarning, match="depthwise convolution as convolution"):
        bound = predictor.for_network(spec)
    assert np.all(bound.predict(drawn(spec, 5)) > 0)
    widths = (Width("a", 8), Width("b", 8))
    layers = (LayerSpec("fc1", "linear", "4", "a"), LayerSpec("fc2", "linear", "a", "b"))
    chain = NetworkSpec("chain", "zoo:chain", (4,), widths, layers)
    frame = pd.DataFrame(drawn(chain, 30), columns=["a", "b"])
    frame["latency_s"] = 1e-6 * frame["a"] * frame["b"]
    only_linear = LayerwisePredictor(divisor=1, block=1).fit_dataset(
        CostDataset.from_frame(frame, chain)
    )
    with pytest.raises(
        InputError, match="'conv1_1' is a first convolution, and no measured network has"
    ):
        only_linear.for_network(networks.get("vgg16", 32))


def test_what_cannot_be_combined_is_refused() -> None:
    first, second = measured("vgg16"), measured("squeezenet")
    fit = LayerwisePredictor(divisor=4, block=16).fit_dataset
    with pytest.raises(InputError, match="no dataset to fit to"):
        fit([])
    with pytest.raises(InputError, match="there are no profiles"):
        LayerwisePredictor().fit_profiles([])
    table = CostTable(pd.DataFrame({"x": [1.0]}), pd.DataFrame({"latency_s": [1.0]}))
    with pytest.raises(InputError, match="a table of features has no layers"):
        fit([first, table])
    with pytest.raises(InputError, match="profiles of alexnet, but no dataset"):
        fit([first, second], profiles=[profiled("alexnet")])
    one, other = (
        dataclasses.replace(profiled(name), device={"device_id": name})
        for name in ("vgg16", "squeezenet")
    )
    with pytest.raises(InputError, match="several devices: squeezenet, vgg16"):
        LayerwisePredictor().fit_profiles([one, other])
    frames = []
    for ds, batch in ((first, 1), (second, 8)):
        frame = ds.to_pandas().assign(batch=batch)
        columns = [*ds.width_names, "batch", "latency_s"]
        frames.append(CostDataset.from_frame(frame[columns], ds.spec))
    with pytest.raises(InputError, match="differ in batch: 1 and 8"):
        fit(frames)
    energy = first.to_pandas()[[*first.width_names]].assign(energy_j=1.0)
    with pytest.raises(InputError, match="profiles hold seconds, and 'energy_j'"):
        fit(CostDataset.from_frame(energy, first.spec), "energy_j", profiles=profiled("vgg16"))


def test_a_layers_terms_add_up_to_the_networks() -> None:
    data = profiled("squeezenet")
    source = Source(data.spec, data.widths.astype(float), np.ones(15), np.ones(15), data)
    rates = np.zeros(len(KEYS))
    for key, rate in TRUE_RATES.items():
        rates[PLACES[key]] = rate
    whole = source.whole(DIVISOR, BLOCK).columns @ rates
    parts = source.parts(DIVISOR, BLOCK)
    by_variant = np.zeros(15)
    place = 0
    for index, variant in enumerate(data.variants):
        rows = slice(place, place + len(variant.parts))
        by_variant[index] = (parts.columns[rows] @ rates).sum() + 2e-5
        place += len(variant.parts)
    np.testing.assert_allclose(whole, by_variant, rtol=1e-9)

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulemap import InputError
from joulemap.datasets import LayerSpec, NetworkSpec, Width
from joulemap.datasets.metrics import mape
from joulemap.models import AlignedBilinearPredictor, Training
from joulemap.models.aligned.structure import Structure
from joulemap.models.learning_curve import fit_rows
from joulemap.models.testing import draw_widths
from joulemap.profiler import networks, sample
from joulemap.profiler.campaign import sampling
from joulemap.profiler.campaign.sampling import SAMPLERS

PREFIX_STABLE = [name for name, sampler in SAMPLERS.items() if sampler.is_prefix_stable]


def spec_of(*widths: Width) -> NetworkSpec:
    layers = tuple(LayerSpec(f"l{w.name}", "linear", 1, w.name, inputs=("",)) for w in widths)
    return NetworkSpec("n", "zoo:n", (1, 1, 1), widths, layers)


@pytest.mark.parametrize("sampling", sorted(SAMPLERS))
@given(st.data())
def test_samples_are_distinct_within_bounds_and_reproducible(
    sampling: str, data: st.DataObject
) -> None:
    widths = []
    for index in range(data.draw(st.integers(1, 4))):
        multiple = data.draw(st.integers(1, 4))
        low, high = sorted(data.draw(st.lists(st.integers(1, 30), min_size=2, max_size=2)))
        widths.append(Width(f"w{index}", high * multiple, low * multiple, multiple))
    spec = spec_of(*widths)
    possible = int(np.prod([(w.max - w.min) // w.multiple + 1 for w in widths]))
    count = data.draw(st.integers(1, min(possible, 20)))
    seed = data.draw(st.integers(0, 99))
    try:
        vectors = sample(spec, count, sampling=sampling, seed=seed)
    except InputError as error:
        # A space that a sampler cannot exhaust is said, never silently sampled short.
        assert "finds only" in str(error)  # noqa: PT017
        return
    assert len(set(vectors)) == len(vectors) == count
    for vector in vectors:
        assert spec.check_widths(vector) == vector
    assert sample(spec, count, sampling=sampling, seed=seed) == vectors


@pytest.mark.parametrize("sampling", PREFIX_STABLE)
def test_a_longer_sample_begins_with_the_shorter_one(sampling: str) -> None:
    spec = networks.get("mobilenet_v1")
    longest = sample(spec, 300, sampling=sampling, seed=3)
    for count in (1, 3, 64, 65, 200):
        assert sample(spec, count, sampling=sampling, seed=3) == longest[:count]


def test_uniform_draws_as_eccs_generator_does() -> None:
    """methods.md A.7: random.seed(1), randint(1, ub) per width: the first five draws."""
    rows = [
        (18, 146, 33, 131, 61, 4059, 3683),
        (61, 167, 195, 108, 49, 3997, 233),
        (50, 111, 312, 2, 229, 2182, 1875),
        (14, 82, 16, 12, 14, 76, 3123),
        (28, 109, 372, 15, 114, 3588, 4062),
    ]
    assert sample(networks.get("alexnet"), 5, sampling="uniform", seed=1) == rows
    random.seed(1)
    bounds = (64, 192, 384, 256, 256, 4096, 4096)
    assert rows == [tuple(random.randint(1, ub) for ub in bounds) for _ in range(5)]


def test_a_third_of_an_aligned_sample_is_on_one_multiple() -> None:
    vectors = sample(networks.get("mobilenet_v1"), 90, sampling="aligned")
    aligned = [v for v in vectors if all(value % 4 == 0 for value in v)]
    assert len(aligned) == 30
    assert aligned == vectors[2::3]
    gcds = {int(np.gcd.reduce(v)) for v in aligned}
    assert {4, 8, 16, 32} <= gcds


def test_active_samples_need_fewer_vectors_than_sobol() -> None:
    """Forty of them beat sixty, on a device whose kernels change at multiples of 8."""
    spec = networks.get("mobilenet_v1")
    device = AlignedBilinearPredictor(spec, divisor=8, block=8, complexity="compute")
    device.bind(spec.width_names, unit="s", target="latency_s")
    device.structure_ = Structure(8, 8)
    names = [(term.family, term.quantity, term.regime) for term in device.terms().terms]
    device.coef_ = np.zeros(len(names))
    for key, rate in {
        ("network", "call", "all"): 3e-4,
        ("pointwise convolution", "MACs", "aligned"): 1e-11,
        ("pointwise convolution", "MACs", "misaligned"): 2e-11,
        ("depthwise convolution", "MACs", "aligned"): 3e-11,
        ("depthwise convolution", "MACs", "misaligned"): 2e-10,
    }.items():
        device.coef_[names.index(key)] = rate
    model = AlignedBilinearPredictor(spec)
    model.bind(spec.width_names, unit="s", target="latency_s")
    tests = draw_widths(spec, 100, seed=5)
    tests[50:] = np.maximum(tests[50:] // 8, 1) * 8
    truth = device.predict_arrays(tests)
    errors: dict[str, list[float]] = {"active": [], "sobol": []}
    for name, count in (("active", 40), ("sobol", 60)):
        for seed in range(3):
            X = np.array(sample(spec, count, sampling=name, seed=seed), dtype=np.float64)
            noise = 1 + 0.03 * np.random.default_rng(seed).standard_normal(count)
            fitted = fit_rows(model, Training(X, device.predict_arrays(X) * noise, np.ones(count)))
            errors[name].append(mape(truth, fitted.predict_arrays(tests)))
    assert np.mean(errors["active"]) < np.mean(errors["sobol"])


@pytest.mark.parametrize("sampling", ["sobol", "lhs"])
def test_low_discrepancy_samples_spread_better_than_chance(sampling: str) -> None:
    spec = networks.get("mobilenet_v1")
    points = np.array(sample(spec, 64, sampling=sampling)) / np.array(spec.max_widths)
    deviation = np.abs(points[:, 1:].mean(axis=0) - 0.5).max()
    chance = np.array(sample(spec, 64, sampling="uniform")) / np.array(spec.max_widths)
    assert deviation < np.abs(chance[:, 1:].mean(axis=0) - 0.5).max() / 2


@pytest.mark.parametrize("name", networks.names())
def test_active_sampling_knows_every_network(name: str) -> None:
    spec = networks.get(name)
    vectors = sample(spec, 12, sampling="active")
    assert all(spec.check_widths(vector) == vector for vector in vectors)


def test_active_sampling_goes_on_after_its_pool_is_used_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sampling, "POOL_SIZE", 32)
    spec = networks.get("lenet5")
    vectors = sample(spec, 40, sampling="active")
    assert len(set(vectors)) == 40
    assert sample(spec, 20, sampling="active") == vectors[:20]
    tiny = spec_of(Width("a", 3), Width("b", 2))
    assert len(sample(tiny, 6, sampling="active")) == 6


def test_impossible_samples_are_refused() -> None:
    spec = spec_of(Width("a", 3), Width("b", 2))
    assert len(sample(spec, 6, sampling="uniform")) == 6
    with pytest.raises(InputError, match="only 6 width vectors"):
        sample(spec, 7)
    with pytest.raises(InputError, match="at least 1"):
        sample(spec, 0)
    with pytest.raises(InputError, match="known: active, aligned, lhs, sobol, uniform"):
        sample(spec, 1, sampling="magic")

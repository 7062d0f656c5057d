from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulemap import InputError
from joulemap.datasets import LayerSpec, NetworkSpec, Width
from joulemap.profiler import networks, sample
from joulemap.profiler.sampling import SAMPLERS

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
    for count in (1, 2, 3, 17, 64, 65, 128, 200):
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


@pytest.mark.parametrize("sampling", ["sobol", "lhs"])
def test_low_discrepancy_samples_spread_better_than_chance(sampling: str) -> None:
    spec = networks.get("mobilenet_v1")
    points = np.array(sample(spec, 64, sampling=sampling)) / np.array(spec.max_widths)
    deviation = np.abs(points[:, 1:].mean(axis=0) - 0.5).max()
    chance = np.array(sample(spec, 64, sampling="uniform")) / np.array(spec.max_widths)
    assert deviation < np.abs(chance[:, 1:].mean(axis=0) - 0.5).max() / 2


def test_impossible_samples_are_refused() -> None:
    spec = spec_of(Width("a", 3), Width("b", 2))
    assert len(sample(spec, 6, sampling="uniform")) == 6
    with pytest.raises(InputError, match="only 6 width vectors"):
        sample(spec, 7)
    with pytest.raises(InputError, match="at least 1"):
        sample(spec, 0)
    with pytest.raises(InputError, match="known: active, aligned, lhs, sobol, uniform"):
        sample(spec, 1, sampling="magic")

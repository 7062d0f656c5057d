from __future__ import annotations

import math
from fractions import Fraction
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joulemap import InputError
from joulemap.datasets import NetworkSpec, Width
from joulemap.profiler import networks
from joulemap.profiler.networks import SpecBuilder
from joulemap.profiler.templates.generic_widths import MOST_PARAMETERS, GenericWidths, Polynomial


def value_at(polynomial: Polynomial, widths: tuple[int, ...]) -> Fraction:
    if isinstance(polynomial, int):
        return Fraction(polynomial)
    total = sum(
        coefficient * math.prod(widths[index] for index in indices)
        for coefficient, indices in polynomial["terms"]
    )
    return Fraction(total, polynomial["divide"])


def concatenating() -> NetworkSpec:
    widths = [Width("a", 64, 8, 8), Width("b", 40, 4, 4), Width("c", 2000, 900), Width("d", 5)]
    net = SpecBuilder("concatenating", (3, 14, 14), widths)
    first = net.conv("first", "a", 1)
    second = net.conv("second", "b", 1, inputs="")
    third = net.conv("third", "c", 1, inputs="")
    net.concat("two", [first, second])
    net.concat("three", [first, second, third])
    net.conv("last", "a*d", 1)
    net.flatten()
    net.linear("head", 1009)
    return net.spec()


SPEC = concatenating()
GENERIC = GenericWidths(SPEC, batch=223)
OTHER = (16, 12, 901, 3)


def test_widths_keep_their_step_and_least_value() -> None:
    for width, value in zip(SPEC.widths, GENERIC.widths, strict=True):
        assert value >= width.min
        assert value % width.multiple == 0
    assert len(set(GENERIC.primes)) == 4
    assert 223 not in GENERIC.primes
    assert 1009 not in GENERIC.primes
    assert GENERIC.spec.check_widths(GENERIC.widths) == GENERIC.widths
    assert all(math.gcd(*pair) == 1 for pair in combinations(GENERIC.primes, 2))


SIZES = ("a", "b", "c", "d", "a*d", "a+b", "a+b+c", "a*b*c")


@settings(deadline=None)
@given(st.sampled_from(SIZES), st.sampled_from([1, 2, 3, 4, 36, 49, 196, 223]))
def test_every_size_is_explained(size: str, factor: int) -> None:
    names = SPEC.width_names
    there = factor * eval(size, {}, dict(zip(names, GENERIC.widths, strict=True)))  # noqa: S307
    elsewhere = factor * eval(size, {}, dict(zip(names, OTHER, strict=True)))  # noqa: S307
    for sign in (1, -1):
        polynomial = GENERIC.explain(sign * there, "it")
        assert value_at(polynomial, GENERIC.widths) == sign * there
        assert value_at(polynomial, OTHER) == sign * elsewhere


@pytest.mark.parametrize("step", [2, 4, 8])
def test_channels_per_group_are_explained(step: int) -> None:
    polynomial = GENERIC.explain(GENERIC.widths[0] // step, "it")
    assert value_at(polynomial, OTHER) == Fraction(16, step)


@pytest.mark.parametrize("value", [0, 1, -1, 14, 196, 1009, 223, 223 * 1009, 2**63 - 1, -(2**63)])
def test_constants_stay(value: int) -> None:
    assert GENERIC.explain(value, "it") == value


def test_what_no_size_explains_is_refused() -> None:
    a, b, c, d = GENERIC.widths
    for value in (b + c, a - 1, 1231, a * 1231, d * (a + b) * 1231):
        with pytest.raises(InputError, match=f"it is {value}.*no size in its spec"):
            GENERIC.explain(value, "it")


@pytest.mark.parametrize("name", networks.names())
@pytest.mark.parametrize("batch", [1, 211, 227])
def test_zoo(name: str, batch: int) -> None:
    spec = networks.get(name)
    generic = GenericWidths(spec, batch)
    assert generic.spec.at(generic.widths)
    for layer in generic.spec.at(generic.widths).layers:
        value = layer.out_channels * math.prod(layer.out_size) * batch
        assert value_at(generic.explain(value, "it"), generic.widths) == value


def test_a_network_with_wide_layers_has_small_primes() -> None:
    generic = GenericWidths(networks.get("vit"), batch=1)
    assert generic.spec.at(generic.widths).params < MOST_PARAMETERS
    assert generic.explain(3 * 64 * generic.widths[1], "it") == {
        "terms": [[192, [1]]],
        "divide": 1,
    }

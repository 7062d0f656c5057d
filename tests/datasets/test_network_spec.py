from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joulemap import InputError
from joulemap.datasets import LayerSpec, NetworkSpec, Width


def spec_of(*layers: LayerSpec, widths: tuple[Width, ...] = (Width("a", 8),)) -> NetworkSpec:
    return NetworkSpec("n", "zoo:n", (3, 8, 8), widths, layers)


def test_a_resolved_network_counts_macs_parameters_and_bytes(tiny_spec: NetworkSpec) -> None:
    at = tiny_spec.at({"a": 2, "b": 4}, batch=2)
    conv1, conv2, fc = 64 * 9 * 3 * 2, 64 * 9 * 2 * 4, 64 * 4 * 10
    assert at.macs == 2 * (conv1 + conv2 + fc)
    assert at.params == (9 * 3 * 2 + 2) + (9 * 2 * 4 + 4) + (64 * 4 * 10 + 10)
    assert at["conv1"].bytes == 4 * (at["conv1"].params + 2 * 64 * 3 + 2 * 64 * 2)
    assert at["relu1"].macs == at["relu1"].params == 0


def test_layers_evaluate_on_arrays_as_on_ints(tiny_spec: NetworkSpec) -> None:
    a, b = np.array([1, 5, 8]), np.array([3, 7, 16])
    for layer in tiny_spec.layers:
        many = layer.at({"a": a, "b": b})
        for i in range(3):
            one = layer.at({"a": int(a[i]), "b": int(b[i])})
            for quantity in ("macs", "params", "bytes"):
                value = np.broadcast_to(getattr(many, quantity), 3)[i]
                assert value == getattr(one, quantity)


def test_depthwise_and_transposed_convolutions() -> None:
    depthwise = LayerSpec("d", "conv", "a", "a", groups="a", kernel_size=3, out_size=4, bias=False)
    assert depthwise.at({"a": 6}).macs == 9 * 16 * 6
    assert depthwise.at({"a": 6}).params == 9 * 6
    up = LayerSpec("t", "conv_transpose", "a", 4, kernel_size=2, in_size=4, out_size=8)
    assert up.at({"a": 6}).macs == 4 * 16 * 6 * 4


def test_json_reads_back_equal_and_the_fingerprint_is_of_the_content(
    tiny_spec: NetworkSpec,
) -> None:
    again = NetworkSpec.from_json(tiny_spec.to_json())
    assert again == tiny_spec
    assert again.fingerprint == tiny_spec.fingerprint
    other = dataclasses.replace(tiny_spec, widths=(Width("a", 8), Width("b", 15)))
    assert other.fingerprint != tiny_spec.fingerprint


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([LayerSpec("c", "conv", 3, "z")], "'z'"),
        ([LayerSpec("c", "conv", 3, "a", inputs=("nobody",))], "'nobody'"),
        (
            [
                LayerSpec("x", "add", "a", "a", inputs=("y",)),
                LayerSpec("y", "add", "a", "a", inputs=("x",)),
            ],
            "cycle",
        ),
        (
            [
                LayerSpec("c1", "conv", 3, "a", inputs=("",)),
                LayerSpec("c2", "conv", 3, 5, inputs=("",)),
                LayerSpec("s", "add", "a", "a", inputs=("c1", "c2")),
            ],
            "equal",
        ),
        (
            [
                LayerSpec("c1", "conv", 3, "a"),
                LayerSpec("c2", "conv", "2*a", 5, inputs=("c1",)),
            ],
            "2\\*a input channels",
        ),
        ([LayerSpec("c", "conv", 3, "a"), LayerSpec("c", "conv", "a", 4)], "two layers"),
        ([LayerSpec("c", "conv", 3, "a", groups=2)], "does not divide"),
        ([LayerSpec("c", "conv", 3, "a-1")], "out_channels of layer 'c' is 0"),
        ([], "no layers"),
    ],
)
def test_a_network_that_cannot_be_is_refused(layers: list[LayerSpec], message: str) -> None:
    with pytest.raises(InputError, match=message):
        spec_of(*layers)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max": 0}, "max"),
        ({"max": 4, "min": 5}, "min"),
        ({"max": 10, "multiple": 4, "min": 4}, "multiple"),
        ({"max": 2.5}, "max"),
        ({"max": 4, "name": "a b"}, "identifier"),
    ],
)
def test_a_width_that_cannot_be_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Width(**{"name": "a", **arguments})


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        ([1], "2 widths"),
        ([1, 2, 3], "2 widths"),
        ([0, 2], "outside 1..8"),
        ([9, 2], "outside 1..8"),
        ([1.5, 2], "not an int"),
        ([float("nan"), 2], "not an int"),
        ([True, 2], "not an int"),
        ({"a": 1}, "missing"),
        ({"a": 1, "b": 2, "c": 3}, "unknown: c"),
    ],
)
def test_widths_that_do_not_fit_are_refused(
    tiny_spec: NetworkSpec, widths: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        tiny_spec.at(widths)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 99) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@settings(max_examples=200)
@given(st.data())
def test_a_damaged_spec_is_refused_with_a_clear_error(data: st.DataObject) -> None:
    spec = spec_of(LayerSpec("c", "conv", 3, "a", kernel_size=3, out_size=8))
    content = json.loads(spec.to_json())
    target: Any = data.draw(st.sampled_from([content, content["layers"][0], content["widths"][0]]))
    key = data.draw(st.sampled_from(sorted(target)))
    if data.draw(st.booleans()):
        target[key] = data.draw(JSON)
    else:
        del target[key]
    try:
        NetworkSpec.from_json(json.dumps(content))
    except InputError as error:
        assert str(error)  # noqa: PT017


def test_a_spec_is_shown_in_one_line(tiny_spec: NetworkSpec) -> None:
    assert repr(tiny_spec) == "NetworkSpec('tiny', 'zoo:tiny', 2 widths, 4 layers)"

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from joulemap import InputError
from joulemap.datasets import Size

NAMES = ("a", "b", "conv5")


@st.composite
def expressions(draw: st.DrawFn, depth: int = 3) -> str:
    """Texts of the grammar."""
    if depth == 0 or draw(st.booleans()):
        return draw(st.one_of(st.sampled_from(NAMES), st.integers(0, 99).map(str)))
    left, right = draw(expressions(depth - 1)), draw(expressions(depth - 1))
    operator = draw(st.sampled_from(["+", "-", "*", " * "]))
    text = f"({left}){operator}({right})"
    return draw(st.sampled_from([text, f"( {text} )"]))


VALUES = st.fixed_dictionaries({name: st.integers(1, 2048) for name in NAMES})


@given(expressions(), VALUES)
def test_a_size_has_the_value_of_the_text_it_was_written_as(
    text: str, values: dict[str, int]
) -> None:
    assert Size(text).at(values) == eval(text, {"__builtins__": {}}, dict(values))  # noqa: S307


@given(expressions())
def test_the_canonical_text_reads_back_as_an_equal_size(text: str) -> None:
    size = Size(text)
    assert Size(str(size)) == size
    assert hash(Size(str(size))) == hash(size)


@given(expressions(), expressions(), VALUES)
def test_arithmetic_on_sizes_is_arithmetic_on_values(
    left: str, right: str, values: dict[str, int]
) -> None:
    a, b = Size(left), Size(right)
    assert (a + b).at(values) == a.at(values) + b.at(values)
    assert (a - b).at(values) == a.at(values) - b.at(values)
    assert (a * b).at(values) == a.at(values) * b.at(values)


@given(st.text(max_size=40))
def test_any_text_is_a_size_or_a_clear_error(text: str) -> None:
    try:
        size = Size(text)
    except InputError as error:
        assert "size" in str(error)  # noqa: PT017
    else:
        assert Size(str(size)) == size


@pytest.mark.parametrize("text", ["", "a+", "2a", "a//b", "a**b", "(a", "a)", "a.b", "1.5", "ä"])
def test_what_is_no_polynomial_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        Size(text)


@pytest.mark.parametrize("value", [1.5, True, None, [1]])
def test_what_is_no_size_is_refused(value: Any) -> None:
    with pytest.raises(InputError, match="a size is"):
        Size(value)


def test_a_text_that_expands_without_end_is_refused() -> None:
    with pytest.raises(InputError, match="terms"):
        Size("*".join(f"(a{i}+b{i})" for i in range(20)))
    with pytest.raises(InputError, match="parentheses"):
        Size("(" * 400 + "a" + ")" * 400)


def test_sizes_are_evaluated_on_ints_arrays_and_tensors_alike() -> None:
    size = Size("49*conv5+a*b")
    ints = {"a": 2, "b": 3, "conv5": 4}
    arrays = {name: np.full(5, value) for name, value in ints.items()}
    tensors = {name: torch.full((2, 3), float(value)) for name, value in ints.items()}
    assert size.at(ints) == 202
    np.testing.assert_array_equal(size.at(arrays), np.full(5, 202))
    torch.testing.assert_close(size.at(tensors), torch.full((2, 3), 202.0))


def test_products_of_narrow_integers_do_not_overflow() -> None:
    size, expected = Size("9*a*b"), 9 * 40_000**2
    for dtype in (np.uint16, np.int32, np.int64):
        widths = np.array([40_000], dtype=dtype)
        assert size.at({"a": widths, "b": widths}).tolist() == [expected]
        assert size.at({"a": widths[0], "b": widths[0]}) == expected
    tensor = torch.tensor([40_000], dtype=torch.int32)
    assert size.at({"a": tensor, "b": tensor}).tolist() == [expected]


def test_a_missing_width_is_named() -> None:
    with pytest.raises(InputError, match="'conv5'"):
        Size("49*conv5").at({"conv4": 1})


def test_a_size_equals_the_ints_and_texts_it_could_be_written_as() -> None:
    assert Size(64) == 64 == Size("64")
    assert Size("e1+e3") == "e3+e1"
    assert Size("a") != "a+"
    assert {Size("a+b"): 1}[Size("b+a")] == 1


def test_a_size_cannot_be_changed_but_copied() -> None:
    size = Size("2*a")
    with pytest.raises(AttributeError):
        size.terms = {}
    assert copy.deepcopy(size) == size == pickle.loads(pickle.dumps(size))  # noqa: S301

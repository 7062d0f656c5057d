"""The algebra of axes: sizes are kept, and what agrees is the same at all sizes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulemap.profiler.networks.graph import axes as algebra
from joulemap.profiler.networks.graph.axes import Axis, Extent


@st.composite
def some_axes(draw: st.DrawFn) -> Axis:
    """Axes of a few blocks, each a product of ints and free extents."""
    blocks = draw(
        st.lists(
            st.lists(
                st.one_of(st.integers(1, 6), st.integers(2, 6).map(Extent)), min_size=1, max_size=3
            ),
            min_size=1,
            max_size=4,
        )
    )
    return algebra.expand(tuple(tuple(block) for block in blocks))


def test_flattening_and_concatenating_keep_the_order_of_places() -> None:
    first, second = Extent(2), Extent(3)
    axis = algebra.multiply(algebra.join([((first,),), ((second,),)]), algebra.constant(2))
    assert algebra.size_of(axis) == 10
    assert algebra.places(axis, first).tolist() == [0, 0, 1, 1, *[-1] * 6]
    assert algebra.places(axis, second).tolist() == [*[-1] * 4, 0, 0, 1, 1, 2, 2]


def test_an_axis_that_agrees_with_a_concatenation_is_cut_as_that_is() -> None:
    whole, first, second = Extent(5), Extent(2), Extent(3)
    algebra.agree(((whole,),), algebra.join([((first,),), ((second,),)]))
    assert algebra.expand(((whole,),)) == ((first,), (second,))


def test_halves_of_a_shuffled_axis_are_cut_inside_the_groups() -> None:
    inner = Extent(6)
    head, rest = algebra.cut(((inner, 2),), 6)
    assert [algebra.size_of(part) for part in (head, rest)] == [6, 6]
    assert not algebra.is_constant(head)
    assert set(algebra.extents_of(head)).isdisjoint(algebra.extents_of(rest))


def test_a_reshape_into_heads_leaves_both_factors_free() -> None:
    whole = Extent(12)
    heads, features = algebra.peel(((whole,),), 3)
    assert (algebra.size_of(heads), algebra.size_of(features)) == (3, 4)
    assert not algebra.is_constant(heads)
    assert not algebra.is_constant(features)
    assert algebra.expand(((whole,),)) == ((heads[0][0], features[0][0]),)


def test_what_is_tied_to_a_number_is_frozen_with_the_reason() -> None:
    extent = Extent(4)
    algebra.agree(((extent,),), algebra.constant(4), "an output")
    assert algebra.is_constant(((extent,),))
    assert extent.reason == "an output"


def test_sizes_that_differ_do_not_agree() -> None:
    with pytest.raises(ValueError, match="4 and 5"):
        algebra.agree(algebra.free(4), algebra.free(5))


@given(some_axes(), st.data())
def test_a_cut_loses_and_doubles_nothing(axis: Axis, data: st.DataObject) -> None:
    size = algebra.size_of(axis)
    place = data.draw(st.integers(0, size))
    head, rest = algebra.cut(axis, place)
    assert (algebra.size_of(head), algebra.size_of(rest)) == (place, size - place)
    assert algebra.expand(algebra.join([head, rest])) == algebra.expand(axis)


@given(some_axes(), st.data())
def test_a_reshape_there_and_back_is_the_same_axis(axis: Axis, data: st.DataObject) -> None:
    size = algebra.size_of(axis)
    outer = data.draw(st.sampled_from([n for n in range(1, size + 1) if size % n == 0]))
    parts = algebra.peel(axis, outer)
    assert [algebra.size_of(part) for part in parts] == [outer, size // outer]
    assert algebra.size_of(algebra.multiply(*parts)) == size
    again = algebra.multiply(*parts)
    for extent in set(algebra.extents_of(axis)):
        expected = algebra.places(axis, extent)
        assert np.array_equal(algebra.places(again, extent), expected)


@given(some_axes(), st.data())
def test_axes_that_agree_have_the_same_places(axis: Axis, data: st.DataObject) -> None:
    size = algebra.size_of(axis)
    sizes, left = [], size
    while left:
        sizes.append(data.draw(st.integers(1, left)))
        left -= sizes[-1]
    other = algebra.join([algebra.free(part) for part in sizes])
    algebra.agree(axis, other)
    for extent in {*algebra.extents_of(axis), *algebra.extents_of(other)}:
        assert np.array_equal(algebra.places(axis, extent), algebra.places(other, extent))
    assert algebra.size_of(axis) == algebra.size_of(other) == size

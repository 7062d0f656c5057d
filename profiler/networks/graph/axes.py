"""The algebra of axes: how the size of one axis is put together, and when two axes are the same.

An axis of a tensor is a row of blocks, one after the other (a concatenation is such a row). A block
is a product of factors, the outermost first (flattening channels and 49 pixels gives `(c, 49)`; three
stacked projections of 12 heads give `(3, heads, head_dim)`). A factor is an int or an `Extent`, a size
that may still change. The order is kept, so that a layout says not only how long an axis is but also
which of its places belong to which channel::

    conv1 ──► (c1) ──┐
                     ├─ concat ──► (c1)(c2) ── flatten 7 x 7 ──► (c1, 49)(c2, 49)
    conv2 ──► (c2) ──┘

Operators say which axes agree. `agree` makes two axes one, by splitting extents into sums and products
where it must; where it cannot, `freeze` gives the extents the sizes that they have.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import prod
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

# A const factor before a row of blocks is written out as so many rows; beyond this it stays one factor.
MAX_COPIES = 256
# Steps of one `agree`, which real graphs never reach.
MAX_STEPS = 20_000


class Extent:
    """A size that may change: free, or bound to an axis that it equals.

    Attributes:
        size: What it is in the network as found.
        binding: The axis that it is the same as; None while it is free.
        reason: Why it was frozen; None if it was not.
    """

    __slots__ = ("binding", "is_repeated", "reason", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.binding: Axis | None = None
        self.reason: str | None = None
        # Whether it counts equal parts that are computed alike, as attention's heads.
        self.is_repeated = False

    def __repr__(self) -> str:
        return f"Extent({self.size})"


Factor: TypeAlias = "int | Extent"
Block: TypeAlias = "tuple[Factor, ...]"
Axis: TypeAlias = "tuple[Block, ...]"
Places: TypeAlias = "NDArray[np.int64]"


def constant(size: int) -> Axis:
    """Return an axis of a size that does not change."""
    return ((int(size),),)


def free(size: int) -> Axis:
    """Return an axis of a size that may change; of one that may not where it is 1."""
    return ((Extent(int(size)),),) if size > 1 else constant(size)


def size_of(axis: Axis) -> int:
    """Return the size of an axis in the network as found."""
    return sum(_block_size(block) for block in axis)


def extents_of(axis: Axis) -> Iterator[Extent]:
    """Yield the free extents of an axis, in order, each as often as it occurs."""
    for block in axis:
        for factor in block:
            if isinstance(factor, Extent):
                if factor.binding is None:
                    yield factor
                else:
                    yield from extents_of(factor.binding)


def is_constant(axis: Axis) -> bool:
    """Return whether the size of an axis cannot change."""
    return next(extents_of(axis), None) is None


def freeze(axes: Iterable[Axis], reason: str) -> None:
    """Give the extents of axes the sizes that they have.

    Args:
        axes: What must not change.
        reason: Why, in words for the user.
    """
    for axis in axes:
        for extent in list(extents_of(axis)):
            if extent.binding is None:
                extent.binding = constant(extent.size)
                extent.reason = reason


def expand(axis: Axis) -> Axis:
    """Return the same axis in its normal form: bound extents replaced, equal neighbours counted."""
    blocks: list[Block] = []
    for block in axis:
        for item in _expanded(block):
            _append(blocks, item)
    return tuple(blocks)


def join(axes: Sequence[Axis]) -> Axis:
    """Return axes one after another, as a concatenation has them."""
    return expand(tuple(block for axis in axes for block in axis))


def multiply(outer: Axis, inner: Axis) -> Axis:
    """Return two axes flattened into one, the outer one first."""
    inner = expand(inner)
    if len(inner) > 1:
        # Named, so that it can stand as a factor; `expand` writes it out where that is possible.
        part = Extent(size_of(inner))
        part.binding = inner
        inner = ((part,),)
    if not inner:
        return constant(0)
    return expand(tuple(block + inner[0] for block in expand(outer)))


def cut(axis: Axis, length: int) -> tuple[Axis, Axis]:
    """Return an axis up to a place and from there on, extents split where the place lies in them.

    Args:
        axis: What is cut.
        length: Where, from 0 to the size of the axis.
    """
    head: list[Block] = []
    rest = list(expand(axis))
    missing = length
    while missing:
        block = rest.pop(0)
        if _block_size(block) <= missing:
            head.append(block)
            missing -= _block_size(block)
            continue
        first, tail = block[0], block[1:]
        inner = prod(_size(factor) for factor in tail)
        if isinstance(first, int):
            whole, over = divmod(missing, inner)
            if whole:
                head.append((whole, *tail))
            left = first - whole
            if over:  # inside one of the equal parts
                left -= 1
                rest[:0] = [tail, (left, *tail)] if left else [tail]
            else:
                rest.insert(0, (left, *tail))
            missing = over
        elif first.binding is None and missing % inner == 0:
            before, after = free(missing // inner), free(first.size - missing // inner)
            first.binding = before + after
            head.append((before[0][0], *tail))
            rest.insert(0, (after[0][0], *tail))
            missing = 0
        else:
            freeze([((first,),)], "cut at a place that does not scale with it")
            rest[:0] = expand((block,))
    return expand(tuple(head)), expand(tuple(rest))


def peel(axis: Axis, outer_size: int) -> tuple[Axis, Axis]:
    """Return an axis as two, an outer one of the given size and an inner one.

    Args:
        axis: What is split, as a reshape splits it.
        outer_size: A divisor of its size.
    """
    axis = expand(axis)
    inner_size = size_of(axis) // outer_size
    if outer_size == 1:
        return constant(1), axis
    if inner_size == 1:
        return axis, constant(1)
    heads: list[Block] = []
    tails: list[Axis] = []
    for block in axis:
        parts = _peel_block(block, inner_size)
        if parts is None:
            freeze([axis], "reshaped across its parts")
            return constant(outer_size), constant(inner_size)
        heads.append(parts[0])
        tails.append((parts[1],))
    for tail in tails[1:]:
        agree(tails[0], tail)
    return expand(tuple(heads)), expand(tails[0])


def agree(left: Axis, right: Axis, reason: str = "used with a size that does not change") -> None:
    """Make two axes of one size the same.

    Args:
        left: One of them.
        right: The other.
        reason: Why extents are frozen where the other axis is constant.
    """
    if size_of(left) != size_of(right):
        raise ValueError(f"axes of {size_of(left)} and {size_of(right)} cannot agree")
    for _ in range(MAX_STEPS):
        left, right = _without_common(expand(left), expand(right))
        if not left:
            return
        for one, other in ((left, right), (right, left)):
            if len(one) == 1 and len(one[0]) == 1 and isinstance(one[0][0], Extent):
                extent = one[0][0]
                if extent.binding is None:
                    _bind(extent, other, reason)
                    return
        a, b = left[0], right[0]
        if _block_size(a) == _block_size(b):
            _agree_blocks(a, b, reason)
            left, right = left[1:], right[1:]
            continue
        if _block_size(a) < _block_size(b):
            left, right, a, b = right, left, b, a
        head, left = cut(left, _block_size(b))
        agree(head, (b,), reason)
        right = right[1:]
    freeze([left, right], "put together in a way that is not understood")


# -- inside a block -------------------------------------------------------------------------------


def _size(factor: Factor) -> int:
    return factor if isinstance(factor, int) else factor.size


def _block_size(block: Block) -> int:
    return prod(_size(factor) for factor in block)


def _expanded(block: Block) -> list[Block]:
    rows: list[Block] = [()]
    for factor in block:
        if isinstance(factor, int):
            if factor != 1:
                rows = [_times(row, factor) for row in rows]
            continue
        if factor.binding is None:
            rows = [(*row, factor) for row in rows]
            continue
        inner = expand(factor.binding)
        if len(inner) == 1:
            rows = [_chain(row, inner[0]) for row in rows]
            continue
        copies = 1
        if len(rows) == 1 and all(isinstance(item, int) for item in rows[0]):
            copies = prod(int(item) for item in rows[0] if isinstance(item, int))
            if copies * len(inner) <= MAX_COPIES:
                rows = [_chain((), item) for _ in range(copies) for item in inner]
                continue
        # It cannot be written out behind a factor that may change: it stays one factor.
        rows = [(*row, factor) for row in rows]
    return [row or (1,) for row in rows]


def _chain(row: Block, more: Block) -> Block:
    for factor in more:
        row = _times(row, factor) if isinstance(factor, int) else (*row, factor)
    return row


def _times(row: Block, number: int) -> Block:
    if number == 1:
        return row
    last = row[-1] if row else None
    return (*row[:-1], last * number) if isinstance(last, int) else (*row, number)


def _append(blocks: list[Block], block: Block) -> None:
    """Append a block; where it repeats the last one, that one is counted once more."""
    if blocks:
        count, tail = _counted(blocks[-1])
        more, other = _counted(block)
        if tail == other:
            blocks[-1] = (count + more, *tail)
            return
    blocks.append(block)


def _counted(block: Block) -> tuple[int, Block]:
    first = block[0]
    return (first, block[1:]) if isinstance(first, int) else (1, block)


def _without_common(left: Axis, right: Axis) -> tuple[Axis, Axis]:
    start = 0
    while start < min(len(left), len(right)) and left[start] == right[start]:
        start += 1
    left, right = left[start:], right[start:]
    while left and right and left[-1] == right[-1]:
        left, right = left[:-1], right[:-1]
    return left, right


def _bind(extent: Extent, axis: Axis, reason: str) -> None:
    axis = expand(axis)
    if axis == ((extent,),):
        return
    inside = list(extents_of(axis))
    if any(item is extent for item in inside):
        freeze([((extent,),), axis], "tied to a part of itself")
        return
    if extent.is_repeated:
        for item in inside:
            item.is_repeated = True
    if not inside:
        extent.reason = reason
    extent.binding = axis


def _agree_blocks(a: Block, b: Block, reason: str) -> None:
    """Make two products of one size the same, factor by factor from the outermost."""
    for _ in range(MAX_STEPS):
        a, b = _opened(a), _opened(b)
        while a and b and a[0] == b[0]:
            a, b = a[1:], b[1:]
        if not a and not b:
            return
        if not a or not b:  # factors of 1 are left
            return
        first, second = a[0], b[0]
        if _size(first) == _size(second):
            _tie(first, second, reason)
            a, b = a[1:], b[1:]
            continue
        if _size(first) < _size(second):
            a, b, first, second = b, a, second, first
        rest = _size(first) // _size(second)
        if _size(first) % _size(second):
            freeze([(a,), (b,)], "put together in a way that is not understood")
            return
        if isinstance(first, int):
            a = (_size(second), rest, *a[1:])
        elif first.binding is None:
            first.binding = ((Extent(_size(second)), Extent(rest)),)
        else:
            freeze([((first,),)], "split across its parts")
    raise ValueError("two blocks do not come to agree")


def _opened(block: Block) -> Block:
    """Return a block with its first factor written out as factors, if it is bound to a product."""
    while block and isinstance(block[0], Extent) and block[0].binding is not None:
        inner = expand(block[0].binding)
        if len(inner) != 1:
            return block
        block = (*inner[0], *block[1:])
    while block and block[0] == 1:
        block = block[1:]
    return block


def _tie(first: Factor, second: Factor, reason: str) -> None:
    one: Axis = ((first,),)
    other: Axis = ((second,),)
    if isinstance(first, Extent) and first.binding is None:
        _bind(first, other, reason)
    elif isinstance(second, Extent) and second.binding is None:
        _bind(second, one, reason)
    elif isinstance(first, int) or isinstance(second, int):
        freeze([one, other], reason)
    else:
        agree(one, other, reason)


def _peel_block(block: Block, inner_size: int) -> tuple[Block, Block] | None:
    """Return a block as an outer and an inner one; None if its factors do not allow it."""
    inner: list[Factor] = []
    rest = list(block)
    missing = inner_size
    while missing > 1:
        if not rest:
            return None
        last = rest.pop()
        if missing % _size(last) == 0:
            inner.insert(0, last)
            missing //= _size(last)
            continue
        if _size(last) % missing:
            return None
        if isinstance(last, int):
            rest.append(last // missing)
            inner.insert(0, missing)
        elif last.binding is None:
            outer_part, inner_part = Extent(last.size // missing), Extent(missing)
            last.binding = ((outer_part, inner_part),)
            rest.append(outer_part)
            inner.insert(0, inner_part)
        else:
            product = expand(last.binding)
            if len(product) != 1:
                return None
            rest += product[0]
            continue
        missing = 1
    return tuple(rest) or (1,), tuple(inner) or (1,)


# -- which places belong to which channel ----------------------------------------------------------


def places(axis: Axis, extent: Extent) -> Places:
    """Return for each place of an axis the channel of an extent that it belongs to, -1 for none.

    Args:
        axis: An axis of n places.
        extent: A free extent.

    Returns:
        Shape (n,).
    """
    parts = [_block_places(block, extent) for block in axis]
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


def _block_places(block: Block, extent: Extent) -> Places:
    found: Places = np.full(1, -1, np.int64)
    for factor in block:
        if isinstance(factor, int):
            part = np.full(factor, -1, np.int64)
        elif factor is extent:
            part = np.arange(factor.size, dtype=np.int64)
        elif factor.binding is not None:
            part = places(factor.binding, extent)
        else:
            part = np.full(factor.size, -1, np.int64)
        found = np.maximum(found[:, None], part[None, :]).ravel()
    return found

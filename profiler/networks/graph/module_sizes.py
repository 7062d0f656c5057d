"""The sizes that torch modules hold beside their tensors: channels, groups, heads, shapes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from joulemap import InputError

from . import axes as algebra
from .axes import Axis, Extent
from .channel_groups import Staying, size_after
from .layers import scopes_of
from .solver import Solution

if TYPE_CHECKING:
    from torch import nn

# By the path of a module: what sizes that its operators are given become.
Changes: TypeAlias = "Mapping[str, Mapping[int, frozenset[int]]]"
_MAX_LENGTH = 8


@dataclass(frozen=True)
class Guess:
    """A number that a module of a user holds, and what it may have to be.

    Attributes:
        path: The module.
        attribute: Its attribute, an int or a row of ints.
        before: What it is.
        after: What it may become.
        is_sure: Whether every size of this number becomes the same one.
    """

    path: str
    attribute: str
    before: Any
    after: Any
    is_sure: bool


def changes_of(solution: Solution, staying: Staying) -> dict[str, dict[int, frozenset[int]]]:
    """Return what sizes become that operators of each module are given as numbers."""
    found: dict[str, dict[int, frozenset[int]]] = {}
    for place, node in enumerate(solution.model.graph.node):
        pairs = {
            pair
            for item in solution.rewrites.get(place, ())
            for axis in item.values
            for pair in _pairs(axis, staying)
        }
        if all(before == after for before, after in pairs):
            continue
        for path in scopes_of(node):
            own = found.setdefault(path, {})
            for before, after in pairs:
                own[before] = own.get(before, frozenset()) | {after}
    return found


def groups_of(solution: Solution, staying: Staying) -> dict[str, int]:
    """Return the groups of convolutions that are as many as their channels, by module path."""
    found = {}
    for place, node in enumerate(solution.model.graph.node):
        for item in solution.rewrites.get(place, ()):
            if item.attribute == "group":
                for path in scopes_of(node)[-1:]:
                    found[path] = size_after(item.values[0], staying)
    return found


def resize(module: nn.Module, groups: Mapping[str, int]) -> None:
    """Set the sizes that torch's own modules hold to those of their tensors.

    Args:
        module: Its tensors have their new shapes.
        groups: Of convolutions whose groups have changed, by path.

    Raises:
        InputError: A module cannot have these shapes.
    """
    from torch import nn

    for path, item in module.named_modules():
        if isinstance(item, nn.modules.conv._ConvNd):  # noqa: SLF001 - the base of all of them
            item.groups = groups.get(path, item.groups)
            first, second = item.weight.shape[:2]
            if item.transposed:
                item.in_channels, item.out_channels = first, second * item.groups
            else:
                item.in_channels, item.out_channels = second * item.groups, first
        elif isinstance(item, nn.Linear):
            item.out_features, item.in_features = item.weight.shape
        elif isinstance(item, nn.Bilinear):
            item.out_features, item.in1_features, item.in2_features = item.weight.shape
        elif isinstance(item, nn.Embedding | nn.EmbeddingBag):
            item.num_embeddings, item.embedding_dim = item.weight.shape
        elif isinstance(item, nn.GroupNorm) and item.weight is not None:
            item.num_channels = item.weight.shape[0]
        elif isinstance(item, nn.LayerNorm | nn.RMSNorm) and item.weight is not None:
            item.normalized_shape = tuple(item.weight.shape)
        elif isinstance(item, nn.PReLU):
            item.num_parameters = item.weight.numel()
        elif isinstance(item, nn.RNNBase):
            _resize_recurrent(path, item)
        elif isinstance(item, nn.RNNCellBase):
            item.hidden_size, item.input_size = item.weight_hh.shape[1], item.weight_ih.shape[1]
        elif isinstance(item, nn.MultiheadAttention):
            _resize_attention(path, item)
        elif hasattr(item, "num_features") and hasattr(item, "running_mean"):
            values = item.running_mean if item.running_mean is not None else item.weight
            if values is not None:
                item.num_features = len(values)


def set_heads(module: nn.Module, solution: Solution, staying: Staying) -> None:
    """Set the number of heads of torch's attention to those that stay."""
    from torch import nn

    for path, item in module.named_modules():
        if isinstance(item, nn.MultiheadAttention):
            start = f"{path}." if path else ""
            axes = solution.axes.get(f"{start}in_proj_weight") or solution.axes.get(
                f"{start}q_proj_weight"
            )
            if axes is not None:
                item.num_heads = _heads(axes[0], item.num_heads, staying)


def guesses(module: nn.Module, changes: Changes) -> Iterator[Guess]:
    """Yield the numbers in modules of users that are sizes which have changed, or may be."""
    for path, item in module.named_modules():
        if type(item).__module__.startswith("torch.nn."):
            continue
        own = changes.get(path, {})
        for attribute, value in vars(item).items():
            if attribute.startswith("_") or not own:
                continue
            if type(value) is int:
                numbers = sorted(own.get(value, frozenset()))
                for after in numbers:
                    if after != value:
                        yield Guess(path, attribute, value, after, len(numbers) == 1)
            elif (
                isinstance(value, list | tuple)
                and len(value) <= _MAX_LENGTH
                and all(type(number) is int for number in value)
            ):
                sizes = [own.get(number, frozenset({number})) for number in value]
                row = type(value)(max(number) for number in sizes)
                if row != value:
                    yield Guess(path, attribute, value, row, all(len(s) == 1 for s in sizes))


def _pairs(axis: Axis, staying: Staying) -> Iterator[tuple[int, int]]:
    """Yield what an axis, its blocks, their products of extents and its extents become."""
    yield algebra.size_of(axis), size_after(axis, staying)
    for block in axis:
        yield algebra.size_of((block,)), size_after((block,), staying)
        extents = tuple(factor for factor in block if isinstance(factor, Extent))
        if extents:
            yield algebra.size_of((extents,)), size_after((extents,), staying)
        for extent in extents:
            yield extent.size, size_after(((extent,),), staying)


def _resize_recurrent(path: str, item: nn.RNNBase) -> None:
    gates = {"LSTM": 4, "GRU": 3}.get(item.mode, 1)
    rows = {
        len(parameter)
        for name, parameter in item.named_parameters()
        if name.startswith("weight_hh")
    }
    columns = {
        parameter.shape[1]
        for name, parameter in item.named_parameters()
        if name.startswith("weight_hh")
    }
    if len(rows) > 1 or len(columns) > 1:
        raise InputError(
            f"'{path}' is a torch.nn.{type(item).__name__} of {item.num_layers} layers, which must "
            "all have one size; keep as many channels of each of its widths"
        )
    item.hidden_size = rows.pop() // gates
    item.input_size = item.get_parameter("weight_ih_l0").shape[1]
    if item.proj_size:
        item.proj_size = columns.pop()
    item.flatten_parameters()


def _resize_attention(path: str, item: nn.MultiheadAttention) -> None:
    own = item.in_proj_weight
    rows = len(own) // 3 if own is not None else len(item.q_proj_weight)
    columns = own.shape[1] if own is not None else item.q_proj_weight.shape[1]
    values = rows if own is not None else len(item.v_proj_weight)
    if rows % item.num_heads or item.bias_k is not None or item.add_zero_attn:
        raise InputError(
            f"'{path}' is a torch.nn.MultiheadAttention of {item.num_heads} heads that cannot be made "
            f"smaller to {rows} features; freeze its widths"
        )
    outputs = len(item.out_proj.weight)
    if own is not None:
        item.kdim = item.vdim = columns
    else:
        item.kdim, item.vdim = item.k_proj_weight.shape[1], item.v_proj_weight.shape[1]
    before = item.head_dim
    item.embed_dim, item.head_dim = columns, rows // item.num_heads
    if len({rows, columns, values, outputs}) > 1 or item.head_dim != before:
        from .slim_attention import SlimAttention

        if not isinstance(item, SlimAttention):
            SlimAttention.of(item, before**-0.5)


def _heads(axis: Axis, heads: int, staying: Staying) -> int:
    """Return how many of the heads stay that the rows of a projection are made of."""
    for block in axis:
        before = after = 1
        for factor in block:
            size = factor if isinstance(factor, int) else factor.size
            before *= size
            after *= size_after(((factor,),), staying)
            for parts in (1, 3):
                if before == parts * heads and size > 1:
                    return after // parts
    return heads

"""The widths that a network has: of one that was pruned, or of one whose channels are masked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from joulemap import InputError

from ....datasets import NetworkSpec
from . import axes as algebra
from .axes import Axis, Block, Extent
from .channel_groups import Kept, channel_groups
from .derive import DerivedNetwork
from .known import derived_of
from .shrunk_onnx import weights_of

if TYPE_CHECKING:
    import onnx
    from torch import nn

# What modules call the number of their heads, where the shapes of weights do not say it.
_HEADS = ("num_heads", "n_heads", "num_attention_heads", "n_head", "nhead", "heads")


def widths_of(
    model: nn.Module | onnx.ModelProto, spec: NetworkSpec | DerivedNetwork
) -> dict[str, int]:
    """Return the number of channels that a network has of each width.

    A network with the shapes that the spec was derived from is read as a masked one: a channel is
    gone if all its entries in weights of two or more axes are zero: those of what makes it and of
    what reads it. Biases and norms of it do not count, since nothing reads them then. Channels that
    go together (one of each group of a convolution) are gone if all of them are. Where fewer stay
    than the width's `min`, or no multiple of its `multiple`, the next larger width that the spec
    allows is said. A network of other shapes was pruned: its widths are what its shapes say; how
    features are divided into heads is asked of the module (`num_heads`).

    Args:
        model: The torch module, or the ONNX model.
        spec: Of the network before it was pruned, or the derived network.

    Raises:
        InputError: The network was not derived in this process, or the model is another one.
    """
    derived = derived_of(spec)
    weights = _weights(model, derived)
    solution = derived.space.solution
    held = [name for name in solution.parameters() if name in weights]
    changing = [name for name in held if not all(map(algebra.is_constant, solution.axes[name]))]
    if not changing:
        raise InputError(f"the model has no parameter of the network '{derived.spec.name}'")
    if any(weights[name].shape != solution.tensors.shapes[name] for name in held):
        return _pruned(model, derived, weights, held)
    found = {}
    kept = _not_zero(derived, weights)
    for width in derived.spec.widths:
        number = max(len(kept[width.name]), width.min)
        found[width.name] = min(width.max, -(-number // width.multiple) * width.multiple)
    return found


def channels_of(model: nn.Module | onnx.ModelProto, spec: NetworkSpec | DerivedNetwork) -> Kept:
    """Return the channels of each width that a masked network has: what `shrink` takes.

    Args:
        model: With zeros for the channels that are gone, as `widths_of` says.
        spec: Of the network, or the derived network.

    Returns:
        By width: indices, filled up with the first of those that are gone to a number that the spec
        allows.

    Raises:
        InputError: The network was not derived in this process, or the model has other shapes.
    """
    derived = derived_of(spec)
    weights = _weights(model, derived)
    solution = derived.space.solution
    for name in solution.parameters():
        if name in weights and weights[name].shape != solution.tensors.shapes[name]:
            raise InputError(
                f"'{name[:80]}' has the shape {weights[name].shape}, not that of the network "
                f"'{derived.spec.name}': channels of it are not masked but gone"
            )
    numbers = widths_of(model, derived)
    kept = _not_zero(derived, weights)
    groups = channel_groups(derived)
    found = {}
    for name, staying in kept.items():
        own = set(staying)
        for group in groups[name]:
            if len(own) >= numbers[name]:
                break
            own.update(group.channels)
        found[name] = sorted(own)
    return found


def _weights(
    model: nn.Module | onnx.ModelProto, derived: DerivedNetwork
) -> Mapping[str, NDArray[Any]]:
    from onnx import ModelProto

    if isinstance(model, ModelProto):
        return weights_of(derived, model)
    state = [
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ]
    return {
        name: value.detach().float().cpu().numpy()
        for name, value in state
        if value.is_floating_point()
    }


# -- masked ----------------------------------------------------------------------------------------


def _not_zero(derived: DerivedNetwork, weights: Mapping[str, NDArray[Any]]) -> dict[str, list[int]]:
    """Return the channels of each width that are not gone."""
    solution = derived.space.solution
    groups = channel_groups(derived)
    zeros: dict[tuple[str, int], NDArray[np.bool_]] = {}
    found: dict[str, list[int]] = {}
    for name, own in groups.items():
        found[name] = []
        for group in own:
            members = [
                member
                for member in group.members
                if member.parameter in weights and len(solution.axes[member.parameter]) > 1
            ]
            for member in members:
                key = (member.parameter, member.axis)
                if key not in zeros:
                    value = weights[member.parameter]
                    others = tuple(axis for axis in range(value.ndim) if axis != member.axis)
                    zeros[key] = ~np.any(value, axis=others)
            is_gone = members and all(
                zeros[member.parameter, member.axis][list(member.places)].all()
                for member in members
            )
            if not is_gone:
                found[name] += group.channels
        found[name].sort()
    return found


# -- pruned ----------------------------------------------------------------------------------------


def _pruned(
    model: nn.Module | onnx.ModelProto,
    derived: DerivedNetwork,
    weights: Mapping[str, NDArray[Any]],
    names: Iterable[str],
) -> dict[str, int]:
    solution = derived.space.solution
    equations: list[tuple[str, Axis, int]] = []
    for name in names:
        axes, shape = solution.axes[name], weights[name].shape
        if len(axes) != len(shape):
            raise InputError(
                f"'{name[:80]}' has {len(shape)} axes, and {len(axes)} in the network "
                f"'{derived.spec.name}'; the model is another network"
            )
        equations += [(name, axis, int(size)) for axis, size in zip(axes, shape, strict=True)]
    known: dict[Extent, int] = {}
    _solve(equations, known)
    for name, axis, _ in equations:
        heads = _heads_of(model, name)
        for extent in algebra.extents_of(axis):
            if extent.is_repeated and extent not in known and heads:
                known[extent] = heads
    _solve(equations, known)
    found = {}
    for width, extent, step in zip(
        derived.spec.widths, derived.space.extents, derived.space.steps, strict=True
    ):
        if extent not in known:
            raise InputError(
                f"the shapes of the model's weights do not say how large its width '{width.name}' is"
            )
        found[width.name] = known[extent] * step
    for name, axis, size in equations:
        expected = sum(_product(block, known) for block in axis)
        if expected != size:
            raise InputError(
                f"'{name[:80]}' has an axis of {size}, where the other weights of the model ask for "
                f"{expected}; it is no pruned '{derived.spec.name}'"
            )
    return found


def _solve(equations: Iterable[tuple[str, Axis, int]], known: dict[Extent, int]) -> None:
    """Find the sizes that follow from axes with one extent that is not known yet."""
    waiting = list(equations)
    while waiting:
        left = []
        for item in waiting:
            _, axis, size = item
            unknown = {extent for extent in algebra.extents_of(axis) if extent not in known}
            if len(unknown) > 1:
                left.append(item)
                continue
            for extent in unknown:
                fixed = sum(_product(block, {**known, extent: 0}) for block in axis)
                factor = sum(_product(block, {**known, extent: 1}) for block in axis) - fixed
                if factor > 0 and size > fixed and (size - fixed) % factor == 0:
                    known[extent] = (size - fixed) // factor
        if len(left) == len(waiting):
            return
        waiting = left


def _product(block: Block, sizes: Mapping[Extent, int]) -> int:
    return prod(
        factor
        if isinstance(factor, int)
        else sum(_product(own, sizes) for own in factor.binding)
        if factor.binding is not None
        else sizes.get(factor, factor.size)
        for factor in block
    )


def _heads_of(model: Any, name: str) -> int | None:
    """Return the number of heads that the modules around a parameter say, the innermost first."""
    if not hasattr(model, "get_submodule"):
        return None
    path = name
    while path:
        path = path.rpartition(".")[0]
        item = model.get_submodule(path)
        for attribute in _HEADS:
            value = getattr(item, attribute, None)
            if type(value) is int:
                return value
    return None

"""Which places of which parameters belong to each channel of each width, and which of them stay."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from joulemap import InputError

from ....datasets import NetworkSpec
from . import axes as algebra
from .axes import Axis, Extent
from .derive import DerivedNetwork
from .known import derived_of
from .width_space import WidthSpace, parameter_extents

# By width: indices of the channels that stay, a mask over its channels, or how many, from the first.
Kept: TypeAlias = "Mapping[str, int | Sequence[int] | NDArray[Any]]"
# By free extent: whether each of its places stays.
Staying: TypeAlias = "Mapping[Extent, NDArray[np.bool_]]"


@dataclass(frozen=True)
class ChannelMember:
    """Where a channel lies in one axis of a parameter or buffer.

    Attributes:
        parameter: Its path in the module's state, or the name of the ONNX initializer.
        axis: Which axis of it.
        places: Indices along the axis, ascending: 49 of them in a linear layer after a flatten of
            7 x 7 places.
    """

    parameter: str
    axis: int
    places: tuple[int, ...]


@dataclass(frozen=True)
class ChannelGroup:
    """Channels of a width that can only stay or go together, with everything that belongs to them.

    Attributes:
        width: The width's name.
        channels: Which of the width's channels, counted from 0: one, or, where groups of a
            convolution share the width, one of each group.
        members: Where they lie, in the order of the graph. An entry of a parameter stays if all
            groups that it belongs to stay.
    """

    width: str
    channels: tuple[int, ...]
    members: tuple[ChannelMember, ...]


def channel_groups(spec: NetworkSpec | DerivedNetwork) -> dict[str, tuple[ChannelGroup, ...]]:
    """Return which axes of which parameters belong to each channel of each width.

    Args:
        spec: Of a network that was derived in this process, or the derived network.

    Returns:
        By the width's name, in the spec's order: its channels. Those that go together (one of each
        group of a grouped convolution) are one entry, so that a width of 64 channels in 32 groups
        has two.

    Raises:
        InputError: The network was not derived in this process.
    """
    derived = derived_of(spec)
    found = {}
    for position, width in enumerate(derived.spec.widths):
        extent = derived.space.extents[position]
        members: list[list[ChannelMember]] = [[] for _ in range(extent.size)]
        for name, axis, places in _held(derived.space, extent):
            for channel, indices in enumerate(_by_channel(places, extent.size)):
                if len(indices):
                    members[channel].append(ChannelMember(name, axis, tuple(indices.tolist())))
        channels = _by_channel(_layout(derived.space, position), extent.size)
        found[width.name] = tuple(
            ChannelGroup(width.name, tuple(own.tolist()), tuple(parts))
            for own, parts in zip(channels, members, strict=True)
        )
    return found


def staying_places(derived: DerivedNetwork, kept: Kept) -> dict[Extent, NDArray[np.bool_]]:
    """Return which places of each free extent stay.

    Args:
        derived: The network.
        kept: What stays of each width; widths that are not named stay whole.

    Raises:
        InputError: An unknown width, an index outside it, channels of a group without those of the
            others, or a number of channels that the spec does not allow.
    """
    if unknown := sorted(set(kept) - set(derived.spec.width_names)):
        raise InputError(
            f"'{unknown[0][:60]}' is no width of {derived.spec.name}; its widths are "
            f"{', '.join(derived.spec.width_names)[:200]}"
        )
    staying: dict[Extent, NDArray[np.bool_]] = {}
    for position, width in enumerate(derived.spec.widths):
        extent, step = derived.space.extents[position], derived.space.steps[position]
        chosen = kept.get(width.name, width.max)
        if isinstance(chosen, int | np.integer) and not isinstance(chosen, bool):
            number = int(chosen)
            if number % step or not 0 < number <= width.max:
                multiple = f" in multiples of {step}" if step > 1 else ""
                raise InputError(
                    f"width '{width.name}' of {derived.spec.name} is {number}, outside "
                    f"{width.min}..{width.max}{multiple}"
                )
            staying[extent] = np.arange(extent.size) < number // step
        else:
            mask = _mask(width.name, width.max, chosen)
            staying[extent] = _whole(width.name, mask, _layout(derived.space, position), extent)
    derived.spec.check_widths(widths_at(derived.space, staying))
    return staying


def widths_at(space: WidthSpace, staying: Staying) -> tuple[int, ...]:
    """Return the width vector of what stays."""
    return tuple(
        int(staying[extent].sum()) * step
        for extent, step in zip(space.extents, space.steps, strict=True)
    )


def staying_along(axis: Axis, staying: Staying) -> NDArray[np.bool_]:
    """Return whether each place of an axis stays: where all that it is made of stays."""
    parts = []
    for block in axis:
        mask = np.ones(1, np.bool_)
        for factor in block:
            if isinstance(factor, int):
                part = np.ones(factor, np.bool_)
            elif factor.binding is not None:
                part = staying_along(factor.binding, staying)
            else:
                part = staying.get(factor, np.ones(factor.size, np.bool_))
            mask = (mask[:, None] & part[None, :]).ravel()
        parts.append(mask)
    return np.concatenate(parts) if parts else np.ones(0, np.bool_)


def size_after(axis: Axis, staying: Staying) -> int:
    """Return how many places of an axis stay."""
    return sum(prod(_factor_after(factor, staying) for factor in block) for block in axis)


def indices_of(axes: Iterable[Axis], staying: Staying) -> dict[int, NDArray[np.int64]]:
    """Return, for each axis of a tensor that gets smaller, the indices that stay."""
    found = {}
    for place, axis in enumerate(axes):
        if not algebra.is_constant(axis):
            mask = staying_along(axis, staying)
            if not mask.all():
                found[place] = np.flatnonzero(mask)
    return found


def _factor_after(factor: int | Extent, staying: Staying) -> int:
    if isinstance(factor, int):
        return factor
    if factor.binding is not None:
        return size_after(factor.binding, staying)
    return int(staying[factor].sum()) if factor in staying else factor.size


def _held(space: WidthSpace, extent: Extent) -> list[tuple[str, int, NDArray[np.int64]]]:
    """Return the parameters that hold an extent: name, axis, and the channel of each place."""
    names = dict.fromkeys(name for own, name in parameter_extents(space.solution) if own is extent)
    return [
        (name, place, algebra.places(axis, extent))
        for name in names
        for place, axis in enumerate(space.solution.axes[name])
        if any(own is extent for own in algebra.extents_of(axis))
    ]


def _by_channel(places: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    """Return the places of each channel, ascending."""
    order = np.argsort(places, kind="stable")
    ends = np.searchsorted(places[order], np.arange(size + 1))
    return np.split(order, ends)[1:-1]


def _layout(space: WidthSpace, position: int) -> NDArray[np.int64]:
    """Return for each channel of a width the place of its extent.

    Channels are counted as they lie in the first parameter that holds as many of them.
    """
    extent, step = space.extents[position], space.steps[position]
    if step > 1:
        for _, _, places in _held(space, extent):
            own = places[places >= 0]
            if len(own) == step * extent.size:
                return own
    return np.tile(np.arange(extent.size, dtype=np.int64), step)


def _mask(name: str, size: int, chosen: Any) -> NDArray[np.bool_]:
    indices = np.asarray(chosen)
    if indices.dtype == np.bool_ and indices.shape == (size,):
        return indices
    if indices.ndim != 1 or (indices.size and indices.dtype.kind not in "iu"):
        raise InputError(
            f"what stays of width '{name}' must be indices of its {size} channels, a mask of as many "
            "truth values, or a number of channels"
        )
    if not indices.size:
        raise InputError(f"nothing stays of width '{name}'; keep at least one channel")
    if indices.min() < 0 or indices.max() >= size:
        wrong = next(int(index) for index in indices if not 0 <= index < size)
        raise InputError(f"width '{name}' has {size} channels, counted from 0; {wrong} is none")
    mask = np.zeros(size, np.bool_)
    mask[indices] = True
    if mask.sum() != len(indices):
        raise InputError(f"an index of width '{name}' is given twice")
    return mask


def _whole(
    name: str, mask: NDArray[np.bool_], layout: NDArray[np.int64], extent: Extent
) -> NDArray[np.bool_]:
    staying = np.zeros(extent.size, np.bool_)
    staying[layout[mask]] = True
    torn = np.flatnonzero(staying[layout] & ~mask)
    if len(torn):
        place = layout[torn[0]]
        together = np.flatnonzero(layout == place)
        shown = ", ".join(map(str, together[:8].tolist())) + (", ..." if len(together) > 8 else "")
        raise InputError(
            f"channels {shown} of width '{name}' stay or go together, one of each of "
            f"{len(together)} groups, and {torn[0]} is not among those that stay; "
            "networks.channel_groups says which channels go together"
        )
    return staying

"""The width space of a solved graph: which sizes may be chosen, what they are called, what is frozen."""

from __future__ import annotations

import keyword
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from joulemap import InputError

from ....datasets import LayerSpec, Size, Width
from . import axes as algebra
from .axes import Axis, Extent
from .layers import Layers, layers_of, path_of, size_of
from .solver import Solution

# A width's name: as long as a table's column may be.
MAX_NAME = 100
_WITH_WEIGHTS = ("conv", "conv_transpose", "linear", "recurrent", "embedding")


@dataclass(frozen=True)
class WidthSpace:
    """What of a network may change in size.

    Attributes:
        solution: The graph and the axes of its tensors.
        widths: The widths, in the order in which the graph makes them.
        extents: The free extent that each width counts, in steps of the width's own `multiple`.
        steps: How many of a width one place of its extent is: 32 where 32 groups share it.
        layers: The layers, sizes in the widths' names.
        of_nodes: Name of each node's layer, None for nodes that compute nothing.
        names: What the extents are called in `size_of`, before steps.
        makers: Paths of the modules that make each width.
    """

    solution: Solution
    widths: tuple[Width, ...]
    extents: tuple[Extent, ...]
    steps: tuple[int, ...]
    layers: tuple[LayerSpec, ...]
    of_nodes: tuple[str | None, ...]
    names: Mapping[Extent, str]
    makers: tuple[frozenset[str], ...]

    def size(self, axis: Axis) -> Size:
        """Return the size of an axis in places of extents, under the widths' names."""
        return size_of(axis, self.names)


def width_space(
    solution: Solution,
    counted: frozenset[str],
    freeze: Sequence[str] = (),
    multiples: Mapping[str, int] | None = None,
    kept: Sequence[Width] | None = None,
) -> WidthSpace:
    """Return the width space of a solved graph.

    Args:
        solution: The graph and the axes of its tensors; what `freeze` names is frozen in it.
        counted: Names of the constants that count as trainable parameters.
        freeze: Patterns (`*`, `?`) of widths or module paths whose sizes stay.
        multiples: Pattern of widths to a number that they shall be multiples of.
        kept: Widths of a spec of the same network; all others are frozen, in place of `freeze`.

    Raises:
        InputError: Nothing is free, or a pattern or a multiple fits no width.
    """
    space = _space(solution, counted)
    names = space.names
    if kept is not None:
        own = {width.name: width for width in kept}
        for width, extent in zip(space.widths, space.extents, strict=True):
            if width.name not in own:
                algebra.freeze([((extent,),)], "its width is not in the spec")
        if len(own) < len(space.widths):
            space = _space(solution, counted, names)
        widths = tuple(_narrowed(width, own.get(width.name)) for width in space.widths)
        return replace(space, widths=widths)
    if freeze:
        for pattern in freeze:
            found = [
                extent
                for width, extent, paths in zip(
                    space.widths, space.extents, space.makers, strict=True
                )
                if any(fnmatchcase(name, pattern) for name in (width.name, *paths))
            ]
            if not found:
                raise InputError(_unknown(pattern, space.widths))
            algebra.freeze([((extent,),) for extent in found], f"frozen by '{pattern}'")
        space = _space(solution, counted, names)
    return _with_multiples(space, multiples or {})


def parameter_extents(solution: Solution) -> Iterator[tuple[Extent, str]]:
    """Yield the free extents of the float constants, with the constant's name, in graph order."""
    seen = set()
    order: list[str] = []
    for node in solution.model.graph.node:
        for name in node.input:
            if name in solution.tensors.constants and name not in seen:
                seen.add(name)
                order.append(name)
    for name in order:
        if solution.tensors.dtypes[name].kind == "f":
            for axis in solution.axes[name]:
                for extent in algebra.extents_of(axis):
                    yield extent, name


def _narrowed(width: Width, own: Width | None) -> Width:
    """Return a width with the bounds that a spec gives it, where they fit."""
    if own is None or own.max != width.max or own.multiple % width.multiple:
        return width
    return own


def _space(
    solution: Solution, counted: frozenset[str], known: Mapping[Extent, str] | None = None
) -> WidthSpace:
    holders: dict[Extent, list[str]] = {}
    for extent, name in parameter_extents(solution):
        holders.setdefault(extent, []).append(name)
    if not holders:
        raise InputError(_nothing_free(solution))
    short = {extent: f"_{number}" for number, extent in enumerate(holders)}
    layers = layers_of(solution, short, counted)
    steps = _steps(layers.specs, short)
    names = _names(layers, holders, known or {})
    ordered = list(names)
    makers = _makers(layers, holders)
    widths = tuple(
        Width(
            names[extent],
            max=extent.size * steps[extent],
            min=steps[extent],
            multiple=steps[extent],
        )
        for extent in ordered
    )
    renamed = {short[extent]: (names[extent], steps[extent]) for extent in ordered}
    return WidthSpace(
        solution,
        widths,
        tuple(ordered),
        tuple(steps[extent] for extent in ordered),
        tuple(_renamed(spec, renamed) for spec in layers.specs),
        tuple(layers.of_nodes),
        names,
        tuple(frozenset(makers[extent]) for extent in ordered),
    )


def _nothing_free(solution: Solution) -> str:
    if solution.frozen:
        first = solution.frozen[0]
        return (
            f"no width of the network can be chosen: {first.operator} '{first.node[:60]}' is not "
            f"understood ({first.reason[:150]}), and what it reads and writes keeps its size"
        )
    return (
        "no width of the network can be chosen: every size in it is tied to its inputs or outputs; "
        "a network needs a hidden layer"
    )


def _steps(specs: Sequence[LayerSpec], short: Mapping[Extent, str]) -> dict[Extent, int]:
    """Return in what steps each extent shows in the layers: 32 of a convolution in 32 groups."""
    by_name = dict.fromkeys(short.values(), 0)
    for spec in specs:
        sizes = [spec.in_channels, spec.out_channels, spec.groups]
        for size in sizes if spec.kind in _WITH_WEIGHTS else ():
            for monomial, coefficient in size.terms.items():
                if spec.kind == "recurrent":
                    coefficient //= math.gcd(coefficient, spec.directions)
                for name in monomial:
                    step = coefficient if len(monomial) == 1 else 1
                    by_name[name] = math.gcd(by_name[name], step)
    return {extent: by_name[name] or 1 for extent, name in short.items()}


def _renamed(spec: LayerSpec, names: Mapping[str, tuple[str, int]]) -> LayerSpec:
    values = dict(vars(spec))
    if spec.kind in ("linear", "matmul"):
        values |= _in_fewer_products(spec, names)
    for key, side in (("in_channels", "in_size"), ("out_channels", "out_size"), ("groups", "")):
        missing = _missing(values[key], names)
        if missing > 1:
            # Channels and a side of the map were one number: the steps are taken from the map.
            height, width = values[side]
            values[key] *= missing
            values[side] = (1, max(1, height * width // missing))
        values[key] = _in_widths(values[key], names)
    if spec.parameters is not None:
        # Weights of a grouped convolution are a product of widths divided by the groups, which its
        # kind says as well.
        is_whole = _missing(spec.parameters, names) == 1
        values["parameters"] = _in_widths(spec.parameters, names) if is_whole else None
        if not is_whole and spec.kind in ("conv", "conv_transpose"):
            values["extra_parameters"] = _in_widths(spec.parameters - _of_kind(spec), names)
    if values["kind"] in ("add", "concat", "norm", "activation", "pool") and (
        (values["in_size"], values["out_size"]) != (spec.in_size, spec.out_size)
    ):
        values["kind"] = "elementwise"
    return LayerSpec(**values)


def _in_fewer_products(spec: LayerSpec, names: Mapping[str, tuple[str, int]]) -> dict[str, Any]:
    """Return the sizes of products in the widths' steps.

    Where the groups of a convolution are the heads of attention, a width counts all heads together:
    the products of single heads are one of as many groups.
    """
    sizes = (spec.in_channels, spec.out_channels, spec.groups)
    missing = math.lcm(*(_missing(size, names) for size in sizes))
    if spec.positions % missing:
        return {}
    channels = {
        "in_channels": spec.in_channels * missing,
        "out_channels": spec.out_channels * missing,
        "groups": spec.groups * missing,
    }
    return {**channels, "positions": spec.positions // missing}


def _of_kind(spec: LayerSpec) -> Size:
    """Return the parameters of a convolution in groups, as its kind has them."""
    weights = (spec.in_channels * spec.out_channels).divided_by(spec.groups)
    if weights is None:
        return spec.parameters or Size(0)
    return weights * math.prod(spec.kernel_size) + (spec.out_channels if spec.bias else Size(0))


def _missing(size: Size, names: Mapping[str, tuple[str, int]]) -> int:
    """Return what a size must be multiplied by to be whole in the widths."""
    found = 1
    for monomial, coefficient in size.terms.items():
        divisor = math.prod(names[name][1] for name in monomial)
        found = math.lcm(found, divisor // math.gcd(divisor, coefficient))
    return found


def _in_widths(size: Size, names: Mapping[str, tuple[str, int]]) -> Size:
    total = Size(0)
    for monomial, coefficient in size.terms.items():
        product = Size(coefficient // math.prod(names[name][1] for name in monomial))
        for name in monomial:
            product *= Size(names[name][0])
        total += product
    return total


# -- names -----------------------------------------------------------------------------------------


def _names(
    layers: Layers, holders: Mapping[Extent, Sequence[str]], known: Mapping[Extent, str]
) -> dict[Extent, str]:
    """Return a name for each extent: the path of the module that makes it, in graph order."""
    if known:
        return {extent: name for extent, name in known.items() if extent in holders}
    found: dict[Extent, str] = {}
    taken: set[str] = set()
    for axis, path in layers.producers:
        new = [
            extent
            for extent in dict.fromkeys(algebra.extents_of(axis))
            if extent in holders and extent not in found
        ]
        for number, extent in enumerate(new):
            name = _identifier(path)
            if len(new) > 1:
                name += _suffix(new, number)
            found[extent] = _unique(name, taken)
    for extent, names in holders.items():
        if extent not in found:
            found[extent] = _unique(_identifier(path_of(names[0])), taken)
    return found


def _suffix(extents: Sequence[Extent], number: int) -> str:
    if len(extents) == 2 and extents[0].is_repeated != extents[1].is_repeated:
        return "_heads" if extents[number].is_repeated else "_head_dim"
    return f"_{number}"


def _identifier(path: str) -> str:
    name = re.sub(r"[^A-Za-z0-9_]+", "_", path).strip("_")[-MAX_NAME:] or "width"
    if name[0].isdigit() or keyword.iskeyword(name):
        name = f"w_{name}"
    return name


def _unique(name: str, taken: set[str]) -> str:
    number, free = 2, name
    while free in taken:
        free = f"{name}_{number}"
        number += 1
    taken.add(free)
    return free


# -- what users choose -----------------------------------------------------------------------------


def _makers(layers: Layers, holders: Mapping[Extent, Sequence[str]]) -> dict[Extent, set[str]]:
    """Return the paths of the modules that make each extent; of those that hold it, if none does."""
    found: dict[Extent, set[str]] = {extent: set() for extent in holders}
    for axis, path in layers.producers:
        for extent in algebra.extents_of(axis):
            if extent in found:
                found[extent].add(path)
    return {
        extent: paths or {path_of(name) for name in holders[extent]}
        for extent, paths in found.items()
    }


def _with_multiples(space: WidthSpace, multiples: Mapping[str, int]) -> WidthSpace:
    widths = list(space.widths)
    for pattern, number in multiples.items():
        places = [place for place, width in enumerate(widths) if fnmatchcase(width.name, pattern)]
        if not places:
            raise InputError(_unknown(pattern, widths))
        for place in places:
            width = widths[place]
            step = math.lcm(width.multiple, number)
            if number < 1 or width.max % step:
                raise InputError(
                    f"width '{width.name}' has {width.max} channels, which is no multiple of {step}; "
                    f"choose a divisor of {width.max} for --multiple"
                )
            widths[place] = Width(width.name, width.max, min=step, multiple=step)
    return replace(space, widths=tuple(widths))


def _unknown(pattern: str, widths: Sequence[Width]) -> str:
    names = ", ".join(width.name for width in widths)
    names = names if len(names) < 200 else f"{names[:200]}..."
    return f"'{pattern[:60]}' fits no width of the network; its widths are {names}"

"""Which width vectors to measure.

A sampler is a function (spec, seed) -> endless iterator of width vectors, so that a longer sample
begins with the shorter one (prefix-stable), or (spec, count, seed) -> width vectors where the
method needs the count beforehand (Latin hypercubes).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from types import MappingProxyType

import numpy as np
from scipy.stats import qmc

from joulemap import InputError
from joulemap.plug_ins import PlugIns

from ...datasets import NetworkSpec, Width
from ...models.aligned.design import informative_widths
from ..networks.factories import users_code

WidthTuple = tuple[int, ...]
Draw = Callable[[NetworkSpec, int, int], Iterable[WidthTuple]]

ALIGNMENTS = (4, 8, 16, 32)
# How often a sampler may repeat itself before the space counts as exhausted.
MAX_REPEATS = 10_000
# `active` chooses among so many vectors at a time, at most a quarter of them.
POOL_SIZE = 1024
POOL_SHARE = 4


@dataclass(frozen=True)
class Sampler:
    """A way to choose width vectors.

    Args:
        draw: (spec, count, seed) -> at least `count` vectors of ints, in order; repeats allowed.
            The same arguments give the same vectors: that is how a campaign continues.
        is_prefix_stable: Whether a larger count only adds vectors.
    """

    draw: Draw
    is_prefix_stable: bool


def sample(
    spec: NetworkSpec, count: int, *, sampling: str = "sobol", seed: int = 0
) -> list[WidthTuple]:
    """Return `count` distinct width vectors in channels.

    Args:
        spec: The network.
        count: How many.
        sampling: Name of the sampler, see `names`.
        seed: The same seed gives the same vectors.

    Raises:
        InputError: Unknown sampler, or the network has fewer width vectors than that.
    """
    sampler = sampler_named(sampling)
    if count < 1:
        raise InputError(f"samples is {count}; at least 1 is needed")
    possible = math.prod(len(values_of(width)) for width in spec.widths)
    if count > possible:
        raise InputError(f"{spec.name} has only {possible} width vectors, {count} were asked for")
    chosen: dict[WidthTuple, None] = {}
    repeats = 0
    for vector in sampler.draw(spec, count, seed):
        repeats = 0 if vector not in chosen else repeats + 1
        chosen[vector] = None
        if len(chosen) == count:
            return list(chosen)
        if repeats > MAX_REPEATS:
            break
    raise InputError(
        f"{sampling} sampling finds only {len(chosen)} different width vectors of {spec.name}, "
        f"{count} were asked for; use --sampling uniform"
    )


def values_of(width: Width) -> range:
    """Return the values that a width can take, in channels."""
    return range(width.min, width.max + 1, width.multiple)


def uniform(spec: NetworkSpec, count: int, seed: int) -> Iterator[WidthTuple]:
    """Yield independent discrete uniform vectors, drawn as by ECC's generator (methods A.2)."""
    del count
    rng = random.Random(seed)  # noqa: S311 - samples, not secrets
    while True:
        yield tuple(_uniform_value(width, rng) for width in spec.widths)


def aligned(spec: NetworkSpec, count: int, seed: int) -> Iterator[WidthTuple]:
    """Yield two uniform vectors, then one whose widths are all multiples of 4, 8, 16 or 32."""
    del count
    rng = random.Random(seed)  # noqa: S311
    while True:
        yield tuple(_uniform_value(width, rng) for width in spec.widths)
        yield tuple(_uniform_value(width, rng) for width in spec.widths)
        alignment = rng.choice(ALIGNMENTS)
        yield tuple(_aligned_value(width, alignment, rng) for width in spec.widths)


def sobol(spec: NetworkSpec, count: int, seed: int) -> Iterator[WidthTuple]:
    """Yield the points of a scrambled Sobol sequence, mapped to integers."""
    engine = qmc.Sobol(d=len(spec.widths), scramble=True, rng=seed)
    power = max(1, math.ceil(math.log2(count)))
    while True:
        # Powers of two keep the sequence balanced, and scipy from warning.
        yield from _to_widths(spec, engine.random_base2(power))
        power = max(power, int(math.log2(engine.num_generated)))


def lhs(spec: NetworkSpec, count: int, seed: int) -> list[WidthTuple]:
    """Return a Latin hypercube: every width spread evenly over its range, for this count only."""
    engine = qmc.LatinHypercube(d=len(spec.widths), rng=seed)
    # Integers can coincide; what is missing after removing repeats comes from a second cube.
    return [*_to_widths(spec, engine.random(count)), *_to_widths(spec, engine.random(count))]


def active(spec: NetworkSpec, count: int, seed: int) -> Iterator[WidthTuple]:
    """Yield the vectors that make the aligned model sure soonest, chosen one after another.

    Out of a pool of Sobol points, of which two thirds are rounded, all widths or each with
    probability 1/2, to multiples of 4, 8, 16 or 32: a layer's cost jumps where its kernels change.
    No measurement is looked at, so the same vectors come again when a campaign continues.
    """
    del count
    engine = qmc.Sobol(d=len(spec.widths), scramble=True, rng=seed)
    rng = random.Random(seed)  # noqa: S311
    chosen: dict[WidthTuple, None] = {}
    while True:
        points = _to_widths(spec, engine.random(POOL_SIZE))
        pool = dict.fromkeys(_partly_aligned(spec, vector, rng) for vector in points)
        fresh = [vector for vector in pool if vector not in chosen]
        if not fresh:
            # Only a network with very few width vectors.
            yield from uniform(spec, 1, seed)
        candidates = [*chosen, *fresh]
        order = informative_widths(spec, np.array(candidates, dtype=np.float64), len(chosen))
        for index in islice(order, math.ceil(len(fresh) / POOL_SHARE)):
            chosen[candidates[index]] = None
            yield candidates[index]


def _partly_aligned(spec: NetworkSpec, vector: WidthTuple, rng: random.Random) -> WidthTuple:
    alignment = rng.choice(ALIGNMENTS)
    share = rng.choice((0.0, 0.5, 1.0))
    widths = []
    for width, value in zip(spec.widths, vector, strict=True):
        is_rounded = rng.random() < share
        step = math.lcm(alignment, width.multiple)
        low, high = math.ceil(width.min / step), width.max // step
        if is_rounded and low <= high:
            value = min(max(round(value / step), low), high) * step
        widths.append(value)
    return tuple(widths)


def _to_widths(
    spec: NetworkSpec, points: np.ndarray[tuple[int, ...], np.dtype[np.float64]]
) -> Iterator[WidthTuple]:
    ranges = [values_of(width) for width in spec.widths]
    for point in points:
        yield tuple(
            values[min(int(u * len(values)), len(values) - 1)]
            for values, u in zip(ranges, point, strict=True)
        )


def _uniform_value(width: Width, rng: random.Random) -> int:
    low, high = width.min // width.multiple, width.max // width.multiple
    return rng.randint(low, high) * width.multiple


def _aligned_value(width: Width, alignment: int, rng: random.Random) -> int:
    step = math.lcm(alignment, width.multiple)
    low, high = math.ceil(width.min / step), width.max // step
    return rng.randint(low, high) * step if low <= high else _uniform_value(width, rng)


SAMPLERS: Mapping[str, Sampler] = MappingProxyType(
    {
        "active": Sampler(active, is_prefix_stable=True),
        "aligned": Sampler(aligned, is_prefix_stable=True),
        "lhs": Sampler(lhs, is_prefix_stable=False),
        "sobol": Sampler(sobol, is_prefix_stable=True),
        "uniform": Sampler(uniform, is_prefix_stable=True),
    }
)


OUTSIDE = PlugIns("samplers", "sampler", SAMPLERS)


def register_sampler(name: str, sampler: Sampler) -> None:
    """Make a sampler of your own known by a name, in this process: for `sampling=` and `--sampling`.

    A package says the same for good by an entry point of the group `joulemap.samplers`.

    Args:
        name: Letters, digits, `_` and `-`; journals hold it.
        sampler: How it draws; one registered before by this name gives way.

    Raises:
        InputError: The name is taken, or cannot be one.
    """
    OUTSIDE.register(name, sampler)


def names() -> tuple[str, ...]:
    """Return the names of all samplers, sorted."""
    return tuple(sorted((*SAMPLERS, *OUTSIDE.names())))


def sampler_named(name: str) -> Sampler:
    """Return the sampler of that name.

    Raises:
        InputError: There is none, or a package's cannot be loaded.
    """
    if name in SAMPLERS:
        return SAMPLERS[name]
    plug_in = OUTSIDE.find(name)
    if plug_in is None:
        raise InputError(f"unknown sampling '{name}'; known: {', '.join(names())}")
    found = OUTSIDE.load(plug_in)
    if not isinstance(found, Sampler):
        raise OUTSIDE.unusable(plug_in, "a joulemap.profiler.Sampler")
    return Sampler(_checked(name, found.draw), is_prefix_stable=found.is_prefix_stable)


def _checked(name: str, draw: Draw) -> Draw:
    """Return a user's sampler whose failures, and vectors that do not fit, are one sentence."""

    def checked(spec: NetworkSpec, count: int, seed: int) -> Iterator[WidthTuple]:
        with users_code(f"the sampler '{name}'"):
            vectors = iter(draw(spec, count, seed))
        while True:
            with users_code(f"the sampler '{name}'"):
                vector = next(vectors, None)
                if vector is None:
                    return
                vector = spec.check_widths([int(width) for width in vector])
            yield vector

    return checked

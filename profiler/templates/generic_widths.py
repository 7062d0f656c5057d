"""Widths that leave their mark in a graph: every integer that depends on them is recognised."""

from __future__ import annotations

import functools
import math
import operator
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, TypeAlias

from joulemap import InputError

from ...datasets import NetworkSpec, Size

Polynomial: TypeAlias = "int | dict[str, Any]"
"""An int, or {"terms": [[coefficient, [width index, ...]], ...], "divide": int}."""

FIRST_PRIME = 211
# A network that has more parameters than this at generic widths is exported at smaller primes:
# heads of 64 features each make it 64 times as wide, in every block.
MOST_PARAMETERS = 100_000_000
FIRST_PRIME_OF_LARGE = 67
# Exporters write "to the end" as the largest int64.
SENTINEL = 2**62


@dataclass(frozen=True)
class _Sum:
    """A sum of widths that a layer of the spec has, such as e1 + e3 after a concatenation."""

    size: Size
    value: int
    reduced: int
    """The value without the factor that the `multiple`s of its widths impose."""


class GenericWidths:
    """A network at widths that are distinct primes, times the `multiple` of each width.

    In a graph exported at these widths an integer with one of the primes as a factor depends on
    that width, and every other one is a constant: the primes are larger than the usual constants
    and divide no integer of the spec. Sums of widths are found among those of the spec's layers.

    Args:
        spec: The network.
        batch: Samples per call.

    Raises:
        InputError: The sums of the spec's sizes cannot be told apart.
    """

    def __init__(self, spec: NetworkSpec, batch: int) -> None:
        self.original = spec
        self.constants = _constants(spec, batch)
        self.imposed = self._imposed_factors()
        self.primes: tuple[int, ...]
        self.sums: list[_Sum]
        self._select(FIRST_PRIME)
        if self.spec.at(self.widths).params > MOST_PARAMETERS:
            self._select(FIRST_PRIME_OF_LARGE)
        self.threshold = min(self.widths, default=FIRST_PRIME)

    @property
    def spec(self) -> NetworkSpec:
        """The network with bounds that admit the generic widths."""
        widths = (
            replace(width, max=max(width.max, value))
            for width, value in zip(self.original.widths, self.widths, strict=True)
        )
        return replace(self.original, widths=tuple(widths))

    @property
    def widths(self) -> tuple[int, ...]:
        """The generic widths in order, in channels."""
        return tuple(
            prime * width.multiple
            for prime, width in zip(self.primes, self.original.widths, strict=True)
        )

    def explain(self, value: int, where: str) -> Polynomial:
        """Return the integer as a polynomial in the widths.

        Args:
            value: An integer found in the exported graph.
            where: What it is, for the message.

        Raises:
            InputError: The spec has no size that explains it.
        """
        if value < 0 and -value < SENTINEL:
            return _scaled(self.explain(-value, where), -1)
        if value == 0 or abs(value) >= SENTINEL:
            return value
        cofactor, factors, multiple = value, [], 1
        for index, prime in enumerate(self.primes):
            while cofactor % prime == 0:
                cofactor //= prime
                factors.append(index)
                multiple *= self.original.widths[index].multiple
        found = [item for item in self.sums if cofactor % item.reduced == 0]
        terms: list[tuple[Fraction, list[int]]]
        if not found:
            coefficient = Fraction(cofactor, multiple)
            terms = [(coefficient, factors)]
        else:
            item = found[0]
            coefficient = Fraction(cofactor, multiple * item.value)
            names = self.original.width_names
            terms = [
                (coefficient * part, factors + [names.index(name) for name in monomial])
                for monomial, part in item.size.terms.items()
            ]
        if len(found) > 1 or not self._is_plausible(coefficient.numerator):
            raise InputError(
                f"{where} is {value} when the widths of {self.original.name} are {self.widths}, "
                "and no size in its spec explains that; add the layer that it belongs to"
            )
        divisor = math.lcm(*(part.denominator for part, _ in terms))
        if not any(indices for _, indices in terms):
            return value
        return {
            "terms": [[int(part * divisor), sorted(indices)] for part, indices in terms],
            "divide": divisor,
        }

    def _is_plausible(self, constant: int) -> bool:
        return constant < self.threshold or constant in self.constants

    def _select(self, start: int) -> None:
        self.first = start
        for _ in range(20):
            self.primes = self._choose(start)
            self.sums = self._find_sums()
            if self._are_distinct():
                return
            start = max(self.primes) + 1
        raise InputError(f"the sizes of {self.original.name} cannot be told apart from one another")

    def _choose(self, start: int) -> tuple[int, ...]:
        primes: list[int] = []
        values: dict[str, int] = {}
        marks: set[int] = set()
        for width in self.original.widths:
            candidate = max(start, -(-width.min // width.multiple))
            while True:
                is_new = candidate not in primes and candidate not in marks
                if is_new and _is_prime(candidate) and not self._divides_constant(candidate):
                    values[width.name] = candidate * width.multiple
                    found = self._marks_of_sums(width.name, values)
                    if found is not None and marks.isdisjoint(found):
                        break
                candidate += 1
            primes.append(candidate)
            marks |= found
        return tuple(primes)

    def _marks_of_sums(self, name: str, values: Mapping[str, int]) -> set[int] | None:
        """Return a large prime factor of each sum that `name` completes; None if one has none.

        A sum without a prime of its own, such as 752 = 16 * 47, divides sizes that are not it.
        """
        marks: set[int] = set()
        for size, imposed in self.imposed.items():
            if name not in size.names or not size.names <= values.keys():
                continue
            value = size.at(values) // imposed
            if value <= 0:
                continue  # left to the check of the whole, which refuses it
            mark = _largest_prime_factor(value)
            if mark < self.first or mark in marks or self._divides_constant(mark):
                return None
            if any(width % mark == 0 for width in values.values()):
                return None
            marks.add(mark)
        return marks

    def _divides_constant(self, prime: int) -> bool:
        return any(constant % prime == 0 for constant in self.constants)

    def _imposed_factors(self) -> dict[Size, int]:
        """Return the sums of widths in the spec, with the factor that the steps impose on each."""
        steps = {width.name: width.multiple for width in self.original.widths}
        found: dict[Size, int] = {}
        for layer in self.original.layers:
            for size in (layer.in_channels, layer.out_channels, layer.groups):
                primitive = _primitive(size)
                if len(primitive.terms) > 1:
                    found[primitive] = math.gcd(
                        *(
                            part * math.prod(steps[name] for name in monomial)
                            for monomial, part in primitive.terms.items()
                        )
                    )
        return found

    def _find_sums(self) -> list[_Sum]:
        values = dict(zip(self.original.width_names, self.widths, strict=True))
        return [
            _Sum(size, size.at(values), size.at(values) // imposed)
            for size, imposed in self.imposed.items()
        ]

    def _are_distinct(self) -> bool:
        values = [item.reduced for item in self.sums]
        others = [*self.constants, *values]
        return all(
            value >= min(self.primes)
            and not any(value % prime == 0 for prime in self.primes)
            and sum(other % value == 0 for other in others) == 1
            for value in values
        )


def _primitive(size: Size) -> Size:
    """Return the size without the integer and the widths that all its terms have in common."""
    if len(size.terms) < 2:
        return Size(1)
    divisor = math.gcd(*size.terms.values())
    counts = [Counter(monomial) for monomial in size.terms]
    common = functools.reduce(operator.and_, counts)
    total = Size(0)
    for count, coefficient in zip(counts, size.terms.values(), strict=True):
        total += math.prod(
            map(Size, (count - common).elements()), start=Size(coefficient // divisor)
        )
    return total


def _constants(spec: NetworkSpec, batch: int) -> frozenset[int]:
    found = {batch, math.prod(spec.input_shape), *spec.input_shape}
    for layer in spec.layers:
        for size in (layer.in_channels, layer.out_channels, layer.groups):
            found.update(abs(coefficient) for coefficient in size.terms.values())
        for height, width in (layer.in_size, layer.out_size, layer.kernel_size, layer.stride):
            found.update((height, width, height * width))
        found.add(layer.positions)
        for size, area in (
            (layer.in_channels, layer.in_size),
            (layer.out_channels, layer.out_size),
        ):
            if size.is_constant:
                found.add(size.at({}) * math.prod(area) * layer.positions)
    found |= {batch * value for value in found}
    return frozenset(found - {0})


def _scaled(polynomial: Polynomial, factor: int) -> Polynomial:
    if isinstance(polynomial, int):
        return polynomial * factor
    terms = [[coefficient * factor, indices] for coefficient, indices in polynomial["terms"]]
    return {"terms": terms, "divide": polynomial["divide"]}


def _largest_prime_factor(number: int) -> int:
    factor = 2
    while factor * factor <= number:
        if number % factor:
            factor += 1
        else:
            number //= factor
    return number


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, math.isqrt(number) + 1))

"""Sizes of layers as polynomials in the network's width names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeAlias, Union, overload

from joulemap import InputError

MAX_TEXT = 2000
MAX_TERMS = 256
_TOKEN = re.compile(r"\s*(?:(?P<int>\d+)|(?P<name>[A-Za-z_][A-Za-z0-9_]*)|(?P<op>[-+*()]))")

SizeLike: TypeAlias = Union["Size", int, str]


class Size:
    """A polynomial in width names with integer coefficients, evaluated on ints, arrays and tensors.

    Written `64`, `conv5`, `49*conv5` (a linear layer after a flatten), `e1+e3` (a concatenation),
    `heads*head_dim`; parentheses and subtraction are allowed. Two sizes are equal when their
    expanded polynomials are, so `Size("2*(a+b)") == Size("2*b+2*a")`.

    Args:
        value: An int, a text in the grammar above, or a Size.

    Raises:
        InputError: The text is not a polynomial in names and integers.
    """

    __slots__ = ("terms",)

    terms: Mapping[tuple[str, ...], int]
    """Coefficient of each monomial; a monomial is the sorted tuple of its names, () the constant."""

    def __init__(self, value: SizeLike = 0) -> None:
        if isinstance(value, Size):
            terms: Mapping[tuple[str, ...], int] = value.terms
        elif isinstance(value, str):
            terms = _Parser(value).parse()
        elif isinstance(value, bool) or not hasattr(value, "__index__"):
            raise InputError(f"a size is an int or a text such as '49*conv5', not {value!r}")
        else:
            terms = {(): value.__index__()}
        object.__setattr__(self, "terms", dict(sorted(_without_zeros(terms).items())))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a Size cannot be changed")

    def __reduce__(self) -> tuple[type[Size], tuple[str]]:
        # Copying and pickling would otherwise set attributes, which is refused.
        return (Size, (str(self),))

    @property
    def names(self) -> frozenset[str]:
        """The width names that the size depends on."""
        return frozenset(name for monomial in self.terms for name in monomial)

    @property
    def is_constant(self) -> bool:
        """Whether the size depends on no width."""
        return not self.names

    @overload
    def at(self, widths: Mapping[str, int]) -> int: ...
    @overload
    def at(self, widths: Mapping[str, Any]) -> Any: ...
    def at(self, widths: Mapping[str, Any]) -> Any:
        """Return the size's value at the given widths.

        Args:
            widths: Width name to value: ints, numpy arrays or torch tensors (broadcast together).

        Returns:
            A value of the same kind, `batch_shape`; a plain int for a constant size.

        Raises:
            InputError: A name of the size is missing from `widths`.
        """
        total: Any = None
        for monomial, coefficient in self.terms.items():
            value: Any = coefficient
            for name in monomial:
                try:
                    value = value * _wide(widths[name])
                except KeyError:
                    raise InputError(
                        f"size '{self}' uses the width '{name}', which is not among "
                        f"{', '.join(sorted(widths)) or 'no widths'}"
                    ) from None
            total = value if total is None else total + value
        return 0 if total is None else total

    def __add__(self, other: SizeLike) -> Size:
        return _from_terms(_added(self.terms, Size(other).terms, 1))

    def __sub__(self, other: SizeLike) -> Size:
        return _from_terms(_added(self.terms, Size(other).terms, -1))

    def __mul__(self, other: SizeLike) -> Size:
        return _from_terms(_multiplied(self.terms, Size(other).terms))

    def divided_by(self, other: SizeLike) -> Size | None:
        """Return the quotient by a size of one term; None if it is not exact.

        Args:
            other: Such as `heads` or `2*conv5`.

        Example:
            >>> Size("20*heads").divided_by("heads")
            Size('20')
        """
        divisor = Size(other)
        if len(divisor.terms) != 1:
            return Size(1) if divisor == self else None
        ((names, coefficient),) = divisor.terms.items()
        found: dict[tuple[str, ...], int] = {}
        for monomial, number in self.terms.items():
            left = list(monomial)
            for name in names:
                if name not in left:
                    return None
                left.remove(name)
            if number % coefficient:
                return None
            found[tuple(left)] = number // coefficient
        return _from_terms(found)

    __radd__ = __add__
    __rmul__ = __mul__

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Size):
            return self.terms == other.terms
        if isinstance(other, int | str) and not isinstance(other, bool):
            try:
                return self.terms == Size(other).terms
            except InputError:
                return False
        return NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self.terms.items()))

    def __str__(self) -> str:
        """Return the canonical text, which parses back to an equal size."""
        text = ""
        for monomial, coefficient in self.terms.items():
            magnitude = abs(coefficient)
            factors = [str(magnitude)] if magnitude != 1 or not monomial else []
            sign = "-" if coefficient < 0 else "+" if text else ""
            text += sign + "*".join([*factors, *monomial])
        return text or "0"

    def __repr__(self) -> str:
        return f"Size('{self}')"


def _wide(value: Any) -> Any:
    """Return integers of numpy or torch with 64 bits: products of widths overflow fewer."""
    dtype = str(getattr(value, "dtype", ""))
    if dtype.removeprefix("torch.").startswith(("int", "uint")) and not dtype.endswith("64"):
        return value.long() if hasattr(value, "long") else value.astype("int64")
    return value


def _from_terms(terms: Mapping[tuple[str, ...], int]) -> Size:
    size = Size()
    object.__setattr__(size, "terms", dict(sorted(_without_zeros(terms).items())))
    return size


def _without_zeros(terms: Mapping[tuple[str, ...], int]) -> dict[tuple[str, ...], int]:
    return {monomial: value for monomial, value in terms.items() if value}


def _added(
    left: Mapping[tuple[str, ...], int], right: Mapping[tuple[str, ...], int], sign: int
) -> dict[tuple[str, ...], int]:
    total = dict(left)
    for monomial, value in right.items():
        total[monomial] = total.get(monomial, 0) + sign * value
    return total


def _multiplied(
    left: Mapping[tuple[str, ...], int], right: Mapping[tuple[str, ...], int]
) -> dict[tuple[str, ...], int]:
    product: dict[tuple[str, ...], int] = {}
    for first, a in left.items():
        for second, b in right.items():
            monomial = tuple(sorted(first + second))
            product[monomial] = product.get(monomial, 0) + a * b
    if len(product) > MAX_TERMS:
        raise InputError(f"a size expands to more than {MAX_TERMS} terms; write a simpler one")
    return product


class _Parser:
    """Recursive descent over `sum := product (('+'|'-') product)*`, expanding as it goes."""

    def __init__(self, text: str) -> None:
        self.text = text
        if len(text) > MAX_TEXT:
            raise InputError(f"a size is at most {MAX_TEXT} characters long, this one {len(text)}")
        self.tokens: list[str] = []
        position = 0
        while text[position:].strip():
            match = _TOKEN.match(text, position)
            if match is None:
                raise self.error(f"unexpected '{text[position:].strip()[0]}'")
            self.tokens.append(match.group().strip())
            position = match.end()
        self.index = 0
        self.depth = 0

    def parse(self) -> dict[tuple[str, ...], int]:
        terms = self.sum()
        if self.index < len(self.tokens):
            raise self.error(f"unexpected '{self.tokens[self.index]}'")
        return terms

    def error(self, problem: str) -> InputError:
        return InputError(
            f"size '{self.text}' cannot be read: {problem}; write an integer, a width name, or "
            "sums and products of them such as '49*conv5' or 'e1+e3'"
        )

    def peek(self) -> str:
        return self.tokens[self.index] if self.index < len(self.tokens) else ""

    def take(self) -> str:
        token = self.peek()
        if not token:
            raise self.error("it ends too early")
        self.index += 1
        return token

    def sum(self) -> dict[tuple[str, ...], int]:
        sign = -1 if self.peek() == "-" else 1
        if sign < 0:
            self.take()
        terms = _added({}, self.product(), sign)
        while self.peek() in ("+", "-"):
            sign = 1 if self.take() == "+" else -1
            terms = _added(terms, self.product(), sign)
        return terms

    def product(self) -> dict[tuple[str, ...], int]:
        terms = self.factor()
        while self.peek() == "*":
            self.take()
            terms = _multiplied(terms, self.factor())
        return terms

    def factor(self) -> dict[tuple[str, ...], int]:
        symbol = self.take()
        if symbol == "(":
            self.depth += 1
            if self.depth > 50:
                raise self.error("its parentheses nest deeper than 50")
            terms = self.sum()
            if self.peek() != ")":
                raise self.error("a parenthesis is not closed")
            self.take()
            self.depth -= 1
            return terms
        if symbol.isascii() and symbol.isdigit():
            return {(): int(symbol)}
        if symbol[0] in "+-*)":
            raise self.error(f"unexpected '{symbol}'")
        return {(symbol,): 1}

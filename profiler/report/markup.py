"""HTML and SVG as text in which nothing can slip through unescaped, nor unseen.

Only `element`, `raw` and `joined` make `Html`. Every other text, the result of formatting one
included, is a plain `str` and gets escaped when it becomes part of an element.
"""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import TypeAlias

from joulemap.showable_text import showable

_VOID = ("meta", "br")
_LONGEST = 100_000_000
_NO_BREAK = "\N{NO-BREAK SPACE}"


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


Content: TypeAlias = "Html | str | None"


def element(tag: str, *children: Content, **attributes: str | float | None) -> Html:
    """Return an element; children that are not `Html` are escaped, and attributes always.

    Args:
        tag: Name of the element.
        *children: What it holds; None is left out.
        **attributes: A trailing underscore is dropped (`class_`), others become hyphens; None is
            left out, numbers are rounded to hundredths.
    """
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{html.escape(_attribute(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    if tag in _VOID:
        return Html(f"<{tag}{written}>")
    return Html(f"<{tag}{written}>{joined(children)}</{tag}>")


def joined(children: Iterable[Content], separator: str = "") -> Html:
    """Return children one after the other, those that are not `Html` escaped."""
    return Html(html.escape(separator).join(_escaped(child) for child in children if child))


def raw(text: str) -> Html:
    """Return a text as it is: only for texts of this package, such as its style sheet."""
    return Html(text)


def number(value: float) -> str:
    """Return a coordinate, rounded to hundredths: `12.5`, `3`."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _escaped(child: str) -> str:
    return child if isinstance(child, Html) else html.escape(_showable(child))


def _attribute(value: str | float) -> str:
    return _showable(value) if isinstance(value, str) else number(value)


def _showable(text: str) -> str:
    # Curves are long attributes, lines of a program's text stay lines, and a space that does not
    # break is seen as one: the page puts it between a number and its unit.
    parts = text.split(_NO_BREAK)
    return _NO_BREAK.join(showable(part, _LONGEST, has_lines=True) for part in parts)

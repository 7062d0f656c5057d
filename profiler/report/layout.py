"""Pieces that sections are made of: a titled box, tables, legends, numbers for readers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime

from .markup import Content, Html, element, joined
from .quantities import quantity

MINUS, _NO_BREAK, _MICRO = "\N{MINUS SIGN}", "\N{NO-BREAK SPACE}", "\N{MICRO SIGN}"


def section(name: str, title: str, *children: Content, kind: str | None = None) -> Html:
    """Return a section with its heading; `name` is its anchor."""
    return element("section", element("h2", title), *children, id=name, class_=kind)


def legend(*items: tuple[str, str]) -> Html:
    """Return a legend: (class of the mark, what it stands for) each."""
    return element(
        "ul",
        *[
            element("li", element("span", class_=f"key {kind}", aria_hidden="true"), text)
            for kind, text in items
        ],
        class_="legend",
    )


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, kind: str = "numbers") -> Html:
    """Return a table in a box of its own that scrolls.

    Args:
        columns: Headings; all empty for none.
        rows: The cells.
        kind: `numbers` right-aligns all but the first column, `texts` lets them wrap.
    """
    head = None
    if any(columns):
        head = element(
            "thead", element("tr", *[element("th", name, scope="col") for name in columns])
        )
    body = element(
        "tbody",
        *[
            element("tr", element("th", row[0], scope="row"), *[element("td", c) for c in row[1:]])
            for row in rows
        ],
    )
    # Focusable, so that a keyboard can scroll it.
    return element("div", element("table", head, body), class_=f"scroll {kind}", tabindex="0")


def percent(fraction: float) -> str:
    """Return a fraction as a percentage with one decimal."""
    return f"{100 * fraction:.1f}{_NO_BREAK}%"


def share(fraction: float) -> str:
    """Return a fraction as a percentage without decimals."""
    return f"{100 * fraction:.0f}{_NO_BREAK}%"


def signed(fraction: float) -> str:
    """Return a fraction as a percentage with its sign."""
    return f"{100 * fraction:+.1f}{_NO_BREAK}%".replace("-", MINUS)


def cost_text(value: float, unit: str) -> str:
    """Return a cost with a readable prefix, also a negative one."""
    text = quantity(abs(value), unit).strip().replace(" u", f" {_MICRO}")
    return (MINUS if value < 0 else "") + text.replace(" ", _NO_BREAK)


def count(number: int, what: str) -> str:
    """Return a number of things: `1 visit`, `2,000 visits`."""
    return f"{number:,}{_NO_BREAK}{what}" + ("" if number == 1 else "s")


def sentence(text: str) -> Html:
    """Return a sentence written for a terminal as a page shows it, with options as code."""
    text = text.replace("+-", "\N{PLUS-MINUS SIGN}")
    text = re.sub(r"(?<=\d) %", f"{_NO_BREAK}%", text)
    pieces = re.split(r"(`[^`]+`|(?<![\w-])--[a-z][a-z-]+)", text)
    return joined(
        element("code", piece.strip("`")) if piece.startswith(("`", "--")) else piece
        for piece in pieces
    )


def moment(text: str) -> str:
    """Return a time label, `2026-11-23 19:30 UTC` where it is ISO 8601, else as it is."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return text
    return f"{when.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if when.tzinfo else text

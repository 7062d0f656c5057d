r"""Texts from devices and files, made fit to be shown: the one place that decides what may be seen.

What a terminal would obey (escape sequences and other control characters), what turns a line around
(bidirectional marks) and what nobody sees (characters of no width) become visible escapes such as
`\x1b`; lengths are bounded. Standard library only, since errors are made with it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any

MAX_ERROR = 400
# Of a text that came with an answer; where it is shown it may be shortened further.
MAX_TEXT = 2000
# Letters of some scripts bear two marks; a pile of them covers the lines above.
MAX_MARKS = 4
# Deeper than any answer; what lies below is left out.
MAX_DEPTH = 40
_GAP = " [...] "
# Printable by their category, but drawn as nothing: fillers, joiners, selectors of variants.
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
# What Markdown, HTML in it or a page that shows it would take for more than a letter.
_MARKS = re.compile(
    r"[\\`*\[\]<>|~$@]|(?<!\w)_|_(?!\w)|&(?=[#\w])|:(?=//)|\bw(?=ww\.)", re.IGNORECASE
)
# Begins a list, a heading or a quote where a line begins with it.
_BEGINS = re.compile(r"^(\s*\d*)([-+.)=#])")


def showable(text: object, length: int = MAX_TEXT, *, has_lines: bool = False) -> str:
    r"""Return a text in which everything can be seen and nothing is obeyed.

    Args:
        text: What a device or a file said; anything else is taken as its `str`.
        length: How many characters at most; a longer text loses its middle.
        has_lines: Whether line breaks stay; else they become spaces, as tabs do.

    Example:
        >>> showable("Pi 4\x1b]0;you\x07")
        'Pi 4\\x1b]0;you\\x07'
    """
    # Escapes are longer than what they stand for, so nothing beyond this can be kept.
    whole = shortened(text if isinstance(text, str) else _as_text(text), length)
    if whole.isascii() and whole.isprintable():
        return whole
    shown, marks = [], 0
    for each in whole.replace("\r\n", "\n"):
        marks = marks + 1 if unicodedata.combining(each) else 0
        if each == "\n" and has_lines:
            shown.append(each)
        elif each in "\n\t":
            shown.append(" ")
        elif not each.isprintable() or marks > MAX_MARKS or _UNSEEN.match(each):
            shown.append(_escaped(each))
        else:
            shown.append(each)
    return shortened("".join(shown), length)


def shortened(text: str, length: int) -> str:
    """Return a text of at most so many characters: of a longer one the beginning and the end.

    Example:
        >>> shortened("the beginning, the middle and the end", 21)
        'the beg [...] the end'
    """
    if len(text) <= length:
        return text
    kept = length - len(_GAP)
    if kept < 2:
        return text[:length]
    return text[: kept - kept // 2] + _GAP + text[len(text) - kept // 2 :]


def showable_answer(value: Any, length: int = MAX_TEXT) -> Any:
    """Return what JSON held with each of its texts, keys included, as `showable` returns it.

    Args:
        value: Texts, numbers, lists and tables of them.
        length: How many characters a text has at most.
    """
    return _answer(value, length, MAX_DEPTH)


def in_markdown(text: object, length: int = MAX_TEXT) -> str:
    r"""Return a text that Markdown shows letter by letter: no link, image, table or HTML.

    Example:
        >>> print(in_markdown("<b>[here](http://a)"))
        \<b\>\[here\](http\://a)
    """
    # No backslash makes a letter plain: its number does.
    written = _MARKS.sub(
        lambda match: f"&#{ord(match[0])};" if match[0].isalpha() else "\\" + match[0],
        showable(text, length),
    )
    return _BEGINS.sub(r"\1\\\2", written)


def is_name(text: object, length: int = 200) -> bool:
    """Return whether a text may name something: some characters, all of which can be seen."""
    return isinstance(text, str) and len(text.strip()) > 0 and showable(text, length) == text


def _answer(value: Any, length: int, depth: int) -> Any:
    if isinstance(value, str):
        return showable(value, length)
    if isinstance(value, (Mapping, list, tuple)) and not depth:
        return None
    if isinstance(value, Mapping):
        return {
            showable(key, length): _answer(item, length, depth - 1) for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_answer(item, length, depth - 1) for item in value]
    return value


def _as_text(value: object) -> str:
    try:
        return str(value)
    except (ValueError, RecursionError):  # An integer of thousands of digits, for one.
        return f"a {type(value).__name__} too long to be shown"


def _escaped(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"

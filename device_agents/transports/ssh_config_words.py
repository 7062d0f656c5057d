"""The words of OpenSSH's configuration: how lines are split, patterns compared, tokens replaced.

After `strdelim`, `argv_split`, `match_pattern_list`, `percent_expand` and `a2port` of OpenSSH 9.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Mapping, Sequence

SPACE = " \t\r\n"
MAX_SHOWN = 80
# Criteria of Match lines that have no word after them.
ALONE = ("all", "canonical", "final")

_TIME = re.compile(r"(?:[0-9]{1,9}[smhdwSMHDW]?)+\Z")
_UNITS_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def split_keyword(line: str) -> tuple[str, str]:
    """Return a line's keyword in lower case, and the rest; the first is empty where there is none."""
    text = line.split("\0")[0].rstrip(SPACE + "\f")
    word, rest = delimited(text)
    if word == "" and rest is not None:
        word, rest = delimited(rest)
    if not word or word.startswith("#"):
        return "", ""
    return word.lower(), (rest or "").lstrip(SPACE)


def delimited(text: str) -> tuple[str | None, str | None]:
    """Return the first word of a text and the rest, as OpenSSH's `strdelim` does.

    A word ends at white space, a double quote or one equals sign. Where a quote is not closed both
    are None.
    """
    found = re.search(r'[ \t\r\n"=]', text)
    if found is None:
        return text, None
    at = found.start()
    if text[at] == '"':
        end = text.find('"', at + 1)
        if end < 0:
            return None, None
        return text[:at] + text[at + 1 : end], text[end + 1 :].lstrip(SPACE)
    rest = text[at + 1 :].lstrip(SPACE)
    if text[at] != "=" and rest.startswith("="):
        rest = rest[1:].lstrip(SPACE)
    return text[:at], rest


def split_words(text: str) -> list[str]:
    """Return the words of a text without quotes and escapes, up to a comment.

    Raises:
        ValueError: A quote is not closed.
    """
    words: list[str] = []
    at = 0
    while at < len(text):
        if text[at] in " \t":
            at += 1
            continue
        if text[at] == "#":
            break
        word, at = _word(text, at)
        words.append(word)
    return words


def _word(text: str, at: int) -> tuple[str, int]:
    """Return the word that begins here and where it ends."""
    word, quote = "", ""
    while at < len(text):
        character, following = text[at], text[at + 1 : at + 2]
        if character == "\\":
            if following and (following in "'\"\\" or (not quote and following == " ")):
                at += 1
            word += text[at]
        elif not quote and character in " \t":
            break
        elif not quote and character in "'\"":
            quote = character
        elif character == quote:
            quote = ""
        else:
            word += character
        at += 1
    if quote:
        raise ValueError("a quote is not closed")
    return word, at


def matches(text: str, pattern: str) -> bool:
    """Return whether a pattern with `*` and `?` fits a text."""
    # Where the last star stands, and up to where it has swallowed the text.
    at, star, swallowed = 0, -1, 0
    place = 0
    while place < len(text):
        if pattern[at : at + 1] == "*":
            star, swallowed, at = at, place, at + 1
        elif pattern[at : at + 1] in ("?", text[place]):
            at, place = at + 1, place + 1
        elif star >= 0:
            swallowed += 1
            at, place = star + 1, swallowed
        else:
            return False
    return not pattern[at:].strip("*")


def is_listed(text: str, patterns: str, *, in_lower_case: bool = False) -> bool:
    """Return whether a list of patterns, separated by commas, holds a text; `!` leaves some out."""
    if in_lower_case:
        text, patterns = text.lower(), patterns.lower()
    is_found = False
    for pattern in patterns.split(","):
        if matches(text, pattern.removeprefix("!")):
            if pattern.startswith("!"):
                return False
            is_found = True
    return is_found


def seconds_of(text: str) -> float:
    """Return a time such as `90` or `1h30m` in seconds.

    Raises:
        ValueError: It is none.
    """
    if not _TIME.match(text):
        raise ValueError(text)
    parts = re.findall(r"([0-9]+)([a-zA-Z]?)", text)
    return float(sum(int(number) * _UNITS_S[unit.lower()] for number, unit in parts))


def port_of(text: str) -> int:
    """Return a port, which may be the name of a service.

    Raises:
        ValueError: It is none.
    """
    number = 0
    if re.fullmatch(r"[0-9]{1,6}", text):
        number = int(text)
    elif re.fullmatch(r"[A-Za-z0-9_.+-]{1,64}", text):
        with contextlib.suppress(OSError):
            number = socket.getservbyname(text, "tcp")
    if not 0 < number < 65536:
        raise ValueError(f"'{text[:MAX_SHOWN]}' is not a port, 1 to 65535")
    return number


def jumps_of(text: str) -> str:
    """Return what a ProxyJump names, without a comment or what else follows a space.

    OpenSSH takes no space after a comma; here it may stand.
    """
    found = re.match(r"[^\s#]*(?:(?<=,)\s+[^\s#]+)*", text)
    return re.sub(r"\s", "", found[0]) if found else ""


def usual_address(host: str, family: str = "any") -> str:
    """Return an address as it is usually written, `::1` for `0::01`; a name as it is.

    Args:
        host: An address or a name.
        family: `inet` or `inet6` where addresses of the other one are no addresses.
    """
    with contextlib.suppress(OSError, ValueError):
        if family != "inet6":
            return socket.inet_ntoa(socket.inet_aton(host))
    with contextlib.suppress(OSError, ValueError):
        if family != "inet":
            return socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, host))
    return host


def expanded(text: str, tokens: Mapping[str, str], *, may_name_variables: bool = False) -> str:
    """Return a text with what its tokens, and names of variables, stand for.

    Raises:
        ValueError: One stands for nothing.
    """
    parts: list[str] = []
    at = 0
    while at < len(text):
        if may_name_variables and text.startswith("${", at):
            end = text.find("}", at)
            name = text[at + 2 : end] if end > 0 else ""
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                raise ValueError("after ${ no name of a variable follows")
            if name not in os.environ:
                raise ValueError(f"the variable {name[:MAX_SHOWN]} is not set")
            parts.append(os.environ[name])
            at = end + 1
        elif text[at] == "%":
            letter = text[at + 1 : at + 2]
            if letter != "%" and letter not in tokens:
                raise ValueError(f"%{letter} stands for nothing here")
            parts.append("%" if letter == "%" else tokens[letter])
            at += 2
        else:
            parts.append(text[at])
            at += 1
    return "".join(parts)


def old_criteria(rest: str) -> tuple[list[str], bool]:
    """Return the words of a Match line as OpenSSH before 10 splits them, and whether it can."""
    words: list[str] = []
    text: str | None = rest
    while text is not None:
        word, text = delimited(text)
        if word is None:
            return words, False
        if not word or word.startswith("#"):
            break
        words.append(word)
    return words, True


def new_criteria(words: Sequence[str]) -> list[str]:
    """Return the words of a Match line as newer ones split them: `host=a` is two."""
    criteria: list[str] = []
    is_name = True
    for word in words:
        name, mark, value = word.partition("=")
        parts = [name, value] if mark and is_name else [word]
        criteria += parts
        is_alone = name.lower().removeprefix("!") in ALONE
        is_name = not is_name or is_alone or len(parts) == 2
    return criteria


def is_complete(criteria: Sequence[str]) -> bool:
    """Return whether the last criterion has the word that it needs."""
    is_name = True
    for word in criteria:
        is_name = not is_name or word.lower().removeprefix("!") in ALONE
    return is_name


def quoted(word: str) -> str:
    """Return a word so that it is read again as it is."""
    if set(word) & set("\"'\\"):
        return "".join(f"\\{c}" if c in "\"'\\ " else c for c in word)
    return f'"{word}"'

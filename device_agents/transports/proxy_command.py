"""A command line for a shell, as the program and arguments that it is where no shell is needed."""

from __future__ import annotations

import re
from pathlib import Path

# What a shell does not pass on as it stands: outside of all quotes, and inside of double ones.
_SPECIAL = set(";|&<>()$`*?[]{}!\n")
_SPECIAL_IN_QUOTES = set("$`\n")
# A first word that sets a variable, or that only a shell knows.
_NO_PROGRAM = re.compile(
    r"[A-Za-z_][A-Za-z0-9_]*=|(?:if|while|until|for|case|until|cd|eval|source|\.|export|set|test)\Z"
)


class CommandError(Exception):
    """Only a shell can do what the command asks for; the text says what that is."""


def simple_command(text: str) -> list[str]:
    """Return the words that a shell would start the command with.

    Args:
        text: One program with its arguments, with quotes, `exec` before it, or a comment after it.

    Raises:
        CommandError: It needs a shell.
        ValueError: It has no words, or a quote is not closed.
    """
    words: list[str] = []
    at = 0
    while at < len(text):
        if text[at] in " \t":
            at += 1
        elif text[at] == "#":
            break
        else:
            word, at = _word(text, at)
            words.append(word)
    if words[:1] == ["exec"]:
        words = words[1:]
    if not words:
        raise ValueError("it names no program")
    if _NO_PROGRAM.match(words[0]):
        raise CommandError(f"'{words[0][:40]}'")
    return words


def _word(text: str, at: int) -> tuple[str, int]:
    """Return the word that begins here and where it ends."""
    word, quote = "", ""
    if re.match(r"~(?=[/\s]|\Z)", text[at:]):
        word, at = str(Path.home()), at + 1
    while at < len(text):
        character, following = text[at], text[at + 1 : at + 2]
        if quote == "'":
            word, quote = (word, "") if character == "'" else (word + character, quote)
        elif character == "\\" and (not quote or following in '$`"\\'):
            if not following:
                raise ValueError("nothing follows its last backslash")
            word, at = word + following, at + 1
        elif character == quote:
            quote = ""
        elif not quote and character in " \t":
            break
        elif not quote and character in "'\"":
            quote = character
        elif character in (_SPECIAL_IN_QUOTES if quote else _SPECIAL):
            raise CommandError(f"'{character}'")
        else:
            word += character
        at += 1
    if quote:
        raise ValueError("a quote is not closed")
    return word, at

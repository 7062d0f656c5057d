"""What devices and files say is shown so that nothing is obeyed, hidden or taken for more than text."""

from __future__ import annotations

import doctest
import pickle
import re
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import joulemap.showable_text
from joulemap import InputError, JoulemapError
from joulemap.datasets import CostDataset, Width
from joulemap.device_agents import Device
from joulemap.device_agents.errors import DeviceInUseError, StableDeviceError
from joulemap.profiler import networks, profile
from joulemap.profiler.report.markup import element
from joulemap.showable_text import (
    MAX_ERROR,
    in_markdown,
    is_name,
    shortened,
    showable,
    showable_answer,
)

UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
HOSTILE = (
    "\x1b]0;title\x07",
    "\x1b[2J",
    "\x9b31m",
    "\x9d8;;http://evil\x9c",
    "\r\x08\x7f\x00",
    "\u202egnp.exe\u2066",
    "\u200b\u200d\ufeff\u2060\u00ad\u180e",
    "\u115f\u3164\uffa0\ufe0f\U000e0041\u034f",
    "\u2028\u2029\x85",
    "\ud800",
    "a" + "\u0301" * 50,
)
texts = st.one_of(
    st.text(),
    st.text(st.characters(categories=["Cc", "Cf", "Cs", "Mn", "Zs", "Zl"])),
    st.lists(st.sampled_from(HOSTILE)).map("".join),
)


@pytest.mark.parametrize("text", HOSTILE)
def test_what_steers_or_hides_is_seen_as_an_escape(text: str) -> None:
    shown = showable("pi " + text)
    assert shown.startswith("pi ")
    assert all(unicodedata.category(each) not in UNSEEN for each in shown)
    assert "\\" in shown
    assert len(shown) > len("pi ")
    shown.encode()


@given(texts, st.integers(1, 60))
def test_whatever_it_was_a_shown_text_is_short_harmless_and_stays_as_it_is(
    text: str, length: int
) -> None:
    shown = showable(text, length)
    assert len(shown) <= length
    assert shown.isprintable()
    assert showable(shown, length) == shown
    lines = showable(text, length, has_lines=True)
    assert all(each.isprintable() or each == "\n" for each in lines)


def test_words_of_any_language_stay_as_they_are() -> None:
    for text in (
        "Raspberry Pi 4 Model B Rev 1.5",
        "Gerät für 25 °C",
        "骁龙 8",
        "ไม่มีชื่อ",
        "हिन्दी",
        "µW",
    ):
        assert showable(text) == text


def test_a_long_text_keeps_both_of_its_ends() -> None:
    assert shortened("first " + "x" * 1000 + " last", 100).startswith("first x")
    assert shortened("first " + "x" * 1000 + " last", 100).endswith("x last")
    assert shortened("abc", 2) == "ab"


def test_an_answer_is_shown_with_its_keys_and_numbers_of_any_size() -> None:
    answer = {"\x1b[2J": [{"name": "a\nb"}, 1, None, True], "n": 10**5000}
    shown = showable_answer(answer)
    assert shown == {"\\x1b[2J": [{"name": "a b"}, 1, None, True], "n": 10**5000}
    assert "too long" in showable(10**5000)
    deep: object = "x"
    for _ in range(900):
        deep = [deep]
    assert str(showable_answer(deep)).count("[") < 50


@pytest.mark.parametrize(
    "text",
    [
        "[a](http://b)",
        "![a](http://b)",
        "<img src=x onerror=alert(1)>",
        "<!-- hidden",
        "`code`",
        "**bold**",
        "_emphasis_",
        "a | b",
        "&lt;",
        "www.evil.example",
        "https://evil.example",
        "$x$",
        "# title",
        "- item",
        "1. item",
        "===",
        "~~gone~~",
        "\n\n# title",
    ],
)
def test_markdown_shows_a_text_letter_by_letter(text: str) -> None:
    written = in_markdown(text)
    assert "\n" not in written
    letters = re.sub(r"&#(\d+);", lambda match: chr(int(match[1])), written)
    plain = re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", letters)
    assert plain == showable(text)
    bare = re.sub(r"\\.", "0", written)
    assert not re.search(r"[`*<>|~$\[\]]|://|^\s*(#|-|\d+\.|=)|\bwww\.|&(?!#\d+;)", bare)


def test_a_name_holds_nothing_unseen() -> None:
    assert is_name("conv1")
    assert is_name("mein Gerät")
    for text in ("", " ", "a\nb", "a\tb", "\x1b[31m", "a\u202eb", "a\u200bb", "x" * 201, 7, None):
        assert not is_name(text)


def test_the_examples_run() -> None:
    for module in (joulemap, joulemap.showable_text):
        assert doctest.testmod(module).failed == 0


def test_an_error_is_short_and_its_full_text_is_kept() -> None:
    said = "the device said " + "\x1b[2J" * 5000 + " and ended"
    for kind in (JoulemapError, InputError, StableDeviceError):
        error = kind(said)
        assert len(str(error)) <= MAX_ERROR
        assert str(error).startswith("the device said \\x1b[2J")
        assert str(error).endswith("and ended")
        assert len(error.full_text) == 20_000
        assert kind(error).full_text == error.full_text
        assert str(pickle.loads(pickle.dumps(error))) == str(error)  # noqa: S301 - made here
    assert len(str(DeviceInUseError("x" * 9999))) <= MAX_ERROR
    assert str(JoulemapError()) == ""
    assert InputError("first line\nsecond line").args == ("first line\nsecond line",)


def test_a_page_shows_what_would_be_hidden_or_turned_around() -> None:
    made = element("p", "a\u202eb<i>\x1b\u200b", title='"\u2066\x07')
    assert made == '<p title="&quot;\\u2066\\x07">a\\u202eb&lt;i&gt;\\x1b\\u200b</p>'


@pytest.mark.parametrize("name", ["a\x1b[31mb", "a\nb", "a\u202eb", "a\u200bb", "\x9b", "", " "])
def test_a_name_that_steers_or_hides_is_refused_where_it_is_typed(
    name: str, tmp_path: Path
) -> None:
    spec = networks.get("lenet5")
    typed: list[Callable[[], object]] = [
        lambda: replace(spec, name=name),
        lambda: replace(spec, layers=(replace(spec.layers[0], name=name), *spec.layers[1:])),
        lambda: replace(spec, source=f"zoo:{name or chr(7)}\n"),
        lambda: Width(name, 8),
        lambda: Device(f"local:{name or chr(7)}\r"),
        lambda: profile(f"local:?x={name}\x1b", spec, samples=1, out=tmp_path / "a"),
        lambda: profile("sim:eyeriss", spec, samples=1, out=tmp_path / f"b{name}\x1b"),
    ]
    if name.strip():
        widths = {width.name: [width.max] for width in spec.widths}
        table = pd.DataFrame({**widths, f"{name}_ms": [1.0]})
        typed.append(lambda: CostDataset.from_frame(table, spec))
    for use in typed:
        with pytest.raises(InputError) as caught:
            use()
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) <= MAX_ERROR
    assert not list(tmp_path.iterdir())

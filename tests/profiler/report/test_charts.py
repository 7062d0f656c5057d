"""Ticks, placing, simplifying and escaping: the parts that charts and pages are made of."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulemap.profiler.report.charts import (
    Axis,
    Bar,
    Chart,
    bar_chart,
    round_values,
    tick,
    without_straight_points,
)
from joulemap.profiler.report.layout import cost_text, moment, sentence
from joulemap.profiler.report.markup import Html, element, joined

ENDS = st.floats(1e-6, 1e6)


@given(ENDS, st.floats(1.001, 1e4), st.integers(2, 8), st.booleans())
def test_ticks_lie_inside_and_are_few(low: float, ratio: float, count: int, is_log: bool) -> None:
    high = low * ratio
    marks = round_values(low, high, count, is_log=is_log)
    slack = 1e-6 * (high - low)
    assert all(low - slack <= mark <= high + slack for mark in marks)
    assert list(marks) == sorted(set(marks))
    assert len(marks) <= 2 * count + 3
    assert len(marks) >= 1 or ratio < 2


def test_ticks_are_round() -> None:
    assert round_values(0, 10, 5) == (0, 2, 4, 6, 8, 10)
    assert round_values(-1, 1, 4) == (-1, -0.5, 0, 0.5, 1)
    assert round_values(0.9, 120, 6, is_log=True) == pytest.approx((1, 2, 5, 10, 20, 50, 100))
    assert round_values(3, 3, 5) == (3,)
    assert round_values(187, 40205, 2) == (20_000, 40_000)
    assert [tick(value) for value in (0.25, 1000, 12.5)] == ["0.25", "1,000", "12.5"]


def test_places_on_axes() -> None:
    assert Axis("x", 10, 20).position(15.0) == pytest.approx(0.5)
    assert Axis("x", 1, 100, is_log=True).position(10.0) == pytest.approx(0.5)
    assert Axis("x", 3, 3).position(3.0) == pytest.approx(0.0)


@given(st.lists(st.floats(0, 100), min_size=2, max_size=60))
def test_dropping_straight_points_moves_no_line(heights: list[float]) -> None:
    points = np.column_stack([np.arange(float(len(heights))), heights])
    kept = without_straight_points(points)
    assert (kept[[0, -1]] == points[[0, -1]]).all()
    between = np.interp(points[:, 0], kept[:, 0], kept[:, 1])
    # Measured across the line, not up and down: a steep one may differ by more in height.
    slope = np.abs(np.diff(kept[:, 1]) / np.diff(kept[:, 0])).max()
    assert np.abs(between - points[:, 1]).max() <= 0.16 * np.hypot(1.0, slope)


def test_a_straight_line_is_two_points() -> None:
    x = np.arange(1000.0)
    assert len(without_straight_points(np.column_stack([x, 3 * x]))) == 2


def test_points_outside_are_drawn_at_the_edge() -> None:
    chart = Chart("c", Axis("x", 0, 1), Axis("y", 0, 1), 100, 100)
    chart.points(np.array([1e9]), np.array([-1e9]), "k", ["far <away>"])
    assert 'cx="92" cy="68"' in chart.render()
    assert "far &lt;away&gt;" in chart.render()


def test_bars_hold_negative_values_and_long_names() -> None:
    bars = [Bar("x" * 40, 3, 2, 5, "3 s"), Bar("y", -1, float("nan"), float("nan"), "-1 s")]
    drawn = bar_chart("costs", bars, 400)
    assert "…" in drawn
    assert "nan" not in drawn
    assert drawn.count("whisker") == 1


@given(st.text())
def test_text_never_becomes_markup(text: str) -> None:
    inside = element("p", text, title=text)
    assert inside.count("<") == 2
    assert joined([text]).count("<") == 0
    assert element("p", f"{Html('<b>')}{text}").count("<") == 2  # formatting gives plain text


def test_texts_for_readers() -> None:
    assert cost_text(-0.0012, "s").endswith("1.2\N{NO-BREAK SPACE}ms")
    assert cost_text(3e-6, "J") == "3\N{NO-BREAK SPACE}\N{MICRO SIGN}J"
    assert sentence("+-3 %") == "\N{PLUS-MINUS SIGN}3\N{NO-BREAK SPACE}%"
    assert sentence("with --visit-s or `<b>`") == (
        "with <code>--visit-s</code> or <code>&lt;b&gt;</code>"
    )
    assert moment("2026-11-22T03:04:05.000+02:00") == "2026-11-22 01:04 UTC"
    assert moment("<yesterday>") == "<yesterday>"

"""Small SVG charts: axes with ticks and units, lines, points, bands, bars.

A chart's size is in CSS pixels at its natural scale; it scales with its container. Colours come from
the page's style sheet by class (`prediction`, `reference`, `noise`, ...), so they follow light and
dark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...models.base.intervals import FloatArray
from .markup import Html, element, joined, number

_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 12.0, 20.0, 36.0
_ROW = 22.0
# About how wide a character of a bar's name is, and how many are shown.
_CHARACTER, _LONGEST_NAME = 6.4, 18


@dataclass(frozen=True)
class Axis:
    """One axis: what it shows and from where to where.

    Args:
        label: What it shows, with its unit.
        low: Value at its start.
        high: Value at its end.
        is_log: Whether it is logarithmic; both ends are positive then.
        ticks: Values to mark; None chooses round ones.
    """

    label: str
    low: float
    high: float
    is_log: bool = False
    ticks: tuple[float, ...] | None = None

    def position(self, values: FloatArray | float) -> FloatArray:
        """Return where values lie, 0 at the axis' start and 1 at its end."""
        ends = np.array([self.low, self.high])
        if self.is_log:
            floor = self.low * 1e-3
            ends, values = np.log(ends), np.log(np.maximum(values, floor))
        span = (ends[1] - ends[0]) or 1.0
        return np.asarray((values - ends[0]) / span)

    def marks(self, count: int) -> tuple[float, ...]:
        """Return the values to mark, about `count`."""
        if self.ticks is not None:
            return self.ticks
        return round_values(self.low, self.high, count, is_log=self.is_log)


def round_values(low: float, high: float, count: int, *, is_log: bool = False) -> tuple[float, ...]:
    """Return about `count` round values (1, 2 or 5 times a power of ten) between two ends."""
    if not (math.isfinite(low) and math.isfinite(high) and high > low):
        return (low,)
    if is_log:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for digits in ((1, 2, 5), (1, 3), (1,)):
            found = [d * 10.0**e for e in decades for d in digits if low <= d * 10.0**e <= high]
            if len(found) <= count + 2:
                break
        if len(found) >= 2:
            return tuple(found[:: math.ceil(len(found) / (count + 2))])
    step = 10.0 ** math.floor(math.log10((high - low) / count))
    # A step above the whole range may have no multiple in it: then rather one value too many.
    fitting = [f for f in (1, 2, 5, 10) if f * step <= high - low]
    step *= next((f for f in fitting if (high - low) / (f * step) <= count), fitting[-1])
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return tuple(round(i * step, 12) for i in range(first, last + 1))


def padded(
    values: FloatArray, *, is_log: bool = False, margin: float = 0.05
) -> tuple[float, float]:
    """Return ends a little outside the finite values."""
    known = values[np.isfinite(values)]
    low, high = float(known.min()), float(known.max())
    if is_log:
        factor = (high / low) ** margin if high > low else 1.1
        return low / factor, high * factor
    room = margin * ((high - low) or abs(high) or 1.0)
    return low - room, high + room


class Chart:
    """A chart under construction: what is drawn first lies behind.

    Args:
        title: What it shows, for readers who cannot see it.
        x: Horizontal axis.
        y: Vertical axis.
        width: Of the whole chart, in CSS pixels.
        height: Likewise.
        kind: Further class of the SVG element.
    """

    def __init__(
        self, title: str, x: Axis, y: Axis, width: float, height: float, kind: str = ""
    ) -> None:
        self._title, self._x, self._y, self._kind = title, x, y, kind
        self._width, self._height = width, height
        self._parts: list[Html] = []

    def line(self, x: FloatArray, y: FloatArray, kind: str) -> None:
        """Draw a line through points."""
        points = without_straight_points(self._place(x, y))
        self._parts.append(element("polyline", points=_points(points), class_=f"line {kind}"))

    def band(self, x: FloatArray, low: FloatArray, high: FloatArray, kind: str) -> None:
        """Fill what lies between two lines."""
        lower = without_straight_points(self._place(x, low))
        upper = without_straight_points(self._place(x, high))
        outline = np.concatenate([lower, upper[::-1]])
        self._parts.append(element("polygon", points=_points(outline), class_=f"band {kind}"))

    def shade(self, start: float, end: float, kind: str, hint: str) -> None:
        """Shade a stretch of the horizontal axis over the chart's height."""
        ends = self._place(np.array([start, end]), np.array([self._y.low, self._y.high]))
        self._parts.append(
            element(
                "rect",
                element("title", hint),
                x=float(ends[0, 0]),
                y=float(ends[1, 1]),
                width=max(0.5, float(ends[1, 0] - ends[0, 0])),
                height=float(ends[0, 1] - ends[1, 1]),
                class_=f"shade {kind}",
            )
        )

    def points(self, x: FloatArray, y: FloatArray, kind: str, hints: Sequence[str]) -> None:
        """Draw points, each with a text that is shown when it is pointed at."""
        for (left, top), hint in zip(self._place(x, y), hints, strict=True):
            self._parts.append(
                element("circle", element("title", hint), cx=left, cy=top, r=3, class_=kind)
            )

    def dots(self, x: FloatArray, y: FloatArray, kind: str) -> None:
        """Draw many small points without texts, as one path."""
        steps = "".join(f"M{number(left)} {number(top)}h0" for left, top in self._place(x, y))
        self._parts.append(element("path", d=steps, class_=f"dots {kind}"))

    def whiskers(
        self,
        x: FloatArray,
        y: FloatArray,
        low: FloatArray,
        high: FloatArray,
        kind: str,
        *,
        horizontal: bool = False,
    ) -> None:
        """Draw error bars from `low` to `high`; where either is unknown, none."""
        known = np.isfinite(low) & np.isfinite(high)
        if horizontal:
            starts, ends = self._place(low, y)[known], self._place(high, y)[known]
        else:
            starts, ends = self._place(x, low)[known], self._place(x, high)[known]
        steps = "".join(
            f"M{number(a[0])} {number(a[1])}L{number(b[0])} {number(b[1])}"
            for a, b in zip(starts, ends, strict=True)
        )
        if steps:
            self._parts.append(element("path", d=steps, class_=f"whisker {kind}"))

    def rug(self, x: FloatArray, kind: str) -> None:
        """Draw a short stroke at the foot of the chart for every value."""
        values = np.unique(x)
        places = self._place(values, np.full(len(values), self._y.low))
        steps = "".join(f"M{number(left)} {number(top)}v-5" for left, top in places)
        self._parts.append(element("path", d=steps, class_=f"rug {kind}"))

    def render(self) -> Html:
        """Return the chart as an SVG element."""
        return _svg(
            self._title,
            self._width,
            self._height,
            self._kind,
            joined([self._grid(), *self._parts, self._labels()]),
        )

    def _place(self, x: FloatArray, y: FloatArray) -> FloatArray:
        """Return pixel coordinates, shape (n, 2), a little outside the frame at most."""
        left = _LEFT + self._x.position(x) * self._inner_width
        top = _TOP + (1.0 - self._y.position(y)) * self._inner_height
        return np.column_stack(
            [
                np.clip(left, _LEFT - 4, self._width - _RIGHT + 4),
                np.clip(top, _TOP - 4, self._height - _BOTTOM + 4),
            ]
        )

    @property
    def _inner_width(self) -> float:
        return self._width - _LEFT - _RIGHT

    @property
    def _inner_height(self) -> float:
        return self._height - _TOP - _BOTTOM

    def _grid(self) -> Html:
        parts = []
        bottom, right = self._height - _BOTTOM, self._width - _RIGHT
        for value in self._y.marks(max(2, int(self._inner_height / 28))):
            top = _TOP + (1.0 - float(self._y.position(value))) * self._inner_height
            parts.append(element("line", x1=_LEFT, x2=right, y1=top, y2=top, class_="grid"))
            parts.append(element("text", tick(value), x=_LEFT - 6, y=top + 3.5, class_="tick end"))
        for value in self._x.marks(max(2, int(self._inner_width / 52))):
            left = _LEFT + float(self._x.position(value)) * self._inner_width
            parts.append(element("line", x1=left, x2=left, y1=bottom, y2=bottom + 4, class_="axis"))
            parts.append(element("text", tick(value), x=left, y=bottom + 15, class_="tick middle"))
        parts.append(element("line", x1=_LEFT, x2=right, y1=bottom, y2=bottom, class_="axis"))
        return joined(parts)

    def _labels(self) -> Html:
        return joined(
            [
                element("text", self._y.label, x=2, y=11, class_="label"),
                element(
                    "text",
                    self._x.label,
                    x=self._width - _RIGHT,
                    y=self._height - 5,
                    class_="label end",
                ),
            ]
        )


@dataclass(frozen=True)
class Bar:
    """One bar of a bar chart.

    Args:
        name: What it stands for.
        value: Its length.
        low: Where its error bar begins; NaN for none.
        high: Where its error bar ends.
        text: The value for readers, with its unit and spread.
    """

    name: str
    value: float
    low: float
    high: float
    text: str


def bar_chart(title: str, bars: Sequence[Bar], width: float, kind: str = "") -> Html:
    """Return horizontal bars with their names before and their values behind them.

    Args:
        title: What it shows.
        bars: At least one.
        width: Of the chart, in CSS pixels.
        kind: Further class of the SVG element.
    """
    names = [_shortened(bar.name) for bar in bars]
    left = 10 + _CHARACTER * max(map(len, names))
    right = 10 + _CHARACTER * max(len(bar.text) for bar in bars)
    ends = [value for bar in bars for value in (bar.value, bar.low, bar.high, 0.0)]
    low, high = float(np.nanmin(ends)), float(np.nanmax(ends))
    scale = max(20.0, width - left - right) / ((high - low) or 1.0)
    zero = left - low * scale
    parts = []
    for index, (bar, name) in enumerate(zip(bars, names, strict=True)):
        top = 4 + index * _ROW
        start, length = zero + min(bar.value, 0.0) * scale, abs(bar.value) * scale
        parts.append(element("text", name, x=left - 6, y=top + 13, class_="name end"))
        parts.append(
            element(
                "rect",
                element("title", f"{bar.name}: {bar.text}"),
                x=start,
                y=top + 3,
                width=max(length, 0.5),
                height=_ROW - 8,
                class_="bar prediction",
            )
        )
        if math.isfinite(bar.low) and math.isfinite(bar.high):
            steps = (
                f"M{number(zero + bar.low * scale)} {number(top + 10)}"
                f"H{number(zero + bar.high * scale)}"
            )
            parts.append(element("path", d=steps, class_="whisker strong"))
        parts.append(
            element("text", bar.text, x=left + (high - low) * scale + 8, y=top + 13, class_="value")
        )
    return _svg(title, width, 8 + _ROW * len(bars), kind, joined(parts))


def without_straight_points(points: FloatArray, tolerance: float = 0.15) -> FloatArray:
    """Return points, shape (m, 2), without those that a line through the others passes by.

    Args:
        points: Pixel coordinates of a line, shape (n, 2).
        tolerance: Distance in pixels that cannot be seen.
    """
    kept = np.zeros(len(points), dtype=bool)
    kept[[0, -1]] = True
    spans = [(0, len(points) - 1)]
    while spans:
        first, last = spans.pop()
        if last - first < 2:
            continue
        a, b, inner = points[first], points[last], points[first + 1 : last]
        along = b - a
        length = float(np.hypot(*along)) or 1.0
        offset = inner - a
        distance = np.abs(along[0] * offset[:, 1] - along[1] * offset[:, 0]) / length
        farthest = int(np.argmax(distance))
        if distance[farthest] > tolerance:
            middle = first + 1 + farthest
            kept[middle] = True
            spans += [(first, middle), (middle, last)]
    return np.asarray(points[kept])


def tick(value: float) -> str:
    """Return a tick's label: `1,000`, `0.25`."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _svg(title: str, width: float, height: float, kind: str, content: Html) -> Html:
    return element(
        "svg",
        content,
        viewBox=f"0 0 {number(width)} {number(height)}",
        width=width,
        height=height,
        role="img",
        aria_label=title,
        class_=f"chart {kind}".strip(),
    )


def _points(points: FloatArray) -> str:
    return " ".join(f"{number(left)},{number(top)}" for left, top in points)


def _shortened(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"

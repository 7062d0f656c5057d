"""The benchmark of predictors as one HTML page with plots."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from joulemap.profiler.report.layout import section, table
from joulemap.profiler.report.markup import Html, element, raw

WIDTH, ROW, LEFT, RIGHT = 640.0, 22.0, 150.0, 60.0
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  color: #1d2733; background: #fff; }
h2 { font-size: 1.05rem; margin: 2rem 0 .3rem; } p { margin: .2rem 0; color: #52606d; }
svg { max-width: 100%; height: auto; } svg text { font-size: 12px; fill: #1d2733; }
table { border-collapse: collapse; } td, th { padding: .15rem .8rem .15rem 0; text-align: right; }
td:first-child, th:first-child { text-align: left; } pre { overflow-x: auto; }
.error { fill: #2f6db3; } .spread { stroke: #2f6db3; stroke-width: 2; }
.bar { stroke: #c0392b; stroke-dasharray: 4 3; } .axis { stroke: #cfd8e3; }
@media (prefers-color-scheme: dark) { body { background: #14181d; color: #e4e7eb; }
  svg text { fill: #e4e7eb; } p { color: #9aa5b1; } }
"""


def write_page(
    path: Path, rows: Sequence[Mapping[str, Any]], bars: Mapping[str, Any], few_shot: Sequence[str]
) -> None:
    """Write a page with a plot for each task.

    Args:
        path: The file.
        rows: What each model reached, as `predictors.Row`.
        bars: The content of `predictors.toml`.
        few_shot: Lines about a new device from ten measurements.
    """
    parts = []
    for number, task in enumerate(dict.fromkeys(row["task"] for row in rows)):
        same = sorted((row for row in rows if row["task"] == task), key=lambda row: row["error"])
        bar = bars["bars"].get(task)
        cells = [
            [
                row["model"],
                f"{row['error']:.2%}",
                f"{row['low']:.2%} to {row['high']:.2%}",
                f"{row['spearman']:.3f}",
                f"{row['kendall']:.3f}",
                f"{row['within_5']:.0%}",
                f"{row['within_10']:.0%}",
            ]
            for row in same
        ]
        columns = ("model", "error", "spread", "Spearman", "Kendall", "within 5 %", "within 10 %")
        stated = f"Bar {bar:.1%}. " if bar is not None else ""
        parts.append(
            section(
                f"task{number}",
                task,
                element("p", f"{stated}{bars['published'].get(task, '')}"),
                element("p", f"{same[0]['num_training']} training rows."),
                plot(task, same, bar),
                table(columns, cells),
            )
        )
    page = element(
        "html",
        element(
            "head",
            element("meta", charset="utf-8"),
            element("meta", name="viewport", content="width=device-width, initial-scale=1"),
            element("title", "Predictors on measurements by others"),
            element("style", raw(STYLE)),
        ),
        element(
            "body",
            element("h1", "Predictors on measurements by others"),
            element(
                "p",
                "Points are errors, lines reach from the smallest to the largest over "
                "seeds or folds, the dashed line is the bar. Logarithmic.",
            ),
            *parts,
            section(
                "few-shot",
                "A new device from ten measurements",
                element("pre", "\n".join(few_shot)),
            ),
        ),
        lang="en",
    )
    path.write_text(f"<!doctype html>\n{page}\n", encoding="utf-8")


def plot(task: str, rows: Sequence[Mapping[str, Any]], bar: float | None) -> Html:
    """Return a dot for each model on a logarithmic axis, with its spread and the bar."""
    values = [row[key] for row in rows for key in ("error", "low", "high")] + ([bar] if bar else [])
    low, high = math.log(max(min(values), 1e-4) / 1.2), math.log(max(values) * 1.2)

    def x(value: float) -> float:
        share = (math.log(max(value, 1e-4)) - low) / (high - low)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    height = ROW * (len(rows) + 1)
    shapes = []
    if bar:
        shapes.append(element("line", class_="bar", x1=x(bar), x2=x(bar), y1=0.0, y2=height - ROW))
    for index, row in enumerate(rows):
        y = ROW * (index + 0.5)
        shapes += [
            element("text", row["model"], x=0.0, y=y + 4),
            element("line", class_="axis", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y),
            element("line", class_="spread", x1=x(row["low"]), x2=x(row["high"]), y1=y, y2=y),
            element("circle", class_="error", cx=x(row["error"]), cy=y, r=4.0),
            element("text", f"{row['error']:.1%}", x=WIDTH - RIGHT + 8, y=y + 4),
        ]
    return element(
        "svg",
        element("title", f"Errors of models: {task}"),
        *shapes,
        viewBox=f"0 0 {WIDTH:.0f} {height:.0f}",
        width=WIDTH,
        role="img",
    )

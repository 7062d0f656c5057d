"""The report in a real browser: at desktop and phone width, light and dark."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from joulemap.datasets import CostDataset
from joulemap.models import BilinearPredictor
from joulemap.profiler.report import write_report

from .conftest import AlignedStandIn

# Headless Chromium makes no window narrower than 500 pixels, so a frame has the page's width. The
# frame's page may not run scripts (its own policy); the page around it looks inside. What it does then
# stands before the frame, which may be loaded as soon as it is there.
WRAPPER = """<!doctype html><meta charset="utf-8"><body style="margin:0">
<pre id="result"></pre><script>
const found = {problems: []};
window.addEventListener("error", event => found.problems.push(String(event.message)));
function seen(element) { return element.checkVisibility(); }
function box(element) {
  const b = element.getBoundingClientRect();
  return {text: element.textContent, left: b.left, top: b.top, right: b.right, bottom: b.bottom};
}
function overlapping(boxes) {
  const pairs = [];
  for (let i = 0; i < boxes.length; i++) for (let j = 0; j < i; j++) {
    const [a, b] = [boxes[i], boxes[j]];
    const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
    const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    if (across > 1 && down > 2) pairs.push([a.text, b.text]);
  }
  return pairs;
}
function measure(frame) {
  const d = frame.contentDocument, root = d.documentElement;
  const inOwnBox = element => element.closest(".scroll") !== null;
  found.overflow = root.scrollWidth - root.clientWidth;
  found.width = root.clientWidth;
  found.outside = [...d.body.querySelectorAll("*")].filter(e => seen(e) && !inOwnBox(e)
    && e.closest("svg") === null && e.getBoundingClientRect().right > root.clientWidth + 0.5)
    .map(e => e.tagName + "." + e.className);
  found.sections = [...d.querySelectorAll("section")].map(e => e.id);
  const charts = [...d.querySelectorAll("svg")].filter(seen);
  found.charts = charts.map(e => [e.clientWidth, e.clientHeight]);
  found.overlaps = charts.flatMap(e => overlapping([...e.querySelectorAll("text")].map(box)));
  found.cut = charts.flatMap(e => [...e.querySelectorAll("text")].map(box)
    .filter(b => b.left < -0.5 || b.right > root.clientWidth + 0.5).map(b => b.text));
  found.smallest = Math.min(...charts.map(e => 11 * e.clientWidth / e.viewBox.baseVal.width));
  found.requests = frame.contentWindow.performance.getEntriesByType("resource").map(e => e.name);
  found.background = getComputedStyle(d.body).backgroundColor;
  found.color = getComputedStyle(d.body).color;
  document.getElementById("result").textContent = JSON.stringify(found);
}
</script>
<iframe style="border:0;width:%(width)dpx;height:900px" onload="measure(this)" srcdoc="%(page)s">
</iframe>"""


def browse(page: Path, width: int, folder: Path, *flags: str) -> dict[str, Any]:
    """Return what the browser makes of a page in a frame of that width, in CSS pixels."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.fail(
            "chromium is missing; install it with:\n"
            "apt-get install -y --no-install-recommends chromium",
            pytrace=False,
        )
    wrapper = folder / f"wrapper-{width}.html"
    content = html.escape(page.read_text(encoding="utf-8"))
    wrapper.write_text(WRAPPER % {"width": width, "page": content}, encoding="utf-8")
    done = subprocess.run(
        [
            chromium,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--enable-logging=stderr",
            f"--user-data-dir={folder / 'profile'}",
            "--window-size=1400,1000",
            *flags,
            "--dump-dom",
            wrapper.as_uri(),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    result = re.search(r'<pre id="result">(.*?)</pre>', done.stdout, re.DOTALL)
    assert result is not None, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(html.unescape(result[1]))
    found["console"] = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return found


@pytest.fixture(scope="module")
def page(
    campaign_folder: Path, fitted: AlignedStandIn, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("page") / "report.html"
    write_report(campaign_folder, fitted, out)
    return out


def check(found: dict[str, Any], width: int, num_charts: int) -> None:
    assert found["width"] == width
    assert found["overflow"] <= 0
    assert found["outside"] == []
    assert found["problems"] == []
    assert found["console"] == []
    assert found["requests"] == []
    assert found["sections"] == [
        "warnings",
        "accuracy",
        "learning",
        "widths",
        "parts",
        "rounding",
        "drift",
        "provenance",
        "definitions",
    ]
    assert len(found["charts"]) == num_charts
    assert all(w > 150 and h > 60 for w, h in found["charts"])
    assert found["overlaps"] == []
    assert found["cut"] == []
    assert found["smallest"] > 8  # CSS pixels of a tick's label


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_overflows_overlaps_or_is_fetched(page: Path, width: int, tmp_path: Path) -> None:
    check(browse(page, width, tmp_path), width, num_charts=3 + 4 + 1 + 1)


def test_an_imported_table_fits_a_phone_too(imported: CostDataset, tmp_path: Path) -> None:
    imported.save(tmp_path / "own")
    predictor = BilinearPredictor().fit_dataset(imported)
    write_report(tmp_path / "own", predictor, tmp_path / "r.html")
    check(browse(tmp_path / "r.html", 390, tmp_path), 390, num_charts=3 + 4 + 1)


def test_colours_follow_the_readers_preference(page: Path, tmp_path: Path) -> None:
    light = browse(page, 1280, tmp_path, "--blink-settings=preferredColorScheme=1")
    dark = browse(page, 1280, tmp_path, "--blink-settings=preferredColorScheme=0")
    assert brightness(light["background"]) > 0.9
    assert brightness(light["color"]) < 0.3
    assert brightness(dark["background"]) < 0.15
    assert brightness(dark["color"]) > 0.7


def test_what_is_looked_for_would_be_seen(page: Path, tmp_path: Path) -> None:
    bad = (
        '<div style="width:2000px">wide</div><img src="https://example.invalid/x.png"><script>1</script>'
        '<svg class="chart" viewBox="0 0 400 80"><text x="10" y="40">one</text>'
        '<text x="14" y="42">two</text></svg></main>'
    )
    broken = tmp_path / "broken.html"
    broken.write_text(page.read_text(encoding="utf-8").replace("</main>", bad), encoding="utf-8")
    found = browse(broken, 390, tmp_path)
    assert found["overflow"] > 1000
    assert "DIV." in found["outside"]
    assert ["two", "one"] in found["overlaps"]
    assert len(found["console"]) >= 2  # the page's own policy stops image and script


def brightness(colour: str) -> float:
    """Return the mean of red, green and blue of `rgb(r, g, b)`, between 0 and 1."""
    return sum(int(part) for part in re.findall(r"\d+", colour)[:3]) / 3 / 255

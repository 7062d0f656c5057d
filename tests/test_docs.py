"""The documents: their Python runs, their commands exist, their links lead somewhere.

Blocks marked `python` run in order, each page in a folder and a namespace of its own. A block that
begins with `# file: NAME` is written to that file instead; files named test_* are run by pytest.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import typer.main

from joulemap import models
from joulemap.datasets import CostDataset
from joulemap.profiler import Protocol, networks, profile, sample
from joulemap.profiler.campaign import sampling
from joulemap.profiler.command_line import cli

from .calm_judgement import CALM

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
QUICK = Protocol(
    visits=2,
    max_visit_s=0.02,
    block_s=0.005,
    max_attempts=10,
    has_revisits=False,
    max_further_visits=0,
)


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path, language: str) -> Iterator[tuple[int, str]]:
    """Yield (line before the block's first, text) of each block of a language."""
    text = page.read_text(encoding="utf-8")
    for match in BLOCK.finditer(text):
        if match[1] == language:
            yield text[: match.start(2)].count("\n"), match[2]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what pages may take for granted: a campaign, a table, a predictor of each."""
    folder = tmp_path_factory.mktemp("measured")
    out = folder / "runs/lenet5"
    profile("local:", "lenet5", samples=16, out=out, protocol=QUICK, judgement=CALM)
    spec = networks.get("lenet5")
    rows = [[*widths, 0.02 + spec.at(widths).macs * 1e-7] for widths in sample(spec, 30)]
    table = pd.DataFrame(rows, columns=[*spec.width_names, "latency_ms"])
    table.to_csv(folder / "table.csv", index=False)
    models.fit(CostDataset.from_frame(table, spec)).save(folder / "lenet5.safetensors")
    return folder


@pytest.fixture
def folder(measured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working folder, on the import path, for one page."""
    loaded = set(sys.modules)
    for outside in (models.registry.OUTSIDE, networks.registry.OUTSIDE, sampling.OUTSIDE):
        monkeypatch.setattr(outside, "registered", {})
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in set(sys.modules) - loaded:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


# Pages that begin where another has ended.
NEEDS_MEASURED = ("README.md", "data.md", "export.md", "predictors.md", "report.md")


# Visits this short lose a variant when something else runs on the machine at that moment.
@pytest.mark.filterwarnings("ignore::joulemap.datasets.DroppedRowsWarning")
@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_of_a_page_runs(page: Path, folder: Path, measured: Path) -> None:
    if page.name in NEEDS_MEASURED:
        shutil.copytree(measured, folder, dirs_exist_ok=True)
    namespace: dict[str, object] = {"__name__": "__main__"}
    for line, text in blocks(page, "python"):
        if found := re.match(r"# file: ([\w.]+)\n", text):
            (folder / found[1]).write_text(text, encoding="utf-8")
            continue
        # Empty lines before it: a traceback then shows the page's own line numbers.
        exec(compile("\n" * line + text, str(page), "exec"), namespace)  # noqa: S102
    if list(folder.glob("test_*.py")):
        command = [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        # The folder is where the page's modules lie.
        path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
        done = subprocess.run(
            [*command, "--import-mode=importlib", "-W", "error", str(folder)],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"PYTHONPATH": path},
        )
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_of_a_page_exist(page: Path) -> None:
    group = typer.main.get_command(cli.app)
    for line, text in blocks(page, "console"):
        commands = text.replace("\\\n", " ").splitlines()
        for command in commands:
            words = shlex.split(command.removeprefix("$ "), comments=True)
            if words[:1] == ["joulemap"] and not words[1].startswith("-"):
                known = group.commands  # type: ignore[attr-defined]
                assert words[1] in known, f"{page.name}:{line}: {command}"
                known[words[1]].make_context(words[1], words[2:])


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        file, _, heading = target.partition("#")
        linked = (page.parent / file).resolve() if file else page
        assert linked.exists(), f"{page.name} links to {target}"
        if heading:
            assert heading in headings(linked), f"{page.name} links to {target}"


def headings(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as code hosts make them."""
    lines = re.findall(r"^#+ (.+)$", BLOCK.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs/README.md").read_text()
    # Of the site alone: its first page, and two files of the root.
    only_of_the_site = {"index.md", "contributing.md", "changelog.md"}
    for page in (ROOT / "docs").glob("*.md"):
        if page.name in only_of_the_site:
            continue
        assert page.name == "README.md" or f"]({page.name})" in index


def test_every_page_is_on_the_site() -> None:
    site = (ROOT / "docs/index.md").read_text()
    listed = set(re.findall(r"^[\w/-]+$", site, re.MULTILINE))
    pages = (ROOT / "docs").rglob("*.md")
    found = {str(page.relative_to(ROOT / "docs").with_suffix("")) for page in pages}
    assert listed == found - {"index"}


def test_the_readme_repeats_the_figures_of_their_page() -> None:
    """What stands in both places was measured once."""
    page = (ROOT / "docs/figures.md").read_text(encoding="utf-8")
    known = set(re.findall(r"[\d][\d.,]*\d|\d", page))
    table = section(ROOT / "README.md", "Measured figures")
    rows = re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \|$", table, re.MULTILINE)[1:]
    assert len(rows) > 10
    for what, _, measured in rows:
        for figure in re.findall(r"[\d][\d.,]*\d|\d", measured):
            assert figure in known, f"{what}: {figure} does not stand in docs/figures.md"


def section(page: Path, heading: str) -> str:
    """Return the text under a heading of the second level."""
    return page.read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]

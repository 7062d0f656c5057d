"""Modules do not import each other in circles, and no folder is a heap."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("compressors", "datasets", "device_agents", "models", "profiler")
MOST_FILES = 20
# Folders that hold more, and why.
LARGER = {
    "datasets": "architecture.md keeps it flat: each file is one term of the glossary",
    "tests": "what is checked of the project as a whole, and what tests of all folders share",
}


def modules() -> dict[str, Path]:
    """Return the file of each module, by its name after `joulemap.`; '' is joulemap itself."""
    source = ROOT / "src" / "joulemap"
    found = {}
    for base, folder in [(ROOT, ROOT / name) for name in PACKAGES] + [(source, source)]:
        for path in folder.rglob("*.py"):
            parts = path.relative_to(base).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(module: str, path: Path, known: dict[str, Path]) -> Iterator[tuple[str, int]]:
    """Yield what a module imports anywhere in it, of the known ones, with the line.

    Inside functions and under TYPE_CHECKING count too. Importing a module runs the packages around
    it as well; a package that names a part of itself is no circle, so these do not count.
    """
    package = module.split(".") if module else []
    if path.name != "__init__.py":
        package = package[:-1]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            name = node.module or ""
            if node.level:
                parts = [*package[: len(package) + 1 - node.level], *filter(None, [name])]
            elif name == "joulemap" or name.startswith("joulemap."):
                parts = name.split(".")[1:]
            else:
                continue
            wanted = [(".".join([*parts, alias.name]), ".".join(parts)) for alias in node.names]
        elif isinstance(node, ast.Import):
            full = [alias.name for alias in node.names if alias.name.startswith("joulemap.")]
            wanted = [(name.partition(".")[2], "") for name in full]
        else:
            continue
        for inner, outer in wanted:
            target = inner if inner in known else outer
            if target in known and target != module:
                yield target, node.lineno


def circle(known: dict[str, Path]) -> list[str]:
    """Return a way through modules from one to itself, as lines to read; empty where there is none."""
    imports = {module: dict(imported(module, path, known)) for module, path in known.items()}
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        way: list[str] = error.args[1][::-1]
        return [
            f"{here} imports {there} in line {imports[here][there]}"
            for here, there in pairwise(way)
        ]
    return []


def test_no_module_imports_itself_by_way_of_others() -> None:
    known = modules()
    assert len(known) > 200
    assert circle(known) == []


@pytest.mark.parametrize(
    "text",
    [
        "from .b import x",
        "def late():\n    from .b import x",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..p.b import x",
        "import joulemap.p.b",
        "from joulemap.p import b",
    ],
)
def test_a_circle_is_seen_however_it_is_imported(text: str, tmp_path: Path) -> None:
    known = {name: tmp_path / f"{name}.py" for name in ("p.a", "p.b")}
    known["p.a"].write_text(text)
    known["p.b"].write_text("from .a import y")
    assert sorted(line.partition(" in line")[0] for line in circle(known)) == [
        "p.a imports p.b",
        "p.b imports p.a",
    ]


def test_no_folder_is_a_heap() -> None:
    paths = [path for name in (*PACKAGES, "tests") for path in (ROOT / name).rglob("*.py")]
    counted = Counter(
        path.parent.relative_to(ROOT).as_posix() for path in paths if path.name != "__init__.py"
    )
    large = {folder: count for folder, count in counted.items() if count > MOST_FILES}
    assert large.keys() <= LARGER.keys(), f"more than {MOST_FILES} Python files: {large}"

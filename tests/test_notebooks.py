"""Notebooks are numbered and without outputs; those that measure nothing here run in parallel."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest

from .notebook_runs import MEASURING, NOTEBOOKS, TIMEOUT_S, read, run


def test_notebooks_are_numbered() -> None:
    assert NOTEBOOKS
    for number, path in enumerate(NOTEBOOKS, start=1):
        assert re.fullmatch(rf"{number:02}_[a-z0-9_]+\.ipynb", path.name), path.name


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_committed_without_outputs(path: Path) -> None:
    notebook = read(path)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not cell.outputs, f"clear the outputs of {path.name}"
            assert cell.execution_count is None


@pytest.mark.timeout(TIMEOUT_S)
@pytest.mark.parametrize(
    "path", [path for path in NOTEBOOKS if path not in MEASURING], ids=lambda path: path.stem
)
def test_notebooks_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(path, tmp_path, monkeypatch)

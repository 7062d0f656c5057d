"""Notebooks that measure this machine, which then should have nothing else to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from .notebook_runs import MEASURING, TIMEOUT_S, run


@pytest.mark.timeout(TIMEOUT_S)
@pytest.mark.parametrize("path", MEASURING, ids=lambda path: path.stem)
def test_notebooks_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(path, tmp_path, monkeypatch)

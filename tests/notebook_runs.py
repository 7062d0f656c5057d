"""Runs notebooks from top to bottom, in an empty folder, with the interpreter of the tests."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from matplotlib import font_manager
from traitlets import default

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
MEASURING = [path for path in NOTEBOOKS if "local:" in path.read_text(encoding="utf-8")]
# What hangs ends; a machine that pauses does not matter.
TIMEOUT_S = 900


class OwnKernel(AsyncKernelManager):
    """Starts ipykernel's own kernel, the interpreter that runs this, whatever else is registered."""

    @default("kernel_spec_manager")
    def _without_registered_kernels(self) -> KernelSpecManager:
        return KernelSpecManager(kernel_dirs=[])


def read(path: Path) -> Any:
    """Return a notebook."""
    return nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]


def run(path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a notebook in the folder, which is empty; it must not print a warning."""
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR"):
        monkeypatch.setenv(name, str(folder / name.lower()))
    # Looking for fonts, once on a machine, is said on stderr where it takes long.
    assert font_manager.fontManager.ttflist
    work = folder / "work"
    work.mkdir()
    notebook = read(path)
    client = nbclient.NotebookClient(
        notebook,
        kernel_name="python3",
        kernel_manager_class=OwnKernel,
        timeout=None,
        startup_timeout=TIMEOUT_S,
        # What a cell printed arrives after the word that it has ended.
        iopub_timeout=120,
        raise_on_iopub_timeout=True,
        resources={"metadata": {"path": str(work)}},
    )
    client.execute(env=os.environ | {"PYTHONSAFEPATH": "1"})
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            # A warning is a part of the notebook that its author did not see.
            assert output.get("name") != "stderr", f"{cell.source}\n{output.text}"

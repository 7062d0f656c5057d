"""Output that goes nowhere, and names that are no text: one line on standard error, no traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from joulemap import models
from joulemap.datasets import CostDataset, NetworkSpec

# Imports once; then each command is a child whose standard output is what the test wants.
CHILDREN = """
import json, os, sys
import joulemap.models, joulemap.profiler.command_line.fitting, joulemap.profiler.command_line.tables, joulemap.profiler.report
from joulemap.profiler.command_line import start

def run(arguments, out):
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(write, 2)
        if out == "closed":
            os.close(1)
        elif out == "gone":
            reader, gone = os.pipe()
            os.close(reader)
            os.dup2(gone, 1)
        else:
            os.dup2(os.open(out, os.O_WRONLY), 1)
        sys.argv[:] = ["joulemap", *map(os.fsdecode, map(bytes.fromhex, arguments))]
        sys.exit(start.main())
    os.close(write)
    with os.fdopen(read, "rb") as file:
        said = file.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said.decode("utf-8", "replace")

print(json.dumps([run(*each) for each in json.loads(sys.argv[1])]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a table and a predictor of lenet5."""
    from joulemap.profiler import networks

    folder = tmp_path_factory.mktemp("streams")
    spec: NetworkSpec = networks.get("lenet5")
    X = np.array([spec.max_widths, spec.min_widths, [w // 2 for w in spec.max_widths]], float)
    table = pd.DataFrame(X, columns=list(spec.width_names)).assign(latency_s=X.sum(axis=1))
    predictor = models.FlopsPredictor().fit_dataset(CostDataset.from_frame(table, spec))
    predictor.save(folder / "predictor.safetensors")
    header = ",".join([*spec.width_names, "latency_s"])
    rows = [",".join(f"{value:g}" for value in [*row, row.sum()]) for row in X]
    (folder / "table.csv").write_text("\n".join([header, *rows, ""]))
    return folder


def outcomes(folder: Path, commands: list[tuple[list[str | bytes], str]]) -> list[tuple[int, str]]:
    """Return exit code and standard error of commands whose output goes where it says."""
    asked = [[[os.fsencode(word).hex() for word in words], out] for words, out in commands]
    done = subprocess.run(
        [sys.executable, "-P", "-W", "ignore", "-c", CHILDREN, json.dumps(asked)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return [(code, said) for code, said in json.loads(done.stdout.splitlines()[-1])]


def test_output_that_cannot_be_written_is_said_in_one_line(folder: Path) -> None:
    widths = ",".join(["1"] * len(models.load(folder / "predictor.safetensors").width_names_))
    predict: list[str | bytes] = ["predict", "predictor.safetensors", "--widths", widths]
    lines: list[list[str | bytes]] = [
        ["--version"],
        ["--help"],
        ["fit", "--help"],
        predict,
        [*predict, "--json"],
        ["export", "predictor.safetensors", "--to", "onnx"],
        ["import", "table.csv", "--spec", "lenet5", "--out", "imported"],
        ["import", "table.csv", "--spec", "lenet5", "--out", "again", "--json"],
    ]
    full = [(words, "/dev/full") for words in lines]
    others = [(words, out) for out in ("gone", "closed") for words in lines[:5]]
    found = outcomes(folder, full + others)
    for words, (code, said) in zip(lines, found, strict=False):
        assert code == 1, (words, said)
        assert said.count("\n") == 1, (words, said)
        assert "the output cannot be written: No space left on device" in said
    # To a reader that has enough nothing is said; without an output the work is done all the same.
    for (words, out), outcome in zip(others, found[len(full) :], strict=True):
        assert outcome == (1 if out == "gone" else 0, ""), (words, out)


def test_names_that_are_no_text_are_names(folder: Path) -> None:
    name = b"run\xff\xfe"
    commands: list[tuple[list[str | bytes], str]] = [
        (["import", "table.csv", "--spec", "lenet5", "--out", name], "/dev/null"),
        (["import", "table.csv", "--spec", "lenet5", "--out", name + b"2", "--json"], "/dev/null"),
        (["evaluate", "predictor.safetensors", name], "/dev/null"),
        (
            ["export", "predictor.safetensors", "--to", "onnx", "--out", name + b".onnx"],
            "/dev/null",
        ),
        (["predict", name, "--widths", "1"], "/dev/null"),
        (["import", name, "--spec", name, "--out", "x"], "/dev/null"),
        (["import", "table.csv", "--spec", b"no\xff:such", "--out", "x"], "/dev/null"),
        (["probe", b"ssh://\xff\xfe"], "/dev/null"),
        ([b"\xff"], "/dev/null"),
        (["import", "table.csv", "--spec", "lenet5", "--out", "[/red]"], "/dev/null"),
    ]
    codes = [0, 0, 0, 0, 2, 2, 2, 2, 2, 0]
    for (words, _), code, (found, said) in zip(
        commands, codes, outcomes(folder, commands), strict=True
    ):
        assert "Traceback" not in said, (words, said)
        assert found == code, (words, said)
    assert (folder / os.fsdecode(name) / "README.md").is_file()

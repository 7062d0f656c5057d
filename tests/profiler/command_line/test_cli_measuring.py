"""The command line where it measures this machine, which then should have nothing else to do."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

from joulemap.datasets import CostDataset

from .commands import PROFILE, joulemap, refused

# What runs in the background of a shell inherits that it ignores the signal.
WITH_SIGINT = (
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); "
    "os.execv(sys.argv[1], sys.argv[1:])"
)


def test_profile_fit_predict_evaluate_export(tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = joulemap(*PROFILE, "--samples", "14", "--out", run)
    assert done.returncode == 0, done.stderr
    assert "56 visits" in done.stderr  # two each, and two more of each for the noise floor
    assert "14 variants" in done.stdout
    assert "Noise floor" in done.stdout
    again = joulemap(*PROFILE, "--samples", "14", "--out", run, "--json")
    assert again.returncode == 0
    assert "nothing to measure" in again.stderr
    assert json.loads(again.stdout)["variants"] == 14
    file = tmp_path / "p.safetensors"
    fitted = joulemap("fit", run, "--out", file, "--target", "latency_s,cpu_time_s", "--json")
    assert [t["target"] for t in json.loads(fitted.stdout)["targets"]] == [
        "latency_s",
        "cpu_time_s",
    ]
    assert "cpu_time_s" in refused("predict", file, "--widths", "1,1,1,1")
    one = joulemap("predict", file, "--widths", "1,1,1,1", "--target", "latency_s", "--json")
    row = json.loads(one.stdout)["rows"][0]
    assert row["low"] < row["cost"] < row["high"]


def started(command: list[str]) -> subprocess.Popen[str]:
    """Start a program that Ctrl-C reaches also where the tests run in the background of a shell."""
    return subprocess.Popen(
        [sys.executable, "-c", WITH_SIGINT, *command],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def interrupted(command: list[str], journal: Path, lines: int) -> str:
    """Press Ctrl-C when the journal has so many lines more; return what the program said."""
    before = journal.read_bytes().count(b"\n") if journal.exists() else 0
    with started(command) as process:
        try:
            # However long it waits for an idle machine.
            while not journal.exists() or journal.read_bytes().count(b"\n") < before + lines:
                assert process.poll() is None, process.communicate()
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            _, said = process.communicate()
        finally:
            process.kill()
    assert process.returncode == 130, said
    return said


def test_ctrl_c_leaves_a_dataset_that_the_same_command_continues(tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [str(Path(sys.executable).with_name("joulemap")), *PROFILE]
    command += ["--samples", "400", "--out", str(run)]
    said = interrupted(command, run / "journal.jsonl", 6)
    assert "the same command continues" in said
    assert "Traceback" not in said
    measured = len(CostDataset.load(run / "measurements.parquet"))
    assert measured >= 5
    interrupted(command, run / "journal.jsonl", 3)
    assert len(CostDataset.load(run)) > measured

"""`make test` runs every test file once: its two commands name folders and files."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]


def covered_by(command: str) -> set[Path]:
    """Return the test files that a pytest command of the Makefile collects."""
    words = shlex.split(command)[1:]
    ignored = [ROOT / word.removeprefix("--ignore=") for word in words if "--ignore=" in word]
    named = [ROOT / word for word in words if word.startswith("tests/")]
    files = {f for path in named for f in (path.rglob("test_*.py") if path.is_dir() else [path])}
    return {f for f in files if not any(f == path or path in f.parents for path in ignored)}


def test_every_test_file_is_run_once() -> None:
    printed = subprocess.run(
        [shutil.which("make") or "make", "--dry-run", "--always-make", "test"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    commands = [line for line in printed.splitlines() if "/pytest " in line]
    first, second = map(covered_by, commands)
    everything = set((ROOT / "tests").rglob("test_*.py")) - set(
        (ROOT / "tests/board").rglob("*.py")
    )
    assert first | second == everything
    assert not first & second

"""`make test-fresh-examples` fails for what it draws, and prints the command that repeats it."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONFTEST = """
from hypothesis import settings
settings.register_profile("search", deadline=None)
"""
TESTS = """
from hypothesis import given, strategies as st

@given(st.integers(0, 2**40))
def test_some(number: int) -> None:
    assert number % 3 or number < 1000

@given(st.integers())
def test_all(number: int) -> None:
    pass

def test_is_no_property() -> None:
    raise AssertionError
"""


def test_a_failure_comes_with_the_command_that_repeats_it(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    file = tmp_path / "test_drawn.py"
    file.write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")

    def run(*command: str) -> tuple[int, str]:
        ended = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
        )
        return ended.returncode, ended.stdout

    code, said = run(sys.executable, str(ROOT / "tests/fresh_examples.py"), "11", str(file))
    assert code == 1
    assert "fresh examples: seed 11 (again: make test-fresh-examples SEED=11)" in said
    assert "2 of 2 property tests" in said
    (repeat,) = [line for line in said.splitlines() if line.startswith("repeat: ")]
    code, again = run(*shlex.split(repeat.removeprefix("repeat: ")))
    assert code == 1
    assert "1 failed" in again
    # Said once or, where `CI` is set, a second time in the summary.
    drawn = set(re.findall(r"number=\d+", said))
    assert len(drawn) == 1
    assert drawn == set(re.findall(r"number=\d+", again))

"""No test is skipped in silence: the run fails unless the one list of absent hardware names it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

TESTS = Path(__file__).parent

EXAMPLES = """
import pytest

def test_listed(): pytest.skip("no card")
@pytest.mark.parametrize("n", [1, 2])
def test_parameters(n): pytest.skip("no card")
class TestListed:
    def test_inside(self): pytest.skip("no card")
@pytest.mark.xfail(reason="known", strict=True)
def test_expected_failure(): assert False
def test_good(): pass
"""
UNLISTED = """
import pytest

def test_by_call(): pytest.skip("not today")
@pytest.mark.skipif(True, reason="not today")
def test_by_mark(): pass
def test_by_import(): pytest.importorskip("no_such_package_at_all")
@pytest.fixture
def thing(): pytest.skip("not today")
def test_by_fixture(thing): pass
"""
WHOLE_FILE = "import pytest\npytest.skip('not today', allow_module_level=True)\n"


def test_the_list_names_tests_that_exist_and_what_they_need() -> None:
    for test, need in tomllib.loads((TESTS / "absent_hardware.toml").read_text())["tests"].items():
        file, *names = test.split("::")
        text = (TESTS.parent / file).read_text()
        assert all(name.partition("[")[0] in text for name in names), test
        assert need


def test_a_skipped_test_that_is_not_listed_fails_the_run(tmp_path: Path) -> None:
    folder = tmp_path / "tests"
    folder.mkdir()
    for name in ("conftest.py", "waiting.py"):
        shutil.copy(TESTS / name, folder)
    names = ("::test_listed", "::test_parameters", "::TestListed")
    listed = "".join(f'"tests/test_examples.py{name}" = "a card"\n' for name in names)
    (folder / "absent_hardware.toml").write_text(f"[tests]\n{listed}")
    (folder / "test_examples.py").write_text(EXAMPLES)
    assert _run(tmp_path) == (0, "1 passed, 4 skipped, 1 xfailed")
    (folder / "test_unlisted.py").write_text(UNLISTED)
    assert _run(tmp_path) == (1, "2 failed, 1 passed, 4 skipped, 1 xfailed, 2 errors")
    (folder / "test_unlisted.py").write_text(WHOLE_FILE)
    code, said = _run(tmp_path)
    assert code == 2
    assert "1 error" in said


def _run(folder: Path) -> tuple[int, str]:
    # Of the options in pyproject.toml those that conftest.py relies on.
    options = ["--import-mode=importlib", "-o", "timeout=60"]
    command = [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    done = subprocess.run(
        [*command, *options, "--rootdir", str(folder)],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
    )
    assert done.stdout, done.stderr
    last = done.stdout.strip().splitlines()[-1]
    return done.returncode, last.partition(" in ")[0]

"""Draws fresh examples of the property tests, for at most two minutes.

    python tests/fresh_examples.py [SEED [FILE...]]

The seed, drawn where none is given, orders the tests and draws their examples, so that every run
begins with others. It is printed, and a failure comes with the command that repeats it.
"""

from __future__ import annotations

import random
import secrets
import sys
import time
from pathlib import Path

import pytest

LIMIT_S = 120.0
# No test begins after this: the one that runs then has what is left.
LAST_START_S = 80.0
ROOT = Path(__file__).parents[1]


class Rotation:
    """Orders property tests by a seed, begins none after its time, and tells how to repeat one.

    Args:
        seed: Of the order.
        began: When the run began, on the monotonic clock.
    """

    def __init__(self, seed: int, began: float) -> None:
        self.seed = seed
        self.began = began
        self.num_made = self.num_all = 0
        self.failed: list[str] = []
        self.is_over = False

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Bring the files into the seed's order, each with its tests together."""
        files = sorted({item.path for item in items})
        random.Random(self.seed).shuffle(files)
        items.sort(key=lambda item: files.index(item.path))
        self.num_all = len(items)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep what failed."""
        if report.failed:
            self.failed.append(report.nodeid)

    def pytest_runtest_logfinish(self) -> None:
        """Count a test."""
        self.num_made += 1

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> object:
        """Run a test; let the run end after it when the time is over."""
        made = yield
        if time.monotonic() - self.began > LAST_START_S:
            self.is_over = True
            item.session.shouldstop = "the time is over"
        return made


def main() -> int:
    """Run; return 0 where nothing failed, also if the time ended it."""
    began = time.monotonic()
    seed = int(sys.argv[1]) if sys.argv[1:] else secrets.randbelow(2**31)
    print(f"fresh examples: seed {seed} (again: make test-fresh-examples SEED={seed})", flush=True)
    files = sys.argv[2:] or [
        str(path)
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        if "hypothesis" in path.read_text(encoding="utf-8")
    ]
    rotation = Rotation(seed, began)
    options = ["--hypothesis-profile", "search", f"--hypothesis-seed={seed}"]
    code = pytest.main(
        [
            *("-q", "-m", "hypothesis and not board and not soak", *options),
            *(f"--timeout={LIMIT_S - LAST_START_S:.0f}", "-p", "no:xdist", *files),
        ],
        plugins=[rotation],
    )
    print(f"seed {seed}: {rotation.num_made} of {rotation.num_all} property tests")
    for name in dict.fromkeys(rotation.failed):
        print(f"repeat: {Path(sys.executable).with_name('pytest')} {' '.join(options)} '{name}'")
    return 0 if rotation.is_over and not rotation.failed else int(code)


if __name__ == "__main__":
    sys.exit(main())

"""A round of attacks that crashes or hangs is a failure, and leaves nothing behind."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def trust(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import trust

    return trust


def _made(trust: Any, run: Any, limit_s: float = 60.0) -> dict[str, Any]:
    made: dict[str, Any] = trust._make(trust.Trial("one", "holds", 1, run, limit_s), 7)
    return made


def test_rounds_are_told_as_they_end(trust: Any) -> None:
    def crashing(_seed: int) -> Any:
        print("said on the way")
        raise ValueError("a flaw")

    def leaving(_seed: int) -> Any:
        os._exit(3)

    made = _made(trust, lambda seed: trust.Outcome(seed, ("one",), (("share", 0.5),)))
    assert (made["tries"], list(made["failures"])) == (7, ["one"])
    (told,) = _made(trust, crashing)["failures"]
    assert told.startswith("seed 7: ValueError: a flaw at test_trust_rounds.py:")
    assert list(_made(trust, leaving)["failures"]) == ["seed 7: its process ended: without a word"]


def test_a_round_that_hangs_ends_with_what_it_started(trust: Any) -> None:
    kept, held = os.pipe()

    def hanging(_seed: int) -> Any:
        os.fork()
        os.write(held, b"x")
        while True:
            time.sleep(60)

    assert "not ended after 2 s" in _made(trust, hanging, 2.0)["failures"][0]
    os.close(held)
    with os.fdopen(kept, "rb") as file:
        # Its end: nobody has the other side any more.
        assert file.read() == b"xx"


@pytest.mark.parametrize(
    ("shares", "is_failing"),
    [
        ([0, 0, 0, 0], False),
        ([0, 0, 0, 10], False),
        ([3, 2, 3, 2], True),
        ([10], True),
        ([], False),
    ],
)
def test_more_may_fail_in_one_round_than_in_all(
    trust: Any, shares: list[int], is_failing: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    trial = trust.Trial("one", "holds", 1, lambda _: None, may_fail=0.1)
    rounds = [
        {"tries": 10, "failures": ["missed"] * share, "figures": [], "took_s": 1.0}
        for share in shares
    ]
    assert trust._print(trial, rounds) is is_failing
    assert ("at most 10 % may" in capsys.readouterr().out) is any(shares)

"""A test that waits for a program in vain fails, and says where both were."""

from __future__ import annotations

import subprocess
import sys

import pytest

from . import waiting

STUCK = """
import subprocess, sys, threading
def stuck_below():
    print("below", flush=True)
    threading.Event().wait()
def stuck_here():
    subprocess.run([sys.executable, "-c", sys.argv[1], "", "below"], check=False)
(stuck_below if sys.argv[2:] else stuck_here)()
"""


@pytest.mark.parametrize("timeout", [None, 1000.0])
def test_stacks_are_told(monkeypatch: pytest.MonkeyPatch, timeout: float | None) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK, STUCK],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "below\n"
    monkeypatch.setattr(waiting, "limit_s", 0.2)
    with pytest.raises(pytest.fail.Exception) as failed:
        process.communicate(timeout=timeout)
    said = str(failed.value)
    for name in ("stuck_here", "stuck_below", "test_stacks_are_told", "not ended after 0 s"):
        assert name in said
    assert process.poll() is not None


def test_a_wait_of_a_program_without_pipes_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    process = subprocess.Popen(["sleep", "1000"])  # noqa: S607
    monkeypatch.setattr(waiting, "limit_s", 0.2)
    with pytest.raises(pytest.fail.Exception, match="sleep 1000"):
        process.wait()
    assert process.poll() is not None


def test_limits_of_the_code_that_is_tested_stay() -> None:
    process = subprocess.Popen(["sleep", "1000"])  # noqa: S607
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.05)
    finally:
        process.kill()
        process.wait()


def test_each_test_sets_the_limit_of_its_waits(request: pytest.FixtureRequest) -> None:
    assert waiting.limit_s == waiting.SHARE * float(request.config.getini("timeout"))


@pytest.mark.timeout(900)
def test_a_longer_test_waits_longer() -> None:
    assert waiting.limit_s == waiting.SHARE * 900

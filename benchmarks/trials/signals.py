"""Ctrl-C, SIGTERM and SIGHUP at random moments of commands, from their first instruction on.

Once, twice or three times, to the command alone or, as a terminal does, to all of its group. The
command has to end in time and without a traceback, its processes with it, and the same command has to
go on from what was measured.
"""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from joulemap.datasets import CostDataset
from joulemap.datasets.journal import read_journal
from trials import Outcome, Trial

COMMAND = str(Path(sys.executable).with_name("joulemap"))
PRESSES = 10
# Beyond the two seconds to a safe point: the agent's end and the dataset, on a busy machine.
ENDS_S = 20.0
# For what a command started to be gone as well.
GONE_S = 5.0
START_UP_S = 2.0
# For a command that nobody interrupts; long, since machines may be busy.
WHOLE_S = 600.0
MARK = "JOULEMAP_TRIAL"
SIGNALS = (signal.SIGINT, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Press:
    """What is sent to a command.

    Attributes:
        number: The signal.
        gaps_s: Seconds between the first and each further one.
        is_for_group: Whether all processes of the command's group get it.
    """

    number: int
    gaps_s: tuple[float, ...]
    is_for_group: bool

    @classmethod
    def drawn(cls, draw: random.Random) -> Press:
        """Return a random one."""
        count = draw.choice((0, 0, 0, 1, 1, 2))
        gaps_s = tuple(draw.choice((0.02, 0.15, 0.5, 1.5)) for _ in range(count))
        return cls(draw.choice(SIGNALS), gaps_s, draw.random() < 0.5)

    def codes(self) -> set[int]:
        """Return how a command may end."""
        # By the signal itself before there is an interpreter; killed by the third.
        return {128 + self.number, -self.number, -signal.SIGKILL if len(self.gaps_s) > 1 else 0, 0}


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        problem: What is wrong about it, None for nothing.
        code: Its exit code.
        ends_s: Seconds from the first signal to its end.
    """

    problem: str | None
    code: int
    ends_s: float


def pressed(arguments: Sequence[str], press: Press, after_s: float, journal: Path | None) -> Ended:
    """Start a command, press after so many seconds, and see how it ends.

    Args:
        arguments: Of the command.
        press: What it gets.
        after_s: Seconds to wait, from its start or from the first visit on.
        journal: Whose growth is the first visit; None to wait from its start.
    """
    mark = secrets.token_hex(8)
    # What runs in the background of a shell, or under nohup, ignores some, and so does what it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            [COMMAND, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
            env=os.environ | {MARK: mark},
            start_new_session=True,
        )
        try:
            if journal is not None:
                _wait_for_growth(process, journal)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(after_s)
            began_s = time.monotonic()
            for gap_s in (0.0, *press.gaps_s):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(gap_s)
                _send(process.pid, press)
            try:
                code = process.wait(ENDS_S)
            except subprocess.TimeoutExpired:
                return Ended(f"does not end within {ENDS_S:.0f} s", 0, ENDS_S)
            ends_s = time.monotonic() - began_s
            said.seek(0)
            text = said.read()
            problem = None
            if "Traceback" in text or "Error" in text:
                problem = f"says {text[-300:]!r}"
            elif code not in press.codes():
                problem = f"ends with {code}, and says {text[-200:]!r}"
            elif left := _left(mark):
                problem = f"leaves {left}"
            return Ended(problem, code, ends_s)
        finally:
            for pid in _marked(mark):
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()


def _send(pid: int, press: Press) -> None:
    with contextlib.suppress(ProcessLookupError):
        (os.killpg if press.is_for_group else os.kill)(pid, press.number)


def _wait_for_growth(process: subprocess.Popen[bytes], journal: Path) -> None:
    before = journal.stat().st_size if journal.exists() else 0
    deadline = time.monotonic() + 90.0
    while process.poll() is None and time.monotonic() < deadline:
        if journal.exists() and journal.stat().st_size > before:
            return
        time.sleep(0.02)


def _marked(mark: str) -> list[int]:
    """Return the processes that a command of this mark started, itself included."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"{MARK}={mark}".encode() in (path / "environ").read_bytes():
                found.append(int(path.name))
    return found


def _left(mark: str) -> str:
    """Return the command lines of what does not end, empty where all does."""
    deadline = time.monotonic() + GONE_S
    while lines := [line for line in map(_command_line, _marked(mark)) if not _is_adb_server(line)]:
        if time.monotonic() > deadline:
            return str(lines)[:200]
        time.sleep(0.05)
    return ""


def _command_line(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
    return b"(ended)"


def _is_adb_server(line: bytes) -> bool:
    """Return whether this is adb's server, which whoever uses adb first starts and leaves to all."""
    return line.startswith(b"adb ") and b" fork-server server" in line


def campaign(seed: int) -> Outcome:
    """Press during one campaign until it has been pressed often, then let it end."""
    draw = random.Random(f"signals/{seed}")  # noqa: S311 - drawn again by the same seed
    folder = Path(tempfile.mkdtemp(prefix="signals-"))
    try:
        return _campaign(draw, folder / "run", is_local=seed % 4 == 0)
    finally:
        shutil.rmtree(folder)


def _campaign(draw: random.Random, out: Path, *, is_local: bool) -> Outcome:
    url = "local:" if is_local else f"sim:eyeriss?disturbances=phone&seed={draw.randint(0, 99)}"
    samples = "12" if is_local else "250"
    arguments = ["profile", url, "--network", "lenet5", "--samples", samples, "--visits", "2"]
    arguments += ["--visit-s", "0.05", "--rel-error", "0.9", "--meter", "none", "--out", str(out)]
    journal = out / "journal.jsonl"
    failures: list[str] = []
    spans_s: list[float] = []
    kept: list[tuple[str, int, int]] = []
    for number in range(PRESSES):
        press = Press.drawn(draw)
        is_early = draw.random() < 0.4
        after_s = draw.uniform(0, START_UP_S if is_early else 1.0)
        ended = pressed(arguments, press, after_s, None if is_early else journal)
        where = f"press {number} of {url}, {press}, {after_s:.3f} s after its "
        where += "start" if is_early else "first visit"
        if ended.problem is not None:
            failures.append(f"{where}: it {ended.problem}")
        spans_s.append(ended.ends_s)
        now = _visits(journal)
        if now[: len(kept)] != kept or len(now) != len(set(now)):
            failures.append(f"{where}: visits are lost or there twice")
        kept = now
    done = subprocess.run(
        [COMMAND, *arguments], capture_output=True, text=True, check=False, timeout=WHOLE_S
    )
    now = _visits(journal)
    if done.returncode or now[: len(kept)] != kept or len(now) != len(set(now)):
        failures.append(f"the same command does not continue: {done.stderr[-300:]!r}")
    elif len(CostDataset.load(out)) != int(samples):
        failures.append(f"{len(CostDataset.load(out))} variants instead of {samples}")
    return Outcome(PRESSES, tuple(failures), _figures(spans_s))


def _visits(journal: Path) -> list[tuple[str, int, int]]:
    return [visit.key for visit in read_journal(journal).visits] if journal.exists() else []


def _figures(spans_s: Sequence[float]) -> tuple[tuple[str, float], ...]:
    return (
        ("seconds to the end, mean", sum(spans_s) / len(spans_s)),
        ("seconds to the end, most of a round", max(spans_s)),
    )


def others(seed: int) -> Outcome:
    """Press during commands that measure nothing."""
    draw = random.Random(f"signals/others/{seed}")  # noqa: S311 - drawn again by the same seed
    folder = Path(tempfile.mkdtemp(prefix="signals-"))
    try:
        return _others(draw, folder)
    finally:
        shutil.rmtree(folder)


def _others(draw: random.Random, folder: Path) -> Outcome:
    run, file = str(folder / "run"), folder / "out" / "p.safetensors"
    made = ["profile", "sim:eyeriss", "--network", "lenet5", "--samples", "40", "--visits", "1"]
    subprocess.run([COMMAND, *made, "--out", run], capture_output=True, check=True, timeout=WHOLE_S)
    file.parent.mkdir()
    fit = ["fit", run, "--model", "bilinear", "--out", str(file)]
    subprocess.run([COMMAND, *fit], capture_output=True, check=True, timeout=WHOLE_S)
    names = {path.name for path in file.parent.iterdir()}
    commands = {
        "fit": fit,
        "report": ["report", run, "--predictor", str(file), "--out", str(folder / "r.html")],
        "predict": ["predict", str(file), "--widths", "1,1,1,1"],
        "probe": ["probe", "local:"],
        "devices": ["devices"],
    }
    failures: list[str] = []
    spans_s: list[float] = []
    for number in range(PRESSES):
        name = draw.choice(sorted(commands))
        press, after_s = Press.drawn(draw), draw.uniform(0, 2 * START_UP_S)
        ended = pressed(commands[name], press, after_s, None)
        where = f"press {number} of {name}, {press}, {after_s:.3f} s after its start"
        if ended.problem is not None:
            failures.append(f"{where}: it {ended.problem}")
        if left := {path.name for path in file.parent.iterdir()} - names:
            failures.append(f"{where}: it leaves {left}")
            names |= left
        spans_s.append(ended.ends_s)
    done = subprocess.run(
        [COMMAND, *commands["predict"]],
        capture_output=True,
        text=True,
        check=False,
        timeout=WHOLE_S,
    )
    if done.returncode:
        failures.append(f"the predictor cannot be used: {done.stderr[-300:]!r}")
    return Outcome(PRESSES, tuple(failures), _figures(spans_s))


TRIALS = (
    Trial(
        "signals-campaign",
        "a signal at any moment ends a campaign in time, and the same command continues it",
        40,
        campaign,
        limit_s=1500.0,
    ),
    Trial(
        "signals-others",
        "a signal at any moment ends any other command in time, and leaves no half file",
        10,
        others,
        limit_s=1500.0,
    ),
)

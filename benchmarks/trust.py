"""Prints how often each promise of joulemap was attacked, and how often it did not hold.

python benchmarks/trust.py [--share 0.1] [--only NAME,NAME] [--seed N] [--out runs/trust]

Every round runs in a process of its own, which has the trials imported from the start; one that
outlasts its limit or crashes is a failure, and whatever it started ends with it. What was made is kept in the folder, and the same command goes on from there. A new folder draws a new
seed, which is printed; `--seed` repeats a run. `table.md` in the folder is the table of docs/trust.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import secrets
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats
from threadpoolctl import threadpool_limits
from trials import Outcome, Trial, trials

RESULTS = "rounds.jsonl"
TABLE = "table.md"
# Small matrices: threads that wait for each other on busy cores take forty times as long.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def main() -> int:
    """Make the rounds that are missing, print the table, return 1 if a promise did not hold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--share", type=float, default=1.0, help="of the rounds of a whole run")
    parser.add_argument("--only", default="", help="names of trials, separated by commas")
    parser.add_argument("--seed", type=int, help="of the first round; drawn when left out")
    parser.add_argument("--out", type=Path, default=Path("runs/trust"))
    arguments = parser.parse_args()
    os.environ.update(ONE_THREAD)
    known = trials()
    threadpool_limits(limits=1)
    names = [name for name in arguments.only.split(",") if name] or list(known)
    unknown = [name for name in names if name not in known]
    if unknown:
        parser.error(f"unknown trials {', '.join(unknown)}; known: {', '.join(known)}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    seed = _seed(arguments.out, arguments.seed)
    print(f"seed {seed}, rounds in {arguments.out / RESULTS}", flush=True)
    done = {(line["trial"], line["seed"]): line for line in _lines(arguments.out / RESULTS)}
    failed = False
    rows = [
        "| trial | what must hold | tries | failures | bound, figures |",
        "|---|---|---|---|---|",
    ]
    for name in names:
        trial = known[name]
        num_rounds = max(1, round(arguments.share * trial.rounds))
        rounds = []
        for index in range(num_rounds):
            key = (name, seed + index)
            if key not in done:
                done[key] = _make(trial, seed + index)
                with (arguments.out / RESULTS).open("a") as file:
                    file.write(json.dumps(done[key]) + "\n")
            rounds.append(done[key])
        failed |= _print(trial, rounds)
        rows.append(_row(trial, rounds))
    (arguments.out / TABLE).write_text("\n".join(rows) + "\n")
    return int(failed)


def _seed(out: Path, wanted: int | None) -> int:
    file = out / "seed"
    if file.exists():
        kept = int(file.read_text())
        if wanted not in (None, kept):
            sys.exit(f"{out} holds rounds of seed {kept}; name another folder for seed {wanted}")
        return kept
    seed = secrets.randbelow(10**9) if wanted is None else wanted
    file.write_text(f"{seed}\n")
    return seed


def _lines(path: Path) -> Iterable[dict[str, Any]]:
    if not path.exists():
        return
    for line in path.read_text().splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            continue  # the run was killed while it wrote this line


def _make(trial: Trial, seed: int) -> dict[str, Any]:
    """Return one round as it is kept: what came out, or that it hung or crashed."""
    start = time.monotonic()
    context = multiprocessing.get_context("fork")
    ended, told = context.Pipe(duplex=False)
    with ended, tempfile.TemporaryFile("w+") as said:
        process = context.Process(target=_round, args=(trial, seed, told, said.fileno()))
        process.start()
        told.close()
        try:
            if ended.poll(trial.limit_s):
                outcome: dict[str, Any] = ended.recv()
            else:
                outcome = asdict(
                    Outcome(1, (f"seed {seed}: not ended after {trial.limit_s:.0f} s",))
                )
        except EOFError:
            said.seek(0)
            last = (said.read().strip().splitlines() or ["without a word"])[-1]
            outcome = asdict(Outcome(1, (f"seed {seed}: its process ended: {last[:300]}",)))
        finally:
            # What it started is of its group, whose number is no other one's before it is joined.
            if process.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            process.join()
    return {"trial": trial.name, "seed": seed, "took_s": time.monotonic() - start} | outcome


def _round(trial: Trial, seed: int, told: Connection, said: int) -> None:
    """Make a round in this process and tell what came out; what is printed goes to a file."""
    os.setsid()
    for stream in (1, 2):
        os.dup2(said, stream)
    try:
        outcome = trial.run(seed)
    except Exception as error:  # noqa: BLE001 - whatever it is, the promise was not seen to hold
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}:{place.lineno}"
        outcome = Outcome(
            1, (f"seed {seed}: {type(error).__name__}: {str(error)[:300]} at {where}",)
        )
    told.send(asdict(outcome))


def _print(trial: Trial, rounds: Sequence[Mapping[str, Any]]) -> bool:
    """Print a trial's line; return whether its promise did not hold."""
    tries, failures = _counts(rounds)
    took_s = sum(line["took_s"] for line in rounds)
    told = ", ".join(_told(trial, rounds))
    print(
        f"{trial.name}: {trial.promise}: {tries} tries, {len(failures)} failures"
        f"{told and f' ({told})'}; {len(rounds)} rounds, {took_s:.0f} s",
        flush=True,
    )
    for failure in failures[:3]:
        print(f"    {failure}", flush=True)
    if not trial.may_fail:
        return bool(failures)
    return _failing_share(rounds)[0] > trial.may_fail


def _failing_share(rounds: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Return between which shares of tries fail, from round to round: a 90 % interval."""
    shares = np.array([len(line["failures"]) / line["tries"] for line in rounds if line["tries"]])
    if len(shares) < 2:
        return (float(shares.mean()), 1.0) if len(shares) else (0.0, 1.0)
    error = float(stats.t.ppf(0.95, len(shares) - 1)) * shares.std(ddof=1) / np.sqrt(len(shares))
    return max(0.0, float(shares.mean() - error)), min(1.0, float(shares.mean() + error))


def _row(trial: Trial, rounds: Sequence[Mapping[str, Any]]) -> str:
    """Return a trial's row of the table in docs/trust.md."""
    tries, failures = _counts(rounds)
    told = ", ".join(_told(trial, rounds))
    return f"| `{trial.name}` | {trial.promise} | {tries:,} | {len(failures):,} | {told} |"


def _counts(rounds: Iterable[Mapping[str, Any]]) -> tuple[int, list[str]]:
    rounds = list(rounds)
    return sum(line["tries"] for line in rounds), [t for line in rounds for t in line["failures"]]


def _told(trial: Trial, rounds: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield what a trial's counts show, and the means of its figures."""
    rounds = list(rounds)
    tries, failures = _counts(rounds)
    if trial.may_fail and failures:
        share = 100 * len(failures) / max(tries, 1)
        low, high = _failing_share(rounds)
        yield (
            f"{share:.1f} % failed (90 % interval {100 * low:.0f} % to {100 * high:.0f} %), at most "
            f"{100 * trial.may_fail:.0f} % may"
        )
    elif not failures and tries:
        # The highest rate at which so many tries show no failure once in twenty times.
        yield f"95 % bound {100 * float(stats.beta.ppf(0.95, 1, tries)):.2g} %"
    figures: dict[str, list[float]] = {}
    for line in rounds:
        for name, value in line["figures"]:
            figures.setdefault(name, []).append(value)
    for name, values in figures.items():
        yield f"{name} {np.mean(values):.4g}"


if __name__ == "__main__":
    sys.exit(main())

"""Prints how well meters find a known energy, beside naive ways, and what they cost.

    python benchmarks/meters.py [--only counter|sampler|coverage|slowdown|recover] ...

Meters, windows and statistics are the agent's own. What they read is a simulated board whose power
is known at every moment (see `joulemap.device_agents.simulated.board_model`):

counter    RAPL at 1 kHz whose counter wraps every 20 J, through a file system in real time; the
           load is a real network; a third of the windows each with active power = idle power, twice
           and four times it
sampler    the battery gauge of a phone: 10 Hz, averaged over 0.5 s, 5 % noise; some windows in real
           time, all others in virtual time
coverage   how often the truth lies in the stated 95 % interval, in virtual time: a new board for
           every ten windows, whose idle power flickers by 0.3 to 2 %, 5 to 50 times a second; beside
           it half the interval and the error, both as medians over the true energy, and the stated
           standard error over the error, both as root mean squares
slowdown   CPU time per inference with the meter read 20 times a second over that without, pairs of
           blocks in random order; the reading thread's own CPU time counts
recover    campaigns on stand-ins with --meter; a bilinear predictor fitted to their energies against
           the true energies of held-out variants

"Naive": the mean of the same readings times the time; also minus one reading of idle power. The
ratio is their median error over ours, where idle power is half of the total. Real time takes about
20 minutes at full size, on a quiet machine.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from metered_windows import (
    FloatArray,
    Windows,
    cpu_s_per_call,
    cpu_share,
    network_call,
    real_metering,
    virtual_windows,
)
from scipy import stats

from joulemap.datasets import CostDataset
from joulemap.datasets.journal import FILE_NAME, read_journal
from joulemap.device_agents.onboard.energy.power_log import PowerLog, Recorder
from joulemap.device_agents.registry import METERS
from joulemap.device_agents.simulated import simulated_device
from joulemap.device_agents.simulated.board_options import BoardOptions
from joulemap.device_agents.simulated.virtual_board import VirtualBoard
from joulemap.models import BilinearPredictor
from joulemap.profiler import Protocol, networks, profile

WRAP_J = 20.0
# Idle and active power of the boards of the counter's windows; the first has idle half of all.
COUNTER_BOARDS_W = ((4.0, 4.2), (3.0, 6.0), (2.0, 8.0))
# A window belongs to the row "active power >= idle power" up to this share of idle energy.
MOST_IDLE_SHARE = 0.51
# From here to there idle energy is about half of all.
LEAST_IDLE_SHARE = 0.42
GAUGE = BoardOptions(
    meter="battery", idle_w=3.0, active_w=3.0, noise=0.05, update_s=0.1, averaging_s=0.5
)
# A name, what is simulated, the module that reads it, and settings: all kinds of meters.
COVERAGE: tuple[tuple[str, str, str, dict[str, float]], ...] = (
    ("rapl", "rapl", "rapl", {"range_j": WRAP_J}),
    ("0.1 s counter", "rapl", "rapl", {"update_s": 0.1}),
    ("android_odpm", "odpm", "android_odpm", {}),
    ("hwmon", "ina219", "hwmon", {}),
    ("jetson", "ina3221", "jetson", {}),
    ("battery", "battery", "battery", {"noise": 0.05, "update_s": 0.1, "averaging_s": 0.5}),
    ("1 Hz battery", "battery", "battery", {"noise": 0.05, "update_s": 1.0, "averaging_s": 1.0}),
)
WINDOWS_PER_BOARD = 10
BLOCK_S = 0.2
TRIM = 0.2
ALONE_S = 4.0
NETWORK = "lenet5"
COVERAGE_GOAL = 0.95


def counter(number: int, seed: int, most_s: float) -> list[Windows]:
    """Return windows of each board with a fast counter that wraps, in real time."""
    run = network_call()
    found = []
    for index, (idle_w, active_w) in enumerate(COUNTER_BOARDS_W):
        options = BoardOptions(
            meter="rapl",
            idle_w=idle_w,
            active_w=active_w / cpu_share(run),
            range_j=WRAP_J,
            seed=seed + index,
        )
        share = number // 3 + (index < number % 3)
        with real_metering(options, "rapl") as metering:
            found.append(metering.windows(run, share, seed + index, most_s / 3))
    return found


def gauge(number: int, seed: int, most_s: float) -> Windows:
    """Return windows of the slow gauge in real time."""
    run = network_call()
    options = replace(GAUGE, active_w=GAUGE.active_w * 1.05 / cpu_share(run))
    with real_metering(options, "battery") as metering:
        return metering.windows(run, number, seed, most_s)


def simulated(
    meter: str, module: str, settings: dict[str, float], number: int, seed: int
) -> Windows:
    """Return windows in virtual time, of boards that differ in power, noise and its memory."""
    found = Windows([], [])
    draw = random.Random(f"{meter}/{seed}")  # noqa: S311 - reproducible, not secret
    for board in range(0, number, WINDOWS_PER_BOARD):
        idle_w = draw.uniform(1.0, 5.0)
        load_w = idle_w * draw.uniform(1.0, 4.0)
        options = BoardOptions(
            meter=meter,
            idle_w=idle_w,
            active_w=load_w,
            flicker=draw.uniform(0.003, 0.02),
            flicker_s=0.02 * 10 ** draw.uniform(0.0, 1.0),
            seed=1000 * seed + board,
            **settings,
        )
        count = min(WINDOWS_PER_BOARD, number - board)
        found = found + virtual_windows(options, module, count, 1000 * seed + board, load_w)
    return found


def slowdown(pairs: int, seed: int) -> tuple[float, float, float, float]:
    """Return the relative slowdown by reading a meter 20 times a second: mean, low, high.

    The fourth number is the CPU time that reading alone takes, per second.
    """
    run = network_call()
    draw = random.Random(seed)  # noqa: S311 - reproducible, not secret
    ratios = []
    with real_metering(BoardOptions(meter="rapl"), "rapl") as metering:
        cpu_s_per_call(run, 1.0)
        recorder = Recorder([PowerLog(metering.chosen.meter, metering.clock)])
        began = time.process_time()
        recorder.start()
        time.sleep(ALONE_S)
        recorder.stop()
        alone = (time.process_time() - began) / ALONE_S
        for _ in range(pairs):
            cpu_s = {}
            for is_on in draw.sample((False, True), 2):
                recorder = Recorder([PowerLog(metering.chosen.meter, metering.clock)])
                if is_on:
                    recorder.start()
                cpu_s[is_on] = cpu_s_per_call(run, BLOCK_S)
                recorder.stop()
            ratios.append(cpu_s[True] / cpu_s[False] - 1)
    # Blocks that the machine disturbed count less: a trimmed mean, with its own standard error.
    cut = int(TRIM * pairs)
    kept = sorted(ratios)[cut : pairs - cut]
    spread = float(stats.mstats.trimmed_stde(np.array(ratios), (TRIM, TRIM)))
    mean = statistics.fmean(kept)
    half = float(stats.t.ppf(0.975, max(1, len(kept) - 1))) * spread
    return mean, mean - half, mean + half, alone


def recover_virtual(samples: int, held_out: int, seed: int) -> tuple[float, int, int]:
    """Return (median error, covered, held out) of a campaign in virtual time."""
    spec = networks.get(NETWORK)
    most = spec.at(spec.max_widths).macs

    def seconds(widths: Sequence[int]) -> float:
        return 0.002 + 0.02 * spec.at(widths).macs / most

    def joules(widths: Sequence[int]) -> float:
        return 0.005 + 0.12 * spec.at(widths).macs / most

    device, machine = simulated_device(seconds, seed=seed)
    modules = {name: entry.module for name, entry in METERS.items()}
    VirtualBoard(machine, joules, BoardOptions(meter="rapl", range_j=WRAP_J, seed=seed), modules)
    with tempfile.TemporaryDirectory() as folder:
        dataset = profile(
            device,
            spec,
            samples=samples + held_out,
            out=folder,
            meter="rapl",
            seed=seed,
            protocol=Protocol(visits=2),
        )
    truth = np.array([joules(widths) for widths in dataset.widths.tolist()])
    return held_out_errors(dataset, truth, samples, of="mean")


def recover_board(samples: int, held_out: int, seed: int) -> tuple[float, int, int]:
    """Return (median error, covered, held out) of a campaign of real runs on a simulated board."""
    active_w = 5.0
    with tempfile.TemporaryDirectory() as folder:
        dataset = profile(
            f"sim:board?meter=rapl&range_j={WRAP_J}&active_w={active_w}&seed={seed}",
            NETWORK,
            samples=samples + held_out,
            out=folder,
            meter="rapl",
            seed=seed,
            batch=16,
            protocol=Protocol(
                visits=2, max_further_visits=0, start_timeout_s=5.0, max_energy_window_s=5.0
            ),
        )
        visits = read_journal(Path(folder) / FILE_NAME).visits
    truths: dict[tuple[int, ...], list[float]] = {}
    for visit in visits:
        if visit.timing is None:
            continue
        # The board's active power follows the agent's CPU time.
        calls = sum(len(block.latencies_s) * block.calls_per_run for block in visit.timing.blocks)
        cpu_s = sum(block.cpu_s for block in visit.timing.blocks)
        truths.setdefault(tuple(visit.widths), []).append(active_w * cpu_s / calls)
    truth = np.array([np.mean(truths[tuple(widths)]) for widths in dataset.widths.tolist()])
    return held_out_errors(dataset, truth, samples, of="measurement")


def held_out_errors(
    dataset: CostDataset,
    truth: FloatArray,
    samples: int,
    of: Literal["measurement", "mean"],
) -> tuple[float, int, int]:
    """Return (median error, truths in the 95 % interval, how many) of the last variants."""
    rows = np.arange(len(dataset))
    train, rest = rows[:samples], rows[samples:]
    X, y, weights = dataset.xyw("energy_j")
    predictor = BilinearPredictor(dataset.spec)
    predictor.fit(X[train], y[train], sample_weight=weights[train])
    widths = X[rest]
    low, high = predictor.predict_interval(widths, coverage=COVERAGE_GOAL, of=of)
    error = np.abs(predictor.predict(widths) / truth[rest] - 1)
    covered = int(np.sum((low <= truth[rest]) & (truth[rest] <= high)))
    return float(np.median(error)), covered, len(rest)


def share_text(covered: int, number: int) -> str:
    """Return a share with its 95 % interval (Wilson)."""
    low, high = stats.binomtest(covered, number).proportion_ci(method="wilson")
    return f"{covered / number:6.1%} of {number} (95 %: {low:.1%} to {high:.1%})"


def window_lines(label: str, windows: Windows, goal: str) -> list[str]:
    """Return the lines about windows of one kind."""
    if not windows.accepted:
        return [f"{label}: every window was refused, the first: {windows.refused[0]}"]
    errors = windows.errors()
    shortest = min(window.window_s for window in windows.accepted)
    lines = [
        (
            f"{label}: {len(windows.accepted)} windows of {shortest:.2f} s or more, "
            f"{len(windows.refused)} refused"
        ),
        (
            f"  net energy, error              median {np.median(errors):7.2%}   99 % "
            f"{np.quantile(errors, 0.99):7.2%}   (goal {goal})"
        ),
        f"  in the stated 95 % interval    {share_text(windows.num_covered, len(windows.accepted))}",
    ]
    return lines + [f"  refused: {reason}" for reason in sorted(set(windows.refused))[:3]]


def naive_lines(windows: Windows) -> list[str]:
    """Return the lines about naive ways on the same readings."""
    ours = float(np.median(windows.errors()))
    lines = []
    for label, attribute in (
        ("mean power x time", "gross_naive_j"),
        ("... minus one idle reading", "net_naive_j"),
    ):
        theirs = float(np.median(windows.errors(attribute)))
        lines.append(f"  naive: {label:27} median {theirs:7.2%}   {theirs / ours:5.1f} x ours")
    share = np.mean([window.idle_share for window in windows.accepted])
    lines.append(
        f"  ours on these {len(windows.accepted)} windows, idle {share:.0%} of all: {ours:.2%}"
    )
    return lines


def counter_lines(arguments: argparse.Namespace) -> list[str]:
    """Return the counter's part of the table."""
    boards = counter(arguments.counter_windows, arguments.seed, 60 * arguments.minutes)
    every = sum(boards, Windows([], []))
    active = every.up_to(MOST_IDLE_SHARE)
    lines = window_lines("counter, 1 kHz, wraps, real time", active, "1 %, 3 %")
    others = len(every.accepted) - len(active.accepted)
    lines.append(f"  left out, for active power was below idle power: {others} windows")
    half = every.up_to(MOST_IDLE_SHARE, LEAST_IDLE_SHARE)
    return lines + (naive_lines(half) if half.accepted else [])


def sampler_lines(arguments: argparse.Namespace) -> list[str]:
    """Return the slow gauge's part of the table."""
    settings = {"noise": 0.05, "update_s": 0.1, "averaging_s": 0.5}
    lines = []
    if arguments.gauge_windows:
        windows = gauge(arguments.gauge_windows, arguments.seed, 15 * arguments.minutes)
        lines += window_lines("gauge, 10 Hz, 5 % noise, real time", windows, "5 % median")
        lines += naive_lines(windows) if windows.accepted else []
    found = Windows([], [])
    for board in range(0, arguments.virtual_windows, WINDOWS_PER_BOARD):
        options = BoardOptions(meter="battery", idle_w=3.0, active_w=3.0, seed=board, **settings)
        found = found + virtual_windows(options, "battery", WINDOWS_PER_BOARD, board, 3.0)
    lines += window_lines("gauge, 10 Hz, 5 % noise, virtual time", found, "5 % median")
    return lines + (naive_lines(found) if found.accepted else [])


def coverage_lines(arguments: argparse.Namespace) -> list[str]:
    """Return the part of the table about stated intervals."""
    lines = ["stated 95 % interval covers the truth, virtual time (goal 92 % to 98 %)"]
    total = Windows([], [])
    for name, meter, module, settings in COVERAGE:
        number = arguments.coverage_windows // len(COVERAGE)
        windows = simulated(meter, module, settings, number, arguments.seed)
        total = total + windows
        if windows.accepted:
            half = np.median([window.half_j / window.true_j for window in windows.accepted])
            covered = share_text(windows.num_covered, len(windows.accepted))
            lines.append(
                f"  {name:13} {covered}, half {half:.2%}, error {np.median(windows.errors()):.2%}, "
                f"stated / true {windows.stated_over_true:.2f}"
            )
        lines += [f"  {name} refused: {reason}" for reason in sorted(set(windows.refused))[:2]]
    lines.append(f"  {'all':13} {share_text(total.num_covered, len(total.accepted))}")
    return lines


def slowdown_lines(arguments: argparse.Namespace) -> list[str]:
    """Return the part of the table about the cost of reading."""
    mean, low, high, alone = slowdown(arguments.pairs, arguments.seed)
    return [
        (
            f"slowdown by reading at 20 Hz, {arguments.pairs} pairs of blocks: {mean:.2%} "
            f"(95 %: {low:.2%} to {high:.2%}; goal: at most 1 %)"
        ),
        f"  CPU time of the readings alone: {alone:.2%} of the time",
    ]


def recover_lines(arguments: argparse.Namespace) -> list[str]:
    """Return the part of the table about predictors of metered campaigns."""
    lines = ["bilinear predictor of metered energies against true energies of held-out variants"]
    error, covered, number = recover_virtual(60, 30, arguments.seed)
    lines.append(
        f"  virtual time, {NETWORK}: median error {error:.2%}, {share_text(covered, number)}"
    )
    if arguments.board_samples:
        error, covered, number = recover_board(arguments.board_samples, 10, arguments.seed)
        lines.append(
            f"  sim:board, {NETWORK}:    median error {error:.2%}, {share_text(covered, number)}"
        )
    return lines


ROWS: dict[str, Callable[[argparse.Namespace], list[str]]] = {
    "counter": counter_lines,
    "sampler": sampler_lines,
    "coverage": coverage_lines,
    "slowdown": slowdown_lines,
    "recover": recover_lines,
}


def main() -> None:
    """Print the rows that are asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=ROWS, help="one row instead of all")
    parser.add_argument("--counter-windows", type=int, default=300)
    parser.add_argument("--gauge-windows", type=int, default=12, help="in real time, 13 s each")
    parser.add_argument("--virtual-windows", type=int, default=300, help="of the gauge")
    parser.add_argument("--coverage-windows", type=int, default=700)
    parser.add_argument("--pairs", type=int, default=400, help="of blocks of 0.2 s")
    parser.add_argument("--board-samples", type=int, default=24, help="variants fitted, sim:board")
    parser.add_argument(
        "--minutes",
        type=float,
        default=15.0,
        help="for the counter's windows in real time, a quarter of it for the gauge's; where that is "
        "too short, there are fewer windows",
    )
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    lines: list[str] = []
    for row in [arguments.only] if arguments.only else list(ROWS):
        lines += ROWS[row](arguments)
    print("\n".join(lines))


if __name__ == "__main__":
    main()

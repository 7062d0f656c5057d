"""How well a campaign on this machine repeats: joulemap's protocol beside naive ways, same visits.

Prints the noise floor (mean |a - b| / mean over the square root of 2, over re-visited variants) of

- joulemap's latencies: corrected, rejected and repeated as the protocol does;
- single visits without correction: the median of one visit's blocks;
- the naive way: the median of the first 30 calls after loading, no warm-up, no reference.

python benchmarks/noise.py [--network mobilenet_v1] [--variants 150] [--out DIR]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from joulemap.datasets import Timing
from joulemap.datasets.journal import JournalContent, read_journal
from joulemap.datasets.metrics import NoiseFloor, noise_floor
from joulemap.profiler import networks, profile
from joulemap.profiler.campaign.advice import advise
from joulemap.profiler.command_line.console import CampaignProgress
from joulemap.profiler.templates.export import cached_template

NAIVE_CALLS = 30


def naive_latency_s(timing: Timing) -> float:
    """Return the median of the first 30 calls after loading, in seconds."""
    calls = [*timing.warm_up_s, *(run for block in timing.blocks for run in block.latencies_s)]
    return float(np.median(calls[:NAIVE_CALLS]))


def single_visit_floor(
    journal: JournalContent, latency_s: Callable[[Timing], float]
) -> NoiseFloor | None:
    """Return the noise floor of one visit per measurement: first visits against re-visits."""
    first: dict[str, float] = {}
    again: dict[str, float] = {}
    for visit in journal.visits:
        if visit.timing is not None:
            side = again if visit.is_revisit else first
            side.setdefault(visit.variant_id, latency_s(visit.timing))
    pairs = [(first[name], again[name]) for name in again if name in first]
    return noise_floor(*np.array(pairs).T) if pairs else None


def main() -> None:
    """Run (or continue) a campaign and print its noise floors."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--network", default="mobilenet_v1")
    parser.add_argument("--variants", type=int, default=150)
    parser.add_argument("--sampling", default="sobol")
    parser.add_argument(
        "--out", type=Path, help="folder of the campaign; a temporary one if not given"
    )
    arguments = parser.parse_args()
    cached_template(networks.get(arguments.network))
    with tempfile.TemporaryDirectory() as temporary:
        out = arguments.out or Path(temporary) / "run"
        began = time.perf_counter()
        with CampaignProgress() as progress:
            dataset = profile(
                "local:",
                arguments.network,
                samples=arguments.variants,
                sampling=arguments.sampling,
                out=out,
                observer=progress,
            )
        wall_s = time.perf_counter() - began
        journal = read_journal(out / "journal.jsonl")
    low, high = dataset.interval("latency_s")
    half = (high - low) / 2 / dataset.latency_s
    print(
        f"{len(dataset)} variants of {arguments.network}, {len(journal.visits)} visits "
        f"({len(journal.rejections)} rejected) in {wall_s / 60:.1f} min"
    )
    print(
        f"95 % intervals: half of them within ±{np.nanmedian(half):.2%}, the widest ±{np.nanmax(half):.2%}"
    )
    print(f"{'noise floor':36}{'value':>8}   95 % interval      pairs")
    for name, floor in (
        ("joulemap's protocol", dataset.noise_floor()),
        ("a single visit, uncorrected", single_visit_floor(journal, lambda t: t.latency_s)),
        ("median of the first 30 calls", single_visit_floor(journal, naive_latency_s)),
    ):
        if floor is not None:
            print(
                f"{name:36}{floor.value:8.2%}   {floor.low:.2%} to {floor.high:.2%}   {floor.num_pairs:8}"
            )
    for sentence in advise(journal):
        print(f"- {sentence}")


if __name__ == "__main__":
    main()

"""Prints how well the protocol finds a known truth, and what that costs ECC's way of measuring.

python benchmarks/protocol.py [--campaigns 500] [--preset mixed] [--ecc-campaigns 40]

Whole campaigns (real agent, client, journal and statistics) run on simulated devices in virtual
time. The truth of a variant is its time per call in the fast, quiet, cool state at the start.
"Shape" is the median error up to one factor that all variants of a campaign share: a lasting state
or heat cannot be told from the truth when a campaign never sees the machine without it.

ECC measures a variant by the mean of 1,000 calls back to back, right after loading it, once, with no
reference. It meets the same disturbances on the same machines. "Device time to the same error":
among ECC-style designs (fewer or more calls in one visit, up to the cap; or several visits of 1,000
calls, averaged) the cheapest whose error is at most ours on the same machines, over our device
time. Above 1, ECC's way needs more device time than joulemap's; "> x": no design up to the cap
reaches our error, and x is the largest design's time over ours.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from joulemap.datasets import NetworkSpec
from joulemap.device_agents.simulated import PRESETS, VirtualMachine, simulated_device
from joulemap.device_agents.simulated.agent import LOAD_S, MATERIALISE_S
from joulemap.profiler import Protocol, networks, profile, sample

FloatArray = npt.NDArray[np.float64]

NETWORK = "lenet5"
FASTEST_S, SLOWEST_S = 0.005, 0.05
# "realistic" leaves out the device on which everything goes wrong at once.
MIXTURES = {
    "mixed": list(PRESETS),
    "realistic": [preset for preset in PRESETS if preset != "harsh"],
}
ECC_CALLS = 1000
ECC_CALL_COUNTS = (3, 10, 30, 100, 300, 1000, 3000, 10_000, 30_000)


@dataclass(frozen=True)
class Campaign:
    """What one campaign found, against the truth."""

    seed: int
    ratios: FloatArray
    is_covered: npt.NDArray[np.bool_]
    half_widths: FloatArray
    device_s_per_variant: float
    saw_the_fast_state: bool

    @property
    def errors(self) -> FloatArray:
        """Relative errors."""
        return np.abs(self.ratios - 1)

    @property
    def errors_of_shape(self) -> FloatArray:
        """Relative errors up to one factor that all variants of the campaign share."""
        return np.abs(self.ratios / np.median(self.ratios) - 1)


@dataclass(frozen=True)
class Design:
    """One way of measuring like ECC, pooled over campaigns."""

    calls: int
    visits: int
    errors: FloatArray
    device_s_per_variant: float


class MacsCost:
    """True seconds per call: a constant and a part that is proportional to the MACs."""

    def __init__(self, spec: NetworkSpec) -> None:
        self.spec = spec
        self.most = spec.at(spec.max_widths).macs

    def __call__(self, widths: Sequence[int]) -> float:
        """Return the seconds per call at these widths."""
        return FASTEST_S + (SLOWEST_S - FASTEST_S) * self.spec.at(widths).macs / self.most


def measure(
    preset: str, seed: int, samples: int, protocol: Protocol, idle_s: float, folder: Path
) -> Campaign:
    """Return what the real campaign code finds on one simulated device."""
    spec = networks.get(NETWORK)
    device, machine = simulated_device(
        MacsCost(spec),
        PRESETS[preset](),
        seed,
        idle_s=idle_s,
        agent_visits=protocol.agent_visits,
    )
    out = folder / f"{preset}-{seed}"
    dataset = profile(device, spec, samples=samples, out=out, seed=seed, protocol=protocol)
    shutil.rmtree(out)
    truth = np.array([machine.baseline_latency_s(widths) for widths in dataset.widths.tolist()])
    low, high = dataset.interval("latency_s")
    return Campaign(
        seed=seed,
        ratios=dataset.latency_s / truth,
        is_covered=(low <= truth) & (truth <= high),
        half_widths=(high - low) / 2 / dataset.latency_s,
        device_s_per_variant=machine.busy_s / len(dataset),
        saw_the_fast_state=any(state == 0 for _, state in machine.switches),
    )


def ecc_designs(preset: str, seeds: Sequence[int], samples: int, cap: int) -> list[Design]:
    """Return errors and device seconds of ECC's way with various numbers of calls and visits."""
    plans = [(calls, (1,)) for calls in ECC_CALL_COUNTS if calls <= cap and calls != ECC_CALLS]
    repeats = tuple(visits for visits in (1, 2, 5, 10, 30) if visits * ECC_CALLS <= cap) or (1,)
    found: list[Design] = []
    for calls, visit_counts in [*plans, (ECC_CALLS, repeats)]:
        runs = [ecc(preset, seed, samples, calls, visit_counts) for seed in seeds]
        for index, visits in enumerate(visit_counts):
            errors = np.concatenate([run[index][0] for run in runs])
            device_s = float(np.mean([run[index][1] for run in runs]))
            found.append(Design(calls, visits, errors, device_s))
    return sorted(found, key=lambda design: design.device_s_per_variant)


def ecc(
    preset: str, seed: int, samples: int, calls: int, visit_counts: Sequence[int]
) -> list[tuple[FloatArray, float]]:
    """Return (relative errors, device seconds per variant) after each number of visits."""
    spec = networks.get(NETWORK)
    variants = sample(spec, samples, seed=seed)
    machine = VirtualMachine(MacsCost(spec), PRESETS[preset](), seed)
    total = np.zeros(len(variants))
    found = []
    for visit in range(1, max(visit_counts) + 1):
        for index, widths in enumerate(variants):
            machine.run(MATERIALISE_S + LOAD_S)
            call = machine.load(widths)
            began = machine.monotonic_s()
            for _ in range(calls):
                call()
            total[index] += (machine.monotonic_s() - began) / calls
        if visit in visit_counts:
            truth = np.array([machine.baseline_latency_s(widths) for widths in variants])
            errors = np.abs(total / visit / truth - 1)
            found.append((errors, machine.busy_s / len(variants)))
    return found


def coverage_line(label: str, campaigns: Sequence[Campaign]) -> str:
    """Return a line of the table about joulemap's way."""
    shares = np.array([campaign.is_covered.mean() for campaign in campaigns])
    half = 1.96 * shares.std(ddof=1) / np.sqrt(len(shares)) if len(shares) > 1 else np.nan
    errors = np.concatenate([campaign.errors for campaign in campaigns])
    shape = np.concatenate([campaign.errors_of_shape for campaign in campaigns])
    widths = np.concatenate([campaign.half_widths for campaign in campaigns])
    device_s = np.mean([campaign.device_s_per_variant for campaign in campaigns])
    return (
        f"{label:24}{len(campaigns):6}{shares.mean():9.1%} ±{half:6.1%}"
        f"{np.median(widths):10.2%}{np.median(errors):10.2%}{np.quantile(errors, 0.9):10.2%}"
        f"{np.median(shape):10.2%}{device_s:10.2f}"
    )


def ecc_lines(campaigns: Sequence[Campaign], designs: Sequence[Design]) -> list[str]:
    """Return the table about ECC's way, and the ratios of device time."""
    ours = np.concatenate([campaign.errors for campaign in campaigns])
    our_s = float(np.mean([campaign.device_s_per_variant for campaign in campaigns]))
    lines = [f"  ECC's way, {len(campaigns)} campaigns{'median':>21}{'90 %':>10}{'s/variant':>10}"]
    for design in designs:
        plan = f"{design.visits} x {design.calls} calls"
        mark = " <- ECC" if (design.calls, design.visits) == (ECC_CALLS, 1) else ""
        lines.append(
            f"    {plan:44}{np.median(design.errors):6.2%}{np.quantile(design.errors, 0.9):10.2%}"
            f"{design.device_s_per_variant:10.2f}{mark}"
        )
    for name, quantile in (("median", 0.5), ("90th percentile", 0.9)):
        wanted = np.quantile(ours, quantile)
        good = [design for design in designs if np.quantile(design.errors, quantile) <= wanted]
        largest = designs[-1].device_s_per_variant / our_s
        ratio = f"{good[0].device_s_per_variant / our_s:.2f}" if good else f"> {largest:.0f}"
        lines.append(
            f"  device time to our {name} error ({wanted:.2%}; ours {our_s:.2f} s): {ratio} x ours"
        )
    return lines


def main() -> None:
    """Run the campaigns and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--campaigns", type=int, default=500, help="campaigns altogether")
    parser.add_argument("--preset", default="mixed", choices=[*PRESETS, *MIXTURES])
    parser.add_argument("--samples", type=int, default=30, help="variants of a campaign")
    parser.add_argument("--visits", type=int, help="visits per variant; the protocol's own")
    parser.add_argument("--idle-s", type=float, default=0.0, help="idle time before every visit")
    parser.add_argument(
        "--ecc-campaigns", type=int, default=40, help="for ECC's way, in all presets together"
    )
    parser.add_argument("--ecc-cap", type=int, default=10_000, help="most calls per variant")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    protocol = Protocol(visits=arguments.visits) if arguments.visits else Protocol()
    presets = MIXTURES.get(arguments.preset, [arguments.preset])
    found: dict[str, list[Campaign]] = {preset: [] for preset in presets}
    memory = Path("/dev/shm")  # noqa: S108 - a journal syncs every line, which disks take long for
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        for number, preset in zip(
            range(arguments.campaigns), itertools.cycle(presets), strict=False
        ):
            found[preset].append(
                measure(
                    preset,
                    arguments.seed + number,
                    arguments.samples,
                    protocol,
                    arguments.idle_s,
                    Path(folder),
                )
            )
    seconds = time.perf_counter() - began
    print(
        f"{arguments.campaigns} campaigns of {arguments.samples} variants x {protocol.visits} "
        f"visits; {seconds / arguments.campaigns:.2f} s each on this machine"
    )
    print(
        f"{'':24}{'n':>6}{'covered (95 %)':>18}{'± interval':>10}{'median err':>10}{'90 % err':>10}"
        f"{'shape err':>10}{'s/variant':>10}"
    )
    for preset, campaigns in found.items():
        if not campaigns:
            continue
        print(coverage_line(preset, campaigns))
        parts = {
            label: [item for item in campaigns if item.saw_the_fast_state is saw]
            for label, saw in (("  never the fast state", False), ("  some fast state", True))
        }
        if all(parts.values()):
            for label, part in parts.items():
                print(coverage_line(label, part))
    if len(presets) > 1:
        print(coverage_line("all", [campaign for group in found.values() for campaign in group]))
    for preset, campaigns in found.items():
        chosen = campaigns[: max(1, arguments.ecc_campaigns // len(presets))]
        if chosen and arguments.ecc_campaigns:
            seeds = [campaign.seed for campaign in chosen]
            designs = ecc_designs(preset, seeds, arguments.samples, arguments.ecc_cap)
            print(f"\n{preset}")
            print("\n".join(ecc_lines(chosen, designs)))


if __name__ == "__main__":
    main()

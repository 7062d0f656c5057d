"""The aligned model on this machine: its error, against which peers, and what its advice is worth.

Measures (or continues) campaigns with `aligned` sampling, one after another on an otherwise idle
machine, and prints for each network the error on held-out variants of

- the aligned model,
- ECC's bilinear model (squared errors) and the bilinear model with 1/cost weights,
- FLOPs with 1/cost weights,

all fitted on the same training variants, over several random splits, beside the noise floor. Then:
random width vectors against the same rounded to the advised multiples, measured in one campaign;
how many width vectors a second the torch module evaluates, forward and backward, on one core; and
`without_regimes.py`: errors and advice on simulated devices that have no regimes.

python benchmarks/aligned.py --out DIR [--networks mobilenet_v1 ...] [--only error|rounding|speed|simulated]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import without_regimes
from sklearn.base import clone

from joulemap.datasets import CostDataset
from joulemap.datasets.metrics import mape
from joulemap.models import (
    AlignedBilinearPredictor,
    BilinearPredictor,
    CostModule,
    FlopsPredictor,
    Predictor,
    fit,
)
from joulemap.models.testing import ArrayDataset
from joulemap.profiler import Protocol, networks, profile
from joulemap.profiler.command_line.console import CampaignProgress

NUM_SPLITS = 5
NUM_TRAINING = (150, 80)
NUM_ROUNDED = 30
NUM_VECTORS = 100_000
SHORT = Protocol(max_visit_s=0.35, max_further_visits=1)
TARGET = "latency_s"


@dataclass(frozen=True)
class Setting:
    """How a network is measured: its input's side, how many variants, under which protocol."""

    resolution: int | None
    variants: int
    protocol: Protocol


SETTINGS = {
    "mobilenet_v1": Setting(None, 260, Protocol()),
    "resnet18": Setting(96, 250, SHORT),
    "squeezenet": Setting(128, 250, SHORT),
    "mobilenet_v2": Setting(128, 250, SHORT),
    "vgg16": Setting(64, 250, SHORT),
}
MODELS: dict[str, Predictor] = {
    "aligned": AlignedBilinearPredictor(),
    "ECC": BilinearPredictor(),
    "bilinear/cost": BilinearPredictor(loss="relative"),
    "FLOPs/cost": FlopsPredictor(loss="relative"),
}


def measure(network: str, out: Path) -> CostDataset:
    """Return the network's campaign, measured now as far as the folder does not hold it."""
    setting = SETTINGS[network]
    with CampaignProgress() as progress:
        return profile(
            "local:",
            network,
            samples=setting.variants,
            sampling="aligned",
            resolution=setting.resolution,
            protocol=setting.protocol,
            out=out / network,
            observer=progress,
        )


def split_errors(ds: CostDataset, num_training: int) -> dict[str, list[float]]:
    """Return for each model its errors on held-out variants, fractions, one for each split."""
    X, y, weights = ds.xyw(TARGET)
    errors: dict[str, list[float]] = {name: [] for name in MODELS}
    for split in range(NUM_SPLITS):
        order = np.random.default_rng(split).permutation(len(y))
        train, test = order[:num_training], order[num_training:]
        subset = ArrayDataset(ds.spec, X[train], {TARGET: y[train]}, weights=weights[train])
        for name, model in MODELS.items():
            predictor = clone(model).fit_dataset(subset, TARGET)
            errors[name].append(mape(y[test], predictor.predict_arrays(X[test])))
    return errors


def report_errors(network: str, ds: CostDataset) -> None:
    """Print the errors of all models on one network."""
    floor = ds.noise_floor(TARGET)
    print(
        f"\n{network}, {len(ds)} variants; noise floor {floor.describe() if floor else 'unknown'}"
    )
    print(
        f"{'training':>8} {'held out':>8}" + "".join(f"{name:>20}" for name in MODELS) + "   ratio"
    )
    for num_training in NUM_TRAINING:
        errors = split_errors(ds, num_training)
        means = {name: statistics.mean(values) for name, values in errors.items()}
        shown = [
            f"{100 * means[name]:6.2f} % ({100 * min(v):.1f}-{100 * max(v):.1f})"
            for name, v in errors.items()
        ]
        ratio = min(means["ECC"], means["bilinear/cost"]) / means["aligned"]
        held_out = len(ds) - num_training
        print(
            f"{num_training:8} {held_out:8}" + "".join(f"{s:>20}" for s in shown) + f"{ratio:7.1f}x"
        )
    chosen = fit(ds, "aligned", TARGET)
    if isinstance(chosen, AlignedBilinearPredictor):
        for sentence in chosen.describe():
            print(f"  {sentence}")


def report_rounding(network: str, ds: CostDataset, out: Path) -> None:
    """Print what rounding random width vectors to the advised multiples does, as measured."""
    predictor = AlignedBilinearPredictor().fit_dataset(ds, TARGET)
    if not predictor.advice_.is_advised:
        print(f"\n{network}: no rounding is advised")
        return
    spec = networks.get(network, SETTINGS[network].resolution)
    measured = {tuple(row) for row in np.asarray(ds.widths).tolist()}
    rng = np.random.default_rng(20)
    vectors: list[tuple[int, ...]] = []
    while len(vectors) < NUM_ROUNDED:
        vector = tuple(int(rng.integers(w.min, w.max, endpoint=True)) for w in spec.widths)
        if vector not in measured and any(predictor.round_widths(vector) != vector):
            vectors.append(vector)
    rounded = [tuple(map(int, predictor.round_widths(vector))) for vector in vectors]
    with CampaignProgress() as progress:
        pairs = profile(
            "local:",
            network,
            widths=[*vectors, *rounded],
            resolution=SETTINGS[network].resolution,
            protocol=SHORT,
            out=out / f"{network}-rounded",
            observer=progress,
        )
    latency = {tuple(row): y for row, y in zip(pairs.widths.tolist(), pairs.latency_s, strict=True)}
    actual = np.array([latency[v] / latency[r] for v, r in zip(vectors, rounded, strict=True)])
    expected = predictor.predict(vectors) / predictor.predict(rounded)
    macs = np.array(
        [spec.at(r).macs / spec.at(v).macs for v, r in zip(vectors, rounded, strict=True)]
    )
    low, middle, high = np.quantile(actual, [0.1, 0.5, 0.9])
    print(
        f"\n{network}: {NUM_ROUNDED} random width vectors rounded up to multiples of "
        f"{max(predictor.advised_multiples().values())}"
    )
    print(
        f"  MACs grow by {100 * (np.median(macs) - 1):.1f} % (median), by up to {100 * (macs.max() - 1):.1f} %"
    )
    print(f"  measured speed-up {middle:.2f}x (median; middle 80 %: {low:.2f}x to {high:.2f}x)")
    print(
        f"  predicted {np.median(expected):.2f}x; mean |predicted / measured - 1| {100 * np.mean(np.abs(expected / actual - 1)):.1f} %"
    )
    print(f"  faster, though MACs grew: {int(((actual > 1) & (macs > 1)).sum())} of {NUM_ROUNDED}")
    print(f"  sign predicted right: {int(((actual > 1) == (expected > 1)).sum())} of {NUM_ROUNDED}")


def seconds(module: CostModule, widths: torch.Tensor) -> float:
    """Return the time of one forward and backward pass."""
    began = time.perf_counter()
    widths.grad = None
    torch.autograd.backward(module(widths).sum())
    return time.perf_counter() - began


def report_speed(ds: CostDataset) -> None:
    """Print how many width vectors a second the modules evaluate, beside the bilinear one."""
    torch.set_num_threads(1)
    predictor = AlignedBilinearPredictor().fit_dataset(ds, TARGET)
    low, high = np.array(ds.spec.min_widths), np.array(ds.spec.max_widths)
    X = np.random.default_rng(0).uniform(low, high, (NUM_VECTORS, len(low)))
    modules = {
        "aligned, exact, float64": (predictor.to_torch(), torch.float64),
        "aligned, exact, float32": (predictor.to_torch().float(), torch.float32),
        "aligned, smooth, float64": (predictor.to_torch(smooth=True), torch.float64),
        "bilinear, float64": (
            BilinearPredictor().fit_dataset(ds, TARGET).to_torch(),
            torch.float64,
        ),
    }
    print(f"\n{NUM_VECTORS} width vectors of {ds.spec.name}, forward and backward, one core")
    for name, (module, dtype) in modules.items():
        widths = torch.tensor(X, dtype=dtype, requires_grad=True)
        times = sorted(seconds(module, widths) for _ in range(12))[1:-1]
        rates = [NUM_VECTORS / t / 1e6 for t in times]
        print(
            f"  {name:26} {statistics.median(rates):6.2f} million/s "
            f"({min(rates):.2f} to {max(rates):.2f})"
        )


def run(names: Sequence[str], only: str | None, out: Path) -> None:
    """Print what was asked for."""
    if only in (None, "simulated"):
        without_regimes.report()
    if only == "simulated":
        return
    datasets = {name: measure(name, out) for name in names}
    if only in (None, "error"):
        for name, ds in datasets.items():
            report_errors(name, ds)
    if only in (None, "rounding"):
        report_rounding(names[0], datasets[names[0]], out)
    if only in (None, "speed"):
        report_speed(datasets[names[0]])


def main() -> None:
    """Measure what is missing and print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the campaigns")
    parser.add_argument("--networks", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--only", choices=["error", "rounding", "speed", "simulated"])
    arguments = parser.parse_args()
    run(arguments.networks, arguments.only, arguments.out)


if __name__ == "__main__":
    main()

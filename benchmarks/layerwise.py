"""Networks that were never measured: errors of the layerwise model, network by network left out.

Measures variants of six networks and the layers of some of them (half an hour; the same command
continues), then fits to all networks but one and predicts the variants of that one, beside a line
in multiply-accumulates fitted to the same other networks, and beside models fitted to the network
itself. Errors are mean absolute percentage errors and contain the measurement's own noise.

python benchmarks/layerwise.py [--out runs/layerwise] [--variants 60] [--layers 30]
"""

from __future__ import annotations

import argparse
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from joulemap.datasets import CostDataset, LayerProfiles
from joulemap.datasets.metrics import mape, spearman
from joulemap.models import LayerwisePredictor, UnmeasuredLayersWarning, cross_validate
from joulemap.models.linear.predictor import fit_nonnegative
from joulemap.profiler import Protocol, profile, profile_layers
from joulemap.profiler.command_line.console import CampaignProgress

TARGET = "latency_s"
# The side of each network's input; 0 is its own.
RESOLUTIONS = {
    "mobilenet_v1": 128,
    "mobilenet_v2": 128,
    "resnet18": 96,
    "squeezenet": 128,
    "vgg16": 64,
    "alexnet": 0,
}
PROTOCOL = Protocol(max_visit_s=0.35, max_further_visits=0)


@dataclass(frozen=True)
class Measured:
    """What was measured of one network."""

    variants: CostDataset
    layers: LayerProfiles


def measure(network: str, out: Path, num_variants: int, num_layers: int) -> Measured:
    """Return variants and layers of a network, measured now as far as the folder lacks them."""
    resolution = RESOLUTIONS[network] or None
    with CampaignProgress() as progress:
        variants = profile(
            "local:",
            network,
            samples=num_variants,
            sampling="aligned",
            resolution=resolution,
            protocol=PROTOCOL,
            out=out / network,
            observer=progress,
        )
    widths = variants.widths[:num_layers].tolist()
    layers = profile_layers("local:", variants.spec, widths=widths, out=out / network)
    return Measured(variants, layers)


def macs_of(ds: CostDataset) -> np.ndarray:
    """Return the multiply-accumulates of each variant."""
    return np.array([ds.spec.at(row).macs for row in ds.widths.tolist()], dtype=np.float64)


def line_in_macs(others: list[CostDataset], left_out: CostDataset) -> np.ndarray:
    """Return predictions by constant + rate * MACs, fitted with relative errors."""
    costs = [ds.xyw(TARGET)[1] for ds in others]
    y = np.concatenate(costs)
    X = np.concatenate([macs_of(ds) for ds in others])[:, None]
    weights = np.concatenate([np.full(len(cost), 1.0 / len(cost)) for cost in costs])
    intercept, slope = fit_nonnegative(X, y, weights / y**2)
    return np.asarray(intercept + slope[0] * macs_of(left_out))


def main() -> None:
    """Measure what is missing and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/layerwise"))
    parser.add_argument("--variants", type=int, default=60)
    parser.add_argument("--layers", type=int, default=30)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    threadpool_limits(limits=1)
    measured = {
        name: measure(name, arguments.out, arguments.variants, arguments.layers)
        for name in RESOLUTIONS
    }
    print("Layers joined to the runtime's profile, medians over variants")
    print(f"{'network':14}{'variants':>9}{'overhead':>10}{'no layer':>10}{'in no node':>12}")
    for name, item in measured.items():
        outside = float(np.median([v.outside_share for v in item.layers.variants]))
        print(
            f"{name:14}{len(item.layers):9}{item.layers.overhead:10.1%}"
            f"{item.layers.unassigned_share:10.2%}{outside:12.1%}"
        )
    print("\nError on the network that was left out; rank correlation of the first")
    heads = ("both", "variants", "layers", "MACs line", "rank", "noise floor", "fit")
    print(f"{'left out':14}" + "".join(f"{head:>12}" for head in heads))
    errors: dict[str, list[float]] = {head: [] for head in heads[:4]}
    for left_out, item in measured.items():
        others = [other for name, other in measured.items() if name != left_out]
        X, y, _ = item.variants.xyw(TARGET)
        variants = [other.variants for other in others]
        layers = [other.layers for other in others]
        began = time.perf_counter()
        both = LayerwisePredictor().fit_dataset(variants, TARGET, layers)
        seconds = time.perf_counter() - began
        predictors = {
            "both": both,
            "variants": LayerwisePredictor().fit_dataset(variants, TARGET),
            "layers": LayerwisePredictor().fit_profiles(layers),
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnmeasuredLayersWarning)
            found = {
                head: predictor.for_network(item.variants.spec).predict(X)
                for head, predictor in predictors.items()
            }
        found["MACs line"] = line_in_macs(variants, item.variants)
        for head, predicted in found.items():
            errors[head].append(mape(y, predicted))
        floor = item.variants.noise_floor(TARGET)
        print(
            f"{left_out:14}"
            + "".join(f"{errors[head][-1]:12.1%}" for head in found)
            + f"{spearman(y, found['both']):12.3f}"
            + f"{f'{floor.value:.1%}' if floor else '':>12}{seconds:10.1f} s",
            flush=True,
        )
    means = "".join(f"{float(np.mean(errors[head])):12.1%}" for head in errors)
    print(f"{'mean':14}{means}")
    print("\nFitted to the network itself, 5 folds")
    print(f"{'network':14}" + "".join(f"{m:>12}" for m in ("layerwise", "aligned", "lookup")))
    for name, item in measured.items():
        table = cross_validate(item.variants, ["layerwise", "aligned", "lookup"], TARGET)
        shown = "".join(
            f"{table[model].mape:12.1%}" for model in ("layerwise", "aligned", "lookup")
        )
        print(f"{name:14}{shown}", flush=True)


if __name__ == "__main__":
    main()

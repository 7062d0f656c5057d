"""The aligned model on devices that have no regimes: its error there, and that it advises no rounding.

The simulated accelerators, and a smooth device: costs of multiply-accumulates, weights and channels
without steps. Beside the aligned model ECC's bilinear one and FLOPs. Advice is priced by the truth:
what rounding random width vectors as advised changes, and what share of them it makes dearer.

python benchmarks/without_regimes.py [--samples 60 150] [--seeds 3]
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from joulemap.datasets import NetworkSpec
from joulemap.datasets.metrics import mape
from joulemap.models import (
    AlignedBilinearPredictor,
    BilinearPredictor,
    FlopsPredictor,
    Predictor,
    SystolicArrayModel,
)
from joulemap.models.base.intervals import FloatArray
from joulemap.models.base.training import Training
from joulemap.models.testing import draw_widths
from joulemap.profiler import networks

NETWORKS = ("lenet5", "mobilenet_v1")
SAMPLES = (60, 150)
SEEDS = 3
NOISE = 0.02
NUM_TEST = 500
MODELS: dict[str, Callable[[NetworkSpec], Predictor]] = {
    "aligned": AlignedBilinearPredictor,
    "bilinear/cost": lambda spec: BilinearPredictor(spec, loss="relative"),
    "FLOPs/cost": lambda spec: FlopsPredictor(spec, loss="relative"),
}


@dataclass(frozen=True)
class Device:
    """A device without regimes.

    Attributes:
        name: What is printed.
        spec: The network on it.
        cost: Widths (n, k) to true costs (n,).
    """

    name: str
    spec: NetworkSpec
    cost: Callable[[FloatArray], FloatArray]


def devices(names: tuple[str, ...] = NETWORKS) -> Iterator[Device]:
    """Yield each network on each device."""
    for name in names:
        spec = networks.get(name)
        for hardware in ("eyeriss", "tpu"):
            for quantity in ("energy", "latency"):
                array = SystolicArrayModel(spec, hardware=hardware, quantity=quantity)
                yield Device(f"{name} on sim:{hardware}, {quantity}", spec, array.predict)
        yield Device(f"{name} on a smooth device", spec, partial(smooth_cost, spec))


def smooth_cost(spec: NetworkSpec, X: FloatArray) -> FloatArray:
    """Return costs (n,) that follow multiply-accumulates, weights and channels without steps."""
    found = [spec.at([int(width) for width in row]) for row in X]
    macs, weights = (np.array([getattr(at, what) for at in found]) for what in ("macs", "params"))
    return np.asarray(1e-5 + 1e-9 * macs + 5e-9 * weights + 1e-8 * X.sum(axis=1))


@dataclass(frozen=True)
class Figures:
    """What one fit of each model reached on one device.

    Attributes:
        errors: Held-out error of each model, a fraction.
        advised: Largest multiple that is advised.
        change: Median change in true cost by rounding as advised, a fraction.
        dearer: Share of width vectors that rounding makes dearer.
    """

    errors: dict[str, float]
    advised: int
    change: float
    dearer: float


def judge(device: Device, samples: int, seed: int) -> Figures:
    """Return the figures of one sample of a device."""
    X, test = (
        draw_widths(device.spec, samples, seed),
        draw_widths(device.spec, NUM_TEST, 900 + seed),
    )
    noise = np.random.default_rng([seed, 1]).standard_normal(samples)
    y, truth = device.cost(X) * np.exp(NOISE * noise), device.cost(test)
    errors, aligned = {}, None
    for name, make in MODELS.items():
        predictor = make(device.spec)
        predictor.bind(device.spec.width_names, unit="", target="cost")
        predictor.width_ranges_ = np.stack([X.min(axis=0), X.max(axis=0)])
        predictor.fit_arrays(Training(X, y, np.ones(samples)))
        errors[name] = mape(truth, predictor.predict_arrays(test))
        if isinstance(predictor, AlignedBilinearPredictor):
            aligned = predictor
    assert aligned is not None
    rounded = aligned.round_widths(test).astype(np.float64)
    change = device.cost(rounded) / truth - 1
    return Figures(
        errors,
        max(aligned.advised_multiples().values()),
        float(np.median(change)),
        float(np.mean(change > 1e-9)),
    )


def report(samples: tuple[int, ...] = SAMPLES, seeds: int = SEEDS) -> None:
    """Print one line per device and number of samples."""
    print(
        f"\nDevices without regimes, {NOISE:.0%} noise: errors on {NUM_TEST} variants, by the truth\n"
        f"{'device':36}{'samples':>8}"
        + "".join(f"{name:>15}" for name in MODELS)
        + f"{'advised':>12}{'change':>9}{'dearer':>8}"
    )
    for device in devices():
        for count in samples:
            found = [judge(device, count, seed) for seed in range(seeds)]
            means = {name: statistics.mean(f.errors[name] for f in found) for name in MODELS}
            advised = "/".join(str(f.advised) for f in found)
            print(
                f"{device.name:36}{count:8}"
                + "".join(f"{means[name]:15.2%}" for name in MODELS)
                + f"{advised:>12}{max(f.change for f in found):9.1%}"
                f"{max(f.dearer for f in found):8.0%}",
                flush=True,
            )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--samples", type=int, nargs="+", default=list(SAMPLES))
    parser.add_argument("--seeds", type=int, default=SEEDS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    report(tuple(arguments.samples), arguments.seeds)


if __name__ == "__main__":
    main()

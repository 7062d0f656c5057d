"""Devices drawn at random, whose right advice on rounding widths is known.

Smooth ones, regimes of random divisors, staircases, both at once, and the simulated accelerators;
random noise, sample sizes and sampling. What the aligned model advises is priced by the truth.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from joulemap.datasets import LayerSpec, NetworkSpec, Width
from joulemap.models import AlignedBilinearPredictor, SystolicArrayModel
from joulemap.models.base.intervals import FloatArray
from joulemap.models.base.training import Training
from joulemap.profiler import networks
from trials import Outcome, Trial

STEPS = (4, 8, 16, 32)
NUM_TEST = 300
# Dearer by less is as good as equal: the noise of a campaign hides it.
ALIKE = 0.005
KINDS = ("smooth", "regimes", "staircase", "mixed")


@dataclass(frozen=True)
class Device:
    """A network on a device, and what is true of it.

    Attributes:
        spec: The network.
        cost: Widths (n, k) to costs (n,).
        step: The multiple that is right; 1 for none.
    """

    spec: NetworkSpec
    cost: Callable[[FloatArray], FloatArray]
    step: int


def chain(draw: random.Random) -> NetworkSpec:
    """Return a random chain of convolutions, some depthwise between them."""
    count = draw.randint(2, 6)
    names = [f"w{number}" for number in range(count)]
    layers = [LayerSpec("stem", "conv", 3, names[0], kernel_size=3, in_size=16, out_size=16)]
    for number, (left, right) in enumerate(pairwise(names)):
        if draw.random() < 0.3:
            layers.append(
                LayerSpec(
                    f"deep{number}", "conv", left, left, groups=left, kernel_size=3, in_size=8
                )
            )
        kernel = draw.choice((1, 3))
        layers.append(
            LayerSpec(
                f"conv{number}", "conv", left, right, kernel_size=kernel, in_size=8, out_size=8
            )
        )
    layers.append(LayerSpec("classes", "linear", names[-1], 10))
    widths = tuple(Width(name, draw.choice((48, 64, 96, 128, 256))) for name in names)
    return NetworkSpec("drawn", "zoo:drawn", (3, 16, 16), widths, tuple(layers))


def drawn(draw: random.Random, kind: str) -> Device:
    """Return a device of a kind, priced layer by layer without the model's code."""
    spec = chain(draw)
    step = 1 if kind == "smooth" else draw.choice(STEPS)
    block = draw.choice([s for s in STEPS if s >= step]) if kind == "mixed" else step
    slower = draw.uniform(1.3, 4.0)
    share = {layer.name: draw.uniform(0.7, 1.4) for layer in spec.layers}
    overhead = draw.uniform(0.02, 0.3)

    def count(size: object, X: FloatArray) -> FloatArray:
        columns = dict(zip(spec.width_names, X.T, strict=True))
        return np.broadcast_to(np.asarray(size.at(columns), dtype=np.float64), len(X))  # type: ignore[attr-defined]

    def layers(X: FloatArray) -> FloatArray:
        total = np.zeros(len(X))
        for layer in spec.layers:
            inputs, outputs = count(layer.in_channels, X), count(layer.out_channels, X)
            is_aligned = inputs % step == 0
            if kind == "staircase":
                inputs, outputs = (np.ceil(side / step) * step for side in (inputs, outputs))
            elif kind == "mixed":
                outputs = np.where(is_aligned, np.ceil(outputs / block) * block, outputs)
            taps = float(np.prod(layer.kernel_size)) * float(np.prod(layer.out_size))
            work = taps * outputs * (1.0 if layer.groups != 1 else inputs)
            if kind in ("regimes", "mixed") and layer.name != "stem":
                work = work * np.where(is_aligned, 1.0, slower)
            total += share[layer.name] * work
        return np.asarray(total * 1e-10)

    largest = float(layers(np.array([spec.max_widths], dtype=np.float64))[0])
    return Device(spec, lambda X: layers(X) + overhead * largest, step)


def simulated(draw: random.Random) -> Device:
    """Return a simulated accelerator, which has no regimes."""
    spec = networks.get(draw.choice(("lenet5", "squeezenet", "mobilenet_v1")), None)
    array = SystolicArrayModel(
        spec,
        hardware=draw.choice(("eyeriss", "tpu")),
        quantity=draw.choice(("energy", "latency")),
    )
    return Device(spec, array.predict, 1)


def widths_of(spec: NetworkSpec, count: int, rng: np.random.Generator, share: float) -> FloatArray:
    """Return random widths, shape (n, k), a share of the vectors on multiples of 4 to 32."""
    low, high = np.array(spec.min_widths), np.array(spec.max_widths)
    X = rng.integers(low, high, (count, len(low)), endpoint=True)
    for row in np.flatnonzero(rng.random(count) < share):
        step = rng.choice(STEPS)
        X[row] = np.where(high >= step, np.maximum(X[row] // step, 1) * step, X[row])
    return np.clip(X, low, high).astype(np.float64)


def attack(seed: int, device: Device, draw: random.Random) -> Outcome:
    """Fit to measurements of a device, and price the advice by the truth."""
    rng = np.random.default_rng(seed)
    noise, count = draw.choice((0.005, 0.02, 0.05)), draw.choice((15, 30, 60, 120, 200))
    X = widths_of(device.spec, count, rng, draw.choice((0.0, 0.33, 0.33)))
    y = device.cost(X) * np.exp(noise * rng.standard_normal(count))
    predictor = AlignedBilinearPredictor(device.spec)
    predictor.bind(device.spec.width_names, unit="s", target="latency_s")
    predictor.width_ranges_ = np.stack([X.min(axis=0), X.max(axis=0)])
    predictor.fit_arrays(Training(X, y, np.ones(count)))
    said = " ".join(predictor.describe())
    test = widths_of(device.spec, NUM_TEST, rng, 0.0)
    rounded = predictor.round_widths(test).astype(np.float64)
    changed = np.any(rounded != test, axis=1)
    failures = []
    about = (
        f"seed {seed}: {device.spec.name}, true step {device.step}, {count} rows, noise {noise}, "
        f"structure {predictor.structure_}, advised {predictor.advice_.multiples}"
    )
    if changed.any():
        dearer = float(np.median(device.cost(rounded[changed]) / device.cost(test[changed])) - 1)
        if dearer > ALIKE:
            failures.append(f"{about}: rounding is dearer by {100 * dearer:.1f} %")
    if predictor.advice_.is_advised != ("Round widths up" in said):
        failures.append(f"{about}: what it says is not what it advises: {said}")
    figures: tuple[tuple[str, float], ...] = ()
    if device.step > 1:
        largest = max(predictor.advice_.multiples)
        figures = (
            ("advised at all", float(predictor.advice_.is_advised)),
            ("right multiple", float(largest == device.step)),
        )
        if count >= 120 and noise <= 0.02:
            figures += (("right of many rows", float(largest == device.step)),)
    return Outcome(1, tuple(failures), figures)


def of_kind(kind: str) -> Callable[[int], Outcome]:
    """Return what makes a round of a kind of device."""

    def run(seed: int) -> Outcome:
        warnings.simplefilter("ignore")
        draw = random.Random(f"advice/{kind}/{seed}")  # noqa: S311 - drawn again by the same seed
        device = simulated(draw) if kind == "simulated" else drawn(draw, kind)
        return attack(seed, device, draw)

    return run


TRIALS = tuple(
    Trial(
        f"advice-{kind}",
        promise,
        60,
        of_kind(kind),
        limit_s=120.0,
        may_fail=0.05,
    )
    for kind, promise in (
        ("smooth", "no advice to round where a device has no regimes"),
        ("regimes", "rounding as advised is not dearer on devices with regimes"),
        ("staircase", "rounding as advised is not dearer where blocks cost as full ones"),
        ("mixed", "rounding as advised is not dearer with regimes and blocks"),
        ("simulated", "no advice that costs on simulated accelerators"),
    )
)

"""The systolic-array model against the same formulas layer by layer, as the paper's code has them.

That code unfolds every layer's input and convolves the supports of weights and inputs; so does the
peer here, in torch. Prints, from one run on one core,

- how much faster a whole network is: at full width, at half width, and at random widths, of which
  a thousand are computed together,
- the same with random weight masks, and with random input masks,
- that both give the same energies,
- how long a million width vectors of MobileNetV1 take, and the largest gap of the smooth module.

python benchmarks/systolic.py [--networks mobilenet_v1 ...]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

import numpy as np
import torch
from torch.nn import functional

from joulemap.datasets import NetworkSpec
from joulemap.datasets.layer_spec import ResolvedLayer
from joulemap.models import SystolicArrayModel, SystolicHardware
from joulemap.profiler import networks

NETWORKS = ("lenet5", "squeezenet", "mobilenet_v1", "vgg16")
REPEATS = 3
MANY = 20
NUM_TOGETHER = 1000
NUM_PEER = 10
NUM_VECTORS = 1_000_000


@dataclass(frozen=True)
class Masks:
    """Which weights and inputs of a layer are not zero; None is all."""

    weight: torch.Tensor | None = None
    input: torch.Tensor | None = None


def peer_energy(layer: ResolvedLayer, hardware: SystolicHardware, masks: Masks) -> float:
    """Return a layer's energy by unfolding its input and convolving supports."""
    d, g = layer.out_channels, layer.groups
    if layer.kind == "linear":
        c = layer.in_channels
        weights = masks.weight if masks.weight is not None else torch.ones(d, c)
        count = float(weights.sum())
        passes = ceil(d / hardware.columns)
        cached = min(c, hardware.input_cache)
        return float(
            hardware.memory_energy * (cached + passes * (c - cached) + d + count)
            + hardware.cache_energy * (passes * c + count)
            + hardware.register_energy * (d * c + count)
            + hardware.mac_energy * count
        )
    shape = (layer.in_channels, *layer.in_size)
    support = (masks.input if masks.input is not None else torch.ones(shape)).float()[None]
    kernel = (d, layer.in_channels // g, *layer.kernel_size)
    weights = (masks.weight if masks.weight is not None else torch.ones(kernel)).float()
    unfolded = functional.unfold(
        support, layer.kernel_size, padding=layer.padding, stride=layer.stride
    )
    macs = float(
        functional.conv2d(
            support, weights, padding=layer.padding, stride=layer.stride, groups=g
        ).sum(dtype=torch.float64)
    )
    positions = unfolded.shape[2]
    reads = float(unfolded.sum(dtype=torch.float64))
    num_inputs, num_weights = float(support.sum()), float(weights.sum())
    overlap = 0.0
    if num_inputs > hardware.input_cache:
        rows = functional.pad(support[0].sum(dim=(0, 2)), [layer.padding[0]] * 2).tolist()
        overlap = peer_overlap(rows, layer, hardware.input_cache)
    passes = ceil(positions / hardware.rows)
    cached = min(num_weights, hardware.weight_cache)
    return float(
        hardware.memory_energy * (num_inputs + overlap + positions * d)
        + hardware.cache_energy * reads * ceil(d / g / hardware.columns)
        + hardware.register_energy * reads * (d // g)
        + hardware.memory_energy * (cached + passes * (num_weights - cached))
        + hardware.cache_energy * passes * num_weights
        + hardware.register_energy * positions * num_weights
        + hardware.mac_energy * macs
    )


def peer_overlap(rows: list[float], layer: ResolvedLayer, cache: int) -> float:
    """Return the inputs read twice, row by row."""
    kernel, stride = layer.kernel_size[0], layer.stride[0]
    total, begin = 0.0, 0
    while begin + kernel <= len(rows):
        end, filled = begin, 0.0
        while end < len(rows) and filled + rows[end] <= cache:
            filled += rows[end]
            end += 1
        following = begin + ((end - begin - kernel) // stride + 1) * stride
        if following + kernel <= len(rows):
            total += sum(rows[following:end])
        begin = following
    return total


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Return the median seconds of a call."""
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def weighted(spec: NetworkSpec, widths: list[int]) -> list[ResolvedLayer]:
    """Return the layers of a network that have weights."""
    return [layer for layer in spec.at(widths).layers if layer.kind in ("conv", "linear")]


def random_widths(spec: NetworkSpec, count: int) -> np.ndarray:
    """Return random whole widths within the bounds, (count, k)."""
    rng = np.random.default_rng(0)
    columns = [rng.integers(width.min, width.max + 1, count) for width in spec.widths]
    return np.column_stack(columns)


def report(name: str, label: str, peer_s: float, ours_s: float, difference: float) -> None:
    """Print one comparison."""
    print(
        f"{name:13} {label:15} {peer_s * 1e3:9.1f} ms {ours_s * 1e3:9.3f} ms "
        f"{peer_s / ours_s:8.0f}x   difference {difference:.0e}"
    )


def compare_dense(name: str, model: SystolicArrayModel, widths: list[int], label: str) -> None:
    """Print how much faster a whole network at one width vector is."""
    assert model.spec is not None
    layers, hardware = weighted(model.spec, widths), model.array
    total = sum(peer_energy(layer, hardware, Masks()) for layer in layers)
    difference = abs(model.predict([widths])[0] / total - 1)
    peer = seconds(lambda: [peer_energy(layer, hardware, Masks()) for layer in layers], REPEATS)
    ours = seconds(lambda: model.predict([widths]), MANY)
    report(name, label, peer, ours, difference)


def compare_together(name: str, model: SystolicArrayModel) -> None:
    """Print how much faster a network is that is computed at a thousand width vectors."""
    assert model.spec is not None
    X = random_widths(model.spec, NUM_TOGETHER)
    several = [weighted(model.spec, row) for row in X[:NUM_PEER].tolist()]

    def peer() -> list[float]:
        return [
            sum(peer_energy(layer, model.array, Masks()) for layer in layers) for layers in several
        ]

    difference = np.abs(model.predict(X[:NUM_PEER]) / peer() - 1).max()
    peer_s = seconds(peer, REPEATS) / NUM_PEER
    report(
        name, "one of 1,000", peer_s, seconds(lambda: model.predict(X), MANY) / len(X), difference
    )


def compare_masked(name: str, model: SystolicArrayModel, label: str) -> None:
    """Print how much faster all layers with random masks are."""
    assert model.spec is not None
    generator = torch.Generator().manual_seed(0)
    pairs = []
    for layer in weighted(model.spec, list(model.spec.max_widths)):
        weight = inputs = None
        if label == "weight masks":
            kernel = layer.kernel_size if layer.kind == "conv" else ()
            shape = (layer.out_channels, layer.in_channels // layer.groups, *kernel)
            weight = torch.rand(shape, generator=generator) < 0.5
        elif layer.kind == "conv":
            inputs = torch.rand((layer.in_channels, *layer.in_size), generator=generator) < 0.5
        pairs.append((layer, Masks(weight, inputs)))
    peer_total = sum(peer_energy(layer, model.array, masks) for layer, masks in pairs)

    def run() -> float:
        return sum(model.layer_energy(layer, m.weight, m.input).total for layer, m in pairs)

    difference = abs(run() / peer_total - 1)
    peer = seconds(lambda: [peer_energy(layer, model.array, m) for layer, m in pairs], REPEATS)
    ours = seconds(run, REPEATS)
    report(name, label, peer, ours, difference)


def main() -> None:
    """Print all comparisons."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), metavar="NAME")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'network':13} {'case':15} {'unfold+conv':>12} {'joulemap':>12} {'faster':>9}")
    for name in arguments.networks:
        spec = networks.get(name)
        model = SystolicArrayModel(spec)
        full = list(spec.max_widths)
        half = [width.min + (width.max - width.min) // 2 for width in spec.widths]
        compare_dense(name, model, full, "full width")
        compare_dense(name, model, half, "half width")
        compare_together(name, model)
        for label in ("weight masks", "input masks"):
            compare_masked(name, model, label)
    spec = networks.get("mobilenet_v1")
    model = SystolicArrayModel(spec)
    X = random_widths(spec, NUM_VECTORS)
    taken = seconds(lambda: model.predict(X), REPEATS)
    print(f"{NUM_VECTORS:,} width vectors of MobileNetV1 on one core: {taken:.1f} s")
    for name in arguments.networks:
        module = SystolicArrayModel(networks.get(name)).to_torch(smooth=True)
        print(f"largest gap of the smooth module, {name}: {module.max_deviation:.2%}")


if __name__ == "__main__":
    main()

"""How many width vectors a cost module evaluates in a second, forward and backward, on one core.

Prints the median and the spread, and the ratio to the obvious implementation of the same formula:
a Python loop over layers. Run it as `python benchmarks/cost_module.py`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch

from joulemap.datasets import LayerSpec, NetworkSpec, Width
from joulemap.models import BilinearPredictor

NUM_VECTORS = 100_000
ROUNDS = 15
CALLS = 5
# MobileNetV1's prunable widths.
WIDTHS = (32, 64, 128, 128, 256, 256, *[512] * 6, 1024, 1024)
CLASSES = 1001


def mobilenet_like() -> NetworkSpec:
    """Return a chain of convolutions with MobileNetV1's widths."""
    widths = tuple(Width(f"conv{i}", bound) for i, bound in enumerate(WIDTHS))
    sizes: list[int | str] = [3, *(width.name for width in widths)]
    layers = [
        LayerSpec(str(output), "conv", before, output, kernel_size=3, in_size=14, out_size=14)
        for before, output in pairwise(sizes)
    ]
    layers.append(LayerSpec("classes", "linear", sizes[-1], CLASSES))
    return NetworkSpec("chain", "zoo:mobilenet_v1", (3, 224, 224), widths, tuple(layers))


def loop_over_layers(
    widths: torch.Tensor, bounds: torch.Tensor, coefficients: torch.Tensor, intercept: float
) -> torch.Tensor:
    """Return the cost of widths (n, k), one product after the other."""
    scaled = widths / bounds
    cost = intercept + coefficients[0] * scaled[:, 0]
    for j in range(1, scaled.shape[1]):
        cost = cost + coefficients[j] * scaled[:, j - 1] * scaled[:, j]
    return cost + coefficients[-1] * scaled[:, -1]


def seconds(function: Callable[[torch.Tensor], torch.Tensor], widths: torch.Tensor) -> float:
    """Return the time of one forward and backward pass, the mean of some in a row."""
    start = time.perf_counter()
    for _ in range(CALLS):
        widths.grad = None
        torch.autograd.backward(function(widths).sum())
    return (time.perf_counter() - start) / CALLS


def report(dtype: torch.dtype) -> None:
    """Print the rates and their ratio for one dtype of the widths."""
    spec = mobilenet_like()
    rng = np.random.default_rng(0)
    coefficients = rng.uniform(1e-3, 2e-3, len(WIDTHS) + 1)
    module = BilinearPredictor.from_coefficients(spec, coefficients, 1e-3).to_torch()
    bounds, factors = torch.tensor(WIDTHS, dtype=dtype), torch.tensor(coefficients, dtype=dtype)

    def loop(widths: torch.Tensor) -> torch.Tensor:
        return loop_over_layers(widths, bounds, factors, 1e-3)

    drawn = rng.integers(1, np.array(WIDTHS) + 1, (NUM_VECTORS, len(WIDTHS)))
    widths = torch.tensor(drawn, dtype=dtype, requires_grad=True)
    torch.testing.assert_close(module(widths), loop(widths), rtol=1e-5, atol=0.0)
    ours, theirs = [], []
    seconds(module, widths), seconds(loop, widths)
    for _ in range(ROUNDS):
        # Alternating, so that a busy machine slows both.
        ours.append(seconds(module, widths))
        theirs.append(seconds(loop, widths))
    ratio = statistics.median(slow / fast for fast, slow in zip(ours, theirs, strict=True))
    print(f"{dtype}, {len(WIDTHS)} widths, {NUM_VECTORS} vectors, forward and backward, one core")
    for name, times in (("cost module", ours), ("loop over layers", theirs)):
        rates = sorted(NUM_VECTORS / value / 1e6 for value in times)
        print(
            f"  {name:<18}{statistics.median(rates):6.2f} million vectors/s "
            f"({rates[0]:.2f} to {rates[-1]:.2f})"
        )
    print(f"  ratio             {ratio:6.2f}")


def main() -> None:
    """Print the rates for float32 and float64 widths."""
    torch.set_num_threads(1)
    for dtype in (torch.float32, torch.float64):
        report(dtype)


if __name__ == "__main__":
    main()

"""A network of one hidden layer."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from joulemap.datasets import NetworkSpec, Width
from joulemap.profiler.networks import NetworkDefinition, SpecBuilder


class Tiny(nn.Module):
    """A convolution, a pool and a classifier."""

    def __init__(self, stem: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, stem, 3, padding=1)
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(stem, 10)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.pool(self.relu(self.stem(images))).flatten(1)
        logits: Tensor = self.head(hidden)
        return logits


def tiny(resolution: int = 16) -> NetworkDefinition:
    """Return the network for square images of `resolution` pixels."""
    net = SpecBuilder("tiny", (3, resolution, resolution), [Width("stem", 32)])
    net.conv("stem", "stem", 3, padding=1)
    net.activation("relu")
    net.pool("pool")
    net.flatten()
    net.linear("head", 10)
    return NetworkDefinition(net.spec(), build)


def build(spec: NetworkSpec, widths: Mapping[str, int]) -> nn.Module:
    """Return the torch module at the given widths."""
    return Tiny(widths["stem"])

"""SqueezeNet 1.0 (Iandola et al., 2016) with 25 prunable widths and 1000 classes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ...datasets import NetworkSpec, Width
from .definition import NetworkDefinition, Resolution
from .spec_builder import SpecBuilder

NUM_CLASSES = 1000
CONV1_WIDTH = 96
# Channels of the squeeze convolution and of each of the two expand convolutions.
FIRES = {
    2: (16, 64),
    3: (16, 64),
    4: (32, 128),
    5: (32, 128),
    6: (48, 192),
    7: (48, 192),
    8: (64, 256),
    9: (64, 256),
}
POOLS_AFTER = (4, 8)


def squeezenet(resolution: Resolution = 224) -> NetworkDefinition:
    """Return SqueezeNet 1.0 for colour images of `resolution` pixels.

    `conv1` is the width of the first convolution; `fire2_squeeze`, `fire2_expand1` and
    `fire2_expand3` to those of `fire9` are the widths of the fire modules, whose two expand
    convolutions of 1x1 and 3x3 are concatenated.
    """
    height, width = (resolution, resolution) if isinstance(resolution, int) else resolution
    widths = [Width("conv1", CONV1_WIDTH)]
    for number, (squeeze, expand) in FIRES.items():
        widths.append(Width(f"fire{number}_squeeze", squeeze))
        widths += [Width(f"fire{number}_expand{side}", expand) for side in (1, 3)]
    net = SpecBuilder("squeezenet", (3, height, width), widths)
    net.conv("conv1", "conv1", 7, stride=2)
    net.activation("relu1")
    net.pool("pool1", 3, stride=2, ceil_mode=True)
    for number in FIRES:
        fire = f"fire{number}"
        net.conv(f"{fire}.squeeze", f"{fire}_squeeze", 1)
        squeezed = net.activation(f"{fire}.squeeze_relu")
        net.conv(f"{fire}.expand1", f"{fire}_expand1", 1)
        small = net.activation(f"{fire}.expand1_relu")
        net.conv(f"{fire}.expand3", f"{fire}_expand3", 3, padding=1, inputs=squeezed)
        large = net.activation(f"{fire}.expand3_relu")
        net.concat(f"{fire}.concat", [small, large])
        if number in POOLS_AFTER:
            net.pool(f"pool{number}", 3, stride=2, ceil_mode=True)
    net.conv("conv10", NUM_CLASSES, 1)
    net.activation("relu10")
    net.pool("pool10")
    return NetworkDefinition(net.spec(), _build)


class _Fire(nn.Module):
    """A squeeze convolution, and two expand convolutions side by side."""

    def __init__(self, before: int, squeeze: int, expand1: int, expand3: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(before, squeeze, 1)
        self.squeeze_relu = nn.ReLU()
        self.expand1 = nn.Conv2d(squeeze, expand1, 1)
        self.expand1_relu = nn.ReLU()
        self.expand3 = nn.Conv2d(squeeze, expand3, 3, padding=1)
        self.expand3_relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze_relu(self.squeeze(x))
        branches = [self.expand1_relu(self.expand1(x)), self.expand3_relu(self.expand3(x))]
        return torch.cat(branches, 1)


def _build(_spec: NetworkSpec, widths: Mapping[str, int]) -> nn.Module:
    before = widths["conv1"]
    modules: dict[str, nn.Module] = {
        "conv1": nn.Conv2d(3, before, 7, stride=2),
        "relu1": nn.ReLU(),
        "pool1": nn.MaxPool2d(3, stride=2, ceil_mode=True),
    }
    for number in FIRES:
        fire = f"fire{number}"
        expand1, expand3 = widths[f"{fire}_expand1"], widths[f"{fire}_expand3"]
        modules[fire] = _Fire(before, widths[f"{fire}_squeeze"], expand1, expand3)
        before = expand1 + expand3
        if number in POOLS_AFTER:
            modules[f"pool{number}"] = nn.MaxPool2d(3, stride=2, ceil_mode=True)
    modules["dropout"] = nn.Dropout()
    modules["conv10"] = nn.Conv2d(before, NUM_CLASSES, 1)
    modules["relu10"] = nn.ReLU()
    modules["pool10"] = nn.AdaptiveAvgPool2d(1)
    modules["flatten"] = nn.Flatten()
    return nn.Sequential(OrderedDict(modules))

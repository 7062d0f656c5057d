"""ERFNet (Romera et al., 2017) for 20 classes, with the 51 prunable widths of ECC (CVPR 2019)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ...datasets import NetworkSpec, Width
from .definition import NetworkDefinition, Resolution
from .spec_builder import SpecBuilder

NUM_CLASSES = 20
# Channels after each step of the encoder and the decoder, and the dilations of its blocks.
DOWN = ((16, ()), (64, (1, 1, 1, 1, 1)), (128, (2, 4, 8, 16, 2, 4, 8, 16)))
UP = ((64, (1, 1)), (16, (1, 1)))
CONVS = (1, 2, 3)
NORM_EPS = 1e-3


def erfnet(resolution: Resolution = (512, 1024)) -> NetworkDefinition:
    """Return ERFNet for colour images of `resolution` pixels, multiples of 8.

    Each of the 17 non-bottleneck-1D blocks has four convolutions of 3x1 and 1x3. `block1_conv1`,
    `block1_conv2`, `block1_conv3` to those of `block17` are the widths of the first three; the
    last one adds to the residual stream, whose 16, 64 and 128 channels stay as they are.
    """
    height, width = (resolution, resolution) if isinstance(resolution, int) else resolution
    widths = [
        Width(f"block{number}_conv{conv}", channels)
        for number, (channels, _) in enumerate(_blocks(), 1)
        for conv in CONVS
    ]
    net = SpecBuilder("erfnet", (3, height, width), widths)
    before, before_channels, count = "", 3, 0
    for step, (channels, dilations) in enumerate(DOWN, 1):
        down = f"down{step}"
        added = channels - before_channels
        conv = net.conv(f"{down}.conv", added, 3, stride=2, padding=1, inputs=before)
        pool = net.pool(f"{down}.pool", 2, inputs=before)
        net.concat(f"{down}.concat", [conv, pool])
        net.norm(f"{down}.norm")
        before, before_channels = net.activation(f"{down}.relu"), channels
        for dilation in dilations:
            count += 1
            before = _add_block(net, f"block{count}", channels, dilation, before)
    for step, (channels, dilations) in enumerate(UP, 1):
        up = f"up{step}"
        net.conv_transpose(f"{up}.conv", channels, 3, stride=2, padding=1, output_padding=1)
        net.norm(f"{up}.norm")
        before = net.activation(f"{up}.relu")
        for dilation in dilations:
            count += 1
            before = _add_block(net, f"block{count}", channels, dilation, before)
    net.conv_transpose("output", NUM_CLASSES, 2, stride=2)
    return NetworkDefinition(net.spec(), _build)


def _blocks() -> list[tuple[int, int]]:
    """Return the residual channels and the dilation of each block."""
    return [(channels, dilation) for channels, all_ in DOWN + UP for dilation in all_]


def _add_block(net: SpecBuilder, block: str, channels: int, dilation: int, before: str) -> str:
    net.conv(f"{block}.conv1", f"{block}_conv1", (3, 1), padding=(1, 0))
    net.activation(f"{block}.relu1")
    net.conv(f"{block}.conv2", f"{block}_conv2", (1, 3), padding=(0, 1))
    net.norm(f"{block}.norm2")
    net.activation(f"{block}.relu2")
    net.conv(
        f"{block}.conv3", f"{block}_conv3", (3, 1), padding=(dilation, 0), dilation=(dilation, 1)
    )
    net.activation(f"{block}.relu3")
    net.conv(f"{block}.conv4", channels, (1, 3), padding=(0, dilation), dilation=(1, dilation))
    branch = net.norm(f"{block}.norm4")
    net.add(f"{block}.add", [branch, before])
    return net.activation(f"{block}.relu4")


class _Down(nn.Module):
    """Halves the maps by a convolution and a pool, concatenated."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after - before, 3, stride=2, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.norm = nn.BatchNorm2d(after, eps=NORM_EPS)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.relu(self.norm(torch.cat([self.conv(x), self.pool(x)], 1)))
        return result


class _Block(nn.Module):
    """A non-bottleneck-1D block: four convolutions along one axis each, and a residual."""

    def __init__(self, channels: int, inner: list[int], dilation: int) -> None:
        super().__init__()
        first, second, third = inner
        gap, tall, wide = dilation, (3, 1), (1, 3)
        self.conv1 = nn.Conv2d(channels, first, tall, padding=(1, 0))
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(first, second, wide, padding=(0, 1))
        self.norm2 = nn.BatchNorm2d(second, eps=NORM_EPS)
        self.relu2 = nn.ReLU()
        self.conv3 = nn.Conv2d(second, third, tall, padding=(gap, 0), dilation=(gap, 1))
        self.relu3 = nn.ReLU()
        self.conv4 = nn.Conv2d(third, channels, wide, padding=(0, gap), dilation=(1, gap))
        self.norm4 = nn.BatchNorm2d(channels, eps=NORM_EPS)
        self.relu4 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        branch = self.relu1(self.conv1(x))
        branch = self.relu2(self.norm2(self.conv2(branch)))
        branch = self.relu3(self.conv3(branch))
        result: Tensor = self.relu4(self.norm4(self.conv4(branch)) + x)
        return result


def _build(_spec: NetworkSpec, widths: Mapping[str, int]) -> nn.Module:
    modules: dict[str, nn.Module] = {}
    before, count = 3, 0
    for steps, kind in ((DOWN, "down"), (UP, "up")):
        for step, (channels, dilations) in enumerate(steps, 1):
            modules[f"{kind}{step}"] = (
                _Down(before, channels) if kind == "down" else _up(before, channels)
            )
            for dilation in dilations:
                count += 1
                inner = [widths[f"block{count}_conv{conv}"] for conv in CONVS]
                modules[f"block{count}"] = _Block(channels, inner, dilation)
            before = channels
    modules["output"] = nn.ConvTranspose2d(before, NUM_CLASSES, 2, stride=2)
    return nn.Sequential(OrderedDict(modules))


def _up(before: int, after: int) -> nn.Module:
    return nn.Sequential(
        OrderedDict(
            conv=nn.ConvTranspose2d(before, after, 3, stride=2, padding=1, output_padding=1),
            norm=nn.BatchNorm2d(after, eps=NORM_EPS),
            relu=nn.ReLU(),
        )
    )

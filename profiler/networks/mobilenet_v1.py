"""MobileNetV1, with the 14 prunable widths of ECC (CVPR 2019) and 1001 classes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from torch import nn

from ...datasets import NetworkSpec, Width
from .definition import NetworkDefinition, Resolution
from .spec_builder import SpecBuilder

NUM_CLASSES = 1001
MAX_WIDTHS = (32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
HALVING = (3, 5, 7, 13)  # blocks whose depthwise convolution has stride 2
BLOCKS = range(2, len(MAX_WIDTHS) + 1)


def mobilenet_v1(resolution: Resolution = 224) -> NetworkDefinition:
    """Return MobileNetV1 1.0 with ReLU6 for colour images of `resolution` pixels.

    `conv1` is the width of the first convolution, `conv2`..`conv14` those of the 13 pairs of a
    depthwise and a pointwise convolution, modules `block2`..`block14`.
    """
    height, width = (resolution, resolution) if isinstance(resolution, int) else resolution
    net = SpecBuilder(
        "mobilenet_v1",
        (3, height, width),
        [Width(f"conv{number}", most) for number, most in enumerate(MAX_WIDTHS, 1)],
    )
    net.conv("conv1.conv", "conv1", 3, stride=2, padding=1, bias=False)
    net.norm("conv1.norm")
    net.activation("conv1.relu")
    for number in BLOCKS:
        block = f"block{number}"
        stride = 2 if number in HALVING else 1
        net.depthwise(f"{block}.depthwise", 3, stride=stride, padding=1, bias=False)
        net.norm(f"{block}.depthwise_norm")
        net.activation(f"{block}.depthwise_relu")
        net.conv(f"{block}.pointwise", f"conv{number}", 1, bias=False)
        net.norm(f"{block}.pointwise_norm")
        net.activation(f"{block}.pointwise_relu")
    net.pool("pool")
    net.flatten()
    net.linear("classifier", NUM_CLASSES)
    return NetworkDefinition(net.spec(), _build)


def _build(spec: NetworkSpec, widths: Mapping[str, int]) -> nn.Module:
    channels = [widths[name] for name in spec.width_names]
    modules: dict[str, nn.Module] = {
        "conv1": nn.Sequential(
            OrderedDict(
                conv=nn.Conv2d(3, channels[0], 3, stride=2, padding=1, bias=False),
                norm=nn.BatchNorm2d(channels[0]),
                relu=nn.ReLU6(),
            )
        )
    }
    for number in BLOCKS:
        before, after = channels[number - 2 : number]
        stride = 2 if number in HALVING else 1
        modules[f"block{number}"] = nn.Sequential(
            OrderedDict(
                depthwise=nn.Conv2d(
                    before, before, 3, stride=stride, padding=1, groups=before, bias=False
                ),
                depthwise_norm=nn.BatchNorm2d(before),
                depthwise_relu=nn.ReLU6(),
                pointwise=nn.Conv2d(before, after, 1, bias=False),
                pointwise_norm=nn.BatchNorm2d(after),
                pointwise_relu=nn.ReLU6(),
            )
        )
    modules["pool"] = nn.AdaptiveAvgPool2d(1)
    modules["flatten"] = nn.Flatten()
    modules["classifier"] = nn.Linear(channels[-1], NUM_CLASSES)
    return nn.Sequential(OrderedDict(modules))

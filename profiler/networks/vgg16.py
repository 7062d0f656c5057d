"""VGG-16 without batch norm (Simonyan and Zisserman, 2014), 15 prunable widths, 1000 classes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from torch import nn

from ...datasets import NetworkSpec, Width
from .definition import NetworkDefinition, Resolution
from .spec_builder import SpecBuilder

NUM_CLASSES = 1000
FC_WIDTH = 4096
# Channels and number of convolutions of each stage; a pool ends it.
STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))


def vgg16(resolution: Resolution = 224) -> NetworkDefinition:
    """Return VGG-16 for colour images of `resolution` pixels, at least 32.

    `conv1_1`..`conv5_3` are the widths of the convolutions, `fc6` and `fc7` those of the two
    linear layers before the classifier `fc8`.
    """
    height, width = (resolution, resolution) if isinstance(resolution, int) else resolution
    widths = [
        Width(f"conv{stage}_{number}", most)
        for stage, (most, count) in enumerate(STAGES, 1)
        for number in range(1, count + 1)
    ]
    widths += [Width("fc6", FC_WIDTH), Width("fc7", FC_WIDTH)]
    net = SpecBuilder("vgg16", (3, height, width), widths)
    for stage, (_, count) in enumerate(STAGES, 1):
        for number in range(1, count + 1):
            name = f"{stage}_{number}"
            net.conv(f"conv{name}", f"conv{name}", 3, padding=1)
            net.activation(f"relu{name}")
        net.pool(f"pool{stage}", 2)
    net.flatten()
    net.linear("fc6", "fc6")
    net.activation("relu6")
    net.linear("fc7", "fc7")
    net.activation("relu7")
    net.linear("fc8", NUM_CLASSES)
    return NetworkDefinition(net.spec(), _build)


def _build(spec: NetworkSpec, widths: Mapping[str, int]) -> nn.Module:
    before, (height, width) = 3, spec.input_shape[1:]
    modules: dict[str, nn.Module] = {}
    for stage, (_, count) in enumerate(STAGES, 1):
        for number in range(1, count + 1):
            after = widths[f"conv{stage}_{number}"]
            modules[f"conv{stage}_{number}"] = nn.Conv2d(before, after, 3, padding=1)
            modules[f"relu{stage}_{number}"] = nn.ReLU()
            before = after
        modules[f"pool{stage}"] = nn.MaxPool2d(2)
        height, width = height // 2, width // 2
    fc6, fc7 = widths["fc6"], widths["fc7"]
    return nn.Sequential(
        OrderedDict(
            **modules,
            flatten=nn.Flatten(),
            fc6=nn.Linear(before * height * width, fc6),
            relu6=nn.ReLU(),
            dropout6=nn.Dropout(),
            fc7=nn.Linear(fc6, fc7),
            relu7=nn.ReLU(),
            dropout7=nn.Dropout(),
            fc8=nn.Linear(fc7, NUM_CLASSES),
        )
    )

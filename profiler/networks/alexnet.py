"""AlexNet in one tower, with the seven prunable widths of ECC (CVPR 2019)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from torch import nn

from ...datasets import NetworkSpec, Width
from .definition import NetworkDefinition, Resolution
from .spec_builder import SpecBuilder

NUM_CLASSES = 1000
MAX_WIDTHS = {
    "conv1": 64,
    "conv2": 192,
    "conv3": 384,
    "conv4": 256,
    "conv5": 256,
    "fc6": 4096,
    "fc7": 4096,
}


def alexnet(resolution: Resolution = 224) -> NetworkDefinition:
    """Return AlexNet for colour images of `resolution` pixels."""
    height, width = (resolution, resolution) if isinstance(resolution, int) else resolution
    net = SpecBuilder(
        "alexnet", (3, height, width), [Width(name, most) for name, most in MAX_WIDTHS.items()]
    )
    net.conv("conv1", "conv1", 11, stride=4, padding=2)
    net.activation("relu1")
    net.pool("pool1", 3, stride=2)
    net.conv("conv2", "conv2", 5, padding=2)
    net.activation("relu2")
    net.pool("pool2", 3, stride=2)
    for name in ("conv3", "conv4", "conv5"):
        net.conv(name, name, 3, padding=1)
        net.activation(f"relu{name[-1]}")
    net.pool("pool5", 3, stride=2)
    net.flatten()
    net.linear("fc6", "fc6")
    net.activation("relu6")
    net.linear("fc7", "fc7")
    net.activation("relu7")
    net.linear("fc8", NUM_CLASSES)
    return NetworkDefinition(net.spec(), _build)


def _build(spec: NetworkSpec, widths: Mapping[str, int]) -> nn.Module:
    # Side of the maps: a stem of stride 4, then three pools of 3 with stride 2.
    sides = [(side + 4 - 11) // 4 + 1 for side in spec.input_shape[1:]]
    for _ in range(3):
        sides = [(side - 3) // 2 + 1 for side in sides]
    conv1, conv2, conv3, conv4, conv5, fc6, fc7 = (widths[name] for name in MAX_WIDTHS)
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(3, conv1, 11, stride=4, padding=2),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(3, stride=2),
            conv2=nn.Conv2d(conv1, conv2, 5, padding=2),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(3, stride=2),
            conv3=nn.Conv2d(conv2, conv3, 3, padding=1),
            relu3=nn.ReLU(),
            conv4=nn.Conv2d(conv3, conv4, 3, padding=1),
            relu4=nn.ReLU(),
            conv5=nn.Conv2d(conv4, conv5, 3, padding=1),
            relu5=nn.ReLU(),
            pool5=nn.MaxPool2d(3, stride=2),
            flatten=nn.Flatten(),
            dropout6=nn.Dropout(),
            fc6=nn.Linear(conv5 * sides[0] * sides[1], fc6),
            relu6=nn.ReLU(),
            dropout7=nn.Dropout(),
            fc7=nn.Linear(fc6, fc7),
            relu7=nn.ReLU(),
            fc8=nn.Linear(fc7, NUM_CLASSES),
        )
    )

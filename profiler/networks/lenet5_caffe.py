"""LeNet-5 as Caffe's MNIST example has it: 20-50-500, no activation after convolutions."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from torch import nn

from ...datasets import NetworkSpec, Width
from .definition import NetworkDefinition, Resolution
from .spec_builder import SpecBuilder

NUM_CLASSES = 10


def lenet5_caffe(resolution: Resolution = 28) -> NetworkDefinition:
    """Return Caffe's LeNet-5 for one-channel images of `resolution` pixels."""
    height, width = (resolution, resolution) if isinstance(resolution, int) else resolution
    net = SpecBuilder(
        "lenet5_caffe",
        (1, height, width),
        [Width("conv1", 20), Width("conv2", 50), Width("fc1", 500)],
    )
    net.conv("conv1", "conv1", 5)
    net.pool("pool1", 2)
    net.conv("conv2", "conv2", 5)
    net.pool("pool2", 2)
    net.flatten()
    net.linear("fc1", "fc1")
    net.activation("relu1")
    net.linear("fc2", NUM_CLASSES)
    return NetworkDefinition(net.spec(), _build)


def _build(spec: NetworkSpec, widths: Mapping[str, int]) -> nn.Module:
    height, width = (((side - 4) // 2 - 4) // 2 for side in spec.input_shape[1:])
    conv1, conv2, fc1 = (widths[name] for name in ("conv1", "conv2", "fc1"))
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, conv1, 5),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(conv1, conv2, 5),
            pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            fc1=nn.Linear(conv2 * height * width, fc1),
            relu1=nn.ReLU(),
            fc2=nn.Linear(fc1, NUM_CLASSES),
        )
    )

"""ERFNet (Romera et al., T-ITS 2018) for 20 classes, with the 51 inner widths of ECC (CVPR 2019)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ...datasets import NetworkSpec, Width
from .definition import NetworkDefinition, Resolution
from .spec_builder import SpecBuilder

NUM_CLASSES = 20
INNER = 3
# Name, channels and dilation of each block, in order.
ENCODER_1 = 16
ENCODER_2 = 64
ENCODER_3 = 128
NUM_SHALLOW_BLOCKS = 5
DILATIONS = (2, 4, 8, 16, 2, 4, 8, 16)
BLOCKS: tuple[tuple[str, int, int], ...] = (
    *((f"encoder{number}", ENCODER_2, 1) for number in range(1, NUM_SHALLOW_BLOCKS + 1)),
    *(
        (f"encoder{number}", ENCODER_3, dilation)
        for number, dilation in enumerate(DILATIONS, NUM_SHALLOW_BLOCKS + 1)
    ),
    *((f"decoder{number}", ENCODER_2, 1) for number in (1, 2)),
    *((f"decoder{number}", ENCODER_1, 1) for number in (3, 4)),
)


def erfnet(resolution: Resolution = (512, 1024)) -> NetworkDefinition:
    """Return ERFNet for colour images of `resolution` pixels, multiples of 8.

    `encoder1_1`..`decoder4_3` are the three inner widths of each of the 17 factorised blocks; the
    residual streams between them have fixed widths.
    """
    height, width = (resolution, resolution) if isinstance(resolution, int) else resolution
    widths = [
        Width(f"{name}_{inner}", channels)
        for name, channels, _ in BLOCKS
        for inner in range(1, INNER + 1)
    ]
    net = SpecBuilder("erfnet", (3, height, width), widths)
    blocks = iter(BLOCKS)
    before = _downsampler(net, "down1", 3, ENCODER_1, "")
    before = _downsampler(net, "down2", ENCODER_1, ENCODER_2, before)
    for _ in range(NUM_SHALLOW_BLOCKS):
        before = _block(net, *next(blocks), before)
    before = _downsampler(net, "down3", ENCODER_2, ENCODER_3, before)
    for _ in DILATIONS:
        before = _block(net, *next(blocks), before)
    for name, channels in (("up1", ENCODER_2), ("up2", ENCODER_1)):
        net.conv_transpose(f"{name}.conv", channels, 3, stride=2, padding=1, output_padding=1)
        net.norm(f"{name}.norm")
        before = net.activation(f"{name}.relu")
        for _ in range(2):
            before = _block(net, *next(blocks), before)
    net.conv_transpose("classifier", NUM_CLASSES, 2, stride=2)
    return NetworkDefinition(net.spec(), _build)


def _downsampler(net: SpecBuilder, name: str, inputs: int, outputs: int, before: str) -> str:
    conv = net.conv(f"{name}.conv", outputs - inputs, 3, stride=2, padding=1, inputs=before)
    pool = net.pool(f"{name}.pool", 2, inputs=before)
    net.concat(f"{name}.concat", [conv, pool])
    net.norm(f"{name}.norm")
    return net.activation(f"{name}.relu")


def _block(net: SpecBuilder, name: str, channels: int, dilation: int, before: str) -> str:
    net.conv(f"{name}.conv1", f"{name}_1", (3, 1), padding=(1, 0), inputs=before)
    net.activation(f"{name}.relu1")
    net.conv(f"{name}.conv2", f"{name}_2", (1, 3), padding=(0, 1))
    net.norm(f"{name}.norm1")
    net.activation(f"{name}.relu2")
    net.conv(f"{name}.conv3", f"{name}_3", (3, 1), padding=(dilation, 0), dilation=(dilation, 1))
    net.activation(f"{name}.relu3")
    net.conv(f"{name}.conv4", channels, (1, 3), padding=(0, dilation), dilation=(1, dilation))
    branch = net.norm(f"{name}.norm2")
    net.add(f"{name}.add", [branch, before])
    return net.activation(f"{name}.relu4")


class _Downsampler(nn.Module):
    """Halves height and width: a strided convolution beside a pooling of the input."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs - inputs, 3, stride=2, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.norm = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.relu(self.norm(torch.cat([self.conv(x), self.pool(x)], dim=1)))
        return result


class _Block(nn.Module):
    """A residual block of four convolutions of 3x1 and 1x3, the last two dilated."""

    def __init__(self, channels: int, inner: tuple[int, int, int], dilation: int) -> None:
        super().__init__()
        first, second, third = inner
        self.conv1 = nn.Conv2d(channels, first, (3, 1), padding=(1, 0))
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(first, second, (1, 3), padding=(0, 1))
        self.norm1 = nn.BatchNorm2d(second)
        self.relu2 = nn.ReLU()
        self.conv3 = nn.Conv2d(second, third, (3, 1), padding=(dilation, 0), dilation=(dilation, 1))
        self.relu3 = nn.ReLU()
        self.conv4 = nn.Conv2d(
            third, channels, (1, 3), padding=(0, dilation), dilation=(1, dilation)
        )
        self.norm2 = nn.BatchNorm2d(channels)
        self.relu4 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        branch = self.relu2(self.norm1(self.conv2(self.relu1(self.conv1(x)))))
        branch = self.norm2(self.conv4(self.relu3(self.conv3(branch))))
        result: Tensor = self.relu4(branch + x)
        return result


def _upsampler(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        OrderedDict(
            conv=nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1),
            norm=nn.BatchNorm2d(outputs),
            relu=nn.ReLU(),
        )
    )


def _build(_spec: NetworkSpec, widths: Mapping[str, int]) -> nn.Module:
    blocks = {
        name: _Block(
            channels, (widths[f"{name}_1"], widths[f"{name}_2"], widths[f"{name}_3"]), dilation
        )
        for name, channels, dilation in BLOCKS
    }
    names = list(blocks)
    shallow, deep = names[:NUM_SHALLOW_BLOCKS], names[NUM_SHALLOW_BLOCKS:-4]
    modules: dict[str, nn.Module] = {
        "down1": _Downsampler(3, ENCODER_1),
        "down2": _Downsampler(ENCODER_1, ENCODER_2),
        **{name: blocks[name] for name in shallow},
        "down3": _Downsampler(ENCODER_2, ENCODER_3),
        **{name: blocks[name] for name in deep},
        "up1": _upsampler(ENCODER_3, ENCODER_2),
        **{name: blocks[name] for name in names[-4:-2]},
        "up2": _upsampler(ENCODER_2, ENCODER_1),
        **{name: blocks[name] for name in names[-2:]},
        "classifier": nn.ConvTranspose2d(ENCODER_1, NUM_CLASSES, 2, stride=2),
    }
    return nn.Sequential(OrderedDict(modules))

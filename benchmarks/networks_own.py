"""Networks of the benchmark that no package has: each function returns a module and its example inputs."""

from __future__ import annotations

import itertools
from typing import TypeAlias

import torch
from torch import nn
from torch.nn import functional

Made: TypeAlias = "tuple[nn.Module, tuple[torch.Tensor, ...]]"


class Unit(nn.Sequential):
    """A convolution, its norm and an activation."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(outputs),
            nn.SiLU(),
        )


class C2f(nn.Module):
    """Half of the channels goes through bottlenecks, all of their outputs are joined."""

    def __init__(self, inputs: int, outputs: int, count: int) -> None:
        super().__init__()
        half = outputs // 2
        self.cv1 = Unit(inputs, outputs, 1)
        self.m = nn.ModuleList(
            nn.Sequential(Unit(half, half), Unit(half, half)) for _ in range(count)
        )
        self.cv2 = Unit(half * (2 + count), outputs, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the outputs."""
        parts = list(self.cv1(x).chunk(2, 1))
        for block in self.m:
            parts.append(parts[-1] + block(parts[-1]))
        joined: torch.Tensor = self.cv2(torch.cat(parts, 1))
        return joined


class YoloLike(nn.Module):
    """Three scales, a way down and up again, and one head for each."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(Unit(3, 16, 3, 2), Unit(16, 32, 3, 2), C2f(32, 32, 1))
        self.p3 = nn.Sequential(Unit(32, 64, 3, 2), C2f(64, 64, 2))
        self.p4 = nn.Sequential(Unit(64, 128, 3, 2), C2f(128, 128, 2))
        self.p5 = nn.Sequential(Unit(128, 256, 3, 2), C2f(256, 256, 1))
        self.before, self.after = Unit(256, 128, 1), Unit(512, 256, 1)
        self.up4, self.up3 = C2f(384, 128, 1), C2f(192, 64, 1)
        self.down4, self.fuse4 = Unit(64, 64, 3, 2), C2f(192, 128, 1)
        self.heads = nn.ModuleList(nn.Conv2d(size, 85, 1) for size in (64, 128, 256))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the outputs."""
        p3 = self.p3(self.stem(x))
        p4 = self.p4(p3)
        p5 = self.p5(p4)
        pooled = self.before(p5)
        maps = [pooled]
        for _ in range(3):
            maps.append(functional.max_pool2d(maps[-1], 5, 1, 2))
        p5 = self.after(torch.cat(maps, 1))
        u4 = self.up4(torch.cat([functional.interpolate(p5, scale_factor=2.0), p4], 1))
        u3 = self.up3(torch.cat([functional.interpolate(u4, scale_factor=2.0), p3], 1))
        n4 = self.fuse4(torch.cat([self.down4(u3), u4], 1))
        return tuple(head(each) for head, each in zip(self.heads, (u3, n4, p5), strict=True))


def yolo_like() -> Made:
    """Return a detector with three outputs."""
    return YoloLike(), (torch.zeros(1, 3, 128, 128),)


class UNet(nn.Module):
    """Transposed convolutions upwards, joined with the maps of the way down."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        sizes = [width, 2 * width, 4 * width, 8 * width]
        self.down = nn.ModuleList(
            nn.Sequential(Unit(before, after), Unit(after, after))
            for before, after in zip([3, *sizes], sizes, strict=False)
        )
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(after, before, 2, 2) for before, after in itertools.pairwise(sizes)
        )
        self.fuse = nn.ModuleList(Unit(2 * size, size) for size in sizes[:-1])
        self.head = nn.Conv2d(width, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the outputs."""
        maps = []
        for number, block in enumerate(self.down):
            x = block(functional.max_pool2d(x, 2) if number else x)
            maps.append(x)
        for number in (2, 1, 0):
            x = self.fuse[number](torch.cat([maps[number], self.up[number](x)], 1))
        out: torch.Tensor = self.head(x)
        return out


def unet() -> Made:
    """Return a network for segmentation."""
    return UNet(), (torch.zeros(1, 3, 64, 64),)


class Recurrent(nn.Module):
    """Recurrent layers, and a classifier of their last state."""

    def __init__(self, layers: nn.LSTM | nn.GRU, size: int) -> None:
        super().__init__()
        self.layers = layers
        self.head = nn.Linear(size, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the outputs."""
        out: torch.Tensor = self.head(self.layers(x)[0][:, -1])
        return out


def bilstm() -> Made:
    """Return two bidirectional LSTM layers."""
    layers = nn.LSTM(40, 64, 2, batch_first=True, bidirectional=True)
    return Recurrent(layers, 128), (torch.zeros(1, 50, 40),)


def gru() -> Made:
    """Return two GRU layers."""
    return Recurrent(nn.GRU(40, 64, 2, batch_first=True), 64), (torch.zeros(1, 50, 40),)


def espcn() -> Made:
    """Return a network for super-resolution, which ends with a pixel shuffle."""
    layers = [nn.Conv2d(1, 64, 5, padding=2), nn.Tanh(), nn.Conv2d(64, 32, 3, padding=1), nn.Tanh()]
    last = [nn.Conv2d(32, 36, 3, padding=1), nn.PixelShuffle(3), nn.Conv2d(4, 1, 3, padding=1)]
    return nn.Sequential(*layers, *last), (torch.zeros(1, 1, 32, 32),)


def mlp() -> Made:
    """Return three linear layers."""
    layers = [nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10)]
    return nn.Sequential(nn.Flatten(), *layers), (torch.zeros(1, 1, 28, 28),)


def signal() -> Made:
    """Return one-dimensional convolutions, grouped and dilated ones too."""
    layers = [
        nn.Conv1d(2, 32, 9, 2, 4),
        nn.BatchNorm1d(32),
        nn.ReLU(),
        nn.Conv1d(32, 64, 5, padding=4, dilation=2, groups=4),
        nn.PReLU(64),
        nn.MaxPool1d(2),
        nn.Conv1d(64, 48, 3, padding=1),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(48, 6),
    ]
    return nn.Sequential(*layers), (torch.zeros(1, 2, 256),)


def volume() -> Made:
    """Return three-dimensional convolutions."""
    layers = [
        nn.Conv3d(1, 8, 3, padding=1),
        nn.BatchNorm3d(8),
        nn.ReLU(),
        nn.MaxPool3d(2),
        nn.Conv3d(8, 16, 3, padding=1),
        nn.InstanceNorm3d(16, affine=True),
        nn.ReLU(),
        nn.AdaptiveAvgPool3d(1),
        nn.Flatten(),
        nn.Linear(16, 4),
    ]
    return nn.Sequential(*layers), (torch.zeros(1, 1, 8, 16, 16),)


class ShuffleUnit(nn.Module):
    """Half of the channels goes through, and both halves are mixed."""

    def __init__(self, size: int) -> None:
        super().__init__()
        half = size // 2
        self.a, self.c = nn.Conv2d(half, half, 1), nn.Conv2d(half, half, 1)
        self.b = nn.Conv2d(half, half, 3, padding=1, groups=half)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the outputs."""
        left, right = x.chunk(2, 1)
        x = torch.cat([left, self.c(self.b(self.a(right).relu())).relu()], 1)
        n, c, h, w = x.shape
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def channel_shuffle() -> Made:
    """Return units of the kind that ShuffleNetV2 has."""
    layers = [Unit(3, 24, 3, 2), ShuffleUnit(24), ShuffleUnit(24), Unit(24, 48, 1)]
    last = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 10)]
    return nn.Sequential(*layers, *last), (torch.zeros(1, 3, 64, 64),)


class Siamese(nn.Module):
    """One trunk for two images, compared by a small network."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(Unit(3, 16, 3, 2), Unit(16, 32, 3, 2), nn.AdaptiveAvgPool2d(1))
        self.head = nn.Sequential(nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 1))

    def forward(self, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """Return the outputs."""
        difference = (self.trunk(one) - self.trunk(other)).flatten(1).abs()
        out: torch.Tensor = self.head(difference)
        return out


def siamese() -> Made:
    """Return a network that calls one module with two inputs."""
    return Siamese(), (torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 64, 64))


class TiedWords(nn.Module):
    """Attention over words, and the embedding once more as the last layer."""

    def __init__(self, size: int = 64) -> None:
        super().__init__()
        self.embed = nn.Embedding(500, size)
        layer = nn.TransformerEncoderLayer(size, 4, 128, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the outputs."""
        return functional.linear(self.encoder(self.embed(x)), self.embed.weight)


def tied_words() -> Made:
    """Return a small transformer with tied embeddings."""
    return TiedWords(), (torch.zeros(1, 24, dtype=torch.int64),)

"""A plain vision transformer: heads and hidden features of every block are widths."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ...datasets import NetworkSpec, Width
from .definition import NetworkDefinition, Resolution
from .spec_builder import SpecBuilder

NUM_CLASSES = 1000
PATCH = 16
DEPTH = 12
FEATURES = 192
NUM_HEADS = 3
HEAD_FEATURES = 64
HIDDEN = 768


def vit(resolution: Resolution = 224) -> NetworkDefinition:
    """Return ViT-Ti/16 for colour images of `resolution` pixels, multiples of 16.

    `heads1`..`heads12` are the attention heads of the blocks, 64 features each, `hidden1`..
    the features inside the blocks' perceptrons; the residual stream has fixed 192 features.
    Positions are sines and cosines and the tokens are averaged, as in Beyer et al., "Better plain
    ViT baselines for ImageNet-1k", 2022.
    """
    height, width = (resolution, resolution) if isinstance(resolution, int) else resolution
    numbers = range(1, DEPTH + 1)
    widths = [
        item
        for number in numbers
        for item in (Width(f"heads{number}", NUM_HEADS), Width(f"hidden{number}", HIDDEN))
    ]
    net = SpecBuilder("vit", (3, height, width), widths)
    net.conv("patches", FEATURES, PATCH, stride=PATCH)
    size = net.size
    net.tokens()
    before = net.add_constant("positions")
    for number in numbers:
        block = f"block{number}"
        read = net.norm(f"{block}.norm1", inputs=before)
        inner = f"{HEAD_FEATURES}*heads{number}"
        query, key, value = (
            net.linear(f"{block}.{name}", inner, inputs=read) for name in ("query", "key", "value")
        )
        net.attention(f"{block}.attention", f"heads{number}", HEAD_FEATURES, (query, key, value))
        branch = net.linear(f"{block}.project", FEATURES)
        before = net.add(f"{block}.add1", [branch, before])
        net.norm(f"{block}.norm2")
        net.linear(f"{block}.expand", f"hidden{number}")
        net.activation(f"{block}.gelu")
        branch = net.linear(f"{block}.contract", FEATURES)
        before = net.add(f"{block}.add2", [branch, before])
    net.norm("norm")
    net.maps(size)
    net.pool("pool")
    net.flatten()
    net.linear("classifier", NUM_CLASSES)
    return NetworkDefinition(net.spec(), _build)


class _Attention(nn.Module):
    """Lets every token read every other one, once for each head."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.softmax = nn.Softmax(dim=-1)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        query, key, value = (
            item.unflatten(2, (self.heads, HEAD_FEATURES)).transpose(1, 2)  # type: ignore[no-untyped-call]
            for item in (query, key, value)
        )
        scores = query @ key.transpose(2, 3) * HEAD_FEATURES**-0.5
        result: Tensor = (self.softmax(scores) @ value).transpose(1, 2).flatten(2)
        return result


class _Block(nn.Module):
    """Attention and a perceptron, each added to the residual stream."""

    def __init__(self, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(FEATURES)
        self.query = nn.Linear(FEATURES, heads * HEAD_FEATURES)
        self.key = nn.Linear(FEATURES, heads * HEAD_FEATURES)
        self.value = nn.Linear(FEATURES, heads * HEAD_FEATURES)
        self.attention = _Attention(heads)
        self.project = nn.Linear(heads * HEAD_FEATURES, FEATURES)
        self.norm2 = nn.LayerNorm(FEATURES)
        self.expand = nn.Linear(FEATURES, hidden)
        self.gelu = nn.GELU()
        self.contract = nn.Linear(hidden, FEATURES)

    def forward(self, x: Tensor) -> Tensor:
        read = self.norm1(x)
        x = x + self.project(self.attention(self.query(read), self.key(read), self.value(read)))
        result: Tensor = x + self.contract(self.gelu(self.expand(self.norm2(x))))
        return result


class _Transformer(nn.Module):
    """Patches, positions, blocks, and the mean of the tokens."""

    def __init__(self, size: tuple[int, int], blocks: OrderedDict[str, nn.Module]) -> None:
        super().__init__()
        self.size = size
        self.patches = nn.Conv2d(3, FEATURES, PATCH, stride=PATCH)
        self.register_buffer("positions", _positions(*size), persistent=False)
        for name, block in blocks.items():
            self.add_module(name, block)
        self.block_names = list(blocks)
        self.norm = nn.LayerNorm(FEATURES)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(FEATURES, NUM_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        for name in self.block_names:
            x = self.get_submodule(name)(x)
        maps = self.norm(x).transpose(1, 2).unflatten(2, self.size)
        result: Tensor = self.classifier(self.pool(maps).flatten(1))
        return result


def _positions(height: int, width: int) -> Tensor:
    """Return sines and cosines of rows and columns, shape (1, height * width, FEATURES)."""
    quarter = FEATURES // 4
    frequencies = 1e4 ** (-torch.arange(quarter) / max(1, quarter - 1))
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    angles = [axis.reshape(-1, 1) * frequencies for axis in (rows, columns)]
    return torch.cat([f(angle) for angle in angles for f in (torch.sin, torch.cos)], dim=1)[None]


def _build(spec: NetworkSpec, widths: Mapping[str, int]) -> nn.Module:
    size = spec.input_shape[1] // PATCH, spec.input_shape[2] // PATCH
    blocks: OrderedDict[str, nn.Module] = OrderedDict(
        (f"block{number}", _Block(widths[f"heads{number}"], widths[f"hidden{number}"]))
        for number in range(1, DEPTH + 1)
    )
    return _Transformer(size, blocks)

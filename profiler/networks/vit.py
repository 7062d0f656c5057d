"""A vision transformer (Dosovitskiy et al., 2020) of the tiny size: 12 blocks, 3 heads of 64."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from joulemap import InputError

from ...datasets import NetworkSpec, Width
from .definition import NetworkDefinition, Resolution
from .spec_builder import SpecBuilder

NUM_CLASSES = 1000
NUM_BLOCKS = 12
EMBEDDING_WIDTH, NUM_HEADS, MLP_WIDTH = 192, 3, 768
HEAD_FEATURES = 64
PATCH = 16


def vit(resolution: Resolution = 224) -> NetworkDefinition:
    """Return ViT-Tiny/16 for colour images of `resolution` pixels, multiples of 16.

    `embedding` is the width of the residual stream, `heads1`..`heads12` the numbers of attention
    heads of 64 features in each block, `mlp1`..`mlp12` the hidden widths of the two linear layers
    after them. Norms come first in each branch; classes are read off the mean over the positions,
    without a class token.

    Raises:
        InputError: The sides are no multiples of 16.
    """
    height, width = (resolution, resolution) if isinstance(resolution, int) else resolution
    if height % PATCH or width % PATCH:
        raise InputError(f"vit takes sides in multiples of {PATCH} pixels, not {height} x {width}")
    rows, columns = height // PATCH, width // PATCH
    positions = rows * columns
    net = SpecBuilder("vit", (3, height, width), _widths())
    net.conv("patches", "embedding", PATCH, stride=PATCH)
    net.arrange(positions=positions)
    before = net.position_embedding("positions")
    for number in range(1, NUM_BLOCKS + 1):
        block, heads = f"block{number}", f"heads{number}"
        net.norm(f"{block}.norm1")
        qkv = net.linear(f"{block}.qkv", f"{3 * HEAD_FEATURES}*{heads}")
        # One map of positions x positions for each head.
        net.matmul(f"{block}.scores", HEAD_FEATURES, heads, positions=positions**2, inputs=[qkv])
        net.arrange(size=(positions, positions))
        scores = net.activation(f"{block}.softmax")
        features = f"{HEAD_FEATURES}*{heads}"
        net.matmul(
            f"{block}.values", positions, features, positions=positions, inputs=[scores, qkv]
        )
        branch = net.linear(f"{block}.project", "embedding")
        before = net.add(f"{block}.add1", [before, branch])
        net.norm(f"{block}.norm2")
        net.linear(f"{block}.fc1", f"mlp{number}")
        net.activation(f"{block}.gelu")
        branch = net.linear(f"{block}.fc2", "embedding")
        before = net.add(f"{block}.add2", [before, branch])
    net.norm("norm")
    net.arrange(size=(rows, columns))
    net.pool("pool")
    net.linear("classifier", NUM_CLASSES)
    return NetworkDefinition(net.spec(), _build)


def _widths() -> list[Width]:
    widths = [Width("embedding", EMBEDDING_WIDTH)]
    for number in range(1, NUM_BLOCKS + 1):
        widths += [Width(f"heads{number}", NUM_HEADS), Width(f"mlp{number}", MLP_WIDTH)]
    return widths


class _Positions(nn.Module):
    """Adds a learned vector at each position."""

    def __init__(self, positions: int, embedding: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.02 * torch.randn(positions, embedding))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.weight


class _Mean(nn.Module):
    """The mean over the positions."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1)


class _Block(nn.Module):
    """Attention and two linear layers, each after a norm and beside the residual stream."""

    def __init__(self, embedding: int, heads: int, mlp: int) -> None:
        super().__init__()
        self.heads = heads
        features = heads * HEAD_FEATURES
        self.norm1 = nn.LayerNorm(embedding)
        self.qkv = nn.Linear(embedding, 3 * features)
        self.softmax = nn.Softmax(-1)
        self.project = nn.Linear(features, embedding)
        self.norm2 = nn.LayerNorm(embedding)
        self.fc1 = nn.Linear(embedding, mlp)
        self.gelu = nn.GELU()
        self.fc2 = nn.Linear(mlp, embedding)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, HEAD_FEATURES))
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        scores = self.softmax(query @ key.transpose(-1, -2) * HEAD_FEATURES**-0.5)
        x = x + self.project((scores @ value).transpose(1, 2).flatten(2))
        result: Tensor = x + self.fc2(self.gelu(self.fc1(self.norm2(x))))
        return result


class _Vit(nn.Module):
    def __init__(self, blocks: list[_Block], embedding: int, positions: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, embedding, PATCH, stride=PATCH)
        self.positions = _Positions(positions, embedding)
        self.blocks = tuple(blocks)
        for number, block in enumerate(blocks, 1):
            self.add_module(f"block{number}", block)
        self.norm = nn.LayerNorm(embedding)
        self.pool = _Mean()
        self.classifier = nn.Linear(embedding, NUM_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.positions(self.patches(x).flatten(2).transpose(1, 2))
        for block in self.blocks:
            x = block(x)
        result: Tensor = self.classifier(self.pool(self.norm(x)))
        return result


def _build(spec: NetworkSpec, widths: Mapping[str, int]) -> nn.Module:
    embedding = widths["embedding"]
    height, width = spec.input_shape[1:]
    blocks = [
        _Block(embedding, widths[f"heads{number}"], widths[f"mlp{number}"])
        for number in range(1, NUM_BLOCKS + 1)
    ]
    return _Vit(blocks, embedding, (height // PATCH) * (width // PATCH))

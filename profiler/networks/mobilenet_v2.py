"""MobileNetV2 1.0 (Sandler et al., CVPR 2018) with 25 prunable widths and 1000 classes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from ...datasets import NetworkSpec, Width
from .definition import NetworkDefinition, Resolution
from .spec_builder import SpecBuilder

NUM_CLASSES = 1000
STEM_WIDTH, HEAD_WIDTH = 32, 1280
EXPANSION = 6
# Channels of the residual stream, number of blocks, and stride of the first block of each stage.
STAGES = ((16, 1, 1), (24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1))


def mobilenet_v2(resolution: Resolution = 224) -> NetworkDefinition:
    """Return MobileNetV2 1.0 with ReLU6 for colour images of `resolution` pixels.

    `stage1`..`stage7` are the widths of the residual streams, which all blocks of a stage share.
    `block2_1_expand`..`block7_1_expand` are the widths of the depthwise convolutions, at most six
    times what the block reads; the only block of stage 1 does not expand. `stem` and `head` are
    the first and the last convolution.
    """
    height, width = (resolution, resolution) if isinstance(resolution, int) else resolution
    net = SpecBuilder("mobilenet_v2", (3, height, width), _widths())
    net.conv("stem.conv", "stem", 3, stride=2, padding=1, bias=False)
    net.norm("stem.norm")
    before = net.activation("stem.relu")
    for stage, number, stride in _blocks():
        block = f"block{stage}_{number}"
        if stage > 1:
            net.conv(f"{block}.expand", f"{block}_expand", 1, bias=False)
            net.norm(f"{block}.expand_norm")
            net.activation(f"{block}.expand_relu")
        net.depthwise(f"{block}.depthwise", 3, stride=stride, padding=1, bias=False)
        net.norm(f"{block}.depthwise_norm")
        net.activation(f"{block}.depthwise_relu")
        net.conv(f"{block}.project", f"stage{stage}", 1, bias=False)
        after = net.norm(f"{block}.project_norm")
        before = net.add(f"{block}.add", [before, after]) if number > 1 else after
    net.conv("head.conv", "head", 1, bias=False)
    net.norm("head.norm")
    net.activation("head.relu")
    net.pool("pool")
    net.flatten()
    net.linear("classifier", NUM_CLASSES)
    return NetworkDefinition(net.spec(), _build)


def _blocks() -> Iterator[tuple[int, int, int]]:
    """Yield stage, number within the stage and stride of every block."""
    for stage, (_, count, stride) in enumerate(STAGES, 1):
        for number in range(1, count + 1):
            yield stage, number, stride if number == 1 else 1


def _widths() -> list[Width]:
    widths = [Width("stem", STEM_WIDTH)]
    before = STEM_WIDTH
    for stage, number, _ in _blocks():
        if stage > 1:
            widths.append(Width(f"block{stage}_{number}_expand", EXPANSION * before))
        before = STAGES[stage - 1][0]
        if number == 1:
            widths.append(Width(f"stage{stage}", before))
    return [*widths, Width("head", HEAD_WIDTH)]


class _Block(nn.Module):
    """An inverted residual: expand, depthwise, project without activation.

    Without `expanded` channels the depthwise convolution works on what the block reads.
    """

    def __init__(
        self, before: int, expanded: int | None, after: int, *, stride: int, has_residual: bool
    ) -> None:
        super().__init__()
        self.has_residual = has_residual
        inner = before if expanded is None else expanded
        layers: dict[str, nn.Module] = {}
        if expanded is not None:
            layers["expand"] = nn.Conv2d(before, inner, 1, bias=False)
            layers["expand_norm"] = nn.BatchNorm2d(inner)
            layers["expand_relu"] = nn.ReLU6()
        layers["depthwise"] = nn.Conv2d(
            inner, inner, 3, stride=stride, padding=1, groups=inner, bias=False
        )
        layers["depthwise_norm"] = nn.BatchNorm2d(inner)
        layers["depthwise_relu"] = nn.ReLU6()
        layers["project"] = nn.Conv2d(inner, after, 1, bias=False)
        layers["project_norm"] = nn.BatchNorm2d(after)
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        branch = x
        for layer in self.children():
            branch = layer(branch)
        return x + branch if self.has_residual else branch


def _build(_spec: NetworkSpec, widths: Mapping[str, int]) -> nn.Module:
    before, head = widths["stem"], widths["head"]
    modules: dict[str, nn.Module] = {
        "stem": nn.Sequential(
            OrderedDict(
                conv=nn.Conv2d(3, before, 3, stride=2, padding=1, bias=False),
                norm=nn.BatchNorm2d(before),
                relu=nn.ReLU6(),
            )
        )
    }
    for stage, number, stride in _blocks():
        name, after = f"block{stage}_{number}", widths[f"stage{stage}"]
        expanded = widths.get(f"{name}_expand")
        modules[name] = _Block(before, expanded, after, stride=stride, has_residual=number > 1)
        before = after
    modules["head"] = nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(before, head, 1, bias=False), norm=nn.BatchNorm2d(head), relu=nn.ReLU6()
        )
    )
    modules["pool"] = nn.AdaptiveAvgPool2d(1)
    modules["flatten"] = nn.Flatten()
    modules["classifier"] = nn.Linear(head, NUM_CLASSES)
    return nn.Sequential(OrderedDict(modules))

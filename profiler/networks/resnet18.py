"""ResNet-18 (He et al., CVPR 2016) with 12 prunable widths and 1000 classes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from torch import Tensor, nn

from ...datasets import NetworkSpec, Width
from .definition import NetworkDefinition, Resolution
from .spec_builder import SpecBuilder

NUM_CLASSES = 1000
STAGE_WIDTHS = (64, 128, 256, 512)
BLOCKS_PER_STAGE = 2


def resnet18(resolution: Resolution = 224) -> NetworkDefinition:
    """Return ResNet-18 for colour images of `resolution` pixels.

    `stage1`..`stage4` are the widths of the residual streams, which all layers that write to them
    share; the stem writes to `stage1`. `block1_1_inner`..`block4_2_inner` are the widths between
    the two convolutions of each block.
    """
    height, width = (resolution, resolution) if isinstance(resolution, int) else resolution
    net = SpecBuilder("resnet18", (3, height, width), _widths())
    net.conv("stem.conv", "stage1", 7, stride=2, padding=3, bias=False)
    net.norm("stem.norm")
    net.activation("stem.relu")
    before = net.pool("stem.pool", 3, stride=2, padding=1)
    for stage in range(1, len(STAGE_WIDTHS) + 1):
        for number in range(1, BLOCKS_PER_STAGE + 1):
            block, halves = f"block{stage}_{number}", _halves(stage, number)
            net.conv(
                f"{block}.conv1",
                f"{block}_inner",
                3,
                stride=2 if halves else 1,
                padding=1,
                bias=False,
                inputs=before,
            )
            net.norm(f"{block}.norm1")
            net.activation(f"{block}.relu1")
            net.conv(f"{block}.conv2", f"stage{stage}", 3, padding=1, bias=False)
            branch, shortcut = net.norm(f"{block}.norm2"), before
            if halves:
                name = f"{block}.shortcut.conv"
                net.conv(name, f"stage{stage}", 1, stride=2, bias=False, inputs=before)
                shortcut = net.norm(f"{block}.shortcut.norm")
            net.add(f"{block}.add", [branch, shortcut])
            before = net.activation(f"{block}.relu2")
    net.pool("pool")
    net.flatten()
    net.linear("classifier", NUM_CLASSES)
    return NetworkDefinition(net.spec(), _build)


def _widths() -> list[Width]:
    widths = [Width("stage1", STAGE_WIDTHS[0])]
    for stage, most in enumerate(STAGE_WIDTHS, 1):
        for number in range(1, BLOCKS_PER_STAGE + 1):
            widths.append(Width(f"block{stage}_{number}_inner", most))
            if _halves(stage, number):
                widths.append(Width(f"stage{stage}", most))
    return widths


def _halves(stage: int, number: int) -> bool:
    return stage > 1 and number == 1


class _Block(nn.Module):
    """Two convolutions around which the residual stream passes, projected where it changes."""

    def __init__(self, before: int, inner: int, after: int, *, halves: bool) -> None:
        super().__init__()
        stride = 2 if halves else 1
        self.conv1 = nn.Conv2d(before, inner, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(inner)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(inner, after, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(after)
        self.shortcut = (
            nn.Sequential(
                OrderedDict(
                    conv=nn.Conv2d(before, after, 1, stride=2, bias=False),
                    norm=nn.BatchNorm2d(after),
                )
            )
            if halves
            else nn.Identity()
        )
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        branch = self.norm2(self.conv2(self.relu1(self.norm1(self.conv1(x)))))
        result: Tensor = self.relu2(branch + self.shortcut(x))
        return result


def _build(_spec: NetworkSpec, widths: Mapping[str, int]) -> nn.Module:
    before = widths["stage1"]
    modules: dict[str, nn.Module] = {
        "stem": nn.Sequential(
            OrderedDict(
                conv=nn.Conv2d(3, before, 7, stride=2, padding=3, bias=False),
                norm=nn.BatchNorm2d(before),
                relu=nn.ReLU(),
                pool=nn.MaxPool2d(3, stride=2, padding=1),
            )
        )
    }
    for stage in range(1, len(STAGE_WIDTHS) + 1):
        for number in range(1, BLOCKS_PER_STAGE + 1):
            name, after = f"block{stage}_{number}", widths[f"stage{stage}"]
            modules[name] = _Block(
                before, widths[f"{name}_inner"], after, halves=_halves(stage, number)
            )
            before = after
    modules["pool"] = nn.AdaptiveAvgPool2d(1)
    modules["flatten"] = nn.Flatten()
    modules["classifier"] = nn.Linear(before, NUM_CLASSES)
    return nn.Sequential(OrderedDict(modules))

"""Specs that are not their networks are refused before anything is measured; honest ones pass."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from joulemap import InputError
from joulemap.datasets import LayerSpec, NetworkSpec, Width
from joulemap.profiler import networks, profile, profile_layers
from joulemap.profiler.networks import NetworkDefinition, SpecBuilder
from joulemap.profiler.networks.choice import chosen_network


class Net(nn.Module):
    """Two convolutions, a residual, a head; what else is there, a lie says."""

    def __init__(self, widths: Mapping[str, int], lie: str = "") -> None:
        super().__init__()
        a, b = widths["a"], widths["b"]
        self.lie = lie
        self.stem = nn.Conv2d(3, a, 3, padding=1)
        self.relu = nn.ReLU()
        self.body = nn.Conv2d(a, a, 3, padding=1)
        stride = 1 if lie == "wrong stride" else 2
        padding = (0, 0) if lie == "wrong padding" else (1, 1)
        self.down = nn.Conv2d(a, b + (lie == "wider"), 3, stride, padding)
        if lie == "branch where widths are equal":
            self.short = nn.Identity() if a == b else nn.Conv2d(a, b, 1, stride=2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(b + (lie == "wider"), 10, bias=lie != "no bias")
        self.another: nn.Module = nn.Identity()
        if lie == "another module":
            self.another = nn.BatchNorm2d(a)
        if lie == "module that never runs":
            self.another = nn.Linear(a, 1000)
        if lie == "parameter of the whole":
            self.scale = nn.Parameter(torch.ones(a, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.stem(images))
        x = x + self.body(x) if self.lie != "no residual" else self.body(x)
        if self.lie == "twice":
            x = self.body(x)
        if self.lie == "relu twice":
            x = self.relu(x)
        if self.lie == "another module":
            x = self.another(x)
        if self.lie == "parameter of the whole":
            x = x * self.scale
        if self.lie == "product outside of modules":
            x = x + F.conv2d(x, self.body.weight, padding=1)
        x = self.down(x)
        head: torch.Tensor = self.head(self.pool(x).flatten(1))
        return head


def spec_of(widths: tuple[Width, ...] = (Width("a", 12), Width("b", 20))) -> NetworkSpec:
    net = SpecBuilder("net", (3, 8, 8), widths)
    net.conv("stem", "a", 3, padding=1)
    before = net.activation("relu")
    body = net.conv("body", "a", 3, padding=1)
    net.add("sum", [before, body])
    net.conv("down", "b", 3, stride=2, padding=1)
    net.pool("pool")
    net.flatten()
    net.linear("head", 10)
    return net.spec()


def network(lie: str = "") -> Callable[[], NetworkDefinition]:
    def factory() -> NetworkDefinition:
        return NetworkDefinition(spec_of(), lambda _, widths: Net(widths, lie))

    return factory


LIES = {
    "wider": r"parameters of layer 'down' is 2,180 in the spec, 2,289 in torch",
    "wrong stride": r"stride of layer 'down' is \(2, 2\) in the spec, \(1, 1\) in torch",
    "wrong padding": r"padding of layer 'down' is \(1, 1\) in the spec, \(0, 0\) in torch",
    "no bias": r"parameters of layer 'head' is 210 in the spec, 200 in torch",
    "another module": r"the module 'another' \(BatchNorm2d\) runs, and no layer",
    "module that never runs": r"the parameter 'another.weight' \(12,000 numbers\) belongs to no layer",
    "parameter of the whole": r"the parameter 'scale' \(12 numbers\) belongs to no layer",
    "twice": r"'body' is called 2 times in a forward pass, and the spec lists it once",
    "relu twice": r"'relu' \(ReLU\) is called 2 times, and the spec lists it once",
    "no residual": r"layer 'sum' \(add, 768 elements\) does not run",
    "product outside of modules": r"have 138,440 multiply-accumulates in all, the forward pass 221,384",
}


@pytest.mark.parametrize("lie", LIES)
def test_a_spec_that_is_not_its_network_is_refused(lie: str) -> None:
    with pytest.raises(InputError, match=LIES[lie]) as caught:
        chosen_network(network(lie), is_run=True)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("lie", ["tied", "twin layers"])
def test_one_parameter_of_two_layers_is_refused(lie: str) -> None:
    class Tied(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(6, width), nn.Linear(6, width)
            self.third = nn.Linear(width, 6)
            if lie == "tied":
                self.second.weight = self.first.weight
            else:
                self.second = self.first

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            third: torch.Tensor = self.third(self.first(x) + self.second(x))
            return third

    def tied() -> NetworkDefinition:
        net = SpecBuilder("tied", (6,), [Width("a", 9)])
        first = net.linear("first", "a")
        second = net.linear("second", "a", inputs="")
        net.add("sum", [first, second])
        net.linear("third", 6)
        return NetworkDefinition(net.spec(), lambda _, widths: Tied(widths["a"]))

    with pytest.raises(InputError, match=r"are one parameter|called 2 times"):
        chosen_network(tied, is_run=True)


def test_a_branch_that_depends_on_the_widths_is_refused() -> None:
    with pytest.raises(InputError, match=r"'short.weight' \(240 numbers\)"):
        chosen_network(network("branch where widths are equal"), is_run=True)


def test_an_honest_spec_passes() -> None:
    assert chosen_network(network(), is_run=True).layers == spec_of().layers


def test_a_width_that_no_layer_uses_is_refused() -> None:
    spec = spec_of((Width("a", 12), Width("b", 20), Width("c", 4)))
    with pytest.raises(InputError, match="no layer of net uses the width 'c'"):
        chosen_network(lambda: NetworkDefinition(spec, lambda _, w: Net(w)), is_run=True)


def test_a_layer_that_the_module_lacks_is_refused() -> None:
    def longer() -> NetworkDefinition:
        spec = spec_of()
        more = (*spec.layers, LayerSpec("softmax", "activation", 10, 10))
        return NetworkDefinition(
            dataclasses.replace(spec, layers=more), lambda _, widths: Net(widths)
        )

    with pytest.raises(
        InputError, match=r"layer 'softmax' \(activation, 10 elements\) does not run"
    ):
        chosen_network(longer, is_run=True)


def test_a_kind_that_the_module_is_not_is_refused() -> None:
    class Wrong(Net):
        def __init__(self, widths: Mapping[str, int]) -> None:
            super().__init__(widths)
            self.relu = nn.MaxPool2d(3, 1, 1)  # type: ignore[assignment]

    with pytest.raises(
        InputError, match=r"'relu' is of kind activation, and the module is a MaxPool"
    ):
        chosen_network(lambda: NetworkDefinition(spec_of(), lambda _, w: Wrong(w)), is_run=True)


def test_a_changed_spec_of_the_zoo_is_refused() -> None:
    """A spec that names a registered network and has other layers describes neither."""
    spec = networks.get("lenet5")
    layers = tuple(
        dataclasses.replace(layer, bias=False) if layer.name == "fc1" else layer
        for layer in spec.layers
    )
    with pytest.raises(InputError, match="parameters of layer 'fc1'"):
        chosen_network(dataclasses.replace(spec, layers=layers), is_run=True)
    narrower = tuple(dataclasses.replace(width, max=width.max - 1) for width in spec.widths)
    assert chosen_network(dataclasses.replace(spec, widths=narrower), is_run=True)


class Functional(nn.Module):
    """Attention by torch's own module, and functions in place of modules."""

    def __init__(self, embedding: int) -> None:
        super().__init__()
        self.inner = nn.Linear(16, embedding)
        self.attention = nn.MultiheadAttention(embedding, 4, batch_first=True)
        self.norm = nn.LayerNorm(embedding)
        self.head = nn.Linear(embedding, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.inner(x))
        x = x + self.attention(x, x, x, need_weights=False)[0]
        if x.device.type == "cpu":
            assert float(x.sum()) == float(x.sum())  # needs values, which other devices lack
        head: torch.Tensor = self.head(self.norm(x).mean(1))
        return head


def functional() -> NetworkDefinition:
    net = SpecBuilder("attention", (20, 16), [Width("e", 64, 4, 4)])
    net.linear("inner", "e")
    before = net.activation("relu")
    qkv = net.linear("attention.in_proj", "3*e")
    scores = net.matmul("attention.scores", "e", 20, positions=20, inputs=[qkv])
    net.matmul("attention.values", 20, "e", positions=20, inputs=[scores, qkv])
    branch = net.linear("attention.out_proj", "e")
    net.add("sum", [before, branch])
    net.norm("norm")
    net.last_position()
    net.linear("head", 10)
    return NetworkDefinition(net.spec(), lambda _, widths: Functional(widths["e"]))


def test_layers_that_are_no_modules_are_found_among_the_operations() -> None:
    assert chosen_network(functional, is_run=True)


def test_a_module_that_needs_values_is_run_with_values() -> None:
    class Valued(Net):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            assert torch.isfinite(images).all()
            return super().forward(images)

    assert chosen_network(lambda: NetworkDefinition(spec_of(), lambda _, w: Valued(w)), is_run=True)


def test_nothing_is_written_before_the_comparison(tmp_path: Path) -> None:
    options: dict[str, Any] = {"samples": 2, "out": tmp_path / "run"}
    for url in ("local:", "sim:eyeriss"):
        with pytest.raises(InputError, match="not its network"):
            profile(url, network("wider"), **options)
    with pytest.raises(InputError, match="not its network"):
        profile_layers("local:", network("wider"), samples=1)
    assert not (tmp_path / "run").exists()

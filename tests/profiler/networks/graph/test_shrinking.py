"""Smaller copies of networks: the sizes that the spec says, the outputs of the masked network."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from joulemap import InputError
from joulemap.profiler import networks
from joulemap.profiler.networks.graph import DerivedNetwork, derive
from joulemap.profiler.networks.graph.known import remember
from joulemap.profiler.networks.importing import import_module

from .test_derive import IMAGE, NETWORKS, derived

# Of these every layer is computed channel by channel: what is masked does not change the rest.
CHANNELWISE = ("shuffle", "recurrent", "super_resolution", "shared", "volume", "words", "dense")


class Dense(nn.Module):
    """A residual whose channels are concatenated with those before it, and batch norms of both."""

    def __init__(self, a: int = 8, b: int = 6) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, a, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(a)
        self.inner = nn.Conv2d(a, b, 1, bias=False)
        self.inner_norm = nn.BatchNorm2d(b)
        self.outer = nn.Conv2d(b, a, 3, padding=1)
        self.joined = nn.BatchNorm2d(a + b)
        self.head = nn.Linear((a + b) * 4, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.stem(x)).relu()
        y = self.inner_norm(self.inner(x)).relu()
        x = self.joined(torch.cat([x + self.outer(y), y], 1)).relu()
        out: torch.Tensor = self.head(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1))
        return out


class Heads(nn.Module):
    """Attention that keeps its sizes as numbers, as most modules of users do."""

    def __init__(self, e: int = 16, heads: int = 4) -> None:
        super().__init__()
        self.inp = nn.Linear(6, e)
        self.num_heads, self.head_dim = heads, e // heads
        self.scale = self.head_dim**-0.5
        self.qkv = nn.Linear(e, 3 * e)
        self.proj = nn.Linear(e, e)
        self.head = nn.Linear(e, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.inp(x)
        n, t, _ = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        y = ((q * self.scale) @ k.transpose(-2, -1)).softmax(-1) @ v
        x = x + self.proj(y.transpose(1, 2).reshape(n, t, self.num_heads * self.head_dim))
        out: torch.Tensor = self.head(x.mean(1))
        return out


ALL = (*NETWORKS, "dense", "heads")
_OWN: dict[str, tuple[nn.Module, DerivedNetwork]] = {}


def network(name: str) -> tuple[nn.Module, DerivedNetwork]:
    if name in NETWORKS:
        return derived(name)
    if name not in _OWN:
        torch.manual_seed(0)
        module, inputs = (Dense(), IMAGE) if name == "dense" else (Heads(), (torch.zeros(1, 5, 6),))
        graph = import_module(module, inputs, name=name, source=f"factory:own:{name}")
        _OWN[name] = module.eval(), derive(graph)
    return _OWN[name]


def drawn(found: DerivedNetwork, seed: int) -> dict[str, list[int]]:
    """Return channels of each width, as many as the spec allows, from anywhere."""
    draw = np.random.default_rng(seed)
    groups = networks.channel_groups(found)
    kept: dict[str, list[int]] = {}
    for width in found.spec.widths:
        own = groups[width.name]
        number = int(draw.choice(np.arange(width.min, width.max + 1, width.multiple)))
        chosen = draw.choice(len(own), number * len(own) // width.max, replace=False)
        kept[width.name] = [channel for place in chosen for channel in own[place].channels]
    return kept


def masked(module: nn.Module, found: DerivedNetwork, kept: dict[str, list[int]]) -> nn.Module:
    """Return a network in which everything that belongs to a channel that goes is zero."""
    copied = copy.deepcopy(module).eval()
    state = {**dict(copied.named_parameters()), **dict(copied.named_buffers())}
    with torch.no_grad():
        for name, groups in networks.channel_groups(found).items():
            for group in groups:
                if not set(group.channels) & set(kept[name]):
                    for member in group.members:
                        if member.parameter in state and "running" not in member.parameter:
                            index = torch.tensor(member.places)
                            state[member.parameter].index_fill_(member.axis, index, 0)
    return copied


@pytest.mark.parametrize("name", ALL)
def test_a_smaller_network_has_the_parameters_that_its_spec_says(name: str) -> None:
    module, found = network(name)
    for seed in range(2):
        kept = drawn(found, seed)
        widths = {key: len(value) for key, value in kept.items()}
        smaller = networks.shrink(module, found, kept)
        counted = sum(parameter.numel() for parameter in smaller.parameters())
        assert counted == found.spec.at(widths).params
        assert networks.widths_of(smaller, found) == widths
        hidden = masked(module, found, kept)
        assert networks.widths_of(hidden, found) == widths
        chosen = networks.channels_of(hidden, found)
        assert chosen == {key: sorted(value) for key, value in kept.items()}
        if name in CHANNELWISE or name == "heads":
            inputs = [
                torch.randn(value.shape) if value.dtype.kind == "f" else torch.from_numpy(value)
                for value in found.graph.inputs.values()
            ]
            with torch.no_grad():
                outputs = smaller.eval()(*inputs), hidden(*inputs)
            torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-5)


def test_sizes_that_torch_modules_hold_follow() -> None:
    module, found = network("gated")
    assert found.spec.width_names[0] == "a"
    smaller = networks.shrink(module, found, {"a": [0, 4]})
    depthwise = smaller.get_submodule("depthwise")
    assert isinstance(depthwise, nn.Conv2d)
    assert (depthwise.in_channels, depthwise.out_channels, depthwise.groups) == (2, 4, 2)
    assert smaller.get_submodule("norm").num_features == 2
    assert smaller.get_submodule("groups").num_channels == 2
    assert smaller.get_submodule("head").in_features == 2
    assert module.get_submodule("depthwise").groups == 8  # the module itself stays


def test_the_state_of_an_optimizer_follows() -> None:
    module, found = network("dense")
    trained = copy.deepcopy(module).train()
    optimizer = torch.optim.Adam(trained.parameters(), lr=1e-3)
    trained(torch.randn(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    width = found.spec.width_names[1]
    smaller, follower = networks.shrink(trained, found, {width: [1, 4]}, optimizer=optimizer)
    assert isinstance(smaller, nn.Module)
    before = optimizer.state[trained.get_parameter("outer.weight")]["exp_avg"]
    after = follower.state[smaller.get_parameter("outer.weight")]["exp_avg"]
    torch.testing.assert_close(after, before[:, [1, 4]])
    assert smaller.training
    held = [parameter for group in follower.param_groups for parameter in group["params"]]
    assert {id(item) for item in held} == {id(item) for item in smaller.parameters()}
    smaller(torch.randn(2, 3, 8, 8)).sum().backward()
    follower.step()


def test_an_onnx_model_gets_smaller_in_the_same_way() -> None:
    module, found = network("dense")
    kept = drawn(found, 3)
    smaller: Any = networks.shrink(found.graph.model, found, kept)
    session = onnxruntime.InferenceSession(
        smaller.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    inputs = torch.randn((1, 3, 8, 8))
    written = session.run(None, {next(iter(found.graph.inputs)): inputs.numpy()})[0]
    with torch.no_grad():
        own: torch.Tensor = networks.shrink(module, found, kept).eval()(inputs)
    np.testing.assert_allclose(written, own.numpy(), rtol=1e-4, atol=1e-5)
    assert networks.widths_of(smaller, found) == {key: len(value) for key, value in kept.items()}


def test_a_derived_network_is_built_at_any_widths() -> None:
    module, found = network("dense")
    remember(found)
    built = networks.build(found.spec, found.spec.min_widths)
    assert networks.widths_of(built, found.spec) == dict(
        zip(found.spec.width_names, found.spec.min_widths, strict=True)
    )
    assert not built.training
    whole = networks.build(found.spec, found.spec.max_widths)
    torch.testing.assert_close(whole.state_dict(), module.state_dict())


def test_what_cannot_be_made_smaller_is_named() -> None:
    module, found = derived("c2f")
    both = networks.shrink(module, found, {"cv1": [0, 1, 2]})
    assert both.get_submodule("cv1").out_channels == 6
    with pytest.raises(InputError, match=r"the module has no 'cv1.weight'"):
        networks.shrink(nn.Linear(3, 2), found, {"cv1": 3})
    with pytest.raises(InputError, match="has no parameter of the network 'c2f'"):
        networks.widths_of(nn.Linear(3, 2), found)

"""Width spaces of torch modules that nobody wrote for joulemap: variants run, sums are torch's."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from joulemap import InputError
from joulemap.datasets import LayerSpec, NetworkSpec
from joulemap.profiler.networks.graph import DerivedNetwork, derive
from joulemap.profiler.networks.graph.derive import derive_again, source_of_graph
from joulemap.profiler.networks.importing import import_module
from joulemap.profiler.templates.derived import derived_template
from joulemap.profiler.templates.variant_check import check_variants


class C2f(nn.Module):
    def __init__(self, c: int = 8, o: int = 12) -> None:
        super().__init__()
        self.cv1 = nn.Conv2d(3, 2 * c, 1)
        self.m = nn.Conv2d(c, c, 3, padding=1)
        self.cv2 = nn.Conv2d(3 * c, o, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(o, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = self.cv1(x).chunk(2, 1)
        joined = torch.cat([a, b, self.m(b)], 1)
        out: torch.Tensor = self.head(self.pool(self.cv2(joined)).flatten(1))
        return out


class Attention(nn.Module):
    def __init__(self, e: int = 16) -> None:
        super().__init__()
        self.inp = nn.Linear(6, e)
        self.attn = nn.MultiheadAttention(e, 4, batch_first=True)
        self.norm = nn.LayerNorm(e)
        self.head = nn.Linear(e, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.inp(x)
        x = x + self.attn(x, x, x, need_weights=False)[0]
        out: torch.Tensor = self.head(self.norm(x).mean(1))
        return out


class Shuffle(nn.Module):
    def __init__(self, a: int = 8) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, a, 3, padding=1)
        self.g = nn.Conv2d(a, a, 1, groups=2)
        self.h = nn.Conv2d(a, a, 1, groups=2)
        self.head = nn.Linear(a, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.g(self.a(x))
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        out: torch.Tensor = self.head(self.h(x).mean((2, 3)))
        return out


class Recurrent(nn.Module):
    def __init__(self, h: int = 8) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, h, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * h, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.lstm(x)[0][:, -1])
        return out


class SuperResolution(nn.Module):
    def __init__(self, a: int = 8, u: int = 6) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, a, 3, padding=1)
        self.up = nn.Conv2d(a, 4 * u, 3, padding=1)
        self.shuffle = nn.PixelShuffle(2)
        self.b = nn.Conv2d(u, 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.b(self.shuffle(self.up(self.a(x))))
        return out


class Gated(nn.Module):
    """Squeeze and excitation, group norm, a depthwise convolution with a multiplier, a residual."""

    def __init__(self, a: int = 8) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, a, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(a)
        self.down = nn.Conv2d(a, 4, 1)
        self.up = nn.Conv2d(4, a, 1)
        self.groups = nn.GroupNorm(2, a)
        self.depthwise = nn.Conv2d(a, 2 * a, 3, padding=1, groups=a)
        self.scale = nn.Parameter(torch.ones(2 * a, 1, 1))
        self.last = nn.Conv2d(2 * a, a, 1)
        self.head = nn.Linear(a, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.a(x)).relu()
        x = x * self.up(self.down(x.mean((2, 3), keepdim=True)).relu()).sigmoid()
        y = self.last(self.depthwise(self.groups(x)) * self.scale)
        out: torch.Tensor = self.head((x + y).mean((2, 3)))
        return out


class Shared(nn.Module):
    """One module that is called twice, and two outputs of two inputs."""

    def __init__(self, a: int = 8) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, a, 3, padding=1)
        self.b = nn.Conv2d(2, a, 3, padding=1, stride=2)
        self.head = nn.Conv2d(a, 5, 1)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.head(self.a(x)), self.head(self.b(y))


class Volume(nn.Module):
    def __init__(self, a: int = 4) -> None:
        super().__init__()
        self.a = nn.Conv3d(1, a, 3, padding=1)
        self.b = nn.ConvTranspose3d(a, 3, 2, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.b(self.a(x).relu())
        return out


class Words(nn.Module):
    """An embedding, a convolution over a signal, and the embedding again as the output layer."""

    def __init__(self, d: int = 8) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, d)
        self.conv = nn.Conv1d(d, 12, 3, padding=1)
        self.back = nn.Linear(12, d)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(self.embed(x).transpose(1, 2)).transpose(1, 2).relu()
        out: torch.Tensor = self.back(x) @ self.embed.weight.t()
        return out


IMAGE = (torch.zeros(1, 3, 8, 8),)
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[torch.Tensor, ...]]] = {
    "c2f": (C2f, IMAGE),
    "attention": (Attention, (torch.zeros(1, 5, 6),)),
    "shuffle": (Shuffle, IMAGE),
    "recurrent": (Recurrent, (torch.zeros(1, 7, 6),)),
    "super_resolution": (SuperResolution, IMAGE),
    "gated": (Gated, IMAGE),
    "shared": (Shared, (torch.zeros(1, 3, 8, 8), torch.zeros(1, 2, 8, 8))),
    "volume": (Volume, (torch.zeros(1, 1, 4, 6, 8),)),
    "words": (Words, (torch.zeros(1, 9, dtype=torch.int64),)),
}
_DERIVED: dict[str, tuple[nn.Module, DerivedNetwork]] = {}


def derived(name: str) -> tuple[nn.Module, DerivedNetwork]:
    """Return a network and what was derived from it, once per process."""
    if name not in _DERIVED:
        make, inputs = NETWORKS[name]
        torch.manual_seed(0)
        module = make()
        graph = import_module(module, inputs, name=name, source=f"factory:own:{name}")
        _DERIVED[name] = module, derive(graph)
    return _DERIVED[name]


def widths_of_interest(spec: NetworkSpec) -> list[tuple[int, ...]]:
    draw = random.Random(spec.name)
    drawn = [
        tuple(draw.randrange(width.min, width.max + 1, width.multiple) for width in spec.widths)
        for _ in range(4)
    ]
    return [spec.max_widths, spec.min_widths, *drawn]


@pytest.mark.parametrize("name", NETWORKS)
def test_every_variant_runs_and_writes_what_the_network_writes(name: str) -> None:
    _, found = derived(name)
    template = derived_template(found.spec, found.space).materialiser()
    outputs = found.space.solution.model.graph.output
    shapes = [found.space.solution.tensors.shapes[item.name] for item in outputs]
    for widths in widths_of_interest(found.spec):
        session = onnxruntime.InferenceSession(
            template.materialise(widths), providers=["CPUExecutionProvider"]
        )
        written = session.run(None, template.make_inputs())
        assert [value.shape for value in written] == shapes
        assert all(np.isfinite(value).all() for value in written)


@pytest.mark.parametrize("name", NETWORKS)
def test_parameters_are_counted_once_and_macs_as_torch_counts_them(name: str) -> None:
    module, found = derived(name)
    whole = found.spec.at(found.spec.max_widths)
    assert whole.params == sum(parameter.numel() for parameter in module.parameters())
    if name == "recurrent":  # torch counts none of an LSTM
        assert whole["lstm"].macs == 2 * 7 * 4 * (6 * 8 + 8 * 8)
        return
    # In training mode, since torch does not count its fast path of attention; the two products of
    # attention itself it does not count on processors at all.
    with FlopCounterMode(display=False) as flops, torch.no_grad():
        module.train()(*NETWORKS[name][1])
    uncounted = 2 * 5 * 5 * 16 if name == "attention" else 0
    assert whole.macs == flops.get_total_flops() // 2 + uncounted


def test_widths_are_named_by_the_modules_that_make_them() -> None:
    assert derived("c2f")[1].spec.width_names == ("cv1", "m", "cv2")
    assert derived("attention")[1].spec.width_names == (
        "inp",
        "attn_in_proj_heads",
        "attn_in_proj_head_dim",
    )
    assert derived("words")[1].spec.width_names == ("embed", "conv")


def test_groups_make_steps() -> None:
    widths = {width.name: width for width in derived("shuffle")[1].spec.widths}
    assert widths["a"].multiple == 2
    assert (widths["g"].max, widths["g"].multiple) == (8, 4)


def test_a_module_called_twice_is_listed_twice_with_its_parameters_once() -> None:
    spec = derived("shared")[1].spec
    calls = [layer for layer in spec.layers if layer.name.startswith("head")]
    assert [call.parameters for call in calls] == ["5*a+5", 0]


def derive_anew(
    name: str, freeze: tuple[str, ...] = (), multiples: dict[str, int] | None = None
) -> DerivedNetwork:
    return derive(derived(name)[1].graph, freeze=freeze, multiples=multiples)


def test_users_freeze_widths_and_choose_steps() -> None:
    spec = derive_anew("c2f", ("m",), {"cv2": 4}).spec
    assert spec.width_names == ("cv1", "cv2")
    assert (spec.widths[-1].min, spec.widths[-1].multiple) == (4, 4)
    assert derive_again(derived("c2f")[1].graph, spec).spec == spec


def test_patterns_that_fit_nothing_and_steps_that_do_not_divide_are_refused() -> None:
    with pytest.raises(InputError, match=r"'cv9' fits no width .* cv1, m, cv2"):
        derive_anew("c2f", ("cv9",))
    with pytest.raises(InputError, match="no multiple of 5"):
        derive_anew("c2f", (), {"cv2": 5})


def test_a_network_that_has_changed_is_told_from_the_one_before() -> None:
    graph = import_module(C2f(8, 16), IMAGE, name="c2f", source="factory:own:c2f")
    with pytest.raises(InputError, match="width 'cv2' was 12 and is 16"):
        derive_again(graph, derived("c2f")[1].spec)


def test_a_network_without_a_hidden_layer_has_no_widths() -> None:
    graph = import_module(
        nn.Linear(3, 2), torch.zeros(1, 3), name="linear", source="factory:own:linear"
    )
    with pytest.raises(InputError, match="needs a hidden layer"):
        derive(graph)


class Sorted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 8), nn.Linear(8, 6), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.c(self.b(torch.sort(self.a(x))[0]))
        return out


def test_what_is_not_understood_is_frozen_and_named_and_the_rest_goes_on() -> None:
    graph = import_module(Sorted(), torch.zeros(1, 4), name="sorted", source="factory:own:sorted")
    found = derive(graph)
    assert found.spec.width_names == ("b",)
    assert [item.operator for item in found.space.solution.frozen] == ["TopK"]


def test_the_source_of_a_graph_does_not_depend_on_its_weights() -> None:
    graphs = [
        import_module(make(), IMAGE, name="n", source="factory:own:n") for make in (C2f, C2f, Gated)
    ]
    sources = [source_of_graph(graph) for graph in graphs]
    assert sources[0] == sources[1] != sources[2]


class ScaledGroups(nn.Module):
    """A convolution in groups whose weights have a gain of their own, as in normaliser-free nets."""

    def __init__(self, a: int = 8) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, a, 1)
        self.weight = nn.Parameter(torch.randn(a, a // 2, 3, 3))
        self.gain = nn.Parameter(torch.rand(a, 1, 1, 1))
        self.head = nn.Linear(a, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.conv2d(self.a(x), self.weight * self.gain, padding=1, groups=2)
        out: torch.Tensor = self.head(x.mean((2, 3)))
        return out


def test_gains_of_weights_in_groups_are_parameters_too() -> None:
    module = ScaledGroups()
    graph = import_module(module, IMAGE, name="gains", source="factory:own:gains")
    spec = derive(graph).spec
    assert spec.at(spec.max_widths).params == sum(each.numel() for each in module.parameters())
    again = NetworkSpec.from_json(spec.to_json())
    assert again.at(again.min_widths).params == spec.at(spec.min_widths).params


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kernel_size": 5}, "multiply-accumulates of layer 'a'"),
        ({"parameters": 7}, "the number of parameters"),
    ],
)
def test_a_spec_that_is_not_its_network_is_noticed_in_the_variants(
    change: dict[str, int], said: str
) -> None:
    _, found = derived("super_resolution")
    first, *others = found.spec.layers
    wrong = LayerSpec(**{**vars(first), **change})
    spec = dataclasses.replace(found.spec, layers=(wrong, *others))
    other = dataclasses.replace(found, spec=spec)
    template = derived_template(spec, found.space)
    with pytest.raises(InputError, match=said):
        check_variants(template, other, 1)


@pytest.mark.parametrize("name", NETWORKS)
def test_specs_are_their_networks(name: str) -> None:
    _, found = derived(name)
    check_variants(derived_template(found.spec, found.space), found, 1)

"""Operators as exporters of others write them: widths stay free, variants run, sums are those of the graph."""

from __future__ import annotations

import random

import numpy as np
import onnxruntime
import torch
from torch import nn
from torch.nn import functional

from joulemap.profiler.networks.graph import DerivedNetwork, derive
from joulemap.profiler.networks.importing import import_module
from joulemap.profiler.templates.derived import derived_template


def derived(module: nn.Module, *inputs: torch.Tensor) -> DerivedNetwork:
    """Return what was derived of a module, once its variants have run at five width vectors."""
    name = type(module).__name__
    torch.manual_seed(0)
    found = derive(import_module(module, inputs, name=name, source=f"factory:own:{name}"))
    materialiser = derived_template(found.spec, found.space).materialiser()
    outputs = found.space.solution.model.graph.output
    shapes = [found.space.solution.tensors.shapes[item.name] for item in outputs]
    draw = random.Random(name)
    drawn = [
        tuple(draw.randrange(w.min, w.max + 1, w.multiple) for w in found.spec.widths)
        for _ in range(3)
    ]
    for widths in (found.spec.max_widths, found.spec.min_widths, *drawn):
        session = onnxruntime.InferenceSession(
            materialiser.materialise(widths), providers=["CPUExecutionProvider"]
        )
        assert [np.shape(item) for item in session.run(None, materialiser.make_inputs())] == shapes
    whole = found.spec.at(found.spec.max_widths)
    assert whole.params == sum(parameter.numel() for parameter in module.parameters())
    return found


IMAGE = torch.zeros(1, 3, 8, 8)


class Upsampled(nn.Module):
    """A map that becomes twice as large, by a factor and not by sizes, joined with another one."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 1, stride=2), nn.Conv2d(3, 6, 1)
        self.head = nn.Conv2d(14, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        large = functional.interpolate(self.a(x), scale_factor=2.0)
        out: torch.Tensor = self.head(torch.cat([large, self.b(x)], 1))
        return out


def test_factors_of_a_resize_keep_their_values() -> None:
    assert derived(Upsampled(), IMAGE).spec.width_names == ("a", "b")


def test_a_product_that_writes_one_number_is_a_layer() -> None:
    found = derived(
        nn.Sequential(nn.Flatten(), nn.Linear(192, 5), nn.ReLU(), nn.Linear(5, 1)), IMAGE
    )
    assert found.spec.at(found.spec.max_widths).macs == 5 * 192 + 5


class Relative(nn.Module):
    """A table that is indexed by constants along two axes, as relative positions are."""

    rows: torch.Tensor
    columns: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.a, self.head = nn.Linear(6, 4), nn.Linear(4, 2)
        self.table = nn.Parameter(torch.ones(3, 3, 4))
        self.register_buffer("rows", torch.tensor([0, 1, 2, 1, 0]))
        self.register_buffer("columns", torch.tensor([2, 0, 0, 1, 2]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.a(x) + self.table[self.rows, self.columns])
        return out


def test_a_table_indexed_along_two_axes_scales_along_the_others() -> None:
    assert derived(Relative(), torch.zeros(1, 5, 6)).spec.width_names == ("a",)


class GroupedAttention(nn.Module):
    """Projections in groups, which are the heads of attention."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Conv1d(8, 16, 1, groups=4) for _ in range(3))
        self.head = nn.Conv1d(16, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = (
            each(x).view(1, 4, 4, 5) for each in (self.query, self.key, self.value)
        )
        scores = (query.transpose(2, 3) @ key).softmax(-1)
        out: torch.Tensor = self.head((value @ scores.transpose(2, 3)).reshape(1, 16, 5))
        return out


def test_products_of_heads_that_are_groups_count_as_many_as_there_are() -> None:
    found = derived(GroupedAttention(), torch.zeros(1, 8, 5))
    assert [width.multiple for width in found.spec.widths] == [4, 4]
    for size in (4, 16):
        products = 2 * 5 * 5 * size
        convolutions = 3 * 5 * 2 * size + 5 * size * 2
        assert found.spec.at((size, size)).macs == products + convolutions


class Scaled(nn.Module):
    """A number of its own behind a single output."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 4), nn.Linear(4, 1)
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.b(self.a(x)).relu() * self.scale
        return out


def test_a_parameter_of_what_is_no_layer_counts_too() -> None:
    assert derived(Scaled(), torch.zeros(1, 6)).spec.layers[-1].parameters is not None

"""Torch modules as graphs: names and shapes as in the module, equal outputs, nothing changed."""

from __future__ import annotations

import ast
import copy
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from joulemap import InputError
from joulemap.profiler.networks.importing import ImportedGraph, import_module


class Residual(nn.Module):
    """Two convolutions and norms of equal shapes and values, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(x)).relu()
        x = torch.relu(x + self.bn2(self.conv2(x)))
        logits: Tensor = self.fc(self.drop(x.mean((2, 3))))
        return logits


class Tied(nn.Module):
    """An embedding that is the classifier too, attention, two inputs by name, several outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 16)
        self.norm = nn.LayerNorm(16)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
        self.out = nn.Linear(16, 10, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, ids: Tensor, scale: Tensor | None = None) -> dict[str, Any]:
        x = self.norm(self.embed(ids))
        if scale is not None:
            x = x * scale
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return {"logits": self.out(x), "more": [x.sum(), None]}


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 8, batch_first=True, bidirectional=True)
        self.mix = nn.Conv1d(16, 16, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.mix(self.lstm(x)[0].transpose(1, 2)).chunk(2, 1)
        product: Tensor = a * b
        return product


@dataclass
class Output:
    main: Tensor
    aux: Tensor | None


class Dressed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Output:
        return Output(self.fc(x), None)


@cache
def imported(kind: Callable[[], nn.Module]) -> ImportedGraph:
    return import_module(kind(), INPUTS[kind], name="own-net", source="factory:own:net")


def run(graph: ImportedGraph) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        graph.model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, dict(graph.inputs)))


def operators(graph: ImportedGraph) -> list[str]:
    return [node.op_type for node in graph.model.graph.node]


def initializers(graph: ImportedGraph) -> dict[str, tuple[int, ...]]:
    return {item.name: tuple(item.dims) for item in graph.model.graph.initializer}


def scopes(node: onnx.NodeProto) -> list[str]:
    (text,) = [p.value for p in node.metadata_props if p.key == "pkg.torch.onnx.name_scopes"]
    return list(ast.literal_eval(text))


INPUTS: dict[Callable[[], nn.Module], Any] = {
    Residual: torch.randn(2, 3, 8, 8),
    Tied: torch.arange(6).reshape(2, 3),
    Recurrent: torch.randn(1, 5, 6),
    Dressed: {"x": torch.randn(1, 3)},
}


@pytest.mark.parametrize("kind", INPUTS)
def test_the_graph_computes_what_the_module_does(kind: Callable[[], nn.Module]) -> None:
    graph, inputs = imported(kind), INPUTS[kind]
    assert (graph.name, graph.source) == ("own_net", "factory:own:net")
    onnx.checker.check_model(graph.model)
    assert graph.module is not None
    assert not graph.module.training
    with torch.no_grad():
        value = graph.module(**inputs) if isinstance(inputs, dict) else graph.module(inputs)
    if isinstance(value, dict):
        value = value["logits"]
    expected = getattr(value, "main", value).numpy()
    np.testing.assert_allclose(run(graph)[0], expected, atol=1e-5)


@pytest.mark.parametrize("kind", INPUTS)
def test_names_shapes_and_modules_are_known(kind: Callable[[], nn.Module]) -> None:
    graph = imported(kind)
    found = initializers(graph)
    for name, tensor in kind().named_parameters():
        # Of tied parameters one path is the initializer's name.
        if (kind, name) != (Tied, "embed.weight"):
            assert found[name] == tuple(tensor.shape)
    values = [*graph.model.graph.value_info, *graph.model.graph.output, *graph.model.graph.input]
    known = {
        item.name
        for item in values
        if item.type.tensor_type.HasField("shape")
        and all(dim.HasField("dim_value") for dim in item.type.tensor_type.shape.dim)
    }
    for node in graph.model.graph.node:
        assert set(node.output) <= known, node
        assert scopes(node)
    assert not graph.model.functions
    assert {item.domain for item in graph.model.opset_import} == {""}


def test_nothing_is_merged_or_folded_into_weights() -> None:
    graph = imported(Residual)
    counts = {kind: operators(graph).count(kind) for kind in ("Conv", "BatchNormalization", "Gemm")}
    assert counts == {"Conv": 2, "BatchNormalization": 2, "Gemm": 1}
    # The norms are equal, and remain two; a layer without a bias gets none.
    assert {"bn1.weight", "bn2.weight", "bn1.running_var", "bn2.running_var"} <= {
        *initializers(graph)
    }
    convolution = next(node for node in graph.model.graph.node if node.op_type == "Conv")
    assert len([name for name in convolution.input if name]) == 2
    assert scopes(convolution)[:2] == ["", "conv1"]
    tied = initializers(imported(Tied))
    assert "out.weight" in tied
    assert "embed.weight" not in tied


def test_integers_are_numbers_and_splits_are_splits() -> None:
    graph = imported(Recurrent)
    found = set(operators(graph))
    assert not {"Shape", "Constant", "SplitToSequence", "SequenceAt", "CastLike"} & found
    (split,) = [node for node in graph.model.graph.node if node.op_type == "Split"]
    assert scopes(split)[0] == ""


def test_the_module_is_left_as_it_was() -> None:
    module = Residual().train()
    module.bn1.eval()
    before = copy.deepcopy(module.state_dict())
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    expected = (random.random(), np.random.random(), torch.rand(1).item())
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    graph = import_module(module, torch.randn(1, 3, 8, 8), name="r", source="factory:own:net")
    torch.manual_seed(1)
    assert (random.random(), np.random.random(), torch.rand(1).item()) == expected
    assert graph.module is not module
    assert (module.training, module.bn1.training, module.bn2.training) == (True, False, True)
    assert "forward" not in vars(module)
    assert "forward" not in vars(graph.module)
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_inputs_by_name_and_by_place() -> None:
    ids, scale = torch.zeros(2, 3, dtype=torch.int64), torch.ones(2, 3, 1)
    for inputs in ((ids, scale), {"scale": scale, "ids": ids}):
        graph = import_module(Tied(), inputs, name="t", source="factory:own:net")
        shapes = {name: (value.shape, value.dtype.name) for name, value in graph.inputs.items()}
        assert shapes == {"ids": ((2, 3), "int64"), "scale": ((2, 3, 1), "float32")}
        assert [item.name for item in graph.model.graph.input] == list(graph.inputs)
        assert len(graph.model.graph.output) == 2


class Branches(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 1 if x.sum() > 0 else x - 1


class Nothing(nn.Module):
    def forward(self, x: Tensor) -> str:
        return "nothing"


@pytest.mark.parametrize(
    ("module", "inputs", "message"),
    [
        (Residual(), torch.zeros(1, 5, 8, 8), r"network 'own' on inputs of shape 1x5x8x8 fails"),
        (Residual(), (), "on no inputs fails: TypeError"),
        (Residual(), 3, "example inputs are a int"),
        (Residual(), {"y": torch.zeros(1)}, "unexpected keyword argument 'y'"),
        (Branches(), torch.ones(2), r"export of 'own' to ONNX fails: .*test_torch_export.py, line"),
        (Nothing(), torch.ones(2), "'own' returns no tensor"),
        (nn.LazyLinear(3), torch.ones(2, 2), "lazy parameter 'weight'"),
        (
            nn.Linear(2, 2, device="meta"),
            torch.ones(2),
            "'weight' of 'own' is on the device 'meta'",
        ),
        (nn.Linear(2, 2).half(), torch.ones(2), "'weight' of 'own' is float16"),
    ],
)
def test_what_cannot_be_imported_is_one_sentence(
    module: nn.Module, inputs: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        import_module(module, inputs, name="own", source="factory:own:net")
    assert "\n" not in str(caught.value)

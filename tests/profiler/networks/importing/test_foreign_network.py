"""Networks by name: what factories return, packages, shapes of inputs by hand and by convention."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from joulemap import InputError
from joulemap.profiler.networks import factories
from joulemap.profiler.networks.importing import (
    ImportedGraph,
    InputShape,
    import_network,
    is_foreign,
    parse_input,
    parse_inputs,
)
from joulemap.profiler.networks.importing.example_inputs import example_inputs
from joulemap.profiler.networks.importing.input_shapes import DTYPES, MAX_DIMENSIONS
from joulemap.profiler.networks.packages import PACKAGES, PackageNetwork

FILE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 4)

    def forward(self, x, scale=None):
        return self.fc(x) if scale is None else self.fc(x) * scale

def net(): return Net()
def pair(): return Net(), torch.zeros(1, 6)
def named(): return Net(), {"x": torch.zeros(1, 6), "scale": torch.ones(1, 1)}
def number(): return 5
def pair_of_numbers(): return 5, 6
def needs(a): return Net()
def fails(): raise ValueError("no weights")
def elsewhere(): return Net().to("meta"), torch.zeros(1, 6)
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    before = sys.path[:]
    (tmp_path / "own_nets.py").write_text(FILE)
    yield tmp_path
    sys.path[:] = before
    sys.modules.pop("own_nets", None)


def shapes(graph: ImportedGraph) -> dict[str, tuple[int, ...]]:
    return {name: value.shape for name, value in graph.inputs.items()}


def called_with(module: nn.Module, own: object, batch: int = 1) -> list[tuple[int, ...]]:
    found = example_inputs(module, (), own, name="net", batch=batch)
    return [tuple(each.shape) for each in tree_leaves(found)]


# -- names -----------------------------------------------------------------------------------------


def test_a_module_with_its_inputs(here: Path) -> None:
    graph = import_network("own_nets.py:pair", batch=3)
    assert shapes(graph) == {"x": (3, 6)}
    assert graph.name == "pair"
    assert graph.source.startswith("file:own_nets.py:pair@")
    assert factories.is_named(graph.source)


def test_a_module_with_shapes_by_hand(here: Path) -> None:
    graph = import_network("own_nets:net", inputs=["2x6"])
    assert (graph.source, shapes(graph)) == ("factory:own_nets:net", {"x": (2, 6)})
    graph = import_network("own_nets:named", inputs=["scale=1x4"], batch=2)
    assert shapes(graph) == {"x": (2, 6), "scale": (2, 4)}


def test_a_module_and_a_class_themselves() -> None:
    module = nn.Sequential(nn.Linear(3, 2))
    graph = import_network(module, inputs=["1x3"])
    assert graph.name == "Sequential"
    assert graph.source == "factory:torch.nn.modules.container:Sequential"


def test_a_network_with_a_spec_of_its_own() -> None:
    graph = import_network("joulemap.profiler.networks.lenet5:lenet5", batch=2)
    assert shapes(graph) == {"input": (2, 1, 32, 32)}


@pytest.mark.parametrize(
    ("name", "inputs", "message"),
    [
        ("own_nets:net", [], r"'net' does not say .*--input x=1x3x224x224.*\(and scale likewise\)"),
        ("own_nets:net", ["y=1x6"], "'net' has no input 'y'; it is called with x, scale"),
        ("own_nets:net", ["x=2x6"], "begin it with 1 or 4"),
        ("own_nets:net", ["x=1x5"], "'net' on inputs of shape x=4x5 fails: RuntimeError"),
        (
            "own_nets:number",
            [],
            "returned a int; a network factory returns a torch module, a tuple",
        ),
        ("own_nets:pair_of_numbers", [], "returned a tuple"),
        ("own_nets:needs", [], "cannot be called without its arguments a"),
        ("own_nets:fails", [], r"ValueError: no weights \(own_nets.py, line"),
        ("own_nets:elsewhere", [], "on the device 'meta'; return the network on the CPU"),
        ("timm:", [], "'timm:' names no network"),
        ("hf:a:b", [], "names no network"),
        ("no_network", [], "names no network of your own; write module:function"),
        ("none.onnx", [], "cannot read the ONNX file none.onnx"),
        ("own_nets.py", [], "names no function"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(
    name: str, inputs: list[str], message: str, here: Path
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        import_network(name, inputs=inputs, batch=4)
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


def test_what_is_foreign() -> None:
    foreign = ["a:b", "a.py:b", "a.onnx", "A.ONNX", "timm:x", Path("a.onnx"), nn.ReLU(), nn.ReLU]
    assert [name for name in foreign if not is_foreign(name)] == []
    assert [name for name in ("lenet5", "my-net", "", 5, None) if is_foreign(name)] == []


# -- packages --------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", PACKAGES)
def test_a_package_that_is_not_there(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    package = PACKAGES[scheme]
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=f"not installed: pip install {package}$"):
        import_network(f"{scheme}:BertConfig")


def test_a_network_of_timm() -> None:
    graph = import_network("timm:mobilenetv3_small_050.lamb_in1k", inputs=["1x3x32x32"])
    assert graph.name == "mobilenetv3_small_050"
    assert graph.source == "timm:mobilenetv3_small_050.lamb_in1k"
    module = PackageNetwork.named("timm:mobilenetv3_small_050")()
    assert called_with(module, None, batch=2) == [(2, 3, 224, 224)]
    with pytest.raises(InputError, match="timm has no network 'resnet'; similar names are"):
        import_network("timm:resnet")


def test_a_network_of_torchvision() -> None:
    graph = import_network("torchvision:squeezenet1_1", inputs=["1x3x64x64"])
    assert (graph.name, graph.source) == ("squeezenet1_1", "torchvision:squeezenet1_1")
    assert graph.module is not None
    assert called_with(graph.module, None) == [(1, 3, 224, 224)]
    with pytest.raises(InputError, match="torchvision has no network 'squeezenet'; similar"):
        import_network("torchvision:squeezenet")


def tiny_bert() -> nn.Module:
    import transformers

    config = transformers.BertConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        vocab_size=20,
    )
    made: nn.Module = transformers.AutoModel.from_config(config)
    return made


def test_a_network_of_transformers() -> None:
    graph = import_network(tiny_bert, batch=2)
    assert shapes(graph) == {"input_ids": (2, 5)}
    assert graph.inputs["input_ids"].dtype == "int64"
    graph = import_network(tiny_bert, inputs=["input_ids=1x9", "attention_mask=1x9:int64"])
    assert shapes(graph) == {"input_ids": (1, 9), "attention_mask": (1, 9)}
    module = PackageNetwork.named("hf:MobileViTConfig")()
    assert called_with(module, None) == [(1, 3, 256, 256)]
    with pytest.raises(
        InputError, match="no configuration class 'Bert'; similar names are BertConfig"
    ):
        import_network("hf:Bert")
    with pytest.raises(InputError, match="has 26 GB of parameters by default"):
        import_network("hf:LlamaConfig")


def test_packages_do_not_fetch_weights_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    seen = []
    made = nn.ReLU()

    def make(package: object, name: str) -> nn.Module:
        seen.append((name, constants.is_offline_mode()))
        return made

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("joulemap.profiler.networks.packages._timm", make)
    assert PackageNetwork.named("timm:resnet50")() is made
    assert seen == [("resnet50", True)]
    assert not constants.is_offline_mode()


def test_a_spec_of_a_file_does_not_import_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(factories, "_named", {})
    with pytest.raises(InputError, match=r"code of its own, 'timm:resnet50'.*allow_code=True"):
        factories.factory_of("timm:resnet50")
    assert factories.is_outside("timm:resnet50")
    factories.allow("timm:resnet50")
    factory = factories.factory_of("timm:resnet50")
    assert factories.code_digest(factory) != factories.code_digest(PackageNetwork("timm", "x"))


# -- shapes ----------------------------------------------------------------------------------------

NAMES = st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=20)
SHAPES = st.builds(
    InputShape,
    dims=st.lists(st.integers(1, 3), max_size=MAX_DIMENSIONS).map(tuple),
    name=st.none() | NAMES,
    dtype=st.none() | st.sampled_from(DTYPES),
)


@given(SHAPES)
def test_a_shape_is_read_as_it_is_written(shape: InputShape) -> None:
    assert parse_input(str(shape)) == shape


@given(st.text(max_size=30) | st.from_regex(r"[a=:x0-9]{1,12}", fullmatch=True))
def test_any_other_text_is_one_sentence(text: str) -> None:
    with contextlib.suppress(InputError):
        shape = parse_input(text)
        assert parse_input(str(shape)) == shape


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (
            ["1x3x"],
            r"'1x3x' is no shape; write sizes between x: --input NAME=1x3x224x224\[:dtype\]",
        ),
        (["=1x3"], "names no input before '='"),
        (["x=1x3:float8"], "'float8' in 'x=1x3:float8' is no type of inputs; known are float32"),
        (["x=0x3"], "has a size below 1"),
        (["x=100000x100000"], "is too large"),
        (["1x3", "y=1"], "'1x3' names no input, and there are 2"),
        (["x=1", "x=2"], "the input 'x' is given twice"),
    ],
)
def test_shapes_that_cannot_be_read(texts: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_inputs(texts)


class Nested(nn.Module):
    def forward(self, pair: list[Tensor], flag: bool = False) -> Tensor:
        return pair[0] + pair[1]


def test_inputs_that_lie_in_lists_begin_with_the_batch() -> None:
    assert called_with(Nested(), ([torch.zeros(1, 2), torch.zeros(3, 2)],), batch=3) == [(3, 2)] * 2

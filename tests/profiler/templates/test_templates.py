from __future__ import annotations

import dataclasses
import logging
import sys
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from joulemap import InputError
from joulemap.datasets import LayerSpec, NetworkSpec, Width
from joulemap.profiler import networks
from joulemap.profiler.networks import NetworkDefinition, SpecBuilder
from joulemap.profiler.networks.definition import Resolution
from joulemap.profiler.templates import export as templates
from joulemap.profiler.templates.export import cached_template, export_template
from joulemap.profiler.templates.template import Template
from joulemap.profiler.testing import uniform_widths

ZOO = networks.names()
ROLES = ("min", "max", "random", "random again")
# Networks that are too deep for every test to export them at their default resolution in each role.
SMALL: dict[str, Resolution] = {
    "erfnet": (64, 128),
    "gru": (4, 10),
    "lenet5_caffe": 28,
    "mobilenet_v2": 64,
    "resnet18": 64,
    "squeezenet": 64,
    "vgg16": 32,
    "vit": (32, 48),
}
EXPORTS = [(name, role) for name in ZOO for role in (ROLES[2:3] if name in SMALL else ROLES)]


@pytest.fixture(scope="module")
def template_of() -> Callable[..., Template]:
    made: dict[tuple[str, int], Template] = {}

    def get(name: str, batch: int = 1) -> Template:
        if (name, batch) not in made:
            made[name, batch] = export_template(network(name), batch=batch)
        return made[name, batch]

    return get


def network(name: str) -> NetworkSpec:
    return networks.get(name, SMALL.get(name))


def vector(spec: NetworkSpec, role: str) -> tuple[int, ...]:
    if role in ("min", "max"):
        return spec.min_widths if role == "min" else spec.max_widths
    return uniform_widths(spec, 2, seed=7)[role == "random again"]


def session(model: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def fresh_export(spec: NetworkSpec, widths: Sequence[int], batch: int) -> onnx.ModelProto:
    sample = torch.zeros(batch, *spec.input_shape)
    return templates._export(networks.build(spec, widths), sample, spec.name)


def structure(model: onnx.ModelProto) -> list[Any]:
    """Every node with its attributes, where its inputs come from and the shapes it writes."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    shapes = {
        item.name: [dim.dim_value for dim in item.type.tensor_type.shape.dim]
        for item in [*inferred.value_info, *inferred.output, *inferred.input]
    }
    origins: dict[str, Any] = {"": "absent"}
    for position, item in enumerate(inferred.input):
        origins[item.name] = ("input", position, shapes[item.name])
    for tensor in inferred.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        is_constant = array.dtype != np.float32 or array.ndim == 0
        values = array.ravel().tolist() if is_constant else None
        origins[tensor.name] = ("tensor", tensor.data_type, list(tensor.dims), values)
    nodes: list[Any] = []
    for position, node in enumerate(inferred.node):
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        nodes.append(
            (
                node.op_type,
                node.domain,
                {key: attributes[key] for key in sorted(attributes)},
                [origins[name] for name in node.input],
                [shapes[name] for name in node.output],
            )
        )
        for slot, name in enumerate(node.output):
            origins[name] = ("node", position, slot)
    nodes.append([origins[item.name] for item in inferred.output])
    nodes.append((model.ir_version, [(o.domain, o.version) for o in model.opset_import]))
    return nodes


@pytest.mark.parametrize(("name", "role"), EXPORTS)
def test_variant_equals_a_fresh_export(
    name: str, role: str, template_of: Callable[..., Template]
) -> None:
    spec = network(name)
    batch = 2 if role == "random again" else 1
    widths = vector(spec, role)
    made = template_of(name, batch).materialiser().materialise(widths)
    ours, exported = onnx.load_from_string(made), fresh_export(spec, widths, batch)
    found, expected = structure(ours), structure(exported)
    assert len(found) == len(expected)
    for left, right in zip(found, expected, strict=True):
        assert left == right
    array = np.random.default_rng(0).standard_normal((batch, *spec.input_shape), np.float32)
    outputs = [
        session(model).run(None, {graph.input[0].name: array})[0]
        for model, graph in ((made, ours.graph), (exported.SerializeToString(), exported.graph))
    ]
    assert outputs[0].shape == outputs[1].shape


@pytest.mark.parametrize("name", ZOO)
def test_activations_are_finite_different_and_of_sane_size(
    name: str, template_of: Callable[..., Template]
) -> None:
    spec = network(name)
    materialiser = template_of(name).materialiser()
    num_samples = 1 if name in SMALL else 6
    for widths in (spec.min_widths, spec.max_widths, *uniform_widths(spec, num_samples)):
        model = onnx.load_from_string(materialiser.materialise(widths))
        names = [node.output[0] for node in model.graph.node]
        del model.graph.output[:]
        model.graph.output.extend(onnx.ValueInfoProto(name=output) for output in names)
        results = session(model.SerializeToString()).run(None, materialiser.make_inputs())
        for node, result in zip(names, results, strict=True):
            where = f"{node} at {widths}"
            assert np.isfinite(result).all(), where
            assert np.abs(result).max() < 1e3, where
            assert not ((result != 0) & (np.abs(result) < 1e-30)).any(), where
        assert 0.02 < results[-1].std() < 100, widths
        if min(widths) >= 8:
            assert all(result.std() > 0.02 for result in results), widths


@pytest.mark.parametrize("name", ZOO)
def test_weights_are_neither_zero_nor_denormal_nor_equal(
    name: str, template_of: Callable[..., Template]
) -> None:
    spec = network(name)
    is_large = name == "alexnet" or name in SMALL
    widths = uniform_widths(spec, 1)[0] if is_large else spec.max_widths
    model = onnx.load_from_string(template_of(name).materialiser().materialise(widths))
    for tensor in model.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        if array.ndim == 0 or array.dtype != np.float32:
            continue
        assert np.isfinite(array).all()
        assert np.abs(array).min() > 1e-4
        rows = array.reshape(array.shape[0], -1)
        if rows.shape[1] > 1:
            assert len(np.unique(rows[:, : min(8, rows.shape[1])], axis=0)) == len(rows)


def test_random_vectors_are_valid_models_of_the_right_shapes(
    template_of: Callable[..., Template],
) -> None:
    spec = networks.get("mobilenet_v1")
    materialiser = template_of("mobilenet_v1").materialiser()
    for widths in uniform_widths(spec, 10, seed=3):
        model = onnx.load_from_string(materialiser.materialise(widths))
        onnx.checker.check_model(model, full_check=True)
        with torch.device("meta"):
            state = networks.build(spec, widths).state_dict()
        for tensor in model.graph.initializer:
            if tensor.name in state:
                assert list(tensor.dims) == list(state[tensor.name].shape)


def test_template_is_plain_json_without_weights(template_of: Callable[..., Template]) -> None:
    template = template_of("mobilenet_v1")
    text = template.to_json()
    assert len(text) < 40_000
    assert str(Path(__file__).parents[3]) not in text
    assert Template.from_json(text) == template
    again = Template.from_json(text).materialiser()
    widths = uniform_widths(networks.get("mobilenet_v1"), 1)[0]
    assert again.materialise(widths) == template.materialiser().materialise(widths)


def test_exporting_twice_gives_the_same_template(template_of: Callable[..., Template]) -> None:
    assert export_template(networks.get("lenet5")) == template_of("lenet5")


def test_export_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    level = logging.getLogger("torch.onnx").level
    export_template(networks.get("lenet5"))
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("torch.onnx").level == level


@pytest.mark.parametrize("batch", [0, -1, True, 1.5])
def test_batch_is_checked(batch: Any) -> None:
    with pytest.raises(InputError, match="batch"):
        export_template(networks.get("lenet5"), batch=batch)


# -- networks of users ------------------------------------------------------------------------


class Branches(nn.Module):
    """Residuals, concatenations, groups, widths in steps, norms that cannot be folded."""

    def __init__(self, widths: Mapping[str, int]) -> None:
        super().__init__()
        a, b, c = widths["a"], widths["b"], widths["c"]
        self.stem = nn.Conv2d(2, a, 3, padding=1)
        self.left = nn.Conv2d(a, b, 1)
        self.right = nn.Conv2d(a, c, 3, padding=1, groups=4)
        self.joined_norm = nn.BatchNorm2d(b + c)
        self.relu = nn.ReLU()
        self.inner = nn.Conv2d(b + c, b + c, 3, padding=1, groups=b + c)
        self.up = nn.ConvTranspose2d(b + c, 2 * a, 2, stride=2)
        self.head = nn.Linear(2 * a * 32, 211)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = self.relu(self.joined_norm(torch.cat([self.left(x), self.right(x)], 1)))
        head: torch.Tensor = self.head(self.up(x + self.inner(x)).flatten(1))
        return head


def branches() -> NetworkDefinition:
    widths = [Width("a", 48, 4, 4), Width("b", 24), Width("c", 64, 8, 8)]
    net = SpecBuilder("branches", (2, 2, 4), widths)
    stem = net.conv("stem", "a", 3, padding=1)
    left = net.conv("left", "b", 1)
    right = net.conv("right", "c", 3, padding=1, groups=4, inputs=stem)
    net.concat("joined", [left, right])
    net.norm("joined_norm")
    relu = net.activation("relu")
    inner = net.conv("inner", "b+c", 3, padding=1, groups="b+c")
    net.add("total", [relu, inner])
    net.conv_transpose("up", "2*a", 2, stride=2)
    net.flatten()
    net.linear("head", 211)
    return NetworkDefinition(net.spec(), lambda _spec, widths: Branches(widths))


class Sequences(nn.Module):
    """An embedding, a recurrent layer, a norm over features, attention with a width of heads."""

    def __init__(self, widths: Mapping[str, int]) -> None:
        super().__init__()
        self.heads, d, h = widths["heads"], widths["d"], widths["h"]
        self.embedding = nn.Embedding(50, d)
        self.gru = nn.GRU(d, h, batch_first=True)
        self.norm = nn.LayerNorm(h)
        self.query = nn.Linear(h, 4 * self.heads)
        self.head = nn.Linear(4 * self.heads, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.gru(self.embedding(x))[0])
        q = self.query(x).unflatten(-1, (self.heads, 4)).transpose(1, 2)
        x = (torch.softmax(q @ q.transpose(-1, -2), -1) @ q).transpose(1, 2).flatten(2)
        head: torch.Tensor = self.head(x)
        return head


def sequence() -> NetworkDefinition:
    layers = (
        LayerSpec("embedding", "embedding", 50, "d", positions=6, bias=False),
        LayerSpec("gru", "recurrent", "d", "h", positions=6),
        LayerSpec("norm", "norm", "h", "h", positions=6),
        LayerSpec("query", "linear", "h", "4*heads", positions=6),
        LayerSpec("head", "linear", "4*heads", 7, positions=6),
    )
    widths = (Width("d", 12), Width("h", 16), Width("heads", 8))
    spec = NetworkSpec("sequence", "zoo:sequence", (6,), widths, layers)
    return NetworkDefinition(spec, lambda _spec, widths: Sequences(widths))


class Unexplained(nn.Module):
    def __init__(self, widths: Mapping[str, int], form: str) -> None:
        super().__init__()
        a, b = widths["a"], widths["b"]
        self.form = form
        self.first = nn.Linear(4, a)
        self.second = nn.Linear(4, b)
        self.hidden = nn.Linear(a, max(a // 3, 1)) if form == "quotient" else None
        self.register_buffer("_shift", torch.ones(3), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.hidden is not None:
            hidden: torch.Tensor = self.hidden(self.first(x))
            return hidden
        return torch.cat([self.first(x), self.second(x)], 1)


def _unexplained(form: str) -> NetworkDefinition:
    net = SpecBuilder("unexplained", (4,), [Width("a", 30, 3), Width("b", 20)])
    net.linear("first", "a")
    net.linear("second", "b", inputs="")
    return NetworkDefinition(net.spec(), lambda _spec, widths: Unexplained(widths, form))


class Refusing(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no way")


def refusing() -> NetworkDefinition:
    return NetworkDefinition(_unexplained("sum").spec, lambda _spec, _widths: Refusing())


@pytest.fixture(autouse=True)
def module_of_a_user() -> Iterator[None]:
    module = types.ModuleType("their_templates")
    vars(module).update(
        branches=branches,
        sequence=sequence,
        refusing=refusing,
        hidden_sum=lambda: _unexplained("sum"),
        hidden_quotient=lambda: _unexplained("quotient"),
    )
    sys.modules["their_templates"] = module
    yield
    del sys.modules["their_templates"]


@pytest.mark.parametrize("role", ["min", "max", "random"])
def test_branches_equal_a_fresh_export(role: str, template_of: Callable[..., Template]) -> None:
    spec = networks.get("their_templates:branches")
    widths = vector(spec, role)
    made = template_of("their_templates:branches").materialiser().materialise(widths)
    exported = fresh_export(spec, widths, 1)
    assert structure(onnx.load_from_string(made)) == structure(exported)
    array = {"x": np.ones((1, 2, 2, 4), np.float32)}
    assert session(made).run(None, array)[0].shape == (1, 211)


def test_sequences_run(template_of: Callable[..., Template]) -> None:
    spec = networks.get("their_templates:sequence")
    materialiser = template_of("their_templates:sequence", 3).materialiser()
    inputs = materialiser.make_inputs()
    (indices,) = inputs.values()
    assert indices.dtype == np.int64
    assert 0 <= indices.min() < indices.max() < 50
    for widths in (spec.min_widths, spec.max_widths, *uniform_widths(spec, 5)):
        (result,) = session(materialiser.materialise(widths)).run(None, inputs)
        assert result.shape == (3, 6, 7)
        assert np.isfinite(result).all()
        assert result.std() > 0.01


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hidden_sum", "no size in its spec explains"),
        ("hidden_quotient", "spec does not say|explains"),
        ("refusing", "cannot export"),
    ],
)
def test_graphs_that_the_spec_does_not_explain(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        export_template(networks.get(f"their_templates:{name}"))


# -- cache ------------------------------------------------------------------------------------


@pytest.fixture
def counted_exports(
    monkeypatch: pytest.MonkeyPatch, template_of: Callable[..., Template]
) -> list[str]:
    calls: list[str] = []

    def export(spec: NetworkSpec, *, batch: int = 1) -> Template:
        calls.append(spec.name)
        content = {**template_of("lenet5", batch).content, "fingerprint": spec.fingerprint}
        return Template(content)

    monkeypatch.setattr(templates, "export_template", export)
    return calls


def test_cache_keeps_templates(tmp_path: Path, counted_exports: list[str]) -> None:
    spec = networks.get("lenet5")
    first = cached_template(spec, folder=tmp_path / "new")
    assert cached_template(spec, folder=tmp_path / "new") == first
    assert len(counted_exports) == 1
    cached_template(spec, batch=2, folder=tmp_path / "new")
    cached_template(networks.get("lenet5", 28), folder=tmp_path / "new")
    assert len(counted_exports) == 3
    assert not list((tmp_path / "new").glob("*.part"))


@pytest.mark.parametrize(
    "damage", [b"", b"{}", b"\xff\xfe", b"[[" * 9999, b"3", b"[1]", b'{"schema_version":2}']
)
def test_corrupt_cache_files_are_rewritten(
    tmp_path: Path, counted_exports: list[str], damage: bytes
) -> None:
    spec = networks.get("lenet5")
    first = cached_template(spec, folder=tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(damage)
    assert cached_template(spec, folder=tmp_path) == first
    assert cached_template(spec, folder=tmp_path) == first
    assert len(counted_exports) == 2


def test_cache_folder_of_the_user(
    tmp_path: Path, counted_exports: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cached_template(networks.get("lenet5"))
    (path,) = (tmp_path / "joulemap" / "templates").iterdir()
    assert path.suffix == ".json"


def test_cache_of_a_network_whose_name_is_a_path(
    tmp_path: Path, counted_exports: list[str]
) -> None:
    spec = dataclasses.replace(networks.get("lenet5"), name="../../elsewhere/net")
    cached_template(spec, folder=tmp_path / "cache")
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
    cached_template(spec, folder=tmp_path / "cache")
    assert len(counted_exports) == 1


def test_cache_that_cannot_be_written(tmp_path: Path, counted_exports: list[str]) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert cached_template(networks.get("lenet5"), folder=blocked).content["network"] == "lenet5"


def test_changed_code_is_exported_anew(
    tmp_path: Path, counted_exports: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = networks.get("lenet5")
    for code in ("one", "two", "two", None, None):
        monkeypatch.setattr(templates, "code_fingerprint", lambda _source, code=code: code)
        cached_template(spec, folder=tmp_path)
    assert len(counted_exports) == 4


def test_template_of_another_version_is_refused(template_of: Callable[..., Template]) -> None:
    template = template_of("lenet5")
    newer = dataclasses.replace(template, content={**template.content, "schema_version": 99})
    with pytest.raises(InputError, match="version 99"):
        Template.from_json(newer.to_json())

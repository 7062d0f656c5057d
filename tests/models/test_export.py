import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from joulemap import InputError
from joulemap.datasets import LayerSpec, NetworkSpec, Width
from joulemap.models import (
    BilinearPredictor,
    CostModule,
    FlopsPredictor,
    TreesPredictor,
    registry,
)
from joulemap.models.base.intervals import FloatArray
from joulemap.models.base.predictor import Predictor
from joulemap.models.export import to_onnx_file, to_torch_file
from joulemap.models.testing import ArrayDataset, draw_widths

ALONE = "import sys; sys.modules['joulemap'] = None\n"
WIDTHS = [[32, 64], [1, 1], [16, 32], [7, 31], [1, 48]]
# Trees refuse; `auto` gives what it chose; `transfer` starts from predictors of other devices.
EXPORTED = [name for name in registry.names() if name not in ("auto", "transfer", "trees")]


@pytest.fixture(scope="module")
def bilinear(dataset: ArrayDataset) -> Predictor:
    return BilinearPredictor().fit_dataset(dataset, "energy_j")


@pytest.fixture(scope="module")
def flops(mixed: NetworkSpec) -> Predictor:
    """Monomials up to the fourth degree."""
    widths = draw_widths(mixed, 30)
    macs = [float(mixed.at([int(x) for x in row]).macs) for row in widths]
    return FlopsPredictor(mixed).fit(widths, 1e-3 + 1e-9 * np.array(macs))


class TanhModule(CostModule):
    def cost(self, widths: torch.Tensor) -> torch.Tensor:
        return 1e-3 + (widths / 100).tanh().sum(-1)


class TanhPredictor(FlopsPredictor):
    """A cost that is no polynomial."""

    def predict_arrays(self, X: FloatArray) -> FloatArray:
        cost: FloatArray = 1e-3 + np.tanh(X / 100).sum(axis=1)
        return cost

    def exact_module(self) -> CostModule:
        return TanhModule(self.cost_info())


@pytest.fixture(scope="module")
def fitted() -> dict[str, Predictor]:
    """Every predictor that has a module, of a network of two widths and unlike layers."""
    layers = [
        LayerSpec("stem", "conv", 3, "a", kernel_size=3, in_size=8, out_size=8),
        LayerSpec("depthwise", "conv", "a", "a", groups="a", kernel_size=3, in_size=8, out_size=8),
        LayerSpec("pointwise", "conv", "a", "b", in_size=8, out_size=8),
        LayerSpec("classes", "linear", "64*b", 10),
    ]
    widths = (Width("a", 32), Width("b", 64))
    spec = NetworkSpec("small", "zoo:small", (3, 8, 8), widths, tuple(layers))
    X = draw_widths(spec, 20)
    macs = np.array([float(spec.at([int(v) for v in row]).macs) for row in X])
    noise = np.exp(0.02 * np.random.default_rng(0).standard_normal(len(X)))
    ds = ArrayDataset(spec, X, {"latency_s": (1e-4 + 1e-9 * macs) * noise})
    predictors = {}
    for name in EXPORTED:
        predictors[name] = registry.predictor_class(name)(spec)
        if name != "systolic":  # a model of hardware, which is not fitted
            predictors[name].fit_dataset(ds, "latency_s")
    return predictors


@pytest.mark.parametrize("name", EXPORTED)
def test_every_predictor_becomes_onnx_of_standard_operators(
    fitted: dict[str, Predictor], name: str, tmp_path: Path
) -> None:
    predictor = fitted[name]
    for smooth in (False, True):
        path = tmp_path / f"{smooth}.onnx"
        to_onnx_file(predictor, path, smooth=smooth)
        model = onnx.load(path)
        assert {node.domain for node in model.graph.node} == {""}
        metadata = {entry.key: entry.value for entry in model.metadata_props}
        module = predictor.to_torch(smooth=smooth)
        assert float(metadata["max_deviation"]) == module.max_deviation
        with torch.no_grad():
            expected = module(torch.tensor(WIDTHS, dtype=torch.float64)).numpy()
        np.testing.assert_allclose(run_onnx(path, np.array(WIDTHS)), expected, rtol=1e-5)
        if not smooth:
            np.testing.assert_allclose(expected, predictor.predict(WIDTHS), rtol=1e-5)


def test_torch_files_of_every_predictor_run_without_joulemap(
    fitted: dict[str, Predictor], tmp_path: Path
) -> None:
    for name, predictor in fitted.items():
        to_torch_file(predictor, tmp_path / f"{name}.pt2")
    code = ALONE + (
        "import json, pathlib, torch\n"
        "load, trusting = torch.load, []\n"
        "def watched(*args, **options):\n"
        "    trusting.append(options.get('weights_only') is not True)\n"
        "    return load(*args, **options)\n"
        "torch.load = watched\n"
        "found = {}\n"
        f"for path in pathlib.Path({str(tmp_path)!r}).iterdir():\n"
        "    cost = torch.export.load(str(path)).module()\n"
        f"    found[path.stem] = cost(torch.tensor({WIDTHS!r}, dtype=torch.float32)).tolist()\n"
        "print(json.dumps([found, any(trusting)]))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    found, is_trusting = json.loads(result.stdout)
    # A pickle that may hold more than tensors could run code.
    assert not is_trusting
    assert set(found) == set(fitted)
    for name, costs in found.items():
        expected = fitted[name].predict(WIDTHS)
        np.testing.assert_allclose(costs, expected, rtol=1e-5, err_msg=name)


def test_a_predictor_without_a_gradient_is_refused(dataset: ArrayDataset, tmp_path: Path) -> None:
    trees = TreesPredictor().fit_dataset(dataset, "energy_j")
    for write, name in ((to_onnx_file, "cost.onnx"), (to_torch_file, "cost.pt2")):
        with pytest.raises(InputError, match="no gradient"):
            write(trees, tmp_path / name)
        assert not (tmp_path / name).exists()


def run_onnx(path: Path, widths: FloatArray) -> Any:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(["cost"], {"widths": widths.astype(np.float32)})[0]


@pytest.mark.parametrize("name", ["bilinear", "flops"])
def test_onnx_file_equals_predict(
    request: pytest.FixtureRequest, name: str, tmp_path: Path
) -> None:
    predictor: Predictor = request.getfixturevalue(name)
    assert predictor.spec is not None
    path = tmp_path / "cost.onnx"
    to_onnx_file(predictor, path)
    for count in (1, 64):
        widths = draw_widths(predictor.spec, count, seed=5)
        np.testing.assert_allclose(run_onnx(path, widths), predictor.predict(widths), rtol=1e-5)


def test_onnx_file_says_what_it_predicts(bilinear: Predictor, tmp_path: Path) -> None:
    path = tmp_path / "cost.onnx"
    to_onnx_file(bilinear, path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata["unit"] == "J"
    assert metadata["target"] == "energy_j"
    assert json.loads(metadata["width_names"]) == list(bilinear.width_names_)
    assert json.loads(metadata["conditions"]) == {"batch": 1, "precision": "fp32"}
    content = path.read_bytes()
    to_onnx_file(bilinear, path)
    assert path.read_bytes() == content


def test_onnx_file_runs_without_joulemap(bilinear: Predictor, tmp_path: Path) -> None:
    path = tmp_path / "cost.onnx"
    to_onnx_file(bilinear, path)
    code = ALONE + (
        "import numpy, onnxruntime\n"
        f"session = onnxruntime.InferenceSession({str(path)!r})\n"
        "print(session.run(None, {'widths': numpy.ones((1, 7), dtype='float32')})[0].item())\n"
    )
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert float(result.stdout) == pytest.approx(bilinear.predict(np.ones((1, 7)))[0], rel=1e-5)


def test_a_cost_that_is_no_polynomial_becomes_onnx(dataset: ArrayDataset, tmp_path: Path) -> None:
    predictor = TanhPredictor().fit_dataset(dataset)
    path = tmp_path / "cost.onnx"
    to_onnx_file(predictor, path)
    for count in (1, 20):
        widths = draw_widths(dataset.spec, count)
        np.testing.assert_allclose(run_onnx(path, widths), predictor.predict(widths), rtol=1e-5)


def test_torch_file_runs_without_joulemap(bilinear: Predictor, tmp_path: Path) -> None:
    path = tmp_path / "cost.pt2"
    to_torch_file(bilinear, path)
    code = ALONE + (
        "import json, torch\n"
        "extra = {'joulemap.json': ''}\n"
        f"cost = torch.export.load({str(path)!r}, extra_files=extra).module()\n"
        "widths = torch.full((3, 7), 9.0, requires_grad=True)\n"
        "result = cost(widths)\n"
        "result.sum().backward()\n"
        "print(json.dumps([result.tolist(), widths.grad.tolist(), json.loads(extra['joulemap.json'])]))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    cost, gradient, metadata = json.loads(result.stdout)
    widths = torch.full((3, 7), 9.0, requires_grad=True)
    expected = bilinear.to_torch()(widths)
    expected.sum().backward()
    assert widths.grad is not None
    np.testing.assert_allclose(cost, expected.detach().numpy(), rtol=1e-6)
    np.testing.assert_allclose(gradient, widths.grad.numpy(), rtol=1e-6)
    assert metadata["unit"] == "J"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_torch_file_of_all_degrees(flops: Predictor, tmp_path: Path, dtype: torch.dtype) -> None:
    assert flops.spec is not None
    path = tmp_path / "cost.pt2"
    to_torch_file(flops, path, dtype=dtype)
    module = torch.export.load(path).module()
    widths = draw_widths(flops.spec, 7)
    cost = module(torch.tensor(widths, dtype=dtype))
    assert cost.dtype == dtype
    np.testing.assert_allclose(cost.numpy(), flops.predict(widths), rtol=1e-5)


def test_a_predictor_of_another_batch_is_exported_as_it_is(
    dataset: ArrayDataset, tmp_path: Path
) -> None:
    X, y, _ = dataset.xyw("energy_j")
    ds = ArrayDataset(
        dataset.spec, X, {"energy_j": y}, fixed_conditions={"batch": 8, "precision": "int8"}
    )
    path = tmp_path / "cost.onnx"
    to_onnx_file(FlopsPredictor().fit_dataset(ds, "energy_j"), path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert '"batch": 8' in session.get_modelmeta().custom_metadata_map["conditions"]


def test_wrong_paths_are_refused(bilinear: Predictor, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.pt2"):
        to_torch_file(bilinear, tmp_path / "cost.pt")
    with pytest.raises(InputError, match="cannot be written"):
        to_torch_file(bilinear, tmp_path / "missing" / "cost.pt2")
    with pytest.raises(InputError, match="cannot be written"):
        to_onnx_file(bilinear, tmp_path / "missing" / "cost.onnx")

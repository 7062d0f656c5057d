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
from joulemap.datasets import NetworkSpec
from joulemap.models import (
    BilinearPredictor,
    CostModule,
    FlopsPredictor,
    TreesPredictor,
    registry,
)
from joulemap.models.export import to_onnx_file, to_torch_file
from joulemap.models.intervals import FloatArray
from joulemap.models.predictor import Predictor
from joulemap.models.testing import ArrayDataset, draw_widths
from joulemap.profiler import networks

ALONE = "import sys; sys.modules['joulemap'] = None\n"
WIDTHS = [[20, 50, 500], [1, 1, 1], [16, 32, 128], [7, 31, 333], [1, 50, 16]]
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
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, FloatArray]]:
    """A folder with NAME.onnx, NAME-smooth.onnx and NAME.pt2 of every predictor; what they give."""
    folder = tmp_path_factory.mktemp("exported")
    spec = networks.get("lenet5_caffe")
    X = draw_widths(spec, 24)
    macs = np.array([float(spec.at([int(v) for v in row]).macs) for row in X])
    noise = np.exp(0.02 * np.random.default_rng(0).standard_normal(len(X)))
    ds = ArrayDataset(spec, X, {"latency_s": (1e-4 + 1e-10 * macs) * noise})
    widths = torch.tensor(WIDTHS, dtype=torch.float64)
    expected = {}
    for name in EXPORTED:
        predictor = registry.predictor_class(name)(spec)
        if name != "systolic":  # a model of hardware, which is not fitted
            predictor.fit_dataset(ds, "latency_s")
        for suffix, smooth in (("", False), ("-smooth", True)):
            to_onnx_file(predictor, folder / f"{name}{suffix}.onnx", smooth=smooth)
            expected[name + suffix] = predictor.to_torch(smooth=smooth)(widths).detach().numpy()
        to_torch_file(predictor, folder / f"{name}.pt2")
        np.testing.assert_allclose(expected[name], predictor.predict(WIDTHS), rtol=1e-5)
    return folder, expected


def test_files_of_every_predictor_run_without_joulemap(
    files: tuple[Path, dict[str, FloatArray]],
) -> None:
    folder, expected = files
    code = ALONE + (
        "import json, pathlib, numpy, onnxruntime, torch\n"
        f"widths = numpy.array({WIDTHS!r}, dtype='float32')\n"
        "load, trusting = torch.load, []\n"
        "def watched(*args, **options):\n"
        "    trusting.append(options.get('weights_only') is not True)\n"
        "    return load(*args, **options)\n"
        "torch.load = watched\n"
        "found = {}\n"
        f"for path in pathlib.Path({str(folder)!r}).glob('*.onnx'):\n"
        "    session = onnxruntime.InferenceSession(str(path))\n"
        "    found['onnx ' + path.stem] = session.run(None, {'widths': widths})[0].tolist()\n"
        f"for path in pathlib.Path({str(folder)!r}).glob('*.pt2'):\n"
        "    cost = torch.export.load(str(path)).module()\n"
        "    found['torch ' + path.stem] = cost(torch.tensor(widths)).tolist()\n"
        "print(json.dumps([found, any(trusting)]))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    found, is_trusting = json.loads(result.stdout)
    # A pickle that may hold more than tensors could run code.
    assert not is_trusting
    assert len(found) == 3 * len(EXPORTED)
    for file, costs in found.items():
        _, name = file.split()
        np.testing.assert_allclose(costs, expected[name], rtol=1e-5, err_msg=file)


def test_smooth_files_say_how_far_they_may_lie(
    files: tuple[Path, dict[str, FloatArray]],
) -> None:
    folder, _ = files
    deviations = {}
    for name in ("aligned", "aligned-smooth"):
        model = onnx.load(folder / f"{name}.onnx")
        metadata = {entry.key: entry.value for entry in model.metadata_props}
        deviations[name] = float(metadata["max_deviation"])
    assert deviations["aligned"] == 0.0
    assert deviations["aligned-smooth"] >= 0.0


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

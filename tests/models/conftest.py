import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from joulemap.datasets import LayerSpec, NetworkSpec, Width
from joulemap.datasets.metrics import NoiseFloor
from joulemap.models import BilinearPredictor
from joulemap.models.testing import ArrayDataset, draw_widths

VECTORS = Path(__file__).parents[1] / "vectors"


@pytest.fixture(scope="session")
def ecc() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(
        (VECTORS / "ecc_alexnet_tx2_coefficients.json").read_text()
    )
    return content


@pytest.fixture(scope="session")
def alexnet() -> NetworkSpec:
    layers = [
        LayerSpec("conv1", "conv", 3, "conv1", kernel_size=11, stride=4, in_size=224, out_size=55),
        LayerSpec("conv2", "conv", "conv1", "conv2", kernel_size=5, in_size=27, out_size=27),
        LayerSpec("conv3", "conv", "conv2", "conv3", kernel_size=3, in_size=13, out_size=13),
        LayerSpec("conv4", "conv", "conv3", "conv4", kernel_size=3, in_size=13, out_size=13),
        LayerSpec("conv5", "conv", "conv4", "conv5", kernel_size=3, in_size=13, out_size=13),
        LayerSpec("fc6", "linear", "36*conv5", "fc6"),
        LayerSpec("fc7", "linear", "fc6", "fc7"),
        LayerSpec("fc8", "linear", "fc7", 1000),
    ]
    bounds = {
        "conv1": 64,
        "conv2": 192,
        "conv3": 384,
        "conv4": 256,
        "conv5": 256,
        "fc6": 4096,
        "fc7": 4096,
    }
    widths = [Width(name, bound) for name, bound in bounds.items()]
    return NetworkSpec("alexnet", "zoo:alexnet", (3, 224, 224), tuple(widths), tuple(layers))


@pytest.fixture(scope="session")
def mixed() -> NetworkSpec:
    """Depthwise, grouped and attention-like layers, a concatenation, widths in steps."""
    layers = [
        LayerSpec("stem", "conv", 3, "a", kernel_size=3, in_size=8, out_size=8),
        LayerSpec("depthwise", "conv", "a", "a", groups="a", kernel_size=3, in_size=8, out_size=8),
        LayerSpec("norm", "norm", "a", "a", in_size=8, out_size=8),
        LayerSpec("left", "conv", "a", "b", inputs=("norm",), in_size=8, out_size=8),
        LayerSpec("right", "conv", "a", "a", inputs=("norm",), groups=2, in_size=8, out_size=8),
        LayerSpec("cat", "concat", "a+b", "a+b", inputs=("left", "right"), in_size=8, out_size=8),
        LayerSpec("wide", "conv", "a+b", "a+b", groups="a+b", bias=False, in_size=8, out_size=8),
        LayerSpec("query", "linear", "a+b", "heads*dim", positions=64),
        LayerSpec("score", "matmul", "heads*dim", 64, positions=64, bias=False),
        LayerSpec("value", "linear", "heads*dim", "heads*dim", positions=64),
        LayerSpec("classes", "linear", "heads*dim", 10),
    ]
    widths = (Width("a", 16, 2, 2), Width("b", 12), Width("heads", 4), Width("dim", 8))
    return NetworkSpec("mixed", "zoo:mixed", (3, 8, 8), widths, tuple(layers))


@pytest.fixture(scope="session")
def dataset(alexnet: NetworkSpec, ecc: dict[str, Any]) -> ArrayDataset:
    """120 variants of AlexNet by ECC's model with 2 % noise, 30 of them visited twice."""
    truth = BilinearPredictor.from_coefficients(
        alexnet, ecc["coefficients_a1_to_a8"], ecc["a0_bias"]
    )
    widths = draw_widths(alexnet, 120)
    widths = np.vstack([widths, widths[:30]])
    noise = 1 + 0.02 * np.random.default_rng(1).standard_normal((2, len(widths)))
    energy = truth.predict(widths)
    return ArrayDataset(
        alexnet,
        widths,
        {"energy_j": energy * noise[0], "latency_s": energy / 6 * noise[1]},
        noise_floor=NoiseFloor(0.016, 0.013, 0.019, 30),
    )

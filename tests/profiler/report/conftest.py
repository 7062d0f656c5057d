"""Reports of a measured campaign with a hostile fingerprint, and of an imported table."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from joulemap.datasets import CostDataset
from joulemap.device_agents.simulated import PRESETS, simulated_device
from joulemap.models import BilinearPredictor
from joulemap.models.base.training import Training
from joulemap.profiler import Protocol, networks, profile, sample

FloatArray = npt.NDArray[np.float64]


class AlignedStandIn(BilinearPredictor):
    """A real predictor that knows an alignment and divides its cost among layers."""

    alignment_ = 4

    def fit_arrays(self, training: Training) -> None:
        super().fit_arrays(training.with_costs(training.y / self._slowdown(training.X)))

    def predict_arrays(self, X: FloatArray) -> FloatArray:
        return np.asarray(super().predict_arrays(X) * self._slowdown(X))

    def layer_costs(self, widths: FloatArray) -> dict[str, float]:
        assert self.spec is not None
        total = float(self.predict_arrays(np.asarray(widths)[None])[0])
        layers = self.spec.at([int(width) for width in widths]).layers
        work = sum(layer.macs for layer in layers)
        return {layer.name: total * layer.macs / work for layer in layers}

    def describe(self) -> list[str]:
        return ["Fast at multiples of 4 & slower <b>elsewhere</b>."]

    def round_widths(self, widths: FloatArray) -> npt.NDArray[Any]:
        return np.asarray(np.maximum(4, 4 * np.floor(np.asarray(widths) / 4)))

    def _slowdown(self, X: FloatArray) -> FloatArray:
        return np.asarray(1.0 + 0.2 * (X % 4 != 0).mean(axis=1))


def cost(widths: tuple[int, ...]) -> float:
    slowdown = 1.0 + 0.2 * np.mean([width % 4 != 0 for width in widths])
    return float(slowdown * (0.005 + 2e-6 * widths[1] * widths[2] + 1e-5 * widths[3]))


@pytest.fixture(scope="session")
def campaign_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A campaign on a simulated device whose speed changes."""
    folder = tmp_path_factory.mktemp("report") / "campaign"
    device, _ = simulated_device(cost, PRESETS["shared_host"](), 3)
    protocol = Protocol(visits=3, max_visit_s=0.4, max_further_visits=0)
    profile(device, "lenet5", samples=40, out=folder, protocol=protocol)
    return folder


@pytest.fixture(scope="session")
def fitted(campaign_folder: Path) -> AlignedStandIn:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return AlignedStandIn().fit_dataset(CostDataset.load(campaign_folder))


@pytest.fixture
def imported() -> CostDataset:
    """A user's table: no device, no journal, no intervals."""
    spec = networks.get("lenet5")
    rows = [[*widths, cost(widths)] for widths in sample(spec, 30)]
    table = pd.DataFrame(rows, columns=[*spec.width_names, "latency_s"])
    return CostDataset.from_frame(table, spec, source="imported from <own>.csv")

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from joulemap import InputError
from joulemap.datasets import CostDataset, NetworkSpec
from joulemap.models import BilinearPredictor, cross_validate, fit, load
from joulemap.models.testing import draw_widths


@pytest.fixture
def frame(alexnet: NetworkSpec, ecc: dict[str, Any]) -> pd.DataFrame:
    truth = BilinearPredictor.from_coefficients(
        alexnet, ecc["coefficients_a1_to_a8"], ecc["a0_bias"]
    )
    X = draw_widths(alexnet, 60)
    energy = truth.predict(X) * (1 + 0.01 * np.random.default_rng(0).standard_normal(60))
    frame = pd.DataFrame(X.astype(int), columns=list(alexnet.width_names))
    return frame.assign(energy_mj=energy * 1e3)


def test_a_users_table_is_fitted_saved_and_used(
    alexnet: NetworkSpec, frame: pd.DataFrame, tmp_path: Path
) -> None:
    ds = CostDataset.from_frame(frame, alexnet)
    fit(ds, "bilinear", "energy_j").save(tmp_path / "energy.safetensors")
    predictor = load(tmp_path / "energy.safetensors")
    assert predictor.unit_ == "J"
    assert predictor.conditions_ == ds.fixed_conditions
    cost = predictor.to_torch(batch=1)(torch.tensor(alexnet.max_widths, dtype=torch.float32))
    assert cost.item() == pytest.approx(0.0498, rel=0.05)
    assert cross_validate(ds, target="energy_j")["bilinear"].mape < 0.015


def test_conditions_of_a_dataset(alexnet: NetworkSpec, frame: pd.DataFrame) -> None:
    fixed = CostDataset.from_frame(frame.assign(batch=4), alexnet)
    predictor = fit(fixed, target="energy_j")
    assert predictor.conditions_["batch"] == 4
    with pytest.raises(InputError, match="fitted at batch 4"):
        predictor.to_torch()
    varying = CostDataset.from_frame(frame.assign(batch=1 + frame.index % 2), alexnet)
    with pytest.raises(InputError, match="batch varies"):
        fit(varying, target="energy_j")


def test_a_frame_with_unknown_conditions(alexnet: NetworkSpec, frame: pd.DataFrame) -> None:
    predictor = BilinearPredictor(alexnet)
    predictor.fit(frame.assign(batch=np.nan, runtime=None), frame["energy_mj"])
    assert predictor.conditions_ == {}

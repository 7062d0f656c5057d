import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from joulemap import InputError
from joulemap.datasets import CostDataset, LayerSpec, NetworkSpec, Width
from joulemap.models import (
    BilinearPredictor,
    Budget,
    LayerwisePredictor,
    SystolicArrayModel,
    evaluate,
    load,
)
from joulemap.models.base.measured_under import row_digests
from joulemap.models.testing import draw_widths

SPEC = NetworkSpec(
    "pair",
    "zoo:pair",
    (3, 8, 8),
    (Width("a", 32), Width("b", 48)),
    (
        LayerSpec("first", "conv", 3, "a", kernel_size=3, in_size=8, out_size=8),
        LayerSpec("second", "conv", "a", "b", kernel_size=3, in_size=8, out_size=8),
        LayerSpec("last", "linear", "64*b", 10),
    ),
)
CONDITIONS = {"batch": 1, "precision": "fp32", "runtime": "onnxruntime", "threads": 2}


def measured(
    conditions: Mapping[str, Any] = CONDITIONS,
    device: str | None = "one",
    seed: int = 0,
    spec: NetworkSpec = SPEC,
    rows: int = 40,
) -> CostDataset:
    widths = draw_widths(spec, rows, seed)
    macs = np.array([spec.at(row.astype(int)).macs for row in widths])
    noise = 1 + 0.01 * np.random.default_rng(seed).standard_normal(rows)
    frame = CostDataset.from_frame(
        pd.DataFrame(widths.astype(int), columns=list(spec.width_names)).assign(
            latency_s=1e-4 + 1e-9 * macs * noise, energy_j=1e-3 + 1e-8 * macs * noise, **conditions
        ),
        spec,
    )
    about = {"device_id": device} if device else {}
    return CostDataset(frame.to_pandas(), {spec.fingerprint: spec}, device=about)


UNLIKE = [
    ("batch", 1, 8),
    ("precision", "fp32", "int8"),
    ("runtime", "onnxruntime", "litert"),
    ("threads", 2, 4),
]


@pytest.mark.parametrize(("name", "ours", "theirs"), UNLIKE)
def test_a_predictor_is_not_compared_with_what_was_measured_otherwise(
    name: str, ours: Any, theirs: Any
) -> None:
    predictor = BilinearPredictor().fit_dataset(measured())
    other = measured({**CONDITIONS, name: theirs}, seed=1)
    with pytest.raises(InputError, match=rf"{name} {ours} and {theirs}.*allow_different=True"):
        evaluate(predictor, other)
    with pytest.raises(InputError, match=f"{name} {ours} and {theirs}"):
        predictor.plot_error(other)
    found = evaluate(predictor, other, allow_different=True)
    assert [each.name for each in found.differences] == [name]
    assert f"compared although unlike: {name} {ours} and {theirs}" in found.warnings
    assert found.to_dict()["differences"] == [{"name": name, "values": [[ours], [theirs]]}]


def test_another_device_is_another_condition_and_a_former_id_is_not() -> None:
    predictor = BilinearPredictor().fit_dataset(measured())
    with pytest.raises(InputError, match="device one and two"):
        evaluate(predictor, measured(device="two", seed=1))
    renamed = measured(seed=1)
    renamed.device.update(device_id="new", former_ids=["one"])
    assert not evaluate(predictor, renamed).differences
    again = BilinearPredictor().fit_dataset(renamed)
    assert (again.device_id_, again.former_ids_) == ("new", ("one",))
    assert not evaluate(again, measured(seed=2)).differences


def test_what_is_not_recorded_is_said_and_not_compared() -> None:
    X, y, _ = measured().xyw()
    plain = BilinearPredictor(SPEC).fit(X, y)
    plain.target_ = "latency_s"
    found = evaluate(plain, measured(device=None, seed=1))
    assert not found.differences
    said = " ".join(found.warnings)
    assert "of the predictor, so not compared: batch, resolution" in said
    assert "of the dataset, so not compared: device" in said
    imported = measured({}, device=None, seed=1)
    of_import = BilinearPredictor().fit_dataset(imported)
    # Who imports a table without a runtime does not say which it was.
    assert "runtime" not in {
        d.name for d in evaluate(of_import, measured(), allow_different=True).differences
    }


def test_rows_of_the_fit_are_known_in_any_order_and_in_part(tmp_path: Path) -> None:
    data = measured()
    predictor = BilinearPredictor().fit_dataset(data)
    predictor.save(tmp_path / "p.safetensors")
    loaded = load(tmp_path / "p.safetensors")
    everything = evaluate(loaded, data.rows(np.arange(len(data))[::-1]))
    assert everything.error_name == "training error"
    assert everything.training_share == 1
    assert "training error" in " ".join(everything.warnings)
    assert everything.to_dict()["mape_unseen"] is None
    fresh = measured(seed=5, rows=30)
    assert evaluate(loaded, fresh).error_name == "mean error"
    assert evaluate(loaded, fresh).num_training_rows == 0
    mixed = evaluate(loaded, CostDataset.join([fresh, data.rows(range(10))]))
    assert mixed.training_share == pytest.approx(0.25)
    assert "partly training error" in mixed.error_name
    assert "25.0%" in " ".join(mixed.warnings)
    assert mixed.mape_unseen == pytest.approx(evaluate(loaded, fresh).mape)


@given(
    st.lists(st.tuples(st.integers(1, 64), st.floats(1e-9, 1e6)), min_size=1, max_size=8),
    st.randoms(),
)
def test_digests_are_those_of_rows_whatever_their_order(
    rows: list[tuple[int, float]], rng: Any
) -> None:
    X, y = np.array([[w] for w, _ in rows], dtype=float), np.array([cost for _, cost in rows])
    expected = dict(zip(map(str, range(len(rows))), row_digests(X, y), strict=True))
    order = list(range(len(rows)))
    rng.shuffle(order)
    assert row_digests(X[order], y[order]) == [expected[str(i)] for i in order]
    # Milliseconds and back.
    assert row_digests(X, y * 1e3 * 1e-3) == row_digests(X, y)
    assert row_digests(X + 1, y) != row_digests(X, y)


def test_older_files_record_no_rows(tmp_path: Path, rewritten: Callable[[Path], None]) -> None:
    path = tmp_path / "p.safetensors"
    BilinearPredictor().fit_dataset(measured()).save(path)
    rewritten(path)
    loaded = load(path)
    assert loaded.training_rows_ is None
    found = evaluate(loaded, measured())
    assert found.num_training_rows is None
    assert found.error_name == "mean error"
    assert "does not record" in found.warnings[0]


@pytest.fixture
def rewritten() -> Callable[[Path], None]:
    """Takes out of a file what older versions did not write."""

    def rewrite(path: Path) -> None:
        import safetensors.numpy

        from joulemap.models.base.files import writing

        data = path.read_bytes()
        size = int.from_bytes(data[:8], "little")
        document = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["joulemap"])
        del document["sha256"]
        for entry in document["predictors"].values():
            del entry["training_rows"], entry["former_ids"]
        tensors = safetensors.numpy.load(data)
        document["sha256"] = writing.digest(document, tensors)
        text = writing.canonical(document)
        path.write_bytes(safetensors.numpy.save(tensors, metadata={"joulemap": text}))

    return rewrite


def test_layers_of_several_networks_are_evaluated_on_any_of_them() -> None:
    other = NetworkSpec("other", "zoo:other", (3, 8, 8), SPEC.widths, SPEC.layers[:2])
    fitted = LayerwisePredictor(divisor=1, block=1).fit_dataset([measured(), measured(spec=other)])
    third = NetworkSpec("third", "zoo:third", (3, 8, 8), SPEC.widths, SPEC.layers[:2])
    assert evaluate(fitted, measured(spec=other, seed=3)).num_training_rows == 0
    assert evaluate(fitted, measured(spec=other)).error_name == "training error"
    assert evaluate(fitted, measured(spec=third, seed=4)).mape < 0.2
    with pytest.raises(InputError, match="batch 1 and 8"):
        evaluate(fitted, measured({**CONDITIONS, "batch": 8}, spec=other))
    with pytest.raises(InputError, match="another network"):
        evaluate(BilinearPredictor().fit_dataset(measured()), measured(spec=other))


@pytest.mark.parametrize(
    ("conditions", "device", "message"),
    [
        ({**CONDITIONS, "batch": 8}, "one", "batch 1 and 8"),
        (CONDITIONS, "two", "device one and two"),
    ],
)
def test_a_budget_takes_costs_of_like_conditions(
    conditions: dict[str, Any], device: str, message: str
) -> None:
    latency = BilinearPredictor().fit_dataset(measured())
    energy = BilinearPredictor().fit_dataset(measured(conditions, device), "energy_j")
    with pytest.raises(InputError, match=message):
        Budget([(latency, "60 %"), (energy, "60 %")])
    budget = Budget([(latency, "60 %"), (energy, "60 %")], allow_different=True)
    assert message in repr(budget)
    assert message in str(budget.check(SPEC.min_widths))
    modules = [p.to_torch(batch=p.conditions_["batch"]) for p in (latency, energy)]
    with pytest.raises(InputError, match=message):
        Budget([(module, "60 %") for module in modules])
    with pytest.raises(InputError, match=message):
        Budget([(latency, "60 %", BilinearPredictor().fit_dataset(measured(conditions, device)))])
    same = BilinearPredictor().fit_dataset(measured(), "energy_j")
    assert Budget([(latency, "60 %"), (same, "60 %")]).differences == ()
    assert Budget([(latency, "60 %"), (SystolicArrayModel(SPEC), "60 %")]).differences == ()
    assert torch.isfinite(torch.tensor(budget.floor)).all()


def test_a_joined_dataset_of_unlike_ones_records_none_of_them() -> None:
    several = [measured(), measured({**CONDITIONS, "batch": 8}, "two", 1)]
    with pytest.raises(InputError, match="different devices"):
        CostDataset.join(several)
    joined = CostDataset.join(several, allow_different=True)
    predictor = BilinearPredictor().fit_dataset(joined)
    assert predictor.device_id_ is None
    assert "batch" not in predictor.conditions_
    assert predictor.conditions_["threads"] == 2

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from torch import nn

from joulemap import InputError
from joulemap.datasets import LayerSpec, NetworkSpec, Width
from joulemap.models import Predictor, SystolicArrayModel, SystolicHardware, load
from joulemap.models.testing import ArrayDataset, PredictorContract, draw_widths
from joulemap.profiler import networks

REFERENCE = json.loads(
    (Path(__file__).parents[2] / "vectors" / "systolic_reference_energies.json").read_text()
)["networks"]
# Small caches: strips of inputs overlap and weights are read again.
SMALL = SystolicHardware(name="small", input_cache_bytes=4096, weight_cache_bytes=512)


class TestSystolic(PredictorContract):
    def make(self, spec: NetworkSpec | None = None) -> Predictor:
        return SystolicArrayModel(spec)

    def test_clone_keeps_the_parameters_and_forgets_the_fit(self, fitted: Predictor) -> None:
        # A model with a spec predicts without data: in the array's own unit.
        copied = clone(fitted)
        widths = [fitted.spec.max_widths] if fitted.spec else []
        assert copied.predict(widths)[0] > 1e6
        assert copied.unit_ == "mac"
        assert copied.get_params() == fitted.get_params()


class TestSystolicLatencyOnAnotherNetwork(TestSystolic):
    def make(self, spec: NetworkSpec | None = None) -> Predictor:
        return SystolicArrayModel(spec, SMALL, quantity="latency", loss="relative")

    @pytest.fixture
    def dataset(self, mixed: NetworkSpec) -> ArrayDataset:
        widths = draw_widths(mixed, 40)
        macs = [mixed.at([int(x) for x in row]).macs for row in widths]
        cost = 1e-3 + 1e-9 * np.array(macs, dtype=np.float64)
        return ArrayDataset(mixed, widths, {"latency_s": cost})

    def test_clone_keeps_the_parameters_and_forgets_the_fit(self, fitted: Predictor) -> None:
        copied = clone(fitted)
        assert fitted.spec is not None
        assert copied.predict([fitted.spec.max_widths])[0] > 1e3
        assert copied.unit_ == "cycle"

    def test_file_gives_an_equal_predictor(
        self, fitted: Predictor, widths: np.ndarray, tmp_path: Path
    ) -> None:
        path = tmp_path / "model.safetensors"
        fitted.save(path)
        loaded = load(path)
        assert isinstance(loaded, SystolicArrayModel)
        assert loaded.array == SMALL
        np.testing.assert_array_equal(loaded.predict(widths), fitted.predict(widths))


def chain(layers: list[dict[str, Any]]) -> NetworkSpec:
    """The single layers of a network as a spec of one width, which none of them uses."""
    specs = [
        LayerSpec(
            f"{index}-{layer['name']}",
            "conv" if layer["type"] == "conv" else "linear",
            layer["c_in"] if "c_in" in layer else layer["in"],
            layer["c_out"] if "c_out" in layer else layer["out"],
            inputs=("",),
            **(
                {
                    "kernel_size": layer["kernel"],
                    "stride": layer["stride"],
                    "padding": layer["padding"],
                    "groups": layer["groups"],
                    "in_size": (layer["h"], layer["w"]),
                    "out_size": (layer["h_out"], layer["w_out"]),
                }
                if layer["type"] == "conv"
                else {}
            ),
        )
        for index, layer in enumerate(layers)
    ]
    return NetworkSpec("single", "zoo:single", (1, 1, 1), (Width("unused", 2),), tuple(specs))


@pytest.mark.parametrize(
    ("network", "pattern"),
    [(n, p) for n in REFERENCE for p in ("dense", "half_physical") if p in REFERENCE[n]],
)
def test_dense_layers_agree_with_the_released_code(network: str, pattern: str) -> None:
    layers = REFERENCE[network][pattern]["layers"]
    for form in ("exact", "relaxed"):
        table: Any = SystolicArrayModel(chain(layers), form=form).breakdown([[1]])
        for layer, (_, row) in zip(layers, table.iterrows(), strict=True):
            expected = layer[f"reference_{form}"]
            assert row["weight"] == pytest.approx(expected["W"], rel=1e-6)
            assert row["input"] == pytest.approx(expected["X"], rel=1e-6)
            assert row["computation"] == pytest.approx(expected["C"], rel=1e-6)
            assert row["total"] == pytest.approx(expected["total"], rel=1e-6)


@pytest.mark.parametrize("network", ["lenet5", "squeezenet1_0"])
def test_even_channels_kept(network: str) -> None:
    """Masked channels as in the reference: outputs of all but the last, inputs of all but the first."""
    model = SystolicArrayModel()
    layers = REFERENCE[network]["chan_even_masked"]["layers"]
    if network == "squeezenet1_0":
        layers = layers[:1]  # What feeds a layer is not in the file.
    for index, layer in enumerate(layers):
        spec = chain([layer]).layers[0]
        resolved = spec.at({})
        mask = np.ones(
            (resolved.out_channels, resolved.in_channels // resolved.groups, *spec.kernel_size)
        )
        if index:
            inputs = np.arange(resolved.in_channels) // (25 if layer["name"] == "fc1" else 1)
            mask[:, inputs % 2 == 1] = 0
        if index < len(layers) - 1 or network == "squeezenet1_0":
            mask[1::2] = 0
        if layer["type"] != "conv":
            mask = mask[:, :, 0, 0]
        assert int(mask.sum()) == layer["weight_nnz"]
        energy = model.layer_energy(spec, weight_mask=mask)
        assert energy.total == pytest.approx(layer["reference_exact"]["total"], rel=1e-6)
        relaxed = model.layer_energy(spec, weight_mask=torch.tensor(mask), exact=False)
        assert relaxed.total == pytest.approx(layer["reference_relaxed"]["total"], rel=1e-6)


@pytest.mark.parametrize(("network", "share"), [("lenet5", 0.152), ("squeezenet", 0.151)])
def test_floor_of_a_network_without_weights(network: str, share: float) -> None:
    spec = networks.get(network)
    model = SystolicArrayModel(spec)
    module = networks.build(spec, spec.max_widths)
    dense = model.module_energy(module, exact=False)
    for parameter in module.parameters():
        torch.nn.init.zeros_(parameter)
    floor = model.module_energy(module, exact=False)
    assert floor.total / dense.total == pytest.approx(share, abs=5e-4)
    assert (floor.weight, floor.computation) == (0.0, 0.0)


@pytest.mark.parametrize(("name", "resolution"), [("mobilenet_v2", 64), ("erfnet", (64, 128))])
def test_the_three_ways_agree(name: str, resolution: Any) -> None:
    """Vectorised over widths, layer by layer, and from a torch module with random weights."""
    spec = networks.get(name, resolution=resolution)
    hardware = SystolicHardware(input_cache_bytes=60_000, weight_cache_bytes=2048)
    model = SystolicArrayModel(spec, hardware)
    for seed in range(2):
        widths = [int(x) for x in draw_widths(spec, 1, seed)[0]]
        table: Any = model.breakdown([widths]).loc[0]
        values = dict(zip(spec.width_names, widths, strict=True))
        for layer in spec.layers:
            if layer.kind in ("conv", "conv_transpose", "linear"):
                alone = model.layer_energy(layer.at(values))
                assert table.loc[layer.name, "total"] == pytest.approx(alone.total, rel=1e-12)
        total = model.module_energy(networks.build(spec, widths)).total
        # Drawn weights are zero now and then.
        assert total == pytest.approx(model.predict([widths])[0], rel=1e-5)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "tail"),
    [(3, 2, 1, 1), (4, 3, 0, 0), (3, 1, 2, 0), (2, 2, 0, 1)],
)
def test_transposed_convolutions_are_counted_one_by_one(
    kernel: int, stride: int, padding: int, tail: int, groups: int
) -> None:
    torch.manual_seed(0)
    conv = nn.ConvTranspose2d(
        4, 6, kernel, stride, padding, output_padding=tail, groups=groups, bias=False
    )
    with torch.no_grad():
        conv.weight.copy_((torch.rand_like(conv.weight) < 0.5).float())
    input_mask = torch.rand(4, 5, 7) < 0.7
    one_each = SystolicHardware(mac_energy=1.0)
    model = SystolicArrayModel(hardware=one_each)
    found = model.module_energy(conv, (4, 5, 7), {"": input_mask})
    with torch.no_grad():
        macs = int(conv(input_mask[None].float()).sum())
        reads = nn.functional.conv_transpose2d(
            input_mask[None].float(),
            torch.ones(4, 1, kernel, kernel),
            None,
            stride,
            padding,
            tail,
            groups=4,
        )
    assert found.computation == macs
    outputs = reads.shape[2] * reads.shape[3]
    moved = 200 * (int(input_mask.sum()) + 6 * outputs)
    assert found.input == moved + int(reads.sum()) * (6 + 6 // groups)


def test_relaxed_bounds_exact_and_smooth_follows_it() -> None:
    spec = networks.get("mobilenet_v2", resolution=64)
    X = draw_widths(spec, 200)
    exact = SystolicArrayModel(spec, SMALL, quantity="energy")
    with pytest.raises(InputError, match=r"fit; name hardware with a larger cache"):
        exact.predict(X)
    hardware = SystolicHardware(input_cache_bytes=40_000, weight_cache_bytes=2048)
    exact = SystolicArrayModel(spec, hardware)
    relaxed = SystolicArrayModel(spec, hardware, form="relaxed")
    assert np.all(relaxed.predict(X) > exact.predict(X))
    module = exact.to_torch(smooth=True)
    with torch.no_grad():
        gap = np.abs(module(torch.tensor(X)).numpy() / exact.predict(X) - 1)
    assert 0 < gap.max() < 1.2 * module.max_deviation < 0.15
    # Every width has a gradient, also where a ceiling is flat.
    x = torch.tensor(X - 0.37, requires_grad=True)
    module(x).sum().backward()
    assert x.grad is not None
    assert torch.all(x.grad > 0)
    assert torch.autograd.gradcheck(lambda v: module(v) / 1e8, x[:3], eps=1e-3, atol=1e-6)


def test_between_whole_widths_the_exact_module_is_a_line() -> None:
    spec = networks.get("squeezenet")
    # Where the weights' cache is full the line has a corner.
    module = SystolicArrayModel(spec, {"weight_cache_bytes": 2**24}).to_torch()
    low = torch.tensor(draw_widths(spec, 20) - 1).clamp(min=1)
    step = torch.zeros_like(low)
    step[:, 3] = 1
    with torch.no_grad():
        ends = module(low), module(low + step)
        # Products of two widths make it a parabola; one width alone changes it in a line.
        torch.testing.assert_close(module(low + 0.25 * step), ends[0] * 0.75 + ends[1] * 0.25)


def test_cycles_equal_those_of_the_tiles_one_by_one() -> None:
    spec = networks.get("lenet5")
    hardware = SystolicHardware(rows=5, columns=7, clock_hz=1e6)
    model = SystolicArrayModel(spec, hardware, quantity="latency")
    widths = [5, 13, 100, 84]
    table: Any = model.breakdown([widths]).loc[0]
    total = 0
    for layer in spec.at(widths).layers:
        if layer.kind not in ("conv", "linear"):
            continue
        positions = int(np.prod(layer.out_size))
        length = int(np.prod(layer.kernel_size)) * layer.in_channels
        cycles = 0
        for row in range(0, positions, 5):
            for column in range(0, layer.out_channels, 7):
                rows, columns = min(5, positions - row), min(7, layer.out_channels - column)
                cycles += length + 2 * rows + columns - 2
        assert table.loc[layer.name, "array"] == pytest.approx(cycles / 1e6)
        share = layer.macs / (cycles * 35)
        assert table.loc[layer.name, "utilisation"] == pytest.approx(share)
        total += cycles
    assert model.predict([widths])[0] == pytest.approx(total / 1e6)
    assert (model.unit_, model.target_) == ("s", "latency_s")


def test_memory_limits_where_it_is_slower_than_the_array() -> None:
    spec = networks.get("lenet5")
    slow = SystolicHardware(clock_hz=1e6, memory_bytes_per_cycle=0.5)
    table: Any = SystolicArrayModel(spec, slow, quantity="latency").breakdown([spec.max_widths])
    assert np.all(table["total"] == table["memory"])
    fc1 = next(layer for layer in spec.at(spec.max_widths).layers if layer.kind == "linear")
    words = fc1.in_channels * fc1.out_channels + fc1.in_channels + fc1.out_channels
    assert table.loc[0, fc1.name]["memory"] == pytest.approx(words * 2 / 0.5 / 1e6)


def test_a_recurrent_layer_reads_its_state_weights_at_every_step() -> None:
    spec = NetworkSpec(
        "gru",
        "zoo:gru",
        (7, 20),
        (Width("h", 64),),
        (LayerSpec("gru", "recurrent", 20, "h", positions=7),),
    )
    table: Any = SystolicArrayModel(spec).breakdown([[10]])
    # Inputs: 7 positions share a pass. State: one position after the other.
    weights = 206 * 20 * 30 + 7 * 20 * 30 + 200 * 300 + 7 * 6 * 300 + 7 * 300
    assert table["weight"].tolist() == [weights]
    assert table["computation"].tolist() == [3 * 7 * (600 + 300)]


def test_fitted_to_measured_joules_it_scales() -> None:
    spec = networks.get("lenet5")
    X = draw_widths(spec, 30)
    energies = SystolicArrayModel(spec).predict(X)
    dataset = ArrayDataset(spec, X, {"energy_j": 2e-3 + 3e-12 * energies})
    model = SystolicArrayModel().fit_dataset(dataset, "energy_j")
    assert model.intercept_ == pytest.approx(2e-3)
    assert model.coef_ == pytest.approx(3e-12)
    assert (model.unit_, model.quantity_) == ("J", "energy")
    seconds = SystolicArrayModel(spec, quantity="latency").predict(X)
    measured = ArrayDataset(spec, X, {"latency_s": 1e-4 + 1.5 * seconds})
    latency = SystolicArrayModel().fit_dataset(measured)
    assert latency.quantity_ == "latency"
    assert latency.coef_ == pytest.approx(1.5)
    low, high = model.predict_interval(X)
    assert np.all((low <= model.predict(X)) & (model.predict(X) <= high))


def test_a_file_of_other_constants_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = networks.get("lenet5")
    model = SystolicArrayModel(spec)
    model.save(tmp_path / "model.safetensors")
    loaded = load(tmp_path / "model.safetensors")
    X = draw_widths(spec, 5)
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))
    changed = {"eyeriss": SystolicHardware(rows=13)}
    monkeypatch.setattr("joulemap.models.systolic.hardware.PRESETS", changed)
    with pytest.raises(InputError, match="other constants"):
        load(tmp_path / "model.safetensors")


def test_parameters_may_change_between_predictions() -> None:
    spec = networks.get("lenet5")
    model = SystolicArrayModel(spec)
    full = pd.DataFrame([spec.max_widths], columns=list(spec.width_names))
    first = model.predict(full)[0]
    model.set_params(hardware={"joule_per_mac": 1e-12})
    assert model.predict(full)[0] == pytest.approx(first * 1e-12)
    assert model.unit_ == "J"


class Twice(nn.Module):
    """A layer that is called twice, and one of Conv1d."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(4, 4, 3, padding="same")
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(self.conv(x))
        result: torch.Tensor = self.head(x.mean(-1))
        return result


def test_a_layer_called_twice_costs_twice() -> None:
    module, model = Twice(), SystolicArrayModel()
    module.train()
    energy = model.module_energy(module, (4, 10))
    once = model.module_energy(module.conv, (4, 10))
    assert energy.layers["conv"].total == pytest.approx(2 * once.total)
    assert energy.total == energy.weight + energy.input + energy.computation
    assert (energy.unit, list(energy.layers)) == ("mac", ["conv", "head"])
    assert module.training
    assert module.head.training


MODEL = SystolicArrayModel()
CONV = LayerSpec("c", "conv", 3, 4, kernel_size=3, in_size=5, out_size=3)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: MODEL.layer_energy(CONV, weight_mask=np.ones((4, 3, 3))), "weight mask has shape"),
        (lambda: MODEL.layer_energy(CONV, input_mask=np.ones((3, 4, 5))), "input mask has shape"),
        (lambda: MODEL.layer_energy(CONV, input_mask=np.full((3, 5, 5), np.nan)), "NaN"),
        (lambda: MODEL.layer_energy(LayerSpec("c", "conv", "a", 4)), "depends on the width a"),
        (lambda: MODEL.layer_energy(LayerSpec("n", "norm", 4, 4)), "of kind norm"),
        (lambda: MODEL.layer_energy("conv9"), "no layer 'conv9'"),
        (
            lambda: MODEL.layer_energy(LayerSpec("c", "conv", 3, 4, kernel_size=9, in_size=5)),
            "'c': a kernel of .* is larger than the padded input",
        ),
        (
            lambda: MODEL.layer_energy(
                LayerSpec("c", "conv", 3, 4, kernel_size=3, in_size=9, out_size=4)
            ),
            "states an output",
        ),
        (lambda: MODEL.module_energy(nn.Conv2d(3, 4, 3)), "input_shape"),
        (lambda: MODEL.module_energy(nn.Conv2d(3, 4, 3), (5, 8, 8)), "does not run on a sample"),
        (lambda: MODEL.module_energy(nn.GRU(3, 4), (5, 3)), r"\(GRU\) cannot be computed"),
        (
            lambda: MODEL.module_energy(
                nn.Conv2d(3, 4, 3, padding_mode="reflect", padding=1), (3, 8, 8)
            ),
            "padding mode 'reflect'",
        ),
        (
            lambda: MODEL.module_energy(nn.Conv2d(3, 4, 3), (3, 8, 8), {"x": np.ones((3, 8, 8))}),
            "no layer 'x'",
        ),
        (lambda: SystolicArrayModel(networks.get("lenet5"), "abacus").predict([[1] * 4]), "known:"),
        (
            lambda: SystolicArrayModel(networks.get("lenet5"), form="tight").predict([[1] * 4]),  # type: ignore[arg-type]
            "write one of exact, relaxed",
        ),
        (
            lambda: SystolicArrayModel(networks.get("lenet5"), {"lines": 3}).predict([[1] * 4]),
            "unknown key 'lines'",
        ),
        (
            lambda: SystolicArrayModel(networks.get("erfnet")).predict(
                [networks.get("erfnet").max_widths]
            ),
            "larger cache",
        ),
    ],
)
def test_what_cannot_be_computed_is_refused(wrong: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        wrong()


def test_held_out_predictions_of_a_latency_leave_the_next_plain_fit_an_energy(
    dataset: ArrayDataset,
) -> None:
    X, y, _ = dataset.xyw("latency_s")
    model = SystolicArrayModel(dataset.spec)
    model.predict_held_out(dataset, "latency_s", np.arange(len(y)) % 2)
    assert model.fit(X, y).quantity_ == "energy"
    assert model.fit_dataset(dataset, "latency_s").quantity_ == "latency"
    assert model.fit(X, y).quantity_ == "energy"

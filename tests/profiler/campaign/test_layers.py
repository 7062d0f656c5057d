"""Profiles of single layers by the real onnxruntime, joined to the spec's layers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from joulemap import InputError
from joulemap.datasets import LayerProfiles
from joulemap.device_agents import Device, StableDeviceError
from joulemap.device_agents.onboard.answer_error import AnswerError
from joulemap.device_agents.onboard.layers_answer import LayersAnswer, NodeTimes
from joulemap.models import LayerwisePredictor
from joulemap.profiler import networks, profile, profile_layers
from joulemap.profiler.campaign.layer_join import LayerJoin
from joulemap.profiler.command_line.cli import main
from joulemap.profiler.templates.export import cached_template


@pytest.fixture(scope="module")
def lenet(tmp_path_factory: pytest.TempPathFactory) -> tuple[LayerProfiles, Path]:
    folder = tmp_path_factory.mktemp("layers")
    done: list[tuple[int, int]] = []
    found = profile_layers(
        "local:",
        "lenet5",
        samples=3,
        num_runs=4,
        out=folder,
        on_variant=lambda number, total: done.append((number, total)),
    )
    assert done == [(1, 3), (2, 3), (3, 3)]
    return found, folder


def test_every_layer_is_timed_in_each_run(lenet: tuple[LayerProfiles, Path]) -> None:
    found, folder = lenet
    names = {layer.name for layer in found.spec.layers}
    for variant in found.variants:
        timed = [name for part in variant.parts for name in part.layers]
        assert sorted(timed) == sorted(names)
        assert all(len(part.times_s) == 4 for part in variant.parts)
        assert len(variant.runs_s) == 4
        assert len(variant.unprofiled_s) == 4
        total = sum(part.median_s for part in variant.parts)
        assert 0 < total <= 1.5 * float(np.median(variant.runs_s))
    assert LayerProfiles.load(folder) == found
    assert found.device_id is not None
    assert found.conditions["runtime"] == "onnxruntime"
    assert 0 <= found.unassigned_share < 0.5


def test_a_table_of_layers_adds_up_to_the_runs(lenet: tuple[LayerProfiles, Path]) -> None:
    found, _ = lenet
    frame = found.to_pandas()
    sums = frame.groupby("variant")["latency_s"].sum()
    expected = [variant.latency_s for variant in found.variants]
    np.testing.assert_allclose(sums.to_numpy(), expected)
    assert {"layer", "profiled_s", "standard_error_s", *found.spec.width_names} <= set(frame)


def test_the_same_call_profiles_what_is_missing(lenet: tuple[LayerProfiles, Path]) -> None:
    found, folder = lenet
    done: list[int] = []
    widths = [*found.widths.tolist(), list(found.spec.max_widths)]
    more = profile_layers(
        "local:",
        "lenet5",
        widths=widths,
        num_runs=4,
        out=folder,
        on_variant=lambda number, total: done.append(total),
    )
    assert done == [1]
    assert more.variants[:3] == found.variants
    assert LayerProfiles.load(folder) == more
    with pytest.raises(InputError, match="of another network, lenet5"):
        profile_layers("local:", "lenet5_caffe", samples=1, out=folder)
    with pytest.raises(InputError, match="another device or of other conditions"):
        profile_layers("local:", "lenet5", samples=1, batch=2, out=folder)


def test_a_layerwise_model_learns_from_them(lenet: tuple[LayerProfiles, Path]) -> None:
    found, _ = lenet
    predictor = LayerwisePredictor(divisor=1, block=1).fit_profiles(found)
    assert np.all(predictor.predict(found.widths) > 0)


@pytest.mark.parametrize("name", ["resnet18", "gru", "vit", "squeezenet"])
def test_fused_layers_are_found_in_other_networks(name: str) -> None:
    spec = networks.get(name, {"resnet18": 64, "squeezenet": 64}.get(name))
    small = [max(w.min, w.max // 4 // w.multiple * w.multiple) for w in spec.widths]
    odd = [max(w.min, value - w.multiple) for w, value in zip(spec.widths, small, strict=True)]
    found = profile_layers("local:", spec, widths=[small, odd], num_runs=10)
    costly = {
        layer.name
        for layer in spec.layers
        if layer.kind in ("conv", "linear", "matmul", "recurrent")
    }
    for variant in found.variants:
        timed = [name for part in variant.parts for name in part.layers]
        assert len(timed) == len(set(timed))
        assert costly <= set(timed)
        for part in variant.parts:
            assert len(costly & set(part.layers)) <= 1
        # Other programs only ever add to a run's time: the least of several is the machine's own.
        least = {part.layers: min(part.times_s) for part in variant.parts}
        assert least.get((), 0.0) < 0.2 * sum(least.values())


def test_what_cannot_be_profiled_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="runs no network"):
        profile_layers("sim:eyeriss", "lenet5", samples=1)
    # Before the campaign that comes first, not after it.
    with pytest.raises(InputError, match="runs no network"):
        profile("sim:eyeriss", "lenet5", samples=1, out=tmp_path / "run", layers=1)
    assert not (tmp_path / "run").exists()
    with pytest.raises(InputError, match="either samples, a number, or widths"):
        profile_layers("local:", "lenet5")
    with pytest.raises(InputError, match="num_runs is 0"):
        profile_layers("local:", "lenet5", samples=1, num_runs=0)
    with Device("local:") as device, pytest.raises(StableDeviceError, match="before prepare"):
        device.layer_times([1], 1)


# -- what a device may send ----------------------------------------------------------------------

NODE = {"name": "a", "op": "Conv", "inputs": ["x"], "outputs": ["y"], "times_s": [1e-6, 2e-6]}


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        (None, "timed no nodes"),
        ([], "timed no nodes"),
        (["a"], "without a name"),
        ([NODE | {"name": 3}], "without a name"),
        ([NODE | {"inputs": "x"}], "without tensors"),
        ([NODE | {"outputs": [1]}], "without tensors"),
        ([NODE | {"times_s": []}], "no times of node 'a'"),
        ([NODE | {"times_s": [1e-6]}], "1 times, not 2"),
        ([NODE | {"times_s": [1e-6, -1.0]}], "sent -1.0 as a time"),
        ([NODE | {"times_s": [1e-6, float("nan")]}], "sent nan as a time"),
        ([NODE | {"times_s": [1e-6, "1"]}], "sent '1' as a time"),
        ([NODE | {"times_s": [True, 1e-6]}], "sent True as a time"),
    ],
)
def test_nonsense_from_a_device_is_refused(nodes: object, message: str) -> None:
    with pytest.raises(AnswerError, match=message):
        LayersAnswer.from_dict({"nodes": nodes, "runs_s": [1], "unprofiled_s": [1]}, 2)


def test_times_are_checked_and_the_whole_is_sent_as_ever() -> None:
    said = {"nodes": [NODE], "runs_s": [1, 2.5], "unprofiled_s": [1.0]}
    answer = LayersAnswer.from_dict(said, 2)
    assert answer.runs_s == (1.0, 2.5)
    assert answer.to_dict() == said
    with pytest.raises(AnswerError, match="no times of runs"):
        LayersAnswer.from_dict({**said, "runs_s": None}, 2)


def ran(name: str, op: str, inputs: list[str], outputs: list[str]) -> NodeTimes:
    return NodeTimes(name, op, inputs, outputs, ())


def made(name: str, op: str, inputs: list[str], outputs: list[str]) -> dict[str, object]:
    return {"name": name, "op": op, "inputs": inputs, "outputs": outputs}


def test_additions_within_a_convolution_go_back_to_it() -> None:
    template = {
        "nodes": [
            {**made("n1", "Conv", ["x", "w1"], ["c1"]), "layer": "conv1"},
            {**made("n2", "Conv", ["c1", "w2"], ["c2"]), "layer": "conv2"},
            {**made("n3", "Add", ["c1", "c2"], ["sum"]), "layer": "add"},
            {**made("n4", "Relu", ["sum"], ["r"]), "layer": "relu"},
            {**made("n5", "Conv", ["r", "w3"], ["c3"]), "layer": "conv3"},
            {**made("n6", "Reshape", ["c3"], ["flat"]), "layer": None},
        ]
    }
    join = LayerJoin(template)
    # The second convolution adds and activates, but keeps its own name; blocks are copied back.
    units = join.units(
        [
            ran("c1_nchwc", "Conv", ["x", "v1"], ["t1"]),
            ran("c2_nchwc", "Conv", ["t1", "v2", "", "t1"], ["t2"]),
            ran("copy", "ReorderOutput", ["t2"], ["r"]),
            ran("n5", "Conv", ["r", "w3"], ["c3"]),
            ran("n6", "Reshape", ["c3"], ["flat"]),
        ]
    )
    assert units == [
        (("conv1",), [0]),
        (("conv2", "add", "relu"), [1, 2]),
        (("conv3",), [3]),
        ((), [4]),
    ]


def test_templates_name_the_layer_of_each_node() -> None:
    template = cached_template(networks.get("lenet5"))
    named = [node["layer"] for node in template.content["nodes"] if node["layer"]]
    assert set(named) == {layer.name for layer in networks.get("lenet5").layers}


def test_one_command_measures_variants_and_layers_and_another_fits_both(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, file = tmp_path / "campaign", tmp_path / "layerwise.safetensors"
    quick = ["--samples", "8", "--visits", "1", "--visit-s", "0.05", "--rel-error", "0.5"]
    quick += ["--layers", "2"]
    command = ["profile", "local:", "--network", "lenet5", "--out", str(folder), *quick]
    assert main(command) == 0
    assert "The layers of 2 variants are timed as well" in capsys.readouterr().out
    assert len(LayerProfiles.load(folder)) == 2
    for model in ("layerwise", "lookup"):
        assert main(["fit", str(folder), "--model", model, "--out", str(file)]) == 0
    shown = capsys.readouterr().out
    assert "layerwise" in shown
    assert "Rates of" in shown
    assert "lookup" in shown

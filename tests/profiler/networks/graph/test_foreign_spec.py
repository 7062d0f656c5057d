"""Networks without a spec, from the name that a user types to a campaign and its predictor."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from joulemap import InputError
from joulemap.datasets import CostDataset, NetworkSpec
from joulemap.models import fit
from joulemap.profiler import Protocol, networks, profile
from joulemap.profiler.command_line.cli import main
from joulemap.profiler.networks.graph import DerivedNetwork, derive, derived_of, is_known
from joulemap.profiler.networks.graph import foreign_spec as foreign
from joulemap.profiler.networks.importing import ImportedGraph
from joulemap.profiler.templates.export import cached_template, export_template

OWN = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, hidden=12):
        super().__init__()
        self.a = nn.Linear(6, hidden)
        self.b = nn.Linear(hidden, 8)
        self.c = nn.Linear(8, 3)

    def forward(self, x):
        return self.c(self.b(self.a(x).relu()).relu())

def net():
    return Net(), torch.zeros(1, 6)

def shapeless():
    return Net()

def number():
    return 7
"""
SHORT = Protocol(
    visits=1, max_visit_s=0.02, block_s=0.005, has_revisits=False, max_further_visits=0
)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a user, in a folder with a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "mymodels.py"
    path.write_text(OWN)
    return path


def test_a_users_module_is_profiled_and_predicted(own: Path) -> None:
    out = own.parent / "run"
    dataset = profile(
        "local:", f"{own}:net", samples=6, out=out, protocol=SHORT, meter="none", batch=2
    )
    assert CostDataset.load(out).spec.width_names == ("a", "b")
    assert CostDataset.load(out).spec.source.startswith("file:mymodels.py:net@")
    assert fit(dataset, model="bilinear").predict([[12, 8]])[0] > 0


def test_a_derived_spec_is_kept_until_the_file_changes(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[str] = []

    def counted(graph: ImportedGraph, **choices: Any) -> DerivedNetwork:
        counts.append("derived")
        return derive(graph, **choices)

    monkeypatch.setattr(foreign, "derive", counted)
    first = networks.get(f"{own}:net")
    assert networks.get(f"{own}:net") == first
    assert counts == ["derived"]
    assert networks.get(f"{own}:net", freeze=["b"]).width_names == ("a",)
    own.write_text(OWN.replace("hidden=12", "hidden=16"))
    assert networks.get(f"{own}:net").max_widths == (16, 8)
    assert len(counts) == 3


def test_a_template_of_a_kept_spec_is_made_of_the_network_as_it_is(own: Path) -> None:
    spec = networks.get(f"{own}:net")
    kept = networks.get(f"{own}:net")
    assert is_known(kept)
    assert cached_template(kept, folder=own.parent) == export_template(spec)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of torch, about its own code
def test_onnx_files_come_in_by_their_path(own: Path) -> None:
    module = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    path = own.parent / "net.onnx"
    torch.onnx.export(module.eval(), (torch.zeros(1, 4),), str(path), dynamo=True, verbose=False)
    spec = networks.get(str(path))
    assert spec.source.startswith("onnx:")
    assert spec.max_widths == (6,)
    assert spec.at(spec.max_widths).params == 4 * 6 + 6 + 6 * 2 + 2
    template = export_template(spec).materialiser()
    assert len(template.materialise([3])) < len(template.materialise([6]))


def test_modules_of_this_process_need_no_name() -> None:
    module = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    spec = networks.from_module(module, torch.zeros(1, 4))
    assert export_template(spec, batch=3).content["inputs"][0]["dims"] == [3, 4]
    assert derived_of(spec).graph.module is not None


def test_a_spec_of_elsewhere_says_what_to_name() -> None:
    module = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
    spec = networks.from_module(module, torch.zeros(1, 4))
    elsewhere = dataclasses.replace(spec, source=f"onnx:{'0' * 64}")
    assert not is_known(NetworkSpec.from_json(elsewhere.to_json()))
    with pytest.raises(InputError, match=r"name it first: networks\.get with its file"):
        derived_of(elsewhere)


@pytest.mark.parametrize(
    ("function", "sentence"),
    [("shapeless", "--input x=1x3x224x224"), ("number", "returned a int")],
)
def test_networks_that_cannot_be_used_are_one_sentence(
    own: Path, function: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["networks", f"{own}:{function}"]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert "Traceback" not in said


def test_inputs_steps_and_frozen_widths_are_chosen_on_the_command_line(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["networks", f"{own}:shapeless", "--input", "x=1x6", "--multiple", "a=4"]
    assert main([*arguments, "--freeze", "b", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [(row["name"], row["min"], row["max"]) for row in told["widths"]] == [("a", 4, 12)]
    assert told["widths"][0]["read_by"] == ["b"]
    assert any("frozen by 'b'" in item["reason"] for item in told["frozen"])
    assert main([*arguments[:2], "--multiple", "a"]) == 2
    assert "PATTERN=N" in capsys.readouterr().err


def test_the_zoo_is_listed_and_its_widths_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["networks"]) == 0
    assert "mobilenet_v1" in capsys.readouterr().out
    assert main(["networks", "lenet5"]) == 0
    assert "1..120" in capsys.readouterr().out


def test_choices_are_for_networks_without_a_spec_of_their_own() -> None:
    with pytest.raises(InputError, match="written by hand"):
        networks.get("lenet5", freeze=["conv1"])


def test_a_campaign_goes_on_while_the_network_is_the_same_and_names_what_has_changed(
    own: Path,
) -> None:
    out = own.parent / "run"

    def measured(samples: int) -> int:
        name = f"{own}:net"
        return len(
            profile("sim:eyeriss", name, samples=samples, out=out, protocol=SHORT, meter="none")
        )

    assert measured(4) == 4
    own.write_text(OWN + "\n# A remark that changes nothing.\n")
    assert measured(6) == 6
    own.write_text(OWN.replace("hidden=12", "hidden=16"))
    with pytest.raises(InputError, match="width 'a' was 12 and is 16"):
        measured(8)

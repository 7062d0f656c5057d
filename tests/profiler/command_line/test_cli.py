"""The command line as a user meets it: its own process, exit codes, sentences."""

from __future__ import annotations

import inspect
import json
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from joulemap import models
from joulemap.datasets import CostDataset
from joulemap.profiler import networks, sample
from joulemap.profiler.campaign.transfer_points import choose_points
from joulemap.profiler.command_line import cli

from .commands import PROFILE, in_this_process, joulemap, refused


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's CSV: LeNet-5 latencies in milliseconds, of a known bilinear law."""
    spec = networks.get("lenet5")
    rng = random.Random(0)
    rows = []
    for widths in sample(spec, 60):
        macs = spec.at(widths).macs
        rows.append([*widths, (0.02 + macs * 1e-7) * rng.gauss(1, 0.01)])
    path = tmp_path_factory.mktemp("table") / "lenet.csv"
    pd.DataFrame(rows, columns=[*spec.width_names, "latency"]).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def imported(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("imported") / "dataset"
    done = joulemap("import", table, "--spec", "lenet5", "--unit", "latency=ms", "--out", out)
    assert done.returncode == 0, done.stderr
    assert "60 variants" in done.stdout
    return out


@pytest.fixture(scope="module")
def predictor(imported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("predictor") / "lenet.safetensors"
    done = joulemap("fit", imported, "--model", "bilinear", "--out", out)
    assert done.returncode == 0, done.stderr
    for word in ("bilinear", "flops", "params", "Noise floor unknown", "held-out"):
        assert word in done.stdout
    return out


def test_help_and_version_are_there() -> None:
    done = joulemap("--help")
    assert done.returncode == 0
    for command in (
        "demo",
        "probe",
        "profile",
        "import",
        "fit",
        "predict",
        "evaluate",
        "report",
        "export",
    ):
        assert command in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert joulemap("--version").stdout.startswith("joulemap ")


def test_the_help_of_profile_names_every_option_in_full() -> None:
    """A table that is too narrow cuts names, such as --accept-new-h…; nobody can type those."""
    shown = joulemap("profile", "--help").stdout
    assert max(map(len, shown.splitlines())) <= 80
    for name in set(inspect.signature(cli.profile).parameters) - {"context"}:
        others = {
            "url": "url",
            "sources": "--from",
            "as_json": "--json",
            "inputs": "--input",
            "multiples": "--multiple",
        }
        option = others.get(name, f"--{name.replace('_', '-')}")
        assert re.search(rf"(?m)[│ *]{option} ", shown), option


def test_ctrl_c_promises_to_continue_only_where_that_is_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "app", lambda arguments, prog_name, standalone_mode: cli.INTERRUPTED)
    assert cli.main(["--debug", "profile", "local:"]) == 130
    assert "the same command continues" in capsys.readouterr().err
    assert cli.main(["fit", "profile"]) == 130
    assert "the same command begins again" in capsys.readouterr().err


@pytest.mark.parametrize("meter", ["nonsense", "", "rapl,", "RAPL", "none,rapl"])
def test_a_meter_that_nobody_knows_is_refused_before_the_device_is_asked(
    meter: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["--network", "lenet5", "--meter", meter, "--out", out]
    code, said = in_this_process("profile", "ssh://nowhere.invalid", *arguments)
    assert code == 2
    assert capsys.readouterr().out == ""
    assert f"unknown meter '{meter.split(',')[meter.startswith('rapl')]}'" in said
    assert "write auto, none, or one of: rapl" in said
    assert not out.exists()


def test_the_energy_s_protocol_can_be_set(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = joulemap(
        "profile", "sim:eyeriss", "--network", "lenet5", "--samples", 2, "--out", out,
        "--energy-rel-error", 0.1, "--energy-window-s", 0.5, "--max-energy-window-s", 30,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    protocol = json.loads((out / "protocol.json").read_text())
    assert protocol["energy_rel_error"] == 0.1
    assert protocol["energy_window_s"] == 0.5
    assert protocol["max_energy_window_s"] == 30


def test_warnings_are_sentences_and_come_once(table: Path, tmp_path: Path) -> None:
    """Half of the energies are missing, as where a meter's readings were refused."""
    frame = pd.read_csv(table).rename(columns={"latency": "energy_j"})
    frame.loc[::2, "energy_j"] = np.nan
    frame["latency_s"] = 0.1
    CostDataset.from_frame(frame, networks.get("lenet5")).save(tmp_path / "half")
    done = joulemap("fit", tmp_path / "half", "--model", "flops", "--target", "energy_j", "--out",
                    tmp_path / "x.safetensors")  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if "left out" in line]
    assert said == ["warning: 30 of 60 rows have no 'energy_j' and were left out"]
    assert ".py" not in done.stderr


def test_a_full_disk_is_told_and_the_same_command_continues(tmp_path: Path) -> None:
    """The folder is a file system of its own, too small for the campaign, then larger."""
    program = str(Path(sys.executable).with_name("joulemap"))
    run = f"{program} profile sim:eyeriss --network lenet5 --samples 30 --out run/out"
    script = (
        f"mkdir run && mount -t tmpfs -o size=64k none run && {run}; echo code $? >&2; "
        f"mount -o remount,size=16m run && {run}; echo code $? >&2"
    )
    done = subprocess.run(
        [shutil.which("unshare") or "unshare", "-r", "--mount", "--propagation", "private", "sh", "-c", script],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    first, _, second = done.stderr.partition("code 2")
    # What ended the campaign, not what its end could not write either.
    assert re.search(r"cannot write to .*journal.jsonl: No space left on device; what was", first)
    assert "the same command continues" in first
    assert "made before" in second, done.stderr
    assert "code 0" in second
    assert "30 variants" in done.stdout


def test_help_does_not_import_what_it_does_not_need() -> None:
    code = (
        "import sys\nfrom joulemap.profiler.command_line.cli import main\n"
        "assert main(['--help']) == 0\n"
        "heavy = {'torch', 'pandas', 'scipy', 'numpy', 'sklearn', 'pyarrow', 'onnx'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True, capture_output=True)


def test_probe_prints_and_gives_json() -> None:
    done = joulemap("probe", "local:")
    assert done.returncode == 0
    assert "onnxruntime" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    fingerprint = json.loads(joulemap("probe", "local:", "--json").stdout)
    assert fingerprint["device_id"]


def test_predictions_have_intervals_and_come_from_csv_too(predictor: Path, table: Path) -> None:
    done = joulemap("predict", predictor, "--csv", table, "--json")
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)
    assert content["unit"] == "s"
    costs = np.array([row["cost"] for row in content["rows"]])
    truth = pd.read_csv(table)["latency"].to_numpy() * 1e-3
    assert np.mean(np.abs(costs / truth - 1)) < 0.2
    shown = joulemap("predict", predictor, "--widths", "6,16,120,84").stdout
    assert "90 % interval" in shown


def test_evaluate_names_errors_and_noise(predictor: Path, imported: Path) -> None:
    done = joulemap("evaluate", predictor, imported)
    assert done.returncode == 0, done.stderr
    assert "within 10 %" in done.stdout
    assert "Noise floor" in done.stdout
    figures = json.loads(joulemap("evaluate", predictor, imported, "--json").stdout)
    dataset = CostDataset.load(imported)
    prediction = models.load(predictor).predict(dataset.widths)
    expected = np.mean(np.abs(prediction / dataset.latency_s - 1))
    assert figures["mape"] == pytest.approx(expected)


def test_evaluating_on_the_training_rows_is_called_training_error(
    predictor: Path, imported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = in_this_process("evaluate", predictor, imported)
    assert code == 0
    assert "training error" in said
    shown = capsys.readouterr().out
    assert "training error" in shown
    assert "mean error" not in shown
    assert in_this_process("evaluate", predictor, imported, "--json")[0] == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["error"], figures["training_share"]) == ("training error", 1.0)


@pytest.mark.filterwarnings("default:fitted together")
def test_unlike_conditions_end_with_2_unless_they_are_allowed(
    predictor: Path, imported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = CostDataset.load(imported)
    frame = dataset.to_pandas().filter(regex="^(?!sparsity_)").assign(batch=8)
    CostDataset(frame, dataset.specs).save(tmp_path / "eight")
    csv, out = tmp_path / "widths.csv", tmp_path / "p"
    frame[[*dataset.width_names, "batch"]].iloc[:3].to_csv(csv, index=False)
    for arguments in (
        ["evaluate", predictor, tmp_path / "eight"],
        ["predict", predictor, "--csv", csv],
        ["fit", imported, tmp_path / "eight", "--model", "flops", "--out", out],
    ):
        code, said = in_this_process(*arguments)
        assert code == 2, said
        assert "batch 1 and 8" in said
        assert "--allow-different" in said
        assert not out.exists()
        code, said = in_this_process(*arguments, "--allow-different")
        assert code == 0, said
        assert "although unlike: batch 1 and 8" in said
        capsys.readouterr()
        if arguments[0] != "fit":
            assert in_this_process(*arguments, "--allow-different", "--json")[0] == 0
            named = json.loads(capsys.readouterr().out)["differences"]
            assert named == [{"name": "batch", "values": [[1], [8]]}]
    assert "batch" not in models.load(out).conditions_


def test_exports_run_without_joulemap(predictor: Path, tmp_path: Path) -> None:
    import onnxruntime

    onnx_file, torch_file = tmp_path / "p.onnx", tmp_path / "p.pt2"
    assert joulemap("export", predictor, "--to", "onnx", "--out", onnx_file).returncode == 0
    # A polynomial is smooth as it is.
    options = ("--to", "torch", "--smooth", "--out", torch_file)
    assert joulemap("export", predictor, *options).returncode == 0
    widths = np.array(sample(networks.get("lenet5"), 5), dtype=np.float64)
    expected = models.load(predictor).predict(widths)
    session = onnxruntime.InferenceSession(onnx_file, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    dtype = np.float64 if "double" in session.get_inputs()[0].type else np.float32
    got = session.run(None, {name: widths.astype(dtype)})[0]
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    code = (
        "import sys, torch\nsys.modules['joulemap'] = None\n"
        "module = torch.export.load(sys.argv[1]).module()\n"
        f"widths = torch.tensor({widths.tolist()})\n"
        "print(module(widths).tolist())\n"
    )
    command = [sys.executable, "-P", "-W", "ignore", "-c", code, str(torch_file)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    np.testing.assert_allclose(json.loads(said), expected, rtol=1e-5)


def test_mistakes_get_one_sentence_and_exit_code_2(
    tmp_path: Path, predictor: Path, imported: Path, table: Path
) -> None:
    out = tmp_path / "out"
    cases: list[tuple[list[Any], str]] = [
        (["profile", "local:", "--network", "nonet", "--out", out], "lenet5"),
        (["profile", "ftp:x", "--network", "lenet5", "--out", out], "local:"),
        ([*PROFILE, "--samples", "0", "--out", out], "at least 1"),
        ([*PROFILE, "--sampling", "magic", "--out", out], "known:"),
        ([*PROFILE, "--out", "/proc/nowhere"], "cannot write"),
        ([*PROFILE, "--out", imported], "imported dataset"),
        (["import", tmp_path / "none.csv", "--spec", "lenet5", "--out", out], "none.csv"),
        (["import", table, "--spec", "lenet5", "--out", out], "has no unit"),
        (["import", table, "--spec", "alexnet", "--unit", "latency=ms", "--out", out], "width"),
        (["import", table, "--spec", "lenet5", "--unit", "latency", "--out", out], "column=unit"),
        (["fit", tmp_path / "none", "--out", out], "no dataset at"),
        (["fit", imported, "--model", "magic", "--out", out], "bilinear"),
        (["fit", imported, "--target", "energy_j", "--out", out], "latency_s"),
        (["predict", predictor, "--widths", "1,2,3"], "4 widths"),
        (["predict", predictor, "--widths", "7,1,1,1"], "outside 1..6"),
        (["predict", predictor, "--widths", "a,1,1,1"], "not an int"),
        (["predict", predictor], "--widths or --csv"),
        (["predict", predictor, "--widths", "1,1,1,1", "--coverage", "1.5"], "coverage"),
        (["predict", table, "--widths", "1,1,1,1"], "lenet.csv"),
        (["predict", tmp_path / "none", "--widths", "1"], "none"),
        (["evaluate", predictor, tmp_path], "no dataset at"),
        (["export", predictor, "--to", "tflite"], "onnx, torch"),
        (["fit"], "Missing argument"),
        (["magic"], "No such command"),
        (["probe"], "Missing argument"),
    ]
    # In one process: each start costs a second; `refused` above shows it from outside.
    for arguments, message in cases:
        code, said = in_this_process(*arguments)
        assert code == 2, (arguments, code, said)
        assert message in said, (arguments, said)
        assert "Traceback" not in said
        assert not out.exists(), arguments
    assert "lenet5" in refused("profile", "local:", "--network", "nonet", "--out", out)


def test_too_few_samples_say_how_many(tmp_path: Path, table: Path) -> None:
    few = tmp_path / "few.csv"
    pd.read_csv(table).iloc[:3].to_csv(few, index=False)
    arguments = ["import", few, "--spec", "lenet5", "--unit", "latency=ms"]
    assert joulemap(*arguments, "--out", tmp_path / "few").returncode == 0
    said = refused("fit", tmp_path / "few", "--out", tmp_path / "p")
    assert "3" in said
    assert not (tmp_path / "p").exists()


def test_nan_in_a_users_table_is_named_by_row(tmp_path: Path, table: Path) -> None:
    text = table.read_text().splitlines()
    text[3] = text[3].rpartition(",")[0] + ",nan"
    bad = tmp_path / "bad.csv"
    bad.write_text("\n".join(text))
    arguments = ["import", bad, "--spec", "lenet5", "--unit", "latency=ms"]
    said = refused(*arguments, "--out", tmp_path / "out")
    assert "row 3" in said
    assert not (tmp_path / "out").exists()


def test_a_predictor_of_another_network_is_refused(predictor: Path, tmp_path: Path) -> None:
    spec = networks.get("alexnet")
    frame = pd.DataFrame(sample(spec, 3), columns=list(spec.width_names))
    frame["latency_s"] = 0.1
    CostDataset.from_frame(frame, spec).save(tmp_path / "alex")
    assert "another network" in refused("evaluate", predictor, tmp_path / "alex")


def test_debug_shows_the_traceback() -> None:
    done = joulemap("--debug", "probe", "nowhere:")
    assert done.returncode == 2
    assert "Traceback" in done.stderr


def test_report_writes_a_page_and_gives_json(
    imported: Path, predictor: Path, tmp_path: Path
) -> None:
    out = tmp_path / "report.html"
    done = joulemap("report", imported, "--predictor", predictor, "--out", out)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for said in ("60 variants of lenet5", "held-out error", "95 %", "Noise floor", f"Wrote {out}"):
        assert said in done.stdout, said
    assert out.read_text(encoding="utf-8").startswith("<!doctype html>")
    again = joulemap("report", imported, "--predictor", predictor, "--out", out, "--json")
    result = json.loads(again.stdout)
    assert result["file"] == str(out)
    assert result["error"]["low"] < result["error"]["value"] < result["error"]["high"]
    assert result["noise_floor"] is None
    assert result["unit"] == "s"


def test_report_refuses_in_one_sentence(
    imported: Path, predictor: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report.html"
    spec = networks.get("alexnet")
    other = tmp_path / "alexnet.safetensors"
    models.FlopsPredictor(spec).fit([spec.max_widths, spec.min_widths], [2.0, 1.0]).save(other)
    for folder, of, to, sentence in (
        (imported, None, out, "--predictor"),
        (imported, predictor, tmp_path / "no/report.html", "there is no folder"),
        (tmp_path / "no", predictor, out, "no dataset at"),
        (imported, other, out, "another network"),
    ):
        given = [] if of is None else ["--predictor", str(of)]
        assert cli.main(["report", str(folder), *given, "--out", str(to)]) == 2
        done = capsys.readouterr()
        assert sentence in " ".join(done.err.split())
        assert "Traceback" not in done.err
        assert done.out == ""
    assert not out.exists()


def test_a_new_device_is_measured_where_it_tells_most(tmp_path: Path) -> None:
    options = ["--network", "lenet5", "--visit-s", "0.02", "--visits", "2"]
    known, new = tmp_path / "known", tmp_path / "new"
    source, out = tmp_path / "known.safetensors", tmp_path / "new.safetensors"
    spec = networks.get("lenet5")
    widths = np.array(sample(spec, 40))
    array = models.SystolicArrayModel(spec, "eyeriss", quantity="latency")
    frame = pd.DataFrame(widths, columns=spec.width_names).assign(latency_s=array.predict(widths))
    CostDataset.from_frame(frame, spec, units={"latency_s": "s"}).save(known)
    models.fit(CostDataset.load(known)).save(source)
    # More than the pool holds, and --from without --model transfer.
    transfer = ["profile", "sim:tpu", *options, "--from", source, "--out", new]
    assert (
        in_this_process("profile", "sim:tpu", *options, "--samples", "3000", *transfer[-4:])[0] == 2
    )
    assert in_this_process(*transfer, "--samples", "6")[0] == 0
    first = CostDataset.load(new).widths
    expected = choose_points(spec, [models.load(source)], 9)
    assert {tuple(row) for row in first.tolist()} == set(expected[:6])
    assert in_this_process(*transfer, "--samples", "9")[0] == 0
    assert {tuple(row) for row in CostDataset.load(new).widths.tolist()} == set(expected)
    code, said = in_this_process("profile", "sim:tpu", *options, "--samples", "9", "--out", new)
    assert code == 2
    assert "chosen by predictors of unknown there, sobol here" in said
    assert in_this_process("fit", new, "--model", "transfer", "--out", out)[0] == 2
    assert in_this_process("fit", new, "--from", source, "--out", out)[0] == 2
    assert (
        in_this_process("fit", new, "--model", "transfer", "--from", source, "--out", out)[0] == 0
    )
    assert isinstance(models.load(out), models.TransferPredictor)
    other = [
        "profile",
        "sim:tpu",
        "--network",
        "alexnet",
        "--from",
        source,
        "--out",
        tmp_path / "x",
    ]
    code, said = in_this_process(*other)
    assert code == 2
    assert "predicts lenet5, not alexnet" in said

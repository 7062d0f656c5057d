"""Settings in a TOML file: what is wrong is told with file and key, what is typed counts first."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from joulemap import InputError
from joulemap.datasets.journal import FILE_NAME, read_journal
from joulemap.profiler import CampaignSettings, Protocol
from joulemap.profiler.campaign.settings_file import read_settings, settings_of
from joulemap.profiler.command_line import cli

EXAMPLE = Path(__file__).parents[3] / "docs/campaign.toml"


def written(folder: Path, text: str) -> Path:
    file = folder / "campaign.toml"
    file.write_text(text)
    return file


def test_the_example_in_the_documents_names_every_setting_and_can_be_used(tmp_path: Path) -> None:
    settings = settings_of(read_settings(EXAMPLE), EXAMPLE)
    assert (settings.url, settings.network, settings.samples) == ("local:", "mobilenet_v1", 100)
    assert settings.protocol == Protocol()
    text = EXAMPLE.read_text()
    for item in dataclasses.fields(CampaignSettings):
        assert f"{item.name} = " in text or f"[{item.name}]" in text, item.name
    everything = re.sub(r"(?m)^# (\w+ = )", r"\1", text)
    assert everything.count("\n# ") == 1
    found = read_settings(written(tmp_path, everything))
    assert (found["resolution"], found["protocol"]["max_temperature_c"]) == (224, 60.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sample = 3", "unknown key 'sample'; did you mean 'samples'?"),
        ("visits = 3", "unknown key 'visits'; did you mean 'visits' under \\[protocol\\]?"),
        ("visit_s = 3", "did you mean 'max_visit_s' under"),
        ("from = ['a']", "did you mean 'sources'?"),
        ("rel-error = 1", "did you mean 'rel_error' under"),
        ("clean = true", "write it on the command line"),
        ("zzz = 1", "known: network, out"),
        ("[protocol]\nvisit = 3", "did you mean 'visits' under"),
        ("samples = 'many'", "samples is 'many'; it must be a whole number of at least 1, such as"),
        ("samples = true", "samples is True"),
        ("threads = 0", "threads is 0"),
        ("sources = 'a.safetensors'", "it must be a list of files"),
        ("lock_frequency = 1", "true or false"),
        ("widths = [5]", "width vectors"),
        ("protocol = 3", r"write its keys under a line \[protocol\]"),
        ("[protocol]\nvisits = 2.5", "protocol visits is '2.5'; it must be a whole number"),
        ("[protocol]\nvisits = true", "protocol visits is 'True'"),
        ("[protocol]\nvisits = 0", "protocol visits is 0"),
        ("[protocol]\nmax_visit_s = '1'", "it must be a number"),
        ("samples = ", "cannot be read as TOML"),
    ],
)
def test_a_mistake_is_told_with_the_file_the_key_and_what_to_write(
    text: str, message: str, tmp_path: Path
) -> None:
    file = written(tmp_path, text)
    with pytest.raises(InputError, match=message) as caught:
        read_settings(file)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "given", "message"),
    [
        (
            "out = 'x'",
            {},
            "campaign.toml: the network is missing; write --network NAME, or network",
        ),
        (
            "network = 'lenet5'",
            {},
            "campaign.toml: the folder is missing; write --out FOLDER, or out",
        ),
        ("network = 'lenet5'\nout = 'x'\nruntime = 'magic'\nsamples = 1", {}, "campaign.toml: unk"),
        ("network = 'lenet5'\nout = 'x'\nsamples = 1", {"runtime": "magic"}, "^unknown runtime"),
        ("network = 'lenet5'\nout = 'x'\nsamples = 1", {"threads": 0}, "^threads is 0"),
        (
            "network = 'lenet5'\nout = 'x'\nsamples = 1",
            {"protocol": {"visits": 0}},
            "^protocol vis",
        ),
    ],
)
def test_what_is_wrong_is_told_of_where_it_stands(
    text: str, given: dict[str, Any], message: str, tmp_path: Path
) -> None:
    file = written(tmp_path, text)
    with pytest.raises(InputError, match=message):
        settings_of(read_settings(file), file, **given)


def test_typed_options_count_before_the_file_and_the_same_command_continues(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    file = written(
        tmp_path,
        f"""
        url = "sim:eyeriss"
        network = "alexnet"
        out = "{out}"
        samples = 2
        seed = 4
        [protocol]
        visits = 1
        has_revisits = false
        max_further_visits = 0
        """,
    )
    command = ["profile", "--config", str(file), "--network", "lenet5", "--samples", "3", "--json"]
    assert cli.main(command) == 0
    assert json.loads(capsys.readouterr().out)["variants"] == 3
    kept = read_journal(out / FILE_NAME).campaign
    assert (kept.spec.name, kept.seed, kept.protocol["visits"]) == ("lenet5", 4, 1)
    before = (out / FILE_NAME).read_bytes()
    assert cli.main(command) == 0
    assert (out / FILE_NAME).read_bytes() == before
    assert cli.main([*command, "--visits", "2"]) == 2
    assert "protocol visits: 1 there, 2 here" in capsys.readouterr().err


def test_a_dry_run_says_what_would_be_measured_and_touches_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    command = ["profile", "ssh://nobody@nowhere.invalid", "--network", "lenet5", "--samples", "50"]
    command += ["--visits", "2", "--threads", "2", "--out", str(out), "--dry-run"]
    assert cli.main(command) == 0
    said = capsys.readouterr().out
    # Every variant twice, 40 of them twice again.
    assert "50 variants of lenet5 on ssh://nobody@nowhere.invalid" in said
    assert "180 visits; about 2:08 to go" in said
    assert "threads 2" in said
    assert "longer; --meter none" in said
    assert cli.main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["variants"], found["visits"], len(found["first_widths"])) == (50, 180, 5)
    assert found["duration_s"] == pytest.approx(180 * found["visit_s"])
    assert list(tmp_path.iterdir()) == []


def test_what_is_missing_is_named_without_a_file_too(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        ([], "the device is missing"),
        (["local:", "--out", "x"], "write --network NAME"),
        (["local:", "--network", "lenet5"], "write --out FOLDER"),
        (["--config", "none.toml"], "there is no file none.toml"),
    ):
        assert cli.main(["profile", *arguments]) == 2
        assert message in capsys.readouterr().err

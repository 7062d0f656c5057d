"""The same command over SSH as on this machine, through a real server."""

from __future__ import annotations

import json
import os
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from joulemap.datasets.journal import FILE_NAME, read_journal
from joulemap.profiler import Protocol, profile
from joulemap.profiler.command_line import cli

from ...calm_judgement import CALM
from ...device_agents.sshd import SshClientHome, Sshd, running_sshd

PROTOCOL = Protocol(
    visits=1,
    max_visit_s=0.05,
    max_attempts=10,
    max_further_visits=0,
    max_busy_share=1.0,
    start_timeout_s=0.1,
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with running_sshd(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.fixture(autouse=True)
def client(server: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SshClientHome:
    # Templates take long to make.
    monkeypatch.setenv(
        "XDG_CACHE_HOME", os.environ.get("XDG_CACHE_HOME") or f"{Path.home()}/.cache"
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return SshClientHome(tmp_path, server)


def test_a_campaign_over_ssh_is_the_one_on_this_machine(
    server: Sshd, client: SshClientHome, tmp_path: Path
) -> None:
    client.config.write_text(f"Host board\n HostName 127.0.0.1\n Port {server.port}\n User root\n")
    journals = []
    for url in ("local:", "ssh://board"):
        out = tmp_path / url.partition(":")[0]
        profile(url, "lenet5", samples=2, out=out, protocol=PROTOCOL, judgement=CALM)
        journals.append(read_journal(out / FILE_NAME))
    here, there = journals
    # Two variants, each visited again for the noise floor; the order of a rejected visit's further
    # attempts is the machine's.
    orders = [[visit.key for visit in each.visits if not visit.attempt] for each in journals]
    assert orders[0] == orders[1]
    assert len(orders[0]) == 4
    assert there.campaign.device["device_id"] == here.campaign.device["device_id"]
    assert set(there.campaign.device) == set(here.campaign.device)
    first = [visit for each in journals for visit in each.visits if not visit.attempt]
    assert all(visit.timing for visit in first)
    assert len({frozenset(visit.timing.machine) for visit in first if visit.timing}) == 1
    # Nothing is left there outside of the cache, but what onnxruntime itself leaves.
    left = [path for path in server.home.rglob("*") if path.is_file()]
    assert any(path.name.startswith("agent-") for path in left)
    cache = server.home / ".cache/joulemap"
    assert all(path.is_relative_to(cache) or ".onnxruntime" in path.parts for path in left)


def test_a_missing_runtime_is_named_with_the_line_that_installs_it(
    server: Sshd, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    venv.create(tmp_path / "bare")
    python = tmp_path / "bare/bin/python"
    url = f"ssh:{server.address}?python={python}"
    assert cli.main(["profile", url, "--network", "lenet5", "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert f"has no onnxruntime for its Python {python}" in said
    assert f"install it there with: {python} -m pip install onnxruntime" in said
    assert not (tmp_path / "out" / FILE_NAME).exists()


def test_probe_tells_of_clocks_and_of_hosts_that_are_not_known(
    server: Sshd,
    client: SshClientHome,
    capsys: pytest.CaptureFixture[str],
) -> None:
    client.known_hosts.write_text("")
    url = f"ssh:{server.address}?python={sys.executable}"
    assert cli.main(["probe", url]) == 1
    assert "--accept-new-host-key" in capsys.readouterr().err
    assert cli.main(["probe", url, "--accept-new-host-key", "--json"]) == 0
    clocks = json.loads(capsys.readouterr().out)["clocks"]["clocks"]
    # Both ends are one machine.
    for name in ("monotonic_s", "boot_s", "wall_s"):
        assert abs(clocks[name]["offset_s"]) < clocks[name]["offset_uncertainty_s"] + 0.01

"""What can be profiled from here."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import NoReturn

import pytest

from joulemap.models.systolic_hardware import PRESETS
from joulemap.profiler import cli
from joulemap.profiler.device_list import hosts_of, list_devices


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    return tmp_path / ".ssh/config"


def test_hosts_are_listed_with_the_way_there(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (config.parent / "more").write_text("Host orin\n  HostName 10.0.0.8\n  ProxyJump rpi4\n")
    config.write_text(
        "Include more\nHost rpi4 rpi4.lab *.lab !rpi5 ?x\n  User pi\n  Port 2222\n"
        "Host bad\n  ProxyCommand a | b\nHost *\n  User me\n"
    )

    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("a host was asked over the network")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    found = [each for each in list_devices().devices if each.kind == "ssh"]
    assert [each.url for each in found] == [
        "ssh://orin",
        "ssh://rpi4",
        "ssh://rpi4.lab",
        "ssh://bad",
    ]
    assert found[0].description == "me@10.0.0.8, through rpi4"
    assert found[1].description == "pi@rpi4, port 2222"
    assert "needs a shell" in str(found[3].advice)


def test_lines_that_name_no_host_are_left_out() -> None:
    lines = [
        "host a b # c",
        "Host=d",
        "HostName x",
        "Host 'unclosed",
        "Host -o",
        "Host a",
        "# Host y",
    ]
    assert hosts_of(lines) == ["a", "b", "d"]


def test_this_machine_and_the_simulators_are_always_there(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["devices"]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert cli.main(["devices", "--json"]) == 0
    urls = [each["url"] for each in json.loads(capsys.readouterr().out)["devices"]]
    assert urls[0] == "local:"
    assert {f"sim:{name}" for name in PRESETS} <= set(urls)
    assert all(url in shown for url in urls)


def test_a_configuration_that_cannot_be_read_is_an_error(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.mkdir()
    assert cli.main(["devices"]) == 2
    assert "cannot be read" in capsys.readouterr().err

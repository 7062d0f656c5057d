"""What can be profiled from here."""

from __future__ import annotations

import json
import socket
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from joulemap.device_agents.transports.ssh_config_files import hosts_of
from joulemap.device_agents.transports.ssh_settings import SshUrl, resolve
from joulemap.models.systolic.hardware import PRESETS
from joulemap.profiler.command_line import cli
from joulemap.profiler.command_line.device_list import list_devices


class AdbServer(socketserver.ThreadingTCPServer):
    """Answers every request as an adb server does one for its devices."""

    daemon_threads = True
    answer = b""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            asked = self.rfile.read(int(self.rfile.read(4), 16))
            assert asked == b"host:devices-l"
            assert isinstance(self.server, AdbServer)
            self.wfile.write(self.server.answer)

    def list(self, text: str) -> None:
        self.answer = b"OKAY" + f"{len(text):04x}{text}".encode()


@pytest.fixture(autouse=True)
def adb_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[AdbServer]:
    """Stand in for the adb server: no real device can be made unauthorized at will."""
    with AdbServer(("127.0.0.1", 0), AdbServer.Handler) as server:
        server.list("")
        monkeypatch.delenv("ADB_SERVER_SOCKET", raising=False)
        monkeypatch.delenv("ANDROID_ADB_SERVER_ADDRESS", raising=False)
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(server.server_address[1]))
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    return tmp_path / ".ssh/config"


def test_phones_are_listed_with_what_to_do_about_them(
    adb_server: AdbServer, capsys: pytest.CaptureFixture[str]
) -> None:
    adb_server.list(
        "R58M123ABC     device usb:1-2 product:a52 model:SM_A525F device:a52q transport_id:1\n"
        "emulator-5554  offline transport_id:2\n"
        "XYZ            unauthorized usb:1-3 transport_id:3\n"
    )
    found = [each for each in list_devices().devices if each.kind == "adb"]
    assert [each.url for each in found] == ["adb:R58M123ABC", "adb:emulator-5554", "adb:XYZ"]
    assert (found[0].description, found[0].advice) == ("SM A525F", None)
    assert "adb reconnect" in str(found[1].advice)
    assert "unlock its screen" in str(found[2].advice)
    assert cli.main(["devices"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "'XYZ' is in state 'unauthorized'" in shown


def test_each_phone_is_listed_with_a_url_that_names_it_alone(adb_server: AdbServer) -> None:
    adb_server.list(
        "adb-4c75-lL2h (2)._adb-tls-connect._tcp device product:p model:m device:d transport_id:3\n"
        "0123456789ABCDEF       device usb:3-3 model:board_x transport_id:1\n"
        "0123456789ABCDEF       device usb:3-4 model:board_x transport_id:2\n"
    )
    assert [each.url for each in list_devices().devices if each.kind == "adb"] == [
        "adb:adb-4c75-lL2h%20%282%29._adb-tls-connect._tcp",
        "adb:usb:3-3",
        "adb:usb:3-4",
    ]


def test_a_list_runs_no_program_and_shows_what_is_known_later(config: Path, tmp_path: Path) -> None:
    config.write_text(
        f'Match host pi exec "touch {tmp_path}/ran"\n User x\nHost pi # the lab\n'
        "Host Rasp/Arch lab#1 [x] a:b\n HostName 10.0.0.9\n"
    )
    found = {each.url: each for each in list_devices().devices if each.kind == "ssh"}
    assert not (tmp_path / "ran").exists()
    assert list(found) == [
        "ssh://pi",
        "ssh://Rasp/Arch",
        "ssh://lab%231",
        "ssh://%5Bx%5D",
        "ssh://[a:b]",
    ]
    assert "known once it is connected" in found["ssh://pi"].description
    assert found["ssh://pi"].advice is None
    for url in list(found)[1:]:
        assert resolve(SshUrl.parse(url.removeprefix("ssh:")))[-1].host == "10.0.0.9"


def test_a_configuration_that_openssh_refuses_is_said_beside_its_hosts(config: Path) -> None:
    config.write_text("\ufeffHost pi\n HostName 10.0.0.7\n")
    (found,) = [each for each in list_devices().devices if each.kind == "ssh"]
    assert found.url == "ssh://pi"
    assert "byte order mark" in str(found.advice)


def test_an_adb_server_that_fails_leaves_the_others_listed(adb_server: AdbServer) -> None:
    adb_server.answer = b"HTTP/1.1 400"
    found = list_devices()
    assert found.devices[0].url == "local:"
    assert "phones are not listed" in found.notes[0]


def test_hosts_are_listed_with_the_way_there(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (config.parent / "more").write_text("Host orin\n  HostName 10.0.0.8\n  ProxyJump rpi4\n")
    config.write_text(
        "Include more\nHost rpi4 rpi4.lab *.lab !rpi5 ?x\n  User pi\n  Port 2222\n"
        "Host bad\n  ProxyCommand a | b\nHost *\n  User me\n"
    )

    look_up = socket.getaddrinfo

    def only_here(host: str, *rest: Any, **options: Any) -> Any:
        assert host == "127.0.0.1", "a host was asked over the network"
        return look_up(host, *rest, **options)

    # Whatever connects looks the address up first.
    monkeypatch.setattr(socket, "getaddrinfo", only_here)
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
    assert {f"sim:{name}" for name in (*PRESETS, "board")} <= set(urls)
    assert all(url in shown for url in urls)


def test_a_configuration_that_cannot_be_read_is_an_error(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.mkdir()
    assert cli.main(["devices"]) == 2
    assert "cannot be read" in capsys.readouterr().err

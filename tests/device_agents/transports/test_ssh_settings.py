"""What URLs and OpenSSH configurations mean."""

from __future__ import annotations

import getpass
from pathlib import Path

import pytest

from joulemap import InputError
from joulemap.device_agents.transports.ssh_settings import Hop, SshUrl, config_lines, resolve


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    return tmp_path / ".ssh/config"


def _route(address: str) -> tuple[Hop, ...]:
    return resolve(SshUrl.parse(address))


def test_all_parts_of_a_url_are_read() -> None:
    url = SshUrl.parse(
        "//pi@rpi4.local:2222?device=cuda:1&python=/opt/venv/bin/python&cache=/data/j"
    )
    assert url == SshUrl("rpi4.local", "pi", 2222, "cuda:1", "/opt/venv/bin/python", "/data/j")
    assert SshUrl.parse("//[fe80::1%eth0]:22/") == SshUrl("fe80::1%eth0", None, 22)
    assert SshUrl.parse("//board") == SshUrl("board")


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("", "write ssh://"),
        ("pi@rpi4", "write ssh://"),
        ("//", "names no user and host"),
        ("//pi@", "names no user and host"),
        ("//-oProxyCommand=id", "names no user and host"),
        ("//-x@host", "names no user and host"),
        ("//a b", "names no user and host"),
        ("//host;id", "names no user and host"),
        ("//$(id)", "names no user and host"),
        ("//pi:secret@host", "holds a password"),
        ("//host:0", "not a port"),
        ("//host:65536", "not a port"),
        ("//host:ssh", "not a port"),
        ("//host/path", "write ssh://"),
        ("//host?speed=1", "unknown option 'speed'; known: device, python, cache"),
        ("//host?device", "write ssh://"),
        ("//host?device=CUDA 1", "cannot be a device"),
        ("//host?device=cuda:1&device=cuda:2", "names an option twice"),
        ("//host?python=$(id)", "cannot be a python"),
        ("//host?cache=relative", "cannot be a cache"),
    ],
)
def test_another_url_is_refused(address: str, problem: str) -> None:
    with pytest.raises(InputError) as caught:
        SshUrl.parse(address)
    assert problem in str(caught.value)
    assert "secret" not in str(caught.value)


def test_the_configuration_fills_what_the_url_leaves_open(config: Path) -> None:
    config.write_text(
        "Host board\n  HostName 10.0.0.7\n  User pi\n  Port 2222\n  IdentityFile ~/.ssh/board\n"
        "  HostKeyAlias board-key\n  Compression no\n  UserKnownHostsFile ~/.ssh/mine\n"
        "Host *\n  User somebody\n"
    )
    (hop,) = _route("//board")
    assert (hop.host, hop.user, hop.port, hop.key_name) == ("10.0.0.7", "pi", 2222, "board-key")
    assert hop.identity_files == (config.parent / "board",)
    assert hop.known_hosts_files == (config.parent / "mine",)
    assert not hop.is_compressed
    (hop,) = _route("//root@board:99")
    assert (hop.host, hop.user, hop.port) == ("10.0.0.7", "root", 99)
    (hop,) = _route("//other")
    assert (hop.host, hop.user, hop.port, hop.key_name) == ("other", "somebody", 22, "other")


def test_without_a_configuration_the_local_user_logs_in() -> None:
    (hop,) = _route("//host:2222")
    assert (hop.user, hop.key_name) == (getpass.getuser(), "[host]:2222")


def test_included_files_stand_in_their_places(config: Path) -> None:
    (config.parent / "config.d").mkdir()
    (config.parent / "config.d/one").write_text("Host one\n  Port 1001\n")
    (config.parent / "config.d/two").write_text("Host two\n  Port 1002\n")
    config.write_text(
        "Include config.d/* nothing-there\nHost board\n  Include ~/.ssh/config.d/one\n  Port 1003\n"
    )
    assert [_route(f"//{name}")[0].port for name in ("one", "two", "board")] == [1001, 1002, 1003]


def test_files_that_include_each_other_are_refused(config: Path) -> None:
    config.write_text("Include config\n")
    with pytest.raises(InputError, match="include each other"):
        list(config_lines(config))


def test_a_jump_host_has_settings_of_its_own(config: Path) -> None:
    config.write_text(
        "Host board\n  ProxyJump root@a:2201, b\nHost a\n  HostName 10.0.0.1\n  ProxyJump outer\n"
        "Host b\n  User bee\n  ProxyJump ignored\n"
    )
    route = _route("//pi@board")
    assert [(hop.alias, hop.user, hop.port) for hop in route][1:] == [
        ("a", "root", 2201),
        ("b", "bee", 22),
        ("board", "pi", 22),
    ]
    assert [hop.host for hop in route] == ["outer", "10.0.0.1", "b", "board"]


def test_a_jump_for_all_hosts_does_not_hold_for_itself(config: Path) -> None:
    config.write_text("Host *\n  ProxyJump gate\n")
    assert [hop.alias for hop in _route("//board")] == ["gate", "board"]
    assert [hop.alias for hop in _route("//gate")] == ["gate"]
    config.write_text("Host board\n  ProxyJump none\nHost *\n  ProxyJump gate\n")
    assert [hop.alias for hop in _route("//board")] == ["board"]


def test_jumps_in_a_circle_are_refused(config: Path) -> None:
    config.write_text("Host a\n  ProxyJump b\nHost b\n  ProxyJump a\n")
    with pytest.raises(InputError, match="in a circle: a -> b -> a"):
        _route("//a")


def test_a_proxy_command_becomes_a_program_with_arguments(config: Path) -> None:
    config.write_text("Host board\n  ProxyCommand exec tunnel --to '%h' %p \"a b\"\n")
    (hop,) = _route("//board:2222")
    assert hop.proxy_command == ("tunnel", "--to", "board", "2222", "a b")


@pytest.mark.parametrize("command", ["ssh gate nc %h %p 2>/dev/null", "a | b", "a $(b)", "'a"])
def test_a_proxy_command_for_a_shell_is_refused(config: Path, command: str) -> None:
    config.write_text(f"Host board\n  ProxyCommand {command}\n")
    with pytest.raises(InputError, match=r"ProxyCommand of board (needs a shell|cannot be read)"):
        _route("//board")


def test_programs_of_match_lines_are_not_run(config: Path, tmp_path: Path) -> None:
    config.write_text(
        f'Match originalhost board exec "touch {tmp_path}/ran"\n  Port 1\nMatch host board\n'
        "  User pi\n"
    )
    (hop,) = _route("//board")
    assert (hop.port, hop.user) == (22, "pi")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("criteria", ["!exec 'touch {}'", "EXEC 'touch {}'", '"exec" "touch {}"'])
def test_no_other_way_to_write_a_program_in_a_match_line_runs_it(
    config: Path, tmp_path: Path, criteria: str
) -> None:
    config.write_text(f"Match host board {criteria.format(tmp_path / 'ran')}\n  Port 1\n")
    assert _route("//board")[0].port == 22
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("criteria", "is_met"),
    [
        ("HOST board", True),
        ("!host board", False),
        ("host b* originalhost board", True),
        ("all", True),
        ("localnetwork 10.0.0.0/8", False),
        ("host board tagged lab", False),
    ],
)
def test_a_match_line_means_what_openssh_reads_in_it(
    config: Path, criteria: str, is_met: bool
) -> None:
    config.write_text(f"Match {criteria}\n  Port 2222\n")
    assert (_route("//board")[0].port == 2222) is is_met


def test_of_a_proxy_command_and_a_jump_the_first_holds(config: Path) -> None:
    config.write_text("Host board\n  ProxyCommand tunnel %h\nHost *\n  ProxyJump gate\n")
    (hop,) = _route("//board")
    assert hop.proxy_command == ("tunnel", "board")
    config.write_text("Host board\n  ProxyCommand none\nHost *\n  ProxyJump gate\n")
    (hop,) = _route("//board")
    assert hop.proxy_command is None
    config.write_text("Host board\n  ProxyJump gate\nHost *\n  ProxyCommand tunnel %h\n")
    assert [(hop.alias, hop.proxy_command) for hop in _route("//board")] == [
        ("gate", ("tunnel", "gate")),
        ("board", None),
    ]


def test_which_agent_is_asked_is_read(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", "/run/agent")
    monkeypatch.setenv("OTHER", "/run/other")
    for line, socket in (
        ("", "/run/agent"),
        ("IdentityAgent none", None),
        ("IdentityAgent SSH_AUTH_SOCK", "/run/agent"),
        ("IdentityAgent $OTHER", "/run/other"),
        ("IdentityAgent ~/.ssh/agent", str(config.parent / "agent")),
    ):
        config.write_text(f"Host board\n  IdentitiesOnly yes\n  {line}\n")
        (hop,) = _route("//board")
        assert (hop.agent_socket, hop.identities_only) == (socket, True)


@pytest.mark.parametrize(
    "text",
    [
        "Include ~nobody-here/config\n",
        "GlobalKnownHostsFile '\n",
        "Match host 'board\n",
    ],
)
def test_what_cannot_be_read_is_an_error_with_words(config: Path, text: str) -> None:
    config.write_text(text)
    with pytest.raises(InputError, match="SSH configuration"):
        _route("//board")


def test_an_included_root_folder_is_no_file(config: Path) -> None:
    config.write_text("Include /\nPort 2222\n")
    assert _route("//board")[0].port == 2222


@pytest.mark.parametrize(
    "text", ["nonsense\n", "Host board\n  Port x\n", "Host board\n  HostName 'a;b'\n", "Match\n"]
)
def test_a_configuration_that_makes_no_sense_is_named(config: Path, text: str) -> None:
    config.write_text(text)
    with pytest.raises(InputError, match=r"SSH configuration|port of board"):
        _route("//board")


def test_a_configuration_that_cannot_be_read_is_named(config: Path) -> None:
    config.mkdir()
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        _route("//board")

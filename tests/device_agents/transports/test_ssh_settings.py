"""What URLs and OpenSSH configurations mean."""

from __future__ import annotations

import getpass
from pathlib import Path
from socket import AF_INET6
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from joulemap import InputError
from joulemap.device_agents.transports.ssh_config import UndecidedError
from joulemap.device_agents.transports.ssh_settings import Hop, SshUrl, resolve


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


NAMES = st.text(
    st.characters(codec="utf-8", categories=["L", "N"], include_characters="._+=~@#%:?-!*^/"),
    min_size=1,
    max_size=20,
).filter(lambda text: not text.startswith("-"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(NAMES, NAMES.filter(lambda text: "/" not in text), st.integers(1, 65535))
def test_any_name_has_a_url(user: str, host: str, port: int) -> None:
    written = f"//{quote(user, safe='')}@{quote(host, safe='')}:{port}"
    assert SshUrl.parse(written) == SshUrl(host, user, port)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=40).map(lambda text: f"//{text}"))
def test_no_address_brings_a_word_for_a_shell_or_an_option(address: str) -> None:
    try:
        url = SshUrl.parse(address)
    except InputError:
        return
    for name in (url.host, url.user or "x"):
        assert not name.startswith("-")
        assert name.isprintable()
        assert not set(name) & set("'`\"$;&<>|(){} ") - set("$" if name.endswith("$") else "")


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
        _route("//board")


def test_a_jump_is_read_as_openssh_reads_it(config: Path) -> None:
    config.write_text("Host board\n  ProxyJump CORP\\a@b:ssh,ssh://c@[fd00::1]:22/ # home\n")
    assert [(hop.user, hop.host, hop.port) for hop in _route("//board")][:2] == [
        ("CORP\\a", "b", 22),
        ("c", "fd00::1", 22),
    ]
    config.write_text("ProxyJump me:secret@gate\n")
    with pytest.raises(InputError, match="holds a password") as caught:
        _route("//board")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("nc %h %p # through the gate", ("nc", "board", "22")),
        ("~/bin/tunnel ~ '~/x' a~b", ("HOME/bin/tunnel", "HOME", "~/x", "a~b")),
        ("a 'b;c' \"d|e 'f\" g\\ h '$x' i#j", ("a", "b;c", "d|e 'f", "g h", "$x", "i#j")),
        ('prog %n %r --x=%%h "%h:%p"', ("prog", "board", "pi", "--x=%h", "board:22")),
        (
            "sh -c \"aws --target %h --parameters 'portNumber=%p'\"",
            ("sh", "-c", "aws --target board --parameters 'portNumber=22'"),
        ),
    ],
)
def test_a_proxy_command_is_split_as_a_shell_would(
    config: Path, command: str, words: tuple[str, ...]
) -> None:
    config.write_text(f"Host board\n  User pi\n  ProxyCommand {command}\n")
    (hop,) = _route("//board")
    assert hop.proxy_command == tuple(word.replace("HOME", str(Path.home())) for word in words)


def test_a_proxy_that_passes_a_descriptor_is_refused(config: Path) -> None:
    config.write_text("ProxyCommand nc -F %h %p\nProxyUseFdpass yes\n")
    with pytest.raises(InputError, match="ProxyUseFdpass"):
        _route("//board")


def test_an_alias_may_hold_what_the_configuration_names(config: Path) -> None:
    config.write_text("Host RaspberyPi/Arch a+b,c lab#1 x?y\n  HostName 10.0.0.9\n")
    for address in ("//RaspberyPi/Arch", "//pi@RaspberyPi%2FArch:22", "//lab%231", "//a+b%2Cc"):
        with_comma = "%2C" in address
        if with_comma:
            with pytest.raises(InputError):
                _route(address)
            continue
        assert _route(address)[-1].host == "10.0.0.9"
    with pytest.raises(InputError, match="write ssh://"):
        SshUrl.parse("//RaspberyPi/Other")


@pytest.mark.parametrize("user", ["CORP\\alice", "alice@corp.example", "CORP+alice", "me%gate#x:1"])
def test_users_of_domains_and_of_gates_log_in(config: Path, user: str) -> None:
    written = user.replace("%", "%25").replace("#", "%23").replace(":", "%3a")
    assert _route(f"//{written}@board")[0].user == user
    if "%" not in user:
        config.write_text(f"Host board\n  User {user}\n")
        assert _route("//board")[0].user == user


@pytest.mark.parametrize(
    "user", ["a;b", "$(id)", "`id`", "a b", "-x", "a\\", "a|b", "a\nb", "a\u202eb"]
)
def test_a_user_who_is_a_command_is_refused(config: Path, user: str) -> None:
    config.write_text(f'Host board\n  User "{user}"\n')
    with pytest.raises(InputError):
        _route("//board")


def test_what_is_said_of_addresses_times_and_keys_is_read(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.write_text(
        "Host board\n  AddressFamily inet6\n  BindAddress ::1\n  ConnectTimeout 1m\n"
        "  ServerAliveInterval 5\n  IdentityFile ${HOME}/%r@%h\n  IdentityFile none\n"
        "  CertificateFile ~/c.pub\n  RevokedHostKeys %d/revoked\n  Ciphers +aes128-cbc\n"
    )
    (hop,) = _route("//pi@board")
    assert (hop.address_family, hop.bind_address) == (AF_INET6, "::1")
    assert (hop.connect_timeout_s, hop.keepalive_s) == (60.0, 5.0)
    home = config.parent.parent
    assert (hop.identity_files, hop.uses_usual_keys) == ((home / "pi@board",), False)
    assert hop.certificate_files == (home / "c.pub",)
    assert hop.revoked_keys_file == home / "revoked"
    assert hop.algorithms == (("ciphers", "+aes128-cbc"),)
    (hop,) = _route("//other")
    assert (hop.uses_usual_keys, hop.connect_timeout_s) == (True, None)
    config.write_text("BindInterface eth0\n")
    with pytest.raises(InputError, match="BindInterface"):
        _route("//board")


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


@pytest.mark.parametrize(
    "command",
    [
        *("ssh gate nc %h %p 2>/dev/null", "a | b", "a $(b)", '"a $B"', "a *.x", "a {b,c}"),
        *("FOO=1 a", "! a", "if a", "a\\", "# a", "exec"),
    ],
)
def test_a_proxy_command_for_a_shell_is_refused(config: Path, command: str) -> None:
    config.write_text(f"Host board\n  ProxyCommand {command}\n")
    with pytest.raises(InputError, match=r"ProxyCommand of board (needs a shell|cannot be read)"):
        _route("//board")


@pytest.mark.parametrize(
    "criteria",
    [
        'exec "touch {}"',
        "!exec 'touch {}'",
        "EXEC 'touch {}'",
        '"exec" "touch {}"',
        "exec=touch={}",
    ],
)
def test_no_program_of_a_match_line_is_run_here(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, criteria: str
) -> None:
    """OpenSSH runs them when it is asked, never joulemap, and never for a list of hosts."""
    config.write_text(f"Match host board {criteria.format(tmp_path / 'ran')}\n  Port 1\n")
    with pytest.raises(UndecidedError):
        resolve(SshUrl.parse("//board"), may_ask=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="only OpenSSH's own client knows"):
        _route("//board")
    assert not (tmp_path / "ran").exists()
    (hop,) = _route("//other")
    assert hop.port == 22


def test_what_a_match_lines_program_says_holds_as_in_openssh(config: Path) -> None:
    config.write_text(
        'Match originalhost board exec "test %r = pi"\n  Port 1\nMatch host board\n  User pi\n'
    )
    assert [(hop.port, hop.user) for hop in _route("//pi@board")] == [(1, "pi")]
    assert [(hop.port, hop.user) for hop in _route("//board")] == [(22, "pi")]


@pytest.mark.parametrize(
    ("criteria", "is_met"),
    [
        ("HOST board", True),
        ("!host board", False),
        ("host b* originalhost board", True),
        ("all", True),
        ("all # of them", True),
        ("host board # only the lab", True),
        ("host board tagged lab", False),
        ("host board exec false", False),
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
    with pytest.raises(InputError, match="cannot be read: it is a folder"):
        _route("//board")

"""What a device's SSH URL means: the URL's own parts and what the user's OpenSSH configuration adds."""

from __future__ import annotations

import getpass
import glob
import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from joulemap import InputError

FORM = "ssh://user@host:port?device=cuda:1&python=/opt/venv/bin/python&cache=/data/joulemap"
DEFAULT_PORT = 22
MAX_HOPS = 8

_MAX_CONFIG_BYTES = 1 << 20
_MAX_INCLUDES = 16
# Strict, since these reach the tokens of a ProxyCommand and lines of known_hosts.
_USER = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.@-]{0,63}\$?\Z")
_HOST = re.compile(
    r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}\Z|[0-9A-Fa-f:.]{2,45}(%[A-Za-z0-9_.-]{1,32})?\Z"
)
_TARGET = re.compile(
    r"(?:(?P<user>[^/?#]*)@)?(?:\[(?P<six>[^\]]*)\]|(?P<host>[^:/?#\[\]]*))(?::(?P<port>[^/?#]*))?\Z"
)
_OPTIONS = {
    "device": re.compile(r"[a-z][a-z0-9_]{0,31}(:[0-9]{1,3})?\Z"),
    "python": re.compile(r"[A-Za-z0-9_./~+ -]{1,1024}\Z"),
    "cache": re.compile(r"/[^\x00-\x1f]{0,1023}\Z"),
}
# A shell would have to read these; a command with them is refused, never handed to one.
_SHELL_ONLY = set(";|&<>$`()")
# What a Match line may ask for: with a word after it, and alone.
_CRITERIA = ("host", "originalhost", "user", "localuser")
_CRITERIA_ALONE = ("all", "canonical", "final")
_NEVER = "Match originalhost !*"


@dataclass(frozen=True)
class SshUrl:
    """A device's URL, `ssh://user@host:port?device=...&python=...&cache=...`.

    Attributes:
        host: As written: an address, a name, or an alias of the SSH configuration.
        user: Who logs in; the configuration or the local user decides when None.
        port: The configuration or 22 decides when None.
        device: What of the machine runs variants, such as `cuda:1`; the runtime decides when None.
        python: The interpreter there; found by itself when None.
        cache: Folder for joulemap's files there; the user's cache folder when None.
    """

    host: str
    user: str | None = None
    port: int | None = None
    device: str | None = None
    python: str | None = None
    cache: str | None = None

    @classmethod
    def parse(cls, address: str) -> SshUrl:
        """Return the parts of what follows `ssh:` in a URL.

        Raises:
            InputError: It is not of that form.
        """
        url = f"ssh:{address}"
        target, mark, query = address.partition("?")
        if not target.startswith("//"):
            raise InputError(f"device '{url}' cannot be read; write {FORM}")
        user, host, port = _split_target(target[2:].rstrip("/"), f"device '{url}'")
        try:
            pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(mark))
        except ValueError as error:
            raise InputError(f"device '{url}' cannot be read; write {FORM}") from error
        options = dict(pairs)
        for name, value in options.items():
            if name not in _OPTIONS:
                raise InputError(
                    f"device '{url}' has an unknown option '{name}'; known: {', '.join(_OPTIONS)}"
                )
            if not _OPTIONS[name].match(value):
                raise InputError(f"device '{url}': '{value}' cannot be a {name}; write {FORM}")
        if len(options) < len(pairs):
            raise InputError(f"device '{url}' names an option twice")
        return cls(host, user, port, **options)


@dataclass(frozen=True)
class Hop:
    """One SSH server on the way, as the configuration resolves it.

    Attributes:
        alias: As the user calls it, for messages.
        host: Address or name that is connected to.
        port: Its port.
        user: Who logs in.
        key_name: Name in known_hosts.
        identity_files: Private keys to try first.
        known_hosts_files: The user's files of host keys; new keys go into the first.
        system_known_hosts_files: The system's.
        proxy_command: A program whose standard streams are the connection; None without.
        is_compressed: Whether to ask for compression.
        identities_only: Whether no keys of the SSH agent are tried but those of the files.
        agent_socket: The SSH agent's; None where there is none to ask.
    """

    alias: str
    host: str
    port: int
    user: str
    key_name: str
    identity_files: tuple[Path, ...]
    known_hosts_files: tuple[Path, ...]
    system_known_hosts_files: tuple[Path, ...]
    proxy_command: tuple[str, ...] | None = None
    is_compressed: bool = True
    identities_only: bool = False
    agent_socket: str | None = None


def resolve(url: SshUrl) -> tuple[Hop, ...]:
    """Return the servers on the way, the device last.

    Raises:
        InputError: The configuration cannot be read or asks for what is not offered.
    """
    return tuple(_route(_configuration(), url.host, url.user, url.port, ()))


def config_lines(path: Path, depth: int = 0) -> Iterator[str]:
    """Return the lines of an SSH configuration file with the files that it includes in their places.

    A file that is not there has no lines.

    Raises:
        InputError: It cannot be read, or files include each other without end.
    """
    if depth > _MAX_INCLUDES:
        raise InputError(f"{path}: files of the SSH configuration include each other too deeply")
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_CONFIG_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise InputError(
            f"the SSH configuration {path} cannot be read: {error.strerror}"
        ) from error
    if len(content) > _MAX_CONFIG_BYTES:
        raise InputError(f"the SSH configuration {path} is larger than {_MAX_CONFIG_BYTES} bytes")
    block = "Host *"
    for line in content.decode("utf-8", "replace").splitlines():
        keyword, value = _split_line(line)
        if keyword in ("host", "match"):
            block = line
        if keyword != "include":
            yield line
            continue
        try:
            patterns = shlex.split(value)
        except ValueError as error:
            raise InputError(f"{path}: the line '{line.strip()}' cannot be read") from error
        for pattern in patterns:
            for included in _included(pattern, path):
                yield from config_lines(included, depth + 1)
        # What the included file opened ends with it.
        yield block


def user_config_path() -> Path:
    """Return the user's SSH configuration file."""
    return Path.home() / ".ssh" / "config"


def _configuration() -> str:
    """Return the text of the user's configuration, followed by the system's."""
    lines = []
    for path in (user_config_path(), Path("/etc/ssh/ssh_config")):
        lines.append("Host *")
        for line in config_lines(path):
            keyword, value = _split_line(line)
            lines.append(_match_line(value) if keyword == "match" else line)
    return "\n".join(lines)


def _match_line(criteria: str) -> str:
    """Return a Match line that means what OpenSSH reads in it, or never matches.

    `exec` runs a command of the configuration's in a shell, and of criteria that it does not know
    the reader of the configuration takes each as met: with one of those the block never matches.
    """
    try:
        words = shlex.split(criteria)
    except ValueError:
        words = []
    keywords = []
    rest = iter(words)
    for word in rest:
        keyword = word.lower().removeprefix("!")
        if keyword not in (*_CRITERIA, *_CRITERIA_ALONE):
            return _NEVER
        keywords.append(word.lower())
        if keyword in _CRITERIA:
            keywords += [text for text in [next(rest, None)] if text is not None]
    return f"Match {shlex.join(keywords)}"


def _route(
    config: str, alias: str, user: str | None, port: int | None, before: tuple[str, ...]
) -> list[Hop]:
    if alias in before or len(before) >= MAX_HOPS:
        raise InputError(
            f"the SSH configuration jumps in a circle: {' -> '.join((*before, alias))}; mend "
            "ProxyJump there"
        )
    options = _lookup(config, alias, user, port)
    hop = _hop(options, alias)
    jumps = str(options.get("proxyjump") or "none")
    targets = (
        []
        if jumps.lower() == "none"
        else [
            _split_target(text.strip().removeprefix("ssh://"), f"ProxyJump '{jumps}' of {alias}")
            for text in jumps.split(",")
        ]
    )
    # `Host *` with a ProxyJump also holds for the jump host, which is not reached through itself.
    if not targets or targets[-1][1] == alias:
        return [hop]
    (first_user, first_host, first_port), *others = targets
    # Only the first is reached the way that its own lines say, each other through the one before.
    route = _route(config, first_host, first_user, first_port, (*before, alias))
    for jump_user, jump_host, jump_port in others:
        route.append(_hop(_lookup(config, jump_host, jump_user, jump_port), jump_host))
    return [*route, hop]


def _lookup(config: str, alias: str, user: str | None, port: int | None) -> dict[str, Any]:
    """Return the options that hold for a host; what the user wrote himself goes first."""
    from paramiko import ConfigParseError, SSHConfig, SSHException

    given = ["Host *"]
    given += [] if user is None else [f"User {user}"]
    given += [] if port is None else [f"Port {port}"]
    try:
        options = dict(SSHConfig.from_text("\n".join([*given, config])).lookup(alias))
    except (ConfigParseError, SSHException, KeyError, OSError, ValueError) as error:
        raise InputError(
            f"the SSH configuration {user_config_path()} cannot be used for {alias}: {error}"
        ) from error
    # Of the two ways to go through something, the one that is written first holds, "none" too.
    ways = [name for name in options if name in ("proxycommand", "proxyjump")]
    for later in ways[1:]:
        del options[later]
    return options


def _hop(options: dict[str, Any], alias: str) -> Hop:
    host = str(options.get("hostname") or alias)
    number = _port(str(options.get("port") or DEFAULT_PORT), f"the port of {alias}")
    login = str(options.get("user") or _local_user())
    if not _HOST.match(host) or not _USER.match(login):
        raise InputError(f"the SSH configuration for {alias} names '{login}@{host}': no such form")
    key_host = str(options.get("hostkeyalias") or host).lower()
    is_plain = number == DEFAULT_PORT or "hostkeyalias" in options
    return Hop(
        alias=alias,
        host=host,
        port=number,
        user=login,
        key_name=key_host if is_plain else f"[{key_host}]:{number}",
        identity_files=tuple(_paths(options.get("identityfile") or [])),
        known_hosts_files=_known_hosts(
            options.get("userknownhostsfile"),
            (Path.home() / ".ssh/known_hosts", Path.home() / ".ssh/known_hosts2"),
        ),
        system_known_hosts_files=_known_hosts(
            options.get("globalknownhostsfile"),
            (Path("/etc/ssh/ssh_known_hosts"), Path("/etc/ssh/ssh_known_hosts2")),
        ),
        proxy_command=_proxy_command(options.get("proxycommand"), alias),
        is_compressed=str(options.get("compression") or "yes").lower() != "no",
        identities_only=str(options.get("identitiesonly") or "no").lower() in ("yes", "true"),
        agent_socket=_agent_socket(options.get("identityagent")),
    )


def _agent_socket(value: str | None) -> str | None:
    if value is not None and value.lower() == "none":
        return None
    if value is None or value == "SSH_AUTH_SOCK":
        value = "$SSH_AUTH_SOCK"
    if value.startswith("$"):
        return os.environ.get(value[1:].strip("{}")) or None
    return str(_expanded(value.strip('"')))


def _proxy_command(text: str | None, alias: str) -> tuple[str, ...] | None:
    """Return a ProxyCommand, its tokens expanded before, as program and arguments."""
    if text is None or text.lower() == "none":
        return None
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InputError(f"ProxyCommand of {alias} cannot be read: {error}") from error
    if words[:1] == ["exec"]:
        words = words[1:]
    if not words or any(_SHELL_ONLY & set(word) for word in words):
        raise InputError(
            f"ProxyCommand of {alias} needs a shell, which joulemap does not start: write a program "
            "with its arguments, or ProxyJump"
        )
    return tuple(words)


def _split_target(text: str, where: str) -> tuple[str | None, str, int | None]:
    found = _TARGET.match(text)
    if not found:
        raise InputError(f"{where} cannot be read; write {FORM}")
    user, port = found["user"], found["port"]
    host = found["six"] if found["six"] is not None else found["host"]
    if user is not None and ":" in user:
        raise InputError(
            f"{where.split('://')[0]}://...' holds a password, which others can read: use a key "
            "(ssh-keygen, then ssh-copy-id)"
        )
    if not _HOST.match(host) or (user is not None and not _USER.match(user)):
        raise InputError(f"{where} names no user and host; write {FORM}")
    return user, host, None if port is None else _port(port, where)


def _port(text: str, where: str) -> int:
    if not re.match(r"[0-9]{1,5}\Z", text) or not 0 < int(text) < 65536:
        raise InputError(f"{where}: '{text}' is not a port, 1 to 65535")
    return int(text)


def _split_line(line: str) -> tuple[str, str]:
    found = re.match(r"\s*([A-Za-z]\w*)(?:\s*=\s*|\s+)(.*\S)", line)
    return (found[1].lower(), found[2]) if found else ("", "")


def _included(pattern: str, file: Path) -> list[Path]:
    path = _expanded(pattern)
    if not path.is_absolute():
        base = file.parent if file.is_relative_to("/etc/ssh") else Path.home() / ".ssh"
        path = base / path
    found = map(Path, glob.glob(str(path)))  # noqa: PTH207 - Path.glob refuses some patterns
    return [each for each in sorted(found) if each.is_file()]


def _expanded(name: str) -> Path:
    try:
        return Path(name).expanduser()
    except RuntimeError as error:
        raise InputError(
            f"the SSH configuration names '{name}', and this machine knows no such user"
        ) from error


def _paths(names: list[str]) -> list[Path]:
    return [_expanded(name.strip('"')) for name in names if name.lower() != "none"]


def _known_hosts(value: str | None, usual: tuple[Path, ...]) -> tuple[Path, ...]:
    if value is None:
        return usual
    try:
        return tuple(_paths(shlex.split(value)))
    except ValueError as error:
        raise InputError(
            f"the SSH configuration names files that cannot be read: {value}"
        ) from error


def _local_user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, ImportError, OSError) as error:
        raise InputError(
            "this machine has no name for its user; write the device's: ssh://user@host"
        ) from error

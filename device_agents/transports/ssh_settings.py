"""What a device's SSH URL means: the URL's own parts and what the user's OpenSSH configuration adds."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, unquote

from joulemap import InputError

from .proxy_command import CommandError, simple_command
from .ssh_config import read_options
from .ssh_config_files import expanded_home, named_hosts
from .ssh_config_options import HostOptions, local_user, tokens_of
from .ssh_config_words import MAX_SHOWN, expanded, port_of

FORM = "ssh://user@host:port?device=cuda:1&python=/opt/venv/bin/python&cache=/data/joulemap"
DEFAULT_PORT = 22
MAX_HOPS = 8

# What OpenSSH, too, takes for no name: these reach the words of a ProxyCommand.
_NO_HOST = re.compile(r"-|.*['`\"$\\;&<>|(){}\s,]")
_NO_USER = re.compile(r"-|.*['`\";&<>|(){}\s]|.*\\\Z|.*\$.")
_MAX_NAME = 255
_TARGET = re.compile(
    r"(?:(?P<user>[^/?#]*)@)?(?:\[(?P<six>[^\]]*)\]|(?P<host>[^:?#\[\]]*))(?::(?P<port>[^/?#]*))?\Z"
)
_OPTIONS = {
    "device": re.compile(r"[a-z][a-z0-9_]{0,31}(:[0-9]{1,3})?\Z"),
    "python": re.compile(r"[A-Za-z0-9_./~+ -]{1,1024}\Z"),
    "cache": re.compile(r"/[^\x00-\x1f]{0,1023}\Z"),
}
_FAMILIES = {"any": socket.AF_UNSPEC, "inet": socket.AF_INET, "inet6": socket.AF_INET6}
_ALGORITHMS = ("ciphers", "hostkeyalgorithms", "kexalgorithms", "macs", "pubkeyacceptedalgorithms")


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

        An alias may hold a slash where the configuration names it; what a URL cannot hold is
        written as `%2F`.

        Raises:
            InputError: It is not of that form.
        """
        url = f"ssh:{address}"
        target, mark, query = address.partition("?")
        if not target.startswith("//"):
            raise InputError(f"device '{url}' cannot be read; write {FORM}")
        where = f"device '{url[:200]}'"
        user, host, port = _split_target(target[2:].rstrip("/"), where)
        if "/" in target[2:].rstrip("/") and host not in named_hosts():
            raise InputError(f"{where} cannot be read; write {FORM}")
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
        identity_files: Private keys that are tried.
        certificate_files: Certificates of the user's keys.
        known_hosts_files: The user's files of host keys; new keys go into the first.
        system_known_hosts_files: The system's.
        uses_usual_keys: Whether the configuration names none, so that the usual ones are tried.
        revoked_keys_file: Host keys that are trusted no more; None without.
        proxy_command: A program whose standard streams are the connection; None without.
        is_compressed: Whether to ask for compression.
        identities_only: Whether no keys of the SSH agent are tried but those of the files.
        agent_socket: The SSH agent's; None where there is none to ask.
        address_family: Of `socket`: which addresses may be taken.
        bind_address: This machine's address to connect from; None for any.
        connect_timeout_s: How long connecting may take; None where nothing is said.
        keepalive_s: Seconds between signs of life; None where nothing is said.
        algorithms: Lists of algorithms as the configuration has them, by its option's name.
    """

    alias: str
    host: str
    port: int
    user: str
    key_name: str
    identity_files: tuple[Path, ...]
    known_hosts_files: tuple[Path, ...]
    system_known_hosts_files: tuple[Path, ...]
    certificate_files: tuple[Path, ...] = ()
    uses_usual_keys: bool = True
    revoked_keys_file: Path | None = None
    proxy_command: tuple[str, ...] | None = None
    is_compressed: bool = True
    identities_only: bool = False
    agent_socket: str | None = None
    address_family: int = socket.AF_UNSPEC
    bind_address: str | None = None
    connect_timeout_s: float | None = None
    keepalive_s: float | None = None
    algorithms: tuple[tuple[str, str], ...] = ()


def resolve(url: SshUrl, *, may_ask: bool = True) -> tuple[Hop, ...]:
    """Return the servers on the way, the device last.

    Args:
        url: The device's.
        may_ask: Whether OpenSSH's client may be asked what it alone knows (see `ssh_config`).

    Raises:
        UndecidedError: It would have to be asked.
        InputError: The configuration cannot be read or asks for what is not offered.
    """
    return tuple(_route(url.host, url.user, url.port, (), may_ask=may_ask))


def _route(
    alias: str, user: str | None, port: int | None, before: tuple[str, ...], *, may_ask: bool
) -> list[Hop]:
    if alias in before or len(before) >= MAX_HOPS:
        way = " -> ".join((*before, alias))
        raise InputError(
            f"the SSH configuration jumps in a circle: {way[:250]}; mend ProxyJump there"
        )
    options = _options(alias, user, port, may_ask=may_ask)
    hop = _hop(options, alias)
    targets = _jumps(options, alias)
    # `Host *` with a ProxyJump also holds for the jump host, which is not reached through itself.
    if not targets or targets[-1][1] == alias:
        return [hop]
    (first_user, first_host, first_port), *others = targets
    # Only the first is reached the way that its own lines say, each other through the one before.
    route = _route(first_host, first_user, first_port, (*before, alias), may_ask=may_ask)
    for jump_user, jump_host, jump_port in others:
        route.append(_hop(_options(jump_host, jump_user, jump_port, may_ask=may_ask), jump_host))
    return [*route, hop]


def _options(alias: str, user: str | None, port: int | None, *, may_ask: bool) -> HostOptions:
    given = {} if user is None else {"user": user}
    given |= {} if port is None else {"port": str(port)}
    return read_options(alias, given, may_ask=may_ask)


def _jumps(options: HostOptions, alias: str) -> list[tuple[str | None, str, int | None]]:
    """Return user, host and port of each server that a ProxyJump names."""
    text = options.word("proxyjump") or "none"
    if text.lower() == "none":
        return []
    where = f"ProxyJump '{text[:MAX_SHOWN]}' of {alias[:MAX_SHOWN]}"
    text = _expanded(text, _command_tokens(options, alias), where)
    targets = []
    for each in text.split(","):
        target = each.removeprefix("ssh://")
        user, host, port = _parts_of_target(target.rstrip("/") if each != target else target, where)
        targets.append((user, host, port_of(port) if port else None))
    return targets


def _hop(options: HostOptions, alias: str) -> Hop:
    shown = alias[:MAX_SHOWN]
    host, login = options.host, options.word("user") or local_user()
    if not _is_host(host) or not _is_user(login):
        raise InputError(
            f"the SSH configuration for {shown} names '{login[:MAX_SHOWN]}@{host[:MAX_SHOWN]}': no "
            "such form"
        )
    if options.word("bindinterface") is not None:
        raise InputError(
            f"the SSH configuration for {shown} has BindInterface, which joulemap does not offer: "
            "write BindAddress with that interface's address"
        )
    number = port_of(options.word("port") or str(DEFAULT_PORT))
    key_host = (options.word("hostkeyalias") or host).lower()
    is_plain = number == DEFAULT_PORT or options.word("hostkeyalias") is not None
    tokens = tokens_of(options, alias)
    revoked = options.word("revokedhostkeys") or "none"
    return Hop(
        alias=alias,
        host=host,
        port=number,
        user=login,
        key_name=key_host if is_plain else f"[{key_host}]:{number}",
        identity_files=_paths(options, "identityfile", tokens),
        known_hosts_files=_known_hosts(options, tokens),
        system_known_hosts_files=_system_known_hosts(options),
        certificate_files=_paths(options, "certificatefile", tokens),
        uses_usual_keys="identityfile" not in options.values,
        revoked_keys_file=None
        if revoked.lower() == "none"
        else _path(revoked, "revokedhostkeys", tokens),
        proxy_command=_proxy_command(options, alias),
        is_compressed=(options.word("compression") or "yes").lower() == "yes",
        identities_only=options.flag("identitiesonly", default=False),
        agent_socket=_agent_socket(options.word("identityagent"), tokens),
        address_family=_FAMILIES[(options.word("addressfamily") or "any").lower()],
        bind_address=options.word("bindaddress"),
        connect_timeout_s=options.seconds("connecttimeout") or None,
        keepalive_s=options.seconds("serveraliveinterval") or None,
        algorithms=tuple((name, text) for name in _ALGORITHMS if (text := options.word(name))),
    )


def _agent_socket(value: str | None, tokens: Mapping[str, str]) -> str | None:
    if value is None or value == "SSH_AUTH_SOCK":
        return os.environ.get("SSH_AUTH_SOCK") or None
    if value.lower() == "none":
        return None
    if value.startswith("$") and not value.startswith("${"):
        return os.environ.get(value[1:]) or None
    return str(_path(value, "identityagent", tokens))


def _command_tokens(options: HostOptions, alias: str) -> dict[str, str]:
    """Return what the tokens of a ProxyCommand and a ProxyJump stand for."""
    return {name: text for name, text in tokens_of(options, alias).items() if name in "hnpr"}


def _proxy_command(options: HostOptions, alias: str) -> tuple[str, ...] | None:
    """Return a ProxyCommand as program and arguments, its tokens replaced in each."""
    text = options.word("proxycommand") or "none"
    if text.lower() == "none":
        return None
    shown = alias[:MAX_SHOWN]
    if options.flag("proxyusefdpass", default=False):
        raise InputError(
            f"the SSH configuration for {shown} has ProxyUseFdpass, which joulemap does not offer: "
            "write a ProxyCommand that passes bytes on (nc without -F), or ProxyJump"
        )
    try:
        words = simple_command(text)
    except ValueError as error:
        raise InputError(f"ProxyCommand of {shown} cannot be read: {error}") from error
    except CommandError as error:
        raise InputError(
            f"ProxyCommand of {shown} needs a shell ({error}), which joulemap does not start: write "
            "a program with its arguments, or ProxyJump"
        ) from error
    tokens = _command_tokens(options, alias)
    return tuple(_expanded(word, tokens, f"ProxyCommand of {shown}") for word in words)


def _expanded(text: str, tokens: Mapping[str, str], where: str) -> str:
    try:
        return expanded(text, tokens)
    except ValueError as error:
        raise InputError(f"{where}: '{text[:MAX_SHOWN]}': {error}") from error


def _split_target(text: str, where: str) -> tuple[str | None, str, int | None]:
    """Return user, host and port of a URL."""
    user, host, port = _parts_of_target(text, where)
    return user, host, None if port is None else _port(port, where)


def _parts_of_target(text: str, where: str) -> tuple[str | None, str, str | None]:
    found = _TARGET.match(text)
    if not found:
        raise InputError(f"{where} cannot be read; write {FORM}")
    user, port = found["user"], found["port"]
    if user is not None and ":" in user:
        raise InputError(
            f"{where.partition(chr(39))[0]}'ssh://...' holds a password, which others can read: use "
            "a key (ssh-keygen, then ssh-copy-id)"
        )
    # A zone, as in fe80::1%eth0, is mostly written as it is.
    in_brackets = None if found["six"] is None else found["six"].replace("%25", "%")
    host = unquote(found["host"]) if in_brackets is None else in_brackets
    user = None if user is None else unquote(user)
    if not _is_host(host) or (user is not None and not _is_user(user)):
        raise InputError(f"{where} names no user and host; write {FORM}")
    return user, host, port


def _port(text: str, where: str) -> int:
    if not re.match(r"[0-9]{1,5}\Z", text) or not 0 < int(text) < 65536:
        raise InputError(f"{where}: '{text[:MAX_SHOWN]}' is not a port, 1 to 65535")
    return int(text)


def _is_host(text: str) -> bool:
    return 0 < len(text) <= _MAX_NAME and text.isprintable() and not _NO_HOST.match(text)


def _is_user(text: str) -> bool:
    return 0 < len(text) <= _MAX_NAME and text.isprintable() and not _NO_USER.match(text)


def _path(name: str, option: str, tokens: Mapping[str, str]) -> Path:
    try:
        return Path(expanded(expanded_home(name), tokens, may_name_variables=True))
    except ValueError as error:
        raise InputError(
            f"the SSH configuration has '{name[:MAX_SHOWN]}' for {option}: {error}"
        ) from error


def _paths(options: HostOptions, option: str, tokens: Mapping[str, str]) -> tuple[Path, ...]:
    names = [name for name in options.values.get(option, []) if name.lower() != "none"]
    return tuple(_path(name, option, tokens) for name in names)


def _known_hosts(options: HostOptions, tokens: Mapping[str, str]) -> tuple[Path, ...]:
    if "userknownhostsfile" in options.values:
        return _paths(options, "userknownhostsfile", tokens)
    folder = Path.home() / ".ssh"
    return folder / "known_hosts", folder / "known_hosts2"


def _system_known_hosts(options: HostOptions) -> tuple[Path, ...]:
    usual = ["/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"]
    names = options.values.get("globalknownhostsfile", usual)
    return tuple(Path(name) for name in names if name.lower() != "none")

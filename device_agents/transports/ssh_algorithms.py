"""Which algorithms an SSH session may use: what the configuration permits, and what both sides share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import paramiko

from joulemap import InputError

from .ssh_config_words import is_listed
from .ssh_settings import Hop

_MAX_NAMED = 4
# What OpenSSH calls by two names, and paramiko by one of them.
_SAME = {"curve25519-sha256": "curve25519-sha256@libssh.org"}


@dataclass(frozen=True)
class _Kind:
    """One kind of algorithm that both sides have to agree on.

    Attributes:
        what: What it is called.
        option: Of `ssh_config` and `sshd_config`.
        ours: Name in `paramiko.SecurityOptions`.
        known: Name of paramiko's table of what it has.
        theirs: Names in the server's offer.
    """

    what: str
    option: str
    ours: str
    known: str
    theirs: tuple[str, ...]


_KINDS = (
    _Kind("key exchange", "KexAlgorithms", "kex", "_kex_info", ("kex_algo_list",)),
    _Kind(
        "type of host key", "HostKeyAlgorithms", "key_types", "_key_info", ("server_key_algo_list",)
    ),
    _Kind(
        "cipher",
        "Ciphers",
        "ciphers",
        "_cipher_info",
        ("client_encrypt_algo_list", "server_encrypt_algo_list"),
    ),
    _Kind("MAC", "MACs", "digests", "_mac_info", ("client_mac_algo_list", "server_mac_algo_list")),
)


class ListeningTransport(paramiko.Transport):
    """A session that remembers what the server offered.

    Attributes:
        offer: Its lists, by paramiko's names for them; empty before it came.
    """

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self.offer: Mapping[str, Sequence[str]] = {}

    def _really_parse_kex_init(self, *arguments: Any, **named: Any) -> dict[str, Any]:
        parsed: dict[str, Any] = super()._really_parse_kex_init(  # type: ignore[misc]
            *arguments, **named
        )
        # Copies: what is no algorithm is taken out of the lists later.
        self.offer = {name: tuple(each) for name, each in parsed.items() if type(each) is list}
        return parsed


def permit(transport: paramiko.Transport, hop: Hop) -> None:
    """Let a session use what the configuration permits, as far as paramiko has it.

    Raises:
        InputError: It permits nothing that there is.
    """
    wanted = dict(hop.algorithms)
    options = transport.get_security_options()
    for kind in _KINDS:
        spec = wanted.get(kind.option.lower())
        if spec is None:
            continue
        usual: tuple[str, ...] = getattr(options, kind.ours)
        chosen = chosen_by(spec, usual, tuple(getattr(transport, kind.known)))
        if not chosen:
            raise InputError(
                f"{kind.option} in the SSH configuration of {hop.alias[:80]} names nothing that "
                f"joulemap has ({spec[:100]}); it has {', '.join(usual[:_MAX_NAMED])}: add one of them"
            )
        setattr(options, kind.ours, chosen)


def chosen_by(spec: str, usual: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """Return the algorithms that a list of the configuration chooses, in its order.

    Args:
        spec: Names, separated by commas; after `+` they are added to the usual ones, after `^` put
            before them, after `-` left out, where they may be patterns.
        usual: What is used otherwise.
        known: What there is.
    """
    sign = spec[:1] if spec[:1] in "+-^" else ""
    names = spec[len(sign) :].split(",")
    if sign == "-":
        return tuple(each for each in usual if not any(is_listed(each, name) for name in names))
    named = [each for name in names if (each := _SAME.get(name, name)) in known]
    before = usual if sign == "+" else ()
    after = usual if sign == "^" else ()
    return tuple(dict.fromkeys([*before, *named, *after]))


def disagreement(transport: ListeningTransport, hop: Hop) -> str | None:
    """Return what a session and its server have not in common, and how to permit one; None if nothing.

    Args:
        transport: The session, after the server's offer.
        hop: Where it leads.
    """
    options = transport.get_security_options()
    for kind in _KINDS:
        ours = tuple(getattr(options, kind.ours))
        for name in kind.theirs:
            theirs = [each for each in transport.offer.get(name, ours) if _is_algorithm(each)]
            if set(ours) & set(theirs):
                continue
            here = ""
            if kind.option.lower() in dict(hop.algorithms):
                here = f", or widen {kind.option} in your SSH configuration"
            # The last ones are those that older servers have.
            offered = list(dict.fromkeys([*ours[:2], *ours[-1:]]))
            return (
                f"no {kind.what} in common: it offers {_shown(theirs)}, joulemap has "
                f"{_shown(offered)}; permit one there, in sshd_config: {kind.option} "
                f"+{offered[-1]}{here}, or update its SSH server"
            )
    return None


def _is_algorithm(name: str) -> bool:
    return bool(name) and name.isprintable() and not name.startswith(("ext-info-", "kex-strict-"))


def _shown(names: Sequence[str]) -> str:
    shown = ", ".join(name[:50] for name in names[:3])
    return f"{shown} ..." if len(names) > 3 else shown or "none"

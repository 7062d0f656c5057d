"""The options of OpenSSH's configuration: which there are, what they may hold, what they hold."""

from __future__ import annotations

import getpass
import hashlib
import os
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from joulemap import InputError

from .ssh_config_words import MAX_SHOWN, port_of, seconds_of

# One word; a list of words; the rest of the line as it stands; words of several lines.
_SINGLE_NAMES = """
addressfamily bindaddress bindinterface canonicalizefallbacklocal canonicalizehostname
canonicalizemaxdots ciphers compression connecttimeout hostkeyalgorithms hostkeyalias hostname
identitiesonly identityagent ignoreunknown kexalgorithms macs port proxyusefdpass
pubkeyacceptedalgorithms revokedhostkeys serveraliveinterval tag user
"""
SINGLE = frozenset(_SINGLE_NAMES.split())
_LIST_NAMES = "canonicaldomains canonicalizepermittedcnames globalknownhostsfile userknownhostsfile"
LISTS = frozenset(_LIST_NAMES.split())
RAW = frozenset(["proxycommand", "proxyjump"])
CUMULATIVE = frozenset(["certificatefile", "identityfile"])
ALIASES = {
    "identityfile2": "identityfile",
    "pubkeyacceptedkeytypes": "pubkeyacceptedalgorithms",
}
# What changes nothing for joulemap, which runs one command after another with a key alone.
_UNUSED_NAMES = """
addkeystoagent afstokenpassing batchmode casignaturealgorithms challengeresponseauthentication
channeltimeout checkhostip cipher clearallforwardings compressionlevel connectionattempts
controlmaster controlpath controlpersist dsaauthentication dynamicforward
enableescapecommandline enablesshkeysign escapechar exitonforwardfailure fallbacktorsh
fingerprinthash forkafterauthentication forwardagent forwardx11 forwardx11timeout
forwardx11trusted gatewayports globalknownhostsfile2 gssapiauthentication gssapiclientidentity
gssapidelegatecredentials gssapikexalgorithms gssapikeyexchange gssapirenewalforcesrekey
gssapiserveridentity gssapitrustdns hashknownhosts hostbasedacceptedalgorithms
hostbasedauthentication hostbasedkeytypes ipqos kbdinteractiveauthentication
kbdinteractivedevices keepalive kerberosauthentication kerberostgtpassing knownhostscommand
localcommand localforward logfacility loglevel logverbose nohostauthenticationforlocalhost
numberofpasswordprompts obscurekeystroketiming passwordauthentication permitlocalcommand
permitremoteopen pkcs11provider preferredauthentications protocol pubkeyauthentication
rekeylimit remotecommand remoteforward requesttty requiredrsasize rhostsauthentication
rhostsrsaauthentication rsaauthentication securitykeyprovider sendenv serveralivecountmax
sessiontype setenv skeyauthentication smartcarddevice stdinnull streamlocalbindmask
streamlocalbindunlink stricthostkeychecking syslogfacility tcpkeepalive tisauthentication tunnel
tunneldevice updatehostkeys useprivilegedport userknownhostsfile2 useroaming usersh
verifyhostkeydns versionaddendum visualhostkey warnweakcrypto xauthlocation
"""
UNUSED = frozenset(_UNUSED_NAMES.split())
_FLAGS = {"yes": True, "true": True, "no": False, "false": False}


@dataclass
class HostOptions:
    """What a configuration says of a host.

    Attributes:
        host: Its address or name, lower case.
        values: Option, lower case, to its words; the rest of its line for a command.
    """

    host: str
    values: dict[str, list[str]] = field(default_factory=dict)

    def word(self, name: str) -> str | None:
        """Return the value of an option that has one word."""
        words = self.values.get(name)
        return words[0] if words else None

    def flag(self, name: str, *, default: bool) -> bool:
        """Return the value of an option that is yes or no."""
        word = self.word(name)
        return default if word is None else _FLAGS[word.lower()]

    def seconds(self, name: str) -> float | None:
        """Return the value of an option that is a time, None for none."""
        word = self.word(name)
        return None if word is None or word == "none" else seconds_of(word)


def tokens_of(options: HostOptions, alias: str) -> dict[str, str]:
    """Return what the tokens of `%` stand for, by their letter."""
    jump = options.word("proxyjump") or ""
    local = socket.gethostname()
    user, port = options.word("user") or local_user(), str(port_of(options.word("port") or "22"))
    tokens = {
        "d": str(Path.home()),
        "h": options.host,
        "i": str(os.getuid()),
        "k": (options.word("hostkeyalias") or alias).lower(),
        "L": local.partition(".")[0],
        "l": local,
        "n": alias,
        "p": port,
        "r": user,
        "u": local_user(),
    }
    if jump.lower() in ("", "none"):
        # Newer versions put the jump host into both.
        tokens["j"] = ""
        text = f"{local}{options.host}{port}{user}"
        tokens["C"] = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
    return tokens


def local_user() -> str:
    """Return the name of who runs this.

    Raises:
        InputError: This machine has none.
    """
    try:
        import pwd

        return pwd.getpwuid(os.getuid()).pw_name
    except (KeyError, ImportError):
        pass
    try:
        return getpass.getuser()
    except (KeyError, ImportError, OSError) as error:
        raise InputError(
            "this machine has no name for its user; write the device's: ssh://user@host"
        ) from error


def _check_flag(word: str) -> None:
    if word.lower() not in _FLAGS:
        raise ValueError(f"'{word[:MAX_SHOWN]}' is neither yes nor no")


def _one_of(*choices: str) -> Callable[[str], None]:
    def check(word: str) -> None:
        if word.lower() not in choices:
            raise ValueError(f"'{word[:MAX_SHOWN]}' is none of {', '.join(choices)}")

    return check


def _check_time(word: str) -> None:
    if word != "none":
        seconds_of(word)


def _check_agent(word: str) -> None:
    if re.match(r"\$(?!\{)", word) and not re.fullmatch(r"\$[A-Za-z_][A-Za-z0-9_]*", word):
        raise ValueError(f"'{word[:MAX_SHOWN]}' names no variable")


def _check_number(word: str) -> None:
    if not re.fullmatch(r"-?[0-9]{1,9}", word):
        raise ValueError(f"'{word[:MAX_SHOWN]}' is no number")


CHECKS: Mapping[str, Callable[[str], object]] = {
    "addressfamily": _one_of("any", "inet", "inet6"),
    "canonicalizefallbacklocal": _check_flag,
    "canonicalizehostname": _one_of(*_FLAGS, "always"),
    "canonicalizemaxdots": _check_number,
    "compression": _one_of("yes", "no"),
    "connecttimeout": _check_time,
    "identitiesonly": _check_flag,
    "identityagent": _check_agent,
    "port": port_of,
    "proxyusefdpass": _check_flag,
    "serveraliveinterval": _check_time,
}
KEYWORDS = SINGLE | LISTS | RAW | CUMULATIVE | UNUSED | {"host", "match", "include"}

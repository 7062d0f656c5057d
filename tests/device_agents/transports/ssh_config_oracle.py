"""What OpenSSH reads in a configuration, and what joulemap does, in the same words."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from joulemap import InputError
from joulemap.device_agents.transports import ssh_config, ssh_config_files, ssh_settings

# In words of one line of `ssh -G`; the others are no matter here or are compared by themselves.
COMPARED = (
    *("addressfamily", "bindaddress", "bindinterface", "compression", "connecttimeout"),
    *("hostkeyalias", "hostname", "identitiesonly", "identityagent", "port", "proxycommand"),
    *("proxyjump", "proxyusefdpass", "serveraliveinterval", "user", "userknownhostsfile"),
    *("globalknownhostsfile",),
)
NO_JUMP = "jumps over no host"
_UNSET = {
    "addressfamily": "any",
    "compression": "no",
    "connecttimeout": "none",
    "identitiesonly": "no",
    "proxyusefdpass": "no",
    "serveraliveinterval": "0",
}


@contextmanager
def own_configuration(file: Path) -> Iterator[None]:
    """Let a file be the user's configuration, in the home that the list of users names."""
    with pytest.MonkeyPatch.context() as patch:
        # OpenSSH goes by that list, whatever HOME says.
        patch.setenv("HOME", pwd.getpwuid(os.getuid()).pw_dir)
        for module in (ssh_config, ssh_config_files):
            patch.setattr(module, "user_config_path", lambda: file)
        patch.setattr(ssh_config_files, "SYSTEM_CONFIG", file.with_name("none"))
        yield


def asked(file: Path, alias: str) -> dict[str, list[str]] | str:
    """Return what `ssh -G` says of a host, or its complaint."""
    program = shutil.which("ssh")
    assert program is not None
    done = subprocess.run(
        [program, "-G", "-F", str(file), "--", alias],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        errors="surrogateescape",
    )
    if done.returncode:
        return done.stderr.strip() or f"code {done.returncode}"
    said: dict[str, list[str]] = {}
    for line in done.stdout.split("\n"):
        name, _, value = line.partition(" ")
        said.setdefault(name.lower(), []).append(value)
    if said.get("proxyjump") == ["none"]:
        # Version 9.2 takes `ProxyJump none # x` for a jump over a host of that name.
        return NO_JUMP
    found = {name: said[name] for name in COMPARED if said.get(name, ["none"]) != ["none"]}
    keys = said["identityfile"]
    for name in ("userknownhostsfile", "globalknownhostsfile", "identityagent"):
        # It writes a home folder with a slash at its end.
        found |= {name: [re.sub(r"/(?= |$)", "", found[name][0])]} if name in found else {}
    if "proxyjump" in found:
        found["proxyjump"] = [_plain(found["proxyjump"][0])]
    # The usual ones differ from version to version.
    found["identityfile"] = [] if keys[0] == "~/.ssh/id_rsa" and len(keys) > 3 else keys
    found["certificatefile"] = said.get("certificatefile", [])
    return found


def _plain(jump: str) -> str:
    """Return a jump as `ssh -G` prints it but for brackets, which it sets at will."""
    return jump.removeprefix("ssh://").replace("[", "").replace("]", "")


def read(alias: str) -> dict[str, list[str]] | str:
    """Return the same from joulemap's reader."""
    try:
        options = ssh_config.read_options(alias, {})
        tokens = ssh_config_options_tokens(options, alias)
        agent = options.word("identityagent")
        values = dict(options.values)
        known = " ".join(map(str, ssh_settings._known_hosts(options, tokens)))
        system = " ".join(map(str, ssh_settings._system_known_hosts(options)))
        if agent is not None and agent != "SSH_AUTH_SOCK" and not re.match(r"\$[^{]", agent):
            agent = str(ssh_settings._path(agent, "identityagent", tokens))
    except InputError as error:
        return str(error)
    found = {
        **{name: [value] for name, value in _UNSET.items()},
        **{name: values[name] for name in COMPARED if name in values},
        "hostname": [options.host],
        "port": [tokens["p"]],
        "user": [tokens["r"]],
        "userknownhostsfile": [known],
        "globalknownhostsfile": [system],
    }
    for name in ("identitiesonly", "proxyusefdpass"):
        if name in values:
            found[name] = ["yes" if options.flag(name, default=False) else "no"]
    for name in ("connecttimeout", "serveraliveinterval"):
        if (seconds := options.seconds(name)) is not None:
            found[name] = [str(int(seconds))]
    if "hostkeyalias" in values:
        found["hostkeyalias"] = [values["hostkeyalias"][0].lower()]
    if "proxyjump" in values:
        found["proxyjump"] = [_plain(values["proxyjump"][0])]
    if agent is not None:
        found["identityagent"] = [agent]
    for name in ("addressfamily", "compression"):
        found[name] = [found[name][0].lower()]
    found = {name: value for name, value in found.items() if value[0].lower() not in ("none", "")}
    found["identityfile"] = values.get("identityfile", [])
    found["certificatefile"] = values.get("certificatefile", [])
    return found


def ssh_config_options_tokens(options: object, alias: str) -> dict[str, str]:
    """Return the tokens of a host."""
    from joulemap.device_agents.transports import ssh_config_options

    assert isinstance(options, ssh_config_options.HostOptions)
    return ssh_config_options.tokens_of(options, alias)


def difference(file: Path, alias: str) -> str | None:
    """Return how OpenSSH and joulemap read a host's options differently, None if they agree.

    Where both refuse the configuration they agree, whatever each says.
    """
    theirs, ours = asked(file, alias), read(alias)
    if isinstance(theirs, str) and re.search(r'Invalid ProxyJump ".*,\s+[^\s#]', theirs):
        return None  # It takes no space after a comma, which does no harm.
    if isinstance(theirs, str) and theirs.startswith(("jumphost loop", NO_JUMP)):
        # A jump for all hosts does not hold for the jump host, which OpenSSH cannot reach then.
        return None
    if isinstance(theirs, str) or isinstance(ours, str):
        agree = isinstance(theirs, str) and isinstance(ours, str)
        return None if agree else f"OpenSSH: {theirs!r:.300}; joulemap: {ours!r:.300}"
    differing = {
        name: (theirs.get(name), ours.get(name))
        for name in theirs.keys() | ours.keys()
        if theirs.get(name) != ours.get(name)
    }
    return f"{differing}" if differing else None

"""OpenSSH's client configuration, read as OpenSSH reads it: blocks, criteria, passes.

After `readconf.c` and `ssh.c` of OpenSSH 9: the first value of an option holds, identity files add
up, a negated pattern ends a `Host` line, included files stand in their places, and a second pass
follows where host names are made canonical or a line asks for it. What only OpenSSH can know (see
`openssh_client`) it is asked; without it that is an error, never a guess. Of options that joulemap
has no use for only the quoting is checked.

The other way round, `ssh -G` for every host, was not taken: hosts are also listed, which must run
no program and ask no name server; a machine without OpenSSH has to read the same; `ssh -G` leaves
tokens and home folders in its answers, and looks for the user's file where the list of users says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from joulemap import InputError

from . import openssh_client, ssh_config_files
from .openssh_client import RefusedError
from .ssh_config_files import included, lines_of, user_config_path
from .ssh_config_options import (
    ALIASES,
    CHECKS,
    CUMULATIVE,
    KEYWORDS,
    LISTS,
    RAW,
    UNUSED,
    HostOptions,
    local_user,
    tokens_of,
)
from .ssh_config_words import (
    ALONE,
    MAX_SHOWN,
    SPACE,
    expanded,
    is_complete,
    is_listed,
    jumps_of,
    matches,
    new_criteria,
    old_criteria,
    port_of,
    quoted,
    split_keyword,
    split_words,
    usual_address,
)

_ANSWER = "joulemap-is-met"


class UndecidedError(InputError):
    """OpenSSH would have to be asked, which was not wanted now."""


def read_options(alias: str, given: Mapping[str, str], *, may_ask: bool = True) -> HostOptions:
    """Return what the user's configuration, then the system's, says of a host.

    Args:
        alias: As the user calls it.
        given: What the user wrote himself, which goes first: `user`, `port`.
        may_ask: Whether OpenSSH may be asked what it alone knows; a program of the configuration
            may run then, and names may be looked up, as when OpenSSH connects.

    Raises:
        UndecidedError: It would have to be asked.
        InputError: The configuration cannot be read, or OpenSSH refuses it.
    """
    return _Reader(alias, given, may_ask).read()


@dataclass(frozen=True)
class _Place:
    """Where a line stands, for messages."""

    file: Path
    number: int

    def error(self, what: str) -> InputError:
        return InputError(
            f"the SSH configuration ({str(self.file)[:120]}, line {self.number}): {what}"
        )


class _Reader:
    """Reads the configuration for one host, in one pass or two.

    Args:
        alias: As the user calls it.
        given: What goes first.
        may_ask: Whether OpenSSH may be asked.
    """

    def __init__(self, alias: str, given: Mapping[str, str], may_ask: bool) -> None:
        self._alias, self._may_ask = alias, may_ask
        self._values = {name: [value] for name, value in given.items()}
        # What `Host` lines are compared with: the alias, and in a second pass the host's name.
        self._host = alias
        self._is_final = self._wants_final = False
        self._local_user = local_user()

    def read(self) -> HostOptions:
        self._pass()
        family = self._first("addressfamily", "any").lower()
        host = usual_address(self._name_of_host().lower(), family)
        canonical = self._canonical(host)
        if canonical is not None or self._wants_final:
            host = host if canonical is None else canonical
            self._host, self._is_final = host, True
            self._values["hostname"] = [host]
            self._pass()
        if "%" in self._first("user", "") or "${" in self._first("user", ""):
            self._values["user"] = [self._asked_user(host)]
        return HostOptions(host, self._values)

    def _pass(self) -> None:
        self._file(user_config_path(), 0, is_users=True)
        self._file(ssh_config_files.SYSTEM_CONFIG, 0, is_users=False)

    def _file(self, path: Path, depth: int, *, is_users: bool, is_active: bool = True) -> None:
        """Read a file; one that is included where nothing holds is only checked."""
        may_match, is_checked = is_active, is_users or depth > 0
        for number, line in enumerate(lines_of(path, depth, is_checked=is_checked), start=1):
            keyword, rest = split_keyword(line)
            if not keyword:
                continue
            place = _Place(path, number)
            if not rest:
                raise place.error(f"nothing stands after '{keyword[:MAX_SHOWN]}'")
            keyword = ALIASES.get(keyword, keyword)
            self._check_keyword(keyword, line, place)
            try:
                words = split_words(rest)
            except ValueError as error:
                raise place.error(f"'{line.strip()[:MAX_SHOWN]}': {error}") from error
            if keyword == "host":
                is_active = self._is_host(words, place) and may_match
            elif keyword == "match":
                is_active = self._is_match(rest, words, place, may_match) and may_match
            elif keyword == "include":
                for pattern in words:
                    self._include(pattern, place, depth, is_users=is_users, is_active=is_active)
            elif keyword in KEYWORDS:
                self._option(keyword, rest, words, place, is_active=is_active)

    def _include(
        self, pattern: str, place: _Place, depth: int, *, is_users: bool, is_active: bool
    ) -> None:
        if not pattern or (pattern.startswith("~") and not is_users):
            raise place.error(f"'{pattern[:MAX_SHOWN]}' can be no file to include")
        if "%" in pattern or "${" in pattern:
            pattern = self._expanded_include(pattern, place)
        for each in included(pattern, is_users=is_users):
            self._file(each, depth + 1, is_users=is_users, is_active=is_active)

    def _expanded_include(self, pattern: str, place: _Place) -> str:
        """Return a pattern as the OpenSSH that is here reads it: with tokens from 9.9 on."""
        path = openssh_client.program()
        if path is None:
            raise place.error(
                f"'{pattern[:MAX_SHOWN]}': what % and ${{}} mean in Include depends on the version "
                "of OpenSSH, and there is none here: write the path out"
            )
        if openssh_client.version(path) < (9, 9):
            return pattern
        options = HostOptions(self._name_of_host().lower(), self._values)
        try:
            return expanded(pattern, tokens_of(options, self._alias), may_name_variables=True)
        except ValueError as error:
            raise place.error(f"'{pattern[:MAX_SHOWN]}': {error}") from error

    def _check_keyword(self, keyword: str, line: str, place: _Place) -> None:
        if keyword in KEYWORDS or is_listed(keyword, self._first("ignoreunknown", "").lower()):
            return
        if keyword.startswith("\ufeff"):
            raise place.error("it begins with a byte order mark: save it as UTF-8 without one")
        self._insist(f"there is the option '{keyword[:MAX_SHOWN]}'", place)
        try:
            _ask_about_line(line.strip(), str(place.file))
        except RefusedError as error:
            raise place.error(
                f"'{keyword[:MAX_SHOWN]}' is no option ({error}); to have it passed over, write "
                f"before it: IgnoreUnknown {keyword[:MAX_SHOWN]}"
            ) from error

    def _insist(self, why: str, place: _Place) -> None:
        """Go on only where OpenSSH may be asked.

        Raises:
            UndecidedError: It may not.
        """
        if not self._may_ask:
            raise UndecidedError(
                f"known once it is connected: {why} in {place.file}, line {place.number}"
            )

    def _option(
        self, keyword: str, rest: str, words: list[str], place: _Place, *, is_active: bool
    ) -> None:
        if keyword in UNUSED:
            return
        if keyword in RAW:
            words = [rest.lstrip(SPACE + "=")]
            if keyword == "proxyjump":
                words = [jumps_of(words[0])]
                _check_jumps(words[0], place)
        elif keyword not in LISTS and len(words) > 1:
            raise place.error(f"'{keyword}' has more than one word")
        if not words and keyword in LISTS:
            return  # Only a comment follows, which is no list.
        if not words or not all(words):
            raise place.error(f"nothing stands after '{keyword}'")
        if "none" in map(str.lower, words) and len(words) > 1:
            raise place.error(f"'{keyword}' has 'none' among other words")
        try:
            check = CHECKS.get(keyword)
            if check is not None:
                check(words[0])
        except ValueError as error:
            what = "the port of" if keyword == "port" else f"'{keyword}' of"
            raise place.error(f"{what} {self._alias[:MAX_SHOWN]}: {error}") from error
        if not is_active:
            return
        # Of the two ways to go through something the one that is written first holds; of no jump a
        # command may follow.
        if keyword in RAW and (
            "proxycommand" in self._values or self._first("proxyjump", "none").lower() != "none"
        ):
            return
        if keyword in CUMULATIVE:
            known = self._values.setdefault(keyword, [])
            known += [word for word in words if word not in known]
        else:
            self._values.setdefault(keyword, words)

    def _is_host(self, patterns: list[str], place: _Place) -> bool:
        is_found = False
        for pattern in patterns:
            if not pattern:
                raise place.error("'host' has an empty pattern")
            if matches(self._host, pattern.removeprefix("!")):
                if pattern.startswith("!"):
                    return False
                is_found = True
        return is_found

    # -- Match lines -------------------------------------------------------------------------------

    def _is_match(self, rest: str, words: list[str], place: _Place, may_match: bool) -> bool:
        """Return whether the criteria of a Match line are met."""
        criteria, is_whole = old_criteria(rest)
        newer = new_criteria(words)
        if is_whole and criteria == newer:
            return self._are_met(criteria, place, may_match)
        # Older and newer versions split it differently: what they share may decide it already.
        shared = []
        for word, other in zip(criteria, newer, strict=False):
            if word != other:
                break
            shared.append(word)
        if shared and not is_complete(shared):
            del shared[-1]
        if not may_match or (shared and not self._are_met(shared, place, may_match)):
            return False
        return self._asked(rest, place)

    def _are_met(self, criteria: list[str], place: _Place, may_match: bool) -> bool:
        is_met, number = True, 0
        at = iter(criteria)
        for word in at:
            name, is_negated = word.removeprefix("!").lower(), word.startswith("!")
            if name == "all":
                if number > 1 or next(at, None) is not None:
                    raise place.error("'all' stands beside other criteria")
                return is_met and not is_negated
            number += 1
            if name in ALONE:
                self._wants_final |= name == "final"
                is_met &= self._is_final != is_negated
                continue
            value = next(at, "")
            if not value:
                raise place.error(f"nothing stands after '{name[:MAX_SHOWN]}'")
            decide = self._criterion(name, value)
            if decide is not None:
                is_met &= decide() != is_negated
            elif is_met and may_match:
                # Its program runs only where all before it is met, as in OpenSSH.
                is_met &= self._asked(f'{word} "{value}"', place)
        if not number:
            raise place.error("Match has no criteria")
        return is_met

    def _criterion(self, name: str, value: str) -> Callable[[], bool] | None:
        """Return what decides a criterion; None where only OpenSSH can."""
        compared = {
            "host": (self._name_of_host, True),
            "originalhost": (lambda: self._alias, True),
            "user": (lambda: self._first("user", self._local_user), False),
            "localuser": (lambda: self._local_user, False),
            "tagged": (lambda: self._first("tag", ""), False),
        }.get(name)
        if compared is None:
            return None
        what, in_lower_case = compared
        return lambda: is_listed(what(), value, in_lower_case=in_lower_case)

    def _asked(self, criteria: str, place: _Place) -> bool:
        """Return whether OpenSSH takes criteria as met, with what is known so far."""
        words = criteria.lower().replace("!", " ").split()
        if any(name in words for name in ALONE):
            raise place.error(
                "its criteria can be read in two ways: write their words in double quotes"
            )
        self._insist(f"there is 'Match {criteria[:MAX_SHOWN]}'", place)
        lines = [*self._known(), f"Match {criteria}", f"LocalCommand {_ANSWER}"]
        why = f"line {place.number} of {str(place.file)[:60]} is 'Match {criteria[:40]}'"
        try:
            return openssh_client.ask(lines, self._alias, why).get("localcommand") == _ANSWER
        except RefusedError as error:
            raise place.error(f"OpenSSH refuses it: {error}") from error

    def _known(self) -> list[str]:
        """Return lines that tell OpenSSH what holds so far."""
        known = {**self._values, "hostname": [self._name_of_host()]}
        names = [name for name in ("hostname", "user", "port", "hostkeyalias") if name in known]
        return [f"{name} {quoted(known[name][0])}" for name in names]

    # -- the host's name ---------------------------------------------------------------------------

    def _first(self, name: str, otherwise: str) -> str:
        return self._values.get(name, [otherwise])[0]

    def _name_of_host(self) -> str:
        if self._is_final:
            return self._host
        try:
            return expanded(self._first("hostname", self._alias), {"h": self._alias})
        except ValueError as error:
            raise InputError(
                f"the SSH configuration names the host of {self._alias[:MAX_SHOWN]} "
                f"'{self._first('hostname', '')[:MAX_SHOWN]}': {error}"
            ) from error

    def _canonical(self, host: str) -> str | None:
        """Return the host's canonical name, None where none is asked for."""
        wish = self._first("canonicalizehostname", "no").lower()
        cnames = self._values.get("canonicalizepermittedcnames", ["none"])
        is_direct = all(self._first(name, "none").lower() == "none" for name in RAW)
        domains = self._values.get("canonicaldomains", ["none"])
        is_asked_for = wish in ("yes", "true", "always")
        if not is_asked_for and cnames[0].lower() == "none":
            return None
        if not is_direct and wish != "always":
            return host if is_asked_for else None
        if domains[0].lower() == "none" and cnames[0].lower() == "none":
            return host
        why = "it makes host names canonical (CanonicalizeHostname)"
        if not self._may_ask:
            raise UndecidedError(f"known once it is connected: {why}")
        names = [name for name in self._values if name.startswith("canonical")]
        lines = [f"HostName {quoted(host)}", *(["ProxyCommand joulemap"] if not is_direct else [])]
        lines += [f"{name} {' '.join(map(quoted, self._values[name]))}" for name in names]
        try:
            found = openssh_client.ask(lines, self._alias, why)["hostname"]
        except (RefusedError, KeyError) as error:
            raise InputError(
                f"the SSH configuration asks for the canonical name of {host[:MAX_SHOWN]}, and "
                f"OpenSSH finds none: {error}"
            ) from error
        return found if is_asked_for or found != host else None

    def _asked_user(self, host: str) -> str:
        """Return the user as the OpenSSH that is here reads it: with tokens from 10.0 on."""
        user = self._first("user", "")
        why = f"its user is '{user[:MAX_SHOWN]}'"
        if not self._may_ask:
            raise UndecidedError(f"known once it is connected: {why}")
        lines = [f"HostName {quoted(host)}", *self._known()[1:]]
        try:
            return openssh_client.ask(lines, self._alias, why)["user"]
        except (RefusedError, KeyError) as error:
            raise InputError(
                f"the SSH configuration for {self._alias[:MAX_SHOWN]}: {why}, which OpenSSH refuses: "
                f"{error}"
            ) from error


def _check_jumps(text: str, place: _Place) -> None:
    """Check what a ProxyJump names, also where it does not hold."""
    if text.lower() == "none":
        return
    for each in text.split(","):
        target = each.removeprefix("ssh://")
        if target != each:
            target = target.removesuffix("/")
        # User, and host with port; what they may hold is looked at where they are used.
        found = re.fullmatch(r"(?:.+@)?(?:\[[^\]]+\]|[^:@/\[\]]+)(?::([^:/]*))?", target)
        try:
            if found is not None and found[1]:
                port_of(found[1])
        except ValueError:
            found = None
        if found is None:
            raise place.error(f"ProxyJump names '{each[:MAX_SHOWN]}', which is no user@host:port")


@cache
def _ask_about_line(line: str, file: str) -> None:
    """Ask whether OpenSSH takes a line of an option that is not known here."""
    openssh_client.ask([line], "joulemap", f"{file} has the line '{line[:MAX_SHOWN]}'")

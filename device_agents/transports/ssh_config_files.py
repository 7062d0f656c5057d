"""The files of OpenSSH's configuration: the user's, the system's, and what they include."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from joulemap import InputError
from joulemap.regular_files import open_regular

from ..onboard.private_folder import is_own_group
from .ssh_config_words import MAX_SHOWN, split_keyword, split_words

SYSTEM_CONFIG = Path("/etc/ssh/ssh_config")
MAX_DEPTH = 16

_MAX_BYTES = 1 << 20


def user_config_path() -> Path:
    """Return the user's SSH configuration file."""
    return Path.home() / ".ssh" / "config"


def named_hosts() -> list[str]:
    """Return the hosts that the user's configuration names, each once; patterns name none.

    Raises:
        InputError: It cannot be read.
    """
    return hosts_of(_lines_below(user_config_path(), 0))


def hosts_of(lines: Iterable[str]) -> list[str]:
    """Return the hosts that lines of a configuration name, each once; patterns name none."""
    found: dict[str, None] = {}
    for line in lines:
        # What a byte order mark hides is listed, with what is said of the file.
        keyword, rest = split_keyword(line.removeprefix("\ufeff"))
        if keyword != "host":
            continue
        try:
            words = split_words(rest)
        except ValueError:
            continue
        names = (word for word in words if word and not set(word) & set("*?!"))
        found.update(dict.fromkeys(name for name in names if not name.startswith("-")))
    return list(found)


def lines_of(path: Path, depth: int, *, is_checked: bool) -> list[str]:
    """Return the lines of a configuration file; none if it is not there."""
    if depth > MAX_DEPTH:
        raise InputError(f"{path}: files of the SSH configuration include each other too deeply")
    try:
        fd = open_regular(path)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        # What an Include line's pattern finds may be a folder.
        if os.path.realpath(path) == os.devnull or (depth and error.errno == errno.EISDIR):
            return []
        raise _unreadable(path, error.strerror or str(error)) from error
    try:
        status = os.fstat(fd)
        by_group = status.st_mode & stat.S_IWGRP and not is_own_group(
            status.st_gid, status.st_uid, fd
        )
        # As in OpenSSH: what stands there is run.
        if is_checked and status.st_uid not in (0, os.getuid()):
            raise _unreadable(path, f"it belongs to another user (number {status.st_uid})")
        if is_checked and (by_group or status.st_mode & stat.S_IWOTH):
            raise _unreadable(
                path, f"other users could change it (run: chmod go-w {str(path)[:MAX_SHOWN]})"
            )
        content = b""
        while part := os.read(fd, _MAX_BYTES + 1 - len(content)):
            content += part
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    finally:
        os.close(fd)
    if len(content) > _MAX_BYTES:
        raise InputError(f"the SSH configuration {path} is larger than {_MAX_BYTES} bytes")
    return os.fsdecode(content).split("\n")


def _unreadable(path: Path, why: str) -> InputError:
    return InputError(f"the SSH configuration {str(path)[:200]} cannot be read: {why}")


def included(pattern: str, *, is_users: bool) -> list[Path]:
    """Return the files that a pattern of an Include line names, in their order."""
    if not pattern.startswith(("/", "~")):
        base = Path.home() / ".ssh" if is_users else SYSTEM_CONFIG.parent
        pattern = f"{base}/{pattern}"
    found = glob.glob(str(expanded_home(pattern)))  # noqa: PTH207 - Path.glob refuses some patterns
    return [Path(each) for each in sorted(found)]


def shown_path(path: Path) -> str:
    """Return a path for messages, the home folder as `~`."""
    with contextlib.suppress(ValueError):
        return f"~/{path.relative_to(Path.home())}"
    return str(path)


def expanded_home(name: str) -> str:
    """Return a path with the home folder in place of a leading `~` or `~user`.

    Raises:
        InputError: This machine knows no such user.
    """
    if not name.startswith("~"):
        return name
    try:
        return str(Path(name).expanduser())
    except RuntimeError as error:
        raise InputError(
            f"the SSH configuration names '{name[:MAX_SHOWN]}', and this machine knows no such user"
        ) from error


def _lines_below(path: Path, depth: int) -> Iterator[str]:
    """Return the lines of the user's file and, in their places, of those that it includes."""
    for line in lines_of(path, depth, is_checked=True):
        keyword, rest = split_keyword(line)
        if keyword != "include":
            yield line
            continue
        with contextlib.suppress(ValueError):
            for pattern in split_words(rest):
                for each in included(pattern, is_users=True):
                    yield from _lines_below(each, depth + 1)

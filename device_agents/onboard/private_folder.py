"""Folders that nobody but this user, or the system, can change: walked from the root, made, checked.

What lies there is run, or answers for the device, so each folder on the path has to belong to this
user or to root, and nobody else may write there, unless its sticky bit keeps everybody's hands off
what others made. Each is opened below the one before, never by a path that could change in between.
joulemap's own folders below are this user's alone, whatever the umask.

The standard library only, and no other module of this folder: `transports.remote_files` sends this
text to a device before the agent is there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from collections.abc import Sequence

OWN_MODE = 0o700
_MAX_LINKS = 40
_MAX_TRIES = 100
# Android's system and its debugging shell, in whose folders everything lies there. Apps are neither.
_ANDROID_IDS = (1000, 2000)
_FOLDER = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# A folder that may be passed through but not listed, such as Android's /data.
_PASS = _FOLDER | getattr(os, "O_PATH", os.O_RDONLY)


class UnsafeError(Exception):
    """Somebody else could change what lies there; the text says what is wrong with which folder.

    Attributes:
        path: The folder or file.
        reason: What is wrong with it.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path} {reason}")
        self.path, self.reason = path, reason


def open_folder(path: str, own: Sequence[str] = (), *, make: bool = True) -> int:
    """Return a descriptor of a folder, after a look at every folder on the way to it.

    Args:
        path: Absolute; may be reached through links of this user's or the system's.
        own: Names of folders in it, one in the other, that are this user's alone.
        make: Whether folders that are not there are made.

    Raises:
        UnsafeError: Another user could change what lies there.
        OSError: It cannot be opened or made.
    """
    for tries_left in range(_MAX_TRIES - 1, -1, -1):
        try:
            return _opened(path, own, make=make)
        except (FileNotFoundError, FileExistsError):
            # Somebody else of this user makes or removes it right now.
            if not make or not tries_left:
                raise
    raise AssertionError


def open_file(name: str, flags: int, folder: int | None = None) -> int:
    """Return a descriptor of this user's own file; a link, a pipe or another's file is refused.

    Args:
        name: The file's, in the folder.
        flags: As for `os.open`.
        folder: The folder's descriptor; the working directory when None.

    Raises:
        UnsafeError: It is no plain file of this user's.
        OSError: It cannot be opened.
    """
    # Cut only once it is known what it is.
    cut = flags & os.O_TRUNC
    flags = (flags & ~os.O_TRUNC) | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(name, flags, 0o600, dir_fd=folder)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UnsafeError(name, "is a link, which joulemap never made") from error
        raise
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            raise UnsafeError(name, "is no plain file of its own, as joulemap makes it")
        if status.st_uid != os.geteuid():
            raise UnsafeError(name, _whose(status.st_uid))
        if cut:
            os.ftruncate(fd, 0)
        return fd
    except BaseException:
        os.close(fd)
        raise


def problem_of(
    status: os.stat_result, fd: int | None = None, *, is_open_above: bool = False
) -> str | None:
    """Return why others could change what lies in a folder, None if they could not.

    Args:
        status: What `os.stat` says of it.
        fd: Its descriptor, None where there is none.
        is_open_above: Whether everybody may make something in the folder above it.
    """
    if not _is_trusted(status.st_uid, is_open_above=is_open_above):
        return _whose(status.st_uid)
    if status.st_mode & stat.S_ISVTX:
        return None
    by_group = status.st_mode & stat.S_IWGRP and not is_own_group(status.st_gid, status.st_uid, fd)
    if by_group or status.st_mode & stat.S_IWOTH:
        mode = stat.S_IMODE(status.st_mode)
        return f"can be written by other users (mode {mode:04o}), who could replace what runs"
    return None


def is_own_group(gid: int, uid: int, fd: int | None = None) -> bool:
    """Return whether a user, or the system, is alone in a group, so that its rights are no others'.

    Args:
        gid: The group.
        uid: The user.
        fd: A file of that group: a list of further users that it carries says that he is not.
    """
    if fd is not None and _has_list(fd):
        return False
    if gid == 0 or (is_android() and gid in _ANDROID_IDS):
        return True
    try:
        import grp
        import pwd

        name = pwd.getpwuid(uid).pw_name
        members = set(grp.getgrgid(gid).gr_mem)
    except (ImportError, KeyError):  # Python for Android has no such list.
        return False
    others = [user for user in pwd.getpwall() if user.pw_gid == gid and user.pw_uid != uid]
    return members <= {name} and not others


def is_android() -> bool:
    """Return whether this is an Android device."""
    return hasattr(sys, "getandroidapilevel") or bool(os.environ.get("ANDROID_ROOT"))


def _opened(path: str, own: Sequence[str], *, make: bool) -> int:
    here = os.path.abspath(path)  # noqa: PTH100 - links stay as they are
    fd = _walk(here, make=make)
    for name in own:
        here = f"{here}/{name}"
        try:
            below = _own(fd, name, here, make=make)
        finally:
            os.close(fd)
        fd = below
    return fd


def _walk(path: str, *, make: bool) -> int:
    """Return a descriptor of a folder that can be trusted on the whole way to it."""
    rest = _parts(path)
    here, links, is_open = "/", 0, False
    fd = os.open("/", _PASS)
    try:
        is_open = _check(fd, here, is_open_above=False)
        while rest:
            name = rest.pop(0)
            try:
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except FileNotFoundError:
                if not make:
                    raise
                _make(fd, name)
                rest.insert(0, name)
                continue
            except PermissionError:
                if not is_android():
                    raise
                status = None
            if status is not None and stat.S_ISLNK(status.st_mode):
                links += 1
                if links > _MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                if not _is_trusted(status.st_uid, is_open_above=is_open):
                    raise UnsafeError(_joined(here, name), _whose(status.st_uid))
                target = os.readlink(name, dir_fd=fd)
                rest = _parts(target) + rest
                if not target.startswith("/"):
                    continue
                name, is_open = "/", False
            below = os.open(name, _PASS, dir_fd=fd)
            os.close(fd)
            fd, here = below, _joined(here, name)
            is_open = _check(fd, here, is_open_above=is_open)
        readable = os.open(".", _FOLDER | os.O_RDONLY, dir_fd=fd)
    finally:
        os.close(fd)
    return readable


def _own(fd: int, name: str, here: str, *, make: bool) -> int:
    """Return a descriptor of a folder in another one that is this user's alone."""
    if make:
        _make(fd, name)
    try:
        below = os.open(name, _FOLDER | os.O_RDONLY, dir_fd=fd)
    except OSError as error:
        status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        if status.st_uid != os.geteuid():
            raise UnsafeError(here, _whose(status.st_uid)) from error
        if stat.S_ISLNK(status.st_mode):
            raise UnsafeError(here, "is a link, which joulemap never made") from error
        raise
    try:
        status = os.fstat(below)
        if status.st_uid != os.geteuid():
            raise UnsafeError(here, _whose(status.st_uid))
        if stat.S_IMODE(status.st_mode) & 0o077:
            os.fchmod(below, OWN_MODE)
            reason = problem_of(os.fstat(below), below)
            if reason is not None:
                raise UnsafeError(here, reason)
        return below
    except BaseException:
        os.close(below)
        raise


def _make(fd: int, name: str) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, OWN_MODE, dir_fd=fd)


def _check(fd: int, here: str, *, is_open_above: bool) -> bool:
    """Return whether everybody may make something in a folder that can be trusted."""
    try:
        status = os.fstat(fd)
    except PermissionError:
        # Android hides the system's own folders from apps, which may pass through them.
        if not is_android():
            raise
        return False
    reason = problem_of(status, fd, is_open_above=is_open_above)
    if reason is not None:
        raise UnsafeError(here, reason)
    return bool(status.st_mode & (stat.S_IWOTH | stat.S_IWGRP))


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _joined(folder: str, name: str) -> str:
    return os.path.normpath(os.path.join(folder, name))  # noqa: PTH118


def _is_trusted(uid: int, *, is_open_above: bool) -> bool:
    if uid in (0, os.geteuid()) or (is_android() and uid in _ANDROID_IDS):
        return True
    # In a container root of the machine outside has no number. Where everybody may make something,
    # one without a number may be anybody.
    return not is_open_above and _has_no_number(uid)


def _has_no_number(uid: int) -> bool:
    """Return whether a number stands for users whom this name space does not know."""
    try:
        with open("/proc/sys/kernel/overflowuid", encoding="utf-8") as file:  # noqa: PTH123
            if int(file.read()) != uid:
                return False
        with open("/proc/self/uid_map", encoding="utf-8") as file:  # noqa: PTH123
            ranges = [[int(word) for word in line.split()] for line in file]
    except (OSError, ValueError):
        return False
    return not any(first <= uid < first + count for first, _, count in ranges)


def _has_list(fd: int) -> bool:
    """Return whether a file carries a list of further users who may write it."""
    try:
        os.getxattr(f"/proc/self/fd/{fd}", "system.posix_acl_access")
    except (OSError, AttributeError):
        return False
    return True


def _whose(uid: int) -> str:
    return f"belongs to another user (number {uid}), who could replace what runs"

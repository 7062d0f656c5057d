"""Opens the files that users name: regular ones of bounded size, never a pipe, a socket or a device.

A pipe at the place of a file makes a program wait for ever, `/dev/zero` or a sparse file of a
terabyte fills its memory, and what is moved to the place of a device node replaces the node. So every
file whose name comes from outside is opened here; a link to a regular file is as good as the file.
What is refused is an OSError whose `strerror` says why, as with any file that cannot be opened.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from . import interruption

STANDARD_STREAM = "-"
_PART = 1 << 20
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class UnusableFileError(OSError):
    """A file is of a kind or a size that is not read or written; `strerror` says which."""


def open_regular(path: str | os.PathLike[str], flags: int = os.O_RDONLY, mode: int = 0o666) -> int:
    """Return the descriptor of a regular file, without waiting for anything.

    Args:
        path: The file, or a link to it.
        flags: As for `os.open`. A file is not cut before it is known to be a regular one.
        mode: Permissions of a file that is made.

    Raises:
        OSError: It cannot be opened, or is no regular file.

    Example:
        >>> open_regular(os.devnull)
        Traceback (most recent call last):
        joulemap.regular_files.UnusableFileError: [Errno 22] it is a device, not a regular file: '/dev/null'
    """
    cut = flags & os.O_TRUNC
    flags = (flags & ~os.O_TRUNC) | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    with _named(path):
        # Before it is opened: some devices act on that alone.
        with contextlib.suppress(FileNotFoundError):
            _check_kind(Path(path).stat(), path)
        fd = os.open(path, flags, mode)
    try:
        _check_kind(os.fstat(fd), path)
        if cut:
            os.ftruncate(fd, 0)
    except BaseException:
        os.close(fd)
        raise
    return fd


def read_bytes(path: str | os.PathLike[str], max_bytes: int) -> bytes:
    """Return the content of a regular file.

    Args:
        path: The file, or a link to it.
        max_bytes: What is larger is refused before it is read.

    Raises:
        OSError: It cannot be read, is no regular file, or is larger.

    Example:
        >>> len(read_bytes("/proc/self/comm", 100)) > 1
        True
    """
    fd = open_regular(path)
    try:
        size = os.fstat(fd).st_size
        if size > max_bytes:
            raise _too_large(path, max_bytes)
        return _read(fd, path, max_bytes)
    finally:
        os.close(fd)


def read_text(path: str | os.PathLike[str], max_bytes: int) -> str:
    """Return the text of a regular file in UTF-8.

    Args:
        path: The file, or a link to it.
        max_bytes: What is larger is refused before it is read.

    Raises:
        OSError: It cannot be read, is no regular file, is larger, or is not UTF-8.

    Example:
        >>> len(read_text("/proc/self/comm", 100)) > 1
        True
    """
    try:
        return read_bytes(path, max_bytes).decode("utf-8")
    except UnicodeDecodeError as error:
        why = f"it is no text in UTF-8 (byte {error.start + 1})"
        raise UnusableFileError(errno.EILSEQ, why, os.fspath(path)) from error


def read_table(path: str | os.PathLike[str], max_bytes: int) -> bytes:
    """Return the content of a table's file, or of standard input where the name is `-`.

    Args:
        path: A regular file, a link to one, or `-`.
        max_bytes: More is refused.

    Raises:
        OSError: It cannot be read, is no regular file, or is larger.

    Example:
        >>> len(read_table("/proc/self/comm", 100)) > 1
        True
    """
    if os.fspath(path) != STANDARD_STREAM:
        return read_bytes(path, max_bytes)
    try:
        # Its descriptor: a program that has been given no standard input has no `sys.stdin`.
        return _read(0 if sys.stdin is None else sys.stdin.fileno(), path, max_bytes)
    except ValueError as error:
        raise UnusableFileError(errno.EBADF, "it is closed", STANDARD_STREAM) from error


def target_of(path: str | os.PathLike[str]) -> Path:
    """Return the file that writing to a path replaces or makes; where it is a link, the file behind it.

    Args:
        path: What is to be written.

    Raises:
        OSError: What is there is no regular file, or there is no folder for it.

    Example:
        >>> target_of("/proc/version")
        PosixPath('/proc/version')
    """
    with _named(path):
        target = Path(path)
        if target.is_symlink():
            # `stat` first: the system lets nobody follow what others planted in a shared folder.
            with contextlib.suppress(FileNotFoundError):
                target.stat()
            target = target.resolve()
        try:
            _check_kind(target.stat(), path)
        except FileNotFoundError:
            if not target.parent.is_dir():
                why = f"there is no folder {target.parent}; make it first"
                raise UnusableFileError(errno.ENOENT, why, os.fspath(path)) from None
        return target


def write_whole(path: str | os.PathLike[str], write: Callable[[BinaryIO], object]) -> None:
    """Write a file beside its place and move it there when it is complete and on the disk.

    Args:
        path: Its place: absent or a regular file, which is replaced.
        write: Writes the content to the open file that it is given.

    Raises:
        OSError: It cannot be written, or something else than a regular file is there. What was there
            before is untouched.
    """
    with interruption.finishing():
        target = target_of(path)
        # Short: a name may be as long as the file system allows.
        temporary = target.parent / f".joulemap-{secrets.token_hex(8)}.part"
        fd = open_regular(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            with os.fdopen(fd, "wb") as file:
                with contextlib.suppress(FileNotFoundError):
                    # Whoever may read the old file may read the new one.
                    os.fchmod(file.fileno(), stat.S_IMODE(target.stat().st_mode))
                write(file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def _read(fd: int, path: str | os.PathLike[str], max_bytes: int) -> bytes:
    # By parts: memory for the largest size is not asked for in advance.
    parts, missing = [], max_bytes + 1
    while missing and (part := os.read(fd, min(_PART, missing))):
        parts.append(part)
        missing -= len(part)
    if not missing:
        raise _too_large(path, max_bytes)
    return b"".join(parts)


def _check_kind(status: os.stat_result, path: str | os.PathLike[str]) -> None:
    if stat.S_ISREG(status.st_mode):
        return
    kind = next((word for is_kind, word in _KINDS if is_kind(status.st_mode)), "something else")
    number = errno.EISDIR if stat.S_ISDIR(status.st_mode) else errno.EINVAL
    raise UnusableFileError(number, f"it is {kind}, not a regular file", os.fspath(path))


def _too_large(path: str | os.PathLike[str], max_bytes: int) -> UnusableFileError:
    why = f"it is larger than {max_bytes} bytes, and such a file never is"
    return UnusableFileError(errno.EFBIG, why, os.fspath(path))


@contextlib.contextmanager
def _named(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn what Python says of names that no file can have into an error like the system's."""
    try:
        yield
    except ValueError as error:
        why = "no file can have such a name"
        raise UnusableFileError(errno.EINVAL, why, repr(path)) from error

"""Where a campaign's keeper lives on the device, and how it is reached and started.

::

    cache/agents/agent-HASH.pyz
    cache/campaigns/TOKEN/lock      held by the keeper while it lives; its process id
                          socket    where it listens
                          spool     finished answers
                          log       what it and the agents said, bounded

All of it is one user's alone (see `private_folder`): who else could write there, or listen on the
socket, could answer for the device. Both ends of the socket ask the kernel whose the other one is.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import shutil
import socket
import stat
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from .. import private_folder

# Random and the host's choice; nothing else can be part of a path.
TOKEN = re.compile(r"[0-9a-f]{16,64}\Z")
START_TIMEOUT_S = 20.0
CONNECT_TIMEOUT_S = 5.0
READY = b"ready\n"
AGENTS = "agents"
CAMPAIGNS = "campaigns"
MAX_TRIES = 100

_T = TypeVar("_T")


class FolderError(Exception):
    """The folder cannot be used; the text says why and what to do."""


def cache_folder(agent: str) -> Path:
    """Return the cache folder in which the agent's archive lies."""
    folder = Path(os.path.abspath(agent)).parent  # noqa: PTH100 - links stay as they are
    return folder.parent if folder.name == AGENTS else folder


def enter(agent: str, token: str) -> Path:
    """Make a campaign's folder and the working directory of this process.

    Socket addresses are short; inside the folder they are one word. What this process makes from
    here on is nobody else's, whatever its umask was.

    Raises:
        FolderError: The token is none, the folder cannot be made, or others could change it.
    """
    if not TOKEN.match(token):
        raise FolderError("the campaign's token is not 16 to 64 digits of base 16")
    os.umask(0o077)
    folder = cache_folder(agent) / CAMPAIGNS / token
    _insist(folder, lambda: None)
    return folder


def open_file(name: str, flags: int) -> int:
    """Return a descriptor of a file in the working directory that is this user's own.

    Raises:
        FolderError: Something else has its name there.
        OSError: It cannot be opened.
    """
    try:
        return private_folder.open_file(name, flags)
    except private_folder.UnsafeError as error:
        raise FolderError(unsafe(f"{Path.cwd()}/{error.path}", error.reason)) from error


def _insist(folder: Path, then: Callable[[], _T]) -> _T:
    """Make a campaign's folder the working directory and return what is done in it.

    All of it again where an ending keeper removes the folder in between.

    Raises:
        FolderError: The folder cannot be made or written, or others could.
    """
    for tries_left in range(MAX_TRIES - 1, -1, -1):
        try:
            own = (CAMPAIGNS, folder.name)
            fd = private_folder.open_folder(str(folder.parent.parent), own)
            try:
                os.fchdir(fd)
            finally:
                os.close(fd)
            return then()
        except private_folder.UnsafeError as error:
            raise FolderError(unsafe(error.path, error.reason)) from error
        except (FileNotFoundError, FileExistsError) as error:
            # `mkdir` says the latter of a folder that went while it looked.
            if not tries_left:
                raise FolderError(cannot(folder, error)) from error
        except OSError as error:
            raise FolderError(cannot(folder, error)) from error
    raise AssertionError


def lock(folder: Path) -> int | None:
    """Return a descriptor that holds the folder's lock, None if another process holds it.

    Raises:
        FolderError: The folder cannot be written.
    """
    while True:
        fd = _insist(folder, lambda: open_file("lock", os.O_RDWR | os.O_CREAT))
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        except OSError as error:
            os.close(fd)
            raise FolderError(
                f"files in {folder} on the device cannot be locked ({error.strerror}): name a "
                "folder on a disk of its own in the device's URL, ?cache=/path/to/folder, or by "
                "XDG_CACHE_HOME on the device"
            ) from error
        if _is_same(folder / "lock", fd):
            # For whoever looks; the disk may be full.
            with contextlib.suppress(OSError):
                os.ftruncate(fd, 0)
                os.write(fd, b"%d\n" % os.getpid())
            return fd
        os.close(fd)  # An ending keeper removed the folder meanwhile, with this file.


def _is_same(path: Path, fd: int) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(fd))
    except OSError:
        return False


def remove(folder: Path) -> None:
    """Remove the campaign's folder that is the working directory; its lock must be held.

    Whoever comes meanwhile finds either all of it, locked, or none. A folder that has taken the
    place of a lost one is another keeper's.
    """
    try:
        if not os.path.samefile(".", folder):  # noqa: PTH121
            return
        gone = folder.with_name(os.urandom(16).hex())
        folder.rename(gone)
    except OSError:
        gone = folder
    for _ in range(MAX_TRIES):
        shutil.rmtree(gone, ignore_errors=True)
        # Who entered it before it was moved may make a last file in it, and goes on elsewhere.
        if gone == folder or not gone.exists():
            break
    # The last one leaves no empty folder of all campaigns'.
    with contextlib.suppress(OSError):
        folder.parent.rmdir()


def listen() -> socket.socket:
    """Return a socket that listens in the working directory; the lock must be held.

    Raises:
        OSError: The disk is full.
        FolderError: The device has no such sockets.
    """
    Path("socket").unlink(missing_ok=True)
    listener = _socket()
    listener.bind("socket")
    listener.listen(8)
    listener.setblocking(False)
    return listener


def connect() -> socket.socket | None:
    """Return a connection to the keeper of the working directory, None if there is none.

    Raises:
        FolderError: The device has no such sockets, or another user listens there.
    """
    connection = _socket()
    # One that hangs takes no more connections, and this would wait without end.
    connection.settimeout(CONNECT_TIMEOUT_S)
    try:
        connection.connect("socket")
    except OSError:
        connection.close()
        return None
    if not is_own(connection):
        connection.close()
        raise FolderError(unsafe(f"{Path.cwd()}/socket", "is listened on by another user"))
    return connection


def is_own(connection: socket.socket) -> bool:
    """Return whether the other end of a socket is this user's; where no kernel says so, yes.

    The folder that the socket lies in keeps others off by itself.
    """
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    size = struct.calcsize("3i")
    try:
        found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    except OSError:
        return False
    return bool(struct.unpack("3i", found)[1] == os.geteuid())


def _socket() -> socket.socket:
    try:
        return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    except OSError as error:
        raise FolderError(
            f"joulemap needs Unix sockets on the device, and its system refuses them "
            f"({error.strerror}): a sandbox or container may forbid them, so allow them there; or run "
            "joulemap on the device itself, as local:"
        ) from error


def start_keeper(command: Sequence[str]) -> None:
    """Start the keeper of the working directory, which outlives this process and its link.

    Returns once it listens, or found that another does, or ended without a word: who was killed
    meanwhile can be started again.

    Raises:
        FolderError: It said why it cannot.
    """
    process = subprocess.Popen(
        list(command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert process.stdout is not None  # noqa: S101 - by the arguments above
    said = b""
    with process.stdout:
        if select.select([process.stdout], [], [], START_TIMEOUT_S)[0]:
            said = process.stdout.readline(4096)
    process.wait()
    if said and said != READY:
        raise FolderError(said.decode(errors="replace").strip())


def tell(word: bytes) -> None:
    """Answer whoever started this keeper, and let go of standard output."""
    with contextlib.suppress(OSError):
        os.write(1, word)
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)


def clean(agent: str) -> dict[str, list[str]]:
    """Remove what joulemap left on the device: campaigns' folders and agents.

    Returns:
        Names that were `removed`, and those that were `kept` because a campaign runs there.
    """
    cache = cache_folder(agent)
    removed, kept = [], []
    for name in _own_folders(cache / CAMPAIGNS):
        folder = cache / CAMPAIGNS / name
        held = lock(folder)
        if held is None:
            kept.append(name)
            continue
        remove(folder)
        os.chdir(cache)
        os.close(held)
        removed.append(name)
    # A keeper starts its next agent from the archive.
    # Beside archives may lie some that never arrived whole.
    archives = [] if kept else sorted((cache / AGENTS).glob("agent-*.pyz*"))
    for archive in archives:
        archive.unlink()
        removed.append(archive.name)
    for folder in (cache / CAMPAIGNS, cache / AGENTS, cache):
        try:
            folder.rmdir()
        except OSError:
            continue
    return {"removed": removed, "kept": kept}


def _own_folders(campaigns: Path) -> list[str]:
    """Return the names of this user's campaigns' folders."""
    try:
        fd = private_folder.open_folder(str(campaigns.parent), (campaigns.name,), make=False)
    except OSError:
        return []
    except private_folder.UnsafeError as error:
        raise FolderError(unsafe(error.path, error.reason)) from error
    try:
        found = []
        for name in sorted(os.listdir(fd)):  # noqa: PTH208 - of a descriptor
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            is_own_folder = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
            if is_own_folder and TOKEN.match(name):
                found.append(name)
        return found
    finally:
        os.close(fd)


def unsafe(path: str, reason: str) -> str:
    """Return that others could change what lies somewhere, and what to do."""
    return (
        f"{path} on the device {reason}: name a folder of your own in the device's URL, "
        "?cache=/path/to/folder, or by XDG_CACHE_HOME there"
    )


def cannot(folder: Path, error: OSError) -> str:
    """Return that a folder cannot be written, why, and what to do."""
    return (
        f"the device cannot store measurements in {folder}: {error.strerror}; free some space, or "
        "set XDG_CACHE_HOME on the device to a folder that can be written"
    )


def keeper_command(agent: str, token: str) -> list[str]:
    """Return how the keeper of a campaign is started with this interpreter."""
    return [sys.executable, "-B", os.path.abspath(agent), "keep", token]  # noqa: PTH100

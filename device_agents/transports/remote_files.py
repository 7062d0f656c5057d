"""Files to and from a device that has Python: nothing else needs to be there, no SFTP, no rsync."""

from __future__ import annotations

import hashlib
import importlib.resources
from collections.abc import Sequence
from typing import Any

from .. import onboard
from ..errors import StableDeviceError, TransientDeviceError
from ..interfaces import Process, Transport
from ..onboard import frames

_MAX_ANSWER = 1 << 16
_PREFIX = 8

# Answers are eight digits, the length, and JSON. Before them comes what folders are looked at with.
_ANSWER = """
import hashlib, json, os, secrets, signal, sys
def answer(**fields):
    text = json.dumps(fields).encode()
    sys.stdout.buffer.write(b"%08d" % len(text) + text)
    sys.stdout.buffer.flush()
"""
_STORE = (
    importlib.resources.files(onboard).joinpath("private_folder.py").read_text(encoding="utf-8")
    + _ANSWER
    + """
name, digest, length, folders = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:]
def is_stored(file):
    try:
        with os.fdopen(open_file(file, os.O_RDONLY, fd), "rb") as stream:
            return hashlib.sha256(stream.read(length + 1)).hexdigest() == digest
    except (FileNotFoundError, UnsafeError):
        return False
def end(*_):
    sys.exit(4)
def drop():
    global partial
    if partial:
        try:
            os.unlink(partial, dir_fd=fd)
        except OSError:
            pass
    partial = None
def opened():
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    problem = None
    for each in folders:
        cache = os.path.expanduser(each) if each else os.path.join(base, "joulemap")
        # One of several is only made where its system has a place for it.
        if len(folders) > 1 and not os.path.isdir(os.path.dirname(os.path.dirname(cache))):
            continue
        try:
            return open_folder(cache, ("agents",)), os.path.join(os.path.abspath(cache), "agents")
        except OSError as error:
            text = error.strerror or str(error)
            problem = problem or dict(error=text, folder=os.path.join(cache, "agents"))
        except UnsafeError as error:
            problem = problem or dict(error=error.reason, folder=error.path)
    answer(**(problem or dict(error="there is no such place", folder=", ".join(folders))))
    sys.exit(6)
# A link that goes ends this so, and nothing half is left.
signal.signal(signal.SIGHUP, end)
signal.signal(signal.SIGTERM, end)
partial = None
fd, folder = opened()
path = os.path.join(folder, name)
try:
    if is_stored(name):
        answer(path=path, is_stored=True)
        sys.exit(0)
    partial = "%s.%s.part" % (name, secrets.token_hex(4))
    part = open_file(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, fd)
    answer(path=path, is_stored=False)
    content = sys.stdin.buffer.read(length)
    if len(content) < length:
        sys.exit(4)
    with os.fdopen(part, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(part)
    if not is_stored(partial):
        drop()
        answer(error="what arrived is damaged", folder=folder, is_transient=True)
        sys.exit(5)
    os.rename(partial, name, src_dir_fd=fd, dst_dir_fd=fd)
    partial = None
    answer(path=path, is_stored=True)
except OSError as error:
    # Before the answer: who has it ends this program.
    drop()
    answer(error=error.strerror or str(error), folder=folder, number=error.errno)
finally:
    drop()
"""
)
_FETCH = (
    _ANSWER
    + """
try:
    with open(sys.argv[1], "rb") as stream:
        content = stream.read(int(sys.argv[2]) + 1)
except OSError as error:
    answer(error=error.strerror or str(error))
else:
    if len(content) > int(sys.argv[2]):
        answer(error="larger")
    else:
        answer(length=len(content), digest=hashlib.sha256(content).hexdigest())
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
"""
)


def push(
    transport: Transport, content: bytes, name: str, caches: Sequence[str], timeout_s: float
) -> str:
    """Return the path on the device of a file with this content; it is sent if it is not there.

    It is checked there by its hash, written beside its place and renamed.

    Args:
        transport: Reaches the device; its `start` and `python` are used.
        content: Bytes of the file.
        name: Its name, no path.
        caches: Folders there for joulemap's files, of which the first that can be used is taken; an
            empty name stands for the user's cache folder. Nobody else may be able to change what
            lies there (see `onboard.private_folder`).
        timeout_s: Limit for each of the waits.

    Raises:
        StableDeviceError: The folder cannot be written, or others could write it.
        TransientDeviceError: The link failed.
    """
    digest = hashlib.sha256(content).hexdigest()
    arguments = [name, digest, str(len(content)), *caches]
    process = transport.start([transport.python(), "-I", "-S", "-c", _STORE, *arguments])
    try:
        answer = _answer(process, timeout_s)
        if "error" not in answer and answer.get("is_stored") is not True:
            process.write(content, timeout_s)
            answer = _answer(process, timeout_s)
    finally:
        process.kill()
    if "error" in answer:
        if answer.get("is_transient"):
            raise TransientDeviceError(f"sending {name} failed: {str(answer['error'])[:200]}")
        raise StableDeviceError(
            f"the agent cannot be stored in {str(answer.get('folder'))[:300]} on the device: "
            f"{str(answer['error'])[:200]}; make room or permit writing there, or name another "
            "folder in the device's URL: ?cache=/path/to/folder"
        )
    path = answer.get("path")
    is_path = isinstance(path, str) and path.startswith("/") and path.endswith(f"/{name}")
    if not is_path or not str(path).isprintable():
        raise TransientDeviceError("the device answers with no path of the stored file")
    return str(path)


def pull(transport: Transport, path: str, max_bytes: int, timeout_s: float) -> bytes:
    """Return the content of a file on the device.

    Args:
        transport: Reaches the device; its `start` and `python` are used.
        path: Absolute path on the device.
        max_bytes: More is refused.
        timeout_s: Limit for each of the waits.

    Raises:
        StableDeviceError: There is no such file, or it is larger.
        TransientDeviceError: The link failed.
    """
    command = [transport.python(), "-I", "-S", "-c", _FETCH, path, str(max_bytes)]
    process = transport.start(command)
    try:
        answer = _answer(process, timeout_s)
        if answer.get("error") == "larger":
            raise StableDeviceError(f"{path} on the device is larger than {max_bytes} bytes")
        if "error" in answer:
            raise StableDeviceError(
                f"cannot read {path} on the device: {str(answer['error'])[:200]}"
            )
        length = answer.get("length")
        if type(length) is not int or not 0 <= length <= max_bytes:
            raise StableDeviceError(f"the device gives {path} a length that cannot be")
        content = process.read(length, timeout_s)
    finally:
        process.kill()
    if hashlib.sha256(content).hexdigest() != answer.get("digest"):
        raise TransientDeviceError(f"{path} arrived damaged")
    return content


def _answer(process: Process, timeout_s: float) -> dict[str, Any]:
    prefix = process.read(_PREFIX, timeout_s)
    if not prefix.isdigit() or int(prefix) > _MAX_ANSWER:
        raise TransientDeviceError("the device's answer about a file cannot be read")
    try:
        return frames.decode_header(process.read(int(prefix), timeout_s))
    except frames.FrameError as error:
        raise TransientDeviceError("the device's answer about a file cannot be read") from error

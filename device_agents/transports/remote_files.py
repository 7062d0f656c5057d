"""Files to and from a device that has Python: nothing else needs to be there, no SFTP, no rsync."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from ..errors import StableDeviceError, TransientDeviceError
from ..interfaces import Process, Transport

_MAX_ANSWER = 1 << 16
_PREFIX = 8

# Answers are eight digits, the length, and JSON. Old Pythons and those without packages read this.
_ANSWER = """
import hashlib, json, os, signal, sys, tempfile
def answer(**fields):
    text = json.dumps(fields).encode()
    sys.stdout.buffer.write(b"%08d" % len(text) + text)
    sys.stdout.buffer.flush()
"""
_STORE = (
    _ANSWER
    + """
name, digest, length, folder = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
folder = os.path.join(folder or os.path.join(base, "joulemap"), "agents")
path = os.path.join(folder, name)
def is_stored(file):
    with open(file, "rb") as stream:
        return hashlib.sha256(stream.read(length + 1)).hexdigest() == digest
def end(*_):
    sys.exit(4)
def drop():
    global partial
    if partial:
        try:
            os.unlink(partial)
        except OSError:
            pass
    partial = None
# A link that goes ends this so, and nothing half is left.
signal.signal(signal.SIGHUP, end)
signal.signal(signal.SIGTERM, end)
partial = None
try:
    os.makedirs(folder, mode=0o700, exist_ok=True)
    for owned, others in ((folder, ()), (os.path.dirname(folder), (0,))):
        if os.stat(owned).st_uid not in (os.geteuid(),) + others:
            answer(error="it belongs to another user, who could replace what runs", folder=owned)
            sys.exit(6)
    if os.path.isfile(path) and is_stored(path):
        answer(path=path, is_stored=True)
        sys.exit(0)
    fd, partial = tempfile.mkstemp(dir=folder, prefix=name + ".", suffix=".part")
    answer(path=path, is_stored=False)
    content = sys.stdin.buffer.read(length)
    if len(content) < length:
        sys.exit(4)
    with os.fdopen(fd, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(fd)
    if not is_stored(partial):
        drop()
        answer(error="what arrived is damaged", folder=folder, is_transient=True)
        sys.exit(5)
    os.replace(partial, path)
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
    transport: Transport, content: bytes, name: str, cache: str | None, timeout_s: float
) -> str:
    """Return the path on the device of a file with this content; it is sent if it is not there.

    It is checked there by its hash, written beside its place and renamed.

    Args:
        transport: Reaches the device; its `start` and `python` are used.
        content: Bytes of the file.
        name: Its name, no path.
        cache: Folder there for joulemap's files; the user's cache folder when None.
        timeout_s: Limit for each of the waits.

    Raises:
        StableDeviceError: The folder cannot be written.
        TransientDeviceError: The link failed.
    """
    digest = hashlib.sha256(content).hexdigest()
    arguments = [name, digest, str(len(content)), cache or ""]
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
        if not isinstance(length, int) or not 0 <= length <= max_bytes:
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
        answer = json.loads(process.read(int(prefix), timeout_s))
    except ValueError as error:
        raise TransientDeviceError("the device's answer about a file cannot be read") from error
    if not isinstance(answer, dict):
        raise TransientDeviceError("the device's answer about a file cannot be read")
    return answer

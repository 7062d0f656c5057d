"""Which host keys are known: reads OpenSSH's known_hosts files and adds to the user's."""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hashlib
import hmac
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from joulemap import InputError

from ..errors import StableDeviceError

_MAX_BYTES = 16 << 20


@dataclass(frozen=True)
class KnownKey:
    """A line of a known_hosts file that holds for a host."""

    file: Path
    line: int
    key_type: str
    blob: bytes
    is_revoked: bool


def known_keys(name: str, files: Sequence[Path]) -> list[KnownKey]:
    """Return the keys that the files hold for a host.

    Args:
        name: `host`, or `[host]:port` for another port than 22.
        files: Those that are not there hold none.

    Raises:
        InputError: A file cannot be read.
    """
    return [key for file in files for key in _keys_of(name, file)]


def fingerprint(blob: bytes) -> str:
    """Return a key's fingerprint as OpenSSH prints it."""
    digest = base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
    return f"SHA256:{digest}"


def check_host_key(
    name: str,
    key_type: str,
    blob: bytes,
    *,
    known_files: Sequence[Path],
    system_files: Sequence[Path],
    accept_new: bool,
) -> None:
    """Return if the key is the host's known one; store it if it is new and may be accepted.

    Args:
        name: `host`, or `[host]:port` for another port than 22.
        key_type: Such as `ssh-ed25519`.
        blob: The public key.
        known_files: The user's files; a new key goes into the first.
        system_files: The system's files.
        accept_new: Whether a host without any known key is trusted this first time.

    Raises:
        StableDeviceError: The key is unknown, another one or revoked; the message says what to do.
    """
    known = known_keys(name, [*known_files, *system_files])
    same = [key for key in known if key.blob == blob]
    shown = f"{key_type} {fingerprint(blob)}"
    if any(key.is_revoked for key in same):
        raise StableDeviceError(
            f"the host key of {name} ({shown}) is marked as revoked in {same[0].file}, line "
            f"{same[0].line}: do not connect; the device needs a new host key"
        )
    if same:
        return
    valid = [key for key in known if not key.is_revoked]
    if valid:
        raise StableDeviceError(
            f"the host key of {name} has CHANGED: it is now {shown}, but {valid[0].file}, line "
            f"{valid[0].line}, holds another: either the device was set up anew or somebody "
            "answers in its place. Compare the fingerprint on the device (ssh-keygen -lf "
            "/etc/ssh/ssh_host_ed25519_key.pub); if it is the same there, remove the old key "
            f"with: ssh-keygen -R '{name}' -f {valid[0].file}"
        )
    if not accept_new:
        raise StableDeviceError(
            f"the host key of {name} is unknown: {shown}. Compare it with the device's (there: "
            "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub), then repeat the command with "
            "--accept-new-host-key"
        )
    if known_files:
        _add(name, key_type, blob, known_files[0])


def _add(name: str, key_type: str, blob: bytes, file: Path) -> None:
    line = f"{name} {key_type} {base64.b64encode(blob).decode()}\n"
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            size = os.fstat(fd).st_size
            # A file whose last line is not ended would swallow this one.
            is_open = size > 0 and os.pread(fd, 1, size - 1) != b"\n"
            os.write(fd, (("\n" if is_open else "") + line).encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise StableDeviceError(
            f"the new host key of {name} cannot be stored in {file}: {error.strerror}"
        ) from error


def _keys_of(name: str, file: Path) -> Iterator[KnownKey]:
    try:
        with file.open("rb") as stream:
            content = stream.read(_MAX_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise InputError(
            f"the known host keys in {file} cannot be read: {error.strerror}"
        ) from error
    for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        marker = words.pop(0) if words[0].startswith("@") else None
        # Certificates of hosts are not checked here, so what signs them proves nothing.
        if marker == "@cert-authority" or len(words) < 3:
            continue
        try:
            blob = base64.b64decode(words[2], validate=True)
        except (binascii.Error, ValueError):
            continue
        if _matches(name, words[0]):
            yield KnownKey(file, number, words[1], blob, marker == "@revoked")


def _matches(name: str, patterns: str) -> bool:
    is_found = False
    for pattern in patterns.split(","):
        if pattern.startswith("|1|"):
            is_found |= _matches_hash(name, pattern)
        elif pattern.startswith("!"):
            if fnmatch.fnmatchcase(name, _escape(pattern[1:].lower())):
                return False
        else:
            is_found |= fnmatch.fnmatchcase(name, _escape(pattern.lower()))
    return is_found


def _escape(pattern: str) -> str:
    # `[host]:port` is no set of characters, as fnmatch would have it.
    return pattern.replace("[", "[[]")


def _matches_hash(name: str, pattern: str) -> bool:
    try:
        salt, digest = (base64.b64decode(part, validate=True) for part in pattern[3:].split("|"))
    except (binascii.Error, ValueError):
        return False
    return hmac.compare_digest(hmac.new(salt, name.encode(), "sha1").digest(), digest)

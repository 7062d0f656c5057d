"""Which host keys are known: reads OpenSSH's known_hosts files and adds to the user's."""

from __future__ import annotations

import base64
import binascii
import contextlib
import errno
import hashlib
import hmac
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from joulemap import InputError
from joulemap.regular_files import open_regular, read_bytes

from ..errors import StableDeviceError
from .ssh_config_files import shown_path
from .ssh_config_words import matches
from .ssh_host_certificates import CertificateError, HostCertificate

_MAX_BYTES = 16 << 20


@dataclass(frozen=True)
class KnownKey:
    """A line of a known_hosts file that holds for a host."""

    file: Path
    line: int
    key_type: str
    blob: bytes
    is_revoked: bool
    is_authority: bool = False


def known_keys(name: str, files: Sequence[Path]) -> list[KnownKey]:
    """Return the keys that the files hold for a host.

    Args:
        name: `host`, or `[host]:port` for another port than 22.
        files: Those that are not there hold none.

    Raises:
        InputError: A file cannot be read.
    """
    return [key for file in files for key in _keys_of(name, file) if not key.is_authority]


def known_authorities(name: str, files: Sequence[Path]) -> list[KnownKey]:
    """Return the keys of those who may vouch for a host, from the same files' lines.

    Args:
        name: As for `known_keys`; without a port those of the host at any port.
        files: Those that are not there hold none.

    Raises:
        InputError: A file cannot be read.
    """
    names = dict.fromkeys([name, _without_port(name)])
    return [
        key for each in names for file in files for key in _keys_of(each, file) if key.is_authority
    ]


def fingerprint(blob: bytes) -> str:
    """Return a key's fingerprint as OpenSSH prints it."""
    digest = base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
    return f"SHA256:{digest}"


def check_host_key(
    name: str,
    key_type: str,
    blob: bytes,
    certificate: bytes | None = None,
    *,
    known_files: Sequence[Path],
    system_files: Sequence[Path],
    accept_new: bool,
    revoked_file: Path | None = None,
) -> None:
    """Return if the key is the host's known one; store it if it is new and may be accepted.

    Args:
        name: `host`, or `[host]:port` for another port than 22.
        key_type: Such as `ssh-ed25519`.
        blob: The public key.
        certificate: The certificate that came with it, None for a plain key.
        known_files: The user's files; a new key goes into the first.
        system_files: The system's files.
        accept_new: Whether a host without any known key is trusted this first time.
        revoked_file: Keys that are trusted no more, whoever else knows them.

    Raises:
        StableDeviceError: The key is unknown, another one or revoked; the message says what to do.
    """
    files = [*known_files, *system_files]
    host = _without_port(name)
    known = known_keys(name, files)
    # As in OpenSSH: what is known of a host at its usual port is not another one's elsewhere.
    at_usual_port = known_keys(host, files) if host != name else []
    shown = f"{key_type} {fingerprint(blob)}"
    told, why_not = None, None
    if certificate is not None:
        try:
            told = HostCertificate.parse(certificate)
        except CertificateError as error:
            why_not = str(error)
    bad = {blob} if told is None else {blob, told.authority}
    for key in [*known, *at_usual_port]:
        if key.is_revoked and key.blob in bad:
            raise StableDeviceError(
                f"the host key of {name} ({shown}) is marked as revoked in {key.file}, line "
                f"{key.line}: do not connect; the device needs a new host key"
            )
    if revoked_file is not None and bad & _revoked_keys(revoked_file):
        raise StableDeviceError(
            f"the host key of {name} ({shown}) is revoked in {revoked_file}: do not connect; the "
            "device needs a new host key"
        )
    if any(key.blob == blob for key in [*known, *at_usual_port]):
        return
    authorities = known_authorities(name, files)
    if told is not None:
        try:
            told.check(host, [key.blob for key in authorities])
        except CertificateError as error:
            why_not = str(error)
        else:
            return
    valid = [key for key in known if not key.is_revoked]
    if authorities and not valid:
        first = authorities[0]
        line = f"{shown_path(first.file)}, line {first.line}, names an authority for it"
        what = f"its certificate {why_not}" if why_not else "it shows no certificate of that one's"
        raise StableDeviceError(
            f"the host key of {name} ({shown}) is not vouched for: {line}, and {what}. Have it "
            "signed (ssh-keygen -s CA -h -n NAME; HostCertificate in sshd_config), or add the key "
            "itself there"
        )
    if valid:
        raise StableDeviceError(
            f"the host key of {name} has CHANGED: it is now {shown}, but "
            f"{shown_path(valid[0].file)}, line {valid[0].line}, holds another: the device was set "
            "up anew, or somebody answers in its place. Compare there: ssh-keygen -lf "
            "/etc/ssh/ssh_host_ed25519_key.pub. If it is the same, remove the old one: "
            f"ssh-keygen -R '{name}' -f {shown_path(valid[0].file)}"
        )
    if not accept_new:
        raise StableDeviceError(
            f"the host key of {name} is unknown: {shown}. Compare it with the device's (there: "
            "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub), then repeat the command with "
            "--accept-new-host-key"
        )
    if known_files:
        _add(name, key_type, blob, known_files[0])


def _without_port(name: str) -> str:
    """Return the host in `[host]:port`."""
    found = re.fullmatch(r"\[(.+)\]:[0-9]+", name)
    return found[1] if found else name


def _content(file: Path) -> bytes:
    """Return what a file of keys holds; the null device, which many configurations name, holds none.

    Raises:
        OSError: It cannot be read, or is neither a regular file nor the null device.
    """
    if file.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(file))
    return b"" if _is_null(file) else read_bytes(file, _MAX_BYTES)


def _is_null(file: Path) -> bool:
    return os.path.realpath(file) == os.devnull


def _revoked_keys(file: Path) -> set[bytes]:
    """Return the keys in a file of keys that are trusted no more.

    Raises:
        StableDeviceError: It cannot be read, so that nothing can be trusted.
    """
    try:
        content = _content(file)
    except OSError as error:
        raise StableDeviceError(
            f"the revoked host keys in {file} (RevokedHostKeys) cannot be read: {error.strerror}"
        ) from error
    if content.startswith(b"SSHKRL\n"):
        raise StableDeviceError(
            f"{file} (RevokedHostKeys) is a list in OpenSSH's binary form, which joulemap does not "
            "read: write the public keys into a text file, one a line"
        )
    found = set()
    for line in content.splitlines():
        for word in line.split()[:2]:
            with contextlib.suppress(binascii.Error, ValueError):
                found.add(base64.b64decode(word, validate=True))
    return found


def _add(name: str, key_type: str, blob: bytes, file: Path) -> None:
    if set(name) & set(" ,*?!|#\t"):
        raise StableDeviceError(
            f"the host key of '{name[:80]}' cannot be stored under that name in {file}: give it one "
            "in the SSH configuration (HostKeyAlias)"
        )
    if _is_null(file):
        return
    line = f"{name} {key_type} {base64.b64encode(blob).decode()}\n"
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = open_regular(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
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
        content = _content(file)
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
        if len(words) < 3 or marker not in (None, "@cert-authority", "@revoked"):
            continue
        try:
            blob = base64.b64decode(words[2], validate=True)
        except (binascii.Error, ValueError):
            continue
        if _matches(name, words[0]):
            is_authority = marker == "@cert-authority"
            yield KnownKey(file, number, words[1], blob, marker == "@revoked", is_authority)


def _matches(name: str, patterns: str) -> bool:
    is_found = False
    for pattern in patterns.split(","):
        if pattern.startswith("|1|"):
            is_found |= _matches_hash(name, pattern)
        elif pattern.startswith("!"):
            if matches(name, pattern[1:].lower()):
                return False
        else:
            is_found |= matches(name, pattern.lower())
    return is_found


def _matches_hash(name: str, pattern: str) -> bool:
    try:
        salt, digest = (base64.b64decode(part, validate=True) for part in pattern[3:].split("|"))
    except (binascii.Error, ValueError):
        return False
    return hmac.compare_digest(hmac.new(salt, name.encode(), "sha1").digest(), digest)

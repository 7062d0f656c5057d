"""Certificates of SSH hosts: a key that an authority of a known_hosts file vouches for.

The format is OpenSSH's (PROTOCOL.certkeys).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import paramiko

from .ssh_config_words import matches

_HOST = 2
_SUFFIX = "-cert-v01@openssh.com"
# Numbers of the public key, as fields, that come after the nonce.
_KEY_FIELDS = {
    "ssh-ed25519": 1,
    "ecdsa-sha2-nistp256": 2,
    "ecdsa-sha2-nistp384": 2,
    "ecdsa-sha2-nistp521": 2,
    "ssh-rsa": 2,
}
_KEYS: Mapping[str, Callable[..., paramiko.PKey]] = {
    "ssh-ed25519": paramiko.Ed25519Key,
    "ecdsa-sha2-nistp256": paramiko.ECDSAKey,
    "ecdsa-sha2-nistp384": paramiko.ECDSAKey,
    "ecdsa-sha2-nistp521": paramiko.ECDSAKey,
    "ssh-rsa": paramiko.RSAKey,
}


class CertificateError(Exception):
    """A certificate does not vouch for the host; the text says why, as the end of a sentence."""


@dataclass(frozen=True)
class HostCertificate:
    """What a certificate says.

    Attributes:
        authority: The public key of who signed it.
        names: Hosts that it is for, which may be patterns; none stands for every host.
        valid_from_s: When it begins to hold, in seconds of Unix time.
        valid_until_s: When it ends.
        is_signed: Whether the signature is the authority's.
        kind: 2 for a host's.
        critical: Names of conditions that have to be understood.
    """

    authority: bytes
    names: tuple[str, ...]
    valid_from_s: int
    valid_until_s: int
    is_signed: bool
    kind: int
    critical: tuple[str, ...]

    @classmethod
    def parse(cls, blob: bytes) -> HostCertificate:
        """Return what a certificate says.

        Raises:
            CertificateError: It is none, or cut short.
        """
        fields = _Fields(blob)
        try:
            key_type = fields.text().removesuffix(_SUFFIX)
            for _ in range(1 + _KEY_FIELDS[key_type]):
                fields.take()
            fields.number(8)
            kind = fields.number(4)
            fields.take()
            names = _texts(fields.take())
            valid_from_s, valid_until_s = fields.number(8), fields.number(8)
            critical = _texts(fields.take())[::2]
            fields.take()
            fields.take()
            authority = fields.take()
            signed = blob[: fields.at]
            signature = fields.take()
        except (ValueError, KeyError) as error:
            raise CertificateError("cannot be read") from error
        if fields.at != len(blob):
            raise CertificateError("cannot be read")
        is_signed = _is_signed(authority, signed, signature)
        return cls(authority, names, valid_from_s, valid_until_s, is_signed, kind, critical)

    def check(self, host: str, authorities: Sequence[bytes]) -> None:
        """Return if it vouches for a host now.

        Args:
            host: As it is called, without a port.
            authorities: Public keys of those who may vouch for it.

        Raises:
            CertificateError: It does not.
        """
        if self.authority not in authorities:
            raise CertificateError(
                "is signed by an authority that known_hosts does not hold for it"
            )
        if not self.is_signed:
            raise CertificateError("has a wrong signature")
        if self.kind != _HOST:
            raise CertificateError("is a user's, not a host's")
        if self.names and not any(matches(host, name.lower()) for name in self.names):
            shown = ", ".join(name[:60] for name in self.names[:3] if name.isprintable())
            raise CertificateError(f"is for other names ({shown})")
        if self.critical:
            raise CertificateError("has conditions that joulemap does not know")
        now_s = time.time()
        if now_s < self.valid_from_s:
            raise CertificateError(f"holds only from {_day(self.valid_from_s)} on")
        if now_s >= self.valid_until_s:
            raise CertificateError(f"ran out on {_day(self.valid_until_s)}")


class _Fields:
    """Reads what a key's blob holds, one after the other; each read raises ValueError past its end."""

    def __init__(self, blob: bytes) -> None:
        self._blob, self.at = blob, 0

    def number(self, size: int) -> int:
        part = self._blob[self.at : self.at + size]
        if len(part) < size:
            raise ValueError("cut short")
        self.at += size
        return int.from_bytes(part, "big")

    def take(self) -> bytes:
        length = self.number(4)
        part = self._blob[self.at : self.at + length]
        if len(part) < length:
            raise ValueError("cut short")
        self.at += length
        return part

    def text(self) -> str:
        return self.take().decode("utf-8", "replace")


def _is_signed(authority: bytes, signed: bytes, signature: bytes) -> bool:
    try:
        # A class takes only keys of its own types; a certificate cannot sign another one.
        key = _KEYS[_Fields(authority).text()](data=authority)
        # RSA with SHA-1 is not among what it takes for a signature.
        return bool(key.verify_ssh_sig(signed, paramiko.Message(signature)))
    except Exception:  # noqa: BLE001 - whatever garbage brings, it is no signature
        return False


def _texts(field: bytes) -> tuple[str, ...]:
    """Return the texts that a field holds, one after the other."""
    fields = _Fields(field)
    found = []
    while fields.at < len(field):
        found.append(fields.text())
    return tuple(found)


def _day(at_s: int) -> str:
    try:
        return time.strftime("%Y-%m-%d", time.gmtime(at_s))
    except (OverflowError, ValueError, OSError):
        return "a day that no calendar has"

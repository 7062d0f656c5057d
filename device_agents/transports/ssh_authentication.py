"""Logs in to an SSH server with the user's keys: files, and those that an SSH agent holds."""

from __future__ import annotations

import base64
import binascii
import contextlib
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import paramiko
from paramiko.agent import AgentKey, AgentSSH
from paramiko.pkey import UnknownKeyType

from joulemap.regular_files import read_bytes

from ..errors import StableDeviceError, TransientDeviceError
from .ssh_config_files import shown_path
from .ssh_settings import Hop

_DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")
_MAX_PUBLIC = 1 << 16


def authenticate(transport: paramiko.Transport, hop: Hop, timeout_s: float) -> None:
    """Log in with the first key that the server takes.

    Args:
        transport: A session with the server.
        hop: Who logs in, and which keys.
        timeout_s: Limit for each answer of the SSH agent.

    Raises:
        StableDeviceError: It takes none.
        TransientDeviceError: It ended the connection.
    """
    tried: list[tuple[str, paramiko.PKey]] = []
    unusable: list[str] = []
    with _KeyAgent(hop.agent_socket, timeout_s) as agent:
        for name, key in _keys(hop, agent):
            if isinstance(key, str):
                unusable.append(f"{name} {key}")
                continue
            tried.append((name, key))
            try:
                further = transport.auth_publickey(hop.user, key)
            except paramiko.BadAuthenticationType as error:
                raise StableDeviceError(
                    f"{hop.alias} lets nobody in with a key, only by "
                    f"{', '.join(error.allowed_types)}: set PubkeyAuthentication yes in its "
                    "sshd_config"
                ) from error
            except paramiko.AuthenticationException as error:
                if transport.is_active():
                    continue
                raise TransientDeviceError(
                    f"{hop.alias} ended the connection while {hop.user} logged in (tried "
                    f"{', '.join(each for each, _ in tried)[:160]}): it may just be starting; if it takes no more tries, "
                    "name the right key in the SSH configuration (IdentityFile, with "
                    "IdentitiesOnly yes)"
                ) from error
            if not further:
                return
            if "publickey" in further:
                continue
            raise StableDeviceError(
                f"{hop.alias} takes the key {name} of {hop.user}, but wants "
                f"{' and '.join(further)} besides: joulemap logs in with a key alone; permit that "
                "in its sshd_config (AuthenticationMethods publickey)"
            )
    raise StableDeviceError(_refused(transport, hop, tried, unusable))


def _refused(
    transport: paramiko.Transport,
    hop: Hop,
    tried: Sequence[tuple[str, paramiko.PKey]],
    unusable: Sequence[str],
) -> str:
    """Return that no key was taken, which were tried, and what it may lie at."""
    put = f"ssh-copy-id -p {hop.port} {hop.user}@{hop.host}"
    if not tried:
        why = "; ".join(["no private key was found", *unusable])
        return (
            f"{hop.alias} does not let {hop.user} in ({why[:230]}). Make a key with: ssh-keygen -t "
            f"ed25519. Put your key there with: {put}"
        )
    types = _types_taken(transport)
    names = [name for name, _ in tried]
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    problems = "; ".join([f"tried {shown}", *unusable])
    no_type = sorted({key.get_name() for _, key in tried if types and key.get_name() not in types})
    if no_type and all(key.get_name() in no_type for _, key in tried):
        return (
            f"{hop.alias} does not let {hop.user} in ({problems[:140]}): it takes no keys of the "
            f"type {', '.join(no_type)}, only {', '.join(sorted(types))[:80]}. Make one of those "
            f"(ssh-keygen -t), then {put}; or permit the type there (PubkeyAcceptedAlgorithms)"
        )
    who = "PermitRootLogin, AllowUsers" if hop.user == "root" else "AllowUsers"
    kinds = ", ".join(sorted({key.get_name() for _, key in tried}))
    return (
        f"{hop.alias} does not let {hop.user} in ({problems[:120]}). Look there: is the key's .pub "
        "line in ~/.ssh/authorized_keys, can others write ~ or ~/.ssh (chmod go-w), does sshd_config "
        f"keep it out ({who}; PubkeyAcceptedAlgorithms without {kinds[:40]})? If it is missing: {put}"
    )


def _types_taken(transport: paramiko.Transport) -> set[str]:
    """Return the types of key that a server says it takes; none where it does not say."""
    extensions = getattr(transport, "server_extensions", None) or {}
    said = extensions.get("server-sig-algs", b"")
    names = said.decode("ascii", "replace").split(",") if isinstance(said, bytes) else []
    taken = {name for name in names if name and name.isprintable()}
    return taken | ({"ssh-rsa"} if taken & {"rsa-sha2-256", "rsa-sha2-512"} else set())


class _KeyAgent(AgentSSH):
    """The keys of an SSH agent, which is first asked when they are needed.

    Args:
        path: Its socket; None where there is none.
        timeout_s: Limit for each of its answers.
    """

    def __init__(self, path: str | None, timeout_s: float) -> None:
        super().__init__()
        self._path, self._timeout_s = path, timeout_s
        self.problem: str | None = None

    def keys(self) -> Sequence[AgentKey]:
        """Return its keys; none if it cannot be asked, with `problem` if it is there."""
        if self._path is not None:
            path, self._path = self._path, None
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(self._timeout_s)
            try:
                connection.connect(path)
            except (OSError, ValueError):
                connection.close()
                return ()
            try:
                self._connect(connection)  # type: ignore[attr-defined]
            except TimeoutError:
                self.problem = f"gives no answer within {self._timeout_s:.0f} s"
            except (paramiko.SSHException, OSError, ValueError) as error:
                self.problem = f"cannot be used ({said(error)})"
        return self.get_keys()

    def find(self, blob: bytes | None) -> AgentKey | None:
        """Return the key whose public half this is."""
        if blob is None:
            return None
        return next((key for key in self.keys() if key.blob == blob), None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()  # type: ignore[attr-defined]


def _keys(hop: Hop, agent: _KeyAgent) -> Iterator[tuple[str, paramiko.PKey | str]]:
    """Yield what private keys are called, and the key or why it cannot be used."""
    usual = [Path.home() / ".ssh" / name for name in _DEFAULT_KEYS]
    given: list[bytes] = []
    # As in OpenSSH, files that the configuration names stand instead of the usual ones.
    for path in usual if hop.uses_usual_keys else hop.identity_files:
        public = _public_half(path)
        if not path.is_file() and public is None:
            continue
        try:
            _check_regular(path)
            loaded = paramiko.PKey.from_path(path)
        except (paramiko.PasswordRequiredException, TypeError):
            start = "" if hop.agent_socket else 'eval "$(ssh-agent)"; '
            why = f"is locked by a passphrase (run {start}ssh-add first)"
        except (paramiko.SSHException, UnknownKeyType, OSError, ValueError) as error:
            why = f"cannot be read ({said(error)})"
        else:
            given.append(loaded.asbytes())
            for certificate in hop.certificate_files:
                with contextlib.suppress(OSError, ValueError, paramiko.SSHException):
                    loaded.load_certificate(_certificate_of(loaded, certificate))
                    break
            if loaded.public_blob is not None:
                yield f"{shown_path(path)} with its certificate", loaded
                # As in OpenSSH the key alone comes next: the certificate may have run out.
                loaded.public_blob = None
            yield shown_path(path), loaded
            continue
        # The agent may hold what the file does not give, a card's key for instance.
        key = agent.find(public)
        if key is not None:
            given.append(key.blob)
        yield shown_path(path), key or why
    if not hop.identities_only:
        for number, key in enumerate(agent.keys(), start=1):
            if key.blob not in given:
                yield f"key {number} of the SSH agent", key
    if agent.problem is not None:
        yield "the SSH agent", agent.problem


def _check_regular(path: Path) -> None:
    """Refuse what paramiko would wait for, or read without end: it opens files by their names.

    Raises:
        OSError: The key, or the certificate that it reads beside it, is no regular file of a key's
            size.
    """
    read_bytes(path, _MAX_PUBLIC)
    with contextlib.suppress(FileNotFoundError):
        read_bytes(path.with_name(path.name + "-cert.pub"), _MAX_PUBLIC)


def _certificate_of(key: paramiko.PKey, file: Path) -> paramiko.Message:
    """Return a certificate that is for a key.

    Raises:
        OSError: It cannot be read.
        ValueError: It is another key's, or none.
    """
    words = [*read_bytes(file, _MAX_PUBLIC).split(), b"", b""]
    blob = base64.b64decode(words[1], validate=True)
    # The numbers of the key stand in it as they stand in its public half.
    numbers = paramiko.Message(key.asbytes())
    numbers.get_string()
    if not words[0].endswith(b"-cert-v01@openssh.com") or numbers.get_remainder() not in blob:
        raise ValueError(f"{file} is no certificate of the key")
    return paramiko.Message(blob)


def _public_half(path: Path) -> bytes | None:
    """Return the public key in a key's file, or in the file beside it."""
    for file in (path, path.with_name(path.name + ".pub")):
        try:
            words = read_bytes(file, _MAX_PUBLIC).split()
            if len(words) > 1 and not words[0].startswith(b"-"):
                return base64.b64decode(words[1], validate=True)
        except (OSError, binascii.Error, ValueError):
            continue
    return None


def said(error: BaseException) -> str:
    """Return what an error says, its kind where it says nothing."""
    return str(error)[:300] or type(error).__name__

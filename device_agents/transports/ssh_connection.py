"""An SSH connection to a device, through as many servers as the configuration says.

Everything that waits has a time limit of its own: paramiko waits without end in several places
when the link swallows packets, so at the limit the socket is closed under it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import paramiko

from joulemap import interruption

from ..errors import StableDeviceError, TransientDeviceError
from .ssh_algorithms import ListeningTransport, disagreement, permit
from .ssh_authentication import authenticate, said
from .ssh_host_keys import check_host_key, known_authorities, known_keys
from .ssh_settings import Hop

# Its transport thread logs tracebacks of what is reported here as an error with advice.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

KEEPALIVE_S = 20
# Unanswered for so long, the connection is given up; shorter cuts only delay.
LINK_TIMEOUT_S = 60
_LIMIT_GRACE_S = 1.0
# Why a server opens no channel: its own rules.
_PROHIBITED = 1


@dataclass(frozen=True)
class ConnectLimits:
    """How long the steps of connecting to one server may take, in seconds."""

    connect_s: float = 15.0
    banner_s: float = 15.0
    auth_s: float = 30.0


class SshConnection:
    """Authenticated SSH sessions in each other, the device's the innermost.

    Args:
        route: The servers on the way, the device last.
        accept_new_host_key: Whether a host without any known key is trusted this first time.
        timeout_s: Limit for the whole.
        limits: For single steps.

    Raises:
        TransientDeviceError: It cannot be reached now.
        StableDeviceError: It refuses, or its host key is not the known one.

    Attributes:
        is_given_up: Whether it was closed from this side, since an answer came too late.
    """

    def __init__(
        self,
        route: Sequence[Hop],
        *,
        accept_new_host_key: bool = False,
        timeout_s: float = 60.0,
        limits: ConnectLimits | None = None,
    ) -> None:
        self._transports: list[ListeningTransport] = []
        self._hops: list[Hop] = []
        self._proxy: subprocess.Popen[bytes] | None = None
        self._limits = limits or ConnectLimits()
        self._accept_new = accept_new_host_key
        self.is_given_up = False
        self.name = route[-1].alias
        deadline = time.monotonic() + timeout_s
        try:
            for hop in route:
                self._add(hop, deadline)
        except BaseException:
            self.close()
            raise

    @property
    def is_active(self) -> bool:
        """Whether the link has not failed as far as is known; a silent one may be dead."""
        return bool(self._transports) and all(each.is_active() for each in self._transports)

    def open_channel(self, timeout_s: float) -> paramiko.Channel:
        """Return a channel for one command.

        Raises:
            TransientDeviceError: The link failed.
        """
        if not self.is_active:
            raise TransientDeviceError(f"the connection to {self.name} is lost")
        try:
            with self.limit(timeout_s + _LIMIT_GRACE_S):
                return self._transports[-1].open_session(timeout=timeout_s)
        except paramiko.ChannelException as error:
            raise TransientDeviceError(
                f"{self.name} opens no further session ({error.text}): end other programs that use "
                "this connection, or raise MaxSessions in its sshd_config"
            ) from error
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise TransientDeviceError(
                f"{self.name} gave no answer within {timeout_s:.0f} s"
                if self.is_active
                else f"the connection to {self.name} is lost"
            ) from error

    def answers(self, timeout_s: float) -> bool:
        """Return whether the server itself answers within the time limit."""
        try:
            self.open_channel(timeout_s).close()
        except TransientDeviceError as error:
            # One that refuses answers too.
            return isinstance(error.__cause__, paramiko.ChannelException)
        return True

    @contextlib.contextmanager
    def limit(self, timeout_s: float) -> Iterator[None]:
        """Close the connection if what runs inside takes longer than so many seconds."""
        timer = threading.Timer(timeout_s, self._give_up)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def close(self) -> None:
        """Let go of all connections; harmless when they are closed."""
        for transport in reversed(self._transports):
            # Whatever a broken connection says when it is closed, it is closed.
            with contextlib.suppress(Exception):
                transport.close()
            # A session that never began, or has ended, leaves it open.
            with contextlib.suppress(Exception):
                transport.sock.close()
        # A time limit's thread may close at the same moment.
        proxy, self._proxy = self._proxy, None
        if proxy is not None:
            interruption.remove_child(proxy.pid)
            # It leads a group of its own, with what it started.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(proxy.pid, signal.SIGKILL)
            proxy.wait()

    def _give_up(self) -> None:
        self.is_given_up = True
        self.close()

    def _add(self, hop: Hop, deadline: float) -> None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TransientDeviceError(f"no time is left to reach {hop.alias}")
        connect_s = hop.connect_timeout_s or self._limits.connect_s
        banner_s = hop.connect_timeout_s or self._limits.banner_s
        stream = self._stream(hop, min(left, connect_s))
        transport = ListeningTransport(stream)
        self._transports.append(transport)
        self._hops.append(hop)
        transport.banner_timeout = min(left, banner_s)
        transport.auth_timeout = min(left, self._limits.auth_s)
        transport.use_compression(hop.is_compressed)
        permit(transport, hop)
        _prefer_known_key_types(transport, hop)
        where = f"{hop.alias} ({hop.host}, port {hop.port})"
        with self.limit(max(0.1, deadline - time.monotonic())):
            try:
                transport.start_client(timeout=min(left, banner_s + 5))
            except (paramiko.SSHException, OSError, EOFError) as error:
                differs = disagreement(transport, hop)
                if isinstance(error, paramiko.ssh_exception.IncompatiblePeer) and differs:
                    raise StableDeviceError(f"{where}: {differs}") from error
                raise TransientDeviceError(
                    f"{where} takes connections, but no SSH session begins: {said(error)}. Is it "
                    "frozen or overloaded, or is this another service's port?"
                ) from error
            key = transport.get_remote_server_key()
            shown = getattr(key, "public_blob", None)
            check_host_key(
                hop.key_name,
                key.get_name(),
                key.asbytes(),
                None if shown is None else shown.key_blob,
                known_files=hop.known_hosts_files,
                system_files=hop.system_known_hosts_files,
                accept_new=self._accept_new,
                revoked_file=hop.revoked_keys_file,
            )
            try:
                authenticate(transport, hop, self._limits.auth_s)
            except (paramiko.SSHException, OSError, EOFError) as error:
                raise TransientDeviceError(
                    f"{where} broke off while {hop.user} logged in: {said(error)}"
                ) from error
        transport.set_keepalive(max(1, round(min(KEEPALIVE_S, hop.keepalive_s or KEEPALIVE_S))))

    def _stream(self, hop: Hop, timeout_s: float) -> Any:
        """Return what carries the session: a socket, or a channel of the server before."""
        if self._transports:
            before = self._transports[-1]
            try:
                with self.limit(timeout_s + _LIMIT_GRACE_S):
                    return before.open_channel(
                        "direct-tcpip", (hop.host, hop.port), ("127.0.0.1", 0), timeout=timeout_s
                    )
            except (paramiko.SSHException, OSError, EOFError) as error:
                jump, where = self._hops[-1].alias, f"{hop.alias} ({hop.host}, port {hop.port})"
                if getattr(error, "code", None) == _PROHIBITED:
                    raise StableDeviceError(
                        f"the jump host {jump} forbids to go on to {where}: permit it in its "
                        "sshd_config (AllowTcpForwarding yes or local; PermitOpen) and before the "
                        "key in its authorized_keys (no restrict, no-port-forwarding, permitopen); "
                        "older servers also say so of a name that they do not find"
                    ) from error
                raise TransientDeviceError(
                    f"the jump host does not reach {where} from {jump}: {said(error)}"
                ) from error
        if hop.proxy_command is not None:
            return self._start_proxy(hop.proxy_command, hop.alias)
        try:
            stream = _connected(hop, timeout_s)
        except (socket.gaierror, UnicodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no name"
            raise TransientDeviceError(
                f"the name {hop.host} is not found ({why}): is the device on, is it in "
                "this network, is the name written right?"
            ) from error
        except ConnectionRefusedError as error:
            raise TransientDeviceError(
                f"{hop.host} refuses connections on port {hop.port}: is an SSH server running there "
                "(Raspberry Pi OS: sudo raspi-config, Interface Options, SSH; Termux: sshd, port "
                "8022)?"
            ) from error
        except OSError as error:
            raise TransientDeviceError(
                f"{hop.host}, port {hop.port}, is not reached within {timeout_s:.0f} s "
                f"({error.strerror or error}): is the device on and in this network?"
            ) from error
        stream = _PromptSocket(fileno=stream.detach())
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, LINK_TIMEOUT_S * 1000)
        return stream

    def _start_proxy(self, command: Sequence[str], alias: str) -> socket.socket:
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._proxy = subprocess.Popen(
                    list(command),
                    stdin=theirs.fileno(),
                    stdout=theirs.fileno(),
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
            except OSError as error:
                ours.close()
                raise StableDeviceError(
                    f"ProxyCommand of {alias}: cannot start {command[0]}: {error.strerror}"
                ) from error
        interruption.add_child(self._proxy.pid)
        return ours


def _connected(hop: Hop, timeout_s: float) -> socket.socket:
    """Return a socket to the first of a host's addresses that takes it.

    Raises:
        OSError: None does within the time limit, or the name is not found.
    """
    deadline = time.monotonic() + timeout_s
    found = socket.getaddrinfo(hop.host, hop.port, hop.address_family, socket.SOCK_STREAM)
    problem: OSError = TimeoutError(f"no answer within {timeout_s:.0f} s")
    for family, kind, protocol, _, address in found:
        left = deadline - time.monotonic()
        if left <= 0:
            break
        stream = None
        try:
            stream = socket.socket(family, kind, protocol)
            stream.settimeout(left)
            if hop.bind_address is not None:
                stream.bind((hop.bind_address, 0))
            stream.connect(address)
            return stream
        except OSError as error:
            problem = error
            if stream is not None:
                stream.close()
    raise problem


class _PromptSocket(socket.socket):
    """Acknowledges at once what it receives.

    An SSH server without a terminal sends a small packet only when the one before is acknowledged,
    which otherwise takes 40 ms each time.
    """

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Return received bytes, at most so many."""
        if hasattr(socket, "TCP_QUICKACK"):
            # The kernel takes this back by itself, so it is said each time.
            self.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        return super().recv(size, flags)


def _prefer_known_key_types(transport: paramiko.Transport, hop: Hop) -> None:
    """Ask first for the types of host key that are known: a server has several keys."""
    files = [*hop.known_hosts_files, *hop.system_known_hosts_files]
    keys = [key for key in known_keys(hop.key_name, files) if not key.is_revoked]
    known = {key.key_type for key in keys}
    if "ssh-rsa" in known:
        known |= {"rsa-sha2-512", "rsa-sha2-256"}
    options = transport.get_security_options()
    usual = sorted(options.key_types, key=lambda name: name not in known)
    certified = [f"{name}-cert-v01@openssh.com" for name in usual]
    # Certificates are asked for only where somebody may vouch for the host.
    is_vouched_for = bool(known_authorities(hop.key_name, files))
    options.key_types = [*(certified if is_vouched_for else []), *usual]

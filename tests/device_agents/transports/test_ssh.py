"""A device over SSH, reached through a real OpenSSH server on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from joulemap.device_agents.testing import TransportContract
from joulemap.device_agents.transports.ssh import SshTransport

from ..sshd import SshClientHome, Sshd, running_sshd


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with running_sshd(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.fixture(autouse=True)
def client(server: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SshClientHome:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return SshClientHome(tmp_path, server)


class TestSshTransport(TransportContract):
    @pytest.fixture(autouse=True)
    def _server(self, server: Sshd) -> None:
        self.server = server

    def make(self) -> SshTransport:
        return SshTransport(self.server.address)

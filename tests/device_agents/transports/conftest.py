"""Servers that SSH is tested with, and a user's home that knows them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ..sshd import SshClientHome, Sshd, running_sshd


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with running_sshd(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Sshd]:
    """Return a server for tests that disturb it."""
    with running_sshd(tmp_path / "own_server") as running:
        yield running


@pytest.fixture
def client(server: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SshClientHome:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return SshClientHome(tmp_path, server)


@pytest.fixture
def nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """Whatever goes wrong, nothing is printed past the errors that are raised."""
    yield
    assert capfd.readouterr().err == ""

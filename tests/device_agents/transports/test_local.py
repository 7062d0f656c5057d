"""This machine as a device: the transports' contract, and what is special about a child process."""

from __future__ import annotations

import resource
import signal
from pathlib import Path

import pytest

from joulemap import InputError
from joulemap.device_agents import StableDeviceError, TransientDeviceError
from joulemap.device_agents.registry import TRANSPORTS
from joulemap.device_agents.testing import Start, TransportContract
from joulemap.device_agents.transports.local import LocalProcess, LocalTransport


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


class TestLocalTransport(TransportContract):
    def make(self) -> LocalTransport:
        return LocalTransport()

    def test_pushed_files_lie_in_the_users_cache(
        self, transport: LocalTransport, cache: Path
    ) -> None:
        path = transport.push(b"content", "name.bin")
        assert path == str(cache / "joulemap/agents/name.bin")
        # Nothing half-written stays beside it.
        assert [item.name for item in Path(path).parent.iterdir()] == ["name.bin"]

    def test_a_signal_is_named(self, start: Start) -> None:
        process = start("import os; os.kill(os.getpid(), 9)")
        with pytest.raises(TransientDeviceError, match="killed by signal 9"):
            process.read(1, self.timeout_s)


def test_an_address_is_refused() -> None:
    with pytest.raises(InputError, match="written 'local:'"):
        LocalTransport("somewhere")


def test_the_cache_folder_that_cannot_be_written_is_named(cache: Path) -> None:
    (cache / "joulemap").write_text("a file in the way")
    with pytest.raises(StableDeviceError, match="XDG_CACHE_HOME"):
        LocalTransport().push(b"content", "name")


def test_a_file_that_does_not_fit_leaves_nothing_half(cache: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        with pytest.raises(StableDeviceError, match="File too large"):
            LocalTransport().push(bytes(2000), "agent-0.pyz")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert not list((cache / "joulemap" / "agents").iterdir())


def test_a_program_that_does_not_exist_is_a_stable_error() -> None:
    with pytest.raises(StableDeviceError, match="cannot start"):
        LocalProcess(["/no/such/program"])


def test_every_transport_has_a_test_file_with_the_contract() -> None:
    for entry in TRANSPORTS.values():
        text = (Path(__file__).parent / f"test_{entry.module}.py").read_text()
        assert "(TransportContract)" in text

"""Files to and from devices that lie: each is a program on a real far side that answers so."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from joulemap import JoulemapError
from joulemap.device_agents import StableDeviceError, TransientDeviceError
from joulemap.device_agents.transports import remote_files
from joulemap.device_agents.transports.ssh import SshTransport
from joulemap.profiler.command_line import console

from ..sshd import SshClientHome, Sshd, running_sshd

Lie = Callable[[bytes], SshTransport]
# Answers to the search for Python as one would, to anything else with the file beside it.
PROGRAM = """#!/bin/sh
if [ "$1" = -c ]; then printf '3.11.2\\t\\n'; else cat {answer}; fi
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with running_sshd(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.fixture
def lie(server: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lie]:
    """Return a function bytes -> a transport to a device that answers them."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    SshClientHome(tmp_path, server)
    program, answer = server.home / "python", server.home / "answer"
    transport = SshTransport(f"{server.address}?python={program}")

    def make(content: bytes) -> SshTransport:
        answer.write_bytes(content)
        program.write_text(PROGRAM.format(answer=answer))
        program.chmod(0o755)
        return transport

    yield make
    transport.close()


def framed(content: object) -> bytes:
    text = json.dumps(content).encode()
    return b"%08d" % len(text) + text


@pytest.mark.parametrize(
    "answer",
    [
        b"99999999" + b"x" * 100,
        b"-0000001",
        b"garbage!" * 10,
        b"00000005{nope",
        b"00000002{",
        framed([1, 2]),
        framed("text"),
        framed({"is_stored": True}),
        framed({"is_stored": True, "path": 7}),
        b"00020000" + b"[" * 20_000,
        b"00005010" + b'{"path": ' + b"9" * 5000 + b"}",
        framed({"is_stored": True, "path": "name.bin"}),
        framed({"is_stored": True, "path": "/etc/passwd"}),
        framed({"is_stored": True, "path": "/data/\n/name.bin"}),
        framed({"is_stored": False, "path": "/data/name.bin"}),
        framed({"error": "\x1b[2J" * 1000, "folder": {"a": 1}}),
        b"",
    ],
)
def test_no_answer_to_a_push_is_believed(lie: Lie, answer: bytes) -> None:
    with pytest.raises(JoulemapError) as caught:
        lie(answer).push(b"content", "name.bin")
    assert isinstance(caught.value, (StableDeviceError, TransientDeviceError))
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "answer",
    [
        framed({"length": 7, "digest": "0"}) + b"content",
        framed({"length": 8, "digest": hashlib.sha256(b"content").hexdigest()}) + b"content",
        framed({"length": -1, "digest": ""}),
        framed({"length": 10**9, "digest": ""}),
        framed({"length": True, "digest": ""}) + b"x",
        framed({"length": "7"}) + b"content",
        framed({"error": "no"}),
        framed({}),
    ],
)
def test_no_damaged_file_is_taken(lie: Lie, answer: bytes) -> None:
    with pytest.raises((StableDeviceError, TransientDeviceError)):
        lie(answer).pull("/somewhere/file", 1000)


def test_an_honest_answer_is_taken(lie: Lie) -> None:
    digest = hashlib.sha256(b"content").hexdigest()
    found = lie(framed({"length": 7, "digest": digest}) + b"content").pull("/a/file", 1000)
    assert found == b"content"


def test_what_a_device_says_does_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_error("joulemap: \x1b]0;evil\x07 [bold]\r\u202e\nsecond line")
    assert (
        capsys.readouterr().err == "joulemap: \\x1b]0;evil\\x07 [bold]\\x0d\\u202e\nsecond line\n"
    )


def test_a_link_that_goes_while_a_file_is_sent_leaves_nothing_half(
    server: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    SshClientHome(tmp_path, server)
    transport = SshTransport(f"{server.address}?cache={tmp_path}/half")
    program = [transport.python(), "-I", "-S", "-c", remote_files._STORE]
    process = transport.start([*program, "agent-0.pyz", "0" * 64, "10", f"{tmp_path}/half"])
    assert remote_files._answer(process, 30)["is_stored"] is False
    (part,) = (tmp_path / "half" / "agents").iterdir()
    assert part.name.startswith("agent-0.pyz.")
    # What the server sends to a session whose connection is gone.
    transport.run(["kill", "-HUP", str(process._pid)], 30)
    with pytest.raises(TransientDeviceError, match="code 4"):
        process.read(1, 30)
    assert not list((tmp_path / "half" / "agents").iterdir())
    transport.close()


@pytest.mark.parametrize("foreign", ["folder", "folder/agents"])
def test_no_agent_is_started_from_what_another_user_may_replace(
    server: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, foreign: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    SshClientHome(tmp_path, server)
    (tmp_path / foreign).mkdir(parents=True)
    os.chown(tmp_path / foreign, 65534, 65534)
    transport = SshTransport(f"{server.address}?cache={tmp_path}/folder")
    with pytest.raises(StableDeviceError, match=f"{foreign} .*belongs to another user.*cache="):
        transport.push(b"content", "agent-0.pyz")
    transport.close()

"""Which host keys count as known; OpenSSH's own tool says what it would find."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import pytest

from joulemap import InputError
from joulemap.device_agents import StableDeviceError
from joulemap.device_agents.transports.ssh_host_keys import (
    check_host_key,
    fingerprint,
    known_keys,
)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return two public keys: type and base64."""
    folder = tmp_path_factory.mktemp("keys")
    found = []
    for name in ("one", "two"):
        _keygen("-q", "-t", "ed25519", "-N", "", "-f", str(folder / name))
        found.append(" ".join((folder / f"{name}.pub").read_text().split()[:2]))
    return found


def _keygen(*arguments: str) -> str:
    return subprocess.run(
        ["ssh-keygen", *arguments],  # noqa: S607
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def _blob(key: str) -> bytes:
    return base64.b64decode(key.split()[1])


def _check(name: str, key: str, *files: Path, accept_new: bool = False) -> None:
    check_host_key(
        name, "ssh-ed25519", _blob(key), known_files=files, system_files=(), accept_new=accept_new
    )


@pytest.mark.parametrize(
    ("hosts", "name", "is_found"),
    [
        ("board", "board", True),
        ("board,10.0.0.7", "10.0.0.7", True),
        ("Board", "board", True),
        ("[board]:2222", "[board]:2222", True),
        ("board", "[board]:2222", False),
        ("[board]:2222", "board", False),
        ("*.lab", "a.lab", True),
        ("*.lab,!b.lab", "b.lab", False),
        ("10.0.0.?", "10.0.0.7", True),
        ("boar", "board", False),
    ],
)
def test_hosts_are_found_by_name_and_pattern(
    tmp_path: Path, keys: list[str], hosts: str, name: str, is_found: bool
) -> None:
    file = tmp_path / "known_hosts"
    file.write_text(f"# comment\n\n{hosts} {keys[0]} somebody\n")
    assert bool(known_keys(name, [file])) is is_found


def test_hashed_names_are_found(tmp_path: Path, keys: list[str]) -> None:
    file = tmp_path / "known_hosts"
    file.write_text(f"[board]:2222 {keys[0]}\nother {keys[1]}\n")
    _keygen("-H", "-f", str(file))
    assert "board" not in file.read_text()
    (found,) = known_keys("[board]:2222", [file])
    assert (found.line, found.blob) == (1, _blob(keys[0]))
    _check("[board]:2222", keys[0], file)


def test_damaged_lines_and_missing_files_hold_no_keys(tmp_path: Path, keys: list[str]) -> None:
    file = tmp_path / "known_hosts"
    file.write_bytes(
        b"board\nboard ssh-ed25519\nboard ssh-ed25519 !!!\n|1|x|y ssh-ed25519 AAAA\n\xff\xfe a b\n"
        + f"@cert-authority * {keys[0]}\n".encode()
    )
    assert known_keys("board", [file, tmp_path / "missing"]) == []


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Is a directory"):
        known_keys("board", [tmp_path])


def test_a_revoked_key_is_refused_even_as_a_new_one(tmp_path: Path, keys: list[str]) -> None:
    file = tmp_path / "known_hosts"
    file.write_text(f"@revoked * {keys[0]}\n")
    with pytest.raises(StableDeviceError, match="revoked"):
        _check("board", keys[0], file, accept_new=True)
    with pytest.raises(StableDeviceError, match="is unknown"):
        _check("board", keys[1], file)


def test_a_new_key_is_stored_where_openssh_finds_it(tmp_path: Path, keys: list[str]) -> None:
    file = tmp_path / "ssh/known_hosts"
    _check("[board]:2222", keys[0], file, accept_new=True)
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert keys[0] in _keygen("-F", "[board]:2222", "-f", str(file))
    _check("[board]:2222", keys[0], file)
    with pytest.raises(StableDeviceError, match="has CHANGED"):
        _check("[board]:2222", keys[1], file, accept_new=True)


def test_a_new_key_that_cannot_be_stored_is_refused(tmp_path: Path, keys: list[str]) -> None:
    (tmp_path / "ssh").write_text("a file in the way")
    with pytest.raises(StableDeviceError, match="cannot be stored"):
        _check("board", keys[0], tmp_path / "ssh/known_hosts", accept_new=True)


def test_the_fingerprint_is_the_one_that_openssh_prints(tmp_path: Path, keys: list[str]) -> None:
    file = tmp_path / "key.pub"
    file.write_text(keys[0] + "\n")
    assert fingerprint(_blob(keys[0])) in _keygen("-l", "-f", str(file))

"""Which host keys count as known; OpenSSH's own tool says what it would find."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulemap import InputError
from joulemap.device_agents import StableDeviceError
from joulemap.device_agents.transports.ssh_host_certificates import (
    CertificateError,
    HostCertificate,
)
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


# -- authorities and what they vouch for -----------------------------------------------------------


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a host's key, authorities, and certificates that they made."""
    folder = tmp_path_factory.mktemp("certificates")
    for name, kind in (
        ("ca", "ed25519"),
        ("rsa_ca", "rsa"),
        ("ec_ca", "ecdsa"),
        ("other", "ed25519"),
    ):
        _keygen("-q", "-t", kind, "-N", "", "-f", str(folder / name))
    for kind in ("ed25519", "rsa", "ecdsa"):
        _keygen("-q", "-t", kind, "-N", "", "-f", str(folder / kind))
    for name, authority, key, more in (
        ("good", "ca", "ed25519", ["-n", "board,*.lab"]),
        ("all", "ca", "ed25519", []),
        ("rsa", "rsa_ca", "rsa", ["-n", "board"]),
        ("old_rsa", "rsa_ca", "rsa", ["-n", "board", "-t", "ssh-rsa"]),
        ("ecdsa", "ec_ca", "ecdsa", ["-n", "board"]),
        ("late", "ca", "ed25519", ["-n", "board", "-V", "20200101:20210101"]),
        ("early", "ca", "ed25519", ["-n", "board", "-V", "20900101:20910101"]),
    ):
        _sign(folder, name, authority, key, ["-h", *more])
    _sign(folder, "user", "ca", "ed25519", ["-n", "board"])
    return folder


def _sign(folder: Path, name: str, authority: str, key: str, more: list[str]) -> None:
    public = folder / f"{name}-key.pub"
    public.write_bytes((folder / f"{key}.pub").read_bytes())
    _keygen("-q", "-s", str(folder / authority), "-I", name, *more, str(public))


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Paths in messages are as short as a user's."""
    monkeypatch.setenv("HOME", str(tmp_path_factory.getbasetemp()))


def _vouched(
    folder: Path, name: str, host: str, lines: list[str], certificate: bytes | None = None
) -> None:
    """Check a host that shows a certificate against known_hosts lines; `CA` stands for a key."""
    file = folder / "known_hosts"
    for each in ("rsa_ca", "ec_ca", "ca", "other"):
        text = " ".join((folder / f"{each}.pub").read_text().split()[:2])
        lines = [line.replace(f"<{each}>", text) for line in lines]
    shown = base64.b64decode((folder / f"{name}-key-cert.pub").read_text().split()[1])
    plain = (folder / f"{name}-key.pub").read_text().split()
    lines = [line.replace("<key>", " ".join(plain[:2])) for line in lines]
    file.write_text("".join(f"{line}\n" for line in lines))
    check_host_key(
        host,
        plain[0],
        base64.b64decode(plain[1]),
        shown if certificate is None else certificate,
        known_files=[file],
        system_files=(),
        accept_new=False,
    )


@pytest.mark.parametrize(
    ("name", "host", "line"),
    [
        ("good", "board", "@cert-authority board <ca>"),
        ("good", "x.lab", "@cert-authority *.lab <ca>"),
        ("good", "[board]:2222", "@cert-authority board <ca>"),
        ("good", "[board]:2222", "@cert-authority [board]:2222 <ca>"),
        ("all", "anything", "@cert-authority * <ca>"),
        ("rsa", "board", "@cert-authority * <rsa_ca>"),
        ("ecdsa", "board", "@cert-authority * <ec_ca>"),
        # The key itself is known, whatever its certificate is worth.
        ("late", "board", "board <key>"),
        ("good", "[board]:2222", "board <key>"),
    ],
)
def test_a_host_is_known_by_who_vouches_for_it(
    signed: Path, name: str, host: str, line: str
) -> None:
    _vouched(signed, name, host, [line])


@pytest.mark.parametrize(
    ("name", "host", "lines", "why"),
    [
        ("good", "other", ["@cert-authority * <ca>"], r"is for other names \(board, \*\.lab\)"),
        ("good", "board", ["@cert-authority * <other>"], "signed by an authority that known_hosts"),
        ("good", "board", ["@cert-authority x <ca>"], "is unknown"),
        ("late", "board", ["@cert-authority * <ca>"], "ran out on 2021-01-01"),
        ("early", "board", ["@cert-authority * <ca>"], "holds only from 2090-01-01 on"),
        ("user", "board", ["@cert-authority * <ca>"], "is a user's, not a host's"),
        ("old_rsa", "board", ["@cert-authority * <rsa_ca>"], "has a wrong signature"),
        ("good", "board", ["@cert-authority * <ca>", "@revoked * <ca>"], "marked as revoked"),
        ("good", "board", ["@cert-authority * <ca>", "@revoked * <key>"], "marked as revoked"),
        ("good", "board", ["board <other>"], "has CHANGED"),
        ("good", "board", ["@cert-authority !board,* <ca>"], "is unknown"),
    ],
)
def test_a_certificate_that_does_not_vouch_is_named(
    signed: Path, name: str, host: str, lines: list[str], why: str
) -> None:
    with pytest.raises(StableDeviceError, match=why) as caught:
        _vouched(signed, name, host, lines)
    assert len(str(caught.value)) < 400


def test_a_host_with_a_plain_key_where_an_authority_is_known_says_so(signed: Path) -> None:
    file = signed / "known_hosts"
    file.write_text(f"@cert-authority board {(signed / 'ca.pub').read_text()}")
    key = (signed / "ed25519.pub").read_text()
    with pytest.raises(StableDeviceError, match=r"shows no certificate.*HostCertificate"):
        _check("board", key, file)
    with pytest.raises(StableDeviceError, match="shows no certificate"):
        _check("board", key, file, accept_new=True)


@given(st.data())
def test_no_changed_certificate_vouches(signed: Path, data: st.DataObject) -> None:
    whole = base64.b64decode((signed / "good-key-cert.pub").read_text().split()[1])
    at = data.draw(st.integers(0, len(whole) - 1))
    how = data.draw(st.sampled_from(["flip", "cut", "insert"]))
    changed = {
        "flip": whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :],
        "cut": whole[:at],
        "insert": whole[:at] + data.draw(st.binary(min_size=1, max_size=8)) + whole[at:],
    }[how]
    if changed == whole:
        return
    with pytest.raises(StableDeviceError):
        _vouched(signed, "good", "board", ["@cert-authority * <ca>"], changed)


@given(st.binary(max_size=200))
def test_garbage_is_no_certificate(blob: bytes) -> None:
    with pytest.raises(CertificateError):
        HostCertificate.parse(blob)


@pytest.mark.parametrize("content", ["plain", "krl", "missing"])
def test_a_list_of_revoked_keys_holds(signed: Path, tmp_path: Path, content: str) -> None:
    key = (signed / "ed25519.pub").read_text()
    known, revoked = tmp_path / "known_hosts", tmp_path / "revoked"
    known.write_text(f"board {key}")
    if content == "plain":
        revoked.write_text(f"# lost\n{(signed / 'other.pub').read_text()}{key}")
    elif content == "krl":
        _keygen("-q", "-k", "-f", str(revoked), str(signed / "ed25519.pub"))
    said = {"plain": "is revoked in", "krl": "binary form", "missing": "cannot be read"}[content]
    with pytest.raises(StableDeviceError, match=said):
        check_host_key(
            "board",
            "ssh-ed25519",
            _blob(key),
            known_files=[known],
            system_files=(),
            accept_new=False,
            revoked_file=revoked,
        )


@pytest.mark.parametrize("name", ["a,b", "a*", "!a", "a b", "|1|x"])
def test_a_name_that_is_a_pattern_is_not_stored(keys: list[str], tmp_path: Path, name: str) -> None:
    with pytest.raises(StableDeviceError, match="HostKeyAlias"):
        _check(name, keys[0], tmp_path / "known_hosts", accept_new=True)
    assert not (tmp_path / "known_hosts").exists()

"""The first commands on a Debian that has nothing: they install what they need, or say how."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from .bare_root import archive_of, command_in_bare_root

pytestmark = [pytest.mark.board, pytest.mark.timeout(900)]
FILES = ("Makefile", "constraints-dev.txt", "pyproject.toml", "tests/system_packages.sh")
# Where these tests run in a make of their own, that one must not speak in there.
SCRIPT = """
unset MAKEFLAGS MAKELEVEL MFLAGS MAKEOVERRIDES
useradd --create-home user
chown -R user /src
as_user() { su user -s /bin/sh -c "$1" 2>&1; }

echo "[no way]"; as_user "make test" || echo "code $?"
test ! -e .venv
echo "[no python]"; as_user "make lint" || echo "code $?"
test ! -e .venv

echo "[sudo]"
echo "user ALL=(ALL) NOPASSWD: ALL" >/etc/sudoers.d/user
as_user "make system-packages SYSTEM_PACKAGES='cpio'"
command -v cpio

echo "[root]"
make system-packages SYSTEM_PACKAGES='cpio strace python3-venv:python3' 2>&1
command -v strace
python3 -m venv --without-pip .venv

echo "[again]"; make system-packages SYSTEM_PACKAGES='cpio strace' 2>&1
echo "[no such package]"
make system-packages SYSTEM_PACKAGES='no-such-package-anywhere' 2>&1 || echo "code $?"
"""


def test_a_bare_debian_gets_what_it_lacks_or_is_told(tmp_path: Path) -> None:
    ended = subprocess.run(
        command_in_bare_root(SCRIPT, archive_of(FILES, tmp_path)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=700,
    )
    assert ended.returncode == 0, ended.stdout[-3000:]
    parts = re.split(r"^\[(.+)\]\n", ended.stdout, flags=re.MULTILINE)
    said = dict(zip(parts[1::2], parts[2::2], strict=True))
    # One line that can be copied, and nothing was begun.
    no_way = said["no way"]
    (line,) = [line for line in no_way.splitlines() if line.startswith("apt-get update && ")]
    assert " mmdebstrap " in line
    assert "code 2" in no_way
    assert "Traceback" not in no_way
    assert "pip install" not in no_way
    assert "install -y --no-install-recommends python3-venv" in said["no python"]
    assert "code 2" in said["no python"]
    assert "installing: cpio" in said["sudo"]
    assert "/cpio" in said["sudo"]
    assert "installing: strace python3-venv" in said["root"]
    assert said["again"].strip() == ""
    assert "apt-get update && apt-get install" in said["no such package"]
    assert "code 2" in said["no such package"]

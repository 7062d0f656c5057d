"""What the tests need of the system. A missing program fails, with the line that installs it."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SYSTEM_PATH = ":/usr/sbin:/sbin"
# Package -> a program of it that something here runs, and what for.
PROGRAMS = {
    "adb": ("adb", "devices behind adb"),
    "chromium": ("chromium", "the report in a real browser"),
    "cpio": ("cpio", "the emulated board's first file system"),
    "e2fsprogs": ("mke2fs", "the emulated board's disk"),
    "fuse3": ("fusermount3", "the files of a simulated board"),
    "g++": ("g++", "torch.compile"),
    "git": ("git", "cloning"),
    "make": ("make", "the targets of the Makefile"),
    "mmdebstrap": ("mmdebstrap", "the root file systems of a phone and of the emulated board"),
    "openssh-server": ("sshd", "devices over SSH"),
    "qemu-system-arm": ("qemu-system-aarch64", "the emulated board"),
    "qemu-system-x86": ("qemu-system-x86_64", "meters on the kernel's own drivers"),
    "strace": ("strace", "whom a campaign speaks to, and what it leaves"),
    "util-linux": ("unshare", "a file system of its own for the test of a full disk"),
}


def system_packages() -> list[str]:
    """Return the packages that `make system-packages` installs."""
    found = re.findall(
        r"^SYSTEM_PACKAGES := ((?:.+\\\n)*.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE
    )
    assert len(found) == 1, "the Makefile has one line `SYSTEM_PACKAGES := ...`"
    return str(found[0]).replace("\\\n", " ").split()


def check_program(package: str) -> None:
    program, purpose = PROGRAMS[package]
    # Not every user has the system's programs on PATH.
    if shutil.which(program, path=f"{os.environ['PATH']}{SYSTEM_PATH}") is None:
        line = f"apt-get install -y --no-install-recommends {' '.join(system_packages())}"
        pytest.fail(
            f"{program} is missing (for {purpose}); install it with:\n{line}", pytrace=False
        )


def test_the_makefile_and_this_file_name_the_same_packages() -> None:
    assert system_packages() == sorted(PROGRAMS)


@pytest.mark.parametrize("package", sorted(PROGRAMS))
def test_the_program_is_there(package: str) -> None:
    check_program(package)


def test_a_missing_program_fails_with_the_line_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    line = f"apt-get install -y --no-install-recommends {' '.join(system_packages())}"
    with pytest.raises(pytest.fail.Exception, match=f"\n{re.escape(line)}$"):
        check_program("g++")

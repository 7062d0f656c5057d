"""What the tests need of the system. A missing program fails, with the line that installs it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
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


def pairs() -> dict[str, str]:
    """Return the packages that `make system-packages` installs, each with a program of it."""
    found = re.findall(
        r"^SYSTEM_PACKAGES := ((?:.+\\\n)*.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE
    )
    assert len(found) == 1, "the Makefile has one line `SYSTEM_PACKAGES := ...`"
    words = str(found[0]).replace("\\\n", " ").split()
    return {
        package: program or package for package, _, program in (w.partition(":") for w in words)
    }


def system_packages() -> list[str]:
    """Return the packages that `make system-packages` installs."""
    return list(pairs())


def check_program(package: str) -> None:
    program, purpose = PROGRAMS[package]
    # Not every user has the system's programs on PATH.
    if shutil.which(program, path=f"{os.environ['PATH']}{SYSTEM_PATH}") is None:
        line = f"apt-get install -y --no-install-recommends {' '.join(system_packages())}"
        pytest.fail(
            f"{program} is missing (for {purpose}); install it with:\n{line}", pytrace=False
        )


def test_the_makefile_and_this_file_name_the_same_packages() -> None:
    assert pairs() == {package: PROGRAMS[package][0] for package in sorted(PROGRAMS)}
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


# -- what installs them: tests/board/test_bare_root.py has it in a Debian that has nothing ----------

FAKES = {
    "id": "echo {uid}",
    "apt-get": 'echo "apt-get $*" >>{folder}/log; case $* in *install*) {installs};; esac',
    "sudo": 'echo "sudo $*" >>{folder}/log; [ $1 = -n ] || exit 9; shift; {sudo}',
}
MAKES = "printf '#!/bin/sh' >{folder}/there; chmod +x {folder}/there"


def run_script(
    folder: Path, *arguments: str, uid: int = 0, sudo: str = "exit 1", installs: str = MAKES
) -> tuple[int, str, list[str]]:
    """Return the code, the words and the calls of the script among programs that are written here."""
    for name, text in FAKES.items():
        if name == "apt-get" and installs == "none":
            continue
        installing = installs.format(folder=folder)
        text = text.format(uid=uid, sudo=sudo, installs=installing, folder=folder)
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    for name in ("sh", "env", "chmod", "true"):
        (folder / name).symlink_to(shutil.which(name) or name)
    ended = subprocess.run(
        ["/bin/sh", str(ROOT / "tests/system_packages.sh"), *arguments],
        env={"PATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    log = folder / "log"
    return ended.returncode, ended.stderr, log.read_text().splitlines() if log.exists() else []


INSTALL = "apt-get install -y -qq --no-install-recommends one"
LINE = "apt-get update && apt-get install -y --no-install-recommends one\n"


def test_what_is_there_is_not_installed(tmp_path: Path) -> None:
    assert run_script(tmp_path, "one:sh", "env") == (0, "", [])


def test_root_installs(tmp_path: Path) -> None:
    code, said, log = run_script(tmp_path, "one:there", "env")
    assert (code, said, log) == (0, "installing: one\n", ["apt-get update -qq", INSTALL])


def test_a_user_installs_by_sudo_that_asks_nothing(tmp_path: Path) -> None:
    code, said, log = run_script(tmp_path, "one:there", uid=1000, sudo='exec "$@"')
    assert (code, said) == (0, "installing: one\n")
    assert log[:3] == ["sudo -n true", "sudo -n apt-get update -qq", "apt-get update -qq"]
    assert log[-1] == INSTALL


def test_without_either_one_line_is_printed_and_nothing_is_done(tmp_path: Path) -> None:
    code, said, log = run_script(tmp_path, "one:there", "env", uid=1000, sudo='[ "$1" != true ]')
    assert code == 1
    assert said.endswith(LINE)
    assert "missing: there. Neither root nor sudo" in said
    assert log == ["sudo -n true"]


def test_what_is_no_debian_is_told(tmp_path: Path) -> None:
    code, said, log = run_script(tmp_path, "one:there", installs="none")
    assert (code, log) == (1, [])
    assert "missing: there. This system (" in said
    assert "its own package manager" in said


@pytest.mark.parametrize(
    ("installs", "why"), [("exit 100", "apt-get failed"), ("true", "still missing")]
)
def test_an_installation_that_fails_is_told(tmp_path: Path, installs: str, why: str) -> None:
    code, said, _ = run_script(tmp_path, "one:there", installs=installs)
    assert code == 1
    assert why in said


def test_what_is_optional_never_fails(tmp_path: Path) -> None:
    code, said, _ = run_script(tmp_path, "--optional", "one:there", uid=1000)
    assert code == 0
    assert said.endswith(LINE)

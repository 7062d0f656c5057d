"""Runs commands in a Debian that has just been made: apt, make, sudo, nothing else.

    python tests/board/bare_root.py make demo test   # what `make test-fresh` does: an hour

The commands run in /src, a copy of what git has of this repository, as root of that Debian. It is
made anew each time, and removed afterwards.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
SUITE = "trixie"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
PACKAGES = "make,passwd,sudo"


def command_in_bare_root(script: str, archive: Path) -> list[str]:
    """Return the command that runs a shell script in a new Debian, in /src with the archive there."""
    sources = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(ORIGIN)", "Created-By: Packages"],  # noqa: S607
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    mirrors = [line.split()[0] for line in sources.splitlines() if line.endswith(" Debian")]
    inside = f"cd /src && set -e\n{script}"
    return [
        *("mmdebstrap", "--quiet", "--variant=apt", f"--include={PACKAGES}"),
        f"--keyring={KEYRING}",
        '--customize-hook=mkdir "$1/src"',
        f"--customize-hook=tar-in {shlex.quote(str(archive))} /src",
        f'--customize-hook=chroot "$1" sh -c {shlex.quote(inside)}',
        *(SUITE, "/dev/null", mirrors[0] if mirrors else "http://deb.debian.org/debian"),
    ]


def archive_of(names: Sequence[str], folder: Path) -> Path:
    """Return an archive of files of this repository."""
    path = folder / "source.tar"
    with tarfile.open(path, "w") as archive:
        for name in names:
            archive.add(ROOT / name, name, recursive=False)
    return path


def main() -> int:
    """Run the given command in a bare root with everything that git tracks; return its code."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"],  # noqa: S607
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    names = [name for name in listed.stdout.split("\0") if name]
    with tempfile.TemporaryDirectory() as work:
        archive = archive_of(names, Path(work))
        command = command_in_bare_root(shlex.join(sys.argv[1:]), archive)
        return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())

"""One function opens what users name: regular files of bounded size, and nothing else."""

from __future__ import annotations

import doctest
import errno
import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from joulemap import regular_files
from joulemap.regular_files import (
    UnusableFileError,
    open_regular,
    read_bytes,
    read_text,
    target_of,
    write_whole,
)

KINDS = ("pipe", "socket", "folder", "device", "giant", "link to pipe", "link to device")


@pytest.fixture(params=KINDS)
def special(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file of another kind than a regular one, or one larger than this machine's memory."""
    kind = str(request.param)
    path = tmp_path / "special"
    place = tmp_path / "behind" if kind.startswith("link") else path
    if kind.endswith("pipe"):
        os.mkfifo(place)
    elif kind == "folder":
        place.mkdir()
    elif kind == "giant":
        place.touch()
        os.truncate(place, 1 << 42)
    elif kind == "link to device":
        place = Path("/dev/zero")
    elif kind == "device":
        try:
            os.mknod(place, 0o600 | stat.S_IFCHR, os.makedev(1, 5))
        except PermissionError:  # Only root makes one; `link to device` is tried by everybody.
            place = Path("/dev/zero")
            path.symlink_to(place)
    with socket.socket(socket.AF_UNIX) as one:
        if kind == "socket":
            one.bind(str(place))
        if kind.startswith("link"):
            path.symlink_to(place)
        yield path


def test_nothing_but_a_regular_file_is_read(special: Path) -> None:
    with pytest.raises(OSError, match=r"not a regular file|such a file never is") as caught:
        read_bytes(special, 1 << 20)
    assert isinstance(caught.value, UnusableFileError)
    assert caught.value.errno in (errno.EINVAL, errno.EISDIR, errno.EFBIG)


def test_nothing_but_a_regular_file_is_replaced(special: Path, tmp_path: Path) -> None:
    if special.is_file():
        return  # A giant may be replaced: it is a regular file.
    before = {each.name: each.lstat().st_mode for each in tmp_path.iterdir()}
    with pytest.raises(UnusableFileError, match="not a regular file"):
        write_whole(special, lambda file: file.write(b"x"))
    with pytest.raises(UnusableFileError, match="not a regular file"):
        open_regular(special, os.O_WRONLY | os.O_TRUNC)
    assert {each.name: each.lstat().st_mode for each in tmp_path.iterdir()} == before


def test_a_link_to_a_regular_file_is_as_good_as_the_file(tmp_path: Path) -> None:
    place, link = tmp_path / "place", tmp_path / "link"
    link.symlink_to(place)
    write_whole(link, lambda file: file.write(b"first"))
    assert place.read_bytes() == read_bytes(link, 10) == b"first"
    place.chmod(0o640)
    write_whole(link, lambda file: file.write(b"second"))
    assert link.is_symlink()
    assert (place.read_bytes(), stat.S_IMODE(place.stat().st_mode)) == (b"second", 0o640)
    assert sorted(tmp_path.iterdir()) == [link, place]


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def write(file: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="No space left"):
        write_whole(path, write)
    assert [each.read_text() for each in tmp_path.iterdir()] == ["old"]


def test_a_name_may_be_as_long_as_the_file_system_allows(tmp_path: Path) -> None:
    write_whole(tmp_path / ("n" * 255), lambda file: file.write(b"x"))
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    "use", [lambda path: read_bytes(path, 10), target_of, lambda path: read_text(path, 10)]
)
@pytest.mark.parametrize("name", ["nul\0", "n" * 256, "no/folder", "lone\ud800"])
def test_impossible_names_are_errors_of_the_system(
    use: Callable[[Path], object], name: str, tmp_path: Path
) -> None:
    with pytest.raises(OSError, match=r"name|folder|No such file"):
        use(tmp_path / name)


def test_text_is_utf_8_and_bounded(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(b"ab\xff")
    with pytest.raises(UnusableFileError, match=r"no text in UTF-8 \(byte 3\)"):
        read_text(path, 3)
    with pytest.raises(UnusableFileError, match="it is larger than 2 bytes"):
        read_text(path, 2)


def test_what_says_that_it_is_empty_is_bounded_as_well() -> None:
    with pytest.raises(UnusableFileError, match="larger than 10 bytes"):
        read_bytes("/proc/cpuinfo", 10)


def test_examples_run() -> None:
    assert doctest.testmod(regular_files).failed == 0

"""The kernel's files as meters read them: from `/`, or from another folder that stands in for it."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

MAX_BYTES = 65536
# No sign, exponent, "nan" or "inf": the kernel writes none of them where a reading is good.
_NUMBER = re.compile(r"[0-9]{1,18}(\.[0-9]{1,9})?\Z")


class OpenFile:
    """A file that is kept open and read from its start again and again.

    Args:
        path: The file.

    Raises:
        OSError: It cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))

    def read(self) -> str:
        """Return its text as it is now.

        Raises:
            OSError: It cannot be read now; the sensor may be busy or gone.
        """
        return os.pread(self._fd, MAX_BYTES, 0).decode("utf-8", "replace").strip()

    def close(self) -> None:
        """Close the file; harmless when it is."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1


class Files:
    """A machine's files.

    Args:
        root: What the paths begin at.
    """

    def __init__(self, root: str = "/") -> None:
        self.root = root

    def path(self, path: str) -> str:
        """Return where a file such as `sys/class/hwmon` really lies."""
        return os.path.join(self.root, path.lstrip("/"))  # noqa: PTH118

    def open(self, path: str) -> OpenFile:
        """Return a file that stays open.

        Raises:
            OSError: It cannot be opened.
        """
        return OpenFile(self.path(path))

    def read(self, path: str) -> str:
        """Return a small file's text without white space around it.

        Raises:
            OSError: It cannot be read.
        """
        file = self.open(path)
        try:
            return file.read()
        finally:
            file.close()

    def text(self, path: str) -> str | None:
        """Return a small file's text, None if it cannot be read."""
        try:
            return self.read(path)
        except OSError:
            return None

    def list(self, path: str) -> list[str]:
        """Return the names in a folder, sorted; none if it cannot be read."""
        try:
            return sorted(os.listdir(self.path(path)))  # noqa: PTH208
        except OSError:
            return []

    def is_closed(self, path: str) -> bool:
        """Return whether a folder is there and may not be listed."""
        try:
            os.listdir(self.path(path))  # noqa: PTH208
        except PermissionError:
            return True
        except OSError:
            return False
        return False

    def resolve(self, path: str) -> str:
        """Return a path, below the root, without links: two names of one device become equal."""
        real = os.path.realpath(self.path(path))
        return os.path.relpath(real, os.path.realpath(self.root))


def read_text(path: str) -> str | None:
    """Return a small file's stripped text, None if it cannot be read."""
    parts = []
    try:
        # Unbuffered: sensors that are not ready answer EAGAIN, which buffered files turn into None.
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        try:
            missing = MAX_BYTES
            while missing:
                part = os.read(fd, missing)
                if not part:
                    break
                parts.append(part)
                missing -= len(part)
        finally:
            os.close(fd)
    except OSError:
        return None
    return b"".join(parts).decode("utf-8", "replace").strip()


def read_number(path: str) -> float | None:
    """Return the number, not negative, that a sysfs file holds; None if there is none."""
    return parse_number(read_text(path) or "")


def parse_number(text: str) -> float | None:
    """Return the number that the text is, None if it is none, negative or absurdly long."""
    return float(text) if _NUMBER.match(text) else None


def read_numbers(paths: Sequence[str]) -> list[float]:
    """Return the numbers of those files that hold one."""
    return [value for value in map(read_number, paths) if value is not None]

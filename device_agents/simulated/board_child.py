"""Puts another folder in the place of /sys and becomes the program that follows.

    unshare --mount --propagation private python board_child.py FOLDER PROGRAM ARGUMENT ...

It runs in a mount namespace of its own, so that nobody else sees the change, and needs nothing but
the standard library: it is started as a file.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys

MS_BIND = 4096


def main() -> None:
    """Bind and become; end with code 1 and a line on standard error where that is refused."""
    folder, *command = sys.argv[1:]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(folder.encode(), b"/sys", None, MS_BIND, None):
        number = ctypes.get_errno()
        hint = ""
        if number in (errno.EPERM, errno.EACCES):
            hint = "; mounting needs root, or in a container `--cap-add SYS_ADMIN`"
        sys.exit(f"board: {folder} cannot take the place of /sys: {os.strerror(number)}{hint}")
    os.execvp(command[0], command)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main()

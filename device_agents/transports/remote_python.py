"""Finds the Python of a device, or says how to get one there."""

from __future__ import annotations

import re

from ..errors import StableDeviceError
from ..host.install_advice import MANAGERS, Board, board_of, python_advice
from ..interfaces import Transport

OLDEST = (3, 9)
NAMES = ("python3", *(f"python3.{minor}" for minor in range(14, 8, -1)), "python")
FIND_TIMEOUT_S = 60.0

# One line per interpreter that answers, up to the first that is new enough; without one the
# system's description follows. The candidates are arguments: nothing is put into this text.
_FIND = r"""
for name in "$@"; do
    case $name in "~/"*) name=$HOME/${name#"~/"} ;; esac
    path=$(command -v "$name" 2>/dev/null) || continue
    version=$("$path" -c 'import sys
print("%d.%d.%d\t%s" % (sys.version_info[:3] + (sys.executable,)))' 2>/dev/null </dev/null)
    printf 'python\t%s\t%s\n' "$path" "$version"
    case $version in 3.9.*|3.[1-9][0-9].*) exit 0 ;; esac
done
printf 'user\t%s\n' "$(id -u)"
printf 'machine\t%s\n' "$(uname -m)"
printf 'android\t%s\n' "${ANDROID_ROOT:-}"
printf 'termux\t%s\n' "${TERMUX_VERSION:-}"
printf 'board\t%s\n' "$(tr -d '\000' 2>/dev/null </proc/device-tree/model)"
printf 'managers\tlooked\n'
for name in @MANAGERS@; do
    PATH=$PATH:/usr/bin:/bin:/sbin:/usr/sbin:/opt/bin command -v "$name" >/dev/null 2>&1 &&
        printf 'manager\t%s\n' "$name"
done
printf 'tegra\t%s\n' "$(head -n 1 /etc/nv_tegra_release 2>/dev/null)"
sed 's/^/os	/' /etc/os-release 2>/dev/null
exit 0
""".replace("@MANAGERS@", " ".join(MANAGERS))
_VERSION = re.compile(r"([0-9]{1,4})\.([0-9]{1,4})\.[0-9]+\Z")


def find_python(transport: Transport, wanted: str | None, host: str) -> str:
    """Return the path of a Python 3.9 or newer on the device.

    Args:
        transport: Reaches the device; its `run` is used.
        wanted: What the user asked for; the usual names are tried when None.
        host: What the device is called, for messages.

    Raises:
        StableDeviceError: There is none; the message says how to install one on that system.
        TransientDeviceError: The link failed.
    """
    names = [wanted] if wanted else list(NAMES)
    done = transport.run(["/bin/sh", "-c", _FIND, "sh", *names], FIND_TIMEOUT_S)
    lines = [line.split("\t") for line in done.stdout.decode(errors="replace").splitlines()]
    found = [
        # Its own name for itself goes past wrappers, such as pyenv's, that are slow to start.
        (line[2], line[3] if len(line) > 3 and line[3].startswith("/") else line[1])
        for line in lines
        if line[0] == "python" and len(line) > 2
    ]
    for version, path in found:
        if is_new_enough(version) and path.startswith("/") and path.isprintable():
            return path
    board = board_of(lines)
    raise StableDeviceError(_refusal(found, wanted, host, board))


def is_new_enough(version: str) -> bool:
    """Return whether a version such as 3.11.2 is one that the agent runs with."""
    parts = _VERSION.match(version)
    return parts is not None and (int(parts[1]), int(parts[2])) >= OLDEST and int(parts[1]) == 3


def _refusal(found: list[tuple[str, str]], wanted: str | None, host: str, board: Board) -> str:
    oldest = ".".join(map(str, OLDEST))
    too_old = [f"{path} is {version}" for version, path in found if _VERSION.match(version)]
    broken = [path for version, path in found if not _VERSION.match(version)]
    if too_old:
        said = f"the Python of {host} is too old ({', '.join(too_old[:3])}; {oldest} is needed)"
    elif broken:
        said = f"the Python of {host} does not run ({', '.join(broken[:3])[:300]})"
    elif wanted:
        said = f"{host} has no Python at {wanted}, as the device's URL says"
        venv = wanted.removesuffix("/bin/python")
        if venv == wanted:
            return f"{said}; correct ?python=, or leave it away to have one looked for"
        return f"{said}; make it there with: python3 -m venv {venv}, or leave ?python= away"
    else:
        said = f"{host} has no Python in the path of its login shell"
    return (
        f"{said}; {python_advice(board)}. One that lies elsewhere is named in the device's URL: "
        "?python=/opt/venv/bin/python"
    )

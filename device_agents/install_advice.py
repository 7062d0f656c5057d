"""What to type on a device to get what it lacks: one place for the wording of every system."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

VENV = "~/joulemap-venv"
# Systems whose Python refuses `pip install` outside of a venv (PEP 668), from this version on.
_MANAGED_SINCE = {"debian": 12, "raspbian": 12, "ubuntu": 23, "alpine": 3, "fedora": 38, "arch": 0}
_DEBIAN_LIKE = ("debian", "raspbian", "ubuntu")


@dataclass(frozen=True)
class Board:
    """A device's system, as far as advice depends on it.

    Args:
        system: `debian`, `raspbian`, `ubuntu`, `alpine`, `fedora`, `arch`, `termux`, `android` or
            `linux` where it is not known.
        name: The system's name for people.
        version: Its main version, 0 where it is not known.
        architecture: As `uname -m` has it.
        is_jetson: Whether NVIDIA's Jetson packages fit.
        is_root: Whether the user needs no sudo.
    """

    system: str = "linux"
    name: str = "this system"
    version: int = 0
    architecture: str = ""
    is_jetson: bool = False
    is_root: bool = False


def board_of(lines: Iterable[Sequence[str]]) -> Board:
    """Return the board that lines of the search for Python describe (key and value in each)."""
    facts = {line[0]: line[1] for line in lines if len(line) > 1 and line[0] != "os"}
    release = parse_os_release(line[1] for line in lines if len(line) > 1 and line[0] == "os")
    return _board(
        release,
        architecture=facts.get("machine", ""),
        board=facts.get("board", "") + facts.get("tegra", ""),
        is_root=facts.get("user") == "0",
        is_termux=bool(facts.get("termux")),
        is_android=bool(facts.get("android")),
    )


def board_of_fingerprint(fingerprint: Mapping[str, Any]) -> Board:
    """Return the board that a probe describes."""
    release = fingerprint.get("os_release")
    return _board(
        release if isinstance(release, Mapping) else {"PRETTY_NAME": fingerprint.get("os") or ""},
        architecture=str(fingerprint.get("architecture") or ""),
        board=str(fingerprint.get("board") or ""),
        is_root=fingerprint.get("is_root") is True,
        is_termux=bool(fingerprint.get("termux")),
        is_android=bool(fingerprint.get("android")),
    )


def parse_os_release(lines: Iterable[str]) -> dict[str, str]:
    """Return the fields of an /etc/os-release file."""
    fields = {}
    for line in lines:
        name, _, value = line.partition("=")
        fields[name.strip()] = value.strip().strip("\"'")
    return fields


def python_line(board: Board) -> str:
    """Return the command that installs a new enough Python on the board."""
    sudo = "" if board.is_root else "sudo "
    if board.system in ("termux", "android"):
        return "pkg install python (inside the app Termux)"
    if board.system == "alpine":
        return f"{'' if board.is_root else 'doas '}apk add python3"
    if board.system == "fedora":
        return f"{sudo}dnf install -y python3"
    if board.system == "arch":
        return f"{sudo}pacman -S python"
    if board.system == "ubuntu" and board.version and board.version < 22:
        # Its own python3 is 3.8; the next one lies beside it in the same archive.
        return f"{sudo}apt-get install -y python3.9 python3.9-venv"
    return f"{sudo}apt-get install -y python3 python3-venv"


def runtime_line(board: Board, package: str, python: str = "python3") -> str:
    """Return the commands that install a runtime's package on the board.

    Args:
        board: The device's system.
        package: What pip calls it, such as `onnxruntime`.
        python: The interpreter that the agent was started with.
    """
    if board.system in ("termux", "android"):
        if package == "onnxruntime":
            return "pkg install python-numpy python-onnxruntime (inside the app Termux)"
        return f"pip install {package} (inside the app Termux, which may have to build it)"
    if board.is_jetson and package.startswith("onnxruntime"):
        return (
            f"{_venv(board, 'onnxruntime', python)}; for the GPU take onnxruntime-gpu from the "
            "package index that NVIDIA keeps for this JetPack"
        )
    if board.architecture.startswith("armv") and package != "tflite-runtime":
        return (
            f"{_venv(board, package, python)} (32-bit ARM: most runtimes have no package for it; a "
            "64-bit system on the same board has)"
        )
    if board.system == "alpine":
        doas = "" if board.is_root else "doas "
        if package == "onnxruntime":
            return f"{doas}apk add py3-numpy py3-onnxruntime"
    return _venv(board, package, python)


def _venv(board: Board, package: str, python: str) -> str:
    is_venv = python not in ("", "python", "python3") and not python.startswith("/usr/")
    since = _MANAGED_SINCE.get(board.system)
    if is_venv:
        return f"{python} -m pip install {package}"
    if since is None or (board.version and board.version < since):
        return f"{python} -m pip install --user {package}"
    prepare = ""
    if board.system in _DEBIAN_LIKE:
        prepare = f"{'' if board.is_root else 'sudo '}apt-get install -y python3-venv && "
    return (
        f"{prepare}python3 -m venv {VENV} && {VENV}/bin/pip install {package}, then add "
        f"?python={VENV}/bin/python to the device's URL"
    )


def _board(
    release: Mapping[str, Any],
    *,
    architecture: str,
    board: str,
    is_root: bool,
    is_termux: bool,
    is_android: bool,
) -> Board:
    text = f"{release.get('ID', '')} {release.get('ID_LIKE', '')} {release.get('PRETTY_NAME', '')}"
    system = next(
        (
            name
            for name in ("raspbian", "ubuntu", "debian", "alpine", "fedora", "arch")
            if name in text.lower()
        ),
        "linux",
    )
    name = str(release.get("PRETTY_NAME") or "this system")[:80]
    if is_termux or is_android:
        system, name = ("termux" if is_termux else "android"), "Android"
    digits = re.search(
        r"[0-9]+", str(release.get("VERSION_ID") or release.get("PRETTY_NAME") or "")
    )
    if "raspberry pi" in board.lower() and system == "debian":
        name = f"Raspberry Pi OS ({name})"
    return Board(
        system=system,
        name=name,
        version=int(digits[0]) if digits and len(digits[0]) < 6 else 0,
        architecture=architecture,
        is_jetson="jetson" in board.lower() or "tegra" in board.lower() or "R3" in board[:6],
        is_root=is_root,
    )

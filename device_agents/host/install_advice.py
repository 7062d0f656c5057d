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
# As they stand in /etc/os-release, the more particular ones first.
_SYSTEMS = (
    *("raspbian", "ubuntu", "debian", "alpine", "rhel", "fedora", "arch", "openwrt", "buildroot"),
    *("poky", "suse", "void", "gentoo", "nixos"),
)
_MANAGER_OF = {
    **dict.fromkeys(_DEBIAN_LIKE, "apt-get"),
    "alpine": "apk",
    "fedora": "dnf",
    "rhel": "dnf",
    "arch": "pacman",
    "openwrt": "opkg",
    "suse": "zypper",
    "void": "xbps-install",
    "gentoo": "emerge",
    "nixos": "nix",
}
# What installs Python, by the program that does; those whose users are mostly root need no sudo.
_PYTHON_BY = {
    "apt-get": "sudo apt-get install -y python3 python3-venv",
    "apk": "doas apk add python3",
    "dnf": "sudo dnf install -y python3",
    "microdnf": "sudo microdnf install -y python3",
    "yum": "sudo yum install -y python3",
    "pacman": "sudo pacman -S python",
    "zypper": "sudo zypper install -y python311",
    "opkg": "opkg update && opkg install python3",
    "xbps-install": "sudo xbps-install -S python3",
    "emerge": "sudo emerge dev-lang/python",
    "nix": "nix profile install nixpkgs#python3",
}
MANAGERS = tuple(_PYTHON_BY)
# Systems that are built as a whole, and how Python gets into them.
_IMAGES = {
    "buildroot": "build its image anew with BR2_PACKAGE_PYTHON3=y (glibc: onnxruntime needs it)",
    "poky": 'build its image anew with IMAGE_INSTALL:append = " python3 python3-modules"',
}
_STANDALONE = "unpack one of github.com/astral-sh/python-build-standalone there"


@dataclass(frozen=True)
class Board:
    """A device's system, as far as advice depends on it.

    Args:
        system: `termux`, `android`, one of those in /etc/os-release that are told apart here, or
            `linux` where it is not known.
        name: The system's name for people.
        version: Its main version, 0 where it is not known.
        architecture: As `uname -m` has it.
        is_jetson: Whether NVIDIA's Jetson packages fit.
        is_root: Whether the user needs no sudo.
        managers: Programs there that install packages; None where nobody looked.
    """

    system: str = "linux"
    name: str = "this system"
    version: int = 0
    architecture: str = ""
    is_jetson: bool = False
    is_root: bool = False
    managers: tuple[str, ...] | None = None

    @property
    def manager(self) -> str | None:
        """The program that installs packages there, None where there is none."""
        usual = _MANAGER_OF.get(self.system, "apt-get" if self.system == "linux" else None)
        if self.managers is None:
            return usual
        known = [name for name in MANAGERS if name in self.managers]
        return usual if usual in known else next(iter(known), None)


def board_of(lines: Iterable[Sequence[str]]) -> Board:
    """Return the board that lines of the search for Python describe (key and value in each)."""
    looked = [line for line in lines if len(line) > 1]
    facts = {line[0]: line[1] for line in looked if line[0] != "os"}
    release = parse_os_release(line[1] for line in looked if line[0] == "os")
    return _board(
        release,
        architecture=facts.get("machine", ""),
        board=facts.get("board", "") + facts.get("tegra", ""),
        is_root=facts.get("user") == "0",
        is_termux=bool(facts.get("termux")),
        is_android=bool(facts.get("android")),
        managers=tuple(line[1] for line in looked if line[0] == "manager")
        if any(line[0] == "managers" for line in looked)
        else None,
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


def python_advice(board: Board) -> str:
    """Return how a new enough Python comes onto the board, as a part of a sentence."""
    line = python_line(board)
    if line is not None:
        return f"on {board.name} install it with: {line}"
    how = _IMAGES.get(board.system)
    if how is None:
        return f"{board.name} has no package manager that joulemap knows: {_STANDALONE}"
    return f"{board.name} has no package manager: {how}, or {_STANDALONE}"


def python_line(board: Board) -> str | None:
    """Return the command that installs a new enough Python on the board, None if there is none."""
    if board.system in ("termux", "android"):
        return "pkg install python (inside the app Termux)"
    manager = board.manager
    if manager is None:
        return None
    line = _PYTHON_BY[manager]
    if board.system == "ubuntu" and board.version and board.version < 22:
        # Its own python3 is 3.8; the next one lies beside it in the same archive.
        line = "sudo apt-get install -y python3.9 python3.9-venv"
    if board.system == "rhel" and board.version and board.version < 9:
        line = f"sudo {manager} install -y python3.11"
    return line.removeprefix("sudo ").removeprefix("doas ") if board.is_root else line


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
    if board.system == "openwrt":
        return f"OpenWrt's C library (musl) has no package of {package}: take a system with glibc"
    if board.system in _IMAGES:
        return (
            f"{python} -m ensurepip --user && {python} -m pip install --user {package} (needs an "
            "image with glibc and Python's ensurepip; otherwise build it into the image)"
        )
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
    managers: tuple[str, ...] | None = None,
) -> Board:
    text = f"{release.get('ID', '')} {release.get('ID_LIKE', '')} {release.get('PRETTY_NAME', '')}"
    system = next(
        (name for name in _SYSTEMS if re.search(rf"\b{name}\b", text.lower())),
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
        managers=managers,
    )

"""The lines that install what is missing, per system."""

from __future__ import annotations

import pytest

from joulemap.device_agents.host.install_advice import (
    Board,
    board_of,
    board_of_fingerprint,
    python_advice,
    python_line,
    runtime_line,
)

PI = {"ID": "debian", "VERSION_ID": "12", "PRETTY_NAME": "Debian GNU/Linux 12 (bookworm)"}
UBUNTU = {"ID": "ubuntu", "ID_LIKE": "debian", "VERSION_ID": "20.04", "PRETTY_NAME": "Ubuntu 20.04"}
ALPINE = {"ID": "alpine", "VERSION_ID": "3.20.1", "PRETTY_NAME": "Alpine Linux v3.20"}


def _board(release: dict[str, str], **facts: object) -> Board:
    return board_of_fingerprint({"os_release": release, **facts})


def test_a_raspberry_pi_gets_a_venv_since_its_python_is_managed() -> None:
    board = _board(PI, board="Raspberry Pi 4 Model B Rev 1.4", architecture="aarch64")
    assert board.name.startswith("Raspberry Pi OS")
    assert python_line(board) == "sudo apt-get install -y python3 python3-venv"
    assert runtime_line(board, "onnxruntime") == (
        "sudo apt-get install -y python3-venv && python3 -m venv ~/joulemap-venv && "
        "~/joulemap-venv/bin/pip install onnxruntime, then add "
        "?python=~/joulemap-venv/bin/python to the device's URL"
    )


def test_an_older_system_takes_packages_of_the_user() -> None:
    assert runtime_line(_board({**PI, "VERSION_ID": "11"}), "onnxruntime") == (
        "python3 -m pip install --user onnxruntime"
    )
    assert "python3.9" in str(python_line(_board(UBUNTU)))


def test_a_venv_is_added_to() -> None:
    line = runtime_line(_board(PI), "torch", "/home/pi/venv/bin/python")
    assert line == "/home/pi/venv/bin/python -m pip install torch"


def test_the_system_python_is_no_venv() -> None:
    assert "-m venv" in runtime_line(_board(PI), "torch", "/usr/bin/python3")


@pytest.mark.parametrize(
    ("board", "package", "expected"),
    [
        (_board(ALPINE), "onnxruntime", "doas apk add py3-numpy py3-onnxruntime"),
        (_board(ALPINE, is_root=True), "onnxruntime", "apk add py3-numpy py3-onnxruntime"),
        (_board({}, termux="0.118"), "onnxruntime", "pkg install python-numpy python-onnxruntime"),
        (_board(UBUNTU, board="NVIDIA Jetson Orin Nano"), "onnxruntime", "onnxruntime-gpu"),
        (_board(PI, architecture="armv7l"), "onnxruntime", "64-bit system"),
        (_board({}), "onnxruntime", "python3 -m pip install --user onnxruntime"),
    ],
)
def test_other_systems_have_lines_of_their_own(board: Board, package: str, expected: str) -> None:
    assert expected in runtime_line(board, package)


@pytest.mark.parametrize(
    ("board", "expected"),
    [
        (_board(ALPINE), "doas apk add python3"),
        (_board({"ID": "fedora", "VERSION_ID": "40"}), "sudo dnf install -y python3"),
        (_board({"ID": "arch"}), "sudo pacman -S python"),
        (_board({}, android="/system"), "pkg install python (inside the app Termux)"),
        (_board(PI, is_root=True), "apt-get install -y python3 python3-venv"),
        (
            _board({"ID": "rocky", "ID_LIKE": "rhel centos fedora", "VERSION_ID": "8"}),
            "sudo dnf install -y python3.11",
        ),
        (_board({"ID": "opensuse-leap", "ID_LIKE": "suse"}), "sudo zypper install -y python311"),
        (_board({"ID": "openwrt"}, is_root=True), "opkg update && opkg install python3"),
        (_board({"ID": "void"}), "sudo xbps-install -S python3"),
        (_board({"ID": "buildroot"}), None),
        (_board({"ID": "poky"}), None),
    ],
)
def test_python_is_installed_as_the_system_does_it(board: Board, expected: str | None) -> None:
    assert python_line(board) == expected


def test_the_search_for_python_describes_the_same_board() -> None:
    lines = [
        ["user", "0"],
        ["machine", "aarch64"],
        ["board", "Raspberry Pi 5 Model B"],
        ["os", 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"'],
        ["os", 'VERSION_ID="12"'],
        ["os", "ID=debian"],
        ["nonsense"],
    ]
    fingerprint = {
        "os_release": PI,
        "board": "Raspberry Pi 5 Model B",
        "architecture": "aarch64",
        "is_root": True,
    }
    assert board_of(lines) == board_of_fingerprint(fingerprint)


@pytest.mark.parametrize(
    ("release", "managers", "expected"),
    [
        # What is there counts more than what the system is called.
        ("ID=linux", ["apk"], "install it with: apk add python3"),
        ("ID=mystery", ["opkg", "zypper"], "install it with: zypper install -y python311"),
        ("ID=debian", ["apt-get", "nix"], "install it with: apt-get install"),
        ("ID=debian", [], "has no package manager that joulemap knows: unpack one of github.com/"),
        (
            "ID=buildroot",
            [],
            "has no package manager: build its image anew with BR2_PACKAGE_PYTHON3",
        ),
        ("ID=poky", [], "IMAGE_INSTALL:append"),
        ("ID=buildroot", ["opkg"], "install it with: opkg update"),
        ("", [], "this system has no package manager that joulemap knows"),
    ],
)
def test_advice_goes_by_the_package_manager_that_is_there(
    release: str, managers: list[str], expected: str
) -> None:
    lines = [["user", "0"], ["os", release], ["managers", "looked"]]
    advice = python_advice(board_of([*lines, *(["manager", name] for name in managers)]))
    assert expected in advice
    assert len(advice) < 250


def test_images_and_small_systems_are_told_what_a_runtime_needs() -> None:
    assert "ensurepip" in runtime_line(_board({"ID": "buildroot"}), "onnxruntime")
    assert "musl" in runtime_line(_board({"ID": "openwrt"}), "onnxruntime")


def test_what_a_hostile_device_says_stays_short() -> None:
    board = board_of([["os", f"PRETTY_NAME={'x' * 10000}"], ["os", f"VERSION_ID={'9' * 10000}"]])
    assert len(board.name) <= 80
    assert board.version == 0

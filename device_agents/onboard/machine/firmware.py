"""Asks a Raspberry Pi's firmware by `vcgencmd`, the program that comes with its system."""

from __future__ import annotations

import os
import select
import subprocess
import time

from ..files import Files

_PROGRAMS = ("usr/bin/vcgencmd", "opt/vc/bin/vcgencmd")
_MODELS = ("raspberry pi", "compute module")
_MAX_OUTPUT = 16_384
TIME_LIMIT_S = 2.0


class FirmwareError(Exception):
    """The firmware gave no answer; the message says why."""


class FirmwareGone(FirmwareError):
    """The program is no longer there."""


def model(files: Files) -> str:
    """Return what the device tree calls the board, in small letters; empty where there is none."""
    return " ".join(
        files.text(f"{folder}/model") or ""
        for folder in ("proc/device-tree", "sys/firmware/devicetree/base")
    ).lower()


def program(files: Files) -> str | None:
    """Return where `vcgencmd` is, None where it is not or the board is no Raspberry Pi."""
    if not any(name in model(files) for name in _MODELS):
        return None
    paths = [files.path(name) for name in _PROGRAMS]
    return next((path for path in paths if os.access(path, os.X_OK)), None)


def places() -> str:
    """Return where the program is looked for, in words."""
    return " and ".join("/" + name for name in _PROGRAMS)


def ask(path: str, question: str) -> str:
    """Return what the program prints.

    Args:
        path: The program.
        question: Its one argument.

    Raises:
        FirmwareGone: It is not there.
        FirmwareError: It fails, takes too long, or does not stop printing.
    """
    try:
        process = subprocess.Popen(
            [path, question],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
    except FileNotFoundError as error:
        raise FirmwareGone(f"{path} is gone") from error
    except OSError as error:
        raise FirmwareError(f"{path} cannot be started ({error.strerror})") from error
    with process:
        try:
            printed = _output(process, path).decode("utf-8", "replace")
        finally:
            process.kill()
    if process.returncode != 0:
        said = printed[:80].strip()
        raise FirmwareError(f"'{path} {question}' failed with {process.returncode} ({said!r})")
    return printed


def _output(process: subprocess.Popen[bytes], path: str) -> bytes:
    """Return what a program prints until it ends."""
    end = time.monotonic() + TIME_LIMIT_S
    printed = b""
    if process.stdout is None:
        return printed
    while True:
        left_s = end - time.monotonic()
        if left_s <= 0 or not select.select([process.stdout], [], [], left_s)[0]:
            raise FirmwareError(f"{path} took more than {TIME_LIMIT_S:g} s")
        part = os.read(process.stdout.fileno(), _MAX_OUTPUT)
        printed += part
        if len(printed) > _MAX_OUTPUT:
            raise FirmwareError(f"{path} does not stop printing")
        if not part:
            break
    try:
        process.wait(max(0.0, end - time.monotonic()))
    except subprocess.TimeoutExpired as error:
        raise FirmwareError(f"{path} took more than {TIME_LIMIT_S:g} s") from error
    return printed

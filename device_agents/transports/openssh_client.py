"""Asks OpenSSH's own client, `ssh -G`, what it reads in lines of its configuration.

It is asked about what only it can know: what a program of a `Match exec` line says, which networks
this machine is in, names that it makes canonical, options and criteria newer than this code. It
gets a configuration of a few lines, made for the question, and connects to nobody.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from joulemap import InputError

# A program of the configuration, or a name server, may take its time.
ASK_TIMEOUT_S = 20.0
_MAX_OUTPUT = 1 << 20
_MAX_SAID = 160


class RefusedError(Exception):
    """OpenSSH refuses the lines; the text says why, in its words."""


def program() -> str | None:
    """Return the path of OpenSSH's client, None where there is none."""
    return shutil.which("ssh")


@cache
def version(path: str) -> tuple[int, int]:
    """Return the version of a client, such as (9, 2); (0, 0) where it does not tell."""
    try:
        done = subprocess.run(
            [path, "-V"], capture_output=True, text=True, timeout=ASK_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0, 0
    found = re.search(r"OpenSSH\D*(\d{1,4})\.(\d{1,4})", done.stderr + done.stdout)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def ask(lines: Sequence[str], alias: str, why: str) -> dict[str, str]:
    """Return what OpenSSH reads in a configuration of these lines: its word for each option.

    Args:
        lines: The whole configuration; no file of the user's is read.
        alias: The host that is asked about.
        why: What needs an answer, for messages: a noun.

    Raises:
        RefusedError: It refuses the lines.
        InputError: There is no such client here, or it does not answer.
    """
    path = program()
    if path is None:
        raise InputError(
            f"the SSH configuration cannot be read for {alias[:80]}: {why}, which only OpenSSH's "
            "own client knows, and there is no program 'ssh' here: install it (Debian: apt install "
            "openssh-client), or write user, address and port into the URL and remove that line"
        )
    with tempfile.TemporaryDirectory(prefix="joulemap-ssh-") as folder:
        config = Path(folder, "config")
        config.write_bytes(os.fsencode("\n".join([*lines, ""])))
        out, said, code = _run([path, "-G", "-F", str(config), "--", alias], why)
    if code:
        last = (said.strip().splitlines() or [f"it ended with code {code}"])[0]
        # The file's name is this function's own.
        raise RefusedError(last.replace(str(config), "line")[:_MAX_SAID])
    options: dict[str, str] = {}
    for line in out.split("\n"):
        keyword, _, value = line.partition(" ")
        options.setdefault(keyword.lower(), value)
    return options


def _run(command: Sequence[str], why: str) -> tuple[str, str, int]:
    try:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # A group of its own, with the programs that the configuration has it start.
            start_new_session=True,
        )
    except OSError as error:
        raise InputError(f"{command[0]} cannot be started: {error.strerror}") from error
    try:
        out, said = process.communicate(timeout=ASK_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise InputError(
            f"OpenSSH does not say within {ASK_TIMEOUT_S:.0f} s what it reads in the SSH "
            f"configuration ({why}): does a program of a Match exec line hang, or a name server?"
        ) from error
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()
    return os.fsdecode(out[:_MAX_OUTPUT]), said.decode(errors="replace"), process.returncode

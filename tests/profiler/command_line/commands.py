"""The command line in a process of its own, as a user meets it, and in this one."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from joulemap.profiler.command_line import cli, console

PROFILE = ["profile", "local:", "--network", "lenet5", "--visit-s", "0.02", "--visits", "2"]


def joulemap(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the installed command in an 80-column, colourless terminal."""
    environment = os.environ | {"COLUMNS": "80", "NO_COLOR": "1"}
    command = [str(Path(sys.executable).with_name("joulemap")), *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, timeout=300
    )


def refused(*arguments: object) -> str:
    """Run a command that must be refused: exit code 2, one sentence, no traceback."""
    done = joulemap(*arguments)
    assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    return done.stderr


def in_this_process(*arguments: object) -> tuple[int, str]:
    """Return the exit code and what was said on standard error: each start costs a second."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(console, "ERRORS", Console(file=said, soft_wrap=True, width=200))
        return cli.main([str(argument) for argument in arguments]), said.getvalue()

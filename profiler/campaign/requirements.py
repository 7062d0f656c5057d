"""What a campaign needs of its device: a runtime, and processors for its threads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from joulemap import InputError
from joulemap.showable_text import showable_answer

from ...device_agents.errors import StableDeviceError
from ...device_agents.host.install_advice import board_of_fingerprint, runtime_line
from ...device_agents.onboard.probe_answer import ProbeAnswer
from ...device_agents.registry import runtime_entry

# Of one text that a device says.
MAX_TEXT = 500
# More of them wait for each other longer than they compute.
MAX_THREADS_PER_CPU = 2


def install_line(fingerprint: Mapping[str, Any], runtime: str) -> str:
    """Return the command that installs a runtime on the device that a probe describes."""
    package = runtime_entry(runtime).install.removeprefix("pip install ")
    board = board_of_fingerprint(fingerprint)
    return runtime_line(board, package, str(fingerprint.get("python_path") or "python3"))


def require_runtime(probed: ProbeAnswer, runtime: str, url: str) -> None:
    """Do nothing if the device has the runtime.

    Raises:
        StableDeviceError: It has not; the message says how to install it there.
    """
    if runtime not in probed.runtimes or probed.runtimes[runtime]:
        return
    told = showable_answer(probed.details, MAX_TEXT)
    python = f"{told.get('python_path')} ({told.get('python')})"
    raise StableDeviceError(
        f"{url} has no {runtime} for its Python {python}; install it there with: "
        f"{install_line(told, runtime)}"
    )


def require_processors(probed: ProbeAnswer, threads: int, url: str) -> None:
    """Do nothing if the device has processors for so many threads, at most two for each.

    Raises:
        InputError: It has not; threads that wait for each other would only run into time limits.
    """
    count = len(probed.available_cpus) or probed.num_cpus
    if count is not None and 0 < count < threads / MAX_THREADS_PER_CPU:
        has = "1 processor" if count == 1 else f"{count} processors"
        raise InputError(
            f"{url} has {has} and threads is {threads}, more than {MAX_THREADS_PER_CPU} for each; "
            f"write --threads {count} or less (threads={count} in Python)"
        )

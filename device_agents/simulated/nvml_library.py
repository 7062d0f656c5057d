"""Builds the NVML of a simulated graphics card, so that the vendor's package can be rehearsed with it."""

from __future__ import annotations

import shutil
import subprocess
from importlib import resources
from pathlib import Path

from ..errors import StableDeviceError

# What programs look for; found by LD_LIBRARY_PATH, or once it is loaded by its path.
LIBRARY = "libnvidia-ml.so.1"
SOURCE = "nvml.c"
# The environment variable that names the file with its settings; nvml.c says which there are.
SETTINGS_VARIABLE = "JOULEMAP_NVML"
_FLAGS = ("-x", "c", "-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror")
_COMPILERS = ("cc", "gcc", "g++", "clang")
_TIME_LIMIT_S = 120.0


def build_nvml(folder: Path) -> Path:
    """Return the library, compiled into a folder.

    Raises:
        StableDeviceError: There is no compiler, or it fails.
    """
    compiler = next(filter(None, map(shutil.which, _COMPILERS)), None)
    if compiler is None:
        raise StableDeviceError(
            "a simulated graphics card needs a C compiler: apt-get install -y --no-install-recommends g++"
        )
    target = folder / LIBRARY
    with resources.as_file(resources.files(__package__) / SOURCE) as source:
        command = [
            compiler,
            *_FLAGS,
            f"-Wl,-soname,{LIBRARY}",
            "-o",
            str(target),
            str(source),
            "-lm",
        ]
        ended = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIME_LIMIT_S,
        )
    if ended.returncode != 0:
        raise StableDeviceError(
            f"the simulated graphics card's library cannot be compiled: {ended.stderr.strip()[-300:]}"
        )
    return target

"""How long `joulemap --help` takes, beside Python's own start and beside importing torch.

python benchmarks/command_line.py
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path


def main() -> None:
    """Time the three commands in turn and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=15)
    arguments = parser.parse_args()
    joulemap = str(Path(sys.executable).with_name("joulemap"))
    commands = {
        "joulemap --help": [joulemap, "--help"],
        "python -c pass": [sys.executable, "-P", "-c", "pass"],
        "import torch": [sys.executable, "-P", "-c", "import torch"],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(arguments.runs + 1):
        for name, command in commands.items():
            began = time.perf_counter()
            subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
            times[name].append(time.perf_counter() - began)
    medians = {name: statistics.median(values[1:]) for name, values in times.items()}
    for name, median in medians.items():
        print(
            f"{name:<18} {median:6.3f} s  ({median / medians['import torch']:.2f} of torch's import)"
        )


if __name__ == "__main__":
    main()

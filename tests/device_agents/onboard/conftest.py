"""A folder laid out like a small board's /proc and /sys."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

FILES = {
    "proc/loadavg": "0.52 0.40 0.31 3/512 4242\n",
    "proc/stat": (
        "cpu  400 0 200 3000 100 10 20 70 0 0\n"
        "cpu0 100 0 100 1800 50 10 20 20 0 0\n"
        "cpu1 300 0 100 1200 50 0 0 50 0 0\n"
        "intr 1 2 3\n"
    ),
    "proc/meminfo": "MemTotal:  4000000 kB\nMemFree:  100 kB\nMemAvailable:  2500000 kB\n",
    "proc/pressure/memory": (
        "some avg10=12.50 avg60=1.00 avg300=0.10 total=99\nfull avg10=3.00 avg60=0.00 total=1\n"
    ),
    "proc/pressure/cpu": "some avg10=0.25 avg60=0.00 avg300=0.00 total=5\n",
    "sys/class/thermal/thermal_zone0/temp": "48300\n",
    "sys/class/thermal/thermal_zone1/temp": "61250\n",
    "sys/class/thermal/cooling_device0/type": "cpufreq-cpu0\n",
    "sys/class/thermal/cooling_device0/cur_state": "0\n",
    "sys/class/thermal/cooling_device1/type": "pwm-fan\n",
    "sys/class/thermal/cooling_device1/cur_state": "3\n",
    "sys/devices/platform/soc/soc:firmware/get_throttled": "50000\n",
    **{
        f"sys/devices/system/cpu/cpu{cpu}/thermal_throttle/{name}": text
        for cpu, counts in enumerate((("2\n", "7\n"), ("5\n", "7\n")))
        for name, text in zip(
            ("core_throttle_count", "package_throttle_count"), counts, strict=True
        )
    },
    **{
        f"sys/devices/system/cpu/cpufreq/policy{cpu}/{name}": text
        for cpu in range(2)
        for name, text in {
            "scaling_cur_freq": f"{1500 - 300 * cpu}000\n",
            "scaling_governor": ("ondemand\n", "powersave\n")[cpu],
            "scaling_available_governors": "ondemand powersave performance schedutil\n",
            "scaling_min_freq": "600000\n",
            "scaling_max_freq": "1500000\n",
        }.items()
    },
}


def plant(root: Path, num_cpus: int = 2) -> Path:
    """Write the files below the folder; CPUs beyond the second share the second's policy."""
    for name, text in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    cpus = root / "sys/devices/system/cpu"
    for cpu in range(num_cpus):
        (cpus / f"cpu{cpu}").mkdir(exist_ok=True)
        (cpus / f"cpu{cpu}/cpufreq").symlink_to(f"../cpufreq/policy{min(cpu, 1)}")
    return root


@pytest.fixture(scope="session")
def plant_board() -> Callable[[Path], Path]:
    """Returns a function that makes a folder the board's root folder, with two CPUs."""
    return plant


@pytest.fixture(scope="session")
def board_files() -> dict[str, str]:
    """What its files hold."""
    return FILES


@pytest.fixture
def board(tmp_path: Path) -> Path:
    """The board's root folder, with two CPUs."""
    return plant(tmp_path / "board")


@pytest.fixture
def make_board(tmp_path: Path) -> Callable[[int], Path]:
    """Returns a function num_cpus -> the board's root folder."""
    return lambda num_cpus: plant(tmp_path / "board", num_cpus)

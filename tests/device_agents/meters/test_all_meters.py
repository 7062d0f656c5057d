"""Every backend is known by name, travels in the agent's archive, and runs there with nothing else."""

from __future__ import annotations

import importlib
import json
import pkgutil
import subprocess
import sys
from pathlib import Path

from joulemap.device_agents import meters
from joulemap.device_agents.host.agent_archive import agent_archive
from joulemap.device_agents.registry import METERS

# Standard library alone (-I -S), as on a device that has nothing but Python.
FIND = """
import importlib, json, sys
archive, root, *names = sys.argv[1:]
sys.path.insert(0, archive)
from joulemap_agent.onboard.files import Files
found = {}
for name in names:
    module = importlib.import_module("joulemap_agent.meters." + name)
    found[name] = [[item.info.channel, item.read()] for item in module.find(Files(root))]
print(json.dumps(found))
"""


def test_every_module_that_finds_meters_has_its_line() -> None:
    modules = [
        name
        for _, name, _ in pkgutil.iter_modules(meters.__path__)
        if hasattr(importlib.import_module(f"{meters.__name__}.{name}"), "find")
    ]
    assert sorted(entry.module for entry in METERS.values()) == sorted(modules)


def test_gauges_of_batteries_come_after_all_others_and_the_estimate_last() -> None:
    assert list(METERS)[-2:] == ["battery", "estimated"]


def test_all_run_from_the_archive_with_the_standard_library_alone(tmp_path: Path) -> None:
    name, content = agent_archive()
    (tmp_path / name).write_bytes(content)
    chip = tmp_path / "root/sys/class/hwmon/hwmon0"
    chip.mkdir(parents=True)
    (chip / "name").write_text("ina219\n")
    (chip / "power1_input").write_text("1500000\n")
    names = [entry.module for entry in METERS.values()]
    arguments = [str(tmp_path / name), str(tmp_path / "root"), *names]
    ended = subprocess.run(
        [sys.executable, "-I", "-S", "-c", FIND, *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    found = json.loads(ended.stdout)
    assert list(found) == names
    assert found.pop("hwmon") == [["ina219-power1", 1.5]]
    assert [channel for channel, _ in found.pop("estimated")] == ["cpu-time"]
    assert not any(found.values())

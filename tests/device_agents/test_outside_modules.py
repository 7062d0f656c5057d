"""Meters, runtimes and transports of other packages, up to where they run on the device."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from joulemap import InputError
from joulemap.device_agents import Device, registry
from joulemap.device_agents.host.agent_archive import agent_archive
from joulemap.device_agents.outside_modules import OutsideModules
from joulemap.device_agents.testing import MeterContract, RuntimeContract
from joulemap.plug_ins import PlugInWarning

EXAMPLE = Path(__file__).parents[1] / "plug_in"
PARTS = (
    (registry.OUTSIDE_METERS, "watt_file", "joulemap_example.watt_file"),
    (registry.OUTSIDE_RUNTIMES, "plain", "joulemap_example.plain_runtime"),
    (registry.OUTSIDE_TRANSPORTS, "here", "joulemap_example.here:HereTransport"),
)
# Standard library alone (-I -S), as on a device that has nothing but Python.
FIND = """
import importlib, json, sys
archive, root = sys.argv[1:]
sys.path.insert(0, archive)
from joulemap_agent.onboard.files import Files
module = importlib.import_module("joulemap_agent.meters.outside_watt_file")
print(json.dumps([[item.info.name, item.read()] for item in module.find(Files(root))]))
"""


@pytest.fixture(scope="module", autouse=True)
def example() -> Iterator[None]:
    """The example's parts are registered; `tests/test_plug_ins.py` installs it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLE))
        for plug_ins, name, target in PARTS:
            patch.setattr(plug_ins, "registered", {})
            plug_ins.register(name, target)
        yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "joulemap_example"]:
        del sys.modules[name]


class TestWattFile(MeterContract):
    module = "joulemap_example.watt_file"
    name = "watt_file"
    protected = ("run/example/power_w",)

    def make(self, folder: Path) -> None:
        self.watts = 2.0
        (folder / "run/example").mkdir(parents=True)
        (folder / "run/example/power_w").write_text("2.000\n")

    def step(self, folder: Path) -> float:
        self.watts += 0.5
        (folder / "run/example/power_w").write_text(f"{self.watts:.3f}\n")
        return self.watts


class TestPlain(RuntimeContract):
    name = "plain"
    package = "onnxruntime"


def test_a_meter_of_a_package_runs_from_the_archive(tmp_path: Path) -> None:
    name, content = agent_archive()
    (tmp_path / name).write_bytes(content)
    file = tmp_path / "root/run/example/power_w"
    file.parent.mkdir(parents=True)
    file.write_text("3.250\n")
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", FIND, str(tmp_path / name), str(tmp_path / "root")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [["watt_file", 3.25]]


def test_a_device_has_the_runtime_and_is_reached_by_the_transport() -> None:
    with Device("here:") as device:
        runtimes = device.probe().runtimes
        assert runtimes["plain"] == runtimes["onnxruntime"]
        found = device.find_meters()
    told = [item["name"] for item in (*found.available, *found.missing)]
    assert "ImportError" not in str(found)
    assert "watt_file" not in told
    with pytest.raises(InputError, match=r"sim:NAME, .*here:\.\.\."):
        Device("there:")


def test_they_are_known_by_name_after_joulemaps_own() -> None:
    registry.check_meters("watt_file:all")
    assert list(registry.meters())[-3:] == ["watt_file", "battery", "estimated"]
    assert registry.meters()["watt_file"].needs.startswith("a program that writes watts")
    assert list(registry.runtimes()) == ["onnxruntime", "plain"]
    assert registry.runtime_entry("plain").install == "pip install onnxruntime"
    with pytest.raises(InputError, match=r"unknown meter 'watts'; .*estimated, watt_file"):
        registry.check_meters("watts")
    with pytest.raises(InputError, match="unknown runtime 'plane'; known: onnxruntime, plain"):
        registry.runtime_entry("plane")
    with pytest.raises(InputError, match="joulemap has a meter 'rapl' itself"):
        registry.register_meter("rapl", "joulemap_example.watt_file")


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("thing", "from joulemap import InputError\n", "it imports joulemap, and the device has"),
        ("thing", "import joulemap.datasets.size\n", "it imports joulemap.datasets.size, and"),
        ("thing", "from .other import x\n", r"what lies beside it \(line 1\)"),
        ("thing", "match 1:\n    case 1:\n        pass\n", "Python 3.9 cannot read it"),
        ("Thing", "", "its name is not of a-z"),
        ("thing", "del find\n", "made has no find"),
    ],
)
def test_a_module_that_cannot_travel_is_named_and_left_out(
    name: str, text: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "made.py").write_text(f"def find(files):\n    return []\n\n\n{text}")
    (tmp_path / "other.py").write_text("x = 1\n")
    things = OutsideModules("things", "thing", (), ("find",))
    if "from ." in text:
        # It cannot even be imported as a module of no package.
        package = tmp_path / "package"
        package.mkdir()
        for file in ("made.py", "other.py"):
            (tmp_path / file).rename(package / file)
        things.register(name, "package.made")
        problem = problem.replace("line 1", "line 5")
    else:
        things.register(name, "made")
    with pytest.raises(InputError, match=problem):
        things.module_named(name)
    with pytest.warns(PlugInWarning, match=problem):
        assert things.modules() == ()
    for module in ("made", "package.made", "package.other", "package"):
        sys.modules.pop(module, None)

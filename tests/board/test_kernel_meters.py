"""Meters on the kernel's own drivers: a smart battery and an INA219 in a virtual machine."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from joulemap.device_agents.host.agent_archive import agent_archive

from .conftest import which

pytestmark = [pytest.mark.board, pytest.mark.timeout(900)]


def test_what_the_drivers_say_is_read_as_watts(roots: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "agent.pyz").write_bytes(agent_archive()[1])
    shutil.copy(Path(__file__).with_name("sensors_job.py"), tmp_path / "main.py")
    made = roots["sensors"]
    done = subprocess.run(
        [
            *(which("nice"), "-n", "10", which("qemu-system-x86_64")),
            *("-M", "q35", "-accel", "tcg", "-cpu", "max", "-m", "512", "-nic", "none"),
            *("-display", "none", "-serial", "stdio", "-monitor", "none", "-no-reboot"),
            *("-kernel", str(made / "vmlinuz"), "-initrd", str(made / "initrd.gz")),
            *("-append", "console=ttyS0 quiet panic=1"),
            *(
                part
                for tag, path in (("root", made / "root"), ("job", tmp_path))
                for part in (
                    "-virtfs",
                    f"local,path={path},mount_tag={tag},security_model=none,multidevs=remap",
                )
            ),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    answer = tmp_path / "result.json"
    assert answer.is_file(), (done.stdout + done.stderr)[-2000:].decode(errors="replace")
    result = json.loads(answer.read_text())
    assert "problem" not in result, result["problem"]
    kinds = {(name, kind) for name, _, kind in result["listed"]}
    assert kinds >= {("battery", "sampler"), ("battery", "counter"), ("hwmon", "sampler")}
    battery, rail = result["readings_w"].values()
    # 3.85 V at 0.5 A and 1 A, of which it had to learn sign and unit; 125 steps of 20 mW.
    assert battery == pytest.approx([1.925, 3.85])
    assert rail == pytest.approx([2.5, 2.5])

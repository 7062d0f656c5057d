"""A keeper whose disk is full or read-only: nothing lost, and what to do is said."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from joulemap.datasets import Timing
from joulemap.device_agents.errors import StableDeviceError

from ..conftest import WIDTHS, Remote, collect


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """The device's cache folder as a file system of 400 kB."""
    path = tmp_path / "cache"
    path.mkdir()
    _mount("mount", "-t", "tmpfs", "-o", "size=400k", "none", str(path))
    yield path
    _mount("umount", "--lazy", str(path))


def _mount(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"tests of full disks need root: {done.stderr}"


def test_a_full_disk_on_the_device_loses_nothing_and_is_said(
    small_disk: Path, remote: Remote
) -> None:
    device = remote.device()
    device.prepare(remote.preparation)
    filler = small_disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(512))
    assert len(collect(device, remote, 7)) == 7
    assert any("cannot store answers (No space left on device)" in text for text in remote.said)
    # Without a host what cannot be stored waits in memory, and nothing is added to it.
    device.send_ahead([(f"later/{i}", WIDTHS[i]) for i in range(3)], remote.protocol, 3.0)
    remote.wait_for_a_word()
    remote.link.cut()
    time.sleep(0.5)
    filler.unlink()
    for index in range(3):
        Timing.from_dict(device.visit(WIDTHS[index], remote.protocol, f"later/{index}").timing())
    (keeper,) = remote.keepers()
    device.close()
    remote.wait_until(lambda: keeper not in remote.keepers(), "the keeper stays")


def test_a_full_disk_before_the_start_is_said(small_disk: Path, remote: Remote) -> None:
    (small_disk / "filler").write_bytes(bytes(200_000))
    with contextlib.suppress(OSError), (small_disk / "more").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    with pytest.raises(StableDeviceError, match="No space left on device"):
        remote.device().probe()


def test_a_read_only_home_is_said_and_what_to_do(small_disk: Path, remote: Remote) -> None:
    with remote.device() as device:
        device.probe()
    remote.wait_until(lambda: not remote.keepers(), "the keeper stays")
    # What the agent was still writing is closed soon after its keeper has gone.
    remount = ["mount", "-o", "remount,ro", str(small_disk)]
    remote.wait_until(
        lambda: subprocess.run(remount, capture_output=True, check=False).returncode == 0,
        "the disk stays busy",
    )
    # The agent is there already, so the link is there too; the campaign's folder cannot be made.
    with pytest.raises(StableDeviceError, match=r"Read-only file system; .*XDG_CACHE_HOME"):
        remote.device().probe()

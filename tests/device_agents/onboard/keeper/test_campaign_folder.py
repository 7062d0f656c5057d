"""A campaign's folder on the device, while keepers begin and end at the same moment."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from joulemap.device_agents.device import Device
from joulemap.device_agents.errors import StableDeviceError
from joulemap.device_agents.onboard.keeper import campaign_folder

TOKEN = "0123456789abcdef"  # noqa: S105
# Takes the lock, writes into the folder, and removes it, as often as it is told.
KEEPERS = """
import os, sys
from pathlib import Path
from typing import Any
from joulemap.device_agents.onboard.keeper import campaign_folder
agent, token, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
done = 0
while done < number:
    folder = campaign_folder.enter(agent, token)
    held = campaign_folder.lock(folder)
    if held is None:
        continue
    assert os.listdir(".") == ["lock"], os.listdir(".")
    for name in ("spool", "log"):
        os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    assert sorted(os.listdir(folder)) == ["lock", "log", "spool"]
    campaign_folder.remove(folder)
    os.close(held)
    done += 1
"""


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[str]:
    """The path of an agent's archive; the working directory is as before afterwards."""
    before = Path.cwd()
    (tmp_path / "cache" / "agents").mkdir(parents=True)
    yield str(tmp_path / "cache" / "agents" / "agent-0.pyz")
    os.chdir(before)


def test_keepers_that_begin_while_others_end_are_never_in_each_others_way(agent: str) -> None:
    command = [sys.executable, "-c", KEEPERS, agent, TOKEN, "300"]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(3)]
    said = [process.communicate()[1].decode() for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], said
    campaigns = campaign_folder.cache_folder(agent) / campaign_folder.CAMPAIGNS
    assert not campaigns.exists()


def test_a_file_made_while_the_folder_is_removed_goes_with_it(
    agent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = campaign_folder.enter(agent, TOKEN)
    held = campaign_folder.lock(folder)
    assert held is not None
    remove = shutil.rmtree
    late = ["lock"]

    def with_a_visitor(path: Path, **options: Any) -> None:
        remove(path, **options)
        if late:
            path.mkdir()
            (path / late.pop()).touch()

    monkeypatch.setattr(shutil, "rmtree", with_a_visitor)
    campaign_folder.remove(folder)
    os.close(held)
    assert not late
    assert not folder.parent.exists()


def test_a_keeper_whose_folder_was_replaced_leaves_the_new_one(agent: str) -> None:
    folder = campaign_folder.enter(agent, TOKEN)
    held = campaign_folder.lock(folder)
    assert held is not None
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "spool").write_text("another keeper's")
    campaign_folder.remove(folder)
    os.close(held)
    assert (folder / "spool").read_text() == "another keeper's"


def test_a_keeper_that_hangs_is_not_waited_for(agent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign_folder, "CONNECT_TIMEOUT_S", 0.05)
    campaign_folder.enter(agent, TOKEN)
    # It listens, and takes no connection.
    with campaign_folder.listen(), contextlib.ExitStack() as waiting:
        for _ in range(20):
            connection = campaign_folder.connect()
            if connection is None:
                return
            waiting.enter_context(connection)
    pytest.fail("connections are taken without end")


def test_what_cannot_be_removed_is_said_in_one_line(
    agent: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    # No file, so that it cannot be removed as one.
    (tmp_path / "cache" / "joulemap" / "agents" / "agent-1.pyz").mkdir(parents=True)
    with (
        Device("local:") as device,
        pytest.raises(StableDeviceError, match=r"could not be cleaned: \w+Error:[^\n]*agent-1"),
    ):
        device.clean()


def test_a_disk_without_locks_is_named(agent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    folder = campaign_folder.enter(agent, TOKEN)
    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(campaign_folder.FolderError, match=r"cannot be locked.*\?cache="):
        campaign_folder.lock(folder)


def test_clean_removes_what_never_arrived_whole(agent: str) -> None:
    Path(agent).write_text("")
    Path(f"{agent}.abc.part").write_text("")
    answer = campaign_folder.clean(agent)
    assert answer == {"removed": ["agent-0.pyz", "agent-0.pyz.abc.part"], "kept": []}
    assert not campaign_folder.cache_folder(agent).exists()

"""What happens when the link, the keeper, the agent or the host goes: nothing lost, nothing doubled."""

from __future__ import annotations

import random
import re
import signal
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from joulemap.datasets import Timing
from joulemap.device_agents.device import Device, Preparation
from joulemap.device_agents.errors import LinkLostError, StableDeviceError, TransientDeviceError
from joulemap.device_agents.host.keeper_client import KeeperClient
from joulemap.device_agents.testing import write_fixed_time_runtime

from ..conftest import LIMITS, QUICK, WIDTHS, Remote, collect, visits
from ..sshd import SshClientHome, running_sshd


def test_a_remote_device_answers_as_a_local_one_and_is_left_clean(remote: Remote) -> None:
    with remote.device() as device:
        assert device.probe().device_id
        device.prepare(remote.preparation)
        assert device.runtime_version == "fixed-time"
        assert len(collect(device, remote, 5)) == 5
        assert len(remote.keepers()) == len(remote.agents()) == 1
    remote.wait_until(lambda: not remote.keepers(), "the keeper outlives the campaign")
    assert not remote.agents()
    assert not remote.folders()
    with remote.device() as device:
        assert device.clean()["kept"] == []
    assert not remote.cache.exists()


def test_work_goes_on_without_a_link(remote: Remote) -> None:
    device = remote.device()
    device.prepare(remote.preparation)
    device.send_ahead(visits(6), remote.protocol, 3.0)
    spool = remote.folders()[0] / "spool"
    remote.wait_until(lambda: _num_spooled(spool) >= 1, "nothing is measured")
    remote.link.cut()
    remote.wait_until(lambda: _num_spooled(spool) == 3, "the keeper waits for its host")
    answers = collect(device, remote, 3)
    assert _num_spooled(spool) == 3, "a visit was measured twice"
    assert len({answer.pid for answer in answers}) == 1
    assert any("the link to the device broke" in text for text in remote.said)
    device.close()


def _num_spooled(path: Path) -> int:
    return path.read_bytes().count(b'{"key":')


@pytest.mark.parametrize("seed", range(3))
def test_a_link_that_is_cut_at_any_byte_costs_nothing(remote: Remote, seed: int) -> None:
    rng = random.Random(seed)
    # Answers come three at a time, so that enough bytes pass between two of them.
    device = remote.device(replace(LIMITS, deliver_s=60.0))
    device.prepare(remote.preparation)
    keys: list[str] = []
    for key, widths in visits(12):
        remote.link.bytes_to_cut = rng.randrange(6000)
        device.send_ahead([(key, widths), *visits(12)[len(keys) + 1 :][:2]], remote.protocol, 3.0)
        Timing.from_dict(device.visit(widths, remote.protocol, key).timing())
        keys.append(key)
    assert len(remote.link.processes) > 3
    # Nothing was acknowledged: each key has one answer on the device, and one only.
    device.close(keep=True)
    spool = (remote.folders()[0] / "spool").read_bytes()
    assert all(spool.count(f'"key":"{key}"'.encode()) == 1 for key in keys)
    assert _num_spooled(remote.folders()[0] / "spool") == len(keys)


def test_a_link_that_falls_silent_is_replaced(remote: Remote) -> None:
    device = remote.device()
    device.prepare(remote.preparation)
    collect(device, remote, 2)
    remote.limit(device, replace(LIMITS, silence_s=1.0))
    remote.link.stalls = True
    assert len(collect(device, remote, 5, first=2)) == 3
    assert any("no answer within 1 s" in text for text in remote.said)
    device.close()


def test_a_killed_agent_is_replaced_and_its_visit_made_again(remote: Remote) -> None:
    device = remote.device()
    device.prepare(remote.preparation)
    (before,) = remote.agents()
    # The first visit has begun and cannot end.
    remote.kill([before], signal.SIGSTOP)
    device.send_ahead(visits(3), remote.protocol, 3.0)
    remote.wait_for_a_word()
    remote.kill([before])
    answers = collect(device, remote, 3)
    assert len(answers) == 3
    assert answers[-1].pid == remote.agents()[0] != before
    device.close()


def test_a_visit_that_kills_its_agent_twice_is_an_error_and_the_next_is_made(
    remote: Remote, tmp_path: Path
) -> None:
    runtime = tmp_path / "runtime" / "onnxruntime.py"
    text = runtime.read_text()
    deadly = f"""if len(model) < {_length((1, 4, 30, 21), remote)}:
            os.kill(os.getpid(), 11)
        """
    runtime.write_text(text.replace("self.first = self.last", deadly + "self.first = self.last", 1))
    assert "os.kill" in runtime.read_text()
    device = remote.device()
    device.prepare(replace(remote.preparation, reference_widths=(6, 16, 120, 84)))
    with pytest.raises(TransientDeviceError, match=r"killed by signal 11.*twice"):
        device.visit((1, 1, 1, 1), remote.protocol, "a")
    Timing.from_dict(device.visit((6, 16, 120, 84), remote.protocol, "b").timing())
    # The same question has the same answer; nobody is killed for it.
    (agent,) = remote.agents()
    with pytest.raises(TransientDeviceError, match="twice"):
        device.visit((1, 1, 1, 1), remote.protocol, "a")
    assert remote.agents() == [agent]
    device.close()


def _length(widths: tuple[int, ...], remote: Remote) -> int:
    from joulemap.device_agents.onboard.model.materialise import Materialiser

    return len(Materialiser(remote.preparation.template.decode()).materialise(list(widths)))


def test_a_fresh_agent_takes_over_after_some_visits(remote: Remote) -> None:
    device = remote.device(agent_visits=3)
    device.prepare(remote.preparation)
    pids = [answer.pid for answer in collect(device, remote, 7)]
    assert len(set(pids)) == 3
    assert pids[0] == pids[2] != pids[3] == pids[5] != pids[6]
    device.close()


def test_a_killed_keeper_is_replaced_and_its_spool_read(remote: Remote) -> None:
    device = remote.device()
    device.prepare(remote.preparation)
    device.send_ahead(visits(3), remote.protocol, 3.0)
    spool = remote.folders()[0] / "spool"
    remote.wait_until(lambda: _num_spooled(spool) >= 1, "nothing is measured")
    orphans = remote.agents()
    remote.kill(remote.keepers())
    assert len(collect(device, remote, 6)) == 6
    assert not set(orphans) & set(remote.agents()), "the agent outlives its keeper"
    device.close()


def test_a_keeper_that_is_told_to_end_puts_everything_back_first(remote: Remote) -> None:
    device = remote.device()
    device.prepare(remote.preparation)
    collect(device, remote, 1)
    remote.kill(remote.keepers(), signal.SIGTERM)
    remote.wait_until(lambda: not remote.keepers(), "the keeper does not end")
    assert not remote.agents()
    assert len(collect(device, remote, 3)) == 3
    device.close()


def test_a_device_that_reboots_continues_where_it_was(remote: Remote) -> None:
    device = remote.device()
    device.prepare(remote.preparation)
    device.send_ahead(visits(3), remote.protocol, 3.0)
    spool = remote.folders()[0] / "spool"
    remote.wait_until(lambda: _num_spooled(spool) >= 2, "nothing is measured")
    remote.reboot()
    with spool.open("ab") as file:
        file.write(b"\0\0\1\0torn")
    finished = set(re.findall(rb'"pid":(\d+)', spool.read_bytes()))
    answers = collect(device, remote, 3)
    assert b"torn" not in spool.read_bytes()
    assert {b"%d" % answer.pid for answer in answers[:2]} == finished
    device.close()


def test_a_host_that_comes_back_gets_what_was_measured_for_it(remote: Remote) -> None:
    first = remote.device()
    first.prepare(remote.preparation)
    first.send_ahead(visits(3), remote.protocol, 3.0)
    spool = remote.folders()[0] / "spool"
    remote.wait_until(lambda: _num_spooled(spool) == 3, "the keeper waits for its host")
    pids = (remote.keepers(), remote.agents())
    remote.link.cut()
    second = remote.device()
    second.token = first.token
    second.prepare(remote.preparation)
    assert len(collect(second, remote, 3)) == 3
    assert (remote.keepers(), remote.agents()) == pids
    second.close()


def test_a_host_that_comes_back_waits_for_the_visit_that_runs(
    remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("joulemap.device_agents.device.VISIT_GRACE_S", 10.0)
    monkeypatch.setattr("joulemap.device_agents.device.PROBE_TIMEOUT_S", 0.1)
    # Who does not wait for the visit finds no answer twice before it ends, and gives up.
    limits = replace(LIMITS, give_up_s=1.5, silence_s=4.0, beat_s=0.2)
    first = remote.device()
    first.prepare(remote.preparation)
    # A visit that takes as long as it may: only the keeper's limit ends it.
    (agent,) = remote.agents()
    remote.kill([agent], signal.SIGSTOP)
    first.send_ahead(visits(1), remote.protocol, 3.0)
    remote.wait_for_a_word()
    spool = remote.folders()[0] / "spool"
    second = remote.device(limits)
    second.token = first.token
    assert second.probe().device_id
    assert agent not in remote.agents()
    second.prepare(remote.preparation)
    assert len(collect(second, remote, 1)) == 1
    assert _num_spooled(spool) == 1
    second.close()


def test_a_link_that_breaks_at_the_very_end_leaves_nothing_there(remote: Remote) -> None:
    with remote.device() as device:
        device.prepare(remote.preparation)
        collect(device, remote, 1)
        remote.link.cut()
    assert not remote.folders()
    with remote.device() as device:
        device.prepare(remote.preparation)
        remote.link.bytes_to_cut = 40
    assert not remote.folders()


def test_layers_are_timed_by_the_agent_behind_the_keeper(
    remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH")
    with remote.device() as device:
        device.prepare(remote.preparation)
        assert len(device.layer_times(WIDTHS[0], 3).runs_s) == 3
        with pytest.raises(StableDeviceError, match="width"):
            device.layer_times((0, 1, 1, 1), 3)


def test_another_campaign_has_a_keeper_of_its_own(remote: Remote) -> None:
    with remote.device() as first, remote.device() as second:
        for device in (first, second):
            device.probe()
        assert len(remote.keepers()) == len(remote.folders()) == 2
        first.prepare(remote.preparation)
        one = first.visit(WIDTHS[0], remote.protocol, "same")
        first.close(keep=True)
        second.prepare(remote.preparation)
        two = second.visit(WIDTHS[0], remote.protocol, "same")
        assert one.pid != two.pid


def test_another_preparation_is_not_answered_from_the_old_one(remote: Remote) -> None:
    with remote.device() as device:
        device.prepare(remote.preparation)
        one = device.visit(WIDTHS[0], remote.protocol, "one")
        device.prepare(replace(remote.preparation, reference_widths=(1, 4, 30, 21)))
        assert device.visit(WIDTHS[0], remote.protocol, "two").pid != one.pid


def test_a_keeper_that_nobody_needs_ends_and_keeps_its_answers(remote: Remote) -> None:
    device = remote.device()
    device.prepare(remote.preparation)
    device.send_ahead(visits(2), remote.protocol, 3.0)
    spool = remote.folders()[0] / "spool"
    remote.wait_until(lambda: _num_spooled(spool) >= 1, "nothing is measured")
    remote.link.cut()
    # A limit that would not have outlasted every pause until here.
    remote.limit(device, replace(LIMITS, idle_limit_s=1.0))
    assert device.probe().device_id
    remote.link.cut()
    remote.wait_until(lambda: not remote.keepers(), "the keeper waits for ever")
    assert not remote.agents()
    assert _num_spooled(spool) == 2
    collect(device, remote, 2)
    assert _num_spooled(spool) == 2
    device.close()


def test_a_device_that_stays_away_is_given_up_and_nothing_is_lost(remote: Remote) -> None:
    device = remote.device()
    device.prepare(remote.preparation)
    device.send_ahead(visits(2), remote.protocol, 3.0)
    remote.limit(device, replace(LIMITS, give_up_s=0.5))
    remote.link.is_down = True
    remote.link.cut()
    with pytest.raises(LinkLostError, match=r"power and network.*the same command continues"):
        collect(device, remote, 2)
    remote.link.is_down = False
    remote.limit(device, LIMITS)
    assert len(collect(device, remote, 2)) == 2
    device.close()


def test_a_device_that_hangs_is_reported_with_what_to_do(remote: Remote) -> None:
    device = remote.device()
    device.prepare(remote.preparation)
    remote.limit(device, replace(LIMITS, give_up_s=0.5, silence_s=0.7, connect_s=0.5))
    remote.kill(remote.keepers(), signal.SIGSTOP)
    with pytest.raises(LinkLostError, match=r"the device answers.*restart the device"):
        collect(device, remote, 1)
    remote.kill(remote.keepers(), signal.SIGCONT)
    device.close()


def test_an_agent_that_hangs_is_replaced(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    # Enough for the visit that is made again, on a machine that pauses.
    monkeypatch.setattr("joulemap.device_agents.device.VISIT_GRACE_S", 6.0)
    device = remote.device()
    device.prepare(remote.preparation)
    (agent,) = remote.agents()
    remote.kill([agent], signal.SIGSTOP)
    assert collect(device, remote, 1)[0].pid != agent
    device.close()


def test_a_word_that_is_no_token_is_refused_on_the_device(remote: Remote) -> None:
    for token in ("../../etc", "", "0123", "0" * 15 + "/", "g" * 32):
        device = remote.device()
        device.token = token
        with pytest.raises(StableDeviceError, match="token"):
            device.probe()
    assert not remote.folders()


def test_a_folder_that_cannot_be_written_is_said(remote: Remote) -> None:
    remote.cache.mkdir(parents=True)
    (remote.cache / "campaigns").write_text("")
    with pytest.raises(StableDeviceError, match=r"cannot store measurements in .*XDG_CACHE_HOME"):
        remote.device().probe()


def test_a_clock_that_jumps_changes_nothing(remote: Remote, tmp_path: Path) -> None:
    (tmp_path / "runtime" / "sitecustomize.py").write_text(
        "import random, time\n"
        "now = time.time\n"
        "time.time = lambda: now() + random.choice([-1, 1]) * 86400 * random.random()\n"
    )
    # A day forth or back would break these limits too; a pause of the machine does not.
    device = remote.device(replace(LIMITS, silence_s=60.0, connect_s=60.0))
    device.prepare(remote.preparation)
    answers = collect(device, remote, 8)
    assert max(abs(answer.machine["clock_jump_s"]) for answer in answers) > 60
    assert max(answer.measuring_s for answer in answers) < 30
    assert not remote.said
    device.close()


# -- over a real server ----------------------------------------------------------------------------


def test_a_server_that_dies_and_comes_back_costs_nothing(
    tmp_path: Path, lenet: Preparation, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = write_fixed_time_runtime(tmp_path / "runtime", 0.0005)
    monkeypatch.setenv("HOME", str(tmp_path / "client"))
    environment = {"PYTHONPATH": str(runtime)}
    with running_sshd(tmp_path / "server", environment=environment) as server:
        SshClientHome(tmp_path / "client", server)
        said: list[str] = []
        with Device(f"ssh:{server.address}", limits=LIMITS) as device:
            device.on_message = said.append
            device.prepare(lenet)
            protocol = QUICK.to_dict()
            device.send_ahead(visits(3), protocol, 3.0)
            campaigns = server.home / ".cache/joulemap/campaigns"
            (folder,) = campaigns.glob("*")
            keeper = int((folder / "lock").read_text())
            remote_spool = folder / "spool"
            deadline = time.monotonic() + 30
            while _num_spooled(remote_spool) == 0:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            server.stop()
            while _num_spooled(remote_spool) < 3:
                assert time.monotonic() < deadline, "the keeper ended with its link"
                time.sleep(0.01)
            server.start()
            answers = [device.visit(widths, protocol, key) for key, widths in visits(5)]
            assert len({answer.pid for answer in answers}) == 1
            assert int((folder / "lock").read_text()) == keeper
            assert any("the link to the device broke" in text for text in said)
            assert isinstance(device._session, KeeperClient)
            device._session._limits = replace(LIMITS, silence_s=1.0)
            server.freeze()
            thaw = threading.Timer(2.5, server.thaw)
            thaw.start()
            Timing.from_dict(device.visit(WIDTHS[0], protocol, "after").timing())
            thaw.join()
        assert not list(campaigns.glob("*"))
        with Device(f"ssh:{server.address}", limits=LIMITS) as device:
            assert device.clean()["kept"] == []
        assert not (server.home / ".cache/joulemap").exists()


def test_a_keeper_that_is_killed_while_it_starts_is_started_again(
    remote: Remote, tmp_path: Path
) -> None:
    """The first three starts of the device's Python as a keeper end at once."""
    count = tmp_path / "count"
    (tmp_path / "runtime" / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "if 'keep' in getattr(sys, 'orig_argv', []):\n"
        f"    with open({str(count)!r}, 'a+') as file:\n"
        "        file.write('.')\n"
        "        if file.tell() <= 3: os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    with remote.device(replace(LIMITS, silence_s=60.0, connect_s=60.0)) as device:
        assert device.probe().device_id
    assert len(count.read_text()) == 4


def test_a_device_that_was_never_reached_is_told_as_its_link_tells_it() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        # Bound and not listening: nobody else takes the port, and it refuses connections.
        port = unused.getsockname()[1]
        device = Device(f"ssh://nobody@127.0.0.1:{port}", limits=replace(LIMITS, give_up_s=0.1))
        with pytest.raises(LinkLostError, match="is an SSH server running there") as caught:
            device.probe()
    assert "measured" not in str(caught.value)

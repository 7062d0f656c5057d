"""Whole campaigns on a remote device: the same as on this machine, and never the same work twice."""

from __future__ import annotations

import json
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from joulemap import InputError
from joulemap.datasets import CostDataset, Visit
from joulemap.datasets.journal import read_journal
from joulemap.datasets.store import DEVICE_LINK, held_folder
from joulemap.device_agents.device import Device
from joulemap.device_agents.onboard.ready_answer import ReadyAnswer
from joulemap.profiler import profile
from joulemap.profiler.campaign.observer import Silent
from joulemap.profiler.campaign.steps.link_token import link_token
from joulemap.profiler.command_line.cli import main

from ...calm_judgement import CALM, calm_file
from ..conftest import LIMITS, QUICK, Remote

PROTOCOL = replace(QUICK, has_revisits=True, max_attempts=9)


def visits_of(folder: Path) -> tuple[Visit, ...]:
    return read_journal(folder / "journal.jsonl").visits


def order_of(folder: Path) -> list[tuple[object, ...]]:
    return [(v.widths, v.visit_index, v.attempt, v.sequence) for v in visits_of(folder)]


def test_a_remote_campaign_is_the_same_as_a_local_one(remote: Remote, tmp_path: Path) -> None:
    local = profile(
        Device("local:"), "lenet5", samples=6, out=tmp_path / "a", protocol=PROTOCOL, judgement=CALM
    )
    far = profile(
        remote.device(), "lenet5", samples=6, out=tmp_path / "b", protocol=PROTOCOL, judgement=CALM
    )
    assert order_of(tmp_path / "a") == order_of(tmp_path / "b")
    assert len(order_of(tmp_path / "b")) == 12
    one, two = (read_journal(tmp_path / name / "journal.jsonl").campaign for name in "ab")
    assert one.differences(two) == []
    assert set(one.device) == set(two.device)
    assert list(local.to_pandas().columns) == list(far.to_pandas().columns)
    assert not remote.folders()


def test_a_time_cap_makes_no_more_visits_than_it_allows(remote: Remote, tmp_path: Path) -> None:
    capped = replace(PROTOCOL, time_cap_s=1.0)
    profile(
        remote.device(), "lenet5", samples=40, out=tmp_path / "run", protocol=capped, judgement=CALM
    )
    spent = [
        timing.measuring_s
        + timing.load_s
        + timing.reference_before.wall_s
        + timing.reference_after.wall_s
        for timing in (visit.timing for visit in visits_of(tmp_path / "run"))
        if timing is not None
    ]
    assert sum(spent[:-1]) < 1.0 <= sum(spent)


def test_threads_are_those_that_the_devices_processors_take(
    remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # This side's do not count.
    monkeypatch.setattr(os, "cpu_count", lambda: 1000)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(1000)))
    with pytest.raises(InputError, match=r"processors? and threads is 99"):
        profile(remote.device(), "lenet5", samples=1, out=tmp_path / "run", threads=99)
    assert not (tmp_path / "run" / "journal.jsonl").exists()


class Interrupted(Silent):
    def __init__(self, after: int) -> None:
        self.after = after

    def visited(self, visit: Visit, done: int, noise: float | None) -> None:
        if done >= self.after:
            raise KeyboardInterrupt


def test_ctrl_c_while_a_remote_device_works_leaves_its_answers_there(
    remote: Remote, tmp_path: Path
) -> None:
    out = tmp_path / "run"

    class Pressing(Silent):
        def started(self, total: int, done: int, visit_s: float) -> None:
            # Before any answer: they come in one go, after all visits.
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()

    limits = replace(LIMITS, deliver_s=60.0)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            profile(
                remote.device(limits),
                "lenet5",
                samples=12,
                out=out,
                protocol=PROTOCOL,
                judgement=CALM,
                observer=Pressing(),
            )
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    profile(remote.device(), "lenet5", samples=12, out=out, protocol=PROTOCOL, judgement=CALM)
    keys = [visit.key for visit in visits_of(out)]
    assert len(keys) == len(set(keys)) == 24
    assert not [visit.error for visit in visits_of(out) if visit.error]


def test_an_interrupted_campaign_finds_its_answers_on_the_device(
    remote: Remote, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    # All answers come at once, so that most of them wait when it is interrupted.
    limits = replace(LIMITS, deliver_s=60.0)
    with pytest.raises(KeyboardInterrupt):
        profile(
            remote.device(limits),
            "lenet5",
            samples=6,
            out=out,
            protocol=PROTOCOL,
            judgement=CALM,
            observer=Interrupted(3),
        )
    remote.wait_until(lambda: not remote.keepers(), "the keeper stays after Ctrl-C")
    assert not remote.agents()
    (folder,) = remote.folders()
    entries = (folder / "spool").read_bytes().split(b'{"key":"')[1:]
    waiting = {entry.split(b'"')[0].decode() for entry in entries}
    assert len(visits_of(out)) == 3
    first = remote.link.received
    profile(remote.device(), "lenet5", samples=6, out=out, protocol=PROTOCOL, judgement=CALM)
    assert remote.link.received > first
    visits = visits_of(out)
    assert len(visits) == 12
    assert len({visit.key for visit in visits}) == 12
    # What was waiting there came from the first run's agent.
    first_pid = visits[0].timing.pid if visits[0].timing else 0
    found = {
        "/".join(map(str, visit.key))
        for visit in visits
        if visit.timing and visit.timing.pid == first_pid
    }
    assert waiting <= found
    assert len(waiting - {"/".join(map(str, visit.key)) for visit in visits[:3]}) >= 1
    assert not remote.folders()


def test_a_campaign_keeps_its_token_and_never_takes_anothers(tmp_path: Path) -> None:
    first = link_token(tmp_path)
    assert link_token(tmp_path) != first, "nothing was begun under the first"
    token = link_token(tmp_path)
    (tmp_path / "journal.jsonl").write_text("a campaign\n")
    assert link_token(tmp_path) == token
    (tmp_path / DEVICE_LINK).write_text("../../../etc\n")
    assert link_token(tmp_path) not in (token, "../../../etc")
    (tmp_path / "journal.jsonl").unlink()
    assert link_token(tmp_path) != token


def test_a_journal_that_cannot_be_opened_costs_a_campaign_nothing(tmp_path: Path) -> None:
    out = tmp_path / "run"
    profile("sim:eyeriss", "lenet5", samples=2, out=out, protocol=PROTOCOL, judgement=CALM)
    (out / "journal.jsonl").rename(tmp_path / "elsewhere")
    (out / "journal.jsonl").symlink_to("journal.jsonl")
    before = {path.name: (path.lstat().st_ino, path.lstat().st_mtime_ns) for path in out.iterdir()}
    with pytest.raises(InputError, match="symbolic links"):
        profile("sim:eyeriss", "lenet5", samples=2, out=out, protocol=PROTOCOL, judgement=CALM)
    assert before == {
        path.name: (path.lstat().st_ino, path.lstat().st_mtime_ns) for path in out.iterdir()
    }


def test_a_second_campaign_in_a_folder_does_not_disturb_the_firsts_device(
    remote: Remote, tmp_path: Path
) -> None:
    def start() -> CostDataset:
        return profile(
            remote.device(),
            "lenet5",
            samples=2,
            out=tmp_path / "run",
            protocol=PROTOCOL,
            judgement=CALM,
        )

    with held_folder(tmp_path / "run") as folder:
        with pytest.raises(InputError, match="another joulemap campaign is writing"):
            start()
        assert not list(folder.iterdir())
    assert not remote.cache.exists()
    assert len(start()) == 2


def test_clean_leaves_nothing_of_joulemap_on_the_device(
    remote: Remote,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Device, "wait_until_ready", lambda self, gate: ReadyAnswer(is_ready=True))
    with remote.device() as running:
        running.probe()
        assert len(remote.device().clean()["kept"]) == 1
        assert list((remote.cache / "agents").glob("agent-*"))
    arguments = ["profile", "local:", "--network", "lenet5", "--samples", "2", "--visits", "1"]
    arguments += ["--visit-s", "0.02", "--out", str(tmp_path / "run"), "--clean", "--json"]
    arguments += ["--config", str(calm_file(tmp_path))]
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["variants"] == 2
    assert len(CostDataset.load(tmp_path / "run")) == 2
    assert not list(remote.cache.glob("agents/*"))
    assert not remote.folders()

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from joulemap import InputError, interruption
from joulemap.datasets import Visit
from joulemap.datasets import journal as journal_module
from joulemap.datasets.journal import CampaignRecord, Journal, read_journal

MakeVisits = Callable[..., list[Visit]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


@pytest.fixture
def written(
    path: Path, campaign: CampaignRecord, make_visits: MakeVisits
) -> tuple[Path, list[Visit]]:
    visits = make_visits(campaign.spec, variants=4)
    with Journal.create(path, campaign) as journal:
        for visit in visits:
            journal.append(visit)
    return path, visits


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(cut=st.integers(0, 10**6))
def test_a_file_cut_anywhere_loses_at_most_the_last_line(
    written: tuple[Path, list[Visit]], tmp_path: Path, cut: int
) -> None:
    source, visits = written
    data = source.read_bytes()
    cut %= len(data) + 1
    path = tmp_path / "cut.jsonl"
    path.write_bytes(data[:cut])
    complete = data[:cut].count(b"\n")
    if complete == 0:
        with pytest.raises(InputError, match="no complete line"):
            Journal(path)
        return
    with Journal(path) as journal:
        assert list(journal.content.visits) == visits[: complete - 1]
        if complete <= len(visits):
            journal.append(visits[complete - 1])
    assert list(read_journal(path).visits) == visits[: min(complete, len(visits))]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(position=st.integers(0, 10**6), flip=st.integers(1, 255))
def test_a_damaged_byte_is_noticed_and_nothing_is_changed(
    written: tuple[Path, list[Visit]], tmp_path: Path, position: int, flip: int
) -> None:
    source, visits = written
    data = bytearray(source.read_bytes())
    position %= len(data)
    data[position] ^= flip
    path = tmp_path / "damaged.jsonl"
    path.write_bytes(data)
    try:
        content = read_journal(path)
    except InputError as error:
        assert "cannot be used" in str(error)  # noqa: PT017
        with pytest.raises(InputError):
            Journal(path)
        assert path.read_bytes() == data
    else:
        # Only the newline at the very end can go unnoticed as damage: it makes a torn line.
        assert position == len(data) - 1
        assert content.torn_bytes > 0
        assert list(content.visits) == visits[:-1]


def test_a_second_writer_is_refused(path: Path, campaign: CampaignRecord) -> None:
    with Journal.create(path, campaign):
        code = (
            "import sys\n"
            "from joulemap.datasets.journal import Journal\n"
            "try: Journal(sys.argv[1])\n"
            "except Exception as error: print(error)\n"
        )
        command = [sys.executable, "-P", "-c", code, str(path)]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "another joulemap campaign is writing" in said


def test_what_a_killed_writer_was_just_starting_keeps_nobody_off(
    path: Path, campaign: CampaignRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between fork and exec a child holds the lock as well: for a moment longer than its parent."""
    Journal.create(path, campaign).close()
    child = os.open(path, os.O_RDONLY)
    fcntl.flock(child, fcntl.LOCK_EX)
    monkeypatch.setattr(journal_module, "LOCK_WAIT_S", 60.0)
    monkeypatch.setattr(interruption, "sleep", lambda _: os.close(child))
    with Journal(path) as mine:
        assert mine.content.campaign == campaign


def test_another_schema_version_is_refused(path: Path, campaign: CampaignRecord) -> None:
    with pytest.raises(InputError, match="version 99; this joulemap reads versions 1, 2, 3"):
        Journal.create(path, dataclasses.replace(campaign, schema_version=99))


def test_every_difference_between_campaigns_is_named(campaign: CampaignRecord) -> None:
    assert campaign.differences(campaign) == []
    other = dataclasses.replace(
        campaign,
        seed=7,
        device={"device_id": "xyz", "cpu_model": "Other CPU"},
        conditions=dataclasses.replace(campaign.conditions, threads=2),
        protocol={"visits": 5},
    )
    text = "; ".join(campaign.differences(other))
    assert "seed: 0 there, 7 here" in text
    assert "Other CPU (xyz) here" in text
    assert "threads: 1 there, 2 here" in text
    assert "protocol visits: 3 there, 5 here" in text


FULL_DISK = """
import sys
from joulemap import InputError
from joulemap.datasets.journal import Journal, read_journal
source = read_journal(sys.argv[2])
with Journal.create(sys.argv[1], source.campaign) as journal:
    written = 0
    try:
        for visit in source.visits:
            journal.append(visit)
            written += 1
    except InputError as error:
        print("refused:", error)
content = read_journal(sys.argv[1])
assert content.torn_bytes == 0 and len(content.visits) == written > 0
print("kept", written)
"""


def test_a_full_disk_is_said_and_keeps_what_was_written(
    tmp_path: Path, campaign: CampaignRecord, make_visits: MakeVisits
) -> None:
    """On a real file system of 64 KiB, mounted in a name space of its own."""
    source = tmp_path / "source.jsonl"
    with Journal.create(source, campaign) as journal:
        for visit in make_visits(campaign.spec, variants=100):
            journal.append(visit)
    disk = tmp_path / "disk"
    disk.mkdir()
    script = 'mount -t tmpfs -o size=64k none "$1" && exec "$2" -P -c "$3" "$1/journal.jsonl" "$4"'
    command = ["unshare", "-rm", "sh", "-c", script, "sh", str(disk), sys.executable, FULL_DISK]
    done = subprocess.run([*command, str(source)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "No space left on device" in done.stdout
    assert "same command continues" in done.stdout


KILLED = """
import random, sys
sys.path.append(sys.argv[2])
from tests import conftest
from joulemap.datasets.journal import Journal
from joulemap.datasets import Visit
path, _, first = sys.argv[1:4]
with Journal(path) as journal:
    rng = random.Random(0)
    spec = journal.content.campaign.spec
    for number in range(len(journal.content.visits), 10**6):
        visit = Visit(spec.fingerprint, (1, 1), conftest.CONDITIONS, number, 0, number, "now",
                      timing=conftest.make_timing(1e-3, rng))
        journal.append(visit)
        print(number, flush=True)
"""


def test_kill_at_any_moment_keeps_every_acknowledged_visit(
    path: Path, campaign: CampaignRecord
) -> None:
    Journal.create(path, campaign).close()
    rng = random.Random(5)
    acknowledged = -1
    for _ in range(10):
        command = [
            sys.executable,
            "-P",
            "-c",
            KILLED,
            str(path),
            str(Path(__file__).parents[2]),
            "",
        ]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for _ in range(rng.randint(1, 30)):
            acknowledged = int(process.stdout.readline())
        process.kill()
        rest = process.stdout.read().split()
        process.wait()
        process.stdout.close()
        acknowledged = int(rest[-1]) if rest else acknowledged
        indices = [visit.visit_index for visit in read_journal(path).visits]
        assert indices == list(range(len(indices)))
        assert acknowledged + 1 <= len(indices) <= acknowledged + 2


def test_a_journal_is_readable_json_lines(written: tuple[Path, list[Visit]]) -> None:
    path, visits = written
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[0]["spec"]["name"] == "tiny"
    assert lines[1]["widths"] == list(visits[0].widths)

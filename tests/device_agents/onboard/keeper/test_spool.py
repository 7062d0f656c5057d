"""Answers on the device's disk: whatever happens to the file, what checks is there and nothing else."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulemap.device_agents.onboard.keeper import spool as module
from joulemap.device_agents.onboard.keeper.spool import Spool


def filled(path: Path, number: int) -> Spool:
    spool = Spool(path)
    for index in range(number):
        spool.append(f"key/{index}", {"result": {"index": index, "times_s": [0.5] * index}})
    return spool


def test_answers_are_there_again_after_the_keeper_died(tmp_path: Path) -> None:
    filled(tmp_path / "spool", 5).close()
    spool = Spool(tmp_path / "spool")
    assert len(spool) == 5
    assert spool.get("key/3") == {"result": {"index": 3, "times_s": [0.5] * 3}}
    assert "key/5" not in spool
    assert spool.get("key/5") is None
    spool.close()


@given(cut=st.integers(0, 400), damaged=st.booleans(), tail=st.binary(max_size=30))
def test_a_torn_or_damaged_end_is_cut_off_and_what_was_before_stays(
    cut: int, damaged: bool, tail: bytes
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "spool")
        filled(path, 6).close()
        whole = path.read_bytes()
        cut = min(cut, len(whole))
        left = bytearray(whole[:cut])
        if damaged and left:
            left[-1] ^= 0xFF
        path.write_bytes(bytes(left) + tail)
        spool = Spool(path)
        # Every answer that is there is one that was written, and they are the first ones.
        assert [spool.get(f"key/{index}") for index in range(len(spool))] == [
            {"result": {"index": index, "times_s": [0.5] * index}} for index in range(len(spool))
        ]
        if cut == len(whole) and not damaged:
            assert len(spool) == 6
        spool.append("new", {"result": {}})
        spool.close()
        spool = Spool(path)
        assert spool.get("new") == {"result": {}}
        spool.close()


def test_what_is_acknowledged_is_forgotten_and_takes_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MIN_COMPACTED", 500)
    path = tmp_path / "spool"
    spool = Spool(path)
    rng = random.Random(0)
    alive: dict[str, int] = {}
    for index in range(300):
        spool.append(f"key/{index}", {"result": {"index": index}})
        alive[f"key/{index}"] = index
        if rng.random() < 0.9:
            gone = rng.choice(sorted(alive))
            spool.acknowledge([gone, "never there"])
            del alive[gone]
    for name, index in alive.items():
        assert spool.get(name) == {"result": {"index": index}}
    spool.close()
    assert path.stat().st_size < 60 * (2 * len(alive) + 20)
    spool = Spool(path)
    # Those that were acknowledged since the file was written anew may be there again.
    assert set(alive) <= {f"key/{index}" for index in range(300) if f"key/{index}" in spool}
    spool.acknowledge([f"key/{index}" for index in range(300)])
    assert path.stat().st_size == 0
    spool.close()


def test_an_answer_that_cannot_be_written_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    import resource
    import signal

    path = tmp_path / "spool"
    spool = filled(path, 3)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 20, limits[1]))
        with pytest.raises(OSError, match="File too large"):
            spool.append("large", {"result": {"times_s": [0.1] * 100}})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == before
    assert "large" not in spool
    spool.append("large", {"result": {}})
    assert spool.get("large") == {"result": {}}
    spool.close()

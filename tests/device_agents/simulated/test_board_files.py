"""The board's files in a real file system: live, equal to the model, faulty on demand."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from joulemap.device_agents.errors import StableDeviceError
from joulemap.device_agents.simulated import board_server
from joulemap.device_agents.simulated.board_activity import CHILDREN_S, ProcessActivity
from joulemap.device_agents.simulated.board_options import BoardOptions
from joulemap.device_agents.simulated.board_server import BoardServer, remove_stale_mounts

from ..processes import wait_for_states

ENERGY = "class/powercap/intel-rapl:0/energy_uj"
# What the counter shows is as old as one update and a step, in which the board uses so much at most.
STALE_J = 0.001 * (2.5 + 5.0 * (os.cpu_count() or 1)) + 2.0**-14
# Works for so many CPU seconds, then waits until its input ends.
WORK = """
import sys, time
while time.process_time() < float(sys.argv[1]):
    pass
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def served() -> Iterator[BoardServer]:
    options = BoardOptions(meter="rapl,ina219,battery", range_j=50.0, noise=0.0)
    with BoardServer(options) as server:
        server.watch(os.getpid())
        yield server


@pytest.fixture
def board(served: BoardServer) -> Iterator[BoardServer]:
    yield served
    served.clear_faults()
    served.plug_charger(is_plugged=False)


class Reader:
    """A file that stays open, read from its start again and again."""

    def __init__(self, board: BoardServer, path: str) -> None:
        self.fd = os.open(board.folder / path, os.O_RDONLY)

    def __call__(self) -> int:
        return int(os.pread(self.fd, 64, 0))


@contextlib.contextmanager
def reading(board: BoardServer, path: str = ENERGY) -> Iterator[Reader]:
    reader = Reader(board, path)
    try:
        yield reader
    finally:
        os.close(reader.fd)


def work(cpu_s: float) -> None:
    end = time.process_time() + cpu_s
    while time.process_time() < end:
        pass


def test_a_counter_that_stays_open_shows_the_true_energy(board: BoardServer) -> None:
    with reading(board) as energy:
        moments = [(time.perf_counter(), energy(), time.perf_counter())]
        for _ in range(5):
            work(0.1)
            time.sleep(0.02)
            moments.append((time.perf_counter(), energy(), time.perf_counter()))
    start_s, end_s = moments[0][0], moments[-1][2]
    truth, least = board.truth(start_s, end_s), board.truth(moments[0][2], moments[-1][0])
    assert truth.energy_j == pytest.approx(truth.idle_j + truth.net_j)
    assert truth.net_j >= 0.5 * 5.0
    assert truth.idle_j == pytest.approx(2.0 * (end_s - start_s), rel=0.2)
    shown = [value for _, value, _ in moments]
    total_j = sum((b - a) % 50_000_000 for a, b in itertools.pairwise(shown)) * 1e-6
    # Each was read between two of these moments, however long that took.
    assert least.energy_j - STALE_J <= total_j <= truth.energy_j + STALE_J


def test_a_sampler_shows_the_mean_power_of_the_time_just_passed() -> None:
    averaging_s, update_s, step_w = 0.2, 0.002, 0.02
    options = BoardOptions(meter="ina219", noise=0.0, averaging_s=averaging_s)
    with BoardServer(options) as board:
        board.watch(os.getpid())
        seen = 0
        with reading(board, "class/hwmon/hwmon0/power1_input") as power:
            while seen < 5:
                time.sleep(1.2 * averaging_s)
                work(0.02 * seen)
                before_s, watts, after_s = time.perf_counter(), power() * 1e-6, time.perf_counter()
                if after_s - before_s > averaging_s / 20:
                    # A pause of the machine: what is shown may be of before or of after.
                    continue
                seen += 1
                assert 1.9 < watts < 7.6
                # The mean ends at an update: between one update before the reading and its end.
                first_s, last_s = before_s - update_s, after_s
                least = board.truth(last_s - averaging_s, first_s).energy_j
                most = board.truth(first_s - averaging_s, last_s).energy_j
                assert least / averaging_s - step_w <= watts <= most / averaging_s + step_w


def counted_s(activity: ProcessActivity, pid: int) -> float:
    """Return the CPU seconds of one of the processes that are counted."""
    return activity._used_s.get(pid, 0.0) - activity._before_s.get(pid, 0.0)


def test_a_child_that_has_ended_stays_counted() -> None:
    activity = ProcessActivity()
    activity.watch(os.getpid())
    before_s = activity.busy_s()
    command = [sys.executable, "-c", WORK, "0.9"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as child:
        deadline = time.monotonic() + 120
        while counted_s(activity, child.pid) < 0.8:
            assert time.monotonic() < deadline, "the child's work is not counted"
            time.sleep(0.05)
            busy_s = activity.busy_s()
    assert child.returncode == 0
    assert busy_s - before_s >= 0.8
    assert activity.busy_s() >= busy_s
    with pytest.raises(ProcessLookupError, match=str(child.pid)):
        activity.watch(child.pid)


def test_what_children_did_before_is_not_counted() -> None:
    command = [sys.executable, "-c", WORK, "0.3"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as child:
        while time.clock_gettime((~child.pid << 3) | 2) < 0.3:
            time.sleep(0.01)
        activity = ProcessActivity()
        activity.watch(os.getpid())
        # Long enough for children to be looked for.
        time.sleep(CHILDREN_S + 0.1)
        activity.busy_s()
        assert child.pid in activity.pids
        assert counted_s(activity, child.pid) < 0.1


def test_it_looks_like_sysfs(board: BoardServer) -> None:
    assert {"class", "devices", "firmware"} <= {path.name for path in board.folder.iterdir()}
    zone = board.folder / "class/powercap/intel-rapl:0"
    assert sorted(path.name for path in zone.iterdir()) == [
        "constraint_0_max_power_uw",
        "constraint_0_name",
        "enabled",
        "energy_uj",
        "max_energy_range_uj",
        "name",
    ]
    assert (zone / "name").read_text() == "package-0\n"
    assert (zone / "max_energy_range_uj").read_text() == "50000000\n"
    with pytest.raises(FileNotFoundError):
        (zone / "nothing").read_text()
    with pytest.raises(PermissionError):
        (zone / "name").open("w")
    pids = board.state()["pids"]
    assert os.getpid() in pids
    assert board._process.pid not in pids


def test_faults_appear_to_those_who_open_and_to_those_who_have_it_open(board: BoardServer) -> None:
    path = board.folder / ENERGY
    with reading(board) as energy:
        board.set_fault(ENERGY, "eacces")
        with pytest.raises(PermissionError):
            path.read_text()
        assert energy() >= 0
        board.clear_faults()
        for kind, code in (("eio", errno.EIO), ("enodev", errno.ENODEV), ("vanish", errno.ENODEV)):
            board.set_fault("class/powercap/*", kind)
            with pytest.raises(OSError, match=os.strerror(code)):
                energy()
            if kind == "vanish":
                assert not path.exists()
                assert not (board.folder / "class/powercap").exists()
            board.clear_faults("class/powercap/*")
            assert path.exists()
            assert energy() >= 0
    assert board.state()["faults"] == {}


def test_values_that_stick_turn_grow_or_are_none(board: BoardServer) -> None:
    current = "class/power_supply/battery/current_now"
    with reading(board) as energy, reading(board, current) as ampere:
        board.set_fault(ENERGY, "stick")
        stuck = energy()
        work(0.05)
        assert energy() == stuck
        board.set_fault(ENERGY, "backwards", 1000)
        assert energy() == max(0, stuck - 1000)
        assert ampere() < 0
        board.set_fault(current, "sign")
        assert ampere() > 0
        board.clear_faults()
        board.set_fault(current, "scale")
        assert ampere() < -100e6
        board.clear_faults()
        board.set_fault(ENERGY, "nan")
        with pytest.raises(ValueError, match="nan"):
            energy()
        board.clear_faults()
        board.set_fault(ENERGY, "delay", 0.2)
        began = time.perf_counter()
        energy()
        assert time.perf_counter() - began > 0.2


def test_the_charger_can_be_plugged_in(board: BoardServer) -> None:
    status = board.folder / "class/power_supply/battery/status"
    assert status.read_text() == "Discharging\n"
    board.plug_charger(is_plugged=True)
    assert status.read_text() == "Charging\n"
    with reading(board, "class/power_supply/battery/current_now") as ampere:
        assert ampere() > 0


@pytest.mark.parametrize(
    "line",
    [
        "dance",
        "watch x",
        "watch 0",
        "fault class/none eio",
        f"fault {ENERGY} melt",
        "charger maybe",
    ],
)
def test_commands_that_make_no_sense_are_refused(board: BoardServer, line: str) -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        board._command(line)


def test_truth_is_only_told_of_the_past(board: BoardServer) -> None:
    now = time.perf_counter()
    for start_s, end_s in ((now, now + 60), (0.0, now), (now, now - 0.01)):
        with pytest.raises(OSError, match="out of range"):
            board.truth(start_s, end_s)


def test_nothing_is_left_when_it_ends_or_crashes(tmp_path: Path) -> None:
    folder = tmp_path / "sys"
    folder.mkdir()
    server = BoardServer(folder=folder)
    assert folder.is_mount()
    server.close()
    assert not folder.is_mount()
    server = BoardServer()
    os.kill(server._process.pid, signal.SIGKILL)
    server._process.wait()
    server.close()
    assert not server.folder.exists()


def test_it_ends_with_the_program_that_started_it(tmp_path: Path) -> None:
    program = (
        "import os, sys\n"
        "from joulemap.device_agents.simulated.board_server import BoardServer\n"
        "server = BoardServer()\n"
        "print(server.folder, server._process.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    folder, pid = done.stdout.split()
    wait_for_states([int(pid)], "ZX")
    deadline = time.monotonic() + 30
    while not is_plain(Path(folder)):
        assert time.monotonic() < deadline, "the folder is still mounted"
        time.sleep(0.05)


def is_plain(folder: Path) -> bool:
    """Return whether there is neither a board nor what a killed one leaves, which has no state."""
    try:
        folder.stat()
    except OSError:
        return False
    return not folder.is_mount()


def test_what_others_left_behind_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    old, new = tmp_path / "joulemap-board-old", tmp_path / "joulemap-board-new"
    for folder in (old, new):
        folder.mkdir()
    os.utime(old, (1, 1))
    remove_stale_mounts()
    assert not old.exists()
    assert new.exists()


def test_what_is_missing_is_said_with_the_line_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        with pytest.raises(StableDeviceError, match=r"apt-get install .* fuse3"):
            BoardServer()
    with monkeypatch.context() as patch:
        patch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(StableDeviceError, match="pip install 'mfusepy>=3'"):
            BoardServer()
    with pytest.raises(StableDeviceError, match="cannot be served"):
        BoardServer(folder=tmp_path / "missing")


def test_the_program_says_what_it_cannot_read(tmp_path: Path) -> None:
    program = [sys.executable, "-m", board_server.MODULE, str(tmp_path)]
    for arguments, said in (
        (["--meter", "abacus"], "unknown meter"),
        (["--pid", "0"], "process 0"),
    ):
        done = subprocess.run(
            [*program, *arguments], capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 2
        assert said in done.stderr
        assert "Traceback" not in done.stderr

"""The frequency lock on a folder like /sys, and in the real agent with that folder in its place.

The agent runs in a mount name space of its own, where a board's CPU folder lies over the real one;
so it reads and writes the very paths that it would on a board, and dies as it would there.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from joulemap.device_agents.device import Preparation
from joulemap.device_agents.onboard.machine import frequency
from joulemap.device_agents.onboard.machine.frequency import FrequencyLock
from joulemap.device_agents.onboard.preparation_answer import FrequencyHold
from joulemap.profiler import Protocol, networks
from joulemap.profiler.campaign.protocol import reference_widths
from joulemap.profiler.templates.export import cached_template

from ...processes import process_state

CPUS = "sys/devices/system/cpu"
# Over the real folder; `ro` makes it one that cannot be written even by root.
MOUNT = 'mount --bind "$1" /sys/devices/system/cpu && $2 && shift 2 && exec "$@"'
READ_ONLY = "mount -o remount,bind,ro,nosuid,nodev,noexec /sys/devices/system/cpu"


def settings(root: Path) -> dict[str, str]:
    names = ("scaling_governor", "scaling_min_freq", "scaling_max_freq")
    files = [path for name in names for path in root.glob(f"{CPUS}/cpufreq/*/{name}")]
    return {str(path.relative_to(root / CPUS)): path.read_text() for path in files}


def governors(root: Path) -> list[str]:
    files = sorted(root.glob(f"{CPUS}/cpufreq/*/scaling_governor"))
    return [path.read_text().strip() for path in files]


def wait_for(condition: Callable[[], bool], timeout_s: float = 60) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def cpu_s(pid: int) -> float:
    """Return the CPU time of a process, in seconds."""
    return time.clock_gettime((~pid << 3) | 2)


@pytest.fixture
def lock(board: Path) -> Iterator[FrequencyLock]:
    lock = FrequencyLock(str(board))
    yield lock
    lock.restore()


def test_the_governor_is_performance_while_locked(board: Path, lock: FrequencyLock) -> None:
    before = settings(board)
    assert lock.lock([0, 1]) == FrequencyHold(is_locked=True)
    assert governors(board) == ["performance", "performance"]
    assert lock.restore() == []
    assert settings(board) == before


def test_only_the_cpus_used_are_held_and_shared_policies_once(
    make_board: Callable[[int], Path],
) -> None:
    board = make_board(4)
    before = settings(board)
    lock = FrequencyLock(str(board))
    assert lock.lock([2, 3]).is_locked
    assert governors(board) == ["ondemand", "performance"]
    # Locking anew puts back first.
    assert lock.lock([0]).is_locked
    assert governors(board) == ["performance", "powersave"]
    assert lock.restore() == []
    assert settings(board) == before


def test_without_the_governor_the_limits_are_closed(board: Path, lock: FrequencyLock) -> None:
    for path in board.glob(f"{CPUS}/cpufreq/*/scaling_available_governors"):
        path.write_text("ondemand userspace\n")
    before = settings(board)
    assert lock.lock([0, 1]).is_locked
    assert governors(board) == ["ondemand", "powersave"]
    assert settings(board)["cpufreq/policy0/scaling_min_freq"] == "1500000\n"
    lock.restore()
    assert settings(board) == before


def test_a_machine_that_is_held_already_is_left_alone(board: Path, lock: FrequencyLock) -> None:
    for path in board.glob(f"{CPUS}/cpufreq/*/scaling_governor"):
        path.write_text("performance\n")
    assert lock.lock([0, 1]).is_locked
    lock.restore()
    assert governors(board) == ["performance", "performance"]


def test_no_frequency_control_is_said(tmp_path: Path) -> None:
    answer = FrequencyLock(str(tmp_path)).lock([0])
    assert not answer.is_locked
    assert "not offered for CPU 0" in str(answer.reason)


def test_a_second_program_waits_for_the_first_and_then_says_so(
    board: Path, lock: FrequencyLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frequency, "LOCK_TIMEOUT_S", 0.2)
    assert lock.lock([0]).is_locked
    second = FrequencyLock(str(board))
    answer = second.lock([0])
    assert not answer.is_locked
    assert "locked by another program" in str(answer.reason)
    assert governors(board)[0] == "performance"
    lock.restore()
    monkeypatch.setattr(frequency, "LOCK_TIMEOUT_S", 60)
    assert second.lock([0]).is_locked
    assert second.restore() == []
    assert governors(board)[0] == "ondemand"


def test_without_a_watchdog_nothing_is_changed(
    board: Path, lock: FrequencyLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = settings(board)
    for program in ("/no/such/python", "/bin/false", ""):
        monkeypatch.setattr(sys, "executable", program)
        answer = lock.lock([0, 1])
        assert not answer.is_locked
        assert "watchdog" in str(answer.reason)
        assert settings(board) == before


def test_a_killed_watchdog_does_not_keep_the_lock_from_restoring(
    board: Path, lock: FrequencyLock
) -> None:
    before = settings(board)
    assert lock.lock([0, 1]).is_locked
    assert lock._watchdog is not None
    lock._watchdog.kill()
    lock._watchdog.wait()
    assert lock.restore() == []
    assert settings(board) == before


HOLD = """
import os, signal, sys
from joulemap.device_agents.onboard.machine.frequency import FrequencyLock
lock = FrequencyLock(sys.argv[1])
assert lock.lock([0, 1]).is_locked
for name in ("SIGTERM", "SIGINT", "SIGHUP"):
    lock._watchdog.send_signal(getattr(signal, name))
print(lock._watchdog.pid, flush=True)
signal.pause()
"""


def test_the_watchdog_outlives_what_ends_everything_else(board: Path) -> None:
    """As at shutdown or at the end of a login, where all processes get the same signal."""
    before = settings(board)
    command = [sys.executable, "-P", "-c", HOLD, str(board)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        pid = int(holder.stdout.readline())
        time.sleep(0.2)
        assert Path(f"/proc/{pid}").exists()
        assert governors(board) == ["performance", "performance"]
        holder.terminate()
    assert wait_for(lambda: settings(board) == before)


def test_nobody_locks_before_a_dead_programs_watchdog_is_done(
    board: Path, lock: FrequencyLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frequency, "LOCK_TIMEOUT_S", 0.2)
    command = [sys.executable, "-P", "-c", HOLD, str(board)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        pid = int(holder.stdout.readline())
        os.kill(pid, signal.SIGSTOP)
        holder.kill()
    try:
        # Otherwise it would take the dead program's "performance" for what was there before.
        assert not lock.lock([0, 1]).is_locked
    finally:
        os.kill(pid, signal.SIGCONT)
    monkeypatch.setattr(frequency, "LOCK_TIMEOUT_S", 60)
    assert lock.lock([0, 1]).is_locked
    assert lock.restore() == []
    assert governors(board) == ["ondemand", "powersave"]


def in_place(board: Path, command: list[str], then: str = "true") -> list[str]:
    """Return the command that runs with the board's CPU folder over the machine's."""
    return ["unshare", "-rm", "sh", "-c", MOUNT, "sh", str(board / CPUS), then, *command]


def test_mount_name_spaces_are_permitted(board: Path) -> None:
    command = in_place(board, ["cat", "/sys/devices/system/cpu/cpu1/cpufreq/scaling_governor"])
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "powersave\n", (
        f"the tests of the frequency lock need mount name spaces (unshare -rm): {done.stderr} "
        "Install util-linux; in a container allow them with --privileged; on Ubuntu: sudo sysctl "
        "kernel.apparmor_restrict_unprivileged_userns=0"
    )


LOCK = """
from joulemap.device_agents.onboard.machine.frequency import FrequencyLock
answer = FrequencyLock().lock([0, 1])
assert answer.is_locked is False
print(answer.reason)
"""


def test_a_read_only_folder_is_said(board: Path) -> None:
    command = in_place(board, [sys.executable, "-P", "-c", LOCK], READ_ONLY)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "scaling_governor cannot be written (Read-only file system)" in done.stdout
    assert "outside of the container" in done.stdout


def test_a_missing_permission_is_said(board: Path) -> None:
    before = settings(board)
    for path in board.glob(f"{CPUS}/cpufreq/*/*"):
        path.chmod(0o444)
    # Root without its capabilities is bound by file modes like anybody else.
    command = in_place(board, ["setpriv", "--bounding-set=-all", sys.executable, "-P", "-c", LOCK])
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "/scaling_governor cannot be written (Permission denied)" in done.stdout
    assert "sudo cpupower frequency-set --governor performance" in done.stdout
    assert settings(board) == before


HOST = """
import sys
from joulemap.device_agents.device import Device, Preparation
protocol = {protocol!r}
with Device("local:") as device:
    template = open(sys.argv[1], "rb").read()
    device.prepare(Preparation(template, {reference!r}, threads=1, lock_frequency=True))
    assert device.affinity.to_dict() == {{"is_bound": True, "reason": None}}
    machine = device.visit({reference!r}, protocol).machine
    pid = device.visit({reference!r}, protocol).pid
    print(device.frequency_lock.to_dict(), machine["frequency_hz"], pid, sep=";", flush=True)
    for line in sys.stdin:
        if line == "visit\\n":
            device.visit({reference!r}, {{**protocol, "max_visit_s": 60}})
        if line == "close\\n":
            break
        if line == "again\\n":
            pid = device.visit({reference!r}, protocol).pid
            print(device.frequency_lock.to_dict(), pid, sep=";", flush=True)
"""


class Host:
    """A host with its agent, both where the board's CPU folder lies over the machine's."""

    def __init__(self, board: Path, folder: Path) -> None:
        spec = networks.get("lenet5")
        wanted = Preparation(cached_template(spec).to_json().encode(), reference_widths(spec))
        template = folder / "template.json"
        template.write_bytes(wanted.template)
        code = HOST.format(
            protocol=Protocol(max_visit_s=0.05, block_s=0.01, reference_s=0.005).to_dict(),
            reference=wanted.reference_widths,
        )
        self.process = subprocess.Popen(
            in_place(board, [sys.executable, "-P", "-c", code, str(template)]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        said = self.read().split(";")
        if len(said) != 3:
            self.process.kill()
            pytest.fail(f"the host did not start: {self.process.communicate()[1]}")
        self.lock, self.frequency_hz, self.agent_pid = said[0], float(said[1]), int(said[2])

    def read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def say(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()


@pytest.fixture
def host(make_board: Callable[[int], Path], tmp_path: Path) -> Iterator[Host]:
    host = Host(make_board(1 + max(os.sched_getaffinity(0))), tmp_path)
    yield host
    host.process.kill()
    host.process.communicate()


@pytest.mark.parametrize(
    "end",
    [
        "close",
        "kill",
        "kill while it measures",
        "kill its group",
        "kill the host",
        "wait, then close",
    ],
)
def test_the_governor_returns_whatever_the_agent_ends_of(
    host: Host, tmp_path: Path, end: str
) -> None:
    board = tmp_path / "board"
    assert host.lock == "{'is_locked': True, 'reason': None}"
    assert "performance" in governors(board)
    assert host.frequency_hz in (1.2e9, 1.5e9)
    if end == "close":
        host.say("close")
    elif end == "kill":
        os.kill(host.agent_pid, signal.SIGKILL)
    elif end == "kill while it measures":
        before_s = cpu_s(host.agent_pid)
        host.say("visit")
        assert wait_for(lambda: cpu_s(host.agent_pid) > before_s + 0.3)
        assert "performance" in governors(board)
        os.kill(host.agent_pid, signal.SIGKILL)
    elif end == "kill its group":
        os.killpg(os.getpgid(host.agent_pid), signal.SIGKILL)
    elif end == "kill the host":
        host.process.kill()
    else:
        # Nobody ends anything: the settings stay until somebody does.
        time.sleep(0.5)
        assert "performance" in governors(board)
        host.say("close")
        assert host.process.wait(timeout=60) == 0
    assert wait_for(lambda: governors(board) == ["ondemand", "powersave"]), governors(board)
    assert settings(board)["cpufreq/policy0/scaling_min_freq"] == "600000\n"


def test_the_agent_after_a_killed_one_locks_anew_and_restores_the_first_settings(
    host: Host, tmp_path: Path
) -> None:
    board = tmp_path / "board"
    for _ in range(3):
        os.kill(host.agent_pid, signal.SIGKILL)
        # As the host sees it, which then starts another one, maybe before the watchdog is done.
        assert wait_for(lambda: process_state(host.agent_pid) in "ZX")
        host.say("again")
        lock, _, pid = host.read().partition(";")
        assert lock == "{'is_locked': True, 'reason': None}"
        assert int(pid) != host.agent_pid
        host.agent_pid = int(pid)
        assert "performance" in governors(board)
    host.say("close")
    assert host.process.wait(timeout=60) == 0
    assert wait_for(lambda: governors(board) == ["ondemand", "powersave"]), governors(board)


def test_the_watchdog_ends_after_its_duty(host: Host) -> None:
    def watchdogs() -> list[int]:
        found = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = path.read_text().rpartition(")")[2].split()
                command = (path.parent / "cmdline").read_bytes()
            except OSError:
                continue
            if fields[0] != "Z" and b"armed" in command and int(path.parent.name) in children:
                found.append(int(path.parent.name))
        return found

    tasks = Path(f"/proc/{host.agent_pid}/task").glob("*/children")
    children = [int(pid) for path in tasks for pid in path.read_text().split()]
    assert len(watchdogs()) == 1
    os.kill(host.agent_pid, signal.SIGKILL)
    assert wait_for(lambda: not watchdogs())

"""The real agent with a simulated board's files as its /sys, and campaigns metered on it."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from joulemap import InputError
from joulemap.datasets.journal import FILE_NAME, read_journal
from joulemap.device_agents import Device, DeviceInUseError, Preparation
from joulemap.device_agents.errors import StableDeviceError
from joulemap.device_agents.simulated import board_child
from joulemap.device_agents.simulated.board_options import BoardOptions
from joulemap.device_agents.simulated.board_transport import BoardDevice, BoardTransport
from joulemap.device_agents.simulated.transport import SimulatedTransport
from joulemap.device_agents.simulated.virtual_machine import VirtualMachine
from joulemap.profiler import Protocol, networks, profile
from joulemap.profiler.campaign.devices import board_options, is_board, open_device, runs_networks
from joulemap.profiler.campaign.protocol import reference_widths
from joulemap.profiler.templates.export import cached_template

from ...calm_judgement import CALM

ACTIVE_W = 5.0
PROTOCOL = Protocol(
    visits=1,
    max_visit_s=0.2,
    max_further_visits=0,
    max_busy_share=1.0,
    start_timeout_s=1.0,
    energy_rel_error=0.5,
    max_energy_window_s=3.0,
)


@pytest.fixture(scope="module")
def transport() -> Iterator[BoardTransport]:
    transport = BoardTransport(BoardOptions(meter="rapl"))
    yield transport
    transport.close()


def test_programs_see_the_boards_files_and_nobody_else_does(transport: BoardTransport) -> None:
    name = "/sys/class/powercap/intel-rapl:0/name"
    assert transport.run(["cat", name], 60.0).stdout == b"package-0\n"
    assert not Path("/sys/.board").exists()
    missing = transport.run(["cat", "/sys/kernel/uevent_seqnum"], 60.0)
    assert missing.exit_code == 1


def test_started_programs_are_the_boards_work(transport: BoardTransport) -> None:
    process = transport.start(["cat"])
    try:
        assert process.pid in transport.server.state()["pids"]
        process.write(b"hello", 60.0)
        assert process.read(5, 60.0) == b"hello"
    finally:
        process.kill()


def test_a_user_without_root_mounts_in_a_namespace_of_its_own(
    transport: BoardTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    done = transport.run(["cat", "/sys/class/powercap/intel-rapl:0/name"], 60.0)
    assert done.stdout == b"package-0\n", done.stderr


def test_a_refused_mount_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    with BoardDevice("sim:board") as device:
        with monkeypatch.context() as patch:
            patch.setattr(device.server, "folder", Path("/nowhere"))
            with pytest.raises(StableDeviceError, match=r"cannot watch .*No such file"):
                device.probe()
        done = subprocess.run(
            [sys.executable, "-I", board_child.__file__, "/nowhere", "true"],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    assert done.returncode == 1
    assert done.stderr == (
        "board: /nowhere cannot take the place of /sys: No such file or directory\n"
    )


def test_missing_programs_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StableDeviceError, match=r"needs unshare: apt-get install .* util-linux"):
        BoardTransport()


def test_its_agents_and_this_machines_do_not_measure_at_once() -> None:
    spec = networks.get("lenet5")
    template, reference = cached_template(spec).to_json().encode(), reference_widths(spec)
    wanted = Preparation(template, reference, protocol={"start_timeout_s": 0.2})
    protocol = PROTOCOL.to_dict()
    with BoardDevice("sim:board", agent_visits=1) as board, Device("local:") as here:
        board.prepare(wanted)
        with pytest.raises(DeviceInUseError, match=f"process {os.getpid()} "):
            here.prepare(wanted)
        agents = [board.visit(reference, protocol).pid for _ in range(2)]
        sockets = {Path(f"/proc/self/fd/{fd}").readlink() for fd in _held(board)}
        assert sockets & set(_open_files(agents[-1])), "the board's agent does not hold the lock"
        board.close_agent()
        here.prepare(wanted)
        with pytest.raises(DeviceInUseError):
            board.prepare(wanted)


def _open_files(pid: int) -> Iterator[Path]:
    for link in Path(f"/proc/{pid}/fd").iterdir():
        # Some are closed at this moment.
        with contextlib.suppress(FileNotFoundError):
            yield link.readlink()


def _held(device: Device) -> tuple[int, ...]:
    lock = device._transport.device_lock
    assert lock is not None
    return lock.descriptors


def test_the_device_says_that_it_is_simulated() -> None:
    with open_device("sim:board?meter=rapl,ina219&seed=3") as device:
        assert isinstance(device, BoardDevice)
        found = device.probe()
        meters = device.find_meters()
    assert found.device_id.startswith("sim-")
    assert found.details["simulated_board"]["seed"] == "3"
    assert found.details["temperature_c"] >= 35.0
    assert found.details["max_frequency_hz"] == 2.4e9
    names = {meter["name"] for meter in meters.available}
    assert {"rapl", "hwmon"} <= names
    assert not device.server.folder.exists()


def test_what_a_device_can_do_is_asked_of_it_and_not_of_its_url() -> None:
    computed = Device("bench:7", transport=SimulatedTransport(VirtualMachine(lambda widths: 0.01)))
    with computed, BoardDevice("bench:8") as board, Device("local:") as here:
        said = [(each.is_simulated, each.runs_networks) for each in (computed, board, here)]
    assert said == [(True, False), (True, True), (False, True)]
    assert not runs_networks(computed)


def test_energies_of_a_simulated_device_of_any_url_are_recorded_as_such(tmp_path: Path) -> None:
    machine = VirtualMachine(lambda widths: 0.01, energy=lambda widths: 1e-3 * sum(widths))
    device = Device("bench:7", transport=SimulatedTransport(machine))
    protocol = Protocol(visits=1, max_visit_s=0.2, has_revisits=False)
    dataset = profile(device, "lenet5", samples=2, out=tmp_path / "run", protocol=protocol)
    assert set(dataset.to_pandas()["energy_source"]) == {"simulated"}


def test_urls_of_boards() -> None:
    assert is_board("sim:board")
    assert is_board("sim:board?meter=rapl")
    assert not is_board("sim:boards")
    assert not is_board("local:")
    assert runs_networks("local:")
    assert not runs_networks("sim:eyeriss")
    assert board_options("sim:board?idle_w=1&noise=0.1") == BoardOptions(idle_w=1.0, noise=0.1)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sim:board?meter=abacus", "unknown meter 'abacus'"),
        ("sim:board?meter", "cannot be read; write sim:board"),
        ("sim:board?seed=1&seed=2", "an option twice"),
        ("sim:board?disturbances=quiet", "no option 'disturbances'"),
    ],
)
def test_urls_that_make_no_sense_are_refused(url: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_device(url)


@pytest.mark.parametrize(("equipment", "meter"), [("rapl", "rapl"), ("ina219", "hwmon")])
def test_a_campaign_finds_the_energy_of_real_runs(
    tmp_path: Path, equipment: str, meter: str
) -> None:
    dataset = profile(
        f"sim:board?meter={equipment}&active_w={ACTIVE_W}&range_j=20&averaging_s=0.1",
        "lenet5",
        samples=1,
        out=tmp_path,
        meter=meter,
        # So many blocks that none of them is taken for warming up: those of the window, all of them,
        # tell the truth about it. A visit that is refused when the machine pauses is made again.
        protocol=replace(
            PROTOCOL, visits=3, max_visit_s=1.0, block_s=0.1, min_blocks=30, max_attempts=6
        ),
        judgement=CALM,
    )
    assert set(dataset.to_pandas()["energy_source"]) == {"simulated"}
    made = [visit for visit in read_journal(tmp_path / FILE_NAME).visits if visit.timing]
    visits = [visit for visit in made if visit.energy]
    assert len(visits) >= 3
    assert {visit.visit_index for visit in visits} == {visit.visit_index for visit in made}
    for visit in made:
        # Nothing but a pause of the machine loses a window.
        why = visit.energy_refused or ""
        assert visit.energy or re.search(
            r"without readings|holds \d+ updates|several times", why
        ), why
    for visit in visits:
        assert visit.timing is not None
        assert visit.energy is not None
        blocks = visit.timing.blocks
        calls = sum(len(block.latencies_s) * block.calls_per_run for block in blocks)
        assert calls == visit.energy.calls
        # The board's active power is that of the agent's CPU time.
        truth = ACTIVE_W * sum(block.cpu_s for block in blocks) / calls
        low, high = visit.energy.interval_j or (0.0, 0.0)
        # Readings of a gauge go with the moments at which the agent has a CPU, where it shares one.
        slack = (0.1 if equipment == "rapl" else 0.3) * truth
        assert low - slack <= truth <= high + slack
        # On a busy machine the load fluctuates, which a gauge of moments sees only in part.
        assert equipment != "rapl" or high - low < truth

"""Whole campaigns of the real code on simulated devices."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from joulemap import InputError
from joulemap.datasets import CostDataset
from joulemap.datasets.journal import FILE_NAME, read_journal
from joulemap.device_agents.device import Device
from joulemap.device_agents.errors import StableDeviceError, TransientDeviceError
from joulemap.device_agents.host.agent_client import AgentClient
from joulemap.device_agents.onboard import frames
from joulemap.device_agents.simulated import (
    PRESETS,
    Disturbances,
    SimulatedTransport,
    VirtualMachine,
    simulated_device,
)
from joulemap.device_agents.simulated.disturbances import ClockJump, Suspend
from joulemap.profiler import Protocol, profile

PROTOCOL = Protocol(visits=2, max_visit_s=0.4, agent_visits=8)


def cost(widths: tuple[int, ...]) -> float:
    return 0.005 + 1e-6 * widths[0] * widths[1] * widths[2] + 1e-5 * widths[3]


def run(
    out: Path,
    disturbances: Disturbances | None,
    seed: int = 0,
    samples: int = 6,
    protocol: Protocol = PROTOCOL,
) -> tuple[CostDataset, VirtualMachine]:
    device, machine = simulated_device(cost, disturbances, seed, agent_visits=protocol.agent_visits)
    dataset = profile(device, "lenet5", samples=samples, out=out, protocol=protocol)
    return dataset, machine


def truth_of(dataset: CostDataset, machine: VirtualMachine) -> Any:
    return np.array([machine.true_latency_s(widths) for widths in dataset.widths.tolist()])


def timings(out: Path) -> list[Any]:
    return [visit.timing for visit in read_journal(out / FILE_NAME).visits]


def test_a_quiet_campaign_finds_the_truth(tmp_path: Path) -> None:
    dataset, machine = run(tmp_path / "run", PRESETS["quiet"]())
    assert len(dataset) == 6
    assert dataset.latency_s == pytest.approx(truth_of(dataset, machine), rel=0.005)
    assert dataset.device["device_id"].startswith("sim-")


def test_an_undisturbed_campaign_finds_it_exactly(tmp_path: Path) -> None:
    dataset, machine = run(tmp_path / "run", None)
    assert dataset.latency_s == pytest.approx(truth_of(dataset, machine), rel=1e-6)


def test_agents_take_turns_and_time_goes_on_between_visits(tmp_path: Path) -> None:
    _, machine = run(tmp_path / "run", None)
    found = timings(tmp_path / "run")
    assert len(found) >= 12
    assert len({timing.pid for timing in found}) == math.ceil(len(found) / 8)
    assert machine.elapsed_s > machine.busy_s > sum(timing.measuring_s for timing in found)
    for timing in found:
        assert timing.materialise_s > 0
        assert timing.load_s > 0
        assert timing.machine["suspended_s"] == pytest.approx(0.0, abs=1e-6)


def test_the_same_seed_gives_the_same_campaign(tmp_path: Path) -> None:
    first, again, other = (
        run(tmp_path / name, PRESETS["harsh"](), seed)[0].latency_s
        for name, seed in (("first", 3), ("again", 3), ("other", 4))
    )
    assert (first == again).all()
    assert (first != other).all()


def test_sleeps_and_set_clocks_are_noticed_by_their_visit(tmp_path: Path) -> None:
    disturbances = Disturbances(
        suspend=Suspend(at_s=2.0, duration_s=30.0), clock_jump=ClockJump(at_s=4.2, by_s=-100.0)
    )
    dataset, machine = run(tmp_path / "run", disturbances)
    machines = [timing.machine for timing in timings(tmp_path / "run")]
    slept = [entry["suspended_s"] for entry in machines if abs(entry["suspended_s"]) > 1e-3]
    jumped = [entry["clock_jump_s"] for entry in machines if abs(entry["clock_jump_s"]) > 1e-3]
    assert slept == pytest.approx([30.0])
    assert jumped == pytest.approx([-100.0])
    assert dataset.latency_s == pytest.approx(truth_of(dataset, machine), rel=1e-6)


def test_heat_is_seen_by_the_sensors(tmp_path: Path) -> None:
    run(tmp_path / "run", PRESETS["phone"]())
    for timing in timings(tmp_path / "run"):
        assert 30.0 < timing.machine["temperature_c"] < 90.0
        assert timing.machine["frequency_hz"] <= 2e9


def test_an_interrupted_campaign_continues_on_the_same_machine(tmp_path: Path) -> None:
    machine = VirtualMachine(cost, PRESETS["quiet"]())
    sizes, ends = [], []
    for samples in (3, 6):
        device = Device("sim:", transport=SimulatedTransport(machine), agent_visits=8)
        dataset = profile(
            device, "lenet5", samples=samples, out=tmp_path / "run", protocol=PROTOCOL
        )
        sizes.append(len(dataset))
        ends.append(machine.elapsed_s)
    assert sizes == [3, 6]
    assert ends[1] > 1.5 * ends[0]


def test_another_simulated_machine_is_another_device(tmp_path: Path) -> None:
    run(tmp_path / "run", None, seed=0)
    with pytest.raises(InputError, match="device"):
        run(tmp_path / "run", None, seed=1)


def test_frames_may_arrive_in_pieces() -> None:
    process = SimulatedTransport(VirtualMachine(cost)).start([])
    for byte in frames.encode({"id": 1, "op": "probe"}):
        process.write(bytes([byte]), 1.0)
    header, payload = frames.decode_prefix(process.read(frames.PREFIX.size, 1.0))
    assert frames.decode_header(process.read(header, 1.0))["result"]["system"] == "simulated"
    assert payload == 0
    with pytest.raises(TransientDeviceError, match="no answer"):
        process.read(1, 1.0)
    process.kill()
    with pytest.raises(TransientDeviceError, match="ended"):
        process.write(b"x", 1.0)


def test_its_mistakes_are_those_of_the_real_agent() -> None:
    client = AgentClient(SimulatedTransport(VirtualMachine(cost)).start([]))
    with pytest.raises(StableDeviceError, match="visit came before prepare"):
        client.ask("visit", {"widths": [1], "protocol": {}}, timeout_s=1.0)
    with pytest.raises(StableDeviceError, match="unknown operation"):
        client.ask("dance", timeout_s=1.0)
    client.close()
    assert not client.is_usable


def test_how_long_a_campaign_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    began = time.perf_counter()
    dataset, machine = run(
        tmp_path / "run", PRESETS["shared_host"](), samples=30, protocol=Protocol(visits=3)
    )
    with capsys.disabled():
        print(
            f"\n{len(dataset)} variants x 3 visits: {machine.elapsed_s:.0f} virtual seconds in "
            f"{time.perf_counter() - began:.2f} s"
        )

"""Metered campaigns on a simulated board in virtual time: real meters, known energies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from joulemap import InputError, JoulemapError
from joulemap.datasets import CostDataset
from joulemap.datasets.journal import FILE_NAME, read_journal
from joulemap.device_agents.registry import METERS
from joulemap.device_agents.simulated import simulated_device
from joulemap.device_agents.simulated.board_options import BoardOptions
from joulemap.device_agents.simulated.virtual_board import VirtualBoard
from joulemap.device_agents.simulated.virtual_machine import VirtualMachine
from joulemap.models import BilinearPredictor
from joulemap.profiler import Protocol, profile

MODULES = {name: entry.module for name, entry in METERS.items()}
# The protocol measures for a while, so that few visits say much.
PROTOCOL = Protocol(visits=2, max_visit_s=0.2, max_further_visits=0)


def seconds(widths: Sequence[int]) -> float:
    return 0.004 + 2e-6 * widths[0] * widths[1] + 1e-6 * widths[1] * widths[2]


def joules(widths: Sequence[int]) -> float:
    return 0.01 + 3e-5 * widths[0] * widths[1] + 4e-6 * widths[1] * widths[2]


def run(
    out: Path, options: BoardOptions, meter: str, samples: int = 6, seed: int = 0
) -> tuple[CostDataset, VirtualBoard]:
    device, machine = simulated_device(seconds, seed=seed)
    board = VirtualBoard(machine, joules, options, MODULES)
    dataset = profile(
        device, "lenet5", samples=samples, out=out, meter=meter, seed=seed, protocol=PROTOCOL
    )
    return dataset, board


@pytest.mark.parametrize(
    ("equipment", "meter", "tolerance"),
    [
        ("rapl,dram", "rapl", 0.02),
        ("ina219", "hwmon", 0.03),
        ("ina3221", "jetson", 0.03),
        ("odpm", "android_odpm", 0.03),
    ],
)
def test_a_metered_campaign_finds_the_true_energies(
    tmp_path: Path, equipment: str, meter: str, tolerance: float
) -> None:
    options = BoardOptions(meter=equipment, idle_w=2.0, active_w=4.0, range_j=30.0)
    dataset, _ = run(tmp_path / "run", options, meter)
    truth = np.array([joules(widths) for widths in dataset.widths.tolist()])
    assert len(dataset) == 6
    np.testing.assert_allclose(dataset.energy_j, truth, rtol=tolerance)
    low, high = dataset.interval("energy_j")
    half = (high - low) / 2
    assert (np.abs(dataset.energy_j - truth) < 3 * half).all()
    assert (half / truth < 4 * tolerance).all()
    assert set(dataset.to_pandas()["energy_source"]) == {"simulated"}
    gross = dataset.to_pandas()["energy_gross_j"].to_numpy()
    latency = np.array([seconds(widths) for widths in dataset.widths.tolist()])
    np.testing.assert_allclose(gross, truth + 2.1 * latency, rtol=0.1)


def test_a_predictor_recovers_the_energies_of_variants_that_were_not_measured(
    tmp_path: Path,
) -> None:
    options = BoardOptions(meter="rapl", idle_w=2.0, active_w=4.0, range_j=30.0)
    dataset, _ = run(tmp_path / "run", options, "rapl", samples=40)
    X, y, weights = dataset.xyw("energy_j")
    predictor = BilinearPredictor(dataset.spec).fit(X[:25], y[:25], sample_weight=weights[:25])
    truth = np.array([joules(widths) for widths in dataset.widths[25:].tolist()])
    low, high = predictor.predict_interval(X[25:], coverage=0.95, of="mean")
    assert np.median(np.abs(predictor.predict(X[25:]) / truth - 1)) < 0.01
    assert np.mean((low <= truth) & (truth <= high)) >= 0.8


def test_faults_in_mid_campaign_leave_no_wrong_joules(tmp_path: Path) -> None:
    device, machine = simulated_device(seconds)
    board = VirtualBoard(machine, joules, BoardOptions(meter="rapl", range_j=30.0), MODULES)
    energy = "sys/class/powercap/intel-rapl:0/energy_uj"

    def meddle() -> None:
        board.tree.clear_faults()
        # For a few visits.
        if 6.0 < machine.elapsed_s < 14.0:
            board.tree.set_fault(energy, "stick")

    machine.every(4.0, meddle)
    dataset = profile(
        device, "lenet5", samples=6, out=tmp_path / "run", meter="rapl", protocol=PROTOCOL
    )
    visits = read_journal(tmp_path / "run" / FILE_NAME).visits
    refused = [visit.energy_refused for visit in visits if visit.energy_refused]
    assert refused
    assert any("stuck" in reason or "sticks" in reason for reason in refused)
    for visit in visits:
        if visit.energy is not None:
            assert visit.energy.energy_j == pytest.approx(joules(visit.widths), rel=0.03)
    assert len(dataset) == 6


def test_power_follows_what_runs() -> None:
    machine = VirtualMachine(seconds)
    options = BoardOptions(meter="rapl", idle_w=2.0, active_w=4.0, flicker=0.0)
    board = VirtualBoard(machine, joules, options).board
    widths = (3, 8, 60, 40)
    call = machine.load(widths)
    machine.idle(1.0)
    start = machine.monotonic_s()
    for _ in range(100):
        call()
    middle = machine.monotonic_s()
    machine.run(0.5)
    end = machine.monotonic_s()
    machine.idle(1.0)
    assert board.true_net_j(start, middle) == pytest.approx(100 * joules(widths))
    assert board.true_net_j(middle, end) == pytest.approx(0.5 * 4.0)
    assert board.true_net_j(end, machine.monotonic_s()) == pytest.approx(0.0, abs=1e-9)
    assert board.true_idle_j(start, end) == pytest.approx(2.0 * (end - start), rel=0.1)


def test_a_phone_that_counts_in_milliamperes_is_measured_once_it_is_told(tmp_path: Path) -> None:
    def measure(meter: str) -> CostDataset:
        device, machine = simulated_device(seconds)
        options = BoardOptions(meter="battery", idle_w=2.0, active_w=4.0, noise=0.002)
        board = VirtualBoard(machine, joules, options, MODULES)
        supply = "sys/class/power_supply/battery"
        board.tree.set_fault(f"{supply}/current_now", "scale", 1e-3)
        # It counts in steps of a percent, as good as never.
        board.tree.set_fault(f"{supply}/charge_counter", "stick")
        return profile(device, "lenet5", samples=3, out=tmp_path, meter=meter, protocol=PROTOCOL)

    with pytest.raises(
        JoulemapError, match=r"tell the unit, as in --meter 'battery\?current_unit=mA"
    ):
        measure("battery")
    dataset = measure("battery?current_unit=mA&sign=-")
    truth = np.array([joules(widths) for widths in dataset.widths.tolist()])
    np.testing.assert_allclose(dataset.energy_j, truth, rtol=0.1)
    (meter,) = read_journal(tmp_path / FILE_NAME).campaign.meters
    assert meter["state"]["told"] == "current_unit=mA&sign=-"
    assert meter["state"]["learned"] == "sign -1, factor 1000"
    # What was told is part of what was measured.
    with pytest.raises(InputError, match=r"meter: .*told current_unit=mA&sign=-.* there"):
        measure("battery?current_unit=mA")

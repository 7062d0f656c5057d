"""What goes wrong on real machines, injected into simulated ones: noticed, said, never silently wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from joulemap import JoulemapError
from joulemap.datasets import CostDataset
from joulemap.datasets.journal import FILE_NAME, JournalContent, read_journal
from joulemap.device_agents.simulated import (
    PRESETS,
    Disturbances,
    VirtualMachine,
    simulated_device,
)
from joulemap.device_agents.simulated.disturbances import (
    Bursts,
    CallNoise,
    ClockJump,
    SpeedChange,
    States,
    Suspend,
    Throttling,
)
from joulemap.profiler import Protocol, profile
from joulemap.profiler.campaign.advice import advise

NOISE = CallNoise(0.01, 0.3)


def cost(widths: tuple[int, ...]) -> float:
    return 0.005 + 2e-6 * widths[0] * widths[1] * widths[2] + 1e-5 * widths[3]


def run(
    folder: Path, disturbances: Disturbances, seed: int = 0, protocol: Protocol | None = None
) -> tuple[CostDataset, JournalContent, VirtualMachine]:
    device, machine = simulated_device(cost, disturbances, seed)
    protocol = protocol or Protocol(visits=3, max_visit_s=0.8)
    dataset = profile(device, "lenet5", samples=25, out=folder / "run", protocol=protocol)
    return dataset, read_journal(folder / "run" / FILE_NAME), machine


def errors(dataset: CostDataset, machine: VirtualMachine) -> np.ndarray:
    truth = np.array([machine.baseline_latency_s(widths) for widths in dataset.widths.tolist()])
    return np.asarray(np.abs(dataset.latency_s / truth - 1))


def test_a_quiet_machine_gets_no_advice(tmp_path: Path) -> None:
    dataset, journal, machine = run(tmp_path, PRESETS["quiet"]())
    assert advise(journal) == []
    assert not journal.rejections
    assert np.median(errors(dataset, machine)) < 0.005
    assert not dataset.to_pandas()["is_imprecise"].any()


def test_a_machine_with_two_speeds_is_corrected_and_said(tmp_path: Path) -> None:
    states = States((1.0, 1.5), (30.0, 30.0))
    dataset, journal, machine = run(
        tmp_path, Disturbances(states=states, call_noise=NOISE, session_sd=0.01)
    )
    assert np.median(errors(dataset, machine)) < 0.015
    said = " ".join(advise(journal))
    assert "2 speeds" in said
    assert "1.5" in said


def test_a_suspended_visit_is_rejected_and_made_again(tmp_path: Path) -> None:
    suspend = Suspend(at_s=20.3, duration_s=600.0)
    dataset, journal, machine = run(tmp_path, Disturbances(suspend=suspend, call_noise=NOISE))
    assert len(journal.rejections) == 1
    assert "suspended for 600" in next(iter(journal.rejections.values()))
    ((name, index, attempt),) = journal.rejections
    assert (name, index, attempt + 1) in {visit.key for visit in journal.visits}
    assert errors(dataset, machine).max() < 0.02


def test_a_set_clock_changes_no_latency_and_is_said(tmp_path: Path) -> None:
    jump = ClockJump(at_s=20.3, by_s=-86400.0)
    dataset, journal, machine = run(tmp_path, Disturbances(clock_jump=jump, call_noise=NOISE))
    assert any("wall clock was set during 1 visit" in sentence for sentence in advise(journal))
    assert errors(dataset, machine).max() < 0.02


def test_a_reference_that_drifts_by_itself_corrects_nothing_and_is_said(tmp_path: Path) -> None:
    drifting = Disturbances(reference_drift_per_hour=3.0, call_noise=NOISE, session_sd=0.01)
    dataset, journal, machine = run(tmp_path, drifting)
    assert any("reference variant drifted" in sentence for sentence in advise(journal))
    assert np.median(errors(dataset, machine)) < 0.02


def test_a_device_that_gets_faster_is_described_at_its_faster_speed(tmp_path: Path) -> None:
    faster = Disturbances(speed_change=SpeedChange(at_s=60.0, factor=0.8), call_noise=NOISE)
    dataset, journal, machine = run(tmp_path, faster)
    truth = np.array([machine.true_latency_s(widths) for widths in dataset.widths.tolist()])
    np.testing.assert_allclose(dataset.latency_s, 0.8 * truth, rtol=0.03)
    assert any("speeds" in sentence or "faster" in sentence for sentence in advise(journal))


def test_heat_is_corrected_and_said(tmp_path: Path) -> None:
    hot = Disturbances(
        throttling=Throttling(limit_c=55.0, full_load_rise_c=60.0, time_constant_s=30.0),
        call_noise=NOISE,
    )
    dataset, journal, machine = run(tmp_path, hot)
    assert np.median(errors(dataset, machine)) < 0.03
    assert any("slower" in sentence for sentence in advise(journal))


def test_when_all_visits_are_disturbed_there_is_no_number(tmp_path: Path) -> None:
    stolen = Disturbances(bursts=Bursts(rate_hz=1000.0, mean_duration_s=1.0, factor=4.0))
    with pytest.raises(JoulemapError, match="withheld"):
        run(tmp_path, stolen)
    dataset = CostDataset.load(tmp_path / "run")
    assert np.isnan(dataset.latency_s).all()
    journal = read_journal(tmp_path / "run" / FILE_NAME)
    assert "no usable visit" in advise(journal)[0]


def test_the_few_calm_visits_among_many_disturbed_ones_are_right(tmp_path: Path) -> None:
    stolen = Disturbances(bursts=Bursts(rate_hz=20.0, mean_duration_s=0.5, factor=4.0))
    dataset, journal, machine = run(tmp_path, stolen)
    known = np.isfinite(dataset.latency_s)
    assert 1 <= known.sum() < len(dataset)
    assert errors(dataset, machine)[known].max() < 0.03
    assert "no usable visit" in advise(journal)[0]


def test_a_time_cap_stops_further_visits_and_continues_as_finished(tmp_path: Path) -> None:
    protocol = Protocol(visits=3, max_visit_s=0.8, time_cap_s=20.0)
    _, journal, machine = run(tmp_path, PRESETS["quiet"](), protocol=protocol)
    assert machine.busy_s < 26
    assert 10 <= len(journal.visits) < 40


def test_imprecise_variants_are_visited_further_and_flagged(tmp_path: Path) -> None:
    noisy = Disturbances(call_noise=NOISE, session_sd=0.08)
    dataset, journal, _ = run(tmp_path, noisy)
    visits = dataset.to_pandas()["num_visits"]
    # 25 variants, each re-visited: six visits at first, up to three further ones.
    assert visits.max() > 6
    frame = dataset.to_pandas()
    low, high = dataset.interval("latency_s")
    wide = (high - low) / 2 / dataset.latency_s > 0.03
    np.testing.assert_array_equal(frame["is_imprecise"].to_numpy(dtype=bool), wide)
    assert any("miss the aim" in sentence for sentence in advise(journal)) == wide.any()


def test_stated_intervals_cover_the_truth_on_a_shared_host(tmp_path: Path) -> None:
    covered: list[bool] = []
    for seed in range(4):
        dataset, _, machine = run(tmp_path / str(seed), PRESETS["shared_host"](), seed)
        truth = np.array([machine.baseline_latency_s(w) for w in dataset.widths.tolist()])
        low, high = dataset.interval("latency_s")
        covered += list((low <= truth) & (truth <= high))
    assert 0.85 < np.mean(covered) <= 1.0

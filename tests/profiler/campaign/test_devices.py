"""Campaigns on simulated hardware: the whole chain, with energy."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from joulemap import InputError
from joulemap.datasets import CostDataset
from joulemap.device_agents.errors import TransientDeviceError
from joulemap.device_agents.onboard.probe_answer import ProbeAnswer
from joulemap.device_agents.onboard.visit_answer import VisitAnswer
from joulemap.models import SystolicArrayModel, fit
from joulemap.profiler import Protocol, networks, profile
from joulemap.profiler.campaign.devices import ASSUMED_JOULE_PER_MAC, open_device
from joulemap.profiler.campaign.metering import energy_fields
from joulemap.profiler.campaign.requirements import require_processors

QUICK = Protocol(visits=2, max_visit_s=0.1)


def truth(dataset: CostDataset, quantity: str) -> np.ndarray:
    hardware = {"joule_per_mac": ASSUMED_JOULE_PER_MAC, "clock_hz": 200e6}
    model = SystolicArrayModel(dataset.spec, hardware, quantity=quantity)  # type: ignore[arg-type]
    return model.predict(dataset.widths)


def test_a_campaign_measures_energy_and_latency_of_the_model(tmp_path: Path) -> None:
    dataset = profile("sim:eyeriss", "lenet5", samples=8, out=tmp_path, protocol=QUICK)
    np.testing.assert_allclose(dataset.energy_j, truth(dataset, "energy"), rtol=1e-12)
    np.testing.assert_allclose(dataset.latency_s, truth(dataset, "latency"), rtol=1e-6)
    assert set(dataset.to_pandas()["energy_source"]) == {"simulated"}
    assert dataset.to_pandas()["energy_gross_j"].isna().all()
    assert dataset.device["cpu_model"] == "simulated eyeriss (12x14 systolic array)"
    assert dataset.device["simulated_hardware"]["joule_per_mac"] == ASSUMED_JOULE_PER_MAC
    # The same call finds nothing left to do.
    again = profile("sim:eyeriss", "lenet5", samples=8, out=tmp_path, protocol=QUICK)
    assert again.to_pandas().equals(dataset.to_pandas())


def test_noise_shows_in_intervals_and_floor_and_a_fit_finds_the_scale(tmp_path: Path) -> None:
    dataset = profile(
        "sim:eyeriss?disturbances=phone&seed=3",
        "lenet5",
        samples=30,
        out=tmp_path,
        protocol=QUICK,
        batch=2,
    )
    energies = 2 * truth(dataset, "energy")
    errors = np.abs(dataset.energy_j / energies - 1)
    assert 0.005 < errors.mean() < 0.03
    low, high = dataset.interval("energy_j")
    assert np.mean((low <= energies) & (energies <= high)) > 0.8
    floor = dataset.noise_floor("energy_j")
    assert floor is not None
    assert floor.low < 0.03 * np.sqrt(2 / np.pi) < 3 * floor.high
    model = fit(dataset, "systolic", "energy_j")
    assert isinstance(model, SystolicArrayModel)
    # Of the preset, whose own unit is one MAC.
    assert model.coef_ == pytest.approx(2 * ASSUMED_JOULE_PER_MAC, rel=0.03)


def test_a_users_hardware(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("rows = 4\ncolumns = 4\nclock_hz = 1e8\njoule_per_mac = 5e-12\n")
    with open_device(f"sim:{path}", networks.get("lenet5")) as device:
        assert device.probe().cpu_model == "simulated mine (4x4 systolic array)"
    path.write_text("rows = 4\n")
    with pytest.raises(InputError, match="no clock_hz"):
        open_device(f"sim:{path}", networks.get("lenet5"))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sim:", "cannot be read; write sim:NAME"),
        ("sim:abacus", "known: sim:eyeriss, sim:tpu"),
        ("sim:eyeriss?noise=1", "unknown option 'noise'"),
        ("sim:eyeriss?disturbances=storm", "known: quiet, shared_host, phone, harsh"),
        ("sim:eyeriss?seed=-1", "seed '-1'"),
        ("sim:eyeriss?seed", "cannot be read"),
        ("sim:eyeriss?seed=1&seed=2", "cannot be read"),
    ],
)
def test_wrong_urls_are_refused(url: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_device(url)


def test_hardware_that_cannot_run_the_network_is_refused_before_anything_is_written(
    tmp_path: Path,
) -> None:
    with pytest.raises(InputError, match="larger cache"):
        profile("sim:eyeriss", "erfnet", samples=3, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_simulated_device_refuses_more_threads_than_two_a_processor(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has 1 processor and threads is 3.*--threads 1 or less"):
        profile("sim:eyeriss", "lenet5", samples=1, out=tmp_path, threads=3, protocol=QUICK)
    assert profile("sim:eyeriss", "lenet5", samples=1, out=tmp_path, threads=2, protocol=QUICK)


@pytest.mark.parametrize(
    ("fingerprint", "count"),
    [
        ({"num_cpus": 8, "available_cpus": [6, 7]}, 2),
        ({"num_cpus": 8, "available_cpus": []}, 8),
        ({"num_cpus": 3}, 3),
    ],
)
def test_a_device_says_how_many_threads_it_takes(
    fingerprint: dict[str, object], count: int
) -> None:
    probed = ProbeAnswer.from_dict({"device_id": "a", **fingerprint})
    require_processors(probed, 2 * count, "ssh://pi@rpi4")
    with pytest.raises(InputError, match=f"ssh://pi@rpi4 has {count} processors"):
        require_processors(probed, 2 * count + 1, "ssh://pi@rpi4")


@pytest.mark.parametrize("told", [None, "4", -1, True, 1e300, [1]])
def test_a_device_that_tells_no_processors_refuses_no_threads(told: object) -> None:
    require_processors(
        ProbeAnswer.from_dict({"device_id": "a", "num_cpus": told}), 99, "ssh://pi@rpi4"
    )


def answer(simulated_energy_j: object) -> VisitAnswer:
    """Return a visit's answer of which the energy alone matters."""
    told: dict[str, Any] = dict.fromkeys(item.name for item in fields(VisitAnswer))
    return VisitAnswer(**{**told, "simulated_energy_j": simulated_energy_j})


@pytest.mark.parametrize("energy", [-1.0, 0.0, float("nan"), "1", ["simulated"]])
def test_a_simulated_energy_is_not_to_be_believed(energy: object) -> None:
    assert energy_fields(answer(None), is_simulated=True) == {}
    assert "energy" in energy_fields(answer(1.0), is_simulated=True)
    with pytest.raises(TransientDeviceError, match="meter"):
        energy_fields(answer(energy), is_simulated=True)
    with pytest.raises(TransientDeviceError, match="meter"):
        energy_fields(answer(1.0), is_simulated=False)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (
            "sim:mainframe",
            "no simulated device 'sim:mainframe'; known: sim:eyeriss, sim:tpu, sim:board",
        ),
        ("pi@rpi4", "write one of: local:, ssh://user@host, adb:SERIAL, sim:NAME"),
    ],
)
def test_every_kind_of_device_is_named_where_a_url_fits_none(url: str, words: str) -> None:
    with pytest.raises(InputError, match=re.escape(words)):
        open_device(url)

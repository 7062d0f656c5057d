"""Campaigns, datasets and profiles of a device whose id was made in another way at that time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from joulemap import InputError
from joulemap.datasets import CostDataset
from joulemap.datasets.journal import FILE_NAME, read_journal
from joulemap.device_agents.simulated import simulated_device
from joulemap.profiler import Protocol, networks, profile

PROTOCOL = Protocol(visits=1, max_visit_s=0.1, has_revisits=False, start_timeout_s=1)


def measure(out: Path, samples: int, **details: Any) -> CostDataset:
    device, _ = simulated_device(lambda widths: 1e-6 * sum(widths), details=details)
    return profile(device, networks.get("lenet5"), samples=samples, out=out, protocol=PROTOCOL)


def test_a_campaign_goes_on_under_the_id_that_it_began_with(tmp_path: Path) -> None:
    before = measure(tmp_path, 3).device_id
    after = measure(tmp_path, 5, former_ids=["f" * 16, before])
    assert after.device_id == before
    journal = read_journal(tmp_path / FILE_NAME)
    assert len({visit.widths for visit in journal.visits}) == 5
    assert journal.campaign.device["device_id"] == before


@pytest.mark.parametrize("former", [[], ["f" * 16], "nonsense", None])
def test_another_device_does_not(tmp_path: Path, former: Any) -> None:
    measure(tmp_path, 3)
    with pytest.raises(InputError, match=r"device: simulated .* there, simulated .* here"):
        measure(tmp_path, 5, former_ids=former)


def test_nor_does_a_copy_of_its_disk_in_another_machine(tmp_path: Path) -> None:
    before = measure(tmp_path, 3, identity={"network": ["a"]}).device_id
    with pytest.raises(InputError, match="device:"):
        measure(tmp_path, 5, former_ids=[before], identity={"network": ["b"]})
    measure(tmp_path, 5, former_ids=[before], identity={"network": ["a", "c"]})


def test_datasets_of_both_ids_are_joined(tmp_path: Path) -> None:
    first = measure(tmp_path / "a", 3)
    second = measure(tmp_path / "b", 4, former_ids=[first.device_id])
    for pair in ([first, second], [second, first]):
        assert len(CostDataset.join(pair)) == 7
    with pytest.raises(InputError, match="different devices"):
        CostDataset.join([first, measure(tmp_path / "c", 3, former_ids=["x"])])

"""Every kind of dataset and campaign through the shipped contracts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from joulemap.datasets import CostDataset, NetworkSpec, Visit
from joulemap.datasets.energy_records import EnergyReading, PowerTrace
from joulemap.datasets.journal import CampaignRecord
from joulemap.datasets.measurement import measurements_of
from joulemap.datasets.testing import DatasetContract, JournalContract

MakeVisits = Callable[..., list[Visit]]


@pytest.fixture
def table() -> pd.DataFrame:
    return pd.DataFrame({"a": [1, 2, 8, 5], "b": [4, 16, 2, 9], "latency_ms": [1.5, 2.0, 3.0, 2.5]})


class TestMeasured(DatasetContract):
    @pytest.fixture
    def dataset(self, campaign: CampaignRecord, make_visits: MakeVisits) -> CostDataset:
        return CostDataset.from_measurements(
            measurements_of(make_visits(campaign.spec, variants=9)),
            campaign.spec,
            device=campaign.device,
            protocol=campaign.protocol,
            source="measured by joulemap",
        )


class TestMeasuredOnce(DatasetContract):
    """One visit per variant: no interval, no noise floor."""

    @pytest.fixture
    def dataset(self, tiny_spec: NetworkSpec, make_visits: MakeVisits) -> CostDataset:
        visits = make_visits(tiny_spec, variants=5, visits=1)
        return CostDataset.from_measurements(
            measurements_of(visits), tiny_spec, device={}, protocol={}
        )


class TestImported(DatasetContract):
    @pytest.fixture
    def dataset(self, table: pd.DataFrame, tiny_spec: NetworkSpec) -> CostDataset:
        return CostDataset.from_frame(table, tiny_spec, source="a colleague's table")


class TestImportedWithGaps(DatasetContract):
    """Several costs, some of them missing, and a size in bytes."""

    @pytest.fixture
    def dataset(self, table: pd.DataFrame, tiny_spec: NetworkSpec) -> CostDataset:
        wide = table.assign(energy_mJ=[1.0, np.nan, 3.0, 4.0], memory_bytes=[1, 2, 3, 4])
        return CostDataset.from_frame(wide, tiny_spec)


class TestUnderSeveralConditions(DatasetContract):
    @pytest.fixture
    def dataset(self, table: pd.DataFrame, tiny_spec: NetworkSpec) -> CostDataset:
        return CostDataset.from_frame(table.assign(batch=[1, 1, 8, 8], threads=2), tiny_spec)


class TestOneRow(DatasetContract):
    @pytest.fixture
    def dataset(self, table: pd.DataFrame, tiny_spec: NetworkSpec) -> CostDataset:
        return CostDataset.from_frame(table.iloc[:1], tiny_spec)


class TestJournal(JournalContract):
    @pytest.fixture
    def visits(self, campaign: CampaignRecord, make_visits: MakeVisits) -> list[Visit]:
        return make_visits(campaign.spec, variants=4)


class TestJournalWithFailures(JournalContract):
    """Visits that failed, one of them measured at the second attempt."""

    @pytest.fixture
    def visits(self, campaign: CampaignRecord, make_visits: MakeVisits) -> list[Visit]:
        first, second, third, *rest = make_visits(campaign.spec, variants=4)
        again = dataclasses.replace(first, attempt=1, sequence=99)
        killed = {"timing": None, "error": "transient: the agent was killed"}
        refused = {"timing": None, "error": "stable: no such operator \u2028 \U0001f9ea"}
        return [
            dataclasses.replace(first, **killed),  # type: ignore[arg-type]
            dataclasses.replace(second, **refused),  # type: ignore[arg-type]
            third,
            *rest,
            again,
        ]


class TestJournalWithEnergy(JournalContract):
    @pytest.fixture
    def visits(self, campaign: CampaignRecord, make_visits: MakeVisits) -> list[Visit]:
        return [
            dataclasses.replace(
                visit,
                energy=EnergyReading.simple(1e-3 / 3, 2e-3 / 3, "counter"),
                power_trace=PowerTrace((0.0, 0.1), (1.0, 2.0), 3, 0, {"window": (0.0, 0.1)}),
            )
            for visit in make_visits(campaign.spec, variants=3)
        ]

"""The contracts of datasets and journals as pytest classes: whatever makes one is tested by them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from joulemap import InputError

from .cost_dataset import CostDataset
from .journal import CampaignRecord, Journal, read_journal
from .records import Visit
from .store import MEASUREMENTS, dataset_of, export_campaign
from .units import unit_of_column


class DatasetContract:
    """What every dataset keeps, wherever its rows come from. Subclasses define a fixture `dataset`.

    The dataset has one network.
    """

    def test_widths_fit_the_network(self, dataset: CostDataset) -> None:
        assert dataset.widths.shape == (len(dataset), len(dataset.width_names))
        assert dataset.width_names == dataset.spec.width_names
        for row in dataset.widths:
            dataset.spec.check_widths([int(value) for value in row])
        expected = 1 - dataset.widths / np.array(dataset.spec.max_widths)
        np.testing.assert_allclose(dataset.sparsity, expected)

    def test_costs_are_positive_and_in_si(self, dataset: CostDataset) -> None:
        assert dataset.cost_names
        for name in dataset.cost_names:
            unit = unit_of_column(name)
            assert unit is not None
            assert unit.factor == 1.0, f"{name} is not in an SI unit"
            assert dataset.unit(name) == unit.si
            cost = dataset.cost(name)
            assert np.all(np.isnan(cost) | (np.isfinite(cost) & (cost > 0)))

    def test_estimates_are_not_measurements(self, dataset: CostDataset) -> None:
        frame = dataset.to_pandas()
        if "energy_j" in frame and frame["energy_j"].notna().any() and "energy_source" in frame:
            measured = frame.loc[frame["energy_j"].notna(), "energy_source"]
            assert set(measured) <= {"counter", "sampled", "simulated"}

    def test_rows_for_fitting_are_complete(self, dataset: CostDataset) -> None:
        for name in dataset.cost_names:
            known = np.isfinite(dataset.cost(name))
            if not known.any():
                with pytest.raises(InputError, match=name):
                    dataset.xyw(name)
            elif known.all():
                X, y, weights = dataset.xyw(name)
                assert X.shape == (len(dataset), len(dataset.feature_names))
                np.testing.assert_array_equal(y, dataset.cost(name))
                assert np.all(weights > 0)
                assert weights.mean() == pytest.approx(1)

    def test_an_unknown_cost_is_refused(self, dataset: CostDataset) -> None:
        with pytest.raises(InputError, match="no cost 'beauty_s'"):
            dataset.cost("beauty_s")

    def test_saved_it_loads_back_equal(self, dataset: CostDataset, tmp_path: Path) -> None:
        dataset.save(tmp_path / "saved")
        for path in (tmp_path / "saved", tmp_path / "saved" / MEASUREMENTS):
            assert_equal(CostDataset.load(path), dataset)
        assert dataset.spec.name in (tmp_path / "saved/README.md").read_text()

    def test_saving_replaces_nothing(self, dataset: CostDataset, tmp_path: Path) -> None:
        dataset.save(tmp_path / "saved")
        before = {item: item.read_bytes() for item in (tmp_path / "saved").iterdir()}
        with pytest.raises(InputError, match="holds a dataset already"):
            dataset.save(tmp_path / "saved")
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine/thesis.tex").write_text("mine")
        with pytest.raises(InputError, match=r"thesis\.tex"):
            dataset.save(tmp_path / "mine")
        assert {item: item.read_bytes() for item in (tmp_path / "saved").iterdir()} == before

    def test_parts_join_to_the_whole(self, dataset: CostDataset) -> None:
        parts = [dataset.rows([index]) for index in range(len(dataset))]
        assert_equal(CostDataset.join(parts), dataset)


class JournalContract:
    """What the journal of every campaign keeps. Subclasses define two fixtures.

    `campaign` returns a CampaignRecord, `visits` at least three visits of it, in order.
    """

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        """Return the path of a journal that is not there yet."""
        return tmp_path / "journal.jsonl"

    @pytest.fixture
    def written(self, path: Path, campaign: CampaignRecord, visits: Sequence[Visit]) -> Path:
        """Return the path of a journal that holds all visits."""
        with Journal.create(path, campaign) as journal:
            for visit in visits:
                journal.append(visit)
        return path

    def test_what_was_appended_is_read_back_equal(
        self, written: Path, campaign: CampaignRecord, visits: Sequence[Visit]
    ) -> None:
        content = read_journal(written)
        assert content.campaign == campaign
        assert list(content.visits) == list(visits)
        assert content.torn_bytes == 0

    def test_a_torn_last_line_costs_that_visit_alone(
        self, written: Path, visits: Sequence[Visit]
    ) -> None:
        written.write_bytes(written.read_bytes()[:-2])
        assert list(read_journal(written).visits) == list(visits[:-1])
        assert read_journal(written).torn_bytes > 0
        with Journal(written) as journal:
            journal.append(visits[-1])
        assert list(read_journal(written).visits) == list(visits)

    def test_damage_is_refused_and_named_by_line(self, written: Path) -> None:
        lines = written.read_bytes().splitlines(keepends=True)
        for number in range(len(lines)):
            damaged = list(lines)
            damaged[number] = b"X" + damaged[number][1:]
            written.write_bytes(b"".join(damaged))
            with pytest.raises(InputError, match=f"line {number + 1} of the journal"):
                Journal(written)
            assert written.read_bytes() == b"".join(damaged)

    def test_a_repeated_visit_is_refused(self, written: Path, visits: Sequence[Visit]) -> None:
        with Journal(written) as journal:
            journal.append(visits[0])
        with pytest.raises(InputError, match="repeats"):
            read_journal(written)

    def test_an_existing_journal_is_never_replaced(
        self, written: Path, campaign: CampaignRecord
    ) -> None:
        before = written.read_bytes()
        with pytest.raises(InputError, match="File exists"):
            Journal.create(written, campaign)
        assert written.read_bytes() == before

    def test_export_holds_what_the_journal_holds(
        self, written: Path, visits: Sequence[Visit]
    ) -> None:
        exported = export_campaign(written.parent)
        assert_equal(exported, dataset_of(read_journal(written)))
        assert_equal(CostDataset.load(written.parent / MEASUREMENTS), exported)
        succeeded = {visit.variant_id for visit in visits if visit.error is None}
        assert len(exported) == len(succeeded)
        assert len(pd.read_parquet(written.parent / "visits.parquet")) == len(visits)


def assert_equal(first: CostDataset, second: CostDataset) -> None:
    """Check that two datasets hold the same rows, costs, networks, device and protocol.

    Raises:
        AssertionError: They do not.
    """
    assert first.specs == second.specs
    assert first.device == second.device
    assert first.protocol == second.protocol
    assert first.source == second.source
    assert first.cost_names == second.cost_names
    np.testing.assert_array_equal(first.widths, second.widths)
    pd.testing.assert_frame_equal(first.conditions, second.conditions, check_dtype=False)
    for name in first.cost_names:
        np.testing.assert_array_equal(first.cost(name), second.cost(name))
        np.testing.assert_array_equal(first.variance(name), second.variance(name))
        np.testing.assert_array_equal(first.interval(name), second.interval(name))
        assert first.noise_floor(name) == second.noise_floor(name)

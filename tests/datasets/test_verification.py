"""What vouches for the content of datasets and journals, and what is said where nothing does."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from joulemap import InputError
from joulemap.datasets import CostDataset, NetworkSpec, Visit
from joulemap.datasets.content_digest import content_digest
from joulemap.datasets.journal import CampaignRecord, Journal, read_journal
from joulemap.datasets.store import MEASUREMENTS, export_campaign
from joulemap.datasets.testing import assert_equal
from joulemap.datasets.verification import UnverifiedWarning

MakeVisits = Callable[..., list[Visit]]
FEW = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)


@pytest.fixture
def folder(tmp_path: Path, campaign: CampaignRecord, make_visits: MakeVisits) -> Path:
    """A campaign's folder, exported."""
    with Journal.create(tmp_path / "journal.jsonl", campaign) as journal:
        for visit in make_visits(campaign.spec, variants=4):
            journal.append(visit)
    export_campaign(tmp_path)
    return tmp_path


@pytest.fixture
def parquet(tmp_path: Path, tiny_spec: NetworkSpec) -> Path:
    """The file of an imported table, with intervals."""
    frame = pd.DataFrame({"a": [1, 2, 8, 5], "b": [4, 16, 2, 9], "latency_s": [1.5, 2.0, 3.0, 2.5]})
    frame["latency_ci_low_s"] = frame["latency_s"] * 0.9
    frame["latency_ci_high_s"] = frame["latency_s"] * 1.1
    CostDataset.from_frame(frame, tiny_spec).save(tmp_path / "imported")
    return tmp_path / "imported" / MEASUREMENTS


def old_journal(path: Path, campaign: CampaignRecord, visits: list[Visit]) -> None:
    """Write a journal as joulemap did before its lines were chained."""
    with Journal.create(path, dataclasses.replace(campaign, schema_version=2)) as journal:
        for visit in visits:
            journal.append(visit)
    assert b"previous" not in path.read_bytes()


def old_parquet(path: Path, **changes: Any) -> None:
    """Make a file as joulemap wrote it before it had a digest."""
    table = pq.read_table(path)
    about = json.loads(table.schema.metadata[b"joulemap"])
    about = {**about, "format_version": 1}
    for name in ("sha256", "is_verified", "notes"):
        about.pop(name)
    frame = table.to_pandas(ignore_metadata=True).assign(**changes)
    table = pa.Table.from_pandas(frame, preserve_index=False)
    pq.write_table(table.replace_schema_metadata({b"joulemap": json.dumps(about).encode()}), path)


# -- Parquet --------------------------------------------------------------------------------------


@FEW
@given(bit=st.floats(0, 1, exclude_max=True))
def test_no_flipped_bit_changes_a_number(parquet: Path, tmp_path: Path, bit: float) -> None:
    before = CostDataset.load(parquet)
    data = bytearray(parquet.read_bytes())
    position = int(bit * 8 * len(data))
    data[position // 8] ^= 1 << position % 8
    path = tmp_path / "flipped.parquet"
    path.write_bytes(data)
    try:
        after = CostDataset.load(path)
    except InputError as error:
        assert str(path) in str(error)  # noqa: PT017
    else:
        assert_equal(after, before)


def test_the_digest_survives_a_rewrite_of_the_same_values(parquet: Path) -> None:
    before = CostDataset.load(parquet)
    table = pq.read_table(parquet)
    columns = table.column_names[::-1]
    for name in columns:
        if pa.types.is_string(table.schema.field(name).type):
            place = table.column_names.index(name)
            table = table.set_column(place, name, table[name].dictionary_encode())
    pq.write_table(table.select(columns), parquet, compression="zstd", row_group_size=2)
    after = CostDataset.load(parquet)
    assert_equal(after, before)
    assert after.is_verified is True


def test_another_number_is_refused_and_can_be_read_on_purpose(parquet: Path) -> None:
    table = pq.read_table(parquet)
    frame = table.to_pandas(ignore_metadata=True)
    frame.loc[1, "latency_s"] *= 1.01
    changed = pa.Table.from_pandas(frame, preserve_index=False)
    pq.write_table(changed.replace_schema_metadata(table.schema.metadata), parquet)
    with pytest.raises(InputError, match=r"its digest does not match .* allow_damaged=True"):
        CostDataset.load(parquet)
    with pytest.warns(UnverifiedWarning, match="digest does not match"):
        dataset = CostDataset.load(parquet, allow_damaged=True)
    assert dataset.is_verified is False
    assert dataset.latency_s[1] == pytest.approx(2.02)


def test_a_digest_that_was_taken_out_is_missed(parquet: Path) -> None:
    table = pq.read_table(parquet)
    about = json.loads(table.schema.metadata[b"joulemap"])
    del about["sha256"]
    pq.write_table(
        table.replace_schema_metadata({b"joulemap": json.dumps(about).encode()}), parquet
    )
    with pytest.raises(InputError, match="digest of its content is missing"):
        CostDataset.load(parquet)


def test_an_old_file_loads_and_says_everywhere_that_nothing_vouches_for_it(
    parquet: Path, tmp_path: Path
) -> None:
    before = CostDataset.load(parquet)
    assert before.is_verified is True
    assert "is verified" in before.describe()[-1]
    old_parquet(parquet)
    old = CostDataset.load(parquet)
    assert_equal(old, before)
    assert old.is_verified is False
    assert "not verified" in repr(old)
    assert "not verified" in old.describe()[-2]
    assert "an older joulemap wrote it" in old.describe()[-1]
    assert old.rows([0]).is_verified is False
    assert CostDataset.join([old, before]).is_verified is False
    # Whoever saves it again vouches for the file, and not for where it came from.
    old.save(tmp_path / "again")
    assert "not verified" in (tmp_path / "again/README.md").read_text()
    assert CostDataset.load(tmp_path / "again").is_verified is False


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"latency_s": [1.5, 20.0, 3.0, 2.5]},
            "row 2: latency_s is 20.0, which lies above its own",
        ),
        ({"latency_s": [1.5, 2.0, 0.3, 2.5]}, "row 3: latency_s is 0.3, which lies below its own"),
        ({"latency_s": [1.5, 2.0, -3.0, 2.5]}, "row 3 has latency_s -3.0"),
        ({"latency_ci_low_s": np.inf}, "row 1: latency_ci_low_s is inf, which is not finite"),
        ({"latency_standard_error_s": -1.0}, "latency_standard_error_s is -1.0, which is negative"),
        ({"a": [1, 2, 8, 2000]}, "row 4: the width a is 2000, not an int in"),
        ({"a": [1, 2, 8, 2.5]}, "row 4: the width a is 2.5, not an int in"),
        ({"a": "x"}, "the width a has values that are no ints"),
        ({"threads": 0}, "row 1: threads is 0, which is no count above 0"),
        ({"batch": np.nan}, "row 1: batch is nan, which is no count above 0"),
        ({"num_visits": -1}, "row 1: num_visits is -1, which is no count"),
        ({"precision": 8}, "row 1: precision is 8, not a text"),
        ({"latency_s": "fast"}, "damaged or no dataset"),
        ({"latency_s": [[1.0, 2.0]] * 4}, "the column 'latency_s' holds values of the type list"),
        ({"note": [{"a": 1}] * 4}, "the column 'note' holds values of the type struct"),
    ],
)
def test_rows_that_no_measurement_gives_are_refused(
    parquet: Path, changes: dict[str, Any], problem: str
) -> None:
    old_parquet(parquet, **changes)
    with pytest.raises(InputError, match=problem):
        CostDataset.load(parquet)


def test_a_small_file_that_unpacks_to_a_giant_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "giant.parquet"
    pq.write_table(pa.table({"x": pa.nulls(60_000_000, pa.int8())}), path)
    assert path.stat().st_size < 1 << 20
    with pytest.raises(InputError, match="it holds more than 50000000 values"):
        CostDataset.load(path)


@given(
    values=st.lists(st.one_of(st.none(), st.floats(), st.integers(-(2**60), 2**60)), max_size=5),
    texts=st.lists(st.one_of(st.none(), st.text(max_size=3)), min_size=5, max_size=5),
    change=st.integers(0, 4),
)
def test_the_digest_is_of_values_and_of_each_of_them(
    values: list[float | None], texts: list[str | None], change: int
) -> None:
    values = [None if value is None else float(value) for value in values] + [None] * 5
    frame = {"x": pa.array(values[:5], pa.float64()), "y": pa.array(texts, pa.string())}
    table = pa.table(frame)
    digest = content_digest(table, {"b": [1], "a": None})
    other = pa.table({"y": frame["y"].cast(pa.large_string()), "x": frame["x"]})
    assert content_digest(other, {"a": None, "b": (1,)}) == digest
    assert content_digest(table, {"b": [2], "a": None}) != digest
    texts[change] = (texts[change] or "") + "!"
    assert (
        content_digest(pa.table({**frame, "y": pa.array(texts)}), {"b": [1], "a": None}) != digest
    )


# -- journals -------------------------------------------------------------------------------------


@FEW
@given(seed=st.integers(0, 10**6))
def test_lines_taken_out_moved_or_doubled_are_said(folder: Path, tmp_path: Path, seed: int) -> None:
    lines = (folder / "journal.jsonl").read_bytes().splitlines(keepends=True)
    draw = random.Random(seed)
    changed = list(lines)
    first, second = sorted(draw.sample(range(len(lines)), 2))
    kind = draw.choice(("taken out", "moved", "doubled", "swapped"))
    if kind == "taken out":
        del changed[first:second]
    elif kind == "moved":
        changed.insert(second, changed.pop(first))
    elif kind == "doubled":
        changed.insert(second, changed[first])
    else:
        changed[first], changed[second] = changed[second], changed[first]
    path = tmp_path / "changed.jsonl"
    path.write_bytes(b"".join(changed))
    sound = next(i for i, (a, b) in enumerate(zip(changed, [*lines, b""], strict=False)) if a != b)
    with pytest.raises(InputError, match=f"line {sound + 1} of the journal"):
        read_journal(path)
    if sound:
        content = read_journal(path, allow_damaged=True)
        assert len(content.checksums) == sound
        assert content.damage is not None
        assert not content.is_verified


def test_a_journal_cut_in_its_middle_can_be_continued_from_before_the_cut(
    folder: Path, tmp_path: Path
) -> None:
    data = (folder / "journal.jsonl").read_bytes()
    middle = len(data) // 2
    (folder / "journal.jsonl").write_bytes(data[:middle] + data[middle + 100 :])
    with pytest.raises(
        InputError, match=r"checksum does not match; .* head -n \d+ journal.jsonl >"
    ):
        CostDataset.load(folder)
    sound = data[:middle].count(b"\n")
    with pytest.warns(UnverifiedWarning, match="Only what stands before the damage was read"):
        dataset = CostDataset.load(folder, allow_damaged=True)
    assert dataset.is_verified is False
    # What the message advises.
    kept = tmp_path / "kept" / "journal.jsonl"
    kept.parent.mkdir()
    kept.write_bytes(b"".join(data.splitlines(keepends=True)[:sound]))
    assert_equal(CostDataset.load(kept.parent), dataset)


def test_lines_lost_at_the_end_are_found_by_the_count_in_the_dataset(folder: Path) -> None:
    whole = CostDataset.load(folder)
    path = folder / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-2]))
    with pytest.raises(
        InputError, match=rf"lost lines at its end: it has {len(lines) - 2}, and had"
    ):
        CostDataset.load(folder)
    assert_equal(CostDataset.load(folder / MEASUREMENTS), whole)
    assert len(CostDataset.load(folder, allow_damaged=True)) <= len(whole)
    # A campaign that goes on writes more lines than were counted.
    path.write_bytes(b"".join(lines))
    with Journal(path) as journal:
        journal.reject(journal.content.visits[-1].key, "for the test")
    assert CostDataset.load(folder).is_verified is True


def test_the_dataset_of_another_journal_is_noticed(
    folder: Path, campaign: CampaignRecord, make_visits: MakeVisits
) -> None:
    (folder / "journal.jsonl").unlink()
    visits = make_visits(campaign.spec, variants=5)
    with Journal.create(folder / "journal.jsonl", campaign) as journal:
        for visit in visits[::-1]:
            journal.append(visit)
    with pytest.raises(InputError, match="written from another journal"):
        CostDataset.load(folder)


def test_an_old_journal_loads_goes_on_and_is_marked(
    tmp_path: Path, campaign: CampaignRecord, make_visits: MakeVisits
) -> None:
    visits = make_visits(campaign.spec, variants=4)
    path = tmp_path / "journal.jsonl"
    old_journal(path, campaign, visits[:-1])
    path.write_bytes(path.read_bytes() + b'{"torn')
    with Journal(path) as journal:
        assert journal.content.torn_bytes == 6
        journal.append(visits[-1])
    content = read_journal(path)
    assert list(content.visits) == visits
    assert not content.is_verified
    dataset = CostDataset.load(tmp_path)
    assert dataset.is_verified is False
    assert "whose lines do not vouch for each other" in dataset.describe()[-1]
    assert export_campaign(tmp_path).is_verified is False
    assert "not verified" in (tmp_path / "README.md").read_text()
    assert CostDataset.load(tmp_path / MEASUREMENTS).is_verified is False


def test_a_torn_last_line_is_said(folder: Path) -> None:
    path = folder / "journal.jsonl"
    path.write_bytes(path.read_bytes() + b'{"torn')
    dataset = CostDataset.load(folder)
    assert dataset.is_verified is True
    assert "a torn line of 6 bytes, which was left out" in dataset.describe()[-1]

"""What a campaign is asked to do: checked once, kept in the journal."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from joulemap import InputError
from joulemap.datasets.journal import FILE_NAME, Journal, read_journal
from joulemap.profiler import CampaignSettings, Protocol, networks, profile

FAST = Protocol(visits=2, has_revisits=False, max_further_visits=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples": 0}, "samples is 0; it must be a whole number of at least 1, such as samples"),
        ({"samples": "many"}, "samples is 'many'"),
        ({"samples": True}, "samples is True"),
        ({"samples": None}, "either samples, a number, or widths"),
        ({"widths": [[6, 16, 120, 84]]}, "either samples, a number, or widths"),
        ({"samples": None, "widths": [[6, 16, 120, 84]], "sources": ("a",)}, "sources choose"),
        ({"batch": 0}, "batch is 0"),
        ({"threads": 1.5}, "threads is 1.5"),
        ({"layers": -1}, "layers is -1"),
        ({"precision": "int8"}, "known: fp32"),
        ({"runtime": "magic"}, "unknown runtime 'magic'"),
        ({"url": "local:", "meter": "magic"}, "unknown meter 'magic'"),
        ({"resolution": (32, 0)}, "resolution is"),
        ({"lock_frequency": "no"}, "true or false"),
        ({"network": "x" * 1000, "seed": "y" * 1000}, "seed is"),
    ],
)
def test_a_value_that_cannot_be_is_refused_and_told(changes: dict[str, Any], message: str) -> None:
    values: dict[str, Any] = {"network": "lenet5", "out": "x", "samples": 5, **changes}
    with pytest.raises(InputError, match=message) as caught:
        CampaignSettings(**values)
    assert len(str(caught.value)) < 400


def test_settings_lie_in_the_journal_and_those_that_do_not_count_may_change(
    tmp_path: Path,
) -> None:
    out = tmp_path / "run"
    profile("sim:eyeriss", "lenet5", samples=3, out=out, seed=2, protocol=FAST)
    kept = read_journal(out / FILE_NAME).campaign.settings
    assert (kept["network"], kept["samples"], kept["seed"]) == ("lenet5", 3, 2)
    assert Protocol(**kept["protocol"]) == FAST
    assert not {"url", "out", "sources"} & set(kept)
    before = (out / FILE_NAME).read_bytes()
    profile("sim:eyeriss", networks.get("lenet5"), samples=3, out=out, seed=2, protocol=FAST)
    assert (out / FILE_NAME).read_bytes() == before
    with pytest.raises(InputError, match="seed: 2 there, 3 here"):
        profile("sim:eyeriss", "lenet5", samples=3, out=out, seed=3, protocol=FAST)


def test_listed_widths_are_kept_as_they_were_given(tmp_path: Path) -> None:
    vectors = [[6, 16, 120, 84], [3, 8, 60, 42]]
    profile("sim:eyeriss", "lenet5", widths=vectors, out=tmp_path, protocol=FAST)
    kept = read_journal(tmp_path / FILE_NAME).campaign.settings
    assert (kept["widths"], kept["samples"]) == (vectors, None)


def test_a_journal_from_before_settings_continues(tmp_path: Path) -> None:
    out = tmp_path / "run"
    profile("sim:eyeriss", "lenet5", samples=2, out=out, protocol=FAST)
    content = read_journal(out / FILE_NAME)
    (out / FILE_NAME).unlink()
    (out / "measurements.parquet").unlink()
    older = dataclasses.replace(content.campaign, settings={})
    with Journal.create(out / FILE_NAME, older) as journal:
        for visit in content.visits:
            journal.append(visit)
    assert b"settings" not in (out / FILE_NAME).read_bytes()
    assert read_journal(out / FILE_NAME).campaign.settings == {}
    assert len(profile("sim:eyeriss", "lenet5", samples=3, out=out, protocol=FAST)) == 3

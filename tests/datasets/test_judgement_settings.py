"""What visits are judged by: one value, kept in the journal, by which its dataset is estimated."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from joulemap import InputError
from joulemap.datasets import CostDataset, JudgementSettings, NetworkSpec, Visit
from joulemap.datasets.estimation import CampaignEstimate
from joulemap.datasets.journal import FILE_NAME, CampaignRecord, Journal, read_journal
from joulemap.datasets.judgement_settings import UNRECORDED_JUDGEMENT
from joulemap.datasets.store import export_campaign
from joulemap.profiler import Protocol, profile
from joulemap.profiler.campaign.settings_file import read_settings, settings_of

STRICT = JudgementSettings(outlier_change=0.01, outlier_sd=0.5)
FAST = Protocol(visits=2, has_revisits=False, max_further_visits=0)


def written(folder: Path, campaign: CampaignRecord, visits: list[Visit]) -> Path:
    folder.mkdir()
    with Journal.create(folder / FILE_NAME, campaign) as journal:
        for visit in visits:
            journal.append(visit)
    return folder


def test_a_dataset_is_estimated_by_the_settings_of_its_journal(
    campaign: CampaignRecord,
    tiny_spec: NetworkSpec,
    make_visits: Callable[..., list[Visit]],
    tmp_path: Path,
) -> None:
    visits = make_visits(tiny_spec, noise=0.1)
    usual = written(tmp_path / "usual", campaign, visits)
    strict = written(tmp_path / "strict", dataclasses.replace(campaign, judgement=STRICT), visits)
    assert read_journal(strict / FILE_NAME).campaign.judgement == STRICT
    rejected = len(CampaignEstimate(visits, judgement=STRICT).rejections)
    counts = [CostDataset.load(each).to_pandas()["num_rejected_visits"] for each in (usual, strict)]
    assert counts[0].sum() < counts[1].sum() == rejected
    assert len(CampaignEstimate(visits).rejections) == counts[0].sum()
    exported = export_campaign(strict)
    again = CostDataset.load(strict / "measurements.parquet")
    assert exported.judgement == again.judgement == again.rows([0]).judgement == STRICT
    assert next(iter(again.by_spec().values())).judgement == STRICT
    card = (strict / "README.md").read_text().replace("\\", "")
    assert "- outlier_change: 0.01" in card
    export_campaign(usual)
    assert "judged by joulemap's own settings;" in (usual / "README.md").read_text()
    both = CostDataset.join([CostDataset.load(usual), again])
    assert both.judgement is None


def test_a_journal_that_does_not_say_it_is_judged_as_when_it_was_written(
    campaign: CampaignRecord, tmp_path: Path
) -> None:
    said = campaign.to_dict()
    assert set(said.pop("judgement")) == {
        item.name for item in dataclasses.fields(JudgementSettings)
    }
    assert CampaignRecord.from_dict(said).judgement == UNRECORDED_JUDGEMENT
    older = dataclasses.replace(campaign, schema_version=2)
    assert "judgement" not in older.to_dict()
    assert CampaignRecord.from_dict(older.to_dict()).differences(campaign) == []
    # Journals of the first versions were judged by these, and still are.
    spoken = json.dumps(UNRECORDED_JUDGEMENT.to_dict(), sort_keys=True)
    for text in ('"max_change": 0.08', '"min_state_gap": 0.12', '"outlier_sd": 5.0'):
        assert text in spoken


def test_a_campaign_continues_with_its_own_settings_alone(tmp_path: Path) -> None:
    out = tmp_path / "run"
    wide = JudgementSettings(max_change=0.2)
    profile("sim:eyeriss", "lenet5", samples=2, out=out, protocol=FAST, judgement=wide)
    before = (out / FILE_NAME).read_bytes()
    with pytest.raises(InputError, match=r"judgement max_change: 0\.2 there, 0\.08 here"):
        profile("sim:eyeriss", "lenet5", samples=3, out=out, protocol=FAST)
    assert (out / FILE_NAME).read_bytes() == before
    more = profile("sim:eyeriss", "lenet5", samples=3, out=out, protocol=FAST, judgement=wide)
    assert (len(more), more.judgement) == (3, wide)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"max_change": -1}, "judgement max_change is -1; it must be a number from 1e-06 to 1e"),
        ({"max_change": float("nan")}, "max_change is nan"),
        ({"max_change": True}, "max_change is True"),
        ({"max_change": "x" * 1000}, "max_change is xxx"),
        ({"fit_rounds": 2.5}, "fit_rounds is 2.5; it must be a whole number from 1 to 100"),
        ({"fit_rounds": 10**400}, "fit_rounds is 1000"),
        ({"baseline_share": 1.0}, "baseline_share is 1.0"),
        ({"magic": 1}, "no judgement setting 'magic'"),
        ([], "no names with numbers"),
    ],
)
def test_what_cannot_be_is_refused_and_told(content: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        JudgementSettings.from_dict(content)
    assert len(str(caught.value)) < 400


def test_a_campaigns_file_may_hold_them(tmp_path: Path) -> None:
    file = tmp_path / "campaign.toml"
    file.write_text("network = 'lenet5'\nout = 'x'\nsamples = 3\n[judgement]\nmax_change = 0.2\n")
    assert settings_of(read_settings(file), file).judgement == JudgementSettings(max_change=0.2)
    file.write_text("[judgement]\nmax_chang = 0.2\n")
    with pytest.raises(InputError, match=r"campaign\.toml: under \[judgement\]: there is no jud"):
        read_settings(file)

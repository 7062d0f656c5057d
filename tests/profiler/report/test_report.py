"""What a report says and refuses, read off its text."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from joulemap import InputError
from joulemap.datasets import CostDataset
from joulemap.datasets.journal import FILE_NAME, Journal, read_journal
from joulemap.models import BilinearPredictor, FlopsPredictor
from joulemap.models.learning_curve import learning_curves
from joulemap.profiler import networks
from joulemap.profiler.report import write_report
from joulemap.profiler.report.content import bootstrap, gather
from joulemap.profiler.report.figures import parts
from joulemap.profiler.report.judgement import judge

from .conftest import AlignedStandIn

SECTIONS = (
    "warnings accuracy learning widths parts rounding drift provenance definitions".split()  # noqa: SIM905
)


class Text(HTMLParser):
    """Collects a page's visible text, its tags and its links to elsewhere."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.said: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.feed(page)
        self.text = re.sub(r"\s+", " ", " ".join(self.said))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [
            str(value) for name, value in attrs if name in ("href", "src", "xlink:href", "action")
        ]

    def handle_data(self, data: str) -> None:
        self.said.append(data)


def page_of(folder: Path, predictor: BilinearPredictor | FlopsPredictor, out: Path) -> Text:
    write_report(folder, predictor, out)
    return Text(out.read_text(encoding="utf-8"))


def test_the_page_says_what_was_measured_how_and_how_well(
    campaign_folder: Path, fitted: AlignedStandIn, tmp_path: Path
) -> None:
    headline = write_report(campaign_folder, fitted, tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    text = Text(page)
    for name in SECTIONS:
        assert f'id="{name}"' in page
    journal = read_journal(campaign_folder / FILE_NAME)
    dataset = CostDataset.load(campaign_folder)
    floor = dataset.noise_floor()
    assert floor is not None
    assert headline.noise_floor == floor
    assert headline.is_held_out
    assert headline.error.low < headline.error.value < headline.error.high
    for said in (
        "lenet5",
        str(journal.campaign.device["device_id"]),
        journal.campaign.runtime_version,
        f"{100 * headline.error.value:.1f} %",
        f"{100 * floor.low:.1f} % to {100 * floor.high:.1f} %",
        f"{floor.num_pairs} pairs",
        f"{len(dataset)} variants",
        "sobol, seed 0",
        "fp32",
        "threads 1",
        f"resolution {journal.campaign.conditions.resolution}",
        "95 % interval of the measurement, over its visits",
        "Which layers cost most",
        "multiples of 4",
        "all others",
        journal.visits[0].started_at[:10],
        journal.campaign.spec.fingerprint,
        "state 2",
    ):
        assert said in text.text, said
    assert "script" not in text.tags
    assert all(link.startswith("#") for link in text.links)
    assert not re.search(r"https?://|url\(|@import|@font-face", page)


def test_every_chart_is_well_formed_and_says_what_it_shows(
    campaign_folder: Path, fitted: AlignedStandIn, tmp_path: Path
) -> None:
    write_report(campaign_folder, fitted, tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    charts = [ElementTree.fromstring(c) for c in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]  # noqa: S314
    assert len(charts) == 3 + 4 + 2 + 2  # accuracy, learning; widths; parts and drift, each twice
    for chart in charts:
        assert chart.get("role") == "img"
        assert len(chart.get("aria-label", "")) > 10
        assert "nan" not in ElementTree.tostring(chart, encoding="unicode").lower()


def test_hostile_texts_are_shown_and_not_obeyed(
    campaign_folder: Path, fitted: AlignedStandIn, tmp_path: Path
) -> None:
    content = read_journal(campaign_folder / FILE_NAME)
    evil = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'"
    device = {**content.campaign.device, "cpu_model": evil, evil: evil}
    campaign = replace(
        content.campaign, device=device, runtime_version=evil, protocol={"<b>x": "</style>"}
    )
    folder = tmp_path / "evil"
    folder.mkdir()
    with Journal.create(folder / FILE_NAME, campaign) as journal:
        for visit in content.visits:
            journal.append(replace(visit, started_at=evil))
        for key in content.rejections:
            journal.reject(key, evil)
    text = page_of(folder, fitted, tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "img" not in text.tags
    assert "b" not in text.tags
    assert page.count("</style>") == 1
    assert "slower <b>elsewhere</b>" in text.text  # describe()'s, as text


def test_an_imported_table_has_no_drift_and_says_why(imported: CostDataset, tmp_path: Path) -> None:
    imported.save(tmp_path / "own")
    predictor = BilinearPredictor().fit_dataset(imported)
    text = page_of(tmp_path / "own", predictor, tmp_path / "r.html").text
    for said in (
        "There is no journal beside this dataset",
        "noise floor is unknown",
        "Which widths cost most",
        "How much the cost falls when one width is halved",
        "does not look for multiples of channels",
        "imported from <own>.csv",
        "no interval of the single measurements is known",
    ):
        assert said in text, said


def test_a_predictor_of_something_else_is_refused(
    campaign_folder: Path, imported: CostDataset, fitted: AlignedStandIn, tmp_path: Path
) -> None:
    out = tmp_path / "r.html"
    spec = networks.get("alexnet")
    widths = [spec.max_widths, spec.min_widths]
    other = FlopsPredictor(spec).fit(np.array(widths), [2.0, 1.0])
    with pytest.raises(InputError, match="of alexnet, the dataset measures another network"):
        write_report(campaign_folder, other, out)
    imported.save(tmp_path / "own")
    energy = FlopsPredictor().fit_dataset(imported)
    energy.target_ = "energy_x_j"
    with pytest.raises(InputError, match="of energy_x_j, which the dataset does not have"):
        write_report(tmp_path / "own", energy, out)
    threads = FlopsPredictor().fit_dataset(CostDataset.load(campaign_folder))
    threads.conditions_["threads"] = 4
    with pytest.raises(InputError, match="unlike conditions: threads 4 and 1"):
        write_report(campaign_folder, threads, out)
    with pytest.raises(InputError, match="there is no folder"):
        write_report(campaign_folder, fitted, tmp_path / "missing/r.html")
    with pytest.raises(InputError, match="it is a folder"):
        write_report(campaign_folder, fitted, tmp_path)
    assert not out.exists()


def test_a_failed_write_leaves_the_old_page(
    campaign_folder: Path, fitted: AlignedStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "r.html"
    out.write_text("old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("joulemap.regular_files.os.fsync", full)
    with pytest.raises(InputError, match="No space left on device"):
        write_report(campaign_folder, fitted, out)
    assert out.read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["r.html"]


def test_numbers_are_those_of_the_data(imported: CostDataset) -> None:
    predictor = AlignedStandIn().fit_dataset(imported)
    content = gather(imported, predictor, None)
    held_out = predictor.held_out_
    assert held_out is not None
    expected = np.mean(np.abs(held_out.predicted / imported.latency_s - 1))
    assert content.comparison.error.value == pytest.approx(expected)
    own = content.curves[0]
    assert own.counts[-1] == 24
    assert own.mapes.shape == (len(own.counts), 5)
    assert dict(content.shares.parts) == {
        name: estimate
        for name, estimate in content.shares.parts
        if estimate.low <= estimate.value <= estimate.high
    }
    assert sum(p.value for _, p in content.shares.parts) == pytest.approx(
        content.shares.total.value
    )
    fast, slow = content.width_curves[1].regimes
    assert set(fast.widths.tolist()) == {4.0, 8.0, 12.0, 16.0}
    assert len(fast.widths) + len(slow.widths) == 16
    assert content.rounding is not None
    assert (content.rounding <= 1e-12).all()


def test_without_layers_the_fall_from_halving_is_shown(imported: CostDataset) -> None:
    predictor = FlopsPredictor().fit_dataset(imported)
    shares = gather(imported, predictor, None).shares
    assert not shares.is_by_layer
    spec = imported.spec
    full = predictor.predict([spec.max_widths])[0]
    halved = predictor.predict([(3, *spec.max_widths[1:])])[0]
    assert dict(shares.parts)["conv1"].value == pytest.approx(full - halved)


def test_a_model_that_is_a_constant_says_so(imported: CostDataset) -> None:
    content = gather(imported, FlopsPredictor().fit_dataset(imported), None)
    without = replace(content, shares=replace(content.shares, parts=()))
    assert "constant" in str(parts(without))
    assert "constant" not in str(parts(content))


def test_judgement_names_what_limits_the_fit(imported: CostDataset) -> None:
    few = imported.rows(range(8))
    said = " ".join(judge(gather(few, FlopsPredictor().fit_dataset(few), None)))
    assert "8 variants are few for 4 widths" in said
    other = FlopsPredictor().fit_dataset(imported.rows(range(20)))
    said = " ".join(judge(gather(imported, other, None)))
    assert "fitted to other data (20 measurements)" in said
    narrow = imported.rows(np.flatnonzero(imported.widths[:, 2] > 60))
    said = " ".join(judge(gather(narrow, FlopsPredictor().fit_dataset(narrow), None)))
    assert "span only part of some widths: fc1 (" in said
    table = imported.to_pandas()[list(imported.width_names)] // 2 + 1
    table["latency_s"] = [1e-8 * imported.spec.at(row).macs for row in table.to_numpy()]
    small = CostDataset.from_frame(table, imported.spec)
    said = " ".join(judge(gather(small, FlopsPredictor().fit_dataset(small), None)))
    assert re.search(r"predicted to cost [\d.]+ times the dearest variant", said)


def test_a_predictor_without_data_has_no_intervals_and_says_so(
    imported: CostDataset, tmp_path: Path
) -> None:
    fitted = FlopsPredictor().fit_dataset(imported)
    fitted.held_out_ = None
    imported.save(tmp_path / "own")
    text = page_of(tmp_path / "own", fitted, tmp_path / "r.html").text
    assert "The predictor was not fitted on data" in text
    assert "no interval is known" in text


def test_learning_curves_fall_and_share_folds(imported: CostDataset) -> None:
    predictor = AlignedStandIn().fit_dataset(imported)
    before = predictor.predict(imported.widths)
    curves, fits = learning_curves(predictor, imported, ["flops", "bilinear"], points=4)
    assert [curve.model for curve in curves] == ["alignedstandin", "flops", "bilinear"]
    assert len(fits) == 5
    # Costs without noise: a model that knows their form is exact once it has rows enough.
    assert curves[0].mean[-1] < max(curves[0].mean[0], 1e-12)
    assert curves[1].mean[-1] < curves[1].mean[0]
    assert np.array_equal(predictor.predict(imported.widths), before)
    assert learning_curves(predictor, imported.rows(range(3))) == ([], [])


def test_a_bootstrap_interval_holds_its_statistic() -> None:
    values = np.random.default_rng(0).normal(1.0, 0.1, 400)
    estimate = bootstrap(values)
    assert estimate.high - estimate.low == pytest.approx(4 * 0.1 / 20, rel=0.15)
    assert math.isnan(bootstrap(values[:1]).low)

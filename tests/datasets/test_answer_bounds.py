"""What devices say has bounds: no number of theirs costs another measurement."""

from __future__ import annotations

import copy
import json
import math
import zlib
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from joulemap import InputError
from joulemap.datasets import Block, CostDataset, DroppedRowsWarning, Timing, Visit
from joulemap.datasets.answer_bounds import BOUNDS, MAX_ITEMS, checked, cleaned
from joulemap.datasets.energy_records import (
    EnergyEstimateReading,
    EnergyReading,
    MeterCheck,
    PowerTrace,
)
from joulemap.datasets.field_checks import count, finite, index
from joulemap.datasets.journal import CampaignRecord, Journal, read_journal
from joulemap.datasets.store import export_campaign
from joulemap.device_agents.onboard.energy.meter import MeterInfo
from joulemap.device_agents.onboard.energy.window import Energy

MakeVisits = Callable[..., list[Visit]]
HUGE = 10**400
NO_NUMBERS = [HUGE, -HUGE, 1e308, math.inf, -math.inf, math.nan, True, "1", [[1]], {}, 2**90]


def test_each_bound_holds_one_and_says_why() -> None:
    for table in BOUNDS.values():
        for name, bound in table.items():
            assert bound.low < bound.high < math.inf, name
            assert len(bound.why) > 8
            assert abs(bound.high * bound.longest) < 1e60


@pytest.mark.parametrize(
    ("kind", "record"),
    [
        *(("visit", each) for each in (Block, Timing, EnergyReading, MeterCheck, PowerTrace)),
        *(("visit", each) for each in (EnergyEstimateReading, Energy)),
        ("meters", MeterInfo),
        ("prepare", MeterInfo),
    ],
)
def test_every_number_of_a_record_has_a_bound_of_its_own(kind: str, record: Any) -> None:
    numbers = [f.name for f in fields(record) if "float" in str(f.type) or "int" in str(f.type)]
    assert not {name for name in numbers if name != "machine"} - {*BOUNDS[kind], "spans_s"}


@pytest.mark.parametrize("value", NO_NUMBERS, ids=[str(each)[:9] for each in NO_NUMBERS])
def test_no_field_takes_what_is_no_possible_number(value: Any) -> None:
    for kind, table in BOUNDS.items():
        for name in table:
            with pytest.raises(InputError, match=name):
                checked(kind, {"energy": {name: value}})
            made, problems = cleaned(kind, {"deep": [{name: value}]})
            assert made["deep"][0][name] is None
            assert problems


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*BOUNDS["visit"], "is_so", "other"]), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(st.sampled_from(sorted(BOUNDS)), JSON)
def test_what_is_left_of_an_answer_can_be_written_and_counted_with(kind: str, answer: Any) -> None:
    found, problems = cleaned(kind, answer)
    json.dumps(found, allow_nan=False)
    again, none = cleaned(kind, found)
    assert again == found
    assert not none
    for number in _numbers(found):
        assert math.isfinite(float(number))
        assert abs(number) < 2**63 or isinstance(number, float)
    assert bool(problems) == (found != answer) or any(map(math.isnan, _floats(answer)))


def _numbers(value: Any) -> list[Any]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [number for item in value for number in _numbers(item)]
    return [value] if isinstance(value, (int, float)) and not isinstance(value, bool) else []


def _floats(value: Any) -> list[float]:
    return [number for number in _numbers(value) if isinstance(number, float)]


def test_lists_without_end_and_answers_without_bottom_are_refused() -> None:
    with pytest.raises(InputError, match="more than"):
        checked("visit", {"flags": ["x"] * (MAX_ITEMS + 1)})
    deep: Any = 1
    for _ in range(2000):
        deep = {"a": deep}
    with pytest.raises(InputError, match="without end"):
        checked("probe", deep)


@pytest.mark.parametrize("check", [finite, index, count])
def test_a_checked_field_of_any_file_is_a_number_of_bounded_size(check: Any) -> None:
    for value in (HUGE, -HUGE, 10**5000, math.nan, math.inf, True, "1", None):
        with pytest.raises(InputError, match="x is") as caught:
            check("x", value)
        assert len(str(caught.value)) < 200


def poisoned(timing: dict[str, Any], kind: str) -> dict[str, Any]:
    made = copy.deepcopy(timing)
    first = made["blocks"][0]
    if kind == "calls":
        first["calls_per_run"] = HUGE
    if kind == "all runs":
        for block in made["blocks"]:
            block["latencies_s"] = [1e308] * len(block["latencies_s"])
    if kind == "one run":
        first["latencies_s"][0] = 1e308
    if kind == "sum":
        first["calls_per_run"] = 10**9
        first["latencies_s"] = [80_000.0] * 100
    if kind == "sum of blocks":
        made["blocks"] = [{**first, "calls_per_run": 1, "latencies_s": [80_000.0] * 5}] * 4
    if kind == "load":
        made["load_s"] = HUGE
    if kind == "tiny":
        made["reference_before"]["latencies_s"] = [5e-324]
    if kind == "steal":
        first["steal_s"] = 1.7e308
    if kind == "machine":
        made["machine"] = {"temperature_c": 1e308}
    if kind == "text":
        first["wall_s"] = "long"
    if kind == "bool":
        made["is_settled"] = 7
    if kind == "many":
        made["blocks"] = made["blocks"] * 40_000
    if kind == "nested":
        made["machine"] = {"a": [[[1]]]}
    return made


POISONS = (
    "calls",
    "all runs",
    "one run",
    "sum",
    "sum of blocks",
    "load",
    "tiny",
    "steal",
    "machine",
    "text",
    "bool",
    "many",
    "nested",
)


@pytest.mark.parametrize("kind", POISONS)
def test_no_record_is_made_of_an_impossible_answer(
    kind: str, campaign: CampaignRecord, make_visits: MakeVisits
) -> None:
    timing = json.loads(json.dumps(make_visits(campaign.spec, variants=1)[0].to_dict()["timing"]))
    Timing.from_dict(timing)
    with pytest.raises(InputError):
        Timing.from_dict(poisoned(timing, kind))


def line(record: dict[str, Any]) -> bytes:
    text = json.dumps(record, separators=(",", ":")).encode()
    return text[:-1] + b',"crc32":%d}\n' % zlib.crc32(text)


@pytest.mark.parametrize("kind", [each for each in POISONS if each != "many"])
def test_an_old_journal_with_an_impossible_answer_loads_and_says_so(
    kind: str, campaign: CampaignRecord, make_visits: MakeVisits, tmp_path: Path
) -> None:
    visits = make_visits(campaign.spec, variants=5)
    path = tmp_path / "journal.jsonl"
    first = campaign.to_dict()
    first["device"] = {**first["device"], "memory_bytes": HUGE, "cpu_model": "\x1b[2J"}
    lines = [line(first)]
    for place, visit in enumerate(visits):
        record = json.loads(json.dumps(visit.to_dict()))
        if place == 2:
            record["timing"] = poisoned(record["timing"], kind)
        lines.append(line(record))
    lines.append(line({"rejected": list(visits[2].key), "reason": "disturbed"}))
    path.write_bytes(b"".join(lines))
    with Journal(path) as journal:
        content = journal.content
    assert len(content.visits) == len(visits)
    assert content.visits[2].timing is None
    assert str(content.visits[2].error).startswith("transient: what the device answered cannot")
    assert [v for v in content.visits if v.timing] == [*visits[:2], *visits[3:]]
    assert [text.split(":")[0] for text in content.unusable] == ["line 1", "line 4"]
    assert content.campaign.device["memory_bytes"] is None
    assert content.campaign.device["cpu_model"] == "\\x1b[2J"
    with pytest.warns(DroppedRowsWarning, match=r"no device can truthfully say.*and 1 more"):
        exported = export_campaign(tmp_path)
    with pytest.warns(DroppedRowsWarning):
        loaded = CostDataset.load(tmp_path)
    assert len(loaded) == len(exported) >= 4
    assert len(CostDataset.load(tmp_path / "measurements.parquet")) == len(exported)
    # What was read can be written again.
    again = tmp_path / "again.jsonl"
    with Journal.create(again, content.campaign) as journal:
        for visit in content.visits:
            journal.append(visit)
    assert not read_journal(again).unusable


def test_a_value_that_is_no_cost_is_left_out_and_takes_no_row_with_it(
    campaign: CampaignRecord, make_visits: MakeVisits, tmp_path: Path
) -> None:
    visits = make_visits(campaign.spec, variants=4)
    path = tmp_path / "journal.jsonl"
    lines = [line(campaign.to_dict())]
    for visit in visits:
        record = json.loads(json.dumps(visit.to_dict()))
        if visit.widths == visits[0].widths:
            # A clock of the processor's time that stands still.
            for block in record["timing"]["blocks"]:
                block["cpu_s"] = 0.0
        lines.append(line(record))
    path.write_bytes(b"".join(lines))
    with pytest.warns(DroppedRowsWarning, match="cpu_time_s"):
        exported = export_campaign(tmp_path)
    assert len(exported) == 4
    assert len(CostDataset.load(tmp_path / "measurements.parquet")) == 4


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.data())
def test_whatever_stands_in_a_visit_the_journal_loads(
    campaign: CampaignRecord, make_visits: MakeVisits, tmp_path: Path, data: st.DataObject
) -> None:
    visits = make_visits(campaign.spec, variants=2)[:3]
    record = json.loads(json.dumps(visits[1].to_dict()))
    place: Any = record["timing"]
    while isinstance(place, (dict, list)) and place:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(place[key], (dict, list)) or data.draw(st.integers(0, 3)) == 0:
            place[key] = data.draw(st.sampled_from([*NO_NUMBERS[:3], *NO_NUMBERS[6:], None, -1]))
            break
        place = place[key]
    path = tmp_path / "any.jsonl"
    lines = [campaign.to_dict(), visits[0].to_dict(), record, visits[2].to_dict()]
    path.write_bytes(b"".join(map(line, lines)))
    content = read_journal(path)
    assert content.visits[0] == visits[0]
    assert content.visits[2] == visits[2]
    assert bool(content.unusable) == (content.visits[1].timing is None)

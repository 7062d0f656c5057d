"""What a campaign's later agents are told of its meters."""

from __future__ import annotations

from typing import Any

import pytest

from joulemap.device_agents.onboard.energy.meter import remembered
from joulemap.device_agents.onboard.energy.meter_choice import wanted_again

RAPL = {"name": "rapl", "channel": "cpu", "state": {}, "domain": "processor"}
PHONE = {"name": "battery", "channel": "battery", "state": {"plugged": "none"}}


@pytest.mark.parametrize(
    ("wanted", "chosen", "again"),
    [
        ("auto", [RAPL], "rapl:cpu"),
        ("auto", [RAPL, PHONE], "rapl:cpu,battery:battery"),
        ("auto", [], "none"),
        # What stands after a name may be a setting, not a channel.
        ("estimated:3.5", [{"name": "estimated", "channel": "cpu-time"}], "estimated:3.5"),
        ("none", [], "none"),
    ],
)
def test_they_read_what_the_first_one_chose(
    wanted: str, chosen: list[dict[str, Any]], again: str
) -> None:
    before = remembered({"chosen": chosen, "why": "because"})
    assert wanted_again(wanted, before) == again
    assert before is not None
    assert [item["state"] for item in before] == [item.get("state") for item in chosen]


@pytest.mark.parametrize("meters", [None, {}, {"chosen": None}, {"chosen": "rapl"}, 3])
def test_the_first_one_chooses(meters: Any) -> None:
    assert remembered(meters) is None
    assert wanted_again("auto", remembered(meters)) == "auto"

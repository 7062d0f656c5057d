"""What a device says of itself, on its way to the campaign."""

from __future__ import annotations

import pytest

from joulemap.device_agents import Device
from joulemap.device_agents.onboard.answer_error import AnswerError
from joulemap.device_agents.onboard.probe_answer import ProbeAnswer


def test_what_joulemap_goes_by_has_a_field_and_all_is_kept() -> None:
    with Device("local:") as device:
        found = device.probe()
    sent = found.to_dict()
    assert ProbeAnswer.from_dict(sent) == found
    assert (found.device_id, found.num_cpus) == (sent["device_id"], sent["num_cpus"])
    assert list(found.available_cpus) == sent["available_cpus"]
    assert found.runtimes == sent["runtimes"]
    assert {"identity", "former_ids", "thermal_zones", "control"} <= set(found.details)


@pytest.mark.parametrize("junk", [5, "text", ["a"], {"a": 1}, True, None])
def test_what_makes_no_sense_says_nothing(junk: object) -> None:
    names = ("available_cpus", "num_cpus", "runtimes", "cpu_model")
    found = ProbeAnswer.from_dict({"device_id": "a", **dict.fromkeys(names, junk)})
    assert not found.available_cpus
    assert found.num_cpus in (None, 5)
    assert found.cpu_model in (None, "text")
    assert set(found.runtimes.values()) <= {None}
    with pytest.raises(AnswerError, match="names no device_id"):
        ProbeAnswer.from_dict({"device_id": 5})

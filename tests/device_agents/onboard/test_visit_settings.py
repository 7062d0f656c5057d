"""What a device is told of a protocol, and how it reads that."""

from __future__ import annotations

import json

import pytest

from joulemap.device_agents.onboard.visit_settings import VisitSettings
from joulemap.profiler import Protocol

PROTOCOL = Protocol(block_s=0.1, min_blocks=4, max_temperature_c=60, temperature_zone="cpu")


def test_a_protocol_and_its_visits_have_the_same_defaults() -> None:
    assert Protocol().visit_settings == VisitSettings()


def test_a_request_holds_the_same_words_and_values_as_the_protocol() -> None:
    told = PROTOCOL.visit_settings.to_dict()
    assert told.items() <= PROTOCOL.to_dict().items()
    assert VisitSettings.from_dict(json.loads(json.dumps(told))) == PROTOCOL.visit_settings


def test_a_whole_protocol_of_an_older_host_is_read_as_well() -> None:
    assert VisitSettings.from_dict(PROTOCOL.to_dict()) == PROTOCOL.visit_settings


def test_a_request_without_a_setting_is_refused_and_names_it() -> None:
    told = PROTOCOL.visit_settings.to_dict()
    del told["reference_s"]
    with pytest.raises(KeyError, match="reference_s"):
        VisitSettings.from_dict(told)


def test_a_mapping_of_some_settings_leaves_the_others_as_ever() -> None:
    settings = VisitSettings(block_s=0.1)
    assert VisitSettings.of({"block_s": 0.1, "visits": 7}) == settings
    assert VisitSettings.of(settings) is settings

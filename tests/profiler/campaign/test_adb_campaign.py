"""Whole campaigns on a phone behind adb: the same as on this machine, also over a bad cable."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from joulemap import InputError
from joulemap.datasets import CostDataset
from joulemap.datasets.journal import read_journal
from joulemap.device_agents import Device, DeviceInUseError, LinkLostError, Preparation
from joulemap.device_agents.onboard.visit_settings import VisitSettings
from joulemap.profiler import networks, profile
from joulemap.profiler.campaign.protocol import Protocol, reference_widths
from joulemap.profiler.templates.export import cached_template

from ...calm_judgement import CALM
from ...device_agents.adb_phone import Phone, own_adb_server, phone_root, running_phone

PROTOCOL = Protocol(
    visits=2,
    max_visit_s=0.1,
    max_warm_up_s=0.05,
    block_s=0.01,
    reference_s=0.01,
    max_attempts=10,
    has_revisits=False,
    max_further_visits=0,
    start_timeout_s=0.5,
)


@pytest.fixture(scope="module")
def phone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Phone]:
    root = phone_root()
    with own_adb_server(tmp_path_factory.mktemp("home")), running_phone(root) as running:
        yield running


def measure(device: str | Device, out: Path, samples: int = 4) -> CostDataset:
    return profile(
        device, "lenet5", samples=samples, out=out, protocol=PROTOCOL, judgement=CALM, seed=3
    )


def made(out: Path, samples: int) -> list[tuple[tuple[int, ...], int]]:
    """Return the first attempts that the journal holds, in its order; check that all are there once.

    A rejected visit is made again, as a further attempt.
    """
    visits = read_journal(out / "journal.jsonl").visits
    keys = [(visit.widths, visit.visit_index, visit.attempt) for visit in visits]
    assert len(set(keys)) == len(keys), "a visit was made twice"
    first = [key[:2] for key in keys if key[2] == 0]
    assert len(first) == samples * PROTOCOL.visits, "a visit is missing"
    return first


def test_a_campaign_is_the_same_as_on_this_machine(phone: Phone, tmp_path: Path) -> None:
    here = measure("local:", tmp_path / "here")
    there = measure(f"adb:{phone.address}", tmp_path / "there")
    assert made(tmp_path / "there", 4) == made(tmp_path / "here", 4)
    assert list(there.to_pandas().columns) == list(here.to_pandas().columns)
    assert set(there.device) == set(here.device)
    assert there.spec == here.spec
    assert there.device["python"] != here.device["python"], "it ran on the phone"


def test_two_hosts_do_not_measure_on_one_phone_at_once(phone: Phone) -> None:
    spec = networks.get("lenet5")
    template, reference = cached_template(spec).to_json().encode(), reference_widths(spec)
    url, protocol = f"adb:{phone.address}", PROTOCOL.to_dict()
    with Device(url) as first, Device(url) as second:
        first.prepare(Preparation(template, reference))
        wanted = Preparation(template, reference, protocol={"start_timeout_s": 0.2})
        with pytest.raises(DeviceInUseError, match=rf"process \d+ \('.*keep {first.token}'"):
            second.prepare(wanted)
        first.visit(reference, protocol)
        second.on_message = lambda text: first.close()
        second.prepare(replace(wanted, protocol={"start_timeout_s": 200.0}))
        second.visit(reference, protocol)


class Breaking(Device):
    """A phone whose cable breaks while it measures the first visits, for a while."""

    def __init__(self, phone: Phone, command: str) -> None:
        super().__init__(f"adb:{phone.address}")
        self._phone, self._command = phone, command
        self._mending: threading.Thread | None = None

    def send_ahead(
        self,
        visits: Sequence[tuple[str, Sequence[int]]],
        protocol: VisitSettings | Mapping[str, Any],
        visit_s: float,
    ) -> None:
        super().send_ahead(visits, protocol, visit_s)
        if self._mending is None:
            assert len(visits) > 1, "the phone has nothing to measure meanwhile"
            # Nobody takes its answers before this returns, however late that is.
            time.sleep(0.5)
            self._phone.do(self._command)
            self._mending = threading.Thread(target=self._mend)
            self._mending.start()

    def join(self) -> None:
        assert self._mending is not None, "the cable did not break"
        self._mending.join()

    def _mend(self) -> None:
        if self._command == "cut":
            time.sleep(2)
            self._phone.do("mend")


@pytest.mark.parametrize("fault", ["cut", "reset"])
def test_a_bad_cable_neither_loses_nor_doubles_a_visit(
    phone: Phone, tmp_path: Path, fault: str
) -> None:
    device = Breaking(phone, fault)
    try:
        measure(device, tmp_path, samples=8)
    finally:
        device.join()
    assert made(tmp_path, 8)


def test_an_address_that_passes_on_to_another_phone_ends_the_campaign_until_the_first_is_back(
    phone: Phone, tmp_path: Path
) -> None:
    phone.do("be-one")
    device = Breaking(phone, "be-another")
    try:
        with pytest.raises(LinkLostError, match=r"another device answers .*its machine id differs"):
            measure(device, tmp_path, samples=8)
    finally:
        device.join()
    visits = read_journal(tmp_path / "journal.jsonl").visits
    assert len(visits) < 8 * PROTOCOL.visits
    assert all(visit.error is None for visit in visits), "the other phone's word was taken"
    # It is not gone on with by the same command either, until the first one is there again.
    with pytest.raises(InputError, match=r"device: .* there, .* here"):
        measure(f"adb:{phone.address}", tmp_path, samples=8)
    assert read_journal(tmp_path / "journal.jsonl").visits == visits
    phone.do("be-one")
    measure(f"adb:{phone.address}", tmp_path, samples=8)
    assert made(tmp_path, 8)

"""Campaigns that read meters, on simulated machines whose energy is known."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from joulemap import InputError, JoulemapError
from joulemap.datasets import CostDataset, NetworkSpec
from joulemap.datasets.journal import FILE_NAME, read_journal
from joulemap.device_agents.device import Device
from joulemap.device_agents.errors import StableDeviceError
from joulemap.device_agents.onboard.energy.meter import ESTIMATE, MeterGone
from joulemap.device_agents.simulated import VirtualMachine
from joulemap.device_agents.simulated.transport import SimulatedTransport
from joulemap.models import BilinearPredictor
from joulemap.profiler import Protocol, networks, profile
from joulemap.profiler.campaign.advice import advise
from joulemap.profiler.campaign.metering import metered_visit_s

from ...device_agents.onboard.energy.virtual_power import (
    VirtualBattery,
    VirtualCounter,
    VirtualGauge,
    VirtualPower,
)

FAST = Protocol(has_revisits=False, max_further_visits=0)
IDLE_W = 5.0


class Told:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.visit_s = 0.0

    def message(self, text: str) -> None:
        self.messages.append(text)

    def started(self, total: int, done: int, visit_s: float) -> None:
        self.visit_s = visit_s

    def visited(self, visit: Any, done: int, noise: float | None) -> None:
        pass


class WidthPower(VirtualPower):
    """Power whose net part depends on the widths that run."""

    def __init__(self, net_w: Callable[[tuple[int, ...]], float], seed: int = 0) -> None:
        super().__init__(latency_s=0.004, idle_w=IDLE_W, seed=seed)
        self._of_widths = net_w
        see = self._see

        def watch(start: float, end: float, widths: tuple[int, ...] | None) -> None:
            self.net_w = self._of_widths(widths) if widths else 1.0
            see(start, end, widths)

        self.machine.watch = watch


@pytest.fixture
def spec() -> NetworkSpec:
    return networks.get("lenet5")


def device_with(power: VirtualPower, *meters: Any) -> Device:
    power.machine.meters = list(meters)
    return Device("sim:", transport=SimulatedTransport(power.machine), agent_visits=50)


def watts(widths: tuple[int, ...]) -> float:
    return 4.0 + 0.002 * widths[0] * widths[1] + 0.0002 * widths[1] * widths[2]


def test_energies_of_a_campaign_are_the_machine_s_and_a_predictor_finds_its_law(
    spec: NetworkSpec, tmp_path: Path
) -> None:
    power = WidthPower(watts, seed=1)
    told = Told()
    dataset = profile(
        device_with(power, VirtualCounter(power, range_j=50.0)),
        spec,
        samples=24,
        out=tmp_path / "run",
        meter="counter",
        protocol=FAST,
        observer=told,
    )
    truth = np.array([watts(tuple(row)) * 0.004 for row in dataset.widths.tolist()])
    np.testing.assert_allclose(dataset.energy_j, truth, rtol=2e-3)
    low, high = dataset.interval("energy_j")
    assert np.mean((low <= truth) & (truth <= high)) >= 0.85
    frame = dataset.to_pandas()
    np.testing.assert_allclose(frame["energy_gross_j"], truth + 0.004 * IDLE_W, rtol=2e-3)
    np.testing.assert_allclose(frame["energy_idle_w"], IDLE_W, rtol=1e-3)
    assert set(frame["energy_source"]) == {"simulated"}
    assert any("counter:all, a counter of a virtual machine" in text for text in told.messages)
    assert told.visit_s == pytest.approx(2.9, abs=0.5)
    # The folder tells which meter it was, and holds what it said.
    assert "counter:all" in (tmp_path / "run" / "README.md").read_text()
    again = CostDataset.load(tmp_path / "run" / "measurements.parquet")
    assert "counter:all" in str(again.device["meters"])
    journal = read_journal(tmp_path / "run" / FILE_NAME)
    assert journal.campaign.meters[0]["observed_update_period_s"] == pytest.approx(1e-3, rel=0.1)
    assert all(len(v.power_trace.values) > 20 for v in journal.visits if v.power_trace)
    assert advise(journal) == []
    predictor = BilinearPredictor(loss="relative").fit_dataset(dataset, "energy_j")
    probe = np.array([spec.max_widths, dataset.widths[0].tolist()])
    true = [watts(tuple(row)) * 0.004 for row in probe.tolist()]
    low, high = predictor.predict_interval(probe, of="mean")
    np.testing.assert_allclose(predictor.predict(probe), true, rtol=0.05)
    assert np.all(low <= np.array(true) * 1.02)
    assert np.all(high >= np.array(true) * 0.98)


def test_a_campaign_continues_with_the_same_meter_only(spec: NetworkSpec, tmp_path: Path) -> None:
    def run(meter: str, samples: int, **words: str) -> CostDataset:
        power = WidthPower(watts, seed=2)
        gauge = VirtualGauge(power, noise_sd=0.01)
        gauge.words = dict(words)
        device = device_with(power, VirtualCounter(power), gauge)
        return profile(
            device, spec, samples=samples, out=tmp_path / "run", meter=meter, protocol=FAST
        )

    first = run("gauge", 2, status="Discharging")
    assert np.isfinite(first.energy_j).all()
    for meter, words in (
        ("counter", {}),
        ("none", {}),
        ("auto", {}),
        ("gauge,counter", {"status": "Discharging"}),
        ("gauge", {"status": "Charging"}),
    ):
        with pytest.raises(InputError, match="meter: gauge:all"):
            run(meter, 2, **words)
    assert len(run("gauge", 3, status="Discharging")) == 3


def test_a_meter_that_fails_is_tried_again_and_then_the_energy_stays_missing(
    spec: NetworkSpec, tmp_path: Path
) -> None:
    power = WidthPower(watts, seed=3)
    meter = VirtualCounter(power)
    meter.fault = lambda now, value: value - (10 if int(now) % 9 == 4 else 0)
    dataset = profile(
        device_with(power, meter), spec, samples=6, out=tmp_path / "run", meter="counter",
        protocol=FAST,
    )  # fmt: skip
    journal = read_journal(tmp_path / "run" / FILE_NAME)
    refused = [visit for visit in journal.visits if visit.energy_refused]
    assert refused
    assert all("counter:all" in str(visit.energy_refused) for visit in refused)
    assert all(visit.power_trace is not None for visit in refused)
    assert max(visit.attempt for visit in journal.visits) >= 1
    truth = np.array([watts(tuple(row)) * 0.004 for row in dataset.widths.tolist()])
    known = np.isfinite(dataset.energy_j)
    assert known.sum() >= 4
    np.testing.assert_allclose(dataset.energy_j[known], truth[known], rtol=5e-3)
    assert np.isfinite(dataset.latency_s).all()
    assert any("refused" in sentence for sentence in advise(journal))


def test_a_meter_that_is_gone_ends_the_campaign_and_keeps_what_was_measured(
    spec: NetworkSpec, tmp_path: Path
) -> None:
    power = WidthPower(watts, seed=4)
    meter = VirtualCounter(power)

    def unplug(now: float, value: float) -> float:
        if now > 30:
            raise MeterGone("unplugged; plug it in again")
        return value

    meter.fault = unplug
    with pytest.raises((JoulemapError, StableDeviceError), match="unplugged"):
        profile(
            device_with(power, meter), spec, samples=30, out=tmp_path / "run", meter="counter",
            protocol=FAST,
        )  # fmt: skip
    journal = read_journal(tmp_path / "run" / FILE_NAME)
    measured = sum(visit.energy is not None for visit in journal.visits)
    assert measured >= 5
    # Plugged in again, the same command goes on: what was measured stays, what is missing comes.
    power = WidthPower(watts, seed=4)
    dataset = profile(
        device_with(power, VirtualCounter(power)), spec, samples=30, out=tmp_path / "run",
        meter="counter", protocol=FAST,
    )  # fmt: skip
    truth = np.array([watts(tuple(row)) * 0.004 for row in dataset.widths.tolist()])
    assert np.isfinite(dataset.energy_j).sum() == 30
    known = np.isfinite(dataset.energy_j)
    np.testing.assert_allclose(dataset.energy_j[known], truth[known], rtol=5e-3)
    visits = read_journal(tmp_path / "run" / FILE_NAME).visits
    assert [visit.energy for visit in visits[:measured]] == [
        visit.energy for visit in journal.visits[:measured]
    ]


@pytest.mark.parametrize("is_metered_at_first", [True, False])
def test_a_fresh_agent_reads_the_meter_that_the_first_one_chose(
    spec: NetworkSpec, tmp_path: Path, is_metered_at_first: bool
) -> None:
    power = WidthPower(watts, seed=7)
    counter, gauge = VirtualCounter(power), VirtualGauge(power, noise_sd=0.01)
    device = device_with(power, *([counter] if is_metered_at_first else []))
    device.agent_visits = 2

    class Unplugs(Told):
        def visited(self, visit: Any, done: int, noise: float | None) -> None:
            # What is best now is another meter.
            power.machine.meters = [gauge]

    profile(device, spec, samples=2, out=tmp_path / "run", protocol=FAST, observer=Unplugs())
    visits = read_journal(tmp_path / "run" / FILE_NAME).visits
    meters = [visit.energy.meter if visit.energy else None for visit in visits if not visit.error]
    errors = [visit.error for visit in visits if visit.error]
    if is_metered_at_first:
        assert meters == ["counter", "counter"]
        assert "no meter 'counter:all'; it has: gauge:all" in str(errors[0])
    else:
        assert meters == [None] * 6


@pytest.mark.parametrize("first", ["none", "auto"])
def test_a_folder_of_a_simulator_has_all_of_its_energies_or_none(
    tmp_path: Path, first: str
) -> None:
    """A simulator computes joules without a meter: whether it did belongs to the campaign."""
    then = {"none": "auto", "auto": "none"}[first]
    said = {"none": "none", "auto": "simulator:all"}

    def run(meter: str, samples: int = 2) -> CostDataset:
        return profile(
            "sim:eyeriss", "lenet5", samples=samples, out=tmp_path, meter=meter, protocol=FAST
        )

    run(first)
    before = (tmp_path / FILE_NAME).read_bytes()
    message = (
        rf"holds another campaign \(meter: {said[first]} there, {said[then]} here\); choose another "
        "folder, or repeat"
    )
    with pytest.raises(InputError, match=message):
        run(then, 3)
    assert (tmp_path / FILE_NAME).read_bytes() == before
    energies = run(first, 3).energy_j
    assert len(energies) == 3
    assert np.isnan(energies).all() if first == "none" else np.isfinite(energies).all()
    assert ("simulator:all (model of" in (tmp_path / "README.md").read_text()) == (first == "auto")


@pytest.mark.parametrize("first", ["none", "auto"])
def test_a_folder_is_not_continued_with_a_meter_that_it_was_begun_without(
    spec: NetworkSpec, tmp_path: Path, first: str
) -> None:
    """Also where the first one asked for any, and the device had none then."""

    def run(meter: str, *, has_meter: bool) -> CostDataset:
        power = WidthPower(watts, seed=9)
        device = device_with(power, *([VirtualCounter(power)] if has_meter else []))
        return profile(device, spec, samples=2, out=tmp_path / "run", meter=meter, protocol=FAST)

    run(first, has_meter=False)
    with pytest.raises(InputError, match=r"meter: none there, counter:all here.*choose another"):
        run("auto", has_meter=True)
    # Without one here either nothing would be half filled.
    assert np.isnan(run("auto", has_meter=False).energy_j).all()


def test_meters_that_disagree_are_said_in_the_advice(spec: NetworkSpec, tmp_path: Path) -> None:
    power = WidthPower(watts, seed=5)
    meters = (VirtualCounter(power), VirtualGauge(power, gain=1.3, noise_sd=0.01))
    told = Told()
    profile(
        device_with(power, *meters), spec, samples=2, out=tmp_path / "run",
        meter="counter,gauge", protocol=FAST, observer=told,
    )  # fmt: skip
    assert any("never added up" in text for text in told.messages)
    said = " ".join(advise(read_journal(tmp_path / "run" / FILE_NAME)))
    assert "disagree in 6 of 6 visits, by +30 % (median)" in said or "by +29 %" in said
    assert "counter:all says" in said
    assert "gauge:all" in said


def test_a_gauge_that_its_battery_s_counter_contradicts_is_said_in_the_advice(
    spec: NetworkSpec, tmp_path: Path
) -> None:
    power = WidthPower(watts, seed=8)
    profile(
        device_with(power, VirtualBattery(power, gain=1.3, noise_sd=0.01)), spec, samples=3,
        out=tmp_path / "run", meter="gauge", protocol=FAST,
    )  # fmt: skip
    said = " ".join(advise(read_journal(tmp_path / "run" / FILE_NAME)))
    assert "disagree in 5 of 5 visits, by -23 % (median)" in said
    assert "J a call with idle and gauge:all-charge" in said
    assert "could not check" not in said


def test_estimates_have_their_own_column(spec: NetworkSpec, tmp_path: Path) -> None:
    power = WidthPower(watts, seed=6)
    meter = VirtualCounter(power, name="cpu_time")
    meter.info = meter.info.__class__(**{**vars(meter.info), "kind": ESTIMATE})
    dataset = profile(
        device_with(power, meter), spec, samples=2, out=tmp_path / "run", meter="cpu_time",
        protocol=FAST,
    )  # fmt: skip
    frame = dataset.to_pandas()
    assert np.isnan(dataset.energy_j).all()
    truth = [watts(tuple(row)) * 0.004 for row in dataset.widths.tolist()]
    np.testing.assert_allclose(frame["energy_estimate_j"].astype(float), truth, rtol=0.01)


def test_a_slow_gauge_takes_hours_and_that_is_said_before() -> None:
    gauge = {
        "name": "battery", "channel": "0", "kind": "sampler", "domain": "a phone",
        "averaging_s": 1.0, "observed_update_period_s": 1.0,
    }  # fmt: skip
    visit_s = metered_visit_s([gauge], Protocol())
    assert visit_s > 100
    assert metered_visit_s([], Protocol()) == 0.0
    counter = gauge | {"kind": "counter", "averaging_s": 0.0, "observed_update_period_s": 0.001}
    assert metered_visit_s([counter], Protocol()) < 3


@pytest.mark.parametrize(
    "chosen",
    [
        "rapl",
        [{"name": "rapl"}],
        [{"name": 1, "channel": "", "kind": "counter", "domain": ""}],
        [{"name": "a", "channel": "b", "kind": "guess", "domain": "c"}],
        [
            {
                "name": "a", "channel": "b", "kind": "counter", "domain": "c",
                "observed_update_period_s": -1.0,
            }
        ],
        [
            {
                "name": "a", "channel": "b", "kind": "counter", "domain": "c",
                "observed_update_period_s": "1",
            }
        ],
        [
            {
                "name": "a", "channel": "b", "kind": "sampler", "domain": "c",
                "observed_update_period_s": 1.0, "averaging_s": "long",
            }
        ],
        [{"name": "x" * 30_000, "channel": "b", "kind": "counter", "domain": "c"}],
    ],
)  # fmt: skip
def test_a_device_s_words_about_its_meters_are_not_to_be_believed(
    chosen: Any, spec: NetworkSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from joulemap.device_agents.simulated.agent import SimulatedAgent

    make = SimulatedAgent.prepare

    def prepare(agent: SimulatedAgent, request: dict[str, Any], payload: bytes) -> dict[str, Any]:
        return {**make(agent, request, payload), "meters": {"chosen": chosen}}

    monkeypatch.setattr(SimulatedAgent, "prepare", prepare)
    device = Device("sim:", transport=SimulatedTransport(VirtualMachine(lambda widths: 0.01)))
    with pytest.raises(StableDeviceError, match="meters makes no sense"):
        profile(device, spec, samples=2, out=tmp_path / "run", protocol=FAST)
    assert not (tmp_path / "run" / FILE_NAME).exists()


def test_the_command_line_takes_a_meter_and_lists_them(tmp_path: Path) -> None:
    def joulemap(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).parent / "joulemap"), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    done = joulemap(
        "profile", "sim:eyeriss", "--network", "lenet5", "--samples", 2, "--meter", "none",
        "--out", tmp_path / "run",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert np.isnan(CostDataset.load(tmp_path / "run").energy_j).all()
    done = joulemap(
        "profile", "local:", "--network", "lenet5", "--samples", 2, "--meter", "android_odpm",
        "--out", tmp_path / "other",
    )  # fmt: skip
    assert done.returncode == 1
    assert "the device cannot begin: this device has no meter 'android_odpm'" in done.stderr
    assert "joulemap probe lists what each meter needs" in done.stderr
    probed = json.loads(joulemap("probe", "local:", "--json").stdout)
    assert set(probed["meters"]) == {"available", "missing"}


def test_journals_of_the_first_version_are_read_and_continued(
    spec: NetworkSpec, tmp_path: Path
) -> None:
    """They know no meters, no window settings, and energies of three flat fields."""
    power = WidthPower(watts, seed=7)
    profile(device_with(power), spec, samples=2, out=tmp_path / "run", meter="none", protocol=FAST)
    path = tmp_path / "run" / FILE_NAME
    lines = []
    for line in path.read_bytes().splitlines():
        record = json.loads(line.rpartition(b',"crc32":')[0] + b"}")
        del record["previous"]
        if "spec" in record:
            del record["meters"], record["meter_note"]
            record["schema_version"] = 1
            record["protocol"] = {k: v for k, v in record["protocol"].items() if "energy" not in k}
        elif "timing" in record:
            for name in ("energy", "energy_estimate", "energy_refused", "power_trace"):
                del record[name]
            record |= {"energy_j": None, "energy_gross_j": None, "energy_source": None}
        text = json.dumps(record, separators=(",", ":")).encode()
        lines.append(text[:-1] + b',"crc32":%d}\n' % zlib.crc32(text))
    path.write_bytes(b"".join(lines))
    assert len(read_journal(path).visits) == 6
    again = profile(
        device_with(WidthPower(watts, seed=7)), spec, samples=3, out=tmp_path / "run", meter="none",
        protocol=FAST,
    )  # fmt: skip
    assert len(again) == 3


def test_meters_that_are_apart_in_both_directions_do_not_seem_to_agree(
    spec: NetworkSpec, tmp_path: Path
) -> None:
    """The second meter says 30 % too much in half of the visits, 30 % too little in the others."""
    power = WidthPower(watts, seed=8)
    gauge = VirtualGauge(power, noise_sd=0.01)
    gauge.fault = lambda now, value: value * (1.3 if int(now / 40) % 2 else 0.7)
    profile(
        device_with(power, VirtualCounter(power), gauge), spec, samples=8, out=tmp_path / "run",
        meter="counter,gauge", protocol=FAST,
    )  # fmt: skip
    said = " ".join(advise(read_journal(tmp_path / "run" / FILE_NAME)))
    assert re.search(r"disagree in \d+ of \d+ visits, by (2[5-9]|3[0-9]) % in either", said), said

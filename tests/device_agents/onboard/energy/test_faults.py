"""Whatever a meter does wrong, a visit's energy is right, marked or refused: never silently wrong."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from joulemap.device_agents.onboard.energy.meter import ESTIMATE, MeterError, MeterGone, Missing

from .virtual_power import MeteredAgent, VirtualBattery, VirtualCounter, VirtualGauge, VirtualPower

Fault = Callable[[float, float], float]


def energy_with(meter: str, fault: Fault | None, **settings: Any) -> tuple[dict[str, Any], float]:
    """Return what a visit says with a meter that fails from some moment on, and the truth."""
    power = VirtualPower(seed=3)
    made = VirtualCounter(power) if meter == "counter" else VirtualGauge(power, noise_sd=0.01)
    agent = MeteredAgent(power, [made], meter, **settings)
    assert "result" in agent.prepared, agent.prepared
    began = power.machine.elapsed_s
    if fault is not None:
        made.fault = lambda now, value: fault(now - began, value)
    return agent.energy(), power.net_j_per_call


def vanish(now: float, value: float) -> float:
    if now > 1.5:
        raise MeterGone("the meter was unplugged; plug it in")
    return value


def deny(now: float, value: float) -> float:
    if now > 1.5:
        raise MeterError("/sys/x/energy_uj: permission denied; chmod a+r /sys/x/energy_uj")
    return value


def some_nan(now: float, value: float) -> float:
    return math.nan if int(now * 20) % 20 == 3 else value


@pytest.mark.parametrize(
    ("meter", "fault", "message"),
    [
        ("counter", vanish, "unplugged"),
        ("gauge", vanish, "unplugged"),
        ("counter", deny, r"chmod a\+r"),
        ("gauge", deny, r"chmod a\+r"),
        ("gauge", some_nan, "nan"),
        ("gauge", lambda now, value: math.nan, "nan"),
        ("counter", lambda now, value: math.nan, "nan"),
        ("counter", lambda now, value: value if now < 1.2 else 12.5, "backwards|stuck|sticks"),
        ("counter", lambda now, value: value - (3 if now > 1.2 else 0), "backwards"),
        ("counter", lambda now, value: value * (1000 if now > 1.2 else 1), "jumped"),
        ("counter", lambda now, value: value + (900 if now > 1.2 else 0), "jumped"),
        ("gauge", lambda now, value: 7.5 if now > 3 else value, "stuck"),
        ("gauge", lambda now, value: -value, "sign"),
        ("gauge", lambda now, value: -value if now > 6 else value, "sign"),
        ("gauge", lambda now, value: value * 1000, "unit"),
        ("gauge", lambda now, value: value * 1000 if now > 6 else value, "unit"),
    ],
)
def test_a_fault_within_a_visit_refuses_its_energy(meter: str, fault: Fault, message: str) -> None:
    answer, _ = energy_with(meter, fault)
    assert answer["energy"] is None
    assert message.split("|")[0] in answer["refused"] or any(
        word.replace("\\", "") in answer["refused"] for word in message.split("|")
    ), answer["refused"]


@pytest.mark.parametrize("meter", ["counter", "gauge"])
def test_without_a_fault_the_energy_is_right(meter: str) -> None:
    answer, truth = energy_with(meter, None)
    assert answer["refused"] is None
    energy = answer["energy"]
    assert abs(energy["net_j"] - truth) < 4 * energy["net_standard_error_j"] + 1e-4 * truth
    assert energy["gross_j"] == pytest.approx(2 * truth, rel=0.02)
    assert energy["idle_w"] == pytest.approx(5.0, rel=0.02)
    assert energy["flags"] == () or energy["flags"] == []
    trace = answer["trace"]
    assert len(trace["times_s"]) == len(trace["values"])
    assert trace["times_s"] == sorted(trace["times_s"])
    assert set(trace["spans_s"]) == {"idle_before", "window", "busy", "idle_after"}


@pytest.mark.parametrize("range_j", [11.0, 17.0, 5.0])
def test_wraps_within_a_window_do_not_show(range_j: float) -> None:
    """Counters that start again once, twice and more within a window."""
    power = VirtualPower(seed=4)
    meter = VirtualCounter(power, range_j=range_j)
    answer = MeteredAgent(power, [meter], "counter", energy_window_s=2.0).energy()
    assert answer["refused"] is None
    values = answer["trace"]["values"]
    assert any(later < earlier for earlier, later in pairwise(values))
    assert answer["energy"]["net_j"] == pytest.approx(power.net_j_per_call, rel=2e-3)


def test_a_charger_that_is_plugged_in_refuses_the_energy() -> None:
    power = VirtualPower(seed=5)
    gauge = VirtualGauge(power)
    gauge.words = {"status": "Discharging"}
    agent = MeteredAgent(power, [gauge], "gauge")
    assert agent.prepared["result"]["meters"]["chosen"][0]["state"] == {"status": "Discharging"}
    assert agent.energy()["energy"] is not None
    gauge.words = {"status": "Charging"}
    refused = agent.energy()
    assert refused["energy"] is None
    assert "status was Discharging when the campaign began and is Charging" in refused["refused"]


def test_a_second_meter_that_disagrees_is_said_with_both_figures() -> None:
    power = VirtualPower(seed=6)
    meters = [VirtualCounter(power), VirtualGauge(power, gain=1.25, noise_sd=0.01)]
    agent = MeteredAgent(power, meters, "counter,gauge")
    assert "never added up" in agent.prepared["result"]["meters"]["warnings"][0]
    check = agent.energy()["check"]
    assert check["is_disagreement"]
    assert check["is_same_rail"]
    assert check["disagreement"] == pytest.approx(0.25, abs=0.05)
    assert check["net_j"] == pytest.approx(1.25 * power.net_j_per_call, rel=0.05)


def test_a_second_meter_that_agrees_raises_no_alarm_and_one_that_fails_says_why() -> None:
    power = VirtualPower(seed=7)
    gauge = VirtualGauge(power, noise_sd=0.005)
    agent = MeteredAgent(power, [VirtualCounter(power), gauge], "counter,gauge")
    answer = agent.energy()
    assert not answer["check"]["is_disagreement"]
    gauge.fault = vanish_always
    answer = agent.energy()
    assert answer["energy"] is not None
    assert "unplugged" in answer["check"]["refused"]


def vanish_always(now: float, value: float) -> float:
    raise MeterGone("the meter was unplugged; plug it in")


@pytest.mark.parametrize(
    ("gain", "step_j", "disagreement"),
    [(1.0, 5.0, 0.0), (1.25, 5.0, -0.2), (0.8, 5.0, 0.25), (1.25, 2000.0, None)],
)
def test_a_battery_s_own_counter_checks_its_gauge_over_several_visits(
    gain: float, step_j: float, disagreement: float | None
) -> None:
    power = VirtualPower(seed=11)
    meter = VirtualBattery(power, gain=gain, noise_sd=0.01)
    meter.step_j = step_j
    agent = MeteredAgent(power, [meter], "gauge")
    answers = [agent.energy() for _ in range(8)]
    assert all(answer["check"] is None for answer in answers[:4])
    last = answers[-1]["check"]
    if disagreement is None:
        assert last is None
        return
    assert last["disagreement"] == pytest.approx(disagreement, abs=0.03)
    assert last["is_disagreement"] == (gain != 1.0)
    gross_j = answers[-1]["energy"]["gross_j"]
    assert last["gross_j"] == pytest.approx(gross_j / gain, rel=0.03)
    assert (last["channel"], last["net_j"]) == ("all-charge", None)


def test_auto_takes_a_counter_and_never_an_estimate() -> None:
    power = VirtualPower()
    gauge, counter = VirtualGauge(power), VirtualCounter(power)
    agent = MeteredAgent(power, [counter, gauge], "auto")
    chosen = agent.prepared["result"]["meters"]["chosen"]
    assert [meter["name"] for meter in chosen] == ["counter"]
    assert chosen[0]["observed_update_period_s"] == pytest.approx(0.001, rel=0.2)
    estimate = VirtualCounter(power, name="cpu_time")
    estimate.info = estimate.info.__class__(**{**vars(estimate.info), "kind": ESTIMATE})
    missing = Missing("rapl", "", "/sys/class/powercap may not be read", "chmod a+r it")
    agent = MeteredAgent(power, [estimate, missing], "auto")
    answer = agent.prepared["result"]["meters"]
    assert answer["chosen"] == []
    assert "chmod a+r it" in answer["why"]
    agent = MeteredAgent(power, [estimate, missing], "cpu_time")
    assert agent.energy()["kind"] == ESTIMATE


def test_where_auto_s_first_choice_is_of_no_use_the_next_one_is_taken() -> None:
    power = VirtualPower()
    dead, slow = VirtualCounter(power, name="dead"), VirtualGauge(power, name="slow", period_s=4.0)
    dead.fault = lambda now, value: 1.0
    answer = MeteredAgent(power, [dead, slow, VirtualGauge(power)], "auto").prepared["result"]
    assert [meter["name"] for meter in answer["meters"]["chosen"]] == ["gauge"]
    assert "meter dead:all did not change" in answer["meters"]["why"]
    agent = MeteredAgent(power, [dead, slow], "auto")
    meters = agent.prepared["result"]["meters"]
    assert meters["chosen"] == []
    assert (
        "the protocol allows 120 s: give more with --max-energy-window-s; or choose another meter"
        in (meters["why"])
    )
    named = MeteredAgent(power, [slow], "slow").prepared["error"]["message"]
    assert named.endswith("give more with --max-energy-window-s; or choose another meter")
    assert named.count("another") == 1
    visit = agent.answer({"id": 2, "op": "visit", "widths": [2], "protocol": agent.protocol}, b"")
    assert visit["result"].get("energy") is None


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("nvml", "no meter 'nvml'; it has: counter:all, gauge:all"),
        ("counter:dram", "no meter 'counter:dram'"),
        ("rapl", "may not be read; chmod a+r it"),
        ("counter,counter", "one twice"),
        ("counter,counter:all", "the same meter twice"),
        ("counter,gauge,rapl", "more than one"),
        ("slow", "--max-energy-window-s"),
        ("dead", "did not change"),
    ],
)
def test_a_meter_that_cannot_be_had_is_refused_with_the_remedy(wanted: str, message: str) -> None:
    power = VirtualPower()
    dead = VirtualCounter(power, name="dead")
    dead.fault = lambda now, value: 1.0
    meters = [
        VirtualCounter(power),
        VirtualGauge(power),
        VirtualGauge(power, name="slow", period_s=4.0),
        dead,
        Missing("rapl", "", "/sys/class/powercap may not be read", "chmod a+r it"),
    ]
    prepared = MeteredAgent(power, meters, wanted).prepared
    assert "error" in prepared, prepared
    text = prepared["error"]["message"]
    if wanted == "nvml":
        assert "it has: counter:all, dead:all, gauge:all, slow:all" in text
    else:
        assert message in text


def test_a_gauge_s_update_period_is_observed() -> None:
    for period_s in (0.02, 0.1, 0.5):
        power = VirtualPower()
        agent = MeteredAgent(power, [VirtualGauge(power, period_s=period_s)], "gauge")
        chosen = agent.prepared["result"]["meters"]["chosen"][0]
        assert chosen["observed_update_period_s"] == pytest.approx(period_s, rel=0.15)


def test_a_load_that_does_not_show_is_marked() -> None:
    power = VirtualPower(net_w=0.001, noise_sd=0.1, seed=8)
    answer = MeteredAgent(
        power, [VirtualCounter(power)], "counter", max_energy_window_s=3.0
    ).energy()
    assert answer["energy"] is None or "not_above_idle" in answer["energy"]["flags"]

"""How a device's clocks stand to this machine's, against clocks whose truth is known."""

from __future__ import annotations

import random

import pytest

from joulemap.device_agents import TransientDeviceError
from joulemap.device_agents.device import Device
from joulemap.device_agents.host.clock_offset import CLOCKS, compare_clocks


class Link:
    """Two machines in virtual time: the way there and back takes times of its own."""

    def __init__(self, offset_s: float, skew: float, seed: int) -> None:
        self.offset_s, self.skew, self.now_s = offset_s, skew, 1000.0
        self.draw = random.Random(seed)

    def monotonic(self) -> float:
        return self.now_s

    def wall(self) -> float:
        return self.now_s + 5e8

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def ask(self) -> dict[str, float]:
        self.now_s += 0.001 + self.draw.expovariate(1 / 0.005)
        there = self.now_s * (1 + self.skew) + self.offset_s
        self.now_s += 0.001 + self.draw.expovariate(1 / 0.005)
        return {"monotonic_s": there, "boot_s": there + 7, "wall_s": there + 5e8}


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("offset_s", "skew"), [(0.0, 0.0), (-123.4, 50e-6), (1e6, -200e-6)])
def test_the_truth_lies_within_what_is_stated(offset_s: float, skew: float, seed: int) -> None:
    link = Link(offset_s, skew, seed)
    found = compare_clocks(
        link.ask,
        exchanges=16,
        span_s=60.0,
        monotonic=link.monotonic,
        wall=link.wall,
        sleep=link.sleep,
    )
    drifted = offset_s + skew * link.now_s
    for name, extra in zip(CLOCKS, (0.0, 7.0, 0.0), strict=True):
        clock = found.clocks[name]
        # The skew moves the offset a little while it is measured.
        allowed = clock.offset_uncertainty_s + 62 * abs(skew) + 1e-6
        assert abs(clock.offset_s - drifted - extra) <= allowed
        assert abs(clock.skew - skew) <= clock.skew_uncertainty + 1e-9
        assert clock.skew_uncertainty < 500e-6
    assert found.round_trip_s >= 0.002


@pytest.mark.parametrize("value", [None, "now", float("nan"), float("inf"), True])
def test_an_answer_that_is_no_time_is_refused(value: object) -> None:
    answer = {"monotonic_s": 1.0, "boot_s": 1.0, "wall_s": value}
    with pytest.raises(TransientDeviceError, match=r"wall_s says .*, no time"):
        compare_clocks(lambda: answer, exchanges=1, span_s=0)


def test_this_machines_agent_reads_the_same_clocks() -> None:
    with Device("local:") as device:
        clocks = device.clocks()["clocks"]
    for name in ("monotonic_s", "wall_s"):
        assert abs(clocks[name]["offset_s"]) <= clocks[name]["offset_uncertainty_s"] + 1e-3

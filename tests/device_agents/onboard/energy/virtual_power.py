"""A machine in virtual time whose power is known, and meters of it that are as bad as real ones."""

from __future__ import annotations

import gc
import math
import random
from bisect import bisect_right
from collections.abc import Callable
from typing import Any

from joulemap.device_agents.onboard.energy.meter import COUNTER, SAMPLER, MeterInfo
from joulemap.device_agents.simulated import VirtualMachine
from joulemap.device_agents.simulated.agent import SimulatedAgent
from joulemap.profiler import Protocol

# Power is constant for so long.
STEP_S = 0.01


class VirtualPower:
    """Power of a virtual machine: idle with noise that has a memory, heat, and what calls add.

    Args:
        latency_s: Of one call.
        net_w: What a call adds while it runs.
        idle_w: Idle power.
        noise_sd: Standard deviation of the idle power.
        noise_s: Time over which the idle power forgets.
        leakage: Relative rise of the idle power when hot.
        heat_s: Time constant of the heat.
        seed: Of the noise.
    """

    def __init__(
        self,
        *,
        latency_s: float = 0.005,
        net_w: float = 5.0,
        idle_w: float = 5.0,
        noise_sd: float = 0.0,
        noise_s: float = 0.2,
        leakage: float = 0.0,
        heat_s: float = 20.0,
        seed: int = 0,
    ) -> None:
        self.machine = VirtualMachine(lambda widths: latency_s, seed=seed)
        self.machine.watch = self._see
        self.net_w, self.idle_w, self.noise_sd = net_w, idle_w, noise_sd
        self.net_j_per_call = net_w * latency_s
        self._keep = math.exp(-STEP_S / noise_s)
        self._leakage, self._heat_s = leakage, heat_s
        self._random = random.Random(f"power/{seed}")
        self._noise = 0.0
        self._heat = 0.0
        self.times = [0.0]
        self.joules = [0.0]

    def _see(self, start: float, end: float, widths: tuple[int, ...] | None) -> None:
        power = 0.0 if widths is None else self.net_w
        while start < end:
            stop = min(end, (math.floor(start / STEP_S + 1e-9) + 1) * STEP_S)
            if stop >= (math.floor(start / STEP_S + 1e-9) + 1) * STEP_S - 1e-12:
                fresh = math.sqrt(1 - self._keep**2) * self.noise_sd
                self._noise = self._keep * self._noise + self._random.gauss(0.0, fresh)
            goal = power / self.net_w
            self._heat = goal + (self._heat - goal) * math.exp(-(stop - start) / self._heat_s)
            idle = self.idle_w * (1 + self._leakage * self._heat) + self._noise
            self.times.append(stop)
            self.joules.append(self.joules[-1] + (idle + power) * (stop - start))
            start = stop

    def joules_at(self, time_s: float) -> float:
        """Return the joules used up to a moment."""
        after = bisect_right(self.times, time_s)
        if after >= len(self.times):
            return self.joules[-1]
        if after == 0:
            return 0.0
        a, b = self.times[after - 1], self.times[after]
        share = (time_s - a) / (b - a)
        return self.joules[after - 1] + share * (self.joules[after] - self.joules[after - 1])


class VirtualCounter:
    """A counter of joules that steps, rounds down and wraps."""

    def __init__(
        self,
        power: VirtualPower,
        *,
        period_s: float = 0.001,
        resolution_j: float = 2.0**-14,
        range_j: float = 262143.0,
        gain: float = 1.0,
        name: str = "counter",
        rail: str = "all",
    ) -> None:
        self.power, self.gain, self.period_s = power, gain, period_s
        self.fault: Callable[[float, float], float] | None = None
        self.info = MeterInfo(
            name,
            "all",
            COUNTER,
            "a virtual machine",
            rail=rail,
            resolution=resolution_j,
            range_j=range_j,
            max_power_w=200.0,
        )

    def read(self) -> float:
        now = self.power.machine.elapsed_s
        joules = self.power.joules_at(math.floor(now / self.period_s) * self.period_s) * self.gain
        step, limit = self.info.resolution, self.info.range_j
        assert step is not None
        assert limit is not None
        value = math.floor(joules / step) * step % limit
        return value if self.fault is None else self.fault(now, value)

    def close(self) -> None:
        """Nothing is held."""


class VirtualGauge:
    """A gauge of watts that averages, errs and rounds."""

    def __init__(
        self,
        power: VirtualPower,
        *,
        period_s: float = 0.1,
        averaging_s: float = 0.1,
        noise_sd: float = 0.05,
        resolution_w: float = 0.001,
        gain: float = 1.0,
        name: str = "gauge",
        rail: str = "all",
        seed: int = 0,
    ) -> None:
        self.power, self.gain, self.period_s = power, gain, period_s
        self.averaging_s, self.noise_sd, self.seed = averaging_s, noise_sd, seed
        self.fault: Callable[[float, float], float] | None = None
        self.words: dict[str, str] = {}
        self.info = MeterInfo(
            name,
            "all",
            SAMPLER,
            "a virtual machine",
            rail=rail,
            resolution=resolution_w,
            averaging_s=averaging_s,
            max_power_w=200.0,
        )

    def read(self) -> float:
        now = self.power.machine.elapsed_s
        tick = math.floor(now / self.period_s)
        end = tick * self.period_s
        start = max(0.0, end - max(self.averaging_s, STEP_S))
        joules = self.power.joules_at(end) - self.power.joules_at(start)
        watts = joules / (end - start) if end > start else 0.0
        watts *= 1 + self.noise_sd * random.Random(f"{self.seed}/{tick}").gauss(0.0, 1.0)
        step = self.info.resolution
        assert step is not None
        value = round(watts * self.gain / step) * step
        return value if self.fault is None else self.fault(now, value)

    def state(self) -> dict[str, str]:
        """Return the words."""
        return self.words

    def close(self) -> None:
        """Nothing is held."""


class VirtualBattery(VirtualGauge):
    """A gauge whose battery also counts what is left, in coarse steps, without the gauge's gain."""

    step_j = 5.0

    def reserve(self) -> tuple[float, float]:
        left_j = 1e6 - self.power.joules_at(self.power.machine.elapsed_s)
        return math.floor(left_j / self.step_j), self.step_j


class MeteredAgent(SimulatedAgent):
    """An agent on a virtual machine, prepared to read its meters."""

    def __init__(self, power: VirtualPower, meters: list[Any], meter: str, **settings: Any) -> None:
        power.machine.meters = meters
        # A visit collects garbage, which among many libraries takes longer than all else.
        gc.collect()
        gc.freeze()
        super().__init__(power.machine)
        self.protocol = Protocol(max_warm_up_s=0.1, **settings).to_dict()
        self.prepared = self.answer(
            {
                "id": 1,
                "op": "prepare",
                "runtime": "onnxruntime",
                "threads": 1,
                "reference_widths": [1],
                "meter": meter,
                "protocol": self.protocol,
            },
            b"",
        )

    def energy(self) -> dict[str, Any]:
        """Return what the meters say about one more visit."""
        answer = self.answer(
            {"id": 2, "op": "visit", "widths": [2], "protocol": self.protocol}, b""
        )
        assert "result" in answer, answer
        energy = answer["result"]["energy"]
        assert isinstance(energy, dict)
        return energy

"""A board whose energy is known: its power over time, and what gauges of it would say.

Power has two parts, each with its own integral::

    idle_w   = idle at the reference temperature x (1 + leakage x (temperature - reference))
               x (1 + flicker), what else the board does: drawn anew every so often
    active_w = joules per CPU second x CPU seconds per second x frequency share ^ 2

The temperature follows the whole power as a resistor and a capacitor would; above a limit the
frequency falls. Time is cut where the board is looked at, and power is constant in between, so the
integrals are exact: what the truth is does not depend on how well CPU time is accounted for.
"""

from __future__ import annotations

import math
import threading
from array import array
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, fields

from joulemap import InputError

# Longer stretches of time are cut: the leakage follows the temperature at their starts.
MAX_STEP_S = 0.25
# Cuts that are remembered: at 200 a second more than half an hour.
MAX_HISTORY = 400_000
# Looks at the time and at the work that are no further apart are of one moment; so many are tried.
SAME_MOMENT_S = 0.0005
MAX_LOOKS = 20


@dataclass(frozen=True)
class PowerModel:
    """What a board uses.

    Args:
        idle_w: Power without work, at `reference_c`.
        active_w: Power on top of it for each busy core at full frequency: joules per CPU second.
        leakage_per_c: Relative change of the idle power per degree.
        reference_c: Temperature at which `idle_w` holds, and the surroundings' temperature.
        rise_c_per_w: Lasting rise of the temperature per watt.
        time_constant_s: Of the temperature.
        limit_c: Above it the frequency falls.
        frequency_loss_per_c: Share of the frequency that is lost per degree above the limit.
        min_frequency_share: The frequency falls no lower.
        flicker_share: Standard deviation of the idle power, relative.
        flicker_s: How often it is drawn anew.

    Raises:
        InputError: A value makes no sense.
    """

    idle_w: float = 2.0
    active_w: float = 5.0
    leakage_per_c: float = 0.003
    reference_c: float = 35.0
    rise_c_per_w: float = 4.0
    time_constant_s: float = 20.0
    limit_c: float = 80.0
    frequency_loss_per_c: float = 0.02
    min_frequency_share: float = 0.5
    flicker_share: float = 0.01
    flicker_s: float = 0.2

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not math.isfinite(value) or value < 0:
                raise InputError(f"{field.name} {value} is not a number of 0 or more")
        for name in ("time_constant_s", "flicker_s"):
            if getattr(self, name) <= 0:
                raise InputError(f"{name} {getattr(self, name)} is not above 0")


@dataclass(frozen=True)
class Rail:
    """A supply that carries shares of the board's idle and active power.

    Args:
        name: What it is called.
        idle_share: Of the idle power.
        active_share: Of the active power.
    """

    name: str
    idle_share: float = 1.0
    active_share: float = 1.0


TOTAL = Rail("total")
_MASK = (1 << 64) - 1


class Board:
    """Integrates power over time; remembers enough to answer for any interval of the recent past.

    Args:
        clock: The time in seconds; never goes back.
        busy_s: CPU seconds used so far; never falls.
        model: What the board uses.
        max_history: Cuts that are remembered.
        seed: Of the flicker.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        busy_s: Callable[[], float],
        model: PowerModel | None = None,
        max_history: int = MAX_HISTORY,
        seed: int = 0,
    ) -> None:
        self.model = model or PowerModel()
        self._clock = clock
        self._busy = busy_s
        self._max_history = max_history
        self._seed = seed
        self._longest_s = min(MAX_STEP_S, self.model.flicker_s)
        self._lock = threading.RLock()
        self.start_s = clock()
        self._busy_s = busy_s()
        self._temperature_c = self.model.reference_c
        self._times = array("d", [self.start_s])
        self._idle = array("d", [0.0])
        self._active = array("d", [0.0])

    def advance(self) -> float:
        """Take the time and work since the last look into account; return the time in seconds."""
        with self._lock:
            now, busy = self._look()
            passed = now - self._times[-1]
            if passed <= 0:
                return self._times[-1]
            steps = max(1, math.ceil(passed / self._longest_s))
            work = max(0.0, busy - self._busy_s) / steps
            self._busy_s = max(busy, self._busy_s)
            began = self._times[-1]
            for step in range(1, steps + 1):
                self._cut(now if step == steps else began + passed * step / steps, work)
            if len(self._times) > self._max_history:
                for values in (self._times, self._idle, self._active):
                    del values[: len(values) // 2]
            return now

    def _look(self) -> tuple[float, float]:
        """Return the time and the work of one moment.

        After a pause between the two the work would be that of a later moment, as if it had been done
        in less time: more power than the board has.
        """
        for _ in range(MAX_LOOKS):
            now, busy = self._clock(), self._busy()
            if self._clock() - now <= SAME_MOMENT_S:
                break
        return now, busy

    # -- the truth ---------------------------------------------------------------------------------

    def true_energy_j(self, start_s: float, end_s: float, rail: Rail = TOTAL) -> float:
        """Return the joules that a rail carried between two times.

        Raises:
            ValueError: The interval is not in the remembered past.
        """
        return self.true_idle_j(start_s, end_s, rail) + self.true_net_j(start_s, end_s, rail)

    def true_idle_j(self, start_s: float, end_s: float, rail: Rail = TOTAL) -> float:
        """Return the joules of the idle power alone.

        Raises:
            ValueError: The interval is not in the remembered past.
        """
        with self._lock:
            first, last = self._interval(start_s, end_s)
            return rail.idle_share * (last[0] - first[0])

    def true_net_j(self, start_s: float, end_s: float, rail: Rail = TOTAL) -> float:
        """Return the joules on top of the idle power.

        Raises:
            ValueError: The interval is not in the remembered past.
        """
        with self._lock:
            first, last = self._interval(start_s, end_s)
            return rail.active_share * (last[1] - first[1])

    # -- what gauges ask ---------------------------------------------------------------------------

    def energy_until(self, time_s: float, rail: Rail = TOTAL) -> float:
        """Return the joules that a rail carried since the board's start, up to a past time.

        Before the start the board was idle, which counts as negative.
        """
        with self._lock:
            idle, active = self._until(time_s)
            return rail.idle_share * idle + rail.active_share * active

    def power_w(self, time_s: float, rail: Rail = TOTAL) -> float:
        """Return a rail's power at a past time."""
        with self._lock:
            if len(self._times) < 2 or time_s <= self._times[0]:
                return rail.idle_share * self.model.idle_w
            after = min(max(bisect_right(self._times, time_s), 1), len(self._times) - 1)
            start, end = self._times[after - 1], self._times[after]
            joules = rail.idle_share * (self._idle[after] - self._idle[after - 1])
            joules += rail.active_share * (self._active[after] - self._active[after - 1])
            return joules / (end - start)

    @property
    def temperature_c(self) -> float:
        """The temperature at the last look."""
        return self._temperature_c

    @property
    def frequency_share(self) -> float:
        """The frequency at the last look, as a share of the full one."""
        above = max(0.0, self._temperature_c - self.model.limit_c)
        lowest = self.model.min_frequency_share
        return max(lowest, 1.0 - self.model.frequency_loss_per_c * above)

    def _cut(self, end_s: float, work_s: float) -> None:
        model, passed = self.model, end_s - self._times[-1]
        if passed <= 0:
            return
        warmer = self._temperature_c - model.reference_c
        idle_w = model.idle_w * max(0.0, 1.0 + model.leakage_per_c * warmer)
        if model.flicker_share:
            slot = int((end_s - self.start_s) / model.flicker_s)
            idle_w *= max(0.0, 1.0 + model.flicker_share * normal(self._seed, slot))
        active_j = model.active_w * work_s * self.frequency_share**2
        self._times.append(end_s)
        self._idle.append(self._idle[-1] + idle_w * passed)
        self._active.append(self._active[-1] + active_j)
        lasting = model.reference_c + model.rise_c_per_w * (idle_w + active_j / passed)
        share = math.exp(-passed / model.time_constant_s)
        self._temperature_c = lasting + (self._temperature_c - lasting) * share

    def _interval(
        self, start_s: float, end_s: float
    ) -> tuple[tuple[float, float], tuple[float, float]]:
        if end_s > self._times[-1]:
            self.advance()
        if not self._times[0] <= start_s <= end_s <= self._times[-1]:
            raise ValueError(
                f"{start_s} to {end_s} s is not within the remembered {self._times[0]} to "
                f"{self._times[-1]} s"
            )
        return self._until(start_s), self._until(end_s)

    def _until(self, time_s: float) -> tuple[float, float]:
        """Return (idle, active) joules since the start, linear between two cuts."""
        times = self._times
        if time_s <= times[0]:
            return self._idle[0] + (time_s - times[0]) * self.model.idle_w, self._active[0]
        after = bisect_right(times, time_s)
        if after >= len(times):
            return self._idle[-1], self._active[-1]
        before = after - 1
        share = (time_s - times[before]) / (times[after] - times[before])
        return (
            self._idle[before] + share * (self._idle[after] - self._idle[before]),
            self._active[before] + share * (self._active[after] - self._active[before]),
        )


def uniform(seed: int, number: int) -> float:
    """Return a number between 0 and 1, both excluded, that looks random (splitmix64)."""
    state = (seed * 0x9E3779B97F4A7C15 + (number + 1) * 0xD1342543DE82EF95) & _MASK
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        state = ((state ^ (state >> shift)) * factor) & _MASK
    return ((state >> 11) + 0.5) / (1 << 53)


def normal(seed: int, number: int) -> float:
    """Return a standard normal number that looks random."""
    radius = math.sqrt(-2.0 * math.log(uniform(seed, 2 * number)))
    return radius * math.cos(2.0 * math.pi * uniform(seed, 2 * number + 1))

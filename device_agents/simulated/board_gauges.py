"""What gauges of a board's power say: counters that step and wrap, samplers that average and err.

Everything random depends on the seed, the gauge and the number of the update alone: two readers
see the same readings, however often they look.
"""

from __future__ import annotations

import errno
import math
from collections.abc import Callable
from dataclasses import dataclass

from .board_model import TOTAL, Board, Rail, normal, uniform


@dataclass(frozen=True)
class CounterGauge:
    """A counter of joules.

    Args:
        rail: What it counts.
        update_period_s: Time between two updates.
        resolution_j: Its step.
        range_j: Where it starts again at 0.
        start_j: What it shows when the board starts.
        gain: Shown joules per joule.
        clock_skew: How much faster its clock runs, relative: updates come earlier, joules are more.
        lag_s: How old a value is when it appears.
        jitter_s: Updates come up to so much later than they should.
        seed: Of the jitter.
    """

    rail: Rail = TOTAL
    update_period_s: float = 0.001
    resolution_j: float = 2.0**-14
    range_j: float = 262143.32885
    start_j: float = 0.0
    gain: float = 1.0
    clock_skew: float = 0.0
    lag_s: float = 0.0
    jitter_s: float = 0.0
    seed: int = 0

    def read_j(self, board: Board) -> float:
        """Return the joules that it shows now."""
        tick, time_s = last_update(self, board)
        if self.jitter_s:
            late_s = self.jitter_s * uniform(self.seed, tick)
            if time_s + late_s > board.advance():
                tick -= 1
                time_s -= self.update_period_s
        joules = board.energy_until(time_s - self.lag_s, self.rail)
        shown = self.start_j + joules * self.gain * (1.0 + self.clock_skew)
        return math.floor(shown / self.resolution_j) * self.resolution_j % self.range_j


@dataclass(frozen=True)
class SamplerGauge:
    """A gauge of watts.

    Args:
        rail: What it measures.
        update_period_s: Time between two updates.
        averaging_s: Each value is the mean power over so long before it; 0 for the power itself.
        noise_sd: Standard deviation of a value's relative error, drawn anew for each update.
        resolution_w: Its step; 0 for none.
        gain: Shown watts per watt.
        offset_w: Shown without power.
        clock_skew: How much faster its clock runs, relative.
        lag_s: How old a value is when it appears.
        dropout_share: Share of the updates whose reading fails.
        seed: Of noise and dropouts.
    """

    rail: Rail = TOTAL
    update_period_s: float = 0.1
    averaging_s: float = 0.1
    noise_sd: float = 0.0
    resolution_w: float = 0.0
    gain: float = 1.0
    offset_w: float = 0.0
    clock_skew: float = 0.0
    lag_s: float = 0.0
    dropout_share: float = 0.0
    seed: int = 0

    def read_w(self, board: Board) -> float:
        """Return the watts that it shows now.

        Raises:
            OSError: This update dropped out.
        """
        tick, time_s = last_update(self, board)
        if self.dropout_share and uniform(self.seed ^ 0x5EED, tick) < self.dropout_share:
            raise OSError(errno.EIO, "the conversion failed")
        end_s = time_s - self.lag_s
        if self.averaging_s:
            joules = board.energy_until(end_s, self.rail)
            joules -= board.energy_until(end_s - self.averaging_s, self.rail)
            watts = joules / self.averaging_s
        else:
            watts = board.power_w(end_s, self.rail)
        if self.noise_sd:
            watts *= 1.0 + self.noise_sd * normal(self.seed, tick)
        shown = watts * self.gain + self.offset_w
        return stepped(shown, self.resolution_w)


def last_update(gauge: CounterGauge | SamplerGauge, board: Board) -> tuple[int, float]:
    """Return the number of a gauge's last update and when it was."""
    since_s = (board.advance() - board.start_s) * (1.0 + gauge.clock_skew)
    tick = math.floor(since_s / gauge.update_period_s)
    return tick, board.start_s + tick * gauge.update_period_s / (1.0 + gauge.clock_skew)


def stepped(value: float, step: float) -> float:
    """Return the nearest multiple of the step."""
    return round(value / step) * step if step else value


class Charger:
    """A charger of the battery: plugged in, it feeds the board and the battery.

    Args:
        clock: The time in seconds.
        power_w: What it delivers.
    """

    def __init__(self, clock: Callable[[], float], power_w: float = 10.0) -> None:
        self._clock = clock
        self.power_w = power_w
        self.is_plugged = False
        self._since_s = 0.0
        self._delivered_j = 0.0

    def plug(self, *, is_plugged: bool) -> None:
        """Plug it in or out."""
        now = self._clock()
        if self.is_plugged:
            self._delivered_j += (now - self._since_s) * self.power_w
        self._since_s, self.is_plugged = now, is_plugged

    def delivered_j(self) -> float:
        """Return the joules that it delivered so far."""
        now = self._clock()
        running = (now - self._since_s) * self.power_w if self.is_plugged else 0.0
        return self._delivered_j + running

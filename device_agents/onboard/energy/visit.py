"""The metered part of a visit: idle, settle, a window that is long enough, idle again.

::

    before()   idle (recorder running), a pause of random length, the variant runs until it and the
               gauge have settled, a counter's update is awaited
    is_over()  asked after each block: at least so long, so many updates, precise enough
    ended()    a counter's update is awaited
    after()    idle again
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..machine.clock import MachineClock
from ..visit_settings import VisitSettings
from . import charge_check
from .fluctuation import LongRun
from .idle_power import IdleTimes, bend_of, idle_fluctuation, idle_times
from .mean_power import MeanPower, Refused
from .meter import SAMPLER, Meter, MeterInfo
from .power_log import PowerLog
from .window import (
    Energy,
    Spans,
    counter_of,
    energy_of,
    outer_edges,
    powers,
    samples_of,
    trace_of,
)

# The variant runs so long after an idle time, so that clocks and caches are as in the window.
SETTLE_S = 0.1
# A meter that averages, or is slower than this, gets windows of this length at least.
SLOW_WINDOW_S = 5.0
SLOW_S = 0.05
MIN_IDLE_S = 0.5
# So many visits' idle times are remembered.
KEPT_IDLES = 20
# Idle times grow by so much at most where the idle power fluctuates.
MAX_IDLE_FACTOR = 10.0
# After the load ends, power takes so long to fall.
FALL_S = 0.1
# An update is awaited for so many periods.
AWAITED_PERIODS = 8.0
MIN_AWAITED_S = 0.1
# The window's precision is looked at again when it has grown by this factor.
LOOK_FACTOR = 1.2
# Two meters may differ by so much before it is said.
MAX_DISAGREEMENT = 0.10
MAX_GAIN_ERROR = 0.03
# Runs that the blocks of a window hold at most, about.
MAX_RUNS = 1000
MAX_BLOCKS = 60


@dataclass(frozen=True)
class ChosenMeter:
    """A meter in use.

    Args:
        meter: The open meter.
        period_s: Time between two of its updates, observed.
        state: What it told about itself when it was chosen.
        idles: What the idle times of the last visits told about the idle power's fluctuation.
        drawn: Joules of the last visits by a gauge and by its battery's own counter.
    """

    meter: Meter
    period_s: float
    state: dict[str, str]
    idles: list[IdleTimes] = field(default_factory=list)
    drawn: list[tuple[float, float]] = field(default_factory=list)

    @property
    def info(self) -> MeterInfo:
        """What is known about the meter."""
        return self.meter.info

    def note_idle(self, told: IdleTimes) -> None:
        """Keep what a visit's idle times told."""
        self.idles.append(told)
        del self.idles[:-KEPT_IDLES]

    def note_drawn(self, told: tuple[float, float] | None) -> None:
        """Keep what a visit took from the battery; None without a counter."""
        if told is not None:
            self.drawn.append(told)
            del self.drawn[: -charge_check.KEPT_VISITS]

    def current_state(self) -> dict[str, str]:
        """Return what it tells about itself now."""
        return state_of(self.meter)


class RecorderLike(Protocol):
    """Reads in the background."""

    def start(self) -> None:
        """Begin."""

    def stop(self) -> None:
        """End."""


def state_of(meter: Meter) -> dict[str, str]:
    """Return what a meter tells about itself, such as a battery's status; empty for most."""
    state = getattr(meter, "state", None)
    try:
        return {str(k)[:50]: str(v)[:50] for k, v in state().items()} if state else {}
    except Exception as error:  # noqa: BLE001 - a state that cannot be read is a state too
        return {"state": f"not readable: {error}"[:50]}


def least_window_s(info: MeterInfo, period_s: float, settings: VisitSettings) -> float:
    """Return how long a window of a meter is at least, in seconds."""
    least = settings.energy_window_s
    is_slow = info.averaging_s > 0 or (info.kind == SAMPLER and period_s > SLOW_S)
    if is_slow:
        least = max(least, SLOW_WINDOW_S)
    return max(least, settings.energy_updates * period_s * 1.02)


class EnergyVisit:
    """The energy of one visit.

    Args:
        chosen: The meter that counts, and after it one that checks it.
        clock: What visits are timed with.
        make_recorder: Makes what reads the logs in the background.
        settings: How long its window lasts.
        seed: Of the pause before the window.
    """

    def __init__(
        self,
        chosen: Sequence[ChosenMeter],
        clock: MachineClock,
        make_recorder: Callable[[Sequence[PowerLog]], RecorderLike],
        settings: VisitSettings,
        seed: str,
    ) -> None:
        self.chosen = chosen
        self.clock = clock
        self.settings = settings
        self.logs = [PowerLog(item.meter, clock) for item in chosen]
        self._recorder = make_recorder(self.logs)
        self._random = random.Random(seed)  # noqa: S311 - a phase, not a secret
        self.window_s = max(least_window_s(item.info, item.period_s, settings) for item in chosen)
        # The averaging of the slowest gauge; its first second shows the time before.
        self.memory_s = max(item.info.averaging_s for item in chosen)
        if any(item.info.averaging_s > 0 for item in chosen):
            self.memory_s = max(1.0, self.memory_s)
        self.idle_s = max(MIN_IDLE_S, self.window_s / 2)
        self._look_s = self.window_s
        self._idle_before = self._window = self._busy = self._idle_after = (0.0, 0.0)
        self._states: list[dict[str, str]] = []
        self._reserve: charge_check.Reserve | None = None
        self._fluctuation = LongRun(0.0, 0.0, 0)

    @property
    def min_run_s(self) -> float:
        """Least duration of a run, so that a long window does not fill the journal."""
        return self.window_s / MAX_RUNS

    @property
    def block_s(self) -> float:
        """Least duration of a block."""
        return self.window_s / MAX_BLOCKS

    def before(self, run: Callable[[], None]) -> None:
        """Idle, then run the variant until all has settled; await a counter's update."""
        self._states = [item.current_state() for item in self.chosen]
        self._recorder.start()
        self._reserve = self._left()
        self.clock.sleep(self._fall_s())
        self._idle_before = self._idle()
        self._lengthen_idle()
        slowest = max(item.period_s for item in self.chosen)
        if slowest > SLOW_S / 5 or self.memory_s:
            self.clock.sleep(self._random.random() * max(slowest, min(self.memory_s, 1.0)))
        deadline = self.clock.monotonic_s() + max(SETTLE_S, self.memory_s * 1.05 + self._late_s())
        run()
        while self.clock.monotonic_s() < deadline:
            run()
        start = self.clock.monotonic_s()
        self._await_updates()
        self._window = (start, start)
        self._busy = (self.clock.monotonic_s(), 0.0)

    def is_over(self) -> bool:
        """Return whether the window may end."""
        now = self.clock.monotonic_s()
        spent = now - self._busy[0]
        if spent < self.window_s:
            return False
        if any(log.gone for log in self.logs):
            return True
        if spent >= self.settings.max_energy_window_s:
            return True
        if spent < self._look_s:
            return False
        self._look_s = spent * LOOK_FACTOR
        try:
            return self._is_precise(now)
        except Refused:
            return True

    def ended(self) -> None:
        """Close the window right after the last call."""
        end = self.clock.monotonic_s()
        self._busy = (self._busy[0], end)
        self._await_updates()
        self._window = (self._window[0], self.clock.monotonic_s())

    def after(self) -> None:
        """Idle again; then the recorder ends."""
        self.clock.sleep(self._fall_s())
        self._idle_after = self._idle()
        left = self._left()
        self._recorder.stop()
        if self._reserve is not None and left is not None:
            drawn_j = charge_check.drawn_j(self.logs[0], self._reserve, left)
            self.chosen[0].note_drawn(drawn_j)

    def stop(self) -> None:
        """End the recorder, whatever has happened."""
        self._recorder.stop()

    def answer(self, calls: int) -> dict[str, Any]:
        """Return what the meters say about the visit, or why they say nothing.

        Args:
            calls: Calls of the variant in the window.
        """
        readings = [self._reading(i, calls) for i in range(len(self.chosen))]
        answer = {"refused": None, **readings[0]}
        if len(readings) > 1:
            answer["check"] = _check(readings, [item.info for item in self.chosen])
        else:
            answer["check"] = charge_check.check(readings[0], self.chosen[0].drawn)
        return answer

    def _left(self) -> charge_check.Reserve | None:
        return charge_check.reserve_of(self.chosen[0].meter, self.clock.monotonic_s())

    def _reading(self, index: int, calls: int) -> dict[str, Any]:
        item, log = self.chosen[index], self.logs[index]
        info = item.info
        spans = self._spans(info)
        about = {
            "meter": info.name,
            "channel": info.channel,
            "kind": info.kind,
            "calls": calls,
            "energy": None,
            "trace": trace_of(log, spans),
        }
        try:
            self._check_state(item, self._states[index])
            parts = powers(log, item.period_s, spans)
            about["energy"] = self._energy(parts, item, calls).to_dict()
            self._check_updates(parts[1], item)
        except Refused as error:
            about["energy"] = None
            about["refused"] = f"{info.name}:{info.channel}: {error}"
        return about

    def _energy(
        self, parts: tuple[MeanPower, MeanPower, MeanPower], item: ChosenMeter, calls: int
    ) -> Energy:
        before, window, after = parts
        busy_s = self._busy[1] - self._busy[0]
        item.note_idle(idle_times(before, window, after))
        fluctuation = idle_fluctuation(item.idles)
        bend = bend_of(item.idles, fluctuation, before, window, after)
        return energy_of(before, window, after, item.info, busy_s, calls, fluctuation, bend)

    def _check_state(self, item: ChosenMeter, before: dict[str, str]) -> None:
        for state in (before, item.current_state()):
            for name in sorted({*item.state, *state}):
                was, now = item.state.get(name), state.get(name)
                if was != now:
                    raise Refused(
                        f"{name} was {was} when the campaign began and is {now} now: what it "
                        "measures is no longer the same"
                    )

    def _check_updates(self, window: MeanPower, item: ChosenMeter) -> None:
        wanted = self.settings.energy_updates
        # A gauge is seen at most as often as it is read.
        seen = max(item.period_s, self.logs[0].interval_s if item.info.kind == SAMPLER else 0.0)
        if window.updates < 0.8 * min(wanted, window.duration_s / seen):
            raise Refused(
                f"the window of {window.duration_s:.1f} s holds {window.updates} updates of the "
                f"meter, not {wanted:.0f}"
            )

    def _spans(self, info: MeterInfo) -> Spans:
        window = self._busy if info.kind == SAMPLER else self._window
        return Spans(self._idle_before, window, self._busy, self._idle_after)

    def _fall_s(self) -> float:
        """Return how long after a load its gauges still show it, in seconds."""
        return max(FALL_S, self.memory_s * 1.05 + self._late_s())

    def _lengthen_idle(self) -> None:
        """Idle longer where the idle power fluctuates; the window and the idle after grow too."""
        item = self.chosen[0]
        try:
            idle = self._mean_power(0, self._idle_before)
        except Refused:
            return
        # What the visits before told, and this idle time: it does not change within the window.
        self._fluctuation = idle_fluctuation(item.idles, [idle.pieces])
        error_w = self.settings.energy_rel_error * idle.power_w
        if error_w <= 0:
            return
        # Half an interval of t = 2; the window is twice as long as each idle time.
        wanted = 4 * self._fluctuation.w2_s / error_w**2
        most = min(MAX_IDLE_FACTOR * self.idle_s, self.settings.max_energy_window_s / 2)
        if wanted <= self.idle_s or most <= self.idle_s:
            return
        longer = min(wanted, most)
        self.clock.sleep(longer - self.idle_s)
        if item.info.kind != SAMPLER:
            self._await_updates()
        self._idle_before = (self._idle_before[0], self.clock.monotonic_s())
        self.idle_s = longer
        self.window_s = self._look_s = max(self.window_s, 2 * longer)

    def _mean_power(self, index: int, span: tuple[float, float]) -> MeanPower:
        """Return the mean power of a stretch so far.

        Raises:
            Refused: The readings make none.
        """
        item, log = self.chosen[index], self.logs[index]
        if item.info.kind == SAMPLER:
            return samples_of(log, item.period_s).mean_power(*span)
        counter = counter_of(log, item.period_s)
        return counter.mean_power(*outer_edges(counter, *span))

    def _late_s(self) -> float:
        """Return how long after its moment a gauge's value may appear, in seconds."""
        slow = [item.period_s for item in self.chosen if item.info.kind == SAMPLER]
        return max([0.0, *slow]) + max(log.interval_s for log in self.logs)

    def _idle(self) -> tuple[float, float]:
        start = self.clock.monotonic_s()
        self._await_updates()
        self.clock.sleep(self.idle_s)
        self._await_updates()
        return start, self.clock.monotonic_s()

    def _await_updates(self) -> None:
        for item, log in zip(self.chosen, self.logs):
            if item.info.kind != SAMPLER:
                log.await_update(max(MIN_AWAITED_S, AWAITED_PERIODS * item.period_s))

    def _is_precise(self, now: float) -> bool:
        """Return whether the window would be precise enough, or more of it would not help."""
        info = self.chosen[0].info
        start = self._busy[0] if info.kind == SAMPLER else self._window[0]
        idle = self._mean_power(0, self._idle_before)
        window = self._mean_power(0, (start, now))
        after = MeanPower(
            idle.power_w,
            idle.fixed_w2,
            idle.pieces,
            2 * window.middle_s - idle.middle_s - idle.duration_s / 2,
            2 * window.middle_s - idle.middle_s + idle.duration_s / 2,
            idle.updates,
            0.0,
        )
        energy = energy_of(idle, window, after, info, now - self._busy[0], 1, self._fluctuation)
        target = self.settings.energy_rel_error
        if energy.half_width_j <= target * energy.net_j:
            return True
        # What the idle times leave open does not shrink with a longer window.
        idle_j2 = self._fluctuation.w2_s / idle.duration_s / 2 * energy.window_s**2
        return energy.net_standard_error_j**2 - idle_j2 < idle_j2 / 4


def _check(readings: Sequence[dict[str, Any]], infos: Sequence[MeterInfo]) -> dict[str, Any]:
    """Return what the second meter says beside the first one."""
    second = readings[1]
    check = {
        "meter": infos[1].name,
        "channel": infos[1].channel,
        "kind": infos[1].kind,
        "is_same_rail": bool(infos[0].rail) and infos[0].rail == infos[1].rail,
        "net_j": None,
        "net_standard_error_j": None,
        "gross_j": None,
        "disagreement": None,
        "is_disagreement": False,
        "refused": second.get("refused"),
    }
    a, b = readings[0]["energy"], second["energy"]
    if b is None:
        return check
    check.update(
        net_j=b["net_j"], net_standard_error_j=b["net_standard_error_j"], gross_j=b["gross_j"]
    )
    if a is None:
        return check
    larger = max(abs(a["net_j"]), abs(b["net_j"]))
    if larger <= 0:
        return check
    difference = b["net_j"] - a["net_j"]
    combined = 2 * (a["net_standard_error_j"] ** 2 + b["net_standard_error_j"] ** 2) ** 0.5
    limit = min(MAX_DISAGREEMENT * larger, max(combined, MAX_GAIN_ERROR * larger))
    check["disagreement"] = difference / abs(a["net_j"]) if a["net_j"] else None
    check["is_disagreement"] = abs(difference) > limit
    return check

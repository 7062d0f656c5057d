"""A machine in virtual time: calls advance its clocks, disturbances stretch them.

Between two events (a state switch, a burst's start or end, a fault, a refresh of drift and
temperature) all calls are stretched alike; a call that meets an event is split there. Each
disturbance draws from a stream of its own, and the states and bursts depend on the seed and the
time alone: two ways of measuring meet the same ones.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

from ..onboard.energy.meter import Meter, Missing
from ..onboard.files import Files
from ..onboard.machine.clock import MachineClock
from .disturbances import Disturbances

# How often drift and temperature are brought up to date.
REFRESH_S = 0.25
# The kernel counts stolen time in ticks.
STEAL_TICK_S = 0.01
FULL_FREQUENCY_HZ = 2.0e9
# Clocks start anywhere: only differences count.
MONOTONIC_ORIGIN_S = 5_000.0
BOOT_ORIGIN_S = 86_400.0
WALL_ORIGIN_S = 1_800_000_000.0
# Beyond this many decay times the first calls' excess is nothing.
WARM_UP_DECAYS = 12

Cost = Callable[[tuple[int, ...]], float]


class HiddenState(NamedTuple):
    """What disturbs the machine from one moment to the next record.

    Args:
        time_s: Since the machine's start, on the monotonic clock.
        state: Index of the state; 0 is the fast one.
        factor: Time of a call with the elasticity 1 over the truth.
        burst_factor: The part of it that bursts and a permanent competitor have.
        temperature_c: None without throttling.
    """

    time_s: float
    state: int
    factor: float
    burst_factor: float
    temperature_c: float | None


class Timer:
    """Something that is done again and again as virtual time passes; it takes no time itself."""

    def __init__(self, at_s: float, interval_s: float, call: Callable[[], object]) -> None:
        self.at_s = at_s
        self.interval_s = interval_s
        self.call = call


class VirtualMachine(MachineClock):
    """A clock that simulated calls advance.

    Args:
        cost: Widths in channels to the true seconds per call: in the fast state, at the start.
        disturbances: What stretches the calls; nothing when None.
        seed: Of everything random.
        energy: Widths in channels to the true joules per call; None for a machine without a meter.
        name: What the processor is called.
        details: What else its fingerprint says, JSON values.
    """

    def __init__(
        self,
        cost: Cost,
        disturbances: Disturbances | None = None,
        seed: int = 0,
        *,
        energy: Cost | None = None,
        name: str = "",
        details: Mapping[str, Any] | None = None,
    ) -> None:
        self.disturbances = disturbances or Disturbances()
        self.seed = seed
        self.name = name
        self.details = dict(details or {})
        self._energy = energy
        self._energies_random = _stream(seed, "energies")
        self.reference_widths: tuple[int, ...] | None = None
        self.history: list[HiddenState] = []
        # What a simulated device's meters are: their own objects, and files that real ones read.
        self.meters: list[Meter | Missing] = []
        self.meter_modules: dict[str, str] = {}
        self.files: Files | None = None
        # Told of every stretch of time: its start and end in seconds since the machine's start, and
        # the widths that ran; empty for other work, None for idling.
        self.watch: Callable[[float, float, tuple[int, ...] | None], None] | None = None
        self._running: tuple[int, ...] | None = ()
        self._timers: list[Timer] = []
        self._cost = cost
        self._costs: dict[tuple[int, ...], float] = {}
        self._states_random = _stream(seed, "states")
        self._bursts_random = _stream(seed, "bursts")
        self._noise_random = _stream(seed, "noise")
        self._outliers_random = _stream(seed, "outliers")
        self._sessions_random = _stream(seed, "sessions")
        self._now = 0.0
        self._idle_s = 0.0
        self._suspended_s = 0.0
        self._jumped_s = 0.0
        self._stolen_s = 0.0
        self._synchronised = 0.0
        self._is_working = True
        self._noise = 0.0
        self._start()

    # -- the clocks --------------------------------------------------------------------------------

    def monotonic_s(self) -> float:
        """Return the clock that latencies are measured with, in its steps."""
        step = self.disturbances.clock_step_s
        now = MONOTONIC_ORIGIN_S + self._now
        return math.floor(now / step) * step if step else now

    def cpu_s(self) -> float:
        """Return the time for which the agent had a processor."""
        self._synchronise()
        return self._now - self._idle_s - self._stolen_s

    def wall_s(self) -> float:
        """Return the wall clock, which jumps when it is set."""
        return WALL_ORIGIN_S + self._now + self._suspended_s + self._jumped_s

    def boot_s(self) -> float:
        """Return the time since boot, suspended time included."""
        return BOOT_ORIGIN_S + self._now + self._suspended_s

    def steal_s(self, cpus: Sequence[int]) -> float | None:
        """Return the time that bursts withheld, in ticks."""
        self._synchronise()
        return math.floor(self._stolen_s / STEAL_TICK_S) * STEAL_TICK_S

    # -- the truth ---------------------------------------------------------------------------------

    @property
    def elapsed_s(self) -> float:
        """Seconds since the machine's start, idle time included, suspended time not."""
        return self._now

    @property
    def busy_s(self) -> float:
        """Seconds since the machine's start in which the agent worked."""
        return self._now - self._idle_s

    def true_latency_s(self, widths: Sequence[int]) -> float:
        """Return the seconds per call that nothing disturbs: what a protocol should report."""
        key = tuple(widths)
        if key not in self._costs:
            self._costs[key] = float(self._cost(key))
        return self._costs[key]

    def baseline_latency_s(self, widths: Sequence[int], share: float = 0.05) -> float:
        """Return the seconds per call at the fastest speed held for a share of the time so far.

        This is what a campaign can know and states: a state that never occurred cannot be seen.
        Bursts, outliers and noise are not part of a speed.

        Args:
            widths: The variant's widths in channels.
            share: Share of the time since the start that is spent at this speed or a faster one.
        """
        states = self.disturbances.states
        factors = states.factors if states else (1.0,)
        ends = [entry.time_s for entry in self.history[1:]] + [self._now]
        speeds = sorted(
            (entry.factor / entry.burst_factor, entry.state, end - entry.time_s)
            for entry, end in zip(self.history, ends, strict=True)
        )
        held = accumulate(duration_s for _, _, duration_s in speeds)
        index = next((i for i, s in enumerate(held) if s >= share * self._now), len(speeds) - 1)
        factor, state, _ = speeds[index]
        common = factor / factors[state]
        felt = float(factors[state] ** self.elasticity(widths))
        return self.true_latency_s(widths) * common * felt

    def state_at(self, time_s: float) -> HiddenState:
        """Return what disturbed the machine at a moment, in seconds since its start."""
        index = bisect_right(self.history, time_s, key=lambda entry: entry.time_s)
        return self.history[max(0, index - 1)]

    @property
    def switches(self) -> list[tuple[float, int]]:
        """The state at the start and at every switch: (seconds since the start, state)."""
        found: list[tuple[float, int]] = []
        for entry in self.history:
            if not found or found[-1][1] != entry.state:
                found.append((entry.time_s, entry.state))
        return found

    @property
    def temperature_c(self) -> float | None:
        """The device's temperature; None without throttling."""
        self._synchronise()
        return self._temperature_c if self.disturbances.throttling else None

    @property
    def frequency_hz(self) -> float | None:
        """The device's clock frequency; None without throttling."""
        return FULL_FREQUENCY_HZ * self._frequency_share if self.disturbances.throttling else None

    def elasticity(self, widths: Sequence[int]) -> float:
        """Return how strongly a variant feels the states: time is multiplied by factor ** this."""
        states = self.disturbances.states
        if states is None or not states.elasticity_sd:
            return 1.0
        return _stream(self.seed, f"elasticity/{list(widths)}").gauss(1.0, states.elasticity_sd)

    @property
    def has_energy(self) -> bool:
        """Whether it knows its calls' joules."""
        return self._energy is not None

    def read_energy_j(self, widths: Sequence[int]) -> float | None:
        """Return what the meter says about a call in joules; None without one."""
        if self._energy is None:
            return None
        spread = self.disturbances.energy_sd
        return self._energy(tuple(widths)) * math.exp(self._energies_random.gauss(0.0, spread))

    # -- running -----------------------------------------------------------------------------------

    def load(self, widths: Sequence[int]) -> Callable[[], None]:
        """Return a function that runs a variant once, which advances the clocks."""
        own = self.disturbances
        latency_s = self.true_latency_s(widths)
        if own.session_sd:
            latency_s *= math.exp(self._sessions_random.gauss(0.0, own.session_sd))
        elasticity = self.elasticity(widths)
        factors = own.states.factors if own.states else (1.0,)
        powers = tuple(factor**elasticity for factor in factors)
        noise = own.call_noise
        carried = noise.autocorrelation if noise else 0.0
        fresh_sd = noise.sd * math.sqrt(1.0 - carried * carried) if noise else 0.0
        excess, decay, warm_calls = 0.0, 1.0, 0
        if own.warm_up:
            excess, decay = own.warm_up.first_call_excess, math.exp(-1 / own.warm_up.decay_calls)
            warm_calls = math.ceil(WARM_UP_DECAYS * own.warm_up.decay_calls)
        drifts = own.reference_drift_per_hour if tuple(widths) == self.reference_widths else 0.0
        gauss, exp, run = self._noise_random.gauss, math.exp, self.run
        name = tuple(widths)

        def call() -> None:
            nonlocal excess, warm_calls
            work_s = latency_s
            if fresh_sd:
                self._noise = value = carried * self._noise + gauss(0.0, fresh_sd)
                work_s *= exp(value)
            if warm_calls:
                work_s *= 1.0 + excess
                excess *= decay
                warm_calls -= 1
            if drifts:
                work_s *= 1.0 + drifts * self._now / 3600.0
            self._calls_to_outlier -= 1
            if not self._calls_to_outlier:
                work_s *= self._outlier()
            if self.watch is None:
                run(work_s, powers)
                return
            self._running = name
            run(work_s, powers)
            self._running = ()

        return call

    def run(self, work_s: float, powers: Sequence[float] | None = None) -> None:
        """Work: undisturbed it would take `work_s` seconds.

        Args:
            work_s: Seconds without states, drift, bursts and heat.
            powers: Factor of every state; the states' own when None.
        """
        if powers is None:
            powers = self._factors
        while True:
            factor = self._common * powers[self._state]
            end = self._now + work_s * factor
            if end < self._next_event:
                if self.watch is not None:
                    self.watch(self._now, end, self._running)
                self._now = end
                return
            work_s -= (self._next_event - self._now) / factor
            if self.watch is not None:
                self.watch(self._now, self._next_event, self._running)
            self._now = self._next_event
            self._pass_events()

    def idle(self, duration_s: float) -> None:
        """Let time pass without work."""
        self._synchronise()
        self._is_working = False
        end = self._now + duration_s
        while end >= self._next_event:
            self._idle_until(self._next_event)
            self._pass_events()
        self._idle_until(end)
        self._synchronise()
        self._is_working = True

    def sleep(self, duration_s: float) -> None:
        """Let virtual time pass without work."""
        self.idle(duration_s)

    def every(self, interval_s: float, call: Callable[[], object]) -> Timer:
        """Call something now and then again and again, while the machine works and idles.

        Args:
            interval_s: Virtual time between two calls.
            call: Sees the clocks as they are at that moment; may not let time pass.
        """
        timer = Timer(self._now + interval_s, interval_s, call)
        self._timers.append(timer)
        self._plan_event()
        call()
        return timer

    def cancel(self, timer: Timer) -> None:
        """End what `every` began; harmless when it has ended."""
        self._timers = [other for other in self._timers if other is not timer]
        self._plan_event()

    def _idle_until(self, end: float) -> None:
        if self.watch is not None:
            self.watch(self._now, end, None)
        self._idle_s += end - self._now
        self._now = end

    # -- events ------------------------------------------------------------------------------------

    def _start(self) -> None:
        own = self.disturbances
        self._factors = own.states.factors if own.states else (1.0,)
        self._state, self._switch_at = 0, math.inf
        if own.states:
            stays = own.states.mean_dwell_s
            self._state = self._states_random.choices(range(len(stays)), weights=stays)[0]
            self._switch_at = self._states_random.expovariate(1 / stays[self._state])
        self._burst_factor = own.permanent_factor
        self._burst_at = math.inf
        if own.bursts:
            self._burst_at = self._bursts_random.expovariate(own.bursts.rate_hz)
        self._is_burst = False
        self._refresh_at = REFRESH_S if own.drift or own.throttling else math.inf
        self._temperature_c = own.throttling.ambient_c if own.throttling else 0.0
        self._frequency_share = 1.0
        self._speed = 1.0
        faults = (own.clock_jump, own.suspend, own.speed_change)
        self._fault_times = sorted(fault.at_s for fault in faults if fault)
        self._calls_to_outlier = self._draw_outlier_gap()
        if own.call_noise:
            self._noise = self._noise_random.gauss(0.0, own.call_noise.sd)
        self._update()

    def _pass_events(self) -> None:
        for timer in self._timers:
            if self._now >= timer.at_s:
                timer.at_s += timer.interval_s
                timer.call()
        if self._now < self._disturbed_at:
            self._plan_event()
            return
        self._synchronise()
        own, now = self.disturbances, self._now
        if now >= self._switch_at and own.states:
            others = [state for state in range(len(self._factors)) if state != self._state]
            self._state = self._states_random.choice(others)
            self._switch_at = now + self._states_random.expovariate(
                1 / own.states.mean_dwell_s[self._state]
            )
        if now >= self._burst_at and own.bursts:
            self._is_burst = not self._is_burst
            rate_hz = 1 / own.bursts.mean_duration_s if self._is_burst else own.bursts.rate_hz
            self._burst_at = now + self._bursts_random.expovariate(rate_hz)
            factor = own.bursts.factor if self._is_burst else 1.0
            self._burst_factor = own.permanent_factor * factor
        if now >= self._refresh_at:
            self._refresh_at = now + REFRESH_S
        while self._fault_times and now >= self._fault_times[0]:
            self._fail(self._fault_times.pop(0))
        self._update()

    def _fail(self, at_s: float) -> None:
        own = self.disturbances
        if own.clock_jump and own.clock_jump.at_s == at_s:
            self._jumped_s = own.clock_jump.by_s
        if own.suspend and own.suspend.at_s == at_s:
            self._suspended_s = own.suspend.duration_s
            self._heat(own.suspend.duration_s, is_working=False)
        if own.speed_change and own.speed_change.at_s == at_s:
            self._speed = own.speed_change.factor

    def _update(self) -> None:
        """Bring what lies between two events up to date, and write it down."""
        own = self.disturbances
        drift = 1.0
        if own.drift:
            phase = 2 * math.pi * self._now / own.drift.sine_period_s
            drift += own.drift.linear_per_hour * self._now / 3600.0
            drift += own.drift.sine_amplitude * math.sin(phase)
        if own.throttling:
            above = max(0.0, self._temperature_c - own.throttling.limit_c)
            self._frequency_share = max(
                own.throttling.min_frequency_share,
                1.0 - own.throttling.frequency_loss_per_c * above,
            )
        self._common = max(drift, 0.01) * self._burst_factor * self._speed / self._frequency_share
        self._disturbed_at = min(
            self._switch_at,
            self._burst_at,
            self._refresh_at,
            self._fault_times[0] if self._fault_times else math.inf,
        )
        self._plan_event()
        self.history.append(
            HiddenState(
                self._now,
                self._state,
                self._common * self._factors[self._state],
                self._burst_factor,
                self._temperature_c if own.throttling else None,
            )
        )

    def _plan_event(self) -> None:
        self._next_event = min([self._disturbed_at, *(timer.at_s for timer in self._timers)])

    def _synchronise(self) -> None:
        """Take the time since the last synchronisation into account: stolen time and heat."""
        passed = self._now - self._synchronised
        self._synchronised = self._now
        if self._is_working:
            self._stolen_s += passed * (1.0 - 1.0 / self._burst_factor)
        self._heat(passed, is_working=self._is_working)

    def _heat(self, duration_s: float, *, is_working: bool) -> None:
        heat = self.disturbances.throttling
        if heat is None:
            return
        rise = heat.full_load_rise_c * self._frequency_share if is_working else 0.0
        lasting = heat.ambient_c + rise
        share = math.exp(-duration_s / heat.time_constant_s)
        self._temperature_c = lasting + (self._temperature_c - lasting) * share

    def _outlier(self) -> float:
        self._calls_to_outlier = self._draw_outlier_gap()
        outliers = self.disturbances.outliers
        if outliers is None:
            return 1.0
        return outliers.factor * math.exp(self._outliers_random.gauss(0.0, outliers.log_sd))

    def _draw_outlier_gap(self) -> int:
        """Return the number of calls until the next outlier, that call included."""
        outliers = self.disturbances.outliers
        if outliers is None or not outliers.probability:
            return 1 << 62
        share = math.log(1.0 - self._outliers_random.random())
        return 1 + int(share / math.log(1.0 - outliers.probability))


def _stream(seed: int, name: str) -> random.Random:
    return random.Random(f"{seed}/{name}")  # noqa: S311 - reproducible, not secret

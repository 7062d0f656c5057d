"""What may disturb a simulated device: each disturbance is a small record, and None is off.

Every factor multiplies the time of a call; the truth is the time without any of them. A factor of
a random size has the median that is given, so that the truth is the median of quiet calls.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from types import MappingProxyType
from typing import Any

from joulemap import InputError


@dataclass(frozen=True)
class States:
    """The machine is in one of several states and leaves each after a random (exponential) time.

    From a state it goes to any other one alike; it starts in each as often as it is in it.

    Args:
        factors: Time of a call in each state over the truth; the first state is the fast one.
        mean_dwell_s: Mean stay in each state.
        elasticity_sd: Variants differ in what a state does to them: factor ** e, where e is drawn
            once per variant with mean 1 and this standard deviation.
    """

    factors: tuple[float, ...] = (1.0, 1.51)
    mean_dwell_s: tuple[float, ...] = (90.0, 140.0)
    elasticity_sd: float = 0.0

    def __post_init__(self) -> None:
        if len(self.factors) < 2 or len(self.factors) != len(self.mean_dwell_s):
            raise InputError("states need two factors or more, and a mean dwell time for each")


@dataclass(frozen=True)
class Drift:
    """The machine becomes slower slowly, in a line and in waves.

    Args:
        linear_per_hour: Relative change of a call's time per hour.
        sine_amplitude: Relative amplitude of the wave, which starts at 0.
        sine_period_s: Period of the wave.
    """

    linear_per_hour: float = 0.0
    sine_amplitude: float = 0.0
    sine_period_s: float = 600.0


@dataclass(frozen=True)
class Bursts:
    """Another process takes part of the processor for a moment, which counts as stolen time.

    Args:
        rate_hz: Bursts that start per second while there is none.
        mean_duration_s: Mean duration, exponentially distributed.
        factor: Time of a call during a burst over that without.
    """

    rate_hz: float = 0.05
    mean_duration_s: float = 0.1
    factor: float = 2.0


@dataclass(frozen=True)
class Outliers:
    """Single calls take much longer.

    Args:
        probability: Of a call.
        factor: Median of an outlier's time over the time of the call without it.
        log_sd: Standard deviation of the factor's logarithm.
    """

    probability: float = 0.003
    factor: float = 3.0
    log_sd: float = 0.4


@dataclass(frozen=True)
class CallNoise:
    """Calls differ from one to the next, AR(1) in the logarithm of their time.

    Args:
        sd: Standard deviation of the logarithm.
        autocorrelation: Correlation of a call with the next one.
    """

    sd: float = 0.01
    autocorrelation: float = 0.0


@dataclass(frozen=True)
class WarmUp:
    """The first calls after a load are slower.

    Args:
        first_call_excess: Relative excess of the first call.
        decay_calls: Calls in which the excess falls to 1/e of itself.
    """

    first_call_excess: float = 1.0
    decay_calls: float = 2.0


@dataclass(frozen=True)
class Throttling:
    """Work heats the device; above a limit its clock frequency falls, and with it the heat.

    Args:
        ambient_c: Temperature when idle for long, and at the start.
        full_load_rise_c: Rise above it under lasting work at full frequency.
        time_constant_s: In which a difference to the lasting temperature falls to 1/e of itself.
        limit_c: Up to here the frequency is full.
        frequency_loss_per_c: Share of the frequency lost per degree above the limit.
        min_frequency_share: Lowest share of the full frequency.
    """

    ambient_c: float = 30.0
    full_load_rise_c: float = 50.0
    time_constant_s: float = 60.0
    limit_c: float = 60.0
    frequency_loss_per_c: float = 0.05
    min_frequency_share: float = 0.4


@dataclass(frozen=True)
class ClockJump:
    """Somebody sets the wall clock.

    Args:
        at_s: When, on the monotonic clock since the machine's start.
        by_s: How far; negative is back.
    """

    at_s: float
    by_s: float


@dataclass(frozen=True)
class Suspend:
    """The machine sleeps: the monotonic clock stands still, the boot and the wall clock run on.

    Args:
        at_s: When, on the monotonic clock since the machine's start.
        duration_s: For how long.
    """

    at_s: float
    duration_s: float


@dataclass(frozen=True)
class SpeedChange:
    """From some moment on all calls take another time: an update, a charger, a governor.

    Args:
        at_s: When, on the monotonic clock since the machine's start.
        factor: New time of a call over the old one; below 1 the device gets faster.
    """

    at_s: float
    factor: float = 0.8


@dataclass(frozen=True)
class Disturbances:
    """All that disturbs a simulated device; without arguments nothing does.

    Args:
        states: Lasting states of different speed.
        drift: Slow change.
        bursts: Short competition for the processor.
        outliers: Single slow calls.
        call_noise: Noise from call to call.
        session_sd: Standard deviation of the logarithm of a factor that is drawn at every load:
            memory is laid out differently.
        warm_up: Slower first calls.
        throttling: Heat.
        clock_step_s: Granularity of the monotonic clock.
        clock_jump: A wall clock that is set.
        suspend: A machine that sleeps.
        speed_change: A lasting change at one moment.
        reference_drift_per_hour: Relative change per hour of the reference variant's time alone.
        permanent_factor: A competitor that is there all the time: time of a call over the truth.
            It counts as stolen time.
        energy_sd: Standard deviation of the logarithm of a visit's energy reading.
    """

    states: States | None = None
    drift: Drift | None = None
    bursts: Bursts | None = None
    outliers: Outliers | None = None
    call_noise: CallNoise | None = None
    session_sd: float = 0.0
    warm_up: WarmUp | None = None
    throttling: Throttling | None = None
    clock_step_s: float = 0.0
    clock_jump: ClockJump | None = None
    suspend: Suspend | None = None
    speed_change: SpeedChange | None = None
    reference_drift_per_hour: float = 0.0
    permanent_factor: float = 1.0
    energy_sd: float = 0.0

    def __post_init__(self) -> None:
        for name, value in _numbers(self):
            is_signed = name in _SIGNED
            if not math.isfinite(value) or (value < 0 and not is_signed):
                raise InputError(f"disturbance {name} is {value}, not a number of at least 0")
            if value == 0 and name in _POSITIVE:
                raise InputError(f"disturbance {name} is 0; it must be above 0")
            if value >= 1 and name in _BELOW_ONE:
                raise InputError(f"disturbance {name} is {value}; it must be below 1")


_SIGNED = ("linear_per_hour", "reference_drift_per_hour", "by_s", "ambient_c", "limit_c")
_POSITIVE = (
    "decay_calls",
    "factor",
    "factors",
    "mean_duration_s",
    "mean_dwell_s",
    "min_frequency_share",
    "permanent_factor",
    "rate_hz",
    "sine_period_s",
    "time_constant_s",
)
_BELOW_ONE = ("autocorrelation", "probability", "sine_amplitude")


def _numbers(record: Any) -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    for item in fields(record):
        value = getattr(record, item.name)
        if is_dataclass(value):
            found += _numbers(value)
        elif isinstance(value, tuple):
            found += [(item.name, part) for part in value]
        elif value is not None:
            found.append((item.name, value))
    return found


def quiet() -> Disturbances:
    """Return a device that hardly anything disturbs: a board with its clock locked."""
    return Disturbances(
        energy_sd=0.003,
        call_noise=CallNoise(0.003, 0.2),
        session_sd=0.001,
        warm_up=WarmUp(0.5, 1.5),
        clock_step_s=1e-7,
    )


def shared_host() -> Disturbances:
    """Return a virtual machine on a shared host: mostly slow, in stays of a minute or two."""
    return Disturbances(
        energy_sd=0.02,
        states=States((1.0, 1.51), (60.0, 94.0), elasticity_sd=0.05),
        drift=Drift(linear_per_hour=0.02),
        bursts=Bursts(rate_hz=0.1, mean_duration_s=0.1, factor=2.0),
        outliers=Outliers(0.004, 2.5, 0.4),
        call_noise=CallNoise(0.015, 0.5),
        session_sd=0.02,
        warm_up=WarmUp(0.8, 2.0),
        clock_step_s=1e-7,
    )


def phone() -> Disturbances:
    """Return a phone: it throttles within the campaign and ramps its clock up at every start."""
    return Disturbances(
        energy_sd=0.03,
        drift=Drift(sine_amplitude=0.01, sine_period_s=300.0),
        bursts=Bursts(rate_hz=0.2, mean_duration_s=0.05, factor=1.7),
        outliers=Outliers(0.01, 2.0, 0.3),
        call_noise=CallNoise(0.025, 0.6),
        session_sd=0.02,
        warm_up=WarmUp(1.0, 6.0),
        throttling=Throttling(),
        clock_step_s=1e-6,
    )


def harsh() -> Disturbances:
    """Return a device with all disturbances at once, and a clock that is set and a sleep."""
    return Disturbances(
        energy_sd=0.05,
        states=States((1.0, 1.3, 1.8), (40.0, 40.0, 30.0), elasticity_sd=0.15),
        drift=Drift(linear_per_hour=0.2, sine_amplitude=0.02, sine_period_s=240.0),
        bursts=Bursts(rate_hz=0.3, mean_duration_s=0.3, factor=2.5),
        outliers=Outliers(0.02, 3.0, 0.5),
        call_noise=CallNoise(0.04, 0.7),
        session_sd=0.04,
        warm_up=WarmUp(2.0, 8.0),
        throttling=Throttling(full_load_rise_c=45.0),
        clock_step_s=1e-6,
        clock_jump=ClockJump(at_s=40.0, by_s=-3600.0),
        suspend=Suspend(at_s=70.0, duration_s=30.0),
        reference_drift_per_hour=0.1,
    )


PRESETS: Mapping[str, Callable[[], Disturbances]] = MappingProxyType(
    {"quiet": quiet, "shared_host": shared_host, "phone": phone, "harsh": harsh}
)

"""Each disturbance alone does what it says."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest

from joulemap import InputError
from joulemap.device_agents.onboard.machine.clock import MachineClock
from joulemap.device_agents.simulated import PRESETS, Disturbances, VirtualMachine
from joulemap.device_agents.simulated.disturbances import (
    Bursts,
    CallNoise,
    ClockJump,
    Drift,
    Outliers,
    SpeedChange,
    States,
    Suspend,
    Throttling,
    WarmUp,
)

TRUTH_S = 0.01
WIDTHS = (8, 16)


def machine(disturbances: Disturbances | None = None, seed: int = 1) -> VirtualMachine:
    return VirtualMachine(lambda widths: TRUTH_S, disturbances, seed)


def latencies(
    device: VirtualMachine, calls: int, widths: Sequence[int] = WIDTHS
) -> npt.NDArray[np.float64]:
    call, times = device.load(widths), [device.monotonic_s()]
    for _ in range(calls):
        call()
        times.append(device.monotonic_s())
    return np.diff(times)


def test_without_disturbances_every_call_takes_its_true_time() -> None:
    device = machine()
    assert latencies(device, 100) == pytest.approx(TRUTH_S, rel=1e-6)
    assert device.elapsed_s == device.busy_s == pytest.approx(100 * TRUTH_S)
    assert device.true_latency_s(WIDTHS) == TRUTH_S
    assert device.steal_s([0]) == 0
    assert device.temperature_c is device.frequency_hz is None


def test_it_has_the_clocks_of_a_real_machine() -> None:
    names = [name for name in vars(MachineClock) if name.endswith("_s")]
    assert len(names) == 5
    assert all(name in vars(VirtualMachine) for name in names)


def test_idle_time_passes_on_all_clocks_but_the_agents_own() -> None:
    device = machine()
    clocks: list[Callable[[], float]] = [device.monotonic_s, device.wall_s, device.boot_s]
    before = [clock() for clock in clocks]
    device.idle(5.0)
    assert [clock() - start for clock, start in zip(clocks, before, strict=True)] == [5.0] * 3
    assert device.cpu_s() == device.busy_s == 0


def test_states_last_as_long_and_slow_as_much_as_they_say() -> None:
    device = machine(Disturbances(states=States((1.0, 1.5, 2.0), (20.0, 10.0, 30.0))))
    times = latencies(device, 2_000_000)
    assert times.min() == pytest.approx(TRUTH_S, rel=1e-6)
    assert times.max() == pytest.approx(2 * TRUTH_S, rel=1e-6)
    switches = device.switches
    assert len(switches) > 1000
    stays: list[list[float]] = [[], [], []]
    for (start, state), (end, following) in pairwise(switches):
        assert state != following
        stays[state].append(end - start)
    for stay, mean in zip(stays, (20.0, 10.0, 30.0), strict=True):
        assert np.mean(stay) == pytest.approx(mean, rel=5 / math.sqrt(len(stay)))
        # Exponential: the standard deviation is the mean.
        assert np.std(stay) == pytest.approx(mean, rel=0.2)


def test_a_call_that_meets_a_switch_is_split_there() -> None:
    device = machine(Disturbances(speed_change=SpeedChange(at_s=0.014, factor=2.0)))
    assert latencies(device, 3) == pytest.approx([0.01, 0.004 + 0.012, 0.02], rel=1e-6)


def test_the_hidden_state_is_kept_for_every_moment() -> None:
    device = machine(Disturbances(states=States()))
    latencies(device, 100_000)
    for time_s, state in device.switches:
        assert device.state_at(time_s).state == state
        assert device.state_at(time_s + 1e-9).factor == (1.0, 1.51)[state]
    assert device.state_at(-1.0) == device.history[0]
    assert device.state_at(1e9) == device.history[-1]


def test_variants_feel_a_state_differently_but_each_always_alike() -> None:
    device = machine(Disturbances(states=States((1.5, 1.5), (1.0, 1.0), elasticity_sd=0.2)))
    seen = [latencies(device, 1, (width,))[0] / TRUTH_S for width in range(500)]
    exponents = np.log(seen) / math.log(1.5)
    assert exponents.mean() == pytest.approx(1.0, abs=4 * 0.2 / math.sqrt(500))
    assert exponents.std() == pytest.approx(0.2, rel=0.15)
    assert latencies(device, 1, (7,))[0] / TRUTH_S == pytest.approx(seen[7], rel=1e-6)
    assert device.elasticity((7,)) == pytest.approx(exponents[7], rel=1e-4)


def test_drift_is_a_line_and_a_wave() -> None:
    device = machine(Disturbances(drift=Drift(linear_per_hour=0.5)))
    device.idle(1800.0)
    assert latencies(device, 1)[0] == pytest.approx(1.25 * TRUTH_S, rel=1e-3)
    device = machine(Disturbances(drift=Drift(sine_amplitude=0.1, sine_period_s=100.0)))
    device.idle(25.0)
    assert latencies(device, 1)[0] == pytest.approx(1.1 * TRUTH_S, rel=1e-3)
    device.idle(50.0)
    assert latencies(device, 1)[0] == pytest.approx(0.9 * TRUTH_S, rel=1e-3)


def test_bursts_take_their_share_and_count_as_stolen() -> None:
    device = machine(Disturbances(bursts=Bursts(rate_hz=0.5, mean_duration_s=0.5, factor=2.0)))
    times = latencies(device, 500_000)
    # A fifth of the time is in bursts, and half of that is stolen.
    in_bursts = 0.5 / (0.5 + 1 / 0.5)
    stolen = device.steal_s([0])
    assert stolen is not None
    assert stolen / device.elapsed_s == pytest.approx(in_bursts / 2, rel=0.1)
    assert device.cpu_s() == pytest.approx(device.elapsed_s - stolen, abs=0.011)
    assert device.cpu_s() == pytest.approx(500_000 * TRUTH_S, rel=1e-6)
    assert np.quantile(times, [0.5, 1.0]) == pytest.approx([TRUTH_S, 2 * TRUTH_S], rel=1e-6)


def test_a_permanent_competitor_slows_every_call_and_steals() -> None:
    device = machine(Disturbances(permanent_factor=1.25))
    assert latencies(device, 1000) == pytest.approx(1.25 * TRUTH_S, rel=1e-6)
    assert device.steal_s([0]) == pytest.approx(0.2 * device.elapsed_s, abs=0.011)
    assert device.true_latency_s(WIDTHS) == TRUTH_S


def test_outliers_are_as_frequent_and_long_as_they_say() -> None:
    device = machine(Disturbances(outliers=Outliers(0.01, factor=3.0, log_sd=0.2)))
    factors = latencies(device, 200_000) / TRUTH_S
    outliers = factors[factors > 1.01]
    assert len(outliers) == pytest.approx(2000, abs=4 * math.sqrt(2000))
    assert np.median(outliers) == pytest.approx(3.0, rel=0.05)
    assert np.std(np.log(outliers)) == pytest.approx(0.2, rel=0.1)


def test_noise_has_its_spread_and_autocorrelation() -> None:
    device = machine(Disturbances(call_noise=CallNoise(0.05, 0.6)))
    logs = np.log(latencies(device, 100_000) / TRUTH_S)
    assert logs.std() == pytest.approx(0.05, rel=0.03)
    assert logs.mean() == pytest.approx(0.0, abs=0.002)
    correlation = np.corrcoef(logs[:-2], np.stack([logs[1:-1], logs[2:]]))[0, 1:]
    assert correlation == pytest.approx([0.6, 0.36], abs=0.03)


def test_every_load_draws_one_factor() -> None:
    device = machine(Disturbances(session_sd=0.02))
    visits = np.array([latencies(device, 3) for _ in range(3000)])
    assert np.ptp(visits, axis=1).max() < 1e-9
    logs = np.log(visits[:, 0] / TRUTH_S)
    assert logs.std() == pytest.approx(0.02, rel=0.1)
    assert logs.mean() == pytest.approx(0.0, abs=0.002)


def test_first_calls_are_slower_after_every_load() -> None:
    device = machine(Disturbances(warm_up=WarmUp(first_call_excess=1.0, decay_calls=2.0)))
    expected = TRUTH_S * (1 + np.exp(-np.arange(40) / 2.0))
    for _ in range(2):
        assert latencies(device, 40) == pytest.approx(expected, rel=1e-4)


def test_heat_lowers_the_frequency_and_idling_restores_it() -> None:
    heat = Throttling(
        ambient_c=30.0,
        full_load_rise_c=60.0,
        time_constant_s=50.0,
        limit_c=70.0,
        frequency_loss_per_c=0.05,
    )
    device = machine(Disturbances(throttling=heat))
    times = latencies(device, 60_000)
    # 70 degrees after t with 60 (1 - exp(-t / 50)) = 40; then 30 + 60 s = T, s = 1 - 0.05 (T - 70).
    assert times[5000] == pytest.approx(TRUTH_S, rel=1e-6)
    started = np.flatnonzero(times > 1.001 * TRUTH_S)[0] * TRUTH_S
    assert started == pytest.approx(50 * math.log(3), abs=0.5)
    share = (1 + 0.05 * 40) / (1 + 0.05 * 60)
    assert times[-1] == pytest.approx(TRUTH_S / share, rel=1e-3)
    assert device.temperature_c == pytest.approx(30 + 60 * share, abs=0.1)
    assert device.frequency_hz == pytest.approx(2e9 * share, rel=1e-3)
    device.idle(500.0)
    assert device.temperature_c == pytest.approx(30.0, abs=0.01)
    assert latencies(device, 1)[0] == pytest.approx(TRUTH_S, rel=1e-6)


def test_the_clock_moves_in_steps() -> None:
    device = machine(Disturbances(clock_step_s=0.004))
    times = latencies(device, 1000)
    assert set(np.round(times / 0.004)) == {2.0, 3.0}
    assert times.mean() == pytest.approx(TRUTH_S, rel=1e-3)


def test_a_set_clock_jumps_and_the_others_do_not() -> None:
    device = machine(Disturbances(clock_jump=ClockJump(at_s=1.0, by_s=-3600.0)))
    wall, boot = device.wall_s(), device.boot_s()
    assert latencies(device, 200) == pytest.approx(TRUTH_S, rel=1e-6)
    assert device.boot_s() - boot == pytest.approx(2.0)
    assert device.wall_s() - wall == pytest.approx(2.0 - 3600.0)


def test_a_sleep_stops_the_monotonic_clock_alone() -> None:
    device = machine(Disturbances(suspend=Suspend(at_s=1.0, duration_s=60.0)))
    wall, boot = device.wall_s(), device.boot_s()
    assert latencies(device, 200) == pytest.approx(TRUTH_S, rel=1e-6)
    assert device.boot_s() - boot == pytest.approx(62.0)
    assert device.wall_s() - wall == pytest.approx(62.0)


def test_a_device_can_get_faster() -> None:
    device = machine(Disturbances(speed_change=SpeedChange(at_s=1.0, factor=0.8)))
    times = latencies(device, 200)
    assert times[99] == pytest.approx(TRUTH_S, rel=1e-6)
    assert times[101:] == pytest.approx(0.8 * TRUTH_S, rel=1e-6)


def test_only_the_reference_drifts_when_it_shall() -> None:
    device = machine(Disturbances(reference_drift_per_hour=0.5))
    device.reference_widths = (4, 8)
    device.idle(3600.0)
    assert latencies(device, 1, (4, 8))[0] == pytest.approx(1.5 * TRUTH_S, rel=1e-5)
    assert latencies(device, 1)[0] == pytest.approx(TRUTH_S, rel=1e-6)


@pytest.mark.parametrize("preset", PRESETS)
def test_the_seed_decides_everything(preset: str) -> None:
    first, again, other = (
        latencies(machine(PRESETS[preset](), seed), 20_000) for seed in (5, 5, 6)
    )
    assert (first == again).all()
    assert (first != other).any()


def test_states_and_bursts_do_not_depend_on_what_is_measured() -> None:
    disturbances = Disturbances(
        states=States(), bursts=Bursts(), call_noise=CallNoise(), outliers=Outliers()
    )
    one, two = machine(disturbances), machine(disturbances)
    latencies(one, 50_000)
    for width in range(1000):
        latencies(two, 30, (width,))
        two.idle(0.2)
    switched = zip(one.switches, two.switches, strict=False)
    assert all(a == pytest.approx(b) for a, b in switched)
    assert min(len(one.switches), len(two.switches)) > 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: States((1.0,), (5.0,)), "two factors"),
        (lambda: States((1.0, 2.0), (5.0,)), "two factors"),
        (lambda: Disturbances(session_sd=-0.1), "session_sd is -0.1"),
        (lambda: Disturbances(outliers=Outliers(probability=1.0)), "below 1"),
        (lambda: Disturbances(bursts=Bursts(rate_hz=0.0)), "above 0"),
        (lambda: Disturbances(drift=Drift(linear_per_hour=math.nan)), "linear_per_hour is nan"),
    ],
)
def test_impossible_disturbances_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()

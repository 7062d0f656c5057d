"""The board's truth is the integral of its power; gauges step, wrap, average and err as told."""

from __future__ import annotations

import itertools
import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulemap import InputError
from joulemap.device_agents.onboard.files import Files
from joulemap.device_agents.simulated.board_gauges import CounterGauge, SamplerGauge
from joulemap.device_agents.simulated.board_model import Board, PowerModel, Rail, normal
from joulemap.device_agents.simulated.board_options import EQUIPMENT, BoardOptions
from joulemap.device_agents.simulated.board_tree import BoardFiles, BoardTree

# No heat, leakage, flicker: power follows the work alone.
PLAIN = PowerModel(idle_w=2.0, active_w=5.0, leakage_per_c=0.0, limit_c=1000.0, flicker_share=0.0)


class Clocks:
    """Time and work that tests move on."""

    def __init__(self, model: PowerModel = PLAIN, max_history: int = 400_000) -> None:
        self.now_s = 1000.0
        self.busy_s = 7.0
        self.board = Board(lambda: self.now_s, lambda: self.busy_s, model, max_history)

    def move(self, duration_s: float, share: float) -> None:
        self.now_s += duration_s
        self.busy_s += share * duration_s
        self.board.advance()


stretches = st.lists(
    st.tuples(st.floats(1e-4, 2.0), st.sampled_from([0.0, 0.3, 1.0, 1.9])), min_size=1, max_size=20
)


@given(stretches)
def test_energy_is_the_integral_of_power(steps: list[tuple[float, float]]) -> None:
    clocks = Clocks()
    for duration_s, share in steps:
        clocks.move(duration_s, share)
    duration_s = sum(step[0] for step in steps)
    work_s = sum(duration * share for duration, share in steps)
    board = clocks.board
    assert board.true_idle_j(1000.0, clocks.now_s) == pytest.approx(2 * duration_s)
    assert board.true_net_j(1000.0, clocks.now_s) == pytest.approx(5 * work_s)
    assert board.true_energy_j(1000.0, clocks.now_s) == pytest.approx(2 * duration_s + 5 * work_s)


@given(stretches, st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_parts_add_up_and_power_is_the_slope(
    steps: list[tuple[float, float]], first: float, second: float
) -> None:
    clocks = Clocks(PowerModel())
    for duration_s, share in steps:
        clocks.move(duration_s, share)
    board = clocks.board
    start, end = 1000.0, clocks.now_s
    a, b = sorted(start + share * (end - start) for share in (first, second))
    parts = [board.true_energy_j(*pair) for pair in ((start, a), (a, b), (b, end))]
    assert sum(parts) == pytest.approx(board.true_energy_j(start, end))
    moment, width = (a + b) / 2, 1e-7
    if start + width < moment < end - width:
        # A cut between two powers lies within the width at most.
        powers = [board.power_w(moment - width), board.power_w(moment + width)]
        slope = board.true_energy_j(moment - width, moment + width) / (2 * width)
        assert min(powers) * 0.999 <= slope <= max(powers) * 1.001


def test_a_pause_between_its_looks_at_time_and_work_shifts_no_work() -> None:
    now_s, busy_s, pauses_s = 1000.0, 7.0, [0.0]

    def busy() -> float:
        nonlocal now_s, busy_s
        # Others go on working while it is kept waiting.
        pause_s = pauses_s.pop() if pauses_s else 0.0
        now_s, busy_s = now_s + pause_s, busy_s + pause_s
        return busy_s

    board = Board(lambda: now_s, busy, PLAIN)
    for pause_s in (0.0, 1.0, 0.0, 0.3):
        now_s, busy_s = now_s + 0.005, busy_s + 0.005
        pauses_s = [pause_s]
        assert board.advance() == now_s
        assert board.power_w(now_s - 0.001) == pytest.approx(7.0)
    assert board.true_net_j(1000.0, now_s) == pytest.approx(5 * (now_s - 1000.0))


def test_rails_carry_their_shares() -> None:
    clocks = Clocks()
    clocks.move(3.0, 1.0)
    rail = Rail("cpu", 0.25, 0.5)
    assert clocks.board.true_idle_j(1000.0, 1003.0, rail) == pytest.approx(1.5)
    assert clocks.board.true_net_j(1000.0, 1003.0, rail) == pytest.approx(7.5)


def test_heat_raises_idle_power_and_lowers_the_frequency() -> None:
    clocks = Clocks(PowerModel(active_w=15.0, time_constant_s=5.0, limit_c=80.0))
    assert clocks.board.frequency_share == 1.0
    clocks.move(60.0, 1.0)
    board = clocks.board
    assert 80.0 < board.temperature_c < 110.0
    assert 0.5 <= board.frequency_share < 1.0
    assert board.true_idle_j(1050.0, 1060.0) > 1.1 * 20.0
    hot, cold = board.true_net_j(1050.0, 1060.0), board.true_net_j(1000.0, 1001.0) * 10
    assert hot < 0.9 * cold
    clocks.move(120.0, 0.0)
    assert board.temperature_c == pytest.approx(35.0 + 4.0 * 2.0, abs=0.5)


def test_idle_power_flickers_about_its_mean() -> None:
    clocks = Clocks(PowerModel(idle_w=2.0, leakage_per_c=0.0, flicker_share=0.1))
    clocks.move(400.0, 0.0)
    powers = [clocks.board.power_w(1000.1 + 0.2 * slot) for slot in range(1900)]
    assert statistics.mean(powers) == pytest.approx(2.0, rel=0.01)
    assert statistics.stdev(powers) == pytest.approx(0.2, rel=0.1)
    whole = clocks.board.true_energy_j(1000.0, 1400.0)
    assert whole == pytest.approx(800.0, rel=0.01)
    assert whole == clocks.board.true_idle_j(1000.0, 1400.0)


def test_the_past_is_bounded_and_the_future_is_refused() -> None:
    clocks = Clocks(max_history=100)
    for _ in range(300):
        clocks.move(0.01, 1.0)
    board = clocks.board
    assert board.true_energy_j(1002.8, 1002.9) == pytest.approx(0.7)
    for start, end in ((1000.0, 1003.0), (1002.9, 1004.0), (1003.0, 1002.9)):
        with pytest.raises(ValueError, match="not within the remembered"):
            board.true_energy_j(start, end)
    # Counters go on from where they were.
    assert board.energy_until(clocks.now_s) == pytest.approx(21.0)


def test_a_clock_that_stands_still_adds_nothing() -> None:
    clocks = Clocks()
    clocks.busy_s += 1.0
    clocks.board.advance()
    assert clocks.board.energy_until(1000.0) == 0.0
    clocks.move(1.0, 0.0)
    assert clocks.board.true_net_j(1000.0, 1001.0) == pytest.approx(5.0)


@given(
    st.floats(0.5, 50.0),
    st.floats(0.0, 100.0),
    st.lists(st.floats(0.001, 1.0), min_size=2, max_size=30),
)
def test_counters_wrap_and_their_differences_are_the_energy(
    range_j: float, start_j: float, gaps: list[float]
) -> None:
    clocks = Clocks()
    gauge = CounterGauge(resolution_j=1e-5, range_j=range_j, start_j=start_j, update_period_s=1e-4)
    before, total = gauge.read_j(clocks.board), 0.0
    for gap in gaps:
        # At most 7 W, so never more than one wrap in so short a time.
        clocks.move(min(gap, 0.9 * range_j / 7.0), 1.0)
        now = gauge.read_j(clocks.board)
        assert 0 <= now < range_j
        total += (now - before) % range_j
        before = now
    truth = clocks.board.true_energy_j(1000.0, clocks.now_s)
    assert total == pytest.approx(truth, abs=2 * (1e-5 + 7 * 1e-4))


def test_a_counter_stands_still_between_updates() -> None:
    clocks = Clocks()
    gauge = CounterGauge(update_period_s=0.1)
    seen = []
    for _ in range(40):
        clocks.move(0.01, 1.0)
        seen.append(gauge.read_j(clocks.board))
    assert 4 <= len(set(seen)) <= 5
    assert seen[-1] == pytest.approx(7 * 0.4, abs=0.71)


def test_a_sampler_averages_and_a_fast_one_does_not() -> None:
    clocks = Clocks()
    slow = SamplerGauge(update_period_s=0.05, averaging_s=1.0)
    fast = SamplerGauge(update_period_s=0.05, averaging_s=0.0)
    clocks.move(2.0, 0.0)
    clocks.move(0.5, 1.0)
    assert slow.read_w(clocks.board) == pytest.approx(2.0 + 2.5)
    assert fast.read_w(clocks.board) == pytest.approx(7.0)


def test_noise_is_of_its_size_and_the_same_for_every_reader() -> None:
    clocks = Clocks()
    gauge = SamplerGauge(update_period_s=0.1, averaging_s=0.0, noise_sd=0.05, seed=3)
    values = []
    for _ in range(2000):
        clocks.move(0.1, 1.0)
        assert gauge.read_w(clocks.board) == gauge.read_w(clocks.board)
        values.append(gauge.read_w(clocks.board) / 7.0)
    assert statistics.mean(values) == pytest.approx(1.0, abs=0.005)
    assert statistics.stdev(values) == pytest.approx(0.05, rel=0.1)
    neighbours = [a * b for a, b in itertools.pairwise(values)]
    assert statistics.mean(neighbours) == pytest.approx(1.0, abs=0.01)


def test_numbers_that_look_random_are_normal() -> None:
    numbers = [normal(seed, number) for seed in range(40) for number in range(250)]
    assert statistics.mean(numbers) == pytest.approx(0.0, abs=0.04)
    assert statistics.stdev(numbers) == pytest.approx(1.0, abs=0.04)
    assert sum(abs(number) < 1.96 for number in numbers) / 10_000 == pytest.approx(0.95, abs=0.01)


def test_dropouts_skew_gain_offset_and_steps() -> None:
    clocks = Clocks()
    lossy = SamplerGauge(update_period_s=0.01, dropout_share=0.2)
    failed = 0
    for _ in range(1000):
        clocks.move(0.01, 1.0)
        try:
            lossy.read_w(clocks.board)
        except OSError:
            failed += 1
    assert 150 < failed < 250
    off = SamplerGauge(averaging_s=0.0, gain=1.1, offset_w=0.33, resolution_w=0.25)
    assert off.read_w(clocks.board) == pytest.approx(8.0)
    fast, right = CounterGauge(clock_skew=0.01), CounterGauge()
    board = clocks.board
    assert fast.read_j(board) == pytest.approx(1.01 * right.read_j(board), abs=0.03)
    late = CounterGauge(lag_s=0.5)
    assert right.read_j(board) - late.read_j(board) == pytest.approx(3.5, abs=0.03)


def test_every_piece_of_equipment_shows_the_boards_power() -> None:
    clocks = Clocks()
    options = BoardOptions(meter=",".join(EQUIPMENT), noise=0.0)
    tree = BoardTree(clocks.board, options, lambda: clocks.now_s)
    files = BoardFiles(tree)
    assert isinstance(files, Files)

    def number(path: str) -> float:
        return float(files.read(path))

    counters = ("intel-rapl:0", "intel-rapl:0:1", "intel-rapl:1")
    before = [number(f"sys/class/powercap/{zone}/energy_uj") for zone in counters]
    charge = number("sys/class/power_supply/battery/charge_counter")
    clocks.move(10.0, 1.0)
    after = [number(f"sys/class/powercap/{zone}/energy_uj") for zone in counters]
    package, memory, board = (b - a for a, b in zip(before, after, strict=True))
    assert board == pytest.approx(70e6, rel=1e-3)
    assert package + memory == pytest.approx(board, rel=1e-4)
    hwmon = "sys/class/hwmon"
    assert number(f"{hwmon}/hwmon0/power1_input") == pytest.approx(7e6, rel=0.01)
    ina219_w = number(f"{hwmon}/hwmon0/curr1_input") * number(f"{hwmon}/hwmon0/in1_input") * 1e-6
    assert ina219_w == pytest.approx(7.0, rel=0.01)
    assert files.read(f"{hwmon}/hwmon1/in1_label") == "VDD_IN"
    total_w = number(f"{hwmon}/hwmon1/curr1_input") * number(f"{hwmon}/hwmon1/in1_input") * 1e-6
    assert total_w == pytest.approx(7.0, rel=0.01)
    supply = "sys/class/power_supply"
    assert number(f"{supply}/battery/current_now") == pytest.approx(-7e6 / 3.85, rel=1e-3)
    drawn_uah = charge - number(f"{supply}/battery/charge_counter")
    assert drawn_uah == pytest.approx(70 / 3.85 / 3600 * 1e6, rel=0.01)
    assert number(f"{supply}/BAT0/power_now") == pytest.approx(7e6, rel=1e-3)
    lines = files.read("sys/bus/iio/devices/iio:device0/energy_value").splitlines()
    assert lines[0].startswith("t=")
    assert sum(int(line.rpartition(" ")[2]) for line in lines[1:]) == pytest.approx(70e6, rel=0.02)
    assert number("sys/class/thermal/thermal_zone0/temp") > 35_000
    assert files.read("sys/devices/system/cpu/possible").startswith("0")


def test_a_charger_turns_the_current_round() -> None:
    clocks = Clocks()
    tree = BoardTree(clocks.board, BoardOptions(meter="battery", noise=0.0), lambda: clocks.now_s)
    files = BoardFiles(tree)
    path = "sys/class/power_supply/battery"
    clocks.move(10.0, 0.0)
    charge = int(files.read(f"{path}/charge_counter"))
    tree.charger.plug(is_plugged=True)
    clocks.move(10.0, 0.0)
    assert files.read(f"{path}/status") == "Charging"
    assert files.read("sys/class/power_supply/usb/online") == "1"
    assert int(files.read(f"{path}/current_now")) == pytest.approx(8e6 / 3.85, rel=1e-3)
    assert int(files.read(f"{path}/charge_counter")) > charge
    tree.charger.plug(is_plugged=False)
    clocks.move(10.0, 0.0)
    assert files.read(f"{path}/status") == "Discharging"
    assert int(files.read(f"{path}/current_now")) == pytest.approx(-2e6 / 3.85, rel=1e-3)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ({"meter": "abacus"}, "unknown meter 'abacus'.*rapl"),
        ({"meter": "rapl,rapl"}, "twice"),
        ({"meter": ""}, "unknown meter ''"),
        ({"idle_w": "two"}, "idle_w 'two' is not a number"),
        ({"idle_w": "nan"}, "idle_w nan is not in"),
        ({"active_w": "-1"}, "active_w -1.0 is not in"),
        ({"update_s": "0"}, "update_s 0.0 is not in"),
        ({"seed": "1.5"}, "seed '1.5'"),
        ({"seed": "-1"}, "seed -1"),
        ({"voltage": "5"}, "no option 'voltage'; known: meter, idle_w"),
    ],
)
def test_options_that_make_no_sense_are_refused(pairs: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        BoardOptions.parse(pairs)


def test_options_survive_their_text() -> None:
    options = BoardOptions("rapl,battery", 1.25, 0.1, 0.02, 0.05, 0.5, 0.02, 0.1, 40.0, 7)
    assert BoardOptions.parse(dict(options.texts())) == options


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_a_power_model_that_makes_no_sense_is_refused(value: float) -> None:
    with pytest.raises(InputError, match="idle_w"):
        PowerModel(idle_w=value)
    with pytest.raises(InputError, match="time_constant_s"):
        PowerModel(time_constant_s=0.0)

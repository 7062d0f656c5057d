"""Sign and unit of a battery's current: right or refused, whatever the phone writes."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulemap.device_agents.meters.battery_sign import (
    FACTORS,
    IDLE_A,
    Stretch,
    learn_sign_and_unit,
)
from joulemap.device_agents.onboard.energy.meter import MeterError

signs = st.sampled_from([1, -1])
factors = st.sampled_from(FACTORS)
idles = st.floats(0.02, 2.5)
steps = st.floats(0.2, 3.0)
INT_MIN = -(2.0**31)
numbers = st.floats(-1e9, 1e9) | st.integers(-(10**15), 10**15).map(float) | st.just(INT_MIN)


def said(
    current_a: float,
    sign: int,
    factor: float,
    *,
    num: int = 40,
    noise: float = 0.03,
    charge: bool = True,
    seed: int = 0,
) -> Stretch:
    """What a gauge says of a current that the battery gives."""
    draw = random.Random(seed)
    raw = [
        float(round(sign * current_a * (1 + noise * draw.gauss(0, 1)) * 1e6 / factor))
        for _ in range(num)
    ]
    return Stretch(raw, 15.0, current_a * 15.0 if charge else None, 10 if charge else 0)


@given(sign=signs, factor=factors, idle_a=idles, step_a=steps, seed=st.integers(0, 999))
def test_with_a_charge_counter_both_are_always_found(
    sign: int, factor: float, idle_a: float, step_a: float, seed: int
) -> None:
    # A unit of 1e3 uA leaves whole milliamperes only.
    learned = learn_sign_and_unit(
        said(idle_a, sign, factor, seed=seed), said(idle_a + step_a, sign, factor, seed=seed + 1)
    )
    assert (learned.sign, learned.factor, learned.is_confirmed) == (sign, factor, True)
    assert learned.idle_a == pytest.approx(idle_a, rel=0.1)
    assert learned.current_a(sign * 1e6 / factor) == pytest.approx(1.0)


@given(sign=signs, factor=factors, idle_a=idles, step_a=steps)
def test_without_one_it_is_right_or_refused(
    sign: int, factor: float, idle_a: float, step_a: float
) -> None:
    try:
        learned = learn_sign_and_unit(
            said(idle_a, sign, factor, charge=False),
            said(idle_a + step_a, sign, factor, charge=False, seed=1),
        )
    except MeterError:
        return
    assert (learned.sign, learned.factor, learned.is_confirmed) == (sign, factor, False)


@given(sign=signs, factor=factors, charge_a=st.floats(0.05, 2.0), share=st.floats(0.1, 0.95))
def test_a_battery_that_is_charged_is_refused(
    sign: int, factor: float, charge_a: float, share: float
) -> None:
    # The load takes a share of what the charger gives.
    step_a = share * charge_a
    with pytest.raises(MeterError, match=r"being charged|does not follow"):
        learn_sign_and_unit(
            said(-charge_a, sign, factor), said(-charge_a + step_a, sign, factor, seed=1)
        )


@given(
    idle=st.lists(numbers, max_size=20),
    load=st.lists(numbers, max_size=20),
    used_c=st.none() | st.floats(-1e6, 1e6),
)
def test_anything_at_all_is_plausible_or_refused(
    idle: Sequence[float], load: Sequence[float], used_c: float | None
) -> None:
    try:
        learned = learn_sign_and_unit(Stretch(idle, 5.0, used_c, 5), Stretch(load, 5.0, used_c, 5))
    except MeterError:
        return
    assert learned.sign in (1, -1)
    assert learned.factor in FACTORS
    assert IDLE_A[0] < learned.idle_a < IDLE_A[1]
    assert learned.load_a > learned.idle_a


@pytest.mark.parametrize(
    ("idle", "load", "message"),
    [
        ([0.0] * 20, [0.0] * 20, "always 0"),
        ([INT_MIN] * 20, [INT_MIN] * 20, "often enough"),
        ([3e5] * 20, [3e5] * 20, "does not follow"),
        ([3e5] * 20, [3.05e5] * 20, "does not follow"),
        ([1.0] * 20, [2.0] * 20, "implausible"),
        # 2500 uA and 2500 mA are both possible for a phone.
        ([2500.0] * 20, [5000.0] * 20, "in uA .* mA .*tell the unit, as in --meter"),
        # Whole milliamperes: never without the charge counter's word.
        ([300.0] * 20, [900.0] * 20, r"in mA \(0.3 A idle, 0.9 A loaded\)"),
    ],
)
def test_what_cannot_be_told_is_refused(
    idle: Sequence[float], load: Sequence[float], message: str
) -> None:
    with pytest.raises(MeterError, match=message):
        learn_sign_and_unit(Stretch(idle, 15.0), Stretch(load, 15.0))


def test_a_charge_counter_that_disagrees_refuses() -> None:
    idle, load = said(0.3, -1, 1.0), said(1.2, -1, 1.0)
    twice = Stretch(load.raw, load.duration_s, 4 * (load.charge_used_c or 0.0), 10)
    with pytest.raises(MeterError, match="disagree"):
        learn_sign_and_unit(idle, twice)


def test_a_charge_counter_that_hardly_moved_has_no_say() -> None:
    idle = Stretch([-3e5] * 20, 15.0, 0.0, 0)
    load = Stretch([-1.2e6] * 20, 15.0, 3.6, 1)
    assert not learn_sign_and_unit(idle, load).is_confirmed


TOLD = {"current_unit": "mA", "sign": "-"}
COARSE_IDLE = Stretch([-180.0, -186.0, -174.0, -181.0] * 20, 30.0, 0.0, 0)
COARSE_LOAD = Stretch([-1450.0, -1470.0, -1432.0, -1455.0] * 15, 15.0, 0.0, 0)


def test_a_phone_in_milliamperes_with_a_coarse_counter_is_told() -> None:
    with pytest.raises(MeterError, match="tell the unit") as caught:
        learn_sign_and_unit(COARSE_IDLE, COARSE_LOAD)
    assert "current_unit=mA&sign=-" in str(caught.value)
    assert len(str(caught.value)) < 400
    for told in (TOLD, {"current_unit": "mA"}):
        learned = learn_sign_and_unit(COARSE_IDLE, COARSE_LOAD, told)
        assert (learned.sign, learned.factor, learned.is_confirmed) == (-1, 1e3, False)
        assert learned.current_a(-1450.0) == pytest.approx(1.45)


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"sign": "+"}, "sign=\\+ was told, and the current's sign is -"),
        ({"current_unit": "uA"}, "implausible in uA, as was told"),
        ({"current_unit": "A"}, "implausible in A, as was told"),
        # The sign alone tells no unit.
        ({"sign": "-"}, "tell the unit"),
    ],
)
def test_what_is_told_must_fit(told: dict[str, str], message: str) -> None:
    with pytest.raises(MeterError, match=message):
        learn_sign_and_unit(COARSE_IDLE, COARSE_LOAD, told)


def test_what_is_told_must_agree_with_a_counter_that_has_a_say() -> None:
    idle, load = said(0.3, -1, 1.0), said(1.2, -1, 1.0, seed=1)
    assert learn_sign_and_unit(idle, load, {"current_unit": "uA", "sign": "-"}).is_confirmed
    wrong = Stretch([value / 100 for value in idle.raw], 15.0, idle.charge_used_c, 10)
    load = Stretch([value / 100 for value in load.raw], 15.0, load.charge_used_c, 10)
    with pytest.raises(MeterError, match="disagree in the unit that was told"):
        learn_sign_and_unit(wrong, load, {"current_unit": "uA"})


@given(
    sign=signs,
    unit=st.sampled_from(["nA", "uA", "mA", "A"]),
    idle_a=st.floats(0.02, 2.5),
    step_a=steps,
    tells_sign=st.booleans(),
)
def test_a_unit_that_is_told_is_used_in_any_phone(
    sign: int, unit: str, idle_a: float, step_a: float, tells_sign: bool
) -> None:
    factor = {"nA": 1e-3, "uA": 1.0, "mA": 1e3, "A": 1e6}[unit]
    draw = random.Random(1)

    def stretch(current_a: float) -> Stretch:
        raw = [sign * current_a * (1 + 0.01 * draw.gauss(0, 1)) * 1e6 / factor for _ in range(40)]
        return Stretch(raw, 15.0, None, 0)

    told = {"current_unit": unit} | ({"sign": "+" if sign > 0 else "-"} if tells_sign else {})
    learned = learn_sign_and_unit(stretch(idle_a), stretch(idle_a + step_a), told)
    assert learned.current_a(sign * 1e6 / factor) == pytest.approx(1.0)

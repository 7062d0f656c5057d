"""What to round widths to, where the fitted model is sure that rounding saves, or costs nothing.

A width vector and its rounded form are priced by the same rates, so most of the model's error is in
both prices. How sure the saving is shows in the fits without each fold: the saving by each of them,
the spread of those (a jackknife over groups), and Student's t for so few.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import gcd, lcm

import numpy as np
from scipy import stats

from ..base.intervals import FloatArray
from .terms import TermTable, columns_of, functions_of

MULTIPLES = (2, 4, 8, 16, 32)
NUM_VECTORS = 100
# A saving that matters, as a logarithm: a hundredth of the cost.
LEAST_SAVING = 0.01
# Multiples whose savings differ by less are alike; the largest, which keeps most channels, is taken.
ALIKE = 0.005
# Channels that are added are free where they cost less than this share of what they cost elsewhere.
FREE_SHARE = 0.1
CONFIDENCE = 0.975


@dataclass(frozen=True)
class Advice:
    """What each width should be a multiple of.

    Attributes:
        multiples: For each width, in order; the width's own step where nothing is advised.
        is_advised: Whether any width is to be rounded further than its own step.
        is_free: Whether rounding saves nothing but costs nothing either: whole blocks are paid for.
    """

    multiples: tuple[int, ...]
    is_advised: bool
    is_free: bool


@dataclass(frozen=True)
class Fitted:
    """What advice depends on, as plain values, so that it is worked out once.

    Attributes:
        steps: The multiple that each width has by its network.
        low: Smallest width that rounding is judged at, for each of the k.
        high: Largest, likewise.
        least: Smallest allowed width of each.
        last: Largest, likewise.
        pair: Divisor and block, as `functions_of` takes them.
        rates: Rates of all terms by the fit, then by those without each fold.
    """

    steps: tuple[int, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    least: tuple[float, ...]
    last: tuple[float, ...]
    pair: tuple[int, int]
    rates: tuple[tuple[float, ...], ...]


@lru_cache(maxsize=32)
def advice_of(table: TermTable, fitted: Fitted) -> Advice:
    """Return what a fitted model advises to round widths to.

    Args:
        table: The network's terms.
        fitted: Ranges, structure and rates.
    """
    judge = _Judge(table, fitted)
    if not len(judge.X):
        return Advice(fitted.steps, is_advised=False, is_free=False)
    candidates = [judge.joint(multiple) for multiple in MULTIPLES]
    candidates = [found for found in dict.fromkeys(candidates) if found != fitted.steps]
    sound = [found for found in candidates if judge.is_sound(found, fitted.steps)]
    if not sound:
        return Advice(fitted.steps, is_advised=False, is_free=False)
    best = max(judge.saving(found, fitted.steps)[0] for found in sound)
    chosen = [m for m in sound if judge.saving(m, fitted.steps)[0] >= best - ALIKE][-1]
    chosen = judge.without_idle(chosen, sound)
    if chosen == fitted.steps or not judge.is_sound(chosen, fitted.steps):
        return Advice(fitted.steps, is_advised=False, is_free=False)
    mean, lowest = judge.saving(chosen, fitted.steps)
    return Advice(chosen, is_advised=True, is_free=mean < LEAST_SAVING or lowest <= 0)


def round_up(
    widths: FloatArray, multiples: Sequence[int], least: FloatArray, last: FloatArray
) -> FloatArray:
    """Return widths (..., k) at the next multiples, or the last ones that are within bounds.

    Widths stay where no multiple lies within the bounds.

    Args:
        widths: In channels.
        multiples: Of each width.
        least: Smallest allowed value of each width, shape (k,).
        last: Largest, likewise.
    """
    steps = np.array(multiples, dtype=np.float64)
    whole = np.ceil(widths)
    most = np.floor(last / steps) * steps
    rounded = np.minimum(np.ceil(whole / steps) * steps, most)
    return np.asarray(np.where(most >= np.maximum(least, 1), rounded, whole))


class _Judge:
    """Prices of random width vectors and their rounded forms, by the fit and those without a fold.

    Args:
        table: The network's terms.
        fitted: Ranges, structure and rates.
    """

    def __init__(self, table: TermTable, fitted: Fitted) -> None:
        self.table, self.fitted = table, fitted
        self.rates = np.array(fitted.rates)
        self.least, self.last = np.array(fitted.least), np.array(fitted.last)
        low, high, steps = (np.array(v) for v in (fitted.low, fitted.high, fitted.steps))
        rng = np.random.default_rng(0)
        first = np.maximum(1, np.ceil(low / steps))
        draws = rng.integers(
            first, np.maximum(first, high // steps), (NUM_VECTORS, len(low)), endpoint=True
        )
        self.X = (draws * steps).astype(np.float64)
        self._logs: dict[tuple[int, ...], tuple[FloatArray, FloatArray]] = {}

    def joint(self, multiple: int) -> tuple[int, ...]:
        """Return what widths must be multiples of for all channel counts to be of this one.

        A width's own step where its bounds hold no such multiple.
        """
        found = list(self.fitted.steps)
        for index, name in enumerate(self.table.width_names):
            for size in self.table.channel_counts:
                for monomial, coefficient in size.terms.items():
                    if name in monomial:
                        found[index] = lcm(found[index], multiple // gcd(multiple, coefficient))
        fits = self.last // found * found >= np.maximum(self.least, 1)
        return tuple(np.where(fits, found, self.fitted.steps).tolist())

    def saving(self, multiples: tuple[int, ...], others: tuple[int, ...]) -> tuple[float, float]:
        """Return what rounding to some multiples saves beside others, and its lower bound.

        Args:
            multiples: What vectors are rounded to.
            others: What the same vectors are rounded to instead.

        Returns:
            Means over vectors, in logarithms of the cost.
        """
        found = (self._prices(others)[0] - self._prices(multiples)[0]).mean(axis=1)
        mean, folds = float(found[0]), found[1:]
        if len(folds) < 2:
            return mean, mean
        spread = float(np.sqrt((len(folds) - 1) * folds.var()))
        return mean, mean - float(stats.t.ppf(CONFIDENCE, len(folds) - 1)) * spread

    def is_sound(self, multiples: tuple[int, ...], others: tuple[int, ...]) -> bool:
        """Return whether rounding surely saves what matters, or costs nothing."""
        mean, low = self.saving(multiples, others)
        return (mean >= LEAST_SAVING and low > 0) or self.is_free(multiples, others)

    def is_free(self, multiples: tuple[int, ...], others: tuple[int, ...]) -> bool:
        """Return whether the channels that rounding adds are in blocks that are paid for anyway."""
        if abs(self.fitted.pair[1]) == 1:
            return False
        mean, low = self.saving(multiples, others)
        elsewhere = float((self._prices(multiples)[1] - self._prices(others)[1]).mean())
        return elsewhere > 0 and min(mean, low) >= -FREE_SHARE * elsewhere

    def without_idle(
        self, multiples: tuple[int, ...], others: Sequence[tuple[int, ...]]
    ) -> tuple[int, ...]:
        """Return the multiples, but of each width a better one where there is, or its own step.

        Args:
            multiples: Of all widths.
            others: Sound ones.
        """
        chosen = multiples
        alike = ALIKE / len(chosen)
        for index, step in enumerate(self.fitted.steps):
            options = sorted({found[index] for found in others} | {step})
            variants = {m: (*chosen[:index], m, *chosen[index + 1 :]) for m in options}
            plain = variants[step]
            savings = {m: self.saving(v, plain)[0] for m, v in variants.items()}
            sound = [m for m in options if m == step or self._helps(variants[m], plain)]
            best = max(sound, key=lambda m: savings[m])
            # One multiple for all is simpler: a width that it costs nothing goes along.
            if savings[chosen[index]] < savings[best] - alike:
                chosen = variants[best]
        return chosen

    def _helps(self, multiples: tuple[int, ...], plain: tuple[int, ...]) -> bool:
        """Return whether rounding one width more surely saves, or costs nothing."""
        mean, low = self.saving(multiples, plain)
        return (mean > 0 and low > 0) or self.is_free(multiples, plain)

    def _prices(self, multiples: tuple[int, ...]) -> tuple[FloatArray, FloatArray]:
        """Return logarithms of the cost by each fit, (fits, n), and without blocks, (n,)."""
        if multiples not in self._logs:
            X = round_up(self.X, multiples, self.least, self.last)
            divisor, block = self.fitted.pair
            tiny = np.finfo(float).tiny
            columns = self._columns(X, divisor, block)
            full = columns if abs(block) == 1 else self._columns(X, divisor, 1)
            self._logs[multiples] = (
                np.log(np.maximum(self.rates @ columns.T, tiny)),
                np.log(np.maximum(full @ self.rates[0], tiny)),
            )
        return self._logs[multiples]

    def _columns(self, X: FloatArray, divisor: int, block: int) -> FloatArray:
        return columns_of(self.table.terms, functions_of(self.table, X, divisor, block))

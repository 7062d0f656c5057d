"""How far predictions are from measurements, and measurements from each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from joulemap import InputError

# A bootstrap draws at most this many numbers at once.
_MAX_DRAWS = 2_000_000


def mape(y: ArrayLike, prediction: ArrayLike) -> float:
    """Return the mean of `abs(y - prediction) / y`, a fraction (0.03 is 3 %).

    Args:
        y: Measured cost, shape (n,), positive.
        prediction: Predicted cost, shape (n,), in the same unit.

    Raises:
        InputError: Unequal shapes, no values, NaN or infinity, or a measured cost that is not
            positive.
    """
    return float(np.mean(_relative_errors(y, prediction)))


def share_within(y: ArrayLike, prediction: ArrayLike, tolerance: float) -> float:
    """Return the share (0 to 1) of predictions within `tolerance` (a fraction) of y.

    Args:
        y: Measured cost, shape (n,), positive.
        prediction: Predicted cost, shape (n,), in the same unit.
        tolerance: Largest `abs(y - prediction) / y` that counts, such as 0.05.

    Raises:
        InputError: As `mape`, or a tolerance that is not positive.
    """
    if not (np.isfinite(tolerance) and tolerance > 0):
        raise InputError(f"tolerance is {tolerance}, not a fraction above 0 such as 0.05")
    return float(np.mean(_relative_errors(y, prediction) <= tolerance))


def relative_rmse(y: ArrayLike, prediction: ArrayLike) -> float:
    """Return the root of the mean of ((y - prediction) / y)**2, a fraction.

    Args:
        y: Measured cost, shape (n,), positive.
        prediction: Predicted cost, shape (n,), in the same unit.

    Raises:
        InputError: As `mape`.
    """
    return float(np.sqrt(np.mean(_relative_errors(y, prediction) ** 2)))


def spearman(y: ArrayLike, prediction: ArrayLike) -> float:
    """Return Spearman's rank correlation (-1 to 1); NaN where either side is constant.

    Args:
        y: Measured cost, shape (n,), n >= 2.
        prediction: Predicted cost, shape (n,).

    Raises:
        InputError: Unequal shapes, fewer than two values, NaN or infinity.
    """
    first, second = _ranked_pair(y, prediction)
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    return float(stats.spearmanr(first, second).statistic)


def kendall(y: ArrayLike, prediction: ArrayLike) -> float:
    """Return Kendall's tau-b (-1 to 1); NaN where either side is constant.

    Args:
        y: Measured cost, shape (n,), n >= 2.
        prediction: Predicted cost, shape (n,).

    Raises:
        InputError: Unequal shapes, fewer than two values, NaN or infinity.
    """
    first, second = _ranked_pair(y, prediction)
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    return float(stats.kendalltau(first, second).statistic)


@dataclass(frozen=True)
class NoiseFloor:
    """How far two measurements of one variant lie apart: no model's error can be much lower.

    Attributes:
        value: Mean over pairs of `abs(a - b) / ((a + b) / 2) / sqrt(2)`, a fraction.
        low: Lower end of its bootstrap interval.
        high: Upper end of its bootstrap interval.
        num_pairs: Re-visited variants it rests on.
    """

    value: float
    low: float
    high: float
    num_pairs: int

    def __post_init__(self) -> None:
        for name in ("value", "low", "high"):
            number = getattr(self, name)
            if isinstance(number, bool) or not isinstance(number, int | float):
                raise InputError(f"{name} of a noise floor is {number!r}, not a number")
            if not (np.isfinite(number) and number >= 0):
                raise InputError(f"{name} of a noise floor is {number}, not a finite fraction >= 0")
        if isinstance(self.num_pairs, bool) or not isinstance(self.num_pairs, int):
            raise InputError(f"num_pairs of a noise floor is {self.num_pairs!r}, not an int")
        if self.num_pairs < 1:
            raise InputError(f"num_pairs of a noise floor is {self.num_pairs}, not at least 1")

    def describe(self) -> str:
        """Return the noise floor as a text in percent, with its interval and number of pairs."""
        pairs = "1 pair" if self.num_pairs == 1 else f"{self.num_pairs} pairs"
        return f"{self.value:.2%} ({self.low:.2%} to {self.high:.2%}, {pairs})"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dictionary for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> NoiseFloor:
        """Return the noise floor that `to_dict` wrote.

        Raises:
            InputError: Unknown or missing fields, or values out of range.
        """
        try:
            return cls(**content)
        except TypeError as error:
            raise InputError(f"a noise floor cannot be read: {error}") from error


def noise_floor(
    a: ArrayLike, b: ArrayLike, *, seed: int = 0, resamples: int = 2000, coverage: float = 0.95
) -> NoiseFloor:
    """Return the noise floor of pairs of measurements, a fraction, with its bootstrap interval.

    The mean of `abs(a - b) / ((a + b) / 2) / sqrt(2)` over pairs; the interval takes percentiles over
    `resamples` draws of the pairs with replacement.

    Args:
        a: First measurement of each re-visited variant, shape (n,), positive.
        b: Second measurement, shape (n,), in the same unit.
        seed: Seed of the bootstrap.
        resamples: Number of bootstrap draws.
        coverage: Share of the draws between the interval's ends.

    Raises:
        InputError: Unequal shapes, no pairs, NaN, infinity, a value that is not positive, or
            `resamples` or `coverage` out of range.
    """
    first, second = _pair("a", a, "b", b)
    if np.any(first <= 0) or np.any(second <= 0):
        raise InputError("a noise floor needs positive measurements; a or b has one at or below 0")
    if resamples < 1:
        raise InputError(f"resamples is {resamples}, not at least 1")
    if not 0 < coverage < 1:
        raise InputError(f"coverage is {coverage}, not between 0 and 1")
    # |a - b| / (a + b) cannot overflow where both are scaled by the larger one.
    scale = np.maximum(first, second)
    first, second = first / scale, second / scale
    distances = np.abs(first - second) / ((first + second) / 2) / np.sqrt(2)
    rng = np.random.default_rng(seed)
    chunk = max(1, _MAX_DRAWS // len(distances))
    means = np.concatenate(
        [
            distances[rng.integers(len(distances), size=(size, len(distances)))].mean(axis=1)
            for size in _chunks(resamples, chunk)
        ]
    )
    low, high = np.quantile(means, [(1 - coverage) / 2, (1 + coverage) / 2])
    return NoiseFloor(float(distances.mean()), float(low), float(high), len(distances))


def _chunks(total: int, chunk: int) -> list[int]:
    return [min(chunk, total - start) for start in range(0, total, chunk)]


def _relative_errors(y: ArrayLike, prediction: ArrayLike) -> NDArray[np.float64]:
    measured, predicted = _pair("y", y, "prediction", prediction)
    if np.any(measured <= 0):
        raise InputError(
            f"relative errors need positive measured costs; y has {float(measured.min())}"
        )
    errors: NDArray[np.float64] = np.abs(measured - predicted) / measured
    return errors


def _ranked_pair(y: ArrayLike, prediction: ArrayLike) -> tuple[NDArray[np.float64], ...]:
    pair = _pair("y", y, "prediction", prediction)
    if len(pair[0]) < 2:
        raise InputError("a rank correlation needs at least 2 values, only 1 was given")
    return pair


def _pair(
    first_name: str, first: ArrayLike, second_name: str, second: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    arrays = []
    for name, value in ((first_name, first), (second_name, second)):
        try:
            array = np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise InputError(f"{name} is not an array of numbers: {error}") from error
        if array.ndim != 1 or array.size == 0:
            raise InputError(f"{name} has shape {array.shape}; need (n,) with n >= 1")
        if not np.all(np.isfinite(array)):
            raise InputError(f"{name} contains NaN or infinity")
        arrays.append(array)
    if arrays[0].shape != arrays[1].shape:
        raise InputError(
            f"{first_name} has {arrays[0].size} values and {second_name} has {arrays[1].size}; "
            "they are compared one by one"
        )
    return arrays[0], arrays[1]

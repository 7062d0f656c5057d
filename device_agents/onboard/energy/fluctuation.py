"""How much a mean of power varies: its long-run variance, from pieces of many stretches at once.

A mean over a time T, long against the power's memory, has the variance L / T with::

    L = h x (g0 + 2 g1 + 2 g2 + ... + 2 gq)      gk: covariance of pieces k apart, h: their length

where pieces more than q apart know nothing of each other (the truncated, "flat-top" lag window of
Politis and Romano, 1995). One stretch has few pieces, and its covariances lie around its own mean
instead of the true one; so the sums of products of all stretches of a meter are added up, and the
covariances are what makes these sums what is expected of them::

    E sum_i (x_i - m)(x_(i+k) - m) = sum_j B_kj gj       exact where covariances beyond q are 0

These are linear equations: nothing is inflated by a ratio of two noisy numbers, and the estimate
is unbiased for each q. q is the least after which two more lags are within chance (the rule of
Politis, 2003). The estimate is a quadratic form x' Q x of the pieces, so its degrees of freedom are
those of Satterthwaite, tr(Q G)^2 / tr(Q H Q H) for each stretch, with G the covariances and H those
with what the meter adds: it does not move the estimate but scatters it. Of long stretches they are
about m / (2 q + 1) - 1 if the meter adds nothing. They are counted for one more lag than was found
necessary, for which lags these are is not certain.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

# Lags that are kept; beyond them pieces are taken to be independent.
MAX_LAG = 12
# A correlation of pieces is chance up to so many standard errors.
CHANCE = 1.96
# Longer memory is not looked for where less than this would be known about it.
MIN_FREEDOM = 0.5
LEAST_FREEDOM = 0.1
# Of longer stretches the degrees of freedom are those of infinitely long ones.
MAX_EXACT = 40
# What the meter adds moves from a piece to the next; where it is so much of all variance, one lag is
# kept at least: then the sum holds none of it, however well it is known.
NOTABLE_SHARE = 0.1


@dataclass(frozen=True)
class Pieces:
    """What the pieces of one stretch tell.

    Args:
        count: Pieces.
        length_s: Duration of each.
        sums_w2: Sums of the products of deviations from their mean, of pieces 0, 1, ... apart.
        own_w2: What the meter's moments and step add to the variance of a piece.
        slope_w_s: Slope of the straight line that fits best, in W/s.
        own_slope2: What the meter's moments and step add to the variance of the slope.
        ends_slope2: Likewise, the moments of the first and the last edge.
    """

    count: int
    length_s: float
    sums_w2: tuple[float, ...]
    own_w2: float = 0.0
    slope_w_s: float = 0.0
    own_slope2: float = 0.0
    ends_slope2: float = 0.0

    @property
    def variance_w2(self) -> float:
        """The variance of a piece."""
        return self.sums_w2[0] / (self.count - 1) if self.count > 1 else 0.0

    @property
    def slope_s3(self) -> float:
        """What the variance of the slope is the long-run variance divided by."""
        return max(1, self.count**2 - 1) * self.count * self.length_s**3 / 12


@dataclass(frozen=True)
class LongRun:
    """A long-run variance.

    Args:
        w2_s: Its value: the variance of a mean times the mean's duration; not negative.
        freedom: Degrees of freedom of the estimate: twice its square over its squared error.
        lags: So many pieces away the power is still remembered.
        squared_error: Of the value.
        most_freedom: Degrees of freedom if the meter added nothing.
    """

    w2_s: float
    freedom: float
    lags: int
    squared_error: float = 0.0
    most_freedom: float = 0.0


NOTHING = Pieces(0, 0.0, (0.0,))


def pieces_of(
    means_w: Sequence[float], length_s: float, own_w2: float = 0.0, ends_w2: float = 0.0
) -> Pieces:
    """Return what consecutive pieces of a stretch tell.

    Args:
        means_w: Mean power of each.
        length_s: Duration of a piece.
        own_w2: What the meter's moments and step add to the variance of a piece, in W^2.
        ends_w2: What the moments of the first and the last edge add to those of their pieces.
    """
    count = len(means_w)
    if count < 2:
        return NOTHING
    center = sum(means_w) / count
    left = [mean - center for mean in means_w]
    sums = tuple(
        sum(a * b for a, b in zip(left, left[lag:])) for lag in range(min(MAX_LAG + 1, count - 1))
    )
    middle = (count - 1) / 2
    slope = sum((i - middle) * value for i, value in enumerate(left))
    scale = 12 / (length_s * count * (count**2 - 1))
    # A moment that is late gives to one piece what it takes from the next; at an end there is none.
    own, ends = scale**2 * (count - 1) * own_w2 / 2, scale**2 * middle**2 * ends_w2
    return Pieces(count, length_s, sums, own_w2, scale * slope, own, ends)


def long_run(stretches: Sequence[Pieces]) -> LongRun:
    """Return the long-run variance of the power that several stretches are pieces of."""
    known = [stretch for stretch in stretches if stretch.count > 1]
    total = sum(stretch.count for stretch in known)
    if not known:
        return LongRun(0.0, 0.0, 0)
    own_w2 = sum(stretch.count * stretch.own_w2 for stretch in known) / total
    chance = CHANCE / math.sqrt(total)
    lags, most = 0, 0
    while most < MAX_LAG and _about_free(known, most + 1) >= MIN_FREEDOM:
        most += 1
    if most > 0 and own_w2 > NOTABLE_SHARE * (own_w2 + max(0.0, _covariances(known, 0)[0])):
        lags = 1
    while lags < most:
        near = max(0.0, _covariances(known, lags)[0]) + own_w2
        ahead = [_covariances(known, lag)[lag] for lag in range(lags + 1, min(lags + 2, most) + 1)]
        if near <= 0 or all(covariance <= chance * near for covariance in ahead):
            break
        lags += 1
    found = _covariances(known, lags)
    length = sum(stretch.count * stretch.length_s for stretch in known) / total
    value = length * (found[0] + 2 * sum(found[1:]))
    if value <= 0:
        # Nothing but what the meter adds.
        freedom = _freedom(known, [1.0], 0.0)
        most_w2_s = length * (max(0.0, found[0]) + own_w2)
        error = 2 * most_w2_s**2 / freedom if freedom > 0 else 0.0
        return LongRun(0.0, LEAST_FREEDOM if error else freedom, lags, error, freedom)
    freedom = max(LEAST_FREEDOM, _freedom(known, found, own_w2))
    most_freedom = max(freedom, _freedom(known, found, 0.0))
    return LongRun(value, freedom, lags, 2 * value**2 / freedom, most_freedom)


def levelled(stretch: Pieces, slope2_w2_s2: float) -> Pieces:
    """Return what pieces tell without a slope of that square, which is no fluctuation."""
    rise2 = slope2_w2_s2 * stretch.length_s**2
    sums = []
    for lag, value in enumerate(stretch.sums_w2):
        terms = stretch.count - lag
        # The sum of (i - middle) (i + lag - middle).
        squares = terms * (terms**2 - 1) / 12 - terms * lag**2 / 4
        sums.append(value - rise2 * squares)
    return replace(stretch, sums_w2=tuple(sums))


def _about_free(stretches: Sequence[Pieces], lags: int) -> float:
    return sum(max(0.0, stretch.count / (2 * lags + 1) - 1) for stretch in stretches)


def _freedom(stretches: Sequence[Pieces], covariances: Sequence[float], own_w2: float) -> float:
    """Return the degrees of freedom of what several stretches tell, as if of one lag more.

    Args:
        stretches: The stretches.
        covariances: Of pieces 0, 1, ... apart.
        own_w2: What the meter adds to the variance of a piece.
    """
    found: dict[int, float] = {}
    lags = len(covariances)
    for count in {stretch.count for stretch in stretches}:
        if count < 2 * lags + 2:
            # Too short for one more lag: what it adds is little.
            found[count] = max(0.0, count / (2 * lags - 1) - 1) if lags > 1 else count - 1.0
            if own_w2 > 0:
                found[count] *= (covariances[0] / (covariances[0] + own_w2)) ** 2
            continue
        near = min(count, MAX_EXACT)
        squares = _squares(near, lags, covariances)
        scattered = [*covariances, 0.0]
        scattered[0] += own_w2
        scattered[1] -= own_w2 / 2
        all_squares = _squares(near, lags, scattered) if own_w2 > 0 else squares
        if all_squares <= 0:
            found[count] = 0.0
        elif count > MAX_EXACT:
            found[count] = (count / (2 * lags + 1) - 1) * squares / all_squares
        else:
            found[count] = (covariances[0] + 2 * sum(covariances[1:])) ** 2 / all_squares
    return sum(found[stretch.count] for stretch in stretches)


def _squares(count: int, lags: int, covariances: Sequence[float]) -> float:
    """Return tr(Q G Q G), half the variance of the estimate from a stretch of so many pieces."""
    size = lags + 1
    expected = _expected(count)
    # The weights of the sums of products: transposed equations.
    weights = _solved(
        [[expected[k][j] for k in range(size)] for j in range(size)], [1.0] + [2.0] * (size - 1)
    )
    form = [
        [
            (weights[abs(i - j)] / (1 if i == j else 2)) if abs(i - j) < size else 0.0
            for j in range(count)
        ]
        for i in range(count)
    ]
    means = [sum(row) / count for row in form]
    mean = sum(means) / count
    near = range(1 - len(covariances), len(covariances))
    product = [
        [
            sum(
                (form[i][j + k] - means[i] - means[j + k] + mean) * covariances[abs(k)]
                for k in near
                if 0 <= j + k < count
            )
            for j in range(count)
        ]
        for i in range(count)
    ]
    return sum(product[i][j] * product[j][i] for i in range(count) for j in range(count))


def _covariances(stretches: Sequence[Pieces], lags: int) -> list[float]:
    """Return the covariances of pieces 0, ..., `lags` apart, those beyond being 0."""
    size = lags + 1
    used = [s for s in stretches if len(s.sums_w2) >= size and s.count >= 2 * lags + 2]
    matrix = [[0.0] * size for _ in range(size)]
    right = [sum(stretch.sums_w2[k] for stretch in used) for k in range(size)]
    for count, number in Counter(stretch.count for stretch in used).items():
        expected = _expected(count)
        own_w2 = sum(stretch.own_w2 for stretch in used if stretch.count == count)
        for k in range(size):
            # What moments add alternates between neighbours, half of it each.
            right[k] -= own_w2 * (expected[k][0] - (expected[k][1] / 2 if size > 1 else 0.0))
            for j in range(size):
                matrix[k][j] += number * expected[k][j]
    return _solved(matrix, right)


# The same few counts come back with every visit, while the device should be idle.
@lru_cache(maxsize=256)
def _expected(count: int) -> tuple[tuple[float, ...], ...]:
    """Return B: what covariances add to the expected sums of products around the own mean."""
    rows = []
    for k in range(MAX_LAG + 2):
        terms = count - k
        row = []
        for j in range(MAX_LAG + 2):
            pairs = count if j == 0 else 2 * (count - j)
            # How often pieces of the first and the last `terms` have another one j apart.
            inside = terms if j == 0 else min(terms, count - j) + max(0, terms - j)
            row.append(terms * ((k == j) + pairs / count**2) - 2 * inside / count)
        rows.append(tuple(row))
    return tuple(rows)


def _solved(matrix: list[list[float]], right: list[float]) -> list[float]:
    """Return the solution of linear equations, by elimination with pivots; zeros for none."""
    size = len(right)
    rows = [[*row, value] for row, value in zip(matrix, right)]
    for k in range(size):
        pivot = max(range(k, size), key=lambda i: abs(rows[i][k]))
        rows[k], rows[pivot] = rows[pivot], rows[k]
        if abs(rows[k][k]) < 1e-12:
            return [0.0] * size
        for i in range(k + 1, size):
            factor = rows[i][k] / rows[k][k]
            rows[i] = [a - factor * b for a, b in zip(rows[i], rows[k])]
    found = [0.0] * size
    for k in reversed(range(size)):
        rest = sum(rows[k][j] * found[j] for j in range(k + 1, size))
        found[k] = (rows[k][size] - rest) / rows[k][k]
    return found

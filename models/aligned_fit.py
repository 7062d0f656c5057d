"""How the aligned model's rates, divisor, block and complexity are found in measurements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from joulemap import InputError

from .aligned_terms import COMPLEXITIES, TermTable, columns_of, functions_of
from .intervals import FOLDS, SMALLEST_SCALE, FloatArray, assign_folds
from .linear import fit_nonnegative

# ECC's bilinear model, with squared relative errors and with squared absolute ones.
BILINEAR_RELATIVE, BILINEAR_ABSOLUTE = -1, -2
# The terms that divisor and block are compared with.
SEARCH_COMPLEXITY = COMPLEXITIES.index("memory")
# A larger divisor or block must lower the error by this share to be believed.
LEAST_GAIN = 0.02
ITERATIONS = 6
# Enough to compare divisors and blocks.
ROUGH = 3
# From so many rows on the non-negative fit works on a triangular factor.
MANY_ROWS = 2000
# Huber's constant, for 95 % efficiency at normal errors, and the scale of a median deviation.
HUBER = 1.345
MEDIAN_TO_SD = 1.4826


@dataclass(frozen=True)
class Candidate:
    """A structure of the model: divisor, block, and index of the complexity."""

    divisor: int
    block: int
    complexity: int

    @property
    def numbers(self) -> tuple[int, int, int]:
        """The three as numbers, as files hold them."""
        return self.divisor, self.block, self.complexity

    @property
    def is_bilinear(self) -> bool:
        """Whether it is ECC's form, without layers and regimes."""
        return self.complexity < 0


class Design:
    """The regression's columns for some rows of widths, made once per divisor and block.

    Args:
        table: The network's terms.
        X: Widths, shape (n, k).
    """

    def __init__(self, table: TermTable, X: FloatArray) -> None:
        self.table, self.X = table, X
        self._columns: dict[tuple[int, int], FloatArray] = {}
        self._chosen: dict[Candidate, tuple[FloatArray, np.ndarray]] = {}

    def columns(self, candidate: Candidate) -> tuple[FloatArray, np.ndarray]:
        """Return the columns of a candidate, shape (n, q), and which terms they are, shape (q,).

        A column that is zero or a multiple of an earlier one says nothing and is left out: so a
        regime without a row takes the rates of all layers.
        """
        if candidate not in self._chosen:
            self._chosen[candidate] = self._choose(candidate)
        return self._chosen[candidate]

    def _choose(self, candidate: Candidate) -> tuple[FloatArray, np.ndarray]:
        key = (1, 1) if candidate.is_bilinear else (candidate.divisor, candidate.block)
        if key not in self._columns:
            functions = functions_of(self.table, self.X, *key)
            self._columns[key] = columns_of(self.table.terms, functions)
        wanted = [
            number
            for number, term in enumerate(self.table.terms)
            if _takes_part(term.complexity, candidate)
            and (term.regime == "all" or candidate.divisor > 1)
        ]
        columns = self._columns[key][:, wanted]
        kept = independent(columns)
        return columns[:, kept], np.array(wanted)[kept]


def fit_candidate(
    design: Design,
    y: FloatArray,
    weights: FloatArray,
    candidate: Candidate,
    quantile: float | None,
    rows: np.ndarray | slice = slice(None),
    iterations: int = ITERATIONS,
) -> FloatArray:
    """Return the rates of all terms, shape (p,), >= 0, fitted on some rows.

    Args:
        design: The columns.
        y: Cost of all rows, shape (n,).
        weights: Of squared relative errors, shape (n,), positive.
        candidate: Which columns take part.
        quantile: The quantile of relative errors to fit; None for the middle.
        rows: Which rows.
        iterations: Of reweighting.
    """
    columns, numbers = design.columns(candidate)
    columns, y, weights = columns[rows], y[rows], weights[rows]
    if candidate.is_bilinear:
        if candidate.complexity == BILINEAR_RELATIVE:
            weights = weights / scale_of(y, weights) ** 2
        # The first term is the constant.
        intercept, others = fit_nonnegative(columns[:, 1:], y, weights)
        found = np.concatenate([[intercept], others])
    else:
        found = fit_robust(columns, y, weights, quantile, iterations)
    rates = np.zeros(len(design.table.terms))
    rates[numbers] = found
    return rates


def scale_of(y: FloatArray, weights: FloatArray) -> FloatArray:
    """Return what errors of costs y (n,) are relative to, shape (n,): their size, never 0."""
    mean = float(np.average(np.abs(y), weights=weights))
    return np.maximum(np.abs(y), SMALLEST_SCALE * mean if mean > 0 else 1.0)


def select(
    design: Design,
    y: FloatArray,
    weights: FloatArray,
    divisors: Sequence[int],
    blocks: Sequence[int],
    complexities: Sequence[int],
    quantile: float | None,
) -> tuple[Candidate, FloatArray]:
    """Return the structure that predicts held-out rows best, and what was compared, shape (m, 4).

    Divisor and block together, then the complexity, each by the mean relative error over folds;
    of divisors and blocks the smallest that are nearly as good as the best.

    Args:
        design: The columns.
        y: Cost, shape (n,).
        weights: Of squared relative errors, shape (n,), positive.
        divisors: Divisors to compare, ascending; likewise the other two.
        blocks: Blocks.
        complexities: Indices of complexities, simplest first; negative is bilinear.
        quantile: As in `fit_candidate`.
    """
    folds, distinct = assign_folds(design.X, FOLDS)
    errors: dict[Candidate, float] = {}

    def error_of(candidate: Candidate, iterations: int) -> float:
        error = _held_out_error(design, y, weights, candidate, quantile, folds, iterations)
        errors[candidate] = error
        return error

    if distinct < 2 or len(divisors) * len(blocks) * len(complexities) == 1:
        return Candidate(divisors[0], blocks[0], complexities[0]), np.empty((0, 4))
    layered = [complexity for complexity in complexities if complexity >= 0]
    search = SEARCH_COMPLEXITY if SEARCH_COMPLEXITY in layered or not layered else layered[0]
    divisor, block = 1, 1
    if layered:
        # All pairs, since padding to blocks looks like divisibility where the block is not known.
        pairs = [Candidate(d, b, search) for d in divisors for b in blocks]
        found = smallest_of_the_best(pairs, [error_of(pair, ROUGH) for pair in pairs])
        divisor, block = found.divisor, found.block
    finals = [
        Candidate(1, 1, index) if index < 0 else Candidate(divisor, block, index)
        for index in complexities
    ]
    best = min(finals, key=lambda candidate: error_of(candidate, ITERATIONS))
    return best, np.array([[*candidate.numbers, error] for candidate, error in errors.items()])


def smallest_of_the_best(candidates: Sequence[Candidate], errors: Sequence[float]) -> Candidate:
    """Return the first candidate whose error is nearly that of the best."""
    limit = min(errors) * (1 + LEAST_GAIN)
    return next(c for c, error in zip(candidates, errors, strict=True) if error <= limit)


def _held_out_error(
    design: Design,
    y: FloatArray,
    weights: FloatArray,
    candidate: Candidate,
    quantile: float | None,
    folds: np.ndarray,
    iterations: int,
) -> float:
    predicted = np.empty_like(y)
    columns, numbers = design.columns(candidate)
    for fold in range(folds.max() + 1):
        test = folds == fold
        rates = fit_candidate(design, y, weights, candidate, quantile, ~test, iterations)
        predicted[test] = columns[test] @ rates[numbers]
    # Bounded: one absurd label must not decide.
    errors = np.minimum(np.abs(predicted - y) / scale_of(y, weights), 1.0)
    return float(np.average(errors, weights=weights))


def fit_robust(
    columns: FloatArray,
    y: FloatArray,
    weights: FloatArray,
    quantile: float | None,
    iterations: int,
) -> FloatArray:
    """Return rates (q,) >= 0 that minimise Huber's (or the quantile) loss of relative errors.

    By iteratively reweighted non-negative least squares. Errors are relative to the mean of cost
    and prediction, which bounds what an absurd label can do, from the first iteration on.

    Args:
        columns: Shape (n, q).
        y: Cost, shape (n,).
        weights: Shape (n,), positive.
        quantile: As in `fit_candidate`.
        iterations: Of reweighting.

    Raises:
        InputError: The fit does not converge.
    """
    smallest = float(scale_of(y, weights).min())
    predicted = np.full(len(y), _weighted_median(np.abs(y), weights))
    robust = np.ones(len(y))
    # A column may be zero in these rows alone.
    scales = np.linalg.norm(columns, axis=0)
    scales[scales == 0] = 1.0
    normal = columns / scales
    y_scale = float(np.abs(y).max()) or 1.0
    rates = np.zeros(columns.shape[1])
    for _ in range(iterations):
        spread = np.maximum((np.abs(y) + np.abs(predicted)) / 2, smallest)
        root = np.sqrt(weights / weights.mean() * robust) / spread * y_scale
        try:
            rates, _ = nnls(*_reduced(normal * root[:, None], y / y_scale * root))
        except RuntimeError as error:
            raise InputError(f"the non-negative fit did not converge: {error}") from error
        rates = rates * y_scale
        predicted = normal @ rates
        errors = (y - predicted) / np.maximum((np.abs(y) + np.abs(predicted)) / 2, smallest)
        size = np.abs(errors)
        typical = max(HUBER * MEDIAN_TO_SD * _weighted_median(size, weights), 1e-9)
        robust = np.minimum(1.0, typical / np.maximum(size, 1e-300))
        if quantile is not None:
            robust *= np.where(errors > 0, quantile, 1 - quantile)
    return np.asarray(rates / scales)


def _reduced(matrix: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return a problem with the same least squares; of many rows the triangle that they leave."""
    if len(matrix) < MANY_ROWS:
        return matrix, y
    triangle = np.asarray(np.linalg.qr(np.column_stack([matrix, y]), mode="r"))
    return triangle[:, :-1], triangle[:, -1]


def _weighted_median(values: FloatArray, weights: FloatArray) -> float:
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    return float(values[order][int(np.searchsorted(reached, reached[-1] / 2 * (1 - 1e-9)))])


def _takes_part(complexity: int | None, candidate: Candidate) -> bool:
    if complexity is None:
        return True
    if candidate.is_bilinear:
        return complexity < 0
    return 0 <= complexity <= candidate.complexity


def independent(columns: FloatArray) -> list[int]:
    """Return which columns are neither zero nor a multiple of an earlier one."""
    norms = np.linalg.norm(columns, axis=0)
    normal = columns / np.where(norms > 0, norms, 1.0)
    cosines = normal.T @ normal
    kept: list[int] = []
    for number in range(columns.shape[1]):
        if norms[number] > 0 and (not kept or cosines[number, kept].max() < 1 - 1e-12):
            kept.append(number)
    return kept
